"""The parts of `scripts/bench/gpu.sh`: what a GPU gives, beside the CPU, and how well it is used.

python scripts/bench/gpu.py {reference,correct,sweep} --out FOLDER [--dry]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import rvis
from rvis import attacks, attribution, files, kernels, objectives
from scripts.bench import roofline

NETWORKS = ("resnet18", "googlenet", "vit_small_patch16_224")
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "T4": 65e12}
"""{word of a card's name: its makers' operations a second, dense, in bfloat16 (T4: float16)}."""


def computed(dry: bool) -> dict[str, np.ndarray]:
    """Gradients of three families, and an attack, in full precision."""
    found = {}
    for name in NETWORKS[:1] if dry else NETWORKS:
        model = rvis.load(name, weights="random").astype(precision="highest")
        noise = np.random.default_rng(0).uniform(size=(2, 64, 64, 3) if dry else (2, 224, 224, 3))
        images = noise.astype(np.float32)
        maps = attribution.gradient(model, images, [3, 7], progress=False).maps
        found[name] = np.asarray(maps)
    model = rvis.load("cifar10_resnet").astype(precision="highest")
    images = np.random.default_rng(1).uniform(size=(16, 32, 32, 3)).astype(np.float32)
    labels = np.asarray(model(images)).argmax(1)
    attack = attacks.pgd(model, images, labels, eps=1 / 255, steps=10, progress=False)
    return found | {"attack": attack.losses, "success": attack.success.astype(np.float32)}


def correct(out: Path, dry: bool) -> int:
    """Compares with what a CPU wrote as `reference.npz`; 1 where it is not the same."""
    with np.load(out / "reference.npz") as stored:
        expected = dict(stored)
    found = computed(dry)
    apart = {
        name: float(np.linalg.norm(found[name] - right) / (np.linalg.norm(right) + 1e-30))
        for name, right in expected.items()
    }
    files.write_json(out / "correct.json", apart)
    print(json.dumps(apart))
    return int(max(apart.values()) > 1e-3)


def sweep(out: Path, dry: bool) -> int:
    """512 units of InceptionV1, by how many are drawn at once and by precision."""
    units, size, steps = (8, 64, 2) if dry else (512, 128, 32)
    layer, kind = "mixed4c", jax.devices()[0].device_kind
    plain = rvis.load("inceptionv1", weights="random")
    with kernels.stock():
        _, cost = roofline.passes(plain, objectives.channel(layer, 0), size)
    peak = next((rate for word, rate in PEAKS.items() if word in kind), None)
    rows: list[dict[str, Any]] = []
    for precision, model in {
        "float32": plain.astype(precision="highest"),
        "bfloat16": plain.astype("bfloat16"),
    }.items():
        for width in (2, 4, 8) if dry else (64, 128, 256):
            options: dict[str, Any] = {"steps": steps, "size": size, "chunk": width}
            taken = []
            for _ in range(2):
                started = time.perf_counter()
                rvis.sweep(model, layer, range(units), progress=False, **options)
                taken.append(time.perf_counter() - started)
            rate = units * steps / taken[-1]
            row: dict[str, Any] = {
                "precision": precision,
                "width": width,
                "first s": taken[0],
                "s": taken[-1],
            }
            row |= {"steps a second": rate, "operations a second": rate * cost}
            row["of peak"] = None if peak is None else rate * cost / peak
            rows.append(row)
            print(json.dumps(row), flush=True)
    about = {"device": kind, "jax": jax.__version__, "units": units, "pixels": size}
    files.write_json(out / "sweep.json", about | {"steps": steps, "rows": rows})
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Runs one part; the exit status."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("part", choices=("reference", "correct", "sweep"))
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--dry", action="store_true", help="as little as shows that all parts work")
    a = p.parse_args(arguments)
    a.out.mkdir(parents=True, exist_ok=True)
    if a.part == "reference":
        np.savez(a.out / "reference.npz", **computed(a.dry))  # type: ignore[arg-type]
        return 0
    return (correct if a.part == "correct" else sweep)(a.out, a.dry)


if __name__ == "__main__":
    sys.exit(main())
