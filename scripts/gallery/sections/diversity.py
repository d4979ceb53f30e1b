"""Diversity: several answers of one unit."""

from __future__ import annotations

import numpy as np

import rvis
from rvis import objectives
from rvis.objectives import channel, diversity
from rvis.plotting import grids
from scripts.gallery.base import Outcome, Part, Section, Tables, Verdict

Found = tuple[rvis.Result, rvis.Result]

_UNITS = (0, 36, 72)


def _four(steps: int) -> Found:
    model, asked = rvis.load("cifar10_resnet_robust"), channel("layer3", [0, 36, 72])
    alone = rvis.visualize(model, asked + 0.0 * diversity("layer3"), facets=4, steps=steps)
    spread = rvis.visualize(model, asked + 0.5 * diversity("layer3"), facets=4, steps=steps)
    return alone, spread


def _told(found: Found) -> Outcome:
    model = rvis.load("cifar10_resnet_robust")
    table = {}
    for name, result in zip(("without", "with diversity"), found, strict=True):
        seen = [rvis.record(model, facets, "layer3")["layer3"] for facets in result.images]
        kept = [float(x[..., unit].mean()) for x, unit in zip(seen, _UNITS, strict=True)]
        table[name] = {
            "Gram cosine of the four": float(np.mean([objectives.gram_cosine(x) for x in seen])),
            "activation of the channel": float(np.mean(kept)),
        }
    rows = [np.concatenate(pair) for pair in zip(*(r.images for r in found), strict=True)]
    titles = ["without"] * 4 + ["with diversity"] * 4
    return Outcome(
        grids.grid(rows, titles=titles, row_titles=[f"layer3:{unit}" for unit in _UNITS]), table
    )


def _judge(tables: Tables) -> Verdict:
    alone, spread = tables["facets"]["without"], tables["facets"]["with diversity"]
    name = "Gram cosine of the four"
    falls = 1 - spread[name] / alone[name]
    kept = spread["activation of the channel"] / alone["activation of the channel"]
    return Verdict(
        "yes" if falls >= 1 / 3 and kept >= 0.7 else "in part" if falls > 0 else "no",
        f"The Gram cosine of a unit's four pictures falls by {falls:.0%}, while they keep "
        f"{kept:.0%} of the activation.",
    )


SECTION = Section(
    name="diversity",
    title="Diversity",
    claim="One picture does not tell all that a unit answers to: asked to differ, four pictures of "
    "it show different facets and excite it nearly as much.",
    parts=(
        Part(
            name="facets",
            caption="Three channels of layer3 of the robust network (rows): four pictures each, "
            "left without and right with the diversity term.",
            alt="Three rows of eight pictures. The left four of a row are alike; the right four "
            "differ in colour and arrangement.",
            draw=_four,
            tell=_told,
            numbers={"steps": (48, 192, 512)},
            quick=False,
        ),
    ),
    judge=_judge,
)
