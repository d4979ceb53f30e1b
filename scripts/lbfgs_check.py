"""Box-constrained L-BFGS, the first attack: does it fool every image, and by how little?

Command:  python scripts/lbfgs_check.py DATA [--images 100] [--model cifar10_resnet] [--out FOLDER]
Time:     two seconds an image on one core with `cifar10_resnet`.
Prints:   how many images that the network gets right were each turned into another class, drawn at
          random, and the median of the distortion √(Σδ²/n) (Szegedy et al. 2013). The exit status
          is 1 unless all were. `pairs.png` shows the first, original beside attacked, with the
          difference amplified; `card.json` the figures of all.
DATA is a data set that `rvis.data.load` reads, such as cifar10.zip; its test part is used. Ctrl-C
is safe: the same command goes on from there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

import rvis
from rvis import attacks
from rvis.__main__ import reported
from rvis.attacks.request import predict
from rvis.plotting import grids


def chosen(model: rvis.Model, a: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Images at random that the model gets right, and their labels."""
    data = rvis.data.load(a.data, "test")
    rng = np.random.default_rng(a.seed)
    images, labels = [], []
    for block in np.array_split(rng.permutation(len(data.labels)), max(1, len(data.labels) // 64)):
        pictures = np.asarray(data.images[block], np.float32) / 255
        truth = np.asarray(data.labels[block])
        right = predict(model, pictures) == truth
        images.append(pictures[right])
        labels.append(truth[right])
        if sum(map(len, labels)) >= a.images:
            break
    return np.concatenate(images)[: a.images], np.concatenate(labels)[: a.images]


@reported(goes_on=True)
def main(arguments: list[str] | None = None) -> int:
    """Attacks and tells; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("data", type=Path)
    p.add_argument("--model", default="cifar10_resnet")
    p.add_argument("--images", type=int, default=100)
    p.add_argument("--binary-search-steps", type=int, default=12)
    p.add_argument("--steps", type=int, default=25)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    p.add_argument("--out", type=Path, default=Path("out", "lbfgs"))
    a = p.parse_args(arguments)
    rvis.checks.count("--images", a.images)
    model = rvis.load(a.model)
    images, labels = chosen(model, a)
    count = len(labels)
    outputs = model(images[:1]).shape[-1]
    shift = np.random.default_rng(a.seed).integers(1, outputs, count)
    targets = ((labels + shift) % outputs).astype(np.int32)
    result = attacks.lbfgs(
        model,
        images,
        labels,
        target=targets,
        binary_search_steps=a.binary_search_steps,
        steps=a.steps,
        checkpoint=a.out / "state",
        progress=not a.quiet,
    )
    distortion = result.distance("rms")
    print(f"fooled {result.success.sum()} of {count}, each towards a class at random")
    print(f"median distortion {np.median(distortion):.4f}, largest {distortion.max():.4f}")
    result.save(a.out)
    grids.save(result.show(min(8, count)), a.out / "pairs.png")
    print(a.out / "pairs.png")
    return 0 if result.success.all() else 1


if __name__ == "__main__":
    rvis.keep_programs()
    sys.exit(main())
