"""The patches that excite units most, beside what in them does, layer by layer."""

from __future__ import annotations

import itertools

import numpy as np
from PIL import Image

import rvis
from rvis.analysis import deconv
from rvis.plotting import grids
from scripts.gallery import samples
from scripts.gallery.base import Outcome, Part, Section, Tables, Verdict

_SHOWN = 4
_CELL = 32
"""Pixels to which patches of every layer are brought, so that plates are of one size."""


def _layers(units: int) -> list[deconv.Plates]:
    model = rvis.load("cifar10_resnet_robust")
    images = samples.load("cifar10")
    layers = ("layer1", "layer2", "layer3", "layer4")
    return [deconv.plates(model, layer, range(units), images) for layer in layers]


def _plates(found: list[deconv.Plates]) -> Outcome:
    labels = samples.load("cifar10").labels
    table, rows = {}, []
    for plates in found:
        alive = plates.top.values[:, -1] > 0
        table[plates.top.layer] = {
            "share of the commonest class": _agreement(labels[plates.top.indices[alive]]),
            "by chance": _agreement(_shuffled(labels, int(alive.sum()))),
            "correlation of patches, pixel by pixel": _likeness(plates.top.patches[alive]),
        }
        some = np.flatnonzero(alive)[:_SHOWN]
        rows.append([_plate(plates.top.patches[i], plates.pictures[i]) for i in some])
    names = [plates.top.layer for plates in found]
    return Outcome(grids.grid(rows, row_titles=names, pad=8), table)


def _agreement(labels: np.ndarray) -> float:
    """Of rows of labels (m, k), the mean share of a row's commonest one."""
    return float(np.mean([np.bincount(row).max() / len(row) for row in labels]))


def _shuffled(labels: np.ndarray, rows: int) -> np.ndarray:
    """Nine images drawn at random, many times over."""
    rng = np.random.default_rng(0)
    return np.stack([rng.choice(labels, 9, replace=False) for _ in range(100 * rows)])


def _likeness(patches: np.ndarray) -> float:
    """The mean correlation of two patches of a unit: (m, k, h, w, C) to a number."""
    k = patches.shape[1]
    pairs = np.triu_indices(k, 1)
    flat = patches.reshape(len(patches), k, -1)
    with np.errstate(invalid="ignore", divide="ignore"):  # plain patches vary not at all
        return float(np.nanmean([np.corrcoef(unit)[pairs] for unit in flat]))


def _plate(patches: np.ndarray, pictures: np.ndarray) -> np.ndarray:
    """3 × 3 patches left, 3 × 3 reconstructions right."""
    halves = [_mosaic(images) for images in (patches, pictures)]
    gap = np.ones((halves[0].shape[0], 4, 3), np.float32)
    return np.concatenate([halves[0], gap, halves[1]], 1)


def _mosaic(images: np.ndarray) -> np.ndarray:
    sheet = np.ones((3 * _CELL + 2, 3 * _CELL + 2, 3), np.float32)
    for i, image in enumerate(images):
        top, left = (j * (_CELL + 1) for j in divmod(i, 3))
        small = grids.to_pil(image).resize((_CELL, _CELL), Image.Resampling.NEAREST)
        sheet[top : top + _CELL, left : left + _CELL] = np.asarray(small, np.float32) / 255
    return sheet


def _judge(tables: Tables) -> Verdict:
    rows = list(tables["layers"].values())
    shares = [row["share of the commonest class"] for row in rows]
    alike = [row["correlation of patches, pixel by pixel"] for row in rows]
    chance = rows[-1]["by chance"]
    rising = all(low < high for low, high in itertools.pairwise(shares))
    falling = alike[0] > alike[-1]
    apart = shares[-1] > 1.5 * chance
    holds = "yes" if rising and falling and apart else "in part" if apart else "no"
    way = " < ".join if rising else ", ".join
    return Verdict(
        holds,
        f"Of nine patches {way(f'{share:.0%}' for share in shares)} are of one class, from the "
        f"first block to the last, where chance gives {chance:.0%}; two patches of a unit "
        f"correlate {alike[0]:.2f} in the first and {alike[-1]:.2f} in the last.",
    )


SECTION = Section(
    name="patches",
    title="What excites a unit, and what in it does",
    claim="The patches that excite a unit of a lower layer most share an edge or a colour; those "
    "of a higher one a part or a whole object, of one class, however differently it is drawn.",
    parts=(
        Part(
            name="layers",
            caption="A row for each block of the robust CIFAR-10 network, and in it the first four "
            "channels that are alive: left the nine patches of the 800 sample images that excite "
            "it most, each as large as what the unit can see (7, 13, 25 and 32 pixels), right "
            "what the deconvolutional network sends back of that one activation. There is no "
            "max-pooling whose switches would carry the image: it shows the unit and its place.",
            alt="Plates of nine patches and nine reconstructions: edges and plain colours in the "
            "upper rows, whole animals and vehicles of one kind in the lowest.",
            draw=_layers,
            tell=_plates,
            numbers={"units": (8, 32, 64)},
        ),
    ),
    judge=_judge,
)
