"""Robust accuracies beside foolbox's on the same weights, and the time that both take.

Command:  python scripts/foolbox_check.py DATA [DATA …] [--models NAME …] [--norms NORM …]
              [--clock wall]
Time:     five minutes a row of CIFAR-10 and one of MNIST on two cores at 500 images. Needs the
          `bench` extra (torch and foolbox).
Prints:   a row for each network and norm, as soon as it is there: the accuracy under PGD at three
          ε, foolbox's and ours judged alike on the last iterate; that of `attacks.robustness`,
          which keeps whatever fooled on the way; seconds of one attack and of the whole curve, with
          their ratios: of the clock on the wall on a machine that does nothing else, or, with
          `--clock processor`, of processor time, which other work leaves as it is. Exit
          status 1 where the last iterates' accuracies are more than a point apart, the curve is
          more than a point above foolbox, one attack is slower, or a curve slower than a third of
          foolbox's; 3 where a package is missing.
DATA is what `rvis.data.load` reads: CIFAR-10, MNIST, or both; networks without images are left out.
Both attack from the same uniform random starts in steps of 2.5·ε/steps and pay for compilation
beforehand; their calls take turns, and a curve's time is the median of three. foolbox runs in
batches of `--batch`.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

import rvis
from rvis import attacks
from rvis.__main__ import reported
from rvis.attacks.attack import balls, run_plan
from rvis.attacks.gradient import plan_pgd
from rvis.attacks.request import prepare

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where run as a file
from scripts.bench.twins import SHIPPED, twin

STEPS = {"linf": 40, "l2": 50}
RADII = {
    3: {"linf": (2 / 255, 4 / 255, 8 / 255), "l2": (0.25, 0.5, 1.0)},
    1: {"linf": (0.1, 0.2, 0.3), "l2": (1.0, 2.0, 3.0)},
}
"""By an image's channels."""


CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


def timed(clock: Callable[[], float], work: Callable[[], Any]) -> tuple[Any, float]:
    """What the work gives, and the seconds that it took by this clock."""
    start = clock()
    return work(), clock() - start


def drawn(model: rvis.Model, images: np.ndarray, norm: str, eps: float) -> np.ndarray:
    """A uniform random start for each image, (n, H, W, C)."""
    request = prepare(model, images, 0, norm=norm, eps=eps)
    sample = jax.vmap(lambda ball, key: ball.sample(key))
    return np.asarray(sample(balls(request), request.keys()))[:, 0]


class Theirs:
    """foolbox's PGD on the network's twin."""

    def __init__(self, model: rvis.Model, norm: str, batch: int) -> None:
        import foolbox

        steps = STEPS[norm]
        attack = {"linf": foolbox.attacks.LinfPGD, "l2": foolbox.attacks.L2PGD}[norm]
        self.attack = attack(steps=steps, rel_stepsize=2.5 / steps)
        self.model = foolbox.PyTorchModel(twin(model), bounds=(0, 1), device="cpu")
        self.batch = batch

    def accuracy(
        self, images: np.ndarray, labels: np.ndarray, eps: float, starts: np.ndarray
    ) -> float:
        """The share whose last iterate is taken for the label."""
        import torch
        from eagerpy import astensor

        def tensor(array: np.ndarray) -> Any:
            return torch.tensor(array.transpose(0, 3, 1, 2))

        held = 0
        for first in range(0, len(images), self.batch):
            some = slice(first, first + self.batch)
            begun = astensor(tensor(starts[some]))
            self.attack.get_random_start = lambda x, eps, begun=begun: begun
            y = torch.tensor(labels[some]).long()
            _, _, fooled = self.attack(self.model, tensor(images[some]), y, epsilons=eps)
            held += int((~fooled).sum())
        return held / len(images)


def last(
    model: rvis.Model,
    images: np.ndarray,
    labels: np.ndarray,
    norm: str,
    eps: float,
    starts: np.ndarray,
) -> float:
    """The same of our PGD."""
    request = prepare(model, images, labels, norm=norm, eps=eps)
    plan = plan_pgd(request, steps=STEPS[norm], given=starts, drawn=False, keep="last")
    return float(1 - run_plan(plan, request, progress=False).success.mean())


def compare(
    model: rvis.Model,
    images: np.ndarray,
    labels: np.ndarray,
    norm: str,
    batch: int,
    clock: Callable[[], float],
) -> tuple[list[str], bool]:
    """A row of the table, and whether every target is met."""
    radii, theirs = RADII[images.shape[-1]][norm], Theirs(model, norm, batch)
    starts = [drawn(model, images, norm, eps) for eps in radii]

    def curve(some: slice) -> attacks.RobustnessCurve:
        return attacks.robustness(
            model,
            images[some],
            labels[some],
            epsilons=radii,
            norm=norm,
            steps=STEPS[norm],
            progress=False,
        )

    few = slice(0, 1)  # compiles
    curve(few)
    last(model, images[few], labels[few], norm, radii[0], starts[0][few])
    theirs.accuracy(images[few], labels[few], radii[0], starts[0][few])
    pairs, total, curves = [], np.zeros(2), []
    for eps, begun in zip(radii, starts, strict=True):
        reference, seconds = timed(clock, partial(theirs.accuracy, images, labels, eps, begun))
        own, spent = timed(clock, partial(last, model, images, labels, norm, eps, begun))
        pairs.append((reference, own))
        total += seconds, spent
        whole, spent = timed(clock, lambda: curve(slice(None)))
        curves.append(spent)
    spent = float(np.median(curves))
    # A point, or one image where they are fewer than a hundred.
    slack = max(0.01, 1 / len(images)) + 1e-9
    close = all(abs(r - o) <= slack for r, o in pairs)
    close &= all(c <= r + slack for c, (r, _) in zip(whole.accuracies, pairs, strict=True))
    fast = total[1] <= total[0] and 3 * spent <= total[0]
    cells = [model.name, f"{norm}, {STEPS[norm]} steps"]
    cells += [f"{e:.3g}: {r:.1%} / {o:.1%}" for e, (r, o) in zip(radii, pairs, strict=True)]
    cells.append(", ".join(f"{accuracy:.1%}" for accuracy in whole.accuracies))
    for one, other in (total / len(radii), (total[0], spent)):
        cells.append(f"{one:.1f} / {other:.1f} = {one / other:.1f}")
    return cells, close and fast


@reported()
def main(arguments: list[str] | None = None) -> int:
    """Compares and prints; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("data", type=Path, nargs="+")
    p.add_argument("--models", nargs="+", default=list(SHIPPED))
    p.add_argument("--norms", nargs="+", default=list(STEPS), choices=STEPS)
    p.add_argument("--images", type=int, default=500, help="test images, evenly spread")
    p.add_argument("--batch", type=int, default=50, help="of foolbox")
    p.add_argument("--clock", choices=CLOCKS, default="wall")
    a = p.parse_args(arguments)
    for package in ("torch", "foolbox"):
        if importlib.util.find_spec(package) is None:
            print(f"{p.prog}: {package} is not installed; the `bench` extra is", file=sys.stderr)
            return 3
    import torch

    # Both have the cores that this process may use.
    print(f"{torch.get_num_threads()} thread(s) of torch, {a.images} images\n", file=sys.stderr)
    good = True
    titles = ["network", "attack", "ε: foolbox / rvis, last iterates", "", "", "rvis, curve"]
    titles += ["one attack, s", "curve, s"]
    sets = [rvis.data.load(path, "test") for path in a.data]
    print(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}")
    for name in a.models:
        model = rvis.load(name)
        for data in sets:
            if data.images.shape[1:] != model.input_shape:
                continue
            chosen = np.linspace(0, len(data) - 1, min(a.images, len(data))).astype(int)
            images = np.asarray(data.floats(chosen))
            for norm in a.norms:
                labels, clock = data.labels[chosen], CLOCKS[a.clock]
                cells, met = compare(model, images, labels, norm, a.batch, clock)
                good &= met
                print(f"| {' | '.join(cells)} |", flush=True)
    return int(not good)


if __name__ == "__main__":
    rvis.keep_programs()
    sys.exit(main())
