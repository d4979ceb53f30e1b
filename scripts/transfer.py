"""How often images made to fool one network fool the others: a table.

Command:  python scripts/transfer.py DATA [--models NAME …] [--eps 8/255] [--images 200]
Time:     a few minutes on two cores for four CIFAR-10 networks and 200 images.
Prints:   for PGD, MI-FGSM and M-DI²-FGSM a table: rows are the networks that were attacked, columns
          those that are asked, entries the share of images that a network takes for another class,
          of those that both get right.
DATA is what `rvis.data.load` reads; networks for images of another size are left out.
"""

from __future__ import annotations

import argparse
import sys
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import rvis
from rvis import attacks
from rvis.__main__ import reported

ATTACKS: dict[str, Any] = {
    "PGD": partial(attacks.pgd, steps=10),
    "MI-FGSM": attacks.mi_fgsm,
    "M-DI2-FGSM": partial(attacks.mi_fgsm, diversity=0.5),
}


def table(
    models: list[rvis.Model], images: np.ndarray, labels: np.ndarray, attack: Any, eps: float
) -> np.ndarray:
    """(n, n) how often images made on a row's network fool a column's."""
    right = np.stack([np.asarray(model(images)).argmax(1) == labels for model in models])
    rates = np.full((len(models), len(models)), np.nan)
    for i, source in enumerate(models):
        made = attack(source, images, labels, eps=eps, progress=False).images
        for j, other in enumerate(models):
            both = right[i] & right[j]
            if both.any():
                fooled = np.asarray(other(made)).argmax(1) != labels
                rates[i, j] = fooled[both].mean()
    return rates


@reported()
def main(arguments: list[str] | None = None) -> int:
    """Attacks and prints; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("data", type=Path)
    p.add_argument("--models", nargs="+", default=list(rvis.list_models()))
    p.add_argument("--eps", type=Fraction, default=Fraction(8, 255), help="in Linf, such as 8/255")
    p.add_argument("--images", type=int, default=200, help="test images, evenly spread")
    a = p.parse_args(arguments)
    test = rvis.data.load(a.data, "test")
    count = min(rvis.checks.count("--images", a.images), len(test))
    chosen = np.linspace(0, len(test) - 1, count).astype(int)
    images, labels = np.asarray(test.floats(chosen)), test.labels[chosen]
    shape = images.shape[1:]
    models = [m for m in map(rvis.load, a.models) if m.input_shape == shape]
    models = [
        m for m in models if rvis.layer_shapes(m).get("logits", (0,))[-1] == len(test.classes)
    ]
    if not models:
        raise ValueError(f"--models: a network for images of {shape} was expected")
    for name, attack in ATTACKS.items():
        print(f"\n| {name}, eps {a.eps} | {' | '.join(m.name for m in models)} |")
        print("|---" * (len(models) + 1) + "|")
        rates = table(models, images, labels, attack, float(a.eps))
        for model, row in zip(models, rates, strict=True):
            cells = " | ".join(f"{100 * rate:.1f} %" for rate in row)
            print(f"| {model.name} | {cells} |", flush=True)
    return 0


if __name__ == "__main__":
    rvis.keep_programs()
    sys.exit(main())
