"""Pictures of any number of channels, and by a generator of one's own."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rvis
from rvis import images, objectives
from rvis.images import Fourier, Pixel, Pyramid
from tests import toys

QUICK: dict[str, Any] = {"transforms": (), "progress": False}
SMALLER = {"cppn": {"layers": 2, "width": 8}, "pyramid": {"levels": 2}}


@pytest.mark.parametrize(
    ("kind", "channels"), [("pixel", 2), ("fourier", 5), ("pyramid", 2), ("cppn", 5)]
)
def test_any_number_of_channels_climbs(kind, channels):
    model = toys.pointwise(channels=channels)
    objective = objectives.channel("conv", 0)
    image = dataclasses.replace(images.named(kind, model.input_shape), **SMALLER.get(kind, {}))
    result = rvis.visualize(model, objective, image=image, steps=16, **QUICK)
    assert result.images.shape == (6, 8, channels)
    assert result.scores[-1] > result.scores[0]
    assert 0 <= result.images.min() and result.images.max() <= 1


@pytest.mark.parametrize("maker", [Pixel, Fourier, Pyramid])
def test_any_number_of_channels_comes_back(maker):
    image = maker((6, 5, 4))
    picture = np.random.default_rng(0).uniform(0.01, 0.99, image.shape).astype(np.float32)
    around = jax.jit(lambda picture: image.decode(image.encode(picture)))
    np.testing.assert_allclose(around(picture), picture, atol=1e-5)


def test_maco_needs_colours_of_photographs():
    with pytest.raises(ValueError, match="shape: 1 or 3 channels"):
        rvis.visualize(toys.pointwise(channels=4), objectives.logit(0), image="maco", **QUICK)


class Decoder(nn.Module):
    """A generator of 8×8 pictures from five numbers."""

    @nn.compact
    def __call__(self, z):
        x = nn.relu(nn.Dense(4 * 4 * 6)(z)).reshape(4, 4, 6)
        return nn.sigmoid(nn.ConvTranspose(3, (4, 4), strides=(2, 2))(x))


@dataclasses.dataclass(frozen=True, eq=False)
class Generator:
    """The protocol around it, as the docstring of `images.Parameterization` has it."""

    module: nn.Module
    variables: dict
    shape: tuple[int, int, int]

    def init(self, key):
        return jax.random.normal(key, (5,))

    def decode(self, position):
        return self.module.apply(self.variables, position)

    def encode(self, image):
        raise ValueError("start: an image to start from was given, which a generator cannot write")


@pytest.fixture(scope="module")
def generator():
    variables = jax.jit(Decoder().init)(jax.random.key(1), jnp.zeros(5))
    return Generator(Decoder(), variables, (8, 8, 3))


def test_a_generator_network_is_a_parameterization(generator):
    model = toys.pointwise(size=(8, 8))
    objective = objectives.channel("conv", [0, 1])
    options = {"image": generator, "steps": 30, "snapshots": (0,), **QUICK}
    result = rvis.visualize(model, objective, **options)
    assert (result.scores[:, -1] > result.scores[:, 0] + 0.01).all()
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(0), i))(jnp.arange(2))
    codes = jax.vmap(lambda key: generator.init(jax.random.fold_in(key, 0)))(keys)
    np.testing.assert_allclose(
        result.snapshots[0], jax.vmap(generator.decode)(codes), rtol=1e-5, atol=1e-6
    )


def test_a_generator_says_what_it_cannot_start_from(generator):
    with pytest.raises(ValueError, match="start: .*generator"):
        rvis.visualize(
            toys.pointwise(size=(8, 8)),
            objectives.logit(0),
            image=generator,
            start=np.full((8, 8, 3), 0.5, np.float32),
            **QUICK,
        )
