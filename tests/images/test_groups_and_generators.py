"""Pictures with a part in common, of any number of channels, and by a generator of one's own."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rvis
from rvis import images, objectives, optimizers
from rvis.images import CPPN, Fourier, Pixel, Pyramid, Shared
from tests import toys

QUICK: dict[str, Any] = {"transforms": (), "progress": False}


@pytest.mark.parametrize("own", [Fourier((6, 5, 3)), Pyramid((6, 5, 3), levels=2)])
def test_a_picture_is_half_its_own_part_and_half_the_mean_of_the_common_ones(own):
    image, init = Shared(own), jax.jit(own.init)

    def drawn(seed):
        return jax.tree.map(np.asarray, init(jax.random.key(seed)))

    positions = [
        {"own": drawn(i), "common": jax.tree.map(lambda leaf: 9 * leaf, drawn(10 + i))}
        for i in range(2)
    ]
    group = jax.tree.map(lambda *leaves: np.stack(leaves), *positions)
    found = jax.jit(lambda group: jax.vmap(image.decode)(image.together(group)))(group)
    decode = jax.jit(own.decode)
    for i in range(2):
        both = jax.tree.map(
            lambda mine, a, b: (mine + (a + b) / 2) / 2,
            positions[i]["own"],
            *(position["common"] for position in positions),
        )
        np.testing.assert_allclose(found[i], decode(both), atol=1e-5)


def test_a_picture_given_is_its_own_part():
    picture = np.random.default_rng(0).uniform(0.1, 0.9, (6, 5, 3)).astype(np.float32)
    image = Shared(Fourier((6, 5, 3)))
    position = jax.jit(image.encode)(picture)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(position["common"]))
    np.testing.assert_allclose(jax.jit(image.decode)(position), picture, atol=1e-5)


def drawn(image, objective, **options):
    return rvis.visualize(toys.pointwise(), objective, image=image, **{**QUICK, **options})


def test_what_all_pictures_ask_for_grows_in_common():
    """Two pictures with one objective differ by their noise alone, and less than without."""
    objective = objectives.interpolate(*[objectives.channel("conv", 0)] * 2)
    alone, shared = (
        drawn(image, objective, facets=2, steps=40)
        for image in (Fourier((6, 8, 3)), Shared(Fourier((6, 8, 3))))
    )

    def apart(result):
        logits = np.log(result.images) - np.log1p(-result.images)
        return np.std(logits[1] - logits[0])

    assert apart(shared) < 0.5 * apart(alone)
    assert shared.scores[-1] > shared.scores[0] + 0.1


def test_the_common_part_moves_by_the_mean_gradient():
    """One step of length 1 from grey, worked out for logits linear in the octaves."""
    image = Shared(Pyramid((2, 3, 1), levels=1, sd=0.0))
    weights = np.random.default_rng(0).standard_normal((6, 2)).astype(np.float32)
    result = rvis.visualize(
        toys.linear(weights, (2, 3, 1)),
        objectives.interpolate(objectives.logit(0), objectives.logit(1)),
        image=image,
        facets=2,
        steps=1,
        optimizer=optimizers.sgd(1.0),
        **QUICK,
    )
    # Half of each score counts, the sigmoid's slope is ¼, and half of each part makes a picture.
    slopes = weights.T.reshape(2, 2, 3, 1) / 2 / 4 / 2
    logits = (slopes + slopes.mean(0)) / 2
    np.testing.assert_allclose(result.images, 1 / (1 + np.exp(-logits)), atol=1e-5)


@pytest.mark.parametrize("facets", [1, 3])
def test_groups_share_in_every_task_of_a_batch(facets):
    """A batch of groups is its groups one by one; snapshots see the same pictures."""
    image = Shared(Fourier((6, 8, 3)))
    options = {"facets": facets, "steps": 4, "snapshots": (4,)}
    many = drawn(image, objectives.channel("conv", [0, 3]), **options)
    alone = drawn(image, objectives.channel("conv", 3), **options)
    np.testing.assert_array_equal(many.images[1], alone.images)
    np.testing.assert_array_equal(many.snapshots[4], many.images)


@pytest.mark.parametrize("own", [Pixel((4, 4, 3)), CPPN((4, 4, 3)), images.MACO((4, 4, 3)), "rgba"])
def test_parts_that_do_not_add_up_are_refused(own):
    with pytest.raises(TypeError, match="own: a Fourier or a Pyramid"):
        Shared(own)


@pytest.mark.parametrize(
    ("kind", "channels"), [("pixel", 2), ("fourier", 5), ("pyramid", 2), ("cppn", 5)]
)
def test_any_number_of_channels_climbs(kind, channels):
    model = toys.pointwise(channels=channels)
    objective = objectives.channel("conv", 0)
    result = rvis.visualize(model, objective, image=kind, steps=16, **QUICK)
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
    variables = Decoder().init(jax.random.key(1), jnp.zeros(5))
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
