"""What a network saw in a picture: every attribution method for its top classes, side by side.

Command:  python scripts/attribute.py IMAGE [--model MODEL] [--top 3] [--out FOLDER]
Time:     a minute on two cores for a 32-pixel network; RISE's 4000 masks take most of it.
Prints:   the top classes with their probabilities, and where the figure is. `attribution.png` has a
          row for each class and a column for each method; a folder for each method holds its maps
          as numbers and its pictures.
IMAGE is any picture, cropped to the model's shape and resized; MODEL a name of
`rvis.list_models()` or a path that `rvis.load` reads (an architecture needs `--weights`).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

import rvis
from rvis import attribution
from rvis.plotting import grids

METHODS = (
    "gradient",
    "input_x_gradient",
    "integrated_gradients",
    "smoothgrad",
    "vargrad",
    "guided_backprop",
    "deconvnet",
    "grad_cam",
    "grad_cam_plus",
    "layer_gradient_x_activation",
    "occlusion",
    "rise",
)
TITLES = {"layer_gradient_x_activation": "act x grad", "integrated_gradients": "integrated"}


def read(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """The picture as the model takes it, (H, W, C) in [0, 1]."""
    image = rvis.data.read_image(path, size=shape[:2])
    if shape[2] == 1:
        image = (image @ np.asarray([0.299, 0.587, 0.114], np.float32))[..., None]
    return np.clip(image, 0, 1)


def figure(
    model: rvis.Model, image: np.ndarray, classes: np.ndarray, a: argparse.Namespace
) -> list[Path]:
    """Draws all methods; the files written."""
    images = np.repeat(image[None], len(classes), 0)
    side = min(image.shape[:2])
    options: dict[str, dict[str, Any]] = {
        "smoothgrad": {"key": a.seed},
        "vargrad": {"key": a.seed},
        "occlusion": {"window": max(2, side // 5), "stride": max(1, side // 16), "baseline": 0.5},
        "rise": {"key": a.seed, "samples": a.masks, "baseline": 0.5},
    }
    relus = getattr(model.apply, "takes_relu", True)
    columns, titles = [images], ["image"]
    for method in METHODS:
        if method in ("guided_backprop", "deconvnet") and not relus:
            print(f"{method} is left out: {model.name} applies its own ReLUs")
            continue
        result = getattr(attribution, method)(
            model, images, classes, progress=not a.quiet, **options.get(method, {})
        )
        result.save(a.out / method)
        columns.append(grids.overlay(images, result.heatmaps(), style=a.style))
        titles.append(TITLES.get(method, method.replace("_", " ")))
    rows = [
        [np.broadcast_to(column[i], (*column[i].shape[:2], 3)) for column in columns]
        for i in range(len(classes))
    ]
    names = model.classes or tuple(f"class {i}" for i in range(classes.max() + 1))
    file = a.out / "attribution.png"
    grids.save(grids.grid(rows, titles=titles, row_titles=[names[c] for c in classes]), file)
    return [file]


def main(arguments: list[str] | None = None) -> int:
    """Draws and says where; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("image", type=Path)
    p.add_argument("--model", default="cifar10_resnet_robust")
    p.add_argument("--weights", help="a file of weights, for an architecture's name")
    p.add_argument("--top", type=int, default=3, help="classes, by their logits")
    p.add_argument("--masks", type=int, default=4000, help="of RISE")
    p.add_argument("--style", choices=("map", "blend"), default="map")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--quiet", action="store_true", help="no progress bars")
    p.add_argument("--out", type=Path, default=Path("out", "attribution"))
    a = p.parse_args(arguments)
    try:
        model = rvis.load(a.model, weights=a.weights)
        rvis.checks.count("--top", a.top)
        image = read(a.image, model.input_shape)
        logits = np.asarray(model(image))[0]
        classes = np.argsort(-logits)[: a.top].astype(np.int32)
        odds = np.exp(logits - logits.max())
        for c in classes:
            name = model.classes[c] if model.classes else f"class {c}"
            print(f"{name}: {odds[c] / odds.sum():.1%}")
        written = figure(model, image, classes, a)
    except (ValueError, TypeError, OSError, ImportError, FloatingPointError) as error:
        print(f"{p.prog}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{p.prog}: interrupted", file=sys.stderr)
        return 130
    for path in written:
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
