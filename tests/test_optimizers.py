"""Gradient maps on hand-worked gradients; rates are leaves, names are structure."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rvis
from rvis import objectives, optimizers
from rvis.engine import programs
from tests import toys

G = jnp.asarray([[[[3.0], [-4.0]]], [[[0.0], [0.0]]]])
# Of the first step: .9·m/(1 − .9²) + .1·g/(1 − .9), with m = .1·g, over √v̂ = |g|.
NESTEROV = 0.9 * 0.1 / 0.19 + 1


def halved(learning_rate):
    """A chain of a user's own: half of it is lost, and each image's norm is 1 at most."""
    return optax.chain(optax.clip_by_global_norm(1.0), optax.scale(0.5), optax.sgd(learning_rate))


@pytest.mark.parametrize(
    ("optimizer", "first"),
    [
        (optimizers.sgd(2.0), [6.0, -8.0, 0, 0]),
        (optimizers.steepest(0.5), [0.3, -0.4, 0, 0]),
        (optimizers.steepest(0.5, norm="linf"), [0.5, -0.5, 0, 0]),
        (optimizers.adam(0.5), [0.5, -0.5, 0, 0]),
        (optimizers.nadam(0.5), [0.5 * NESTEROV, -0.5 * NESTEROV, 0, 0]),
        (optimizers.from_optax(optax.sgd, 2.0), [6.0, -8.0, 0, 0]),
        (optimizers.from_optax(optax.adam, 0.5, b1=0.8), [0.5, -0.5, 0, 0]),
        (optimizers.from_optax(halved, 2.0), [0.6, -0.8, 0, 0]),
    ],
)
def test_first_step_goes_up(optimizer, first):
    position = jnp.zeros_like(G)
    moved, _ = optimizer.update(G, optimizer.init(position), position)
    np.testing.assert_allclose(moved.ravel(), first, rtol=1e-5)


def test_momentum_adds_up():
    optimizer = optimizers.sgd(1.0, momentum=0.5)
    position, state = jnp.zeros_like(G), optimizer.init(G)
    for _ in range(2):
        position, state = optimizer.update(G, state, position)
    np.testing.assert_allclose(position.ravel(), [7.5, -10, 0, 0])


def test_every_image_of_a_group_has_its_own_transformation():
    """The norm that is clipped is that of one image, whatever else is in its group."""
    group = jnp.concatenate([G[:1], 10 * G[:1]])
    optimizer = optimizers.from_optax(halved, 2.0)
    moved, _ = optimizer.update(group, optimizer.init(group), jnp.zeros_like(group))
    np.testing.assert_allclose(moved[0], moved[1], rtol=1e-6)


def test_a_schedule_is_followed_and_the_rate_compiles_nothing():
    model = toys.linear(np.ones((12, 1)), (2, 2, 3))
    options = {"image": "pixel", "transforms": (), "steps": 4, "progress": False}
    before = None
    for rate in (1e-3, 2e-3):
        result = rvis.visualize(
            model, objectives.logit(0), optimizer=optimizers.from_optax(falling, rate), **options
        )
        np.testing.assert_allclose(
            np.diff(result.scores), 12 * rate * np.array([1, 0.5, 0.0]), atol=1e-5
        )
        assert before in (None, programs.advance._cache_size())
        before = programs.advance._cache_size()


def falling(learning_rate):
    return optax.sgd(optax.linear_schedule(learning_rate, 0.0, 2))


def test_weight_decay_shrinks_while_the_score_climbs():
    """What a transformation does beside the gradient keeps its sign."""
    decayed = optimizers.from_optax(optax.adamw, 0.1, weight_decay=1.0)
    position = jnp.ones_like(G)
    moved, _ = decayed.update(G, decayed.init(position), position)
    np.testing.assert_allclose(moved.ravel(), [1.0, 0.8, 0.9, 0.9], rtol=1e-5)


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e-12, 1e12, 1e30])
def test_l2_steps_keep_their_length_for_any_gradient(size):
    optimizer = optimizers.steepest(0.5)
    moved, _ = optimizer.update(size * G, optimizer.init(G), jnp.zeros_like(G))
    assert float(jnp.linalg.norm(moved[0])) == pytest.approx(0.5, rel=1e-5)


def test_the_rate_is_a_leaf_and_the_rest_structure():
    structure = jax.tree.structure
    assert structure(optimizers.adam(0.1)) == structure(optimizers.adam(0.2))
    assert structure(optimizers.adam(0.1)) != structure(optimizers.adam(0.1, b1=0.5))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optimizers.adam(-1.0), "learning_rate: a number in"),
        (lambda: optimizers.sgd(float("nan")), "learning_rate: a number"),
        (lambda: optimizers.steepest(1.0, norm="l3"), "norm: unknown 'l3'"),
    ],
)
def test_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optimizers.from_optax(optax.sgd(0.1), 1.0), "factory: a function from the learn"),
        (lambda: optimizers.from_optax(optax.sgd, 0.1, nesterof=True), "factory: .*nesterof"),
        (lambda: optimizers.from_optax(float, 0.1), "factory: an optax transformation"),
        (lambda: optimizers.from_optax(optax.sgd, 0.1, momentum=[]), "momentum: what hashes"),
        (lambda: optimizers.from_optax(optax.sgd, "fast"), "learning_rate: a number"),
    ],
)
def test_what_makes_no_transformation_is_refused(make, message):
    with pytest.raises(TypeError, match=message):
        make()
