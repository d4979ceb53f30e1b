"""Two images that a network cannot tell apart: do they look alike? Standard against robust.

Command:  python scripts/match.py DATA [--models STANDARD ROBUST] [--judge MODEL] [--out FOLDER]
Time:     five minutes a network for 50 pairs of 32 pixels on two cores.
Prints:   for each network, over pairs (x1, x2) of different classes, with 95 % bootstrap intervals:
          how much of the distance |R(x1) - R(x2)| is left at x', the share of pairs where that is
          below a tenth, and how near x' is to x1 and to x2 in pixels (L2) and SSIM, with the shares
          of pairs that stay nearer to x1 in both; with a judge, a network that shares nothing with
          the others, in how many x' it sees the class of x1, and that of x2; then the paired
          differences, robust less standard. Writes, for each network, `MODEL_pairs.png` (x1, x',
          x2), `MODEL_path.png` (interpolations in R), `MODEL_units.png` (single coordinates of R
          raised without any regularizer, from noise and added to a real image), and `match.json`.
DATA is what `rvis.data.load` reads. Ctrl-C is safe: the same command
goes on with the network that was interrupted; the ones before it are run again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

import rvis
from rvis import files, objectives, optimizers
from rvis.__main__ import reported
from rvis.analysis import metrics, representations
from rvis.inversion import Matching, interpolate, match
from rvis.plotting import grids

_SHOWN = 8
_UNIT_STEP = 0.5


def pairs(data: rvis.data.Dataset, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of two rows of `count` images; those of a pair are of different classes."""
    rng = np.random.default_rng(seed)
    first = rng.permutation(len(data))[:count]
    second = np.empty_like(first)
    for i, own in enumerate(first):
        others = np.flatnonzero(data.labels != data.labels[own])
        second[i] = others[rng.integers(len(others))]
    return first, second


def measured(
    found: Matching, labels: tuple[np.ndarray, np.ndarray], judge: rvis.Model | None
) -> dict[str, np.ndarray]:
    """What the table says of each pair, whose classes are `labels`."""
    to_source, to_target = found.to_source(), found.to_target()
    apart = representations.distances(found.sources, found.targets)
    unlike = representations.ssim(found.sources, found.targets)
    stays = (to_source["l2"] < to_target["l2"]) & (to_source["ssim"] > to_target["ssim"])
    seen = {}
    if judge is not None:
        told = np.asarray(judge(found.images)).argmax(-1)
        seen = {f"judged to be of x{i}'s class": told == own for i, own in enumerate(labels, 1)}
    return {
        "R-distance left": found.remaining,
        "below a tenth": found.remaining < 0.1,
        "L2 to x1": to_source["l2"],
        "L2 to x2": to_target["l2"],
        "SSIM to x1": to_source["ssim"],
        "SSIM to x2": to_target["ssim"],
        "nearer to x1 in both": stays,
        "L2 to x2 over that of x1": to_target["l2"] / apart,
        "SSIM to x2 less that of x1": to_target["ssim"] - unlike,
        **seen,
    }


def units(model: rvis.Model, layer: str, photo: np.ndarray, a: argparse.Namespace) -> Any:
    """Single coordinates of R raised from noise, and from a photograph, without a regularizer."""
    width = rvis.layer_shapes(model)[layer][-1]
    chosen = np.linspace(0, width - 1, _SHOWN).astype(int)
    rows = []
    for start in (None, photo):
        drawn = rvis.visualize(
            model,
            objectives.channel(layer, chosen),
            image="pixel",
            start=start,
            transforms=(),
            optimizer=optimizers.steepest(_UNIT_STEP),
            steps=a.unit_steps,
            key=a.seed,
            progress=not a.quiet,
        )
        rows.append(drawn.images)
    titles = [f"{layer}:{unit}" for unit in chosen]
    return grids.grid(rows, titles=titles, row_titles=["from noise", "added"])


@reported(goes_on=True)
def main(arguments: list[str] | None = None) -> int:
    """Matches, prints and draws; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("data", type=Path)
    p.add_argument("--models", nargs="+", default=["cifar10_resnet", "cifar10_resnet_robust"])
    p.add_argument("--split", default="test")
    p.add_argument("--layer", help="R, the penultimate layer by default")
    p.add_argument("--judge", help="a third network of the same classes")
    p.add_argument("--pairs", type=int, default=50)
    p.add_argument("--start", default="source", choices=("source", "noise", "grey"))
    p.add_argument("--steps", type=int, default=1000)
    p.add_argument("--step-size", type=float, default=0.2)
    p.add_argument("--eps", type=float, help="how far x' may go from its start (L2)")
    p.add_argument("--frames", type=int, default=9, help="of the interpolations; 0 for none")
    p.add_argument("--unit-steps", type=int, default=60, help="for single units; 0 for none")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    p.add_argument("--out", type=Path, default=Path("out", "match"))
    a = p.parse_args(arguments)
    models = [rvis.load(name) for name in a.models]
    names = [model.name for model in models]
    if len(set(names)) < len(names):
        raise ValueError(f"models: different names were expected, given {', '.join(names)}")
    data = rvis.data.load(a.data, a.split, size=models[0].input_shape[:2])
    rvis.checks.count("--pairs", a.pairs, low=2)
    judge = None if a.judge is None else rvis.load(a.judge)
    if judge is not None and judge.classes != data.classes:
        raise ValueError(f"judge: the classes of the data were expected, given {judge.classes}")
    numbers = pairs(data, min(a.pairs, len(data)), a.seed)
    first, second = map(data.floats, numbers)
    labels = data.labels[numbers[0]], data.labels[numbers[1]]
    options = {"steps": a.steps, "step_size": a.step_size, "eps": a.eps}
    options["progress"] = not a.quiet
    table: dict[str, dict[str, np.ndarray]] = {}
    for model in models:
        state = a.out / f"state_{model.name}"
        found = match(
            model,
            first,
            second,
            a.layer,
            start=a.start,
            key=a.seed,
            checkpoint=state,
            **options,
        )
        table[model.name] = measured(found, labels, judge)
        print(f"{model.name}, {found.layer}, {len(first)} pairs")
        for name, values in table[model.name].items():
            print(f"  {name:<28} {metrics.mean(values):.3f}")
        shown = np.stack([first, found.images, second], 1)[:_SHOWN]
        titles = ["x1", "x'", "x2"]
        grids.save(grids.grid(shown, titles=titles), a.out / f"{model.name}_pairs.png")
        if a.frames:
            path = interpolate(
                model, first[:_SHOWN], second[:_SHOWN], a.layer, frames=a.frames, **options
            )
            grids.save(path.show(), a.out / f"{model.name}_path.png")
        if a.unit_steps:
            grids.save(units(model, found.layer, first[0], a), a.out / f"{model.name}_units.png")
    if len(models) == 2:
        one, other = (table[model.name] for model in models)
        print(f"{models[1].name} less {models[0].name}, pair by pair")
        for name in one:
            gap = np.asarray(other[name], np.float64) - np.asarray(one[name], np.float64)
            print(f"  {name:<28} {metrics.mean(gap):+.3f}")
    files.write_json(
        a.out / "match.json",
        {"pairs": table, "arguments": {k: str(v) for k, v in vars(a).items()}},
    )
    print(a.out / "match.json")
    return 0


if __name__ == "__main__":
    rvis.keep_programs()
    sys.exit(main())
