"""Does diversity spread the pictures of a unit, and what does it cost in activation?

Command:  python scripts/diversity.py [--models …] [--layer layer3] [--units 8] [--weight 0.5]
Time:     four minutes a network on two cores.
Prints:   a table: for each network the mean pairwise cosine of the Gram matrices of four facets
          without and with the diversity term, the relative fall, and the share of the clean
          activation that is kept; medians over the units. Exit status 1 where the cosine falls by
          less than a third or less than 70 % is kept.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

import rvis
from rvis import objectives
from rvis.plotting import grids


def main(arguments: list[str] | None = None) -> int:
    """Draws, measures and prints; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--models", nargs="+", default=["cifar10_resnet", "cifar10_resnet_robust"])
    p.add_argument("--layer", default="layer3")
    p.add_argument("--units", type=int, default=8, help="channels, evenly spread")
    p.add_argument("--weight", type=float, default=0.5)
    p.add_argument("--steps", type=int, default=192)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", type=Path, help="a folder for the pictures")
    a = p.parse_args(arguments)
    good = True
    print("| network | Gram cosine | with diversity | falls by | activation kept |")
    print("|---|---|---|---|---|")
    for name in a.models:
        model = rvis.load(name)
        width = rvis.layer_shapes(model)[a.layer][-1]
        units = np.unique(np.linspace(0, width - 1, a.units).astype(int))
        channel = objectives.channel(a.layer, units)
        cosines, levels, rows = [], [], []
        for weight in (0.0, a.weight):
            objective = channel + weight * objectives.diversity(a.layer)
            result = rvis.visualize(
                model, objective, facets=4, steps=a.steps, key=a.seed, progress=False
            )
            seen = [rvis.record(model, facets, a.layer)[a.layer] for facets in result.images]
            cosines.append([float(objectives.gram_cosine(x)) for x in seen])
            means = zip(seen, units, strict=True)
            levels.append([float(x[..., unit].mean()) for x, unit in means])
            rows.append(result.images)
        alike, spread = np.median(cosines, 1)
        falls = float(np.median(1 - np.divide(cosines[1], cosines[0])))
        kept = float(np.median(np.divide(levels[1], levels[0])))
        good &= falls >= 1 / 3 and kept >= 0.7
        print(f"| {name} | {alike:.2f} | {spread:.2f} | {falls:.0%} | {kept:.0%} |", flush=True)
        if a.out is not None:
            pictures = [np.concatenate(pair) for pair in zip(*rows, strict=True)]
            sheet = grids.grid(pictures, row_titles=[f"{a.layer}:{unit}" for unit in units])
            grids.save(sheet, a.out / f"diversity_{name}.png")
    return int(not good)


if __name__ == "__main__":
    rvis.keep_programs()
    sys.exit(main())
