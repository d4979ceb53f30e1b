"""What can be asked for: a neuron, a channel, a layer, a direction, a logit, a probability."""

from __future__ import annotations

import numpy as np

import rvis
from rvis.objectives import channel, direction, layer, logit, neuron, probability
from rvis.plotting import grids
from scripts.gallery.base import Outcome, Part, Section, Tables, Verdict

Found = dict[str, list[rvis.Result]]


def _asked(steps: int) -> Found:
    models = [rvis.load("cifar10_resnet"), rvis.load("cifar10_resnet_robust")]
    asked = {
        "neuron": neuron("layer3", 6),
        "channel": channel("layer3", 6),
        "layer": layer("layer3"),
        "direction": direction("layer3", np.eye(128)[6] - np.eye(128)[7]),
        "logit": logit(8),
        "probability": probability(8),
    }
    return {
        name: [rvis.visualize(model, objective, steps=steps) for model in models]
        for name, objective in asked.items()
    }


def _told(found: Found) -> Outcome:
    rows = list(zip(*([result.images for result in pair] for pair in found.values()), strict=True))
    table = {
        f"{name}, {kind}": {"of noise": float(scores[0]), "at the end": float(scores[-1])}
        for name, pair in found.items()
        for kind, scores in zip(
            ("standard", "robust"), (_scores(name, result) for result in pair), strict=True
        )
    }
    picture = grids.grid(
        [list(row) for row in rows], titles=list(found), row_titles=["standard", "robust"]
    )
    return Outcome(picture, table)


def _scores(name: str, result: rvis.Result) -> np.ndarray:
    """Over the steps; the ascent climbs the logarithm of a probability."""
    scores = np.squeeze(result.scores)
    return np.exp(scores) if name == "probability" else scores


def _judge(tables: Tables) -> Verdict:
    rows = tables["six"]
    risen = sum(row["at the end"] > row["of noise"] for row in rows.values())
    sure = rows["probability, robust"]["at the end"]
    return Verdict(
        "yes" if risen == len(rows) else "in part",
        f"{risen} of {len(rows)} scores end above that of noise; the robust network gives the "
        f"picture of the class a probability of {sure:.3f}.",
    )


SECTION = Section(
    name="objectives",
    title="Objectives",
    claim="The same ascent answers different questions: what does one neuron look for, a channel, "
    "a whole layer, a direction between channels, a class before and after the softmax?",
    parts=(
        Part(
            name="six",
            caption="Unit 6 of layer3 as neuron and channel, all of layer3, channel 6 without "
            "channel 7, and the class ship as logit and probability; standard network above, "
            "robust below.",
            alt="Two rows of six pictures: a spot of pattern in the middle for the neuron, the "
            "pattern everywhere for the channel, a mixture for the layer, ships for the class.",
            draw=_asked,
            tell=_told,
            numbers={"steps": (32, 128, 512)},
            quick=False,
        ),
    ),
    judge=_judge,
)
