"""Do the pictures excite their units? Their clean activation among those of real images.

Command:  python scripts/faithfulness.py DATA [--models …] [--layers …] [--units 32] [--images 1000]
Time:     3 minutes a network and layer on two cores.
Prints:   a table: for each network and layer, the share of channels whose picture, shown without
          any transformation, raises the channel more than the 99th percentile of real images do;
          the median percentile; the share that raise no other unit of the layer more, in standard
          deviations over the real images; and whether units drawn alone have the same bits.
DATA is what `rvis.data.load` reads. Exit status 1 where a share is below 90 % or bits differ.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

import rvis
from rvis import objectives
from rvis.__main__ import reported


@reported()
def main(arguments: list[str] | None = None) -> int:
    """Draws, ranks and prints; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("data", type=Path)
    p.add_argument("--models", nargs="+", default=["cifar10_resnet", "cifar10_resnet_robust"])
    p.add_argument("--layers", nargs="+", default=["layer2", "layer4"])
    p.add_argument("--units", type=int, default=32, help="channels a layer, evenly spread")
    p.add_argument("--images", type=int, default=1000, help="real images, evenly spread")
    p.add_argument("--steps", type=int, default=256)
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args(arguments)
    test = rvis.data.load(a.data, "test")
    models = [rvis.load(name) for name in a.models]
    for model in models:
        for layer in a.layers:
            rvis.checks.choice("layers", layer, model.layers)
    real = test.floats(np.linspace(0, len(test) - 1, a.images).astype(int))
    good = True
    print(
        "| network | layer | above the 99th percentile | median percentile "
        "| raises its own unit most | same bits alone |"
    )
    print("|---|---|---|---|---|---|")
    for model in models:
        for layer in a.layers:
            width = rvis.layer_shapes(model)[layer][-1]
            units = np.unique(np.linspace(0, width - 1, a.units).astype(int))
            objective = objectives.channel(layer, units)
            result = rvis.visualize(model, objective, steps=a.steps, key=a.seed)
            found = rvis.faithfulness(model, objective, result.images, real)
            same = True
            for i in (0, len(units) - 1):
                one = objectives.channel(layer, units[i])
                alone = rvis.visualize(model, one, steps=a.steps, key=a.seed)
                same &= bool((alone.images == result.images[i]).all())
            share = float((found.percentile > 99).mean())
            good &= same and share >= 0.9
            print(
                f"| {model.name} | {layer} | {share:.0%} of {len(units)} | "
                f"{np.median(found.percentile):.1f} | {(found.rank == 1).mean():.0%} | "
                f"{'yes' if same else 'NO'} |",
                flush=True,
            )
    return int(not good)


if __name__ == "__main__":
    rvis.keep_programs()
    sys.exit(main())
