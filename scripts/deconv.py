"""Deconvnet plates: the patches that excite each unit of each layer most, beside what does it.

Command:  python scripts/deconv.py DATA [--model MODEL] [--layers …] [--units 16] [--out FOLDER]
Time:     half a minute a layer for a 32-pixel network and 2,000 images on two cores.
Prints:   where the plates are. Each layer has a folder with `figure.png` (left the nine patches,
          right their reconstructions), the arrays and a card; `filters.png` are the first layer's
          filters; `neighbours.png` has some images beside the six most alike to the network.
DATA is what `rvis.data.load` reads; MODEL a name of `rvis.list_models()` or a path that `rvis.load`
reads (an architecture needs `--weights`). Without `--layers`, all with places are taken.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

import rvis
from rvis.__main__ import reported
from rvis.analysis import deconv, neighbours
from rvis.plotting import grids


@reported()
def main(arguments: list[str] | None = None) -> int:
    """Draws and says where; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("data", type=Path)
    p.add_argument("--model", default="cifar10_resnet_robust")
    p.add_argument("--weights", help="a file of weights, for an architecture's name")
    p.add_argument("--split", default="test")
    p.add_argument("--layers", nargs="+", help="all with places by default")
    p.add_argument("--units", type=int, default=16, help="the first so many of each layer")
    p.add_argument("--images", type=int, default=2000, help="evenly spread over the data set")
    p.add_argument("--top", type=int, default=9, help="patches a unit")
    p.add_argument("--queries", type=int, default=8, help="images whose neighbours are shown")
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    p.add_argument("--out", type=Path, help="out/MODEL_deconv by default")
    a = p.parse_args(arguments)
    out = a.out or Path("out", f"{Path(a.model).name}_deconv")
    model = rvis.load(a.model, weights=a.weights)
    images = rvis.data.load(a.data, a.split, size=model.input_shape[:2])
    if 0 < a.images < len(images):
        images = images.take(np.linspace(0, len(images) - 1, a.images).astype(int))
    shapes = rvis.layer_shapes(model)
    layers = a.layers or [name for name in model.layers if len(shapes[name]) == 3]
    for layer in layers:
        rvis.checks.choice("layers", layer, shapes)
    grids.save(deconv.first_layer_filters(model).show(), out / "filters.png")
    print(out / "filters.png")
    for layer in layers:
        units = np.arange(min(a.units, shapes[layer][-1]))
        found = deconv.plates(model, layer, units, images, a.top, progress=not a.quiet)
        print(found.save(out / layer) / "figure.png", flush=True)
    last = [name for name in model.layers if len(shapes[name]) == 1][:1] or layers[-1:]
    own = np.linspace(0, len(images) - 1, a.queries).astype(int)
    near = neighbours.nearest(
        model, images.floats(own), images, last[0], exclude=own, progress=not a.quiet
    )
    grids.save(near.show(), out / "neighbours.png")
    print(out / "neighbours.png")
    return 0


if __name__ == "__main__":
    rvis.keep_programs()
    sys.exit(main())
