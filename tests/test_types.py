"""A model is a pytree that crosses jit; keys are typed or seeds."""

from __future__ import annotations

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rvis
from rvis import types
from tests import toys


def test_two_loads_of_one_architecture_share_their_program():
    @jax.jit
    @functools.partial(chex.assert_max_traces, n=1)
    def forward(model, images):
        return model.apply(model.params, images)

    outs = [
        forward(rvis.load("mnist_cnn", weights="random", key=key), jnp.ones((1, 28, 28, 1)))
        for key in (0, 1)
    ]
    assert not np.allclose(*outs)


def test_names_do_not_recompile():
    model = toys.pointwise(size=(5, 9))  # a shape that no other test compiles
    before = types._logits._cache_size()
    for name in ("one", "two"):
        model.replace(name=name, classes=(name, "c"))(np.zeros((3, 5, 9, 3), np.float32))
    assert types._logits._cache_size() == before + 1


def test_a_model_can_be_differentiated():
    gradient = jax.grad(lambda x: toys.pointwise()(x).sum())(jnp.full((1, 6, 8, 3), 0.5))
    assert float(jnp.abs(gradient).max()) > 0


def test_calling_checks_images():
    with pytest.raises(ValueError, match=r"images: values in \[0, 1\]"):
        toys.pointwise()(np.full((1, 6, 8, 3), 2.0, np.float32))


def test_layer_shapes_of_another_size():
    shapes = types.layer_shapes(toys.pointwise(), (10, 3, 3))
    assert shapes["relu"] == (10, 3, 4)
    assert shapes["logits"] == (2,)


def test_a_size_the_model_cannot_take_is_named():
    with pytest.raises(ValueError, match="size: linear cannot take an image of shape"):
        types.layer_shapes(toys.linear(np.ones((12, 2)), (2, 2, 3)), (3, 3, 3))


@pytest.mark.parametrize("key", [0, np.int64(3), jax.random.key(1)])
def test_keys(key):
    assert jax.dtypes.issubdtype(types.as_key(key).dtype, jax.dtypes.prng_key)


@pytest.mark.parametrize("key", [1.5, "0", True, np.zeros(3, np.uint32), np.zeros(2, int)])
def test_other_keys_are_refused(key):
    with pytest.raises(TypeError, match="key: an int seed or a typed key"):
        types.as_key(key)


@pytest.mark.parametrize("key", [2**63, -(2**70)])
def test_a_seed_of_too_many_bits_is_refused(key):
    with pytest.raises(ValueError, match="key: a seed of at most 64 bits"):
        types.as_key(key)


def test_a_layer_is_reached_without_those_after_it():
    model = rvis.load("alexnet", weights="random")
    shapes = types.layer_shapes(model, (11, 11, 3))
    assert shapes == {"conv1": (2, 2, 64), "relu1": (2, 2, 64)}
    assert list(types.layer_shapes(model, (40, 40, 3)))[-1] == "relu5"


def test_what_a_network_raises_of_a_small_image_does_not_matter_to_the_layers_before():
    def apply(params, images, *, tap=types.identity, relu=jax.nn.relu):
        hidden = tap("hidden", images * 2)
        if images.shape[1] < 8:
            raise AssertionError("too small")
        return tap("out", hidden).mean((1, 2))

    model = types.Model({}, apply, ("hidden", "out"), (8, 8, 3))
    assert types.layer_shapes(model, (4, 4, 3)) == {"hidden": (4, 4, 3)}


@pytest.mark.parametrize("given", [None, "alexnet", lambda x: x, 3])
def test_what_is_no_model_is_told_how_to_become_one(given):
    for call in (
        lambda: types.layer_shapes(given),
        lambda: rvis.record(given, np.zeros((1, 8, 8, 3)), "conv1"),
        lambda: rvis.visualize(given, rvis.objectives.logit(0)),
        lambda: rvis.sweep(given, "conv1"),
        lambda: rvis.deepdream(given, np.zeros((8, 8, 3)), "conv1"),
        lambda: rvis.objectives.target("target", 0, given, (8, 8, 3)),
    ):
        with pytest.raises(TypeError, match=r"model: an rvis\.Model .*rvis\.from_linen.*from_nnx"):
            call()
