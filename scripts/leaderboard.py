"""Which attribution method is best, by which measure? Methods × measures × networks.

Command:  python scripts/leaderboard.py IMAGES [--models …] [--methods …] [--images 24]
Time:     on one core ten minutes for two networks of 32 pixels, a quarter of an hour for ten
          methods on one of 224; minutes with `--methods gradient grad_cam lrp`.
Prints:   for each network a table: a row for each method, a column for each measure, each cell a
          mean over the images with its 95 % interval; in the last column the sanity check: the mean
          rank correlation with the maps of a network whose weights are all noise, and FAILS where
          its interval reaches .5. `--json` takes the numbers; networks that it holds already stay.
IMAGES is a folder of photographs, or what `rvis.data.load` reads. The target is each network's own
first choice.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import rvis
from rvis import attribution, files
from rvis.__main__ import reported
from rvis.analysis import metrics

QUIET: dict[str, Any] = {"progress": False}
STEPS = 12
"""Of each curve; every measure asks a model about so many times, but for 32 random sets."""


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
        "rise": {"key": seed, "samples": 500, "baseline": 0.5},
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
    pixels = -(-images.shape[1] * images.shape[2] // STEPS)
    places = np.indices(images.shape[1:3]) // (images.shape[1] // 4)
    segments = places[0] * (places[1].max() + 1) + places[1]
    road = metrics.road(*asked, **QUIET)
    judged = {
        "deletion ↓": metrics.deletion(*asked, pixels=pixels, **QUIET).area,
        "insertion ↑": metrics.insertion(*asked, pixels=pixels, **QUIET).area,
        "road ↓": road.scores[:, 1:].mean(1),
        "irof ↑": 1 - metrics.irof(*asked, segments=segments, **QUIET).area,
        "faithful ↑": metrics.faithfulness_correlation(
            *asked, baseline="mean", samples=32, **QUIET
        ),
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


def summary(values: np.ndarray) -> metrics.Interval | None:
    """A mean with its interval, of the images where there is a value."""
    own = np.asarray(values, np.float64)
    return metrics.mean(own[np.isfinite(own)]) if np.isfinite(own).any() else None


def fails(interval: metrics.Interval | None) -> bool:
    """Whether a map may be as much like one of an untrained network as not."""
    return interval is not None and interval.high >= 0.5


def board(
    name: str, model: rvis.Model, images: np.ndarray, a: argparse.Namespace
) -> dict[str, dict[str, metrics.Interval | None]]:
    """Prints one network's table; {method: {measure: its mean and interval}}."""
    classes = np.argmax(np.asarray(model(images)), -1)
    known = methods(min(images.shape[1:3]), a.seed)
    chosen = [rvis.checks.choice("--methods", m, known) for m in a.methods or known]
    table: dict[str, dict[str, metrics.Interval | None]] = {}
    for method in chosen:
        found = measured(model, known[method], images, classes)
        judged = {measure: summary(values) for measure, values in found.items()}
        if not table:
            print(f"\n{name}, {len(images)} images\n\n| method | " + " | ".join(judged) + " |")
            print("|---" * (len(judged) + 1) + "|")
        cells = [f"{own:.2f}" if own else "–" for own in judged.values()]
        cells[-1] += " FAILS" if fails(judged["sanity ↓"]) else ""
        print(f"| {method} | " + " | ".join(cells) + " |", flush=True)
        table[method] = judged
    return table


def read(path: Path, model: rvis.Model, count: int) -> np.ndarray:
    """The first images as the model takes them."""
    files = sorted(f for f in path.glob("*") if f.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if path.is_dir() and files:
        return np.asarray(model.prepare(files[:count]))
    data = rvis.data.load(path, "test").images[:count]
    return np.asarray(data, np.float32) / (255 if data.dtype == np.uint8 else 1)


@reported()
def main(arguments: list[str] | None = None) -> int:
    """Prints the tables; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("data", type=Path)
    p.add_argument("--models", nargs="+", default=["cifar10_resnet", "cifar10_resnet_robust"])
    p.add_argument("--pretrained", action="store_true", help="fetches architectures' weights")
    p.add_argument("--methods", nargs="+", help="of those that it has; all by default")
    p.add_argument("--images", type=int, default=24)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--json", type=Path, help="a file for the numbers")
    a = p.parse_args(arguments)
    rvis.checks.count("--images", a.images)
    held: dict[str, Any] = {}
    if a.json is not None and a.json.exists():
        held = json.loads(a.json.read_text(encoding="utf-8"))
    for name in a.models:
        model = rvis.load(name, pretrained=a.pretrained)
        images = read(a.data, model, a.images)
        table = board(name, model, images, a)
        about = {"date": datetime.date.today().isoformat(), "images": len(images)}
        held[name] = {**about, "seed": a.seed, "methods": table}
        if a.json is not None:
            files.write_json(a.json, held)
    return 0


if __name__ == "__main__":
    rvis.keep_programs()
    sys.exit(main())
