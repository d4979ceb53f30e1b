"""Gradient ascent from noise: a picture grows step by step."""

from __future__ import annotations

import numpy as np

import rvis
from rvis import images, optimizers, regularizers
from rvis.analysis import metrics
from rvis.objectives import channel
from rvis.plotting import grids
from scripts.gallery import networks
from scripts.gallery.base import Outcome, Part, Section, Tables, Verdict, both

_CLASSES = ("ostrich", "king penguin", "school bus", "strawberry")


def _growing(
    network: str,
    classes: tuple[str, ...],
    trunk: str,
    layer: str,
    units: tuple[int, ...],
    size: int,
    steps: int,
    late: int,
) -> list[rvis.Result]:
    # Nothing else bounds a channel's activation, which grows with contrast for ever.
    bounded = (regularizers.total_variation(0.02), regularizers.alpha_norm(0.5))
    return [
        rvis.visualize(
            networks.load(name),
            asked,
            regularizers=penalties,
            image=images.Fourier((size, size, 3), decay=1.5),
            optimizer=optimizers.adam(0.02),
            steps=steps,
            snapshots=(0, 4, late, steps),
        )
        for name, asked, penalties in (
            (network, list(classes), ()),
            (trunk, channel(layer, units), bounded),
        )
    ]


def _grown(drawn: list[rvis.Result]) -> Outcome:
    table = {}
    for result in drawn:
        for label, scores in zip(result.labels, result.scores, strict=True):
            table[str(label)] = {
                f"step {step}": float(scores[min(step, len(scores) - 1)])
                for step in result.snapshots
            }
    rows = [
        np.concatenate([result.snapshots[step] for result in drawn]) for step in drawn[0].snapshots
    ]
    titles = [str(label) for result in drawn for label in result.labels]
    names = [f"step {step}" for step in drawn[0].snapshots]
    return Outcome(grids.grid(rows, titles=titles, row_titles=names), table)


def _judge(tables: Tables) -> Verdict:
    rows = [list(row.values()) for row in tables["growing"].values()]
    risen = metrics.share([row[-1] > 5 * abs(row[0]) for row in rows])
    steady = sum(row == sorted(row) for row in rows)
    return Verdict(
        "yes" if risen.mean == 1 else "in part" if risen.mean > 0.5 else "no",
        f"{risen:.0%} of {len(rows)} units end at more than five times what noise gives; "
        f"{steady} rise from each row to the next.",
    )


def section(cast: networks.Cast) -> Section:
    """The section, drawn by these networks."""
    animals = len(networks.load(cast.classifier).classes) < 1000
    classes = ("goldfish", "monarch", "king_penguin", "ladybug") if animals else _CLASSES
    return Section(
        name="noise",
        title="Gradient ascent from noise",
        claim="Follow the gradient of a unit from noise, and a picture of what it looks for "
        "appears.",
        parts=(
            Part(
                name="growing",
                caption=f"Four classes of {networks.title(cast.classifier)} and four channels of "
                f"{networks.title(cast.filters)}, from noise (top) to the last step (bottom); the "
                "channels with total variation and an α-norm. The table has the unit's activation, "
                "under the random views of that step.",
                alt="Rows of eight pictures: grey noise, then faint blotches, then shapes, and at "
                "the bottom animals and things in pieces, feathers, eyes and patterns.",
                draw=_growing,
                tell=_grown,
                numbers=both(
                    network=cast.classifier,
                    classes=classes,
                    trunk=cast.filters,
                    layer=networks.depths(cast.filters)[4],
                    units=(5, 60, 90, 200),
                )
                | {"size": (64, 64), "steps": (24, 2048), "late": (12, 48)},
            ),
        ),
        judge=_judge,
    )
