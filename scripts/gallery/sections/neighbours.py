"""What a network takes for alike, beside what is alike in pixels."""

from __future__ import annotations

import numpy as np

import rvis
from rvis.analysis import neighbours
from rvis.plotting import grids
from scripts.gallery import samples
from scripts.gallery.base import Outcome, Part, Section, Tables, Verdict

_SHOWN = 6


def _nearest(every: int) -> tuple[neighbours.Neighbours, neighbours.Neighbours, np.ndarray]:
    images = samples.load("cifar10")
    own = np.arange(0, len(images), every)
    queries, pixels = images.floats(own), images.floats().reshape(len(images), -1)
    distances = np.stack([np.linalg.norm(pixels - pixels[i], axis=1) for i in own])
    names = ("cifar10_resnet", "cifar10_resnet_robust")
    standard, robust = (
        neighbours.nearest(rvis.load(name), queries, images, "avgpool", k=6, exclude=own)
        for name in names
    )
    return standard, robust, distances.argsort(axis=1, kind="stable")[:, :7]


def _shown(found: tuple[neighbours.Neighbours, neighbours.Neighbours, np.ndarray]) -> Outcome:
    standard, robust, pixels = found
    images = samples.load("cifar10")
    own, near = pixels[:, 0], pixels[:, 1:]
    wanted = images.labels[own][:, None]
    chances = np.bincount(images.labels)[images.labels[own]] - 1
    table = {
        name: {"neighbours of the query's class": float(np.mean(images.labels[some] == wanted))}
        for name, some in (
            ("pixels", near),
            ("standard network", standard.indices),
            ("robust network", robust.indices),
        )
    }
    table["by chance"] = {
        "neighbours of the query's class": float(np.mean(chances / (len(images) - 1)))
    }
    rows = []
    for i in np.linspace(0, len(own) - 1, _SHOWN).astype(int):
        beside = [images.floats(own[i : i + 1]), robust.images[i], np.ones((1, 32, 32, 3))]
        rows.append(np.concatenate([*beside, images.floats(near[i])]))
    titles = ["query", "network", *[""] * 5, "", "pixels", *[""] * 5]
    return Outcome(grids.grid(np.stack(rows), titles=titles, scale=2, pad=3), table)


def _judge(tables: Tables) -> Verdict:
    share = {
        name: row["neighbours of the query's class"] for name, row in tables["nearest"].items()
    }
    lower, upper = sorted((share["standard network"], share["robust network"]))
    holds = "yes" if lower > 2 * share["pixels"] and lower > 0.5 else "in part"
    return Verdict(
        holds if lower > share["pixels"] else "no",
        f"Of six neighbours {lower:.0%} to {upper:.0%} are of the query's class to the networks, "
        f"{share['pixels']:.0%} in pixels, {share['by chance']:.0%} by chance.",
    )


SECTION = Section(
    name="neighbours",
    title="What a network takes for alike",
    claim="In the last representation the nearest images show the same thing, though they differ "
    "in every pixel; nearest in pixels are images of like brightness and layout.",
    parts=(
        Part(
            name="nearest",
            caption="A query in each row, its six nearest of the other sample images in the last "
            "representation of the robust network, and its six nearest in pixels.",
            alt="Rows of small pictures: beside each query six of the same kind, and further right "
            "six of all kinds with the same colours.",
            draw=_nearest,
            tell=_shown,
            numbers={"every": (20, 4, 1)},
        ),
    ),
    judge=_judge,
)
