"""Measures a model's accuracy again, clean and under attack, beside what its card says.

Command:  python scripts/evaluate.py cifar10_resnet_robust DATA
Time:     2 to 10 minutes on two cores, most of it the attack; `--count 1000` takes a tenth.
Prints:   a table: clean and robust accuracy, measured and on the card, with the 95 % interval; exit
          status 1 where a figure lies outside it. An attack with other `--steps` or `--restarts`
          than the card's is shown beside it, not judged by it.
DATA is what `rvis.data.load` reads.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import numpy as np

import rvis
from rvis.training import Adversary


def main(arguments: list[str] | None = None) -> int:
    """Measures and prints; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("model", help="a shipped model's name, or its folder")
    p.add_argument("data", type=Path)
    p.add_argument("--count", type=int, help="test images, evenly spread; all by default")
    p.add_argument("--steps", type=int, help="of the attack; the card's by default")
    p.add_argument("--restarts", type=int)
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args(arguments)
    try:
        model, card = rvis.load(a.model), rvis.card(a.model)
        test = rvis.data.load(a.data, "test")
        if a.count:
            test = test.take(np.linspace(0, len(test) - 1, a.count).astype(int))
        said = card["attack"]
        steps = a.steps or said["steps"]
        size = said["step_size"] if steps == said["steps"] else None
        attack = Adversary(said["norm"], said["eps"], steps, size)
        attacked = min(len(test), said["test_images"])
        same = steps == said["steps"] and a.restarts in (None, said["restarts"])
        clean = rvis.evaluate(model, test)
        restarts = a.restarts or said["restarts"]
        sample = test.take(np.linspace(0, len(test) - 1, attacked).astype(int))
        robust = rvis.evaluate(model, sample, adversary=attack, restarts=restarts, key=a.seed)
    except (ValueError, TypeError, KeyError, OSError, FloatingPointError) as error:
        print(f"{p.prog}: {error}", file=sys.stderr)
        return 2
    name = f"PGD-{steps} {attack.norm} {attack.eps:g}, {restarts} restart(s)"
    off = False
    print(f"{a.model} on {len(test)} test images")
    for title, measured, stated, count, judged in (
        ("clean", clean, card["accuracy"], len(test), True),
        (name, robust, said["accuracy"], attacked, same),
    ):
        half = 1.96 * math.sqrt(max(stated * (1 - stated), 1e-4) / count)
        off |= judged and abs(measured - stated) > half
        print(f"  {title:40s} {measured:7.2%}   card {stated:7.2%} ± {half:.2%}")
    return int(off)


if __name__ == "__main__":
    sys.exit(main())
