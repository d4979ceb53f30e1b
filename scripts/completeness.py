"""Do integrated gradients sum to f(x) - f(baseline), and with how many nodes?

Command:  python scripts/completeness.py DATA [--models …] [--steps 50 400] [--images 64]
Time:     2 minutes a network on two cores.
Prints:   for each network, rule and number of nodes the gap |f(x) − f(baseline) − Σ map| as a share
          of |f(x) − f(baseline)|, median and worst over test images; f is the logit of the class
          that the network sees. Exit status 1 where a median of the last number of nodes is above
          half a per cent.
DATA is what `rvis.data.load` reads.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

import rvis
from rvis import attribution
from rvis.__main__ import reported


@reported()
def main(arguments: list[str] | None = None) -> int:
    """Integrates and prints; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("data", type=Path)
    p.add_argument("--models", nargs="+", default=["cifar10_resnet", "cifar10_resnet_robust"])
    p.add_argument("--steps", type=int, nargs="+", default=[50, 400])
    p.add_argument("--rules", nargs="+", default=["gauss-legendre", "midpoint"])
    p.add_argument("--baseline", type=float, default=0.0)
    p.add_argument("--images", type=int, default=64, help="test images, evenly spread")
    a = p.parse_args(arguments)
    good = True
    test = rvis.data.load(a.data, "test")
    rvis.checks.count("--images", a.images)
    images = np.asarray(test.floats(np.linspace(0, len(test) - 1, a.images).astype(int)))
    models = [rvis.load(name) for name in a.models]
    print("| network | rule | nodes | median gap | worst gap |")
    print("|---|---|---|---|---|")
    for model in models:
        classes = np.asarray(model(images)).argmax(1).astype(np.int32)
        for rule in a.rules:
            for steps in a.steps:
                result = attribution.integrated_gradients(
                    model,
                    images,
                    classes,
                    baseline=a.baseline,
                    rule=rule,
                    steps=steps,
                    tol=None,
                    progress=False,
                )
                assert result.gap is not None
                whole = np.abs(result.maps.sum((1, 2, 3)) + result.gap)
                share = np.abs(result.gap) / np.maximum(whole, 1e-9)
                good &= bool(steps != a.steps[-1] or np.median(share) <= 0.005)
                print(
                    f"| {model.name} | {rule} | {steps} | {np.median(share):.2%} | "
                    f"{share.max():.2%} |",
                    flush=True,
                )
    return int(not good)


if __name__ == "__main__":
    rvis.keep_programs()
    sys.exit(main())
