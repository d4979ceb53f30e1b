"""Gradient ascent from noise: a picture grows step by step."""

from __future__ import annotations

import numpy as np

import rvis
from rvis.objectives import logit
from rvis.plotting import grids
from scripts.gallery.base import Outcome, Part, Section, Tables, Verdict


def _growing(steps: int, late: int) -> rvis.Result:
    model = rvis.load("cifar10_resnet_robust")
    return rvis.visualize(model, logit([1, 4, 7, 8]), snapshots=(0, 4, late, steps), steps=steps)


def _grown(result: rvis.Result) -> Outcome:
    last = result.scores.shape[-1]
    table = {
        f"step {step}": {
            str(label): float(scores[min(step, last - 1)])
            for label, scores in zip(result.labels, result.scores, strict=True)
        }
        for step in result.snapshots
    }
    pictures = np.stack(list(result.snapshots.values()))
    titles = [str(label) for label in result.labels]
    return Outcome(grids.grid(pictures, titles=titles, row_titles=list(table)), table)


def _judge(tables: Tables) -> Verdict:
    rows = list(tables["growing"].values())
    first, last = rows[0], rows[-1]
    rising = sum(last[name] > 5 * abs(first[name]) for name in first)
    low, high = min(last.values()), max(last.values())
    return Verdict(
        "yes" if rising == len(first) else "in part",
        f"{rising} of {len(first)} logits end at more than five times what noise gives: "
        f"at {low:.1f} to {high:.1f}.",
    )


SECTION = Section(
    name="noise",
    title="Gradient ascent from noise",
    claim="Follow the gradient of a unit from noise, and a picture of what it looks for appears.",
    parts=(
        Part(
            name="growing",
            caption="Four classes of the robust CIFAR-10 network, from noise (top) to the last "
            "step (bottom).",
            alt="Rows of four pictures: noise, then coloured blotches, then shapes of a car, a "
            "deer, a horse and a ship.",
            draw=_growing,
            tell=_grown,
            numbers={"steps": (192, 2048, 2048), "late": (48, 48, 48)},
        ),
    ),
    judge=_judge,
)
