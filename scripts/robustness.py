"""A network's accuracy against the radius of an attack, in each norm: figures and tables.

Command:  python scripts/robustness.py MODEL DATA [--beside MODEL …] --out FOLDER
Time:     about five minutes on two cores for a network, 500 images of CIFAR-10 and all three norms.
Prints:   a table for each norm and network: ε, the accuracy under attack, and its 95 % interval.
          FOLDER/NORM.png shows all networks; FOLDER/MODEL/NORM holds the plot, the arrays and the
          card of each. After Ctrl-C the same command goes on in the curve that it was drawing, and
          draws those before it anew; --norms leaves them out. With `--attack autoattack` it prints
          the accuracy after each of its attacks, and what casts doubt on them; FOLDER/MODEL then
          holds the attacked images.
DATA is what `rvis.data.load` reads; MODEL a name of `rvis.list_models()` or a path that `rvis.load`
reads.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

import rvis
from rvis import attacks
from rvis.__main__ import reported
from rvis.data import Dataset
from rvis.plotting import figures

GREY = {
    "linf": (0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4),
    "l2": (0, 0.5, 1, 1.5, 2, 2.5, 3, 4, 5),
    "l1": (0, 2, 4, 6, 8, 12, 16, 24, 32),
}
COLOUR = {
    "linf": tuple(k / 255 for k in (0, 1, 2, 3, 4, 6, 8, 12, 16)),
    "l2": (0, 0.125, 0.25, 0.375, 0.5, 0.75, 1, 1.5, 2),
    "l1": (0, 2, 4, 6, 8, 12, 16, 24, 32),
}
"""Radii for 28- and 32-pixel images."""


def radii(shape: tuple[int, int, int], norm: str) -> tuple[float, ...]:
    """Radii at which a network for images of `shape` may be worth looking at."""
    grey = shape[2] == 1
    ratio = shape[0] * shape[1] / (784 if grey else 1024)
    scale = {"linf": 1.0, "l2": ratio**0.5, "l1": ratio}[norm]
    return tuple(scale * eps for eps in (GREY if grey else COLOUR)[norm])


def measured(
    model: rvis.Model, test: Dataset, norm: str, a: argparse.Namespace
) -> attacks.RobustnessCurve:
    """A network's curve, which is written and printed."""
    curve = attacks.robustness(
        model,
        np.asarray(test.floats(np.arange(len(test)))),
        test.labels,
        epsilons=a.epsilons or radii(model.input_shape, norm),
        norm=norm,
        attack=a.attack,
        steps=a.steps,
        key=a.seed,
        checkpoint=a.out / model.name / f"{norm}.part",
        progress=not a.quiet,
    )
    curve.save(a.out / model.name / norm)
    print(f"{model.name}, {a.attack}, {norm}: clean {curve.clean:.1%} of {len(test)} images")
    columns = (curve.epsilons, curve.accuracies, curve.low, curve.high)
    for eps, accuracy, low, high in zip(*columns, strict=True):
        print(f"  eps {eps:8.4f}   {accuracy:6.1%}   {low:.1%} to {high:.1%}")
    return curve


def standard(
    model: rvis.Model, test: Dataset, norm: str, eps: float, a: argparse.Namespace
) -> None:
    """A network's accuracy after each attack of AutoAttack, which is written and printed."""
    found = attacks.autoattack(
        model,
        np.asarray(test.floats(np.arange(len(test)))),
        test.labels,
        norm=norm,
        eps=eps,
        key=a.seed,
        checkpoint=a.out / model.name / f"{norm}_autoattack.part",
        progress=not a.quiet,
    )
    found.save(a.out / model.name / f"{norm}_autoattack_{eps:.4g}")
    print(f"{model.name}, autoattack, {norm}, eps {eps:.4g}, {len(test)} images")
    print(found.table(), flush=True)


@reported(goes_on=True)
def main(arguments: list[str] | None = None) -> int:
    """Measures, writes and prints; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("model", help="a shipped model's name, or its folder")
    p.add_argument("data", type=Path)
    p.add_argument("--beside", nargs="*", default=[], metavar="MODEL", help="other networks")
    p.add_argument("--out", type=Path, default=Path("out", "robustness"))
    p.add_argument("--norms", nargs="+", default=list(attacks.NORMS), choices=attacks.NORMS)
    p.add_argument("--attack", default="pgd", help="pgd, apgd, bim, fab, square or autoattack")
    p.add_argument("--epsilons", type=float, nargs="+", help="for one norm; a usual range else")
    p.add_argument("--steps", type=int, help="of the attack; its own default")
    p.add_argument("--images", type=int, default=500, help="test images, evenly spread")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--quiet", action="store_true", help="no progress bars")
    a = p.parse_args(arguments)
    if a.epsilons and len(a.norms) != 1:
        raise ValueError(f"--epsilons: one of --norms was expected with it, given {a.norms}")
    models = [rvis.load(name) for name in (a.model, *a.beside)]
    if len({model.name for model in models}) < len(models):
        raise ValueError("--beside: networks of different names were expected")
    test = rvis.data.load(a.data, "test")
    count = min(rvis.checks.count("--images", a.images), len(test))
    test = test.take(np.linspace(0, len(test) - 1, count).astype(int))
    for norm in a.norms:
        if a.attack == "autoattack":
            for model in models:
                for eps in a.epsilons or radii(model.input_shape, norm)[4:5]:
                    standard(model, test, norm, eps, a)
            continue
        curves = [measured(model, test, norm, a) for model in models]
        ax = figures.axes()
        for curve in curves:
            curve.plot(ax)
        figures.save(ax, a.out / f"{norm}.png")
        print(a.out / f"{norm}.png", flush=True)
    return 0


if __name__ == "__main__":
    rvis.keep_programs()
    sys.exit(main())
