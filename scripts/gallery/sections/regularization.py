"""Regularization: what keeps the pictures of a standard network from being noise."""

from __future__ import annotations

import numpy as np

import rvis
from rvis import regularizers
from rvis.objectives import channel
from rvis.plotting import grids
from scripts.gallery import measures, samples
from scripts.gallery.base import Outcome, Part, Section, Tables, Verdict

Found = dict[str, rvis.Result]


def _regularized(steps: int, units: int) -> Found:
    model, asked = rvis.load("cifar10_resnet"), channel("layer3", range(units))
    penalties = (
        regularizers.l1(0.0015),
        regularizers.total_variation(0.0075),
        regularizers.blur(0.03),
    )
    return {
        name: rvis.visualize(model, asked, steps=steps, **options)
        for name, options in {
            "none": {"image": "pixel", "transforms": ()},
            "frequency penalties": {
                "image": "pixel",
                "transforms": (),
                "regularizers": penalties,
            },
            "transforms": {"image": "pixel"},
            "Fourier": {"image": "fourier", "transforms": ()},
            "Fourier, transforms": {"image": "fourier"},
        }.items()
    }


def _told(found: Found) -> Outcome:
    model = rvis.load("cifar10_resnet")
    real = samples.load("cifar10").floats()
    table = {}
    for name, result in found.items():
        asked = channel("layer3", range(len(result.images)))
        ranked = rvis.faithfulness(model, asked, result.images, real)
        table[name] = {
            "energy in fine detail": measures.fine(result.images),
            "clean activation": float(ranked.activation.mean()),
            "percentile among real images": float(ranked.percentile.mean()),
        }
    table["real images"] = {"energy in fine detail": measures.fine(real)}
    pictures = np.stack([result.images for result in found.values()])
    return Outcome(grids.grid(pictures, row_titles=list(found)), table)


def _judge(tables: Tables) -> Verdict:
    share = {name: row["energy in fine detail"] for name, row in tables["five"].items()}
    bare = share["none"]
    helped = [name for name in list(share)[1:-1] if share[name] < bare]
    return Verdict(
        "yes" if len(helped) == len(share) - 2 else "in part" if helped else "no",
        f"Without regularization {bare:.0%} of the energy is fine detail "
        f"({share['real images']:.0%} in real images); with transforms and a Fourier image "
        f"{share['Fourier, transforms']:.0%}. {len(helped)} of {len(share) - 2} remedies lower it.",
    )


SECTION = Section(
    name="regularization",
    title="Regularization",
    claim="Without regularization the picture for a standard network fills with high-frequency "
    "noise; penalties on it, random transforms and a Fourier image each hold it back.",
    parts=(
        Part(
            name="five",
            caption="Channels of layer3 of the standard network (columns), with five kinds of "
            "regularization (rows). The penalties are lucid's at three hundredths of their weight, "
            "which suits scores of this size.",
            alt="Five rows of pictures: speckled noise at the top, smoother textures further down.",
            draw=_regularized,
            tell=_told,
            numbers={"steps": (32, 128, 512), "units": (4, 6, 8)},
            quick=False,
        ),
    ),
    judge=_judge,
)
