"""Real networks: classes, channels and photographs, of those of the extra and of a folder's."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import numpy as np

import rvis
from rvis import attacks, attribution
from rvis.objectives import channel
from rvis.plotting import grids
from rvis.types import LOGITS
from scripts.gallery import measures, networks, samples
from scripts.gallery.base import Outcome, Part, Section, Tables, Verdict

Drawn = dict[str, rvis.Result]
Seen = tuple[attribution.Attribution, attacks.AttackResult]
Dreams = dict[str, np.ndarray]

_TARGET = "tiger shark"


def _first(classes: tuple[str, ...], units: dict[str, tuple[int, ...]], steps: int) -> Drawn:
    return networks.draw(classes, units, steps=steps)


def _more(path: str, classes: tuple[str, ...], units: int, steps: int) -> Drawn:
    model = networks.load(path)
    layer = networks.middle(model)
    asked = channel(layer, range(units))
    drawn = {f"{path} {layer}": rvis.visualize(model, asked, steps=steps)}
    if set(classes) <= set(model.classes):
        drawn[f"{path} logits"] = rvis.visualize(model, list(classes), steps=steps)
    return drawn


def _grid(drawn: Drawn) -> Outcome:
    table = {}
    for place, result in drawn.items():
        name, layer = place.rsplit(" ", 1)
        model, labels = networks.load(name), [str(label) for label in result.labels]
        if layer == LOGITS:
            units = [model.classes.index(label) for label in labels]
            chances = jax.nn.softmax(model(result.images))[np.arange(len(units)), np.array(units)]
            rows = {"probability": np.asarray(chances)}
        else:
            units, rows = [int(label.rsplit(":", 1)[1]) for label in labels], {}
        animals = model.prepare(samples.load("tiny_imagenet_animals").floats()[::4])
        judged = rvis.faithfulness(model, channel(layer, units), result.images, animals)
        rows |= {"share of 51 photographs below": judged.percentile / 100, "place": judged.rank}
        for i, label in enumerate(labels):
            about = {what: float(row[i]) for what, row in rows.items()}
            table[f"{Path(name).stem} {label}"] = about
    return Outcome(networks.sheet(drawn), table)


def _photographs(photos: str, target: str, radius: float, steps: int) -> Seen:
    model = networks.load("efficientnet_lite0")
    images = model.prepare(networks.photographs(photos))
    labels = np.asarray(model(images)).argmax(1)
    maps = attribution.grad_cam(model, images, labels)
    options = {"target": target, "eps": radius / 255, "steps": steps}
    return maps, attacks.pgd(model, images, labels, **options)


def _fooled(seen: Seen) -> Outcome:
    maps, result = seen
    model, images = networks.load("efficientnet_lite0"), result.originals
    before, after = (
        np.asarray(jax.nn.softmax(model(pictures))) for pictures in (images, result.images)
    )
    change = result.images - images
    titles, table = [], {}
    for chances in (before, after):
        best = chances.argmax(1)
        titles.append(
            [f"{model.classes[i]} {row[i]:.0%}" for i, row in zip(best, chances, strict=True)]
        )
    assert result.target is not None
    for i, (name, target) in enumerate(zip(titles[0], result.target.tolist(), strict=True)):
        table[name] = {
            "target before": float(before[i, target]),
            "target after": float(after[i, target]),
            "largest change / 255": float(255 * np.abs(change[i]).max()),
        }
    blank = [""] * len(images)
    picture = grids.grid(
        [
            list(images),
            list(grids.overlay(images, maps.maps, style="blend")),
            list(0.5 + change / (2 * np.abs(change).max())),
            list(result.images),
        ],
        titles=[*titles[0], *blank, *blank, *titles[1]],
        row_titles=["photograph", "Grad-CAM", "change", "attacked"],
        scale=1,
    )
    return Outcome(picture, table)


def _dreams(photos: str, layers: list[str], octaves: int) -> Dreams:
    photograph = rvis.data.read_image(networks.photographs(photos)[0], longest=360)
    dreams = {"photograph": photograph}
    for place in layers:
        name, layer = place.split()
        model = networks.load(name)
        dreams[place] = rvis.deepdream(model, photograph, layer, octaves=octaves).images
    return dreams


def _rows(dreams: Dreams) -> Outcome:
    table = {}
    photograph = dreams["photograph"]
    for place, dream in list(dreams.items())[1:]:
        name, layer = place.split()
        before, after = (
            float(np.square(rvis.record(networks.load(name), image[None], layer)[layer]).mean())
            for image in (photograph, dream)
        )
        table[place] = {
            "squared activation, times that of the photograph": after / before,
            "mean frequency of the change": measures.centroid((dream - photograph)[None]),
        }
    pictures = list(dreams.values())
    return Outcome(grids.grid(pictures, titles=list(dreams), columns=2, scale=1), table)


def _judge(tables: Tables) -> Verdict:
    if set(tables).isdisjoint(("first", "photographs")):
        return Verdict("not measured", "Networks of a folder alone are shown, and not judged.")
    first, attacked = list(tables["first"].values()), list(tables["photographs"].values())
    classes = [row["probability"] for row in first if "probability" in row]
    above = sum(row["share of 51 photographs below"] == 1 for row in first)
    known = sum(chance > 0.9 for chance in classes)
    fooled = sum(row["target after"] > 0.9 for row in attacked)
    whole = (above, known, fooled) == (len(first), len(classes), len(attacked))
    return Verdict(
        "yes" if whole else "in part" if above and known and fooled else "no",
        f"{above} of {len(first)} pictures raise their unit more than every photograph does; of "
        f"{len(classes)} pictures of classes the network is sure of {known}; {fooled} of "
        f"{len(attacked)} photographs are taken for a {_TARGET} at more than 90 %.",
    )


def section(*, photos: str = "", folder: str = "", installed: bool = True) -> Section:
    """The section, with what there is to draw it from.

    Args:
      photos: a folder of photographs in the place of the extra's.
      folder: networks beside the extra's.
      installed: whether the extra is; without it there are no parts.

    Raises:
      ValueError: naming `--photos` or `--networks`, for a folder without any.
    """
    own = [_FIRST, _numbered(_PHOTOGRAPHS, photos=photos), _numbered(_DREAM, photos=photos)]
    if photos:
        networks.photographs(photos)
    paths = networks.listed(folder) if folder else []
    more = [_numbered(_MORE, path=path, name=Path(path).stem) for path in paths]
    return dataclasses.replace(
        SECTION,
        parts=(*(own if installed else ()), *more),
        absent="" if installed else f"Not made: {networks.WITHOUT}.",
    )


def _numbered(part: Part, *, name: str = "", **numbers: str) -> Part:
    """A part with the same folder or file at every size of a run."""
    fixed = {key: (value,) * 3 for key, value in numbers.items()}
    return dataclasses.replace(part, name=name or part.name, numbers={**fixed, **part.numbers})


_FEW = {"alexnet relu5": networks.UNITS["alexnet relu5"][:4]}
_FIRST = Part(
    name="first",
    caption="Classes of ImageNet, by the logits of EfficientNet-Lite0, and channels of the "
    "networks named beside them, from noise.",
    alt="Coloured pictures in rows: animals and things in pieces; textures, eyes, fur and arches.",
    draw=_first,
    tell=_grid,
    numbers={
        "classes": (networks.CLASSES[:4], networks.CLASSES, networks.CLASSES),
        "units": (_FEW, networks.UNITS, networks.UNITS),
        "steps": (128, 128, 512),
    },
)
_PHOTOGRAPHS = Part(
    name="photographs",
    caption="Photographs with the network's answer; where it sees that (Grad-CAM); what is added "
    "(stretched to the whole range); and the sum, with the network's new answer.",
    alt="Four photographs, heat maps over them, coloured noise, and photographs that look alike.",
    draw=_photographs,
    tell=_fooled,
    numbers={"target": (_TARGET,) * 3, "radius": (4.0,) * 3, "steps": (20, 20, 40)},
)
_DREAM = Part(
    name="dream",
    caption="A photograph, and what layers make of it (DeepDream).",
    alt="A cat, and the same cat overgrown with eyes, fur, spirals and arches.",
    draw=_dreams,
    tell=_rows,
    numbers={
        "layers": (["alexnet relu3"], *(["alexnet relu3", "vgg16 relu4_3", "vgg16 relu5_3"],) * 2),
        "octaves": (3, 4, 4),
    },
    quick=False,
)
_MORE = Part(
    name="more",
    caption="Channels of a layer half way up, and classes where there are any.",
    alt="Coloured pictures in rows: textures and parts of things; below them classes.",
    draw=_more,
    tell=_grid,
    numbers={
        "classes": (networks.CLASSES[:4], networks.CLASSES, networks.CLASSES),
        "units": (4, 6, 6),
        "steps": (128, 128, 512),
    },
)
SECTION = Section(
    name="real",
    title="Real networks",
    claim="What follows is not of small networks alone: on a network of ImageNet, too, a picture "
    "that climbs a unit is more to its taste than photographs are, and a change that nobody sees "
    "makes a photograph any class.",
    parts=(_FIRST, _numbered(_PHOTOGRAPHS, photos=""), _numbered(_DREAM, photos="")),
    judge=_judge,
)
