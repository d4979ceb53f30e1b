"""Do a robust network's gradients look like the image? Standard against robust, with intervals.

Command:  python scripts/alignment.py DATA [--models STANDARD ROBUST] [--images 500] [--out FOLDER]
Time:     a minute on two cores.
Prints:   for each network, the mean over test images, with a 95 % bootstrap interval, of
          (a) the cosine of image and gradient, |<x, g>| / (|x| |g|), x less its mean, and
          (b) the rank correlation of |g| (largest channel) with the image's edges (Sobel);
          g is the gradient of the highest logit less the second (Etmann et al. 2019). Then the
          paired difference, robust less standard. With `--out`, a picture of some images with
          both networks' gradients.
DATA is what `rvis.data.load` reads. Exit status 1 where a difference's interval includes zero.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

import rvis
from rvis import attribution, objectives
from rvis.__main__ import reported
from rvis.analysis import metrics
from rvis.plotting import grids

SHOWN = 8


def edges(images: np.ndarray) -> np.ndarray:
    """(n, H, W) length of the Sobel gradient of the grey image."""
    grey = np.pad(images.mean(-1), ((0, 0), (1, 1), (1, 1)), "edge")
    down = grey[:, 2:] - grey[:, :-2]
    across = grey[:, :, 2:] - grey[:, :, :-2]
    rows = across[:, :-2] + 2 * across[:, 1:-1] + across[:, 2:]
    columns = down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:]
    return np.hypot(rows, columns)


@reported()
def main(arguments: list[str] | None = None) -> int:
    """Measures, prints and draws; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("data", type=Path)
    p.add_argument("--models", nargs=2, default=["cifar10_resnet", "cifar10_resnet_robust"])
    p.add_argument("--images", type=int, default=500, help="test images, evenly spread")
    p.add_argument("--out", type=Path)
    a = p.parse_args(arguments)
    test = rvis.data.load(a.data, "test")
    rvis.checks.count("--images", a.images, low=2)
    images = np.asarray(test.floats(np.linspace(0, len(test) - 1, a.images).astype(int)))
    models = [rvis.load(name) for name in a.models]
    sharp = edges(images)
    centred = images - images.mean((1, 2, 3), keepdims=True)
    length = np.sqrt(np.square(centred).sum((1, 2, 3)))
    maps, cosines, ranks = [], [], []
    for model in models:
        order = np.argsort(-np.asarray(model(images)), 1).astype(np.int32)
        margin = objectives.logit(order[:, 0]) - objectives.logit(order[:, 1])
        result = attribution.gradient(model, images, margin, progress=False)
        maps.append(result.heatmaps("max"))
        cosines.append(metrics.alignment(centred, result.maps) / np.maximum(length, 1e-9))
        ranks.append(metrics.spearman(maps[-1], sharp))
    print(f"| {a.images} images | cosine of image and gradient | rank correlation with edges |")
    print("|---|---|---|")
    for name, *values in zip(a.models, cosines, ranks, strict=True):
        print(f"| {name} | {' | '.join(f'{metrics.mean(v):.3f}' for v in values)} |")
    apart = [second - first for first, second in (cosines, ranks)]
    cells = [f"{metrics.mean(values):.3f}" for values in apart]
    print(f"| difference | {' | '.join(cells)} |")
    if a.out is not None:
        some = np.linspace(0, a.images - 1, min(SHOWN, a.images)).astype(int)
        rows = [images[some]] + [grids.overlay(images[some], m[some], style="map") for m in maps]
        rows = [np.broadcast_to(row, (*row.shape[:3], 3)) for row in rows]
        grids.save(grids.grid(rows, row_titles=["image", *a.models]), a.out / "alignment.png")
        print(a.out / "alignment.png")
    lows = [float(cell.split("[")[1].split(",")[0]) for cell in cells]
    return int(min(lows) <= 0)


if __name__ == "__main__":
    rvis.keep_programs()
    sys.exit(main())
