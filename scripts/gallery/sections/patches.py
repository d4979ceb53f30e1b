"""The patches that excite units most, beside what in them does, layer by layer."""

from __future__ import annotations

import itertools

import numpy as np
from PIL import Image

from rvis.analysis import deconv, metrics
from rvis.plotting import grids
from scripts.gallery import measures, networks, samples
from scripts.gallery.base import Outcome, Part, Section, Tables, Verdict, both

_SHOWN = 3
_CELL = 40
"""Pixels to which patches of every layer are brought, so that plates are of one size."""
_CLASS = "share of the commonest class"
_ALIKE = "correlation of patches, pixel by pixel"


def _layers(network: str, layers: tuple[str, ...], units: int, side: int) -> list[deconv.Plates]:
    animals = samples.enlarged("tiny_imagenet_animals", side)
    model = networks.load(network)
    return [deconv.plates(model, layer, range(units), animals) for layer in layers]


def _plates(found: list[deconv.Plates]) -> Outcome:
    labels = samples.load("tiny_imagenet_animals").labels
    table, rows = {}, []
    for plates in found:
        alive = plates.top.values[:, -1] > 0
        table[plates.top.layer] = (
            measures.told(_CLASS, metrics.mean(_agreement(labels[plates.top.indices[alive]])))
            | {"by chance": float(np.mean(_agreement(_shuffled(labels))))}
            | measures.told(_ALIKE, metrics.mean(_likeness(plates.top.patches[alive])))
        )
        some = np.flatnonzero(alive)[:_SHOWN]
        rows.append(
            [_plate(plates.top.patches[i], _stretched(plates.reconstructions[i])) for i in some]
        )
    names = [plates.top.layer for plates in found]
    return Outcome(grids.grid(rows, row_titles=names, pad=8, scale=1), table)


def _agreement(labels: np.ndarray) -> list[float]:
    """Of rows of labels (m, k), the share of each row's commonest one."""
    return [float(np.bincount(row).max() / len(row)) for row in labels]


def _shuffled(labels: np.ndarray) -> np.ndarray:
    """Nine images drawn at random, many times over."""
    rng = np.random.default_rng(0)
    return np.stack([rng.choice(labels, 9, replace=False) for _ in range(2000)])


def _likeness(patches: np.ndarray) -> list[float]:
    """The mean correlation of two patches of each unit, of (m, k, h, w, C)."""
    k = patches.shape[1]
    flat = patches.reshape(len(patches), k, -1)
    pairs = np.triu_indices(k, 1)
    with np.errstate(invalid="ignore", divide="ignore"):  # plain patches vary not at all
        found = [float(np.nanmean(np.corrcoef(unit)[pairs])) for unit in flat]
    return [value for value in found if np.isfinite(value)]


def _plate(patches: np.ndarray, pictures: np.ndarray) -> np.ndarray:
    """3 × 3 patches left, 3 × 3 reconstructions right."""
    halves = [_mosaic(images) for images in (patches, pictures)]
    gap = np.ones((halves[0].shape[0], 4, 3), np.float32)
    return np.concatenate([halves[0], gap, halves[1]], 1)


def _stretched(signed: np.ndarray) -> np.ndarray:
    """Reconstructions (k, h, w, C) about grey; their largest hundredth is clipped."""
    most = np.maximum(np.percentile(np.abs(signed), 99, axis=(1, 2, 3), keepdims=True), 1e-12)
    return np.clip(0.5 + signed / (2 * most), 0, 1)


def _mosaic(images: np.ndarray) -> np.ndarray:
    sheet = np.ones((3 * _CELL + 2, 3 * _CELL + 2, 3), np.float32)
    for i, image in enumerate(images):
        top, left = (j * (_CELL + 1) for j in divmod(i, 3))
        small = grids.to_pil(image).resize((_CELL, _CELL), Image.Resampling.BICUBIC)
        sheet[top : top + _CELL, left : left + _CELL] = np.asarray(small, np.float32) / 255
    return sheet


def _judge(tables: Tables) -> Verdict:
    rows = list(tables["layers"].values())
    shares = [measures.read(row, _CLASS) for row in rows]
    alike = [measures.read(row, _ALIKE) for row in rows]
    chance = rows[-1]["by chance"]
    rising = all(low.mean < high.mean for low, high in itertools.pairwise(shares))
    falling, apart = alike[0].low > alike[-1].high, shares[-1].low > chance
    return Verdict(
        "yes" if rising and falling and apart else "in part" if falling or apart else "no",
        f"Of nine patches {shares[-1]:.0%} are of one class in the last layer and "
        f"{shares[0]:.0%} in the first, where chance gives {chance:.0%}; two patches of a unit "
        f"correlate {alike[0]:.2f} in the first and {alike[-1]:.2f} in the last.",
    )


def section(cast: networks.Cast) -> Section:
    """The section, drawn by these networks."""
    layers = networks.depths(cast.filters)
    return Section(
        name="patches",
        title="What excites a unit, and what in it does",
        claim="The patches that excite a unit of a lower layer most share an edge or a colour; "
        "those of a higher one a part or a whole object, however differently it is drawn.",
        parts=(
            Part(
                name="layers",
                caption=f"A row for each of five layers of {networks.title(cast.filters)}, and in "
                "it three channels: left the nine patches of 204 photographs of 51 kinds of "
                "animals that excite it most, each as large as what the unit can see, right what "
                "the deconvolutional network sends back of that one activation.",
                alt="Plates of nine patches and nine reconstructions: edges and plain colours in "
                "the upper rows, eyes, heads and whole animals in the lower ones.",
                draw=_layers,
                tell=_plates,
                numbers=both(network=cast.filters, layers=layers)
                | {"units": (6, 24), "side": (96, 224)},
            ),
        ),
        judge=_judge,
        needs="Six units of a layer are too few to tell layers apart.",
    )
