"""An architecture of one's own, defined in this file: its layers, its weights, its ReLUs."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rvis
from rvis.data import Preparation
from rvis.kernels.layers import Conv
from rvis.kernels.pooling import max_pool
from rvis.models import architectures
from rvis.models.families.parts import Architecture
from rvis.types import identity


class Pair(nn.Module):
    """Two convolutions, a pooling and a dense layer; submodules have the names of the weights."""

    width: int = 4
    classes: int = 3

    @nn.compact
    def __call__(self, x, *, tap=identity, relu=nn.relu, pool=max_pool, train=False):
        del train
        x = tap("first", relu(Conv(self.width, 3, padding=1, name="features.0")(x)))
        x = tap("pool", pool(x, 2, 2))
        x = tap("second", relu(Conv(self.width, 1, name="features.3")(x)))
        return tap("head", nn.Dense(self.classes, name="classifier")(x.mean((1, 2))))


PAIR = Architecture(Pair, "classifier", (8, 8, 3), (0.5,), (0.25,), Preparation(crop=1.0))
"""The module, the classifier's name, the input, and how it is normalised and prepared."""


@pytest.fixture
def known(monkeypatch):
    monkeypatch.setitem(architectures.ARCHITECTURES, "pair", PAIR)


def state(seed=0):
    """Weights as PyTorch keeps them: kernels (out, in, h, w), dense ones (out, in)."""
    shapes = {"features.0": (4, 3, 3, 3), "features.3": (4, 4, 1, 1), "classifier": (3, 4)}
    rng = np.random.default_rng(seed)
    weights = {f"{k}.weight": rng.normal(0, 0.3, s).astype(np.float32) for k, s in shapes.items()}
    return weights | {f"{k}.bias": rng.normal(size=s[0]).astype("f4") for k, s in shapes.items()}


def by_hand(weights, images):
    """The same network in NumPy."""
    x = np.pad((images - 0.5) / 0.25, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))
    x = np.einsum("nhwcij,ocij->nhwo", windows, weights["features.0.weight"])
    x = np.maximum(x + weights["features.0.bias"], 0).reshape(len(x), 4, 2, 4, 2, 4).max((2, 4))
    x = np.einsum("nhwc,oc->nhwo", x, weights["features.3.weight"][..., 0, 0])
    x = np.maximum(x + weights["features.3.bias"], 0).mean((1, 2))
    return x @ weights["classifier.weight"].T + weights["classifier.bias"]


def test_it_takes_anybody_s_weights(known):
    images = np.random.default_rng(1).random((2, 8, 8, 3), np.float32)
    model = rvis.load("pair", weights=state())
    assert model.layers == ("first", "pool", "second", "head") and "pair" in rvis.list_models()
    np.testing.assert_allclose(model(images), by_hand(state(), images), rtol=1e-4, atol=1e-5)


def test_weights_that_do_not_fit_are_named(known):
    short = {name: array for name, array in state().items() if name != "features.3.bias"}
    with pytest.raises(ValueError, match=r"features\.3\.bias"):
        rvis.load("pair", weights=short)


def test_it_has_what_every_network_has(known):
    model = rvis.load("pair", weights="random", key=1)
    drawn = rvis.visualize(model, [0, 2], steps=4, progress=False)
    assert drawn.images.shape == (2, 8, 8, 3)
    guided = rvis.attribution.guided_backprop(model, drawn.images, 0, progress=False)
    plain = rvis.attribution.gradient(model, drawn.images, 0, progress=False)
    assert not np.allclose(guided.maps, plain.maps)
    shifted = jax.tree.map(lambda leaf: leaf + jnp.float32(0.1), model)
    assert shifted.apply == model.apply
