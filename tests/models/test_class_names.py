"""A class is given by its number or its name everywhere, and gives the same."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import rvis
from rvis import attacks, attribution, synthesis
from rvis.analysis import manifold, metrics, patches
from rvis.concepts import groups
from tests import toys

NAMES = ("ant", "bee", "crane", "crane")
SIZE = (8, 8, 3)
MODEL = toys.pointwise(size=SIZE[:2], channels=3, classes=4).replace(classes=NAMES)
IMAGES = np.random.default_rng(0).random((2, *SIZE), np.float32)
DATA = rvis.data.Dataset((255 * IMAGES).astype(np.uint8), np.zeros(2, np.int32), ("one",), "noise")
QUIET = {"progress": False}

CALLS = {
    "visualize": lambda c: rvis.visualize(MODEL, c, steps=2, **QUIET).images,
    "sweep": lambda c: rvis.sweep(MODEL, "logits", [c], steps=2, **QUIET).images,
    "deepdream": lambda c: rvis.deepdream(MODEL, IMAGES, c, steps=1, octaves=1, **QUIET).images,
    "labels": lambda c: attacks.pgd(MODEL, IMAGES, c, eps=0.1, steps=2, **QUIET).images,
    "target": lambda c: attacks.pgd(MODEL, IMAGES, 0, target=c, eps=0.1, steps=2, **QUIET).images,
    "fool": lambda c: attacks.fool(MODEL, c, start=IMAGES[0], steps=2, **QUIET).images,
    "gradient": lambda c: attribution.gradient(MODEL, IMAGES, c, **QUIET).maps,
    "deletion": lambda c: metrics.deletion(MODEL, IMAGES, IMAGES, c, **QUIET).scores,
    "linear_shift": lambda c: manifold.linear_shift(MODEL, IMAGES, c, 0.1).predicted,
    "top_activations": lambda c: patches.top_activations(MODEL, "logits", c, DATA, k=1).values,
    "groups": lambda c: groups.factorize(MODEL, IMAGES[0], "relu", k=1, classes=c).effects,
}


# These hand on to others what they are given.
AGAIN = ("sweep", "deepdream", "fool", "linear_shift")


@pytest.mark.parametrize(
    "call", [pytest.param(name, marks=[pytest.mark.slow] * (name in AGAIN)) for name in CALLS]
)
def test_a_name_is_its_number(call):
    by_name, other = CALLS[call]("bee"), CALLS[call](0)
    np.testing.assert_array_equal(by_name, CALLS[call](1))
    assert not np.array_equal(by_name, other)


@pytest.mark.parametrize("call", CALLS)
def test_a_name_of_two_classes_is_ambiguous(call):
    with pytest.raises(ValueError, match="'crane' is ambiguous, the name of classes 2 and 3"):
        CALLS[call]("crane")


def test_seeds_know_the_names():
    pictures, labels = np.repeat(DATA.images, 2, 0), np.int32([0, 1, 1, 0])
    seeds = synthesis.seeds.fit(rvis.data.Dataset(pictures, labels, ("ant", "bee"), "noise"))
    keys = jax.random.split(jax.random.key(0), 2)
    np.testing.assert_array_equal(
        seeds.sample(keys, ["bee", "ant"], (8, 8)), seeds.sample(keys, [1, 0], (8, 8))
    )
