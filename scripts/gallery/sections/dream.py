"""DeepDream by depth."""

from __future__ import annotations

import jax
import numpy as np

import rvis
from rvis.plotting import grids
from scripts.gallery import measures, samples
from scripts.gallery.base import Outcome, Part, Section, Tables, Verdict

Found = tuple[np.ndarray, dict[str, rvis.Result]]

_LAYERS = ("layer1", "layer2", "layer3", "layer4")


def _dreams(side: int, steps: int) -> Found:
    model, animals = rvis.load("cifar10_resnet_robust"), samples.load("tiny_imagenet_animals")
    photo = np.clip(jax.image.resize(animals.floats([108])[0], (side, side, 3), "cubic"), 0, 1)
    return photo, {
        at: rvis.deepdream(model, photo, at, steps=steps)
        for at in ("layer1", "layer2", "layer3", "layer4")
    }


def _told(found: Found) -> Outcome:
    photo, dreams = found
    model = rvis.load("cifar10_resnet_robust")
    table = {}
    for name, result in dreams.items():
        before, after = (
            np.square(rvis.record(model, image[None], name)[name]).mean()
            for image in (photo, np.asarray(result.images))
        )
        change = np.asarray(result.images) - photo
        table[name] = {
            "squared activation, times that of the photograph": float(after / before),
            "mean frequency of the change": measures.centroid(change[None]),
        }
    pictures = [photo, *(np.asarray(result.images) for result in dreams.values())]
    return Outcome(grids.grid(pictures, titles=["photograph", *dreams], columns=5), table)


def _judge(tables: Tables) -> Verdict:
    rows = list(tables["depth"].values())
    heights = [row["squared activation, times that of the photograph"] for row in rows]
    waves = [row["mean frequency of the change"] for row in rows]
    amplified = all(height > 1 for height in heights)
    return Verdict(
        "yes" if amplified and waves[-1] < waves[0] else "in part" if amplified else "no",
        f"Squared activations grow by factors of {min(heights):.1f} to {max(heights):.1f}; the "
        f"change has a mean frequency of {waves[0]:.3f} cycles a pixel for {_LAYERS[0]} and "
        f"{waves[-1]:.3f} for {_LAYERS[-1]}.",
    )


SECTION = Section(
    name="dream",
    title="DeepDream by depth",
    claim="Amplify what a layer sees in a photograph: low layers bring out strokes, high ones "
    "pieces of objects that are not there.",
    parts=(
        Part(
            name="depth",
            caption="A photograph and its dreams by four layers of the robust network.",
            alt="A photograph of an animal, then the same with growing strokes, swirls and shapes.",
            draw=_dreams,
            tell=_told,
            numbers={"side": (64, 128, 320), "steps": (6, 10, 10)},
        ),
    ),
    judge=_judge,
)
