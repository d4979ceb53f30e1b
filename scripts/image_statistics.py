"""What do the images of a data set have in common? Their colours and magnitude spectrum.

Command:  python scripts/image_statistics.py DATA [DATA …] --name NAME --out FOLDER [--count 10000]
Time:     20 seconds.
Prints:   the mean colour and the square root of the colours' covariance, decorrelated colours as
          its columns. Writes NAME.npz, which `rvis.images.statistics.load` reads.
DATA is what `rvis.data.load` reads; several of one image size are taken together. What rvis ships
is of the training splits of CIFAR-10, MNIST and half of Tiny ImageNet's classes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

import rvis
from rvis.__main__ import reported
from rvis.images import statistics


@reported()
def main(arguments: list[str] | None = None) -> int:
    """Estimates, writes and prints; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("data", type=Path, nargs="+")
    p.add_argument("--name", required=True)
    p.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    p.add_argument("--split", default="train")
    p.add_argument("--count", type=int, default=10_000, help="images, evenly spread")
    a = p.parse_args(arguments)
    images = np.concatenate([rvis.data.load(path, a.split).images for path in a.data])
    some = np.linspace(0, len(images) - 1, min(a.count, len(images))).astype(int)
    found = statistics.estimate(images[some], name=a.name)
    found.save(a.out / f"{a.name}.npz")
    print(f"{len(some)} images, mean {found.mean.round(3).tolist()}, root of the covariance")
    print(found.root.round(3))
    return 0


if __name__ == "__main__":
    rvis.keep_programs()
    sys.exit(main())
