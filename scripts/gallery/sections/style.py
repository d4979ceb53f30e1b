"""Texture from one picture, and the grid of style against content."""

from __future__ import annotations

import itertools

import numpy as np

import rvis
from rvis import style
from rvis.plotting import grids
from scripts.gallery import samples
from scripts.gallery.base import Outcome, Part, Section, Tables, Verdict


def _texture(steps: int, early: int) -> tuple[np.ndarray, list[style.StyleResult]]:
    model = rvis.load("cifar10_resnet_robust")
    images = samples.load("tiny_imagenet_animals").floats([72, 52])
    stages = (0, early, steps)
    return images, [style.texture(model, x, steps=steps, snapshots=stages) for x in images]


def _grid(steps: int) -> tuple[np.ndarray, list[style.StyleResult]]:
    model = rvis.load("cifar10_resnet_robust")
    images = samples.load("tiny_imagenet_animals").floats([32, 72, 52])
    content, *styles = images
    ratios = [1, 0.1, 0.01, 0.001]
    return images, [style.transfer(model, content, x, ratio=ratios, steps=steps) for x in styles]


def _woven(found: tuple[np.ndarray, list[style.StyleResult]]) -> Outcome:
    images, results = found
    table: dict[str, dict[str, float]] = {}
    rows = []
    for name, image, result in zip(("coral", "flowers"), images, results, strict=True):
        first, last = -float(result.scores[0]), -float(result.scores[-1])
        table[name] = {
            "Gram loss of noise": first,
            "of the texture": last,
            "falls by, %": 100 * (1 - last / first),
            "with the histogram matched": float(result.style_loss),
        }
        rows.append([image, *result.snapshots.values()])
    titles = ["picture", *(f"step {step}" for step in results[0].snapshots)]
    return Outcome(grids.grid(rows, titles=titles, row_titles=list(table), scale=2), table)


def _mixed(found: tuple[np.ndarray, list[style.StyleResult]]) -> Outcome:
    (content, *styles), results = found
    table: dict[str, dict[str, float]] = {}
    rows = []
    for name, image, result in zip(("coral", "flowers"), styles, results, strict=True):
        for title, own, other in zip(
            result.labels, result.content_loss, result.style_loss, strict=True
        ):
            cells = table.setdefault(str(title), {})
            cells[f"content loss, {name}"] = float(own)
            cells[f"style loss, {name}"] = float(other)
        rows.append([content, *result.images, image])
    titles = ["content", *table, "style"]
    return Outcome(grids.grid(rows, titles=titles, scale=2), table)


def _judge(tables: Tables) -> Verdict:
    falls = [row["falls by, %"] for row in tables["texture"].values()]
    columns = {
        name: [row[name] for row in tables["grid"].values()]
        for name in next(iter(tables["grid"].values()))
    }
    # From the largest share of content to the smallest.
    kept = [v for name, v in columns.items() if name.startswith("content")]
    taken = [v for name, v in columns.items() if name.startswith("style")]
    lower = [low > high for values in taken for low, high in itertools.pairwise(values)]
    points = (
        min(falls) > 90,
        all(low < high for values in kept for low, high in itertools.pairwise(values)),
        all(lower),
    )
    ends = "; ".join(f"{values[0]:.2f} to {values[-1]:.2f}" for values in kept)
    others = "; ".join(f"{values[0]:.2f} to {values[-1]:.2f}" for values in taken)
    return Verdict(
        "yes" if all(points) else "in part" if any(points) else "no",
        f"The Gram loss of noise falls by {min(falls):.1f} to {max(falls):.1f} %. With ever less "
        f"weight on content its loss goes from {ends}, {'' if points[1] else 'not '}at every step; "
        f"the style's goes from {others}, down at {sum(lower)} of {len(lower)} steps.",
    )


SECTION = Section(
    name="style",
    title="Texture and style",
    claim="What goes together in a picture's features, whatever the place, is its texture: noise "
    "with the same Gram matrices looks woven alike. Weighed against another picture's features in "
    "place it is style against content.",
    parts=(
        Part(
            name="texture",
            caption="A brain coral and a bush of flowers, and noise that gets their Gram matrices "
            "in five layers of the robust CIFAR-10 network. It is small and was trained on 32 "
            "pixels; the published choice is VGG-19.",
            alt="A maze of white ridges and a bush of yellow flowers, each beside coloured noise "
            "that turns into such ridges and such dots at other places.",
            draw=_texture,
            tell=_woven,
            numbers={"steps": (24, 80, 500), "early": (6, 12, 12)},
            quick=False,
        ),
        Part(
            name="grid",
            caption="A black dog in two styles, in columns by the ratio of content to style, "
            "which falls to the right.",
            alt="Two rows of a dog that is plain at the left and dissolves to the right, above "
            "into the ridges of a coral, below into yellow and green dots.",
            draw=_grid,
            tell=_mixed,
            numbers={"steps": (12, 40, 500)},
            quick=False,
        ),
    ),
    judge=_judge,
)
