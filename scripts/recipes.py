"""Which recipe draws faithful pictures of networks of 224 pixels: lucid's, or steeper spectra?

Command:  python scripts/recipes.py [NETWORK:LAYER …] [--units 64] [--steps 128] [--json FILE]
Time:     by default, half an hour on two cores that do nothing else.
Prints:   a table: for each network, layer and recipe, how many times the strongest of the real
          images the median picture excites its channel, seen without any transformation; the share
          of channels that their picture excites more than every real image does, and more than any
          other channel of the layer; and the energy of the pictures above a quarter of a cycle a
          pixel (of real images .01 to .03). Needs the extra `imagenet`.
Real images are the gallery's 204 animals and scikit-image's photographs, prepared as the network
was evaluated.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where run as a file
import rvis
from rvis import files, images, optimizers, transforms
from rvis.__main__ import reported
from rvis.objectives import channel
from rvis.plotting import grids
from rvis.visualization import Options
from scripts.gallery import measures, networks, samples

PLACES = ("alexnet:relu5", "vgg16:relu4_3", "efficientnet_lite0:blocks.4")


def recipes(shape: tuple[int, int, int]) -> dict[str, Options]:
    """By name, what `visualize` is asked for; "default" is nothing."""
    lucid: Options = {
        "image": images.Fourier(shape),
        "optimizer": optimizers.adam(0.05),
        "transforms": transforms.lucid(128),
    }
    steep: Options = {"image": images.Fourier(shape, decay=1.5)}
    return {"lucid": lucid, "default": {}, "decay 1.5 at lucid's rate": {**lucid, **steep}}


@reported()
def main(arguments: list[str] | None = None) -> int:
    """Draws, judges and prints; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("places", nargs="*", metavar="NETWORK:LAYER", default=list(PLACES))
    p.add_argument("--recipes", nargs="+", default=["lucid", "default"])
    p.add_argument("--units", type=int, default=64, help="channels, evenly spread")
    p.add_argument("--steps", type=int, default=128)
    p.add_argument("--json", type=Path, help="results are added to those of other places there")
    p.add_argument("--out", type=Path, help="a folder for the pictures")
    a = p.parse_args(arguments)
    table: dict[str, dict[str, float]] = {}
    if a.json is not None and a.json.is_file():
        table = json.loads(a.json.read_text())
    heads = ("× strongest real", "above all real", "own unit most", "fine energy", "seconds")
    print(f"| network, layer, recipe | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}")
    for place in a.places:
        name, _, layer = place.rpartition(":")
        model = networks.load(name)
        rvis.checks.choice("LAYER", layer, model.layers)
        known = recipes(model.input_shape)
        width = rvis.layer_shapes(model)[layer][-1]
        asked = channel(layer, np.unique(np.linspace(0, width - 1, a.units).astype(int)))
        pictures = [*samples.load("tiny_imagenet_animals").floats(), *networks.photographs()]
        real = model.prepare(pictures)
        best = np.asarray(rvis.record(model, real, layer)[layer]).mean((1, 2)).max(0)
        for recipe in a.recipes:
            options = known[rvis.checks.choice("--recipes", recipe, known)]
            options["steps"] = a.steps
            begun = time.perf_counter()
            drawn = rvis.visualize(model, asked, **options)
            seconds = time.perf_counter() - begun
            judged = rvis.faithfulness(model, asked, drawn.images, real)
            row = (
                float(np.median(judged.activation / best[np.asarray(asked.unit)])),
                float((judged.percentile == 100).mean()),
                float((judged.rank == 1).mean()),
                measures.fine(drawn.images),
                round(seconds),
            )
            title = f"{Path(name).stem} {layer}, {recipe}, {a.steps} steps, {a.units} units"
            table[title] = dict(zip(heads, row, strict=True))
            print(f"| {title} | {' | '.join(f'{cell:.3g}' for cell in row)} |", flush=True)
            if a.json is not None:
                files.write_json(a.json, table)
            if a.out is not None:
                sheet = drawn.show()
                grids.save(sheet, a.out / f"{Path(name).stem}_{layer}_{recipe}.png")
    return 0


if __name__ == "__main__":
    rvis.keep_programs()
    sys.exit(main())
