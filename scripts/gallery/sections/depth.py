"""Filter plates by depth: patterns grow in size and complexity."""

from __future__ import annotations

import numpy as np

import rvis
from rvis.objectives import channel
from rvis.plotting import grids
from scripts.gallery import measures
from scripts.gallery.base import Outcome, Part, Section, Tables, Verdict

_LAYERS = ("relu", "layer1", "layer2", "layer3", "layer4")

Plates = dict[str, dict[str, rvis.Result]]


def _plates(steps: int, units: int) -> Plates:
    return {
        name: {
            at: rvis.visualize(rvis.load(name), channel(at, range(units)), steps=steps)
            for at in ("relu", "layer1", "layer2", "layer3", "layer4")
        }
        for name in ("cifar10_resnet", "cifar10_resnet_robust")
    }


def _told(found: Plates) -> Outcome:
    sheets, table = [], {}
    for name, plates in found.items():
        kind = "robust" if name.endswith("robust") else "standard"
        images = np.stack([plates[at].images for at in _LAYERS])
        sheets.append(grids.grid(images, row_titles=_LAYERS, scale=2))
        table[f"{kind}, spectral centroid"] = {
            at: measures.centroid(result.images[~result.dead]) for at, result in plates.items()
        }
    return Outcome(measures.stacked(sheets), table)


def _judge(tables: Tables) -> Verdict:
    waves = {name.split(",")[0]: row for name, row in tables["plates"].items()}
    falling, fallen, told = [], [], []
    for kind, row in waves.items():
        peak = max(row, key=lambda at: row[at])
        after = list(row.values())[list(row).index(peak) :]
        falling.append(peak == _LAYERS[0] and after == sorted(after, reverse=True))
        fallen.append(after[-1] < after[0])
        told.append(
            f"{kind} {row[_LAYERS[0]]:.3f} in the first layer, highest in {peak} with "
            f"{row[peak]:.3f}, {after[-1]:.3f} in the last"
        )
    why = (
        ""
        if all(falling)
        else " Colour filters of the first layer ask for flat fills, so that it begins low."
    )
    return Verdict(
        "yes" if all(falling) else "in part" if all(fallen) else "no",
        f"Mean frequency of the pictures in cycles a pixel: {'; '.join(told)}.{why}",
    )


SECTION = Section(
    name="depth",
    title="Filter plates by depth",
    claim="From layer to layer, what channels look for grows from edges to textures to parts and "
    "objects: larger patterns, lower frequencies.",
    parts=(
        Part(
            name="plates",
            caption="Channels of five layers, the first at the top: standard network above, robust "
            "below.",
            alt="Two blocks of five rows of pictures, from fine stripes at the top to large "
            "coloured shapes at the bottom.",
            draw=_plates,
            tell=_told,
            numbers={"steps": (32, 128, 512), "units": (4, 8, 8)},
            quick=False,
        ),
    ),
    judge=_judge,
)
