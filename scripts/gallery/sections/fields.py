"""First filters, and neurons drawn at the size of what they can see."""

from __future__ import annotations

import numpy as np

import rvis
from rvis import images
from rvis.analysis import deconv, metrics, receptive
from rvis.objectives import neuron
from rvis.plotting import grids
from scripts.gallery import measures, networks
from scripts.gallery.base import Outcome, Part, Section, Tables, Verdict, both

_ALIKE = "correlation of a neuron's four samples"


def _filters(network: str, small: str) -> list[deconv.Filters]:
    return [deconv.first_layer_filters(networks.load(name)) for name in (network, small)]


def _filtered(found: list[deconv.Filters]) -> Outcome:
    table, sheets = {}, []
    for one in found:
        count, side = one.kernels.shape[:2]
        table[f"{count} filters of {side} × {side}"] = {
            "share of energy in colour": _colour(one.kernels)
        }
        sheets.append(grids.grid(one.pictures, scale=-(-44 // side), columns=16, pad=2))
    return Outcome(measures.stacked(sheets), table)


def _colour(kernels: np.ndarray) -> float:
    """The share of energy that is not the same in all channels."""
    grey = kernels.mean(-1, keepdims=True)
    return float(((kernels - grey) ** 2).sum() / (kernels**2).sum())


def _sized(
    network: str, layers: tuple[str, ...], units: tuple[int, ...], steps: int
) -> dict[str, rvis.Result]:
    model, found = networks.load(network), {}
    for name in layers:
        side = receptive.receptive_field(model, name).size
        options = {"image": images.Fourier((*side, 3), decay=1.5), "size": "receptive_field"}
        options |= {"facets": 4, "transforms": (), "steps": steps}
        found[name] = rvis.visualize(model, neuron(name, units), **options)
    return found


def _samples(found: dict[str, rvis.Result]) -> Outcome:
    table, sheets = {}, []
    for name, result in found.items():
        alive = np.reshape(~result.dead, (len(result.images), -1)).all(1)
        flat = result.images.reshape(*result.images.shape[:2], -1)
        alike = [np.corrcoef(facets)[np.triu_indices(4, 1)].mean() for facets in flat[alive]]
        side = result.images.shape[2]
        table[name] = {"pixels a side": float(side)}
        table[name] |= measures.told(_ALIKE, metrics.mean(alike))
        columns = list(result.images.swapaxes(0, 1))
        sheets.append(grids.grid(columns, scale=max(1, round(80 / side)), pad=3))
    return Outcome(measures.stacked(sheets), table)


def _judge(tables: Tables) -> Verdict:
    rows = list(tables["samples"].values())
    sides = " and ".join(f"{row['pixels a side']:.0f}" for row in rows)
    low, high = (measures.read(rows[i], _ALIKE) for i in (0, -1))
    return Verdict(
        "yes" if low.low > high.high else "in part" if low.mean > high.mean else "no",
        f"Fields of {sides} pixels; four samples of a neuron correlate at {low:.2f} in the first "
        f"layer and {high:.2f} in the highest one shown.",
    )


def section(cast: networks.Cast) -> Section:
    """The section, drawn by these networks."""
    real = networks.title(cast.filters) == "alexnet"
    layers = ("conv1", "conv2") if real else ("conv1", "layer1", "layer2")
    return Section(
        name="fields",
        title="First filters and receptive fields",
        claim="The first layer looks for edges and colours, one answer each; what a neuron further "
        "up looks for is larger, more complicated, and has several answers.",
        parts=(
            Part(
                name="filters",
                caption=f"The first layer's filters of {networks.title(cast.filters)}, and of the "
                "robust network of 64-pixel animals.",
                alt="Two blocks of small patches: striped edges at all angles, and blobs of "
                "colour.",
                draw=_filters,
                tell=_filtered,
                numbers=both(network=cast.filters, small="tiny_resnet_robust"),
            ),
            Part(
                name="samples",
                caption=f"Eight neurons (columns) of {' and '.join(layers)} of "
                f"{networks.title(cast.filters)}, each at exactly the pixels that it can see, from "
                "four starts (rows).",
                alt="Blocks of four rows. In the first all rows are alike, stripes and colours; "
                "further down they differ, and show crossings, curves and textures.",
                draw=_sized,
                tell=_samples,
                numbers=both(
                    network=cast.filters,
                    layers=layers,
                    units=tuple(range(1, 64 if real else 32, 8 if real else 4)),
                )
                | {"steps": (48, 256)},
            ),
        ),
        judge=_judge,
    )
