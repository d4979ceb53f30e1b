"""What is proved of a network smoothed by noise: its certified accuracy at some radii.

Command:  python scripts/certificates.py MODEL DATA [--sigma .25 .5] [--radii .1 .25 .5] [--json F]
Time:     five minutes for MNIST, 200 images and 2,000 draws on two cores, for each σ.
Prints:   for each σ the share of images on which the smoothed network abstains, its accuracy, and
          the certified accuracy at each radius with the 95 % interval over draws of images; and
          what PGD in L2 leaves of the network itself at the same radii. With --json the same
          command goes on where it was interrupted.
DATA is what `rvis.data.load` reads; MODEL a name of `rvis.list_models()` or a path.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

import rvis
from rvis import attacks, files
from rvis.__main__ import reported


@reported()
def main(arguments: list[str] | None = None) -> int:
    """Certifies, writes and prints; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("model")
    p.add_argument("data", type=Path)
    p.add_argument("--sigma", type=float, nargs="+", default=[0.25, 0.5])
    p.add_argument("--radii", type=float, nargs="+", default=[0.1, 0.25, 0.5])
    p.add_argument("--images", type=int, default=200, help="test images, evenly spread")
    p.add_argument("--samples", type=int, default=2000)
    p.add_argument("--alpha", type=float, default=0.001)
    p.add_argument("--json", type=Path, help="where to write the figures")
    p.add_argument("--quiet", action="store_true", help="no progress bars")
    a = p.parse_args(arguments)
    model, test = rvis.load(a.model), rvis.data.load(a.data, "test")
    count = min(rvis.checks.count("--images", a.images), len(test))
    chosen = np.linspace(0, len(test) - 1, count).astype(int)
    images, labels = np.asarray(test.floats(chosen)), test.labels[chosen]
    report: dict[str, Any] = {"model": model.name, "images": count, "samples": a.samples}
    report |= {"alpha": a.alpha, "radii": a.radii, "smoothed": []}
    if a.json and a.json.exists():
        before = json.loads(a.json.read_text(encoding="utf-8"))
        if all(before.get(name) == report[name] for name in ("model", "images", "samples")):
            report["smoothed"] = before["smoothed"]
    done = [row["sigma"] for row in report["smoothed"]]
    for sigma in (sigma for sigma in a.sigma if sigma not in done):
        found = attacks.certify(
            model,
            images,
            labels,
            sigma=sigma,
            alpha=a.alpha,
            samples=a.samples,
            checkpoint=a.json and a.json.with_suffix(f".{sigma:g}.part"),
            progress=not a.quiet,
        )
        low, high = found.interval(a.radii)
        row = {
            "sigma": sigma,
            "abstained": float(found.abstained.mean()),
            "accuracy": float(found.accuracy(0.0)),
            "certified": found.accuracy(a.radii).tolist(),
            "low": low.tolist(),
            "high": high.tolist(),
        }
        report["smoothed"].append(row)
        if a.json:
            files.write_json(a.json, report)
        print(f"{model.name}, sigma {sigma:g}: {row['accuracy']:.1%} right, ", end="")
        print(f"{row['abstained']:.1%} abstained, {count} images")
        for radius, *shares in zip(a.radii, row["certified"], low, high, strict=True):
            share, least, most = shares
            print(f"  radius {radius:g}: {share:.1%} certified, {least:.1%} to {most:.1%}")
    curve = attacks.robustness(
        model, images, labels, epsilons=a.radii, norm="l2", progress=not a.quiet
    )
    report["pgd"] = dict(zip(map(str, curve.epsilons), curve.accuracies.tolist(), strict=True))
    print(f"the network itself under PGD in L2: {report['pgd']}")
    if a.json:
        files.write_json(a.json, report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
