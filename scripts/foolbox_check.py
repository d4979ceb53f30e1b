"""Robust accuracies beside foolbox's on the same weights, and the time that both take.

Command:  python scripts/foolbox_check.py DATA [DATA …] [--images 500]
Time:     about half an hour on one core at 500 images. Needs the `bench` extra (torch and foolbox).
Prints:   a table: for each network and norm the accuracy under PGD at three ε, foolbox's and ours,
          the seconds of one attack at the middle ε and of the whole curve, and their ratios. Exit
          status 1 where an accuracy is more than a point off, one attack slower, or a curve slower
          than a third of foolbox's; 3 where a package is missing.
DATA is what `rvis.data.load` reads: CIFAR-10, MNIST, or both; networks without images are left out.
Both attack from uniform random starts in steps of 2.5·ε/steps and pay for compilation beforehand;
foolbox runs in batches of `--batch`. With few images the last lanes run half empty, which costs a
curve most: below a few hundred its time says little.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import rvis
from rvis import attacks
from scripts.captum_check import LAYERS, twin

STEPS = {"linf": 40, "l2": 50}
RADII = {
    3: {"linf": (2 / 255, 4 / 255, 8 / 255), "l2": (0.25, 0.5, 1.0)},
    1: {"linf": (0.1, 0.2, 0.3), "l2": (1.0, 2.0, 3.0)},
}
"""By an image's channels."""


def timed(work: Callable[[], Any], repeats: int) -> tuple[Any, float]:
    """What the work gives, and the least seconds that it took."""
    clock = []
    for _ in range(repeats):
        start = time.perf_counter()
        found = work()
        clock.append(time.perf_counter() - start)
    return found, min(clock)


class Theirs:
    """foolbox's PGD on the network's twin."""

    def __init__(self, model: rvis.Model, norm: str, batch: int) -> None:
        import foolbox

        steps = STEPS[norm]
        attack = {"linf": foolbox.attacks.LinfPGD, "l2": foolbox.attacks.L2PGD}[norm]
        self.attack = attack(steps=steps, rel_stepsize=2.5 / steps)
        self.model = foolbox.PyTorchModel(twin(model), bounds=(0, 1), device="cpu")
        self.batch = batch

    def accuracies(self, images: np.ndarray, labels: np.ndarray, radii: Any) -> np.ndarray:
        """The share that holds at each radius."""
        import torch

        held = []
        for first in range(0, len(images), self.batch):
            some = slice(first, first + self.batch)
            x = torch.tensor(images[some].transpose(0, 3, 1, 2))
            y = torch.tensor(labels[some]).long()
            _, _, fooled = self.attack(self.model, x, y, epsilons=list(radii))
            held.append(~fooled.numpy())
        return np.concatenate(held, 1).mean(1)


def compare(
    model: rvis.Model, images: np.ndarray, labels: np.ndarray, norm: str, a: argparse.Namespace
) -> tuple[list[str], bool]:
    """A row of the table, and whether every target is met."""
    radii, steps = RADII[images.shape[-1]][norm], STEPS[norm]
    theirs = Theirs(model, norm, a.batch)
    options: dict[str, Any] = {"norm": norm, "steps": steps, "progress": False}

    def curve(some: slice) -> attacks.RobustnessCurve:
        return attacks.robustness(model, images[some], labels[some], epsilons=radii, **options)

    def single(some: slice) -> attacks.AttackResult:
        return attacks.pgd(model, images[some], labels[some], eps=radii[1], **options)

    few = slice(0, 1)
    curve(few)  # compiles
    single(few)
    theirs.accuracies(images[few], labels[few], radii[:1])
    every = slice(None)
    ours, our_curve = timed(lambda: curve(every), a.repeats)
    _, our_single = timed(lambda: single(every), a.repeats)
    reference, their_curve = timed(lambda: theirs.accuracies(images, labels, radii), a.repeats)
    _, their_single = timed(lambda: theirs.accuracies(images, labels, radii[1:2]), a.repeats)
    pairs = list(zip(radii, reference, ours.accuracies, strict=True))
    # A point, or one image where they are fewer than a hundred.
    close = max(abs(r - o) for _, r, o in pairs) <= max(0.01, 1 / len(images)) + 1e-9
    fast = our_single <= their_single and 3 * our_curve <= their_curve
    cells = [model.name, f"{norm}, {steps} steps"]
    cells += [f"{eps:.3g}: {r:.1%} / {o:.1%}" for eps, r, o in pairs]
    for one, other in ((their_single, our_single), (their_curve, our_curve)):
        cells.append(f"{one:.1f} / {other:.1f} = {one / other:.1f}")
    return cells, close and fast


def main(arguments: list[str] | None = None) -> int:
    """Compares and prints; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("data", type=Path, nargs="+")
    p.add_argument("--models", nargs="+", default=list(LAYERS))
    p.add_argument("--norms", nargs="+", default=list(STEPS), choices=STEPS)
    p.add_argument("--images", type=int, default=500, help="test images, evenly spread")
    p.add_argument("--batch", type=int, default=50, help="of foolbox")
    p.add_argument("--repeats", type=int, default=1, help="of every timing; the least counts")
    a = p.parse_args(arguments)
    for package in ("torch", "foolbox"):
        if importlib.util.find_spec(package) is None:
            print(f"{p.prog}: {package} is not installed; the `bench` extra is", file=sys.stderr)
            return 3
    import torch

    # Both have the cores that this process may use.
    print(f"{torch.get_num_threads()} thread(s) of torch, {a.images} images\n", file=sys.stderr)
    good = True
    titles = ["network", "attack", "ε: foolbox / rvis", "", "", "one attack, s", "curve, s"]
    try:
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
                    cells, met = compare(model, images, data.labels[chosen], norm, a)
                    good &= met
                    print(f"| {' | '.join(cells)} |", flush=True)
    except (ValueError, TypeError, OSError) as error:
        print(f"{p.prog}: {error}", file=sys.stderr)
        return 2
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
