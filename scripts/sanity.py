"""Do the maps need what the network has learned? Its layers are randomised from the logits down.

Command:  python scripts/sanity.py DATA [--model cifar10_resnet] [--images 64] [--out FOLDER]
Time:     half a minute.
Prints:   for each method a table: the module down to which weights are noise, and the mean rank
          correlation of the maps with the trained network's (signed, and of absolute values) and
          their structural similarity, with standard errors over images. With `--out`, a picture of
          one image's maps.
DATA is what `rvis.data.load` reads. Exit status 1 where the gradient or Grad-CAM keeps more of its
absolute correlation than half after all is noise.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

import numpy as np

import rvis
from rvis import attribution
from rvis.__main__ import reported
from rvis.analysis import metrics
from rvis.plotting import grids

METHODS = ("gradient", "grad_cam", "guided_backprop")


def table(method: str, found: metrics.SanityCheck) -> str:
    """One method's rows; maps that are zero everywhere are counted apart."""
    lines = [f"| {method}: noise down to | Spearman | Spearman, absolute | SSIM | zero maps |"]
    lines.append("|---|---|---|---|---|")
    for i, name in enumerate(found.modules):
        full = ~found.blank[i]
        cells = [
            f"{values.mean():.2f} ± {values.std() / np.sqrt(len(values)):.2f}" if full.any() else ""
            for values in (m[i][full] for m in (found.signed, found.absolute, found.similarity))
        ]
        lines.append(f"| {name} | {' | '.join(cells)} | {found.blank[i].sum()} |")
    return "\n".join(lines)


@reported()
def main(arguments: list[str] | None = None) -> int:
    """Randomises, compares and prints; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("data", type=Path)
    p.add_argument("--model", default="cifar10_resnet")
    p.add_argument("--methods", nargs="+", default=list(METHODS))
    p.add_argument("--images", type=int, default=64, help="test images, evenly spread")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", type=Path)
    a = p.parse_args(arguments)
    model = rvis.load(a.model)
    test = rvis.data.load(a.data, "test")
    rvis.checks.count("--images", a.images)
    for method in a.methods:
        rvis.checks.choice("--methods", method, attribution.__all__)
    images = np.asarray(test.floats(np.linspace(0, len(test) - 1, a.images).astype(int)))
    classes = np.asarray(model(images)).argmax(1).astype(np.int32)
    good, rows = True, []
    for method in a.methods:
        explain = partial(getattr(attribution, method), progress=False)
        found = metrics.sanity_check(model, explain, images, classes, key=a.seed)
        print(table(method, found), end="\n\n", flush=True)
        if method in ("gradient", "grad_cam"):
            good &= not np.nanmean(found.absolute[-1]) > 0.5
        copies = np.repeat(images[:1], len(found.maps), 0)
        rows.append([images[0], *grids.overlay(copies, found.maps[:, 0], style="map")])
    if a.out is not None:
        rows = [[np.broadcast_to(x, (*x.shape[:2], 3)) for x in row] for row in rows]
        titles = ["image", "trained", *found.modules]
        sheet = grids.grid(rows, titles=titles, row_titles=a.methods)
        grids.save(sheet, a.out / "sanity.png")
        print(a.out / "sanity.png")
    return int(not good)


if __name__ == "__main__":
    rvis.keep_programs()
    sys.exit(main())
