"""First filters, and neurons drawn at the size of what they can see."""

from __future__ import annotations

import numpy as np

import rvis
from rvis.analysis import deconv
from rvis.objectives import neuron
from rvis.plotting import grids
from scripts.gallery import measures
from scripts.gallery.base import Outcome, Part, Section, Tables, Verdict

_LAYERS = ("conv1", "layer1", "layer2")


def _filters() -> list[deconv.Filters]:
    names = ["cifar10_resnet", "cifar10_resnet_robust", "mnist_cnn"]
    return [deconv.first_layer_filters(rvis.load(name)) for name in names]


def _filtered(found: list[deconv.Filters]) -> Outcome:
    names = ("standard", "robust", "digits")
    table = {
        name: {
            "filters": float(len(one.kernels)),
            "pixels a side": float(one.kernels.shape[1]),
            "share of energy in colour": _colour(one.kernels),
        }
        for name, one in zip(names, found, strict=True)
    }
    sheets = [
        grids.grid(one.pictures, scale=48 // one.kernels.shape[1], columns=16, pad=2)
        for one in found
    ]
    return Outcome(measures.stacked(sheets), table)


def _colour(kernels: np.ndarray) -> float:
    """The share of energy that is not the same in all channels."""
    grey = kernels.mean(-1, keepdims=True)
    return float(((kernels - grey) ** 2).sum() / (kernels**2).sum())


def _sized(steps: int) -> dict[str, rvis.Result]:
    model = rvis.load("cifar10_resnet_robust")
    return {
        name: rvis.visualize(
            model,
            neuron(name, range(8)),
            size="receptive_field",
            facets=4,
            transforms=(),
            steps=steps,
        )
        for name in ("conv1", "layer1", "layer2")
    }


def _samples(found: dict[str, rvis.Result]) -> Outcome:
    table, sheets = {}, []
    for name, result in found.items():
        alive = np.reshape(~result.dead, (len(result.images), -1)).all(1)
        flat = result.images.reshape(*result.images.shape[:2], -1)
        agreement = [np.corrcoef(facets)[np.triu_indices(4, 1)].mean() for facets in flat[alive]]
        side = result.images.shape[2]
        table[name] = {
            "pixels a side": float(side),
            "correlation of a neuron's four samples": float(np.mean(agreement)),
        }
        columns = list(result.images.swapaxes(0, 1))
        sheets.append(grids.grid(columns, scale=max(1, 72 // side), pad=3))
    return Outcome(measures.stacked(sheets), table)


def _judge(tables: Tables) -> Verdict:
    rows = [tables["samples"][name] for name in _LAYERS]
    sides = [row["pixels a side"] for row in rows]
    alike = [row["correlation of a neuron's four samples"] for row in rows]
    several = alike[-1] < 0.8 < alike[0]
    return Verdict(
        "yes" if several and sides == sorted(sides) else "in part",
        f"Fields of {sides[0]:.0f}, {sides[1]:.0f} and {sides[2]:.0f} pixels; four samples of a "
        f"neuron correlate at {alike[0]:.2f} in the first layer and {alike[-1]:.2f} in the third.",
    )


SECTION = Section(
    name="fields",
    title="First filters and receptive fields",
    claim="The first layer looks for edges and colours, one answer each; what a neuron further up "
    "looks for is larger, more complicated, and has several answers.",
    parts=(
        Part(
            name="filters",
            caption="The first layer's filters: standard CIFAR-10 network, robust one, digits.",
            alt="Three blocks of small patches, coloured and grey: edges, blobs, contrasts.",
            draw=_filters,
            tell=_filtered,
        ),
        Part(
            name="samples",
            caption="Eight neurons (columns) of conv1, layer1 and layer2 of the robust network, "
            "each at exactly the pixels that it can see, from four starts (rows).",
            alt="Three blocks of four rows. In the first all rows are alike; further down they "
            "differ, and show stripes, corners and textures.",
            draw=_sized,
            tell=_samples,
            numbers={"steps": (64, 192, 512)},
            quick=False,
        ),
    ),
    judge=_judge,
)
