"""Which attribution method is best, by which measure? Methods × measures × networks.

Command:  python scripts/leaderboard.py IMAGES [--models …] [--methods …] [--images 24]
Time:     for two networks of 32 pixels and 24 images an hour on two cores; minutes with
          `--methods gradient grad_cam lrp`.
Prints:   for each network a table: a row for each method, a column for each measure, each cell a
          mean over the images with its 95 % interval; in the last column the sanity check: the mean
          rank correlation with the maps of a network whose weights are all noise, and FAILS where
          its interval reaches .5. `leaderboard.json` in `--out` holds the numbers.
IMAGES is a folder of photographs, or what `rvis.data.load` reads. The target is each network's own
first choice.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import rvis
from rvis import attribution
from rvis.analysis import metrics

QUIET: dict[str, Any] = {"progress": False}


def methods(side: int, seed: int) -> dict[str, Callable[..., Any]]:
    """{method: a function of (model, images, target)}."""
    patch = {"players": max(1, side // 8), "baseline": 0.5, "key": seed}
    options: dict[str, dict[str, Any]] = {
        "gradient": {},
        "input_x_gradient": {},
        "integrated_gradients": {"tol": None},
        "guided_integrated_gradients": {"steps": 50},
        "blur_integrated_gradients": {"steps": 50},
        "smoothgrad": {"key": seed},
        "guided_backprop": {},
        "deep_lift": {},
        "full_gradient": {},
        "lrp": {},
        "grad_cam": {},
        "grad_cam_plus": {},
        "layer_cam": {},
        "eigen_cam": {},
        "score_cam": {},
        "occlusion": {"window": max(2, side // 5), "stride": max(1, side // 16), "baseline": 0.5},
        "rise": {"key": seed, "samples": 1000, "baseline": 0.5},
        "kernel_shap": {**patch, "samples": 500},
    }
    own = {
        name: functools.partial(getattr(attribution, name), **QUIET, **given)
        for name, given in options.items()
    }

    def chance(model: rvis.Model, images: np.ndarray, target: Any) -> np.ndarray:
        return np.random.default_rng(seed).random(images.shape[:3])

    return {"random": chance, **own}


def measured(
    model: rvis.Model, method: Callable[..., Any], images: np.ndarray, classes: np.ndarray
) -> dict[str, np.ndarray]:
    """{measure: (n,)} of one method's maps."""
    found = method(model, images, classes)
    maps = found.heatmaps() if isinstance(found, attribution.Attribution) else np.asarray(found)
    asked: tuple[Any, ...] = (model, images, maps, classes)
    side = max(1, images.shape[1] // 16)
    pixels = max(images.shape[2], images.shape[1] * images.shape[2] // 64)
    places = np.indices(images.shape[1:3]) // (4 * side)
    segments = places[0] * (places[1].max() + 1) + places[1]
    road = metrics.road(*asked, **QUIET)
    judged = {
        "deletion ↓": metrics.deletion(*asked, pixels=pixels, **QUIET).area,
        "insertion ↑": metrics.insertion(*asked, pixels=pixels, **QUIET).area,
        "road ↓": road.scores[:, 1:].mean(1),
        "irof ↑": 1 - metrics.irof(*asked, segments=segments, **QUIET).area,
        "faithful ↑": metrics.faithfulness_correlation(*asked, baseline="mean", **QUIET),
        "monotone ↑": metrics.monotonicity(*asked, pixels=pixels, **QUIET),
        "gini": metrics.sparseness(maps),
        "entropy": metrics.complexity(maps),
    }
    noise = metrics.randomised(model, metrics.modules(model))
    other = method(noise, images, classes)
    empty = other.heatmaps() if isinstance(other, attribution.Attribution) else np.asarray(other)
    alike = np.abs(metrics.spearman(maps, empty))
    constant = (np.ptp(maps, (1, 2)) == 0) | (np.ptp(empty, (1, 2)) == 0)
    judged["sanity ↓"] = np.where(constant, np.nan, alike)
    return judged


def shown(values: np.ndarray, sanity: bool) -> str:
    """A mean with its interval, of the images where there is one."""
    own = values[np.isfinite(values)]
    if not own.size:
        return "–"
    interval = metrics.mean(own)
    fails = " FAILS" if sanity and interval.high >= 0.5 else ""
    return f"{interval:.2f}{fails}"


def board(
    name: str, model: rvis.Model, images: np.ndarray, a: argparse.Namespace
) -> dict[str, Any]:
    """Prints one network's table; its numbers."""
    classes = np.argmax(np.asarray(model(images)), -1)
    known = methods(min(images.shape[1:3]), a.seed)
    chosen = [rvis.checks.choice("--methods", m, known) for m in a.methods or known]
    table: dict[str, Any] = {}
    for method in chosen:
        judged = measured(model, known[method], images, classes)
        if not table:
            print(f"\n{name}, {len(images)} images\n\n| method | " + " | ".join(judged) + " |")
            print("|---" * (len(judged) + 1) + "|")
        cells = (shown(values, m.startswith("sanity")) for m, values in judged.items())
        print(f"| {method} | " + " | ".join(cells) + " |", flush=True)
        table[method] = {m: np.asarray(values).tolist() for m, values in judged.items()}
    return table


def read(path: Path, model: rvis.Model, count: int) -> np.ndarray:
    """The first images as the model takes them."""
    files = sorted(f for f in path.glob("*") if f.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if path.is_dir() and files:
        return np.asarray(model.prepare(files[:count]))
    data = rvis.data.load(path, "test").images[:count]
    return np.asarray(data, np.float32) / (255 if data.dtype == np.uint8 else 1)


def main(arguments: list[str] | None = None) -> int:
    """Prints the tables; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("data", type=Path)
    p.add_argument("--models", nargs="+", default=["cifar10_resnet", "cifar10_resnet_robust"])
    p.add_argument("--pretrained", action="store_true", help="fetches architectures' weights")
    p.add_argument("--methods", nargs="+", help="of those that it has; all by default")
    p.add_argument("--images", type=int, default=24)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", type=Path, default=Path("out", "leaderboard"))
    a = p.parse_args(arguments)
    try:
        rvis.checks.count("--images", a.images)
        tables = {}
        for name in a.models:
            model = rvis.load(name, pretrained=a.pretrained)
            tables[name] = board(name, model, read(a.data, model, a.images), a)
        a.out.mkdir(parents=True, exist_ok=True)
        (a.out / "leaderboard.json").write_text(json.dumps(tables, indent=1), encoding="utf-8")
    except (ValueError, TypeError, OSError, ImportError, FloatingPointError) as error:
        print(f"{p.prog}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{p.prog}: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
