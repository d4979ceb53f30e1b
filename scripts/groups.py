"""The building blocks of a picture: a layer's neuron groups, their icons and what they speak for.

Command:  python scripts/groups.py IMAGE LAYER [--model MODEL] [--groups 6] [--out FOLDER]
Time:     under a minute for a 32-pixel network on two cores; the icons take most of it.
Prints:   the residual, the table of effects, and where the figure is. `figure.png` has the picture,
          the groups in colour, and for each group its place, its icon and its effects.
IMAGE is any picture, cropped to the model's shape and resized. MODEL is a name of
`rvis.list_models()` or a path that `rvis.load` reads (an architecture needs `--weights`); LAYER one
of its layers after a ReLU.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

import numpy as np

import rvis
from rvis.__main__ import reported
from rvis.concepts import groups


@reported()
def main(arguments: list[str] | None = None) -> int:
    """Factorizes, draws and prints; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("image", type=Path)
    p.add_argument("layer")
    p.add_argument("--model", default="cifar10_resnet_robust")
    p.add_argument("--weights", help="a file of weights, for an architecture's name")
    p.add_argument("--groups", type=int, default=6)
    p.add_argument("--classes", type=int, nargs="+", help="the five highest by default")
    p.add_argument("--start", default="nndsvd", choices=("nndsvd", "random"))
    p.add_argument("--seed", type=int, default=0, help="of a random start and of the icons")
    p.add_argument("--steps", type=int, default=256, help="of the icons")
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    p.add_argument("--out", type=Path, help="out/MODEL_LAYER_groups by default")
    a = p.parse_args(arguments)
    out = a.out or Path("out", f"{Path(a.model).name}_{a.layer}_groups")
    model = rvis.load(a.model, weights=a.weights)
    height, width, channels = model.input_shape
    image = rvis.data.read_image(a.image, size=(height, width))
    if channels == 1:
        image = (image @ np.asarray([0.299, 0.587, 0.114], np.float32))[..., None]
    draw = partial(rvis.visualize, steps=a.steps, key=a.seed, progress=not a.quiet)
    found = groups.factorize(
        model,
        np.clip(image, 0, 1),
        a.layer,
        a.groups,
        key=a.seed,
        start=a.start,
        classes=a.classes,
        draw=draw,
    )
    found.save(out)
    print(f"{a.groups} groups of {a.layer}, start {a.start}, seed {a.seed}: ", end="")
    print(f"residual {found.residual:.1%}")
    print("| effect on | " + " | ".join(found.classes) + " |")
    print("|---" * (len(found.classes) + 1) + "|")
    rows = [(f"group {j}", row) for j, row in enumerate(found.effects)]
    for name, row in (*rows, ("left out", found.rest)):
        print(f"| {name} | " + " | ".join(f"{value:+.2f}" for value in row) + " |")
    print(out / "figure.png")
    return 0


if __name__ == "__main__":
    rvis.keep_programs()
    sys.exit(main())
