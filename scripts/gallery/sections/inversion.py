"""What a layer keeps of an image: reconstructions from its code."""

from __future__ import annotations

import itertools

import numpy as np

import rvis
from rvis.analysis import metrics, representations
from rvis.inversion import Inversion, LayerInversions
from rvis.plotting import grids
from scripts.gallery import measures, networks
from scripts.gallery.base import Outcome, Part, Section, Tables, Verdict, both

_PSNR, _SPREAD = "PSNR, dB", "RMS difference of two"
_FIVE = "SSIM of two reconstructions"


def _layers(
    first: str,
    second: str,
    layers: tuple[tuple[str, ...], tuple[str, ...]],
    photos: str,
    names: tuple[str, ...],
    side: int,
    steps: int,
) -> dict[str, LayerInversions]:
    images = np.stack([networks.photograph(photos, some, side) for some in names])
    return {
        network: rvis.invert_layers(networks.load(network), images, some, samples=1, steps=steps)
        for network, some in zip((first, second), layers, strict=True)
    }


def _plates(found: dict[str, LayerInversions]) -> Outcome:
    table, sheets = {}, []
    for network, one in found.items():
        for i, layer in enumerate(one.layers):
            row = measures.told(_PSNR, metrics.mean(one.psnr[i].ravel()))
            row["error of the code"] = float(one.errors[i].mean())
            table[f"{networks.title(network)}, {layer}"] = row
        rows = [list(images) for images in np.swapaxes(one.images[:, :, 0], 0, 1)]
        beside = [[start, *row] for start, row in zip(one.originals, rows, strict=True)]
        sheets.append(grids.grid(beside, titles=["original", *one.layers]))
    return Outcome(measures.stacked(sheets), table)


def _five(
    network: str, layers: tuple[str, ...], photos: str, names: str, side: int, steps: int
) -> dict[str, Inversion]:
    image, model = networks.photograph(photos, names, side), networks.load(network)
    return {name: rvis.invert(model, image, name, samples=5, steps=steps) for name in layers}


def _again(found: dict[str, Inversion]) -> Outcome:
    table, rows = {}, []
    for name, one in found.items():
        images = np.asarray(one.images).reshape(-1, *one.images.shape[-3:])
        pairs = list(itertools.combinations(images, 2))
        left, right = (np.stack(side) for side in zip(*pairs, strict=True))
        apart = np.sqrt(np.square(left - right).mean((1, 2, 3)))
        table[name] = measures.told(_SPREAD, metrics.mean(apart))
        table[name] |= measures.told(_FIVE, metrics.mean(representations.ssim(left, right)))
        rows.append(list(images))
    return Outcome(grids.grid(rows, row_titles=list(found)), table)


def _judge(tables: Tables) -> Verdict:
    told, points = [], []
    by: dict[str, list[metrics.Interval]] = {}
    for name, row in tables["layers"].items():
        by.setdefault(name.split(",")[0], []).append(measures.read(row, _PSNR))
    for name, quality in by.items():
        points.append(quality[-1].mean < quality[0].mean)
        points.append(all(a.mean > b.mean for a, b in itertools.pairwise(quality)))
        told.append(f"{name} {quality[0]:.0f} to {quality[-1]:.0f} dB")
    rows = tables["five"]
    low, *_, high = rows
    first, last = (measures.read(rows[name], _SPREAD) for name in (low, high))
    points.append(last.low > first.high)
    return Verdict(
        "yes" if all(points) else "in part" if sum(points) >= len(points) / 2 else "no",
        f"From the lowest to the highest layer reconstructions go from {'; '.join(told)}. Two of "
        f"the same code differ by {first:.3f} (root mean square) for {low} and by "
        f"{last:.3f} for {high}.",
    )


def section(cast: networks.Cast) -> Section:
    """The section, drawn by these networks."""
    first, second = cast.filters, cast.trunk
    low, high = networks.depths(first), networks.depths(second)
    return Section(
        name="inversion",
        title="What each layer keeps",
        claim="A picture that has an image's code is found by gradient descent. From low layers it "
        "is the image itself; the deeper the layer, the vaguer it is, and the more two attempts "
        "differ.",
        parts=(
            Part(
                name="layers",
                caption="Photographs (left) and what comes back from their codes in layers of "
                f"{networks.title(first)} (above) and of {networks.title(second)} (below).",
                alt="Rows of pictures: exact at the left, then blurred in colour but sharp in "
                "outline, then strokes and pieces that are scarcely the thing.",
                draw=_layers,
                tell=_plates,
                numbers=both(first=first, second=second)
                | {"layers": (((low[0], low[4]), (high[0], high[2])), (low, high))}
                | both(photos=cast.photos, names=("zebra tabby", "strawberry coffee ladybug"))
                | {"side": (64, 96), "steps": (16, 120)},
            ),
            Part(
                name="five",
                caption=f"One photograph, five times from the code of a low and of a high layer of "
                f"{networks.title(first)}, each time from other noise.",
                alt="Two rows of five pictures: above five times the same animal, below five "
                "arrangements of its pieces.",
                draw=_five,
                tell=_again,
                numbers=both(network=first, layers=(low[0], low[4]), photos=cast.photos)
                | both(names="zebra tabby")
                | {"side": (64, 96), "steps": (16, 120)},
            ),
        ),
        judge=_judge,
    )
