"""What a layer keeps of an image: reconstructions from its code."""

from __future__ import annotations

import numpy as np

import rvis
from rvis.inversion import LayerInversions
from rvis.plotting import grids
from scripts.gallery import samples
from scripts.gallery.base import Outcome, Part, Section, Tables, Verdict


def _digits(steps: int, count: int, layers: tuple[str, ...]) -> list[LayerInversions]:
    models = [rvis.load(name) for name in ("mnist_cnn", "mnist_cnn_robust")]
    images = samples.load("mnist").floats(range(75, 300, 150 // count))[:count]
    return [rvis.invert_layers(m, images, layers, samples=2, steps=steps) for m in models]


def _photographs(steps: int, count: int, layers: tuple[str, ...]) -> list[LayerInversions]:
    models = [rvis.load(name) for name in ("cifar10_resnet", "cifar10_resnet_robust")]
    images = samples.load("cifar10").floats(range(40, 800, 720 // count))[:count]
    return [rvis.invert_layers(m, images, layers, samples=2, steps=steps) for m in models]


def _plates(found: list[LayerInversions]) -> Outcome:
    blocks = []
    table: dict[str, dict[str, float]] = {}
    for one, name in zip(found, ("standard", "robust"), strict=True):
        shape = one.originals.shape[1:]
        twice = np.repeat(one.originals[:2], 2, 0)
        made = one.images[:, :2].reshape(len(one.layers), -1, *shape)
        blocks.append(np.concatenate([twice[None], made]))
        for row in one.table():
            cells = table.setdefault(row["layer"], {})
            cells[f"PSNR, dB, {name}"] = row["psnr"]
            cells[f"spread of samples, {name}"] = row["spread"]
            cells[f"error of the code, {name}"] = row["error"]
    rows = np.concatenate(blocks, 1)
    titles = ["standard", "again"] * (blocks[0].shape[1] // 2)
    titles += ["robust", "again"] * (blocks[1].shape[1] // 2)
    names = ["original", *found[0].layers]
    return Outcome(grids.grid(rows, titles=titles, row_titles=names), table)


def _judge(tables: Tables) -> Verdict:
    told, points = [], []
    for part in ("digits", "photographs"):
        rows = list(tables[part].values())
        for name in ("standard", "robust"):
            quality = np.array([row[f"PSNR, dB, {name}"] for row in rows])
            spread = np.array([row[f"spread of samples, {name}"] for row in rows])
            points += [bool((np.diff(quality) < 0).all()), bool((np.diff(spread) > 0).all())]
            told.append(
                f"{part}, {name}: {quality[0]:.0f} to {quality[-1]:.0f} dB, {spread[0]:.3f} to "
                f"{spread[-1]:.3f}"
            )
    share = np.mean(points)
    return Verdict(
        "yes" if share == 1 else "in part" if share >= 0.5 else "no",
        f"From the first to the last layer PSNR and the spread go ({'; '.join(told)}); "
        f"{sum(points)} of {len(points)} move in the direction claimed at every layer.",
    )


SECTION = Section(
    name="inversion",
    title="What each layer keeps",
    claim="A picture that has an image's code is found by gradient descent. From low layers it is "
    "the image itself; the deeper the layer, the vaguer it is, and the more two attempts differ.",
    parts=(
        Part(
            name="digits",
            caption="Digits and, below, what comes back from the codes of its layers, twice from "
            "different noise; the standard MNIST network left, the robust one right.",
            alt="Digits: exact in the first row of reconstructions, rough in the second, unlike "
            "digits in the last.",
            draw=_digits,
            tell=_plates,
            numbers={
                "steps": (48, 192, 384),
                "count": (1, 2, 20),
                "layers": (
                    ("pool1", "fc2"),
                    ("pool1", "pool2", "fc2"),
                    ("conv1", "pool1", "conv2", "pool2", "fc1", "fc2"),
                ),
            },
            quick=False,
        ),
        Part(
            name="photographs",
            caption="The same of photographs, from layers of the CIFAR-10 networks.",
            alt="Photographs that are blurred but recognisable from a middle layer, and from the "
            "last one scattered pieces in the standard network, a like thing in the robust one.",
            draw=_photographs,
            tell=_plates,
            numbers={
                "steps": (48, 160, 384),
                "count": (2, 2, 20),
                "layers": (
                    ("layer3",),
                    ("layer3", "avgpool"),
                    ("layer1", "layer2", "layer3", "layer4", "avgpool", "fc"),
                ),
            },
            quick=False,
        ),
    ),
    judge=_judge,
)
