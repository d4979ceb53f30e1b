"""Gradient maps on hand-worked gradients; rates are leaves, names are structure."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rvis import optimizers

G = jnp.asarray([[[[3.0], [-4.0]]], [[[0.0], [0.0]]]])


@pytest.mark.parametrize(
    ("optimizer", "first"),
    [
        (optimizers.sgd(2.0), [6.0, -8.0, 0, 0]),
        (optimizers.steepest(0.5), [0.3, -0.4, 0, 0]),
        (optimizers.steepest(0.5, norm="linf"), [0.5, -0.5, 0, 0]),
        (optimizers.adam(0.5), [0.5, -0.5, 0, 0]),
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


@pytest.mark.parametrize("size", [1e-15, 1e-12, 1e12])
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
        (lambda: optimizers.sgd(float("nan")), "learning_rate: a number in"),
        (lambda: optimizers.steepest(1.0, norm="l3"), "norm: unknown 'l3'"),
    ],
)
def test_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
