"""The ascent step against closed forms."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rvis import engine, images, objectives, optimizers, projections, regularizers, struct
from rvis.ascent import Ascent, Problem
from tests import toys

SHAPE = (4, 5, 1)
WEIGHTS = np.random.default_rng(1).standard_normal((20, 3)).astype(np.float32)


def setup(count=1, optimizer=None, constraint=None, penalties=(), facets=1):
    model = toys.linear(WEIGHTS, SHAPE)
    optimizer = optimizers.sgd(0.1) if optimizer is None else optimizer
    algorithm = Ascent(images.Pixel(SHAPE, sd=0.0), optimizer, facets=facets)
    objective = objectives.channel("out", np.arange(count) % 3)
    problem = Problem(objective, penalties, constraint).broadcast(count)
    keys = jax.random.split(jax.random.key(0), count)
    return algorithm, model, problem, keys


def climb(algorithm, model, problem, keys, steps=3, **options):
    options = {"pixels": algorithm.pixels, "progress": False, **options}
    return engine.run(algorithm, model, problem, keys, steps=steps, **options)


def test_plain_ascent_on_a_linear_model_moves_along_the_weights():
    expected = 0.5 + 0.3 * WEIGHTS.T[:2].reshape(2, 1, *SHAPE)
    np.testing.assert_allclose(climb(*setup(2)).result, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("norm", "direction"),
    [("l2", WEIGHTS[:, 0] / np.linalg.norm(WEIGHTS[:, 0])), ("linf", np.sign(WEIGHTS[:, 0]))],
)
def test_steepest_ascent_has_steps_of_the_stated_length(norm, direction):
    pictures = climb(*setup(optimizer=optimizers.steepest(0.1, norm=norm)), steps=1).result
    np.testing.assert_allclose(pictures.ravel() - 0.5, 0.1 * direction, atol=1e-7)


def test_a_zero_gradient_makes_no_step():
    algorithm, model, problem, keys = setup(optimizer=optimizers.steepest(0.1))
    still = struct.replace(model, params=jnp.zeros_like(model.params))
    np.testing.assert_array_equal(climb(algorithm, still, problem, keys).result, 0.5)


def test_penalties_are_subtracted():
    penalty = regularizers.l1(2.0)
    plain = climb(*setup()).info
    penalised = climb(*setup(penalties=(penalty,)), steps=1).info
    np.testing.assert_allclose(plain.energy[:, :1], penalised.energy, rtol=1e-6)
    start = jnp.full((1, 1, *SHAPE), 0.75)
    info = climb(*setup(penalties=(penalty,)), steps=1, starts=start).info
    lost = float((info.score - info.energy)[0, 0])
    assert lost == pytest.approx(float(penalty(start[0])), rel=1e-5)
    assert lost > 0.1


def test_a_ball_is_reached_at_the_dual_optimum_and_never_left():
    ball = projections.L2Ball(jnp.full(SHAPE, 0.5), 0.2)
    problem = setup(optimizer=optimizers.steepest(0.05), constraint=ball)
    optimum = 0.2 * WEIGHTS[:, 0] / np.linalg.norm(WEIGHTS[:, 0])
    pictures = climb(*problem, steps=20).result
    np.testing.assert_allclose(pictures.ravel() - 0.5, optimum, atol=1e-5)


def test_scores_are_those_before_each_step():
    info = climb(*setup(), steps=2).info
    start = 0.5 * WEIGHTS[:, 0].sum()
    rise = 0.1 * (WEIGHTS[:, 0] ** 2).sum()
    np.testing.assert_allclose(info.score[0], [start, start + rise], rtol=1e-5)


@pytest.mark.parametrize(
    ("redirect_relu", "steps", "moves"),
    # Two steps of the same score open it again, wherever it was to be opened at all.
    [(0, 4, 0), (1, 1, 1), (1, 2, 1), (1, 3, 2), (1, 4, 3), (2, 2, 2)],
)
def test_a_closed_relu_is_woken_at_first_and_where_the_score_stands_still(
    redirect_relu, steps, moves
):
    model = toys.pointwise(bias=-99.0)
    spec = images.Pixel(model.input_shape, sd=0.0)
    algorithm = Ascent(spec, optimizers.sgd(1.0), redirect_relu=redirect_relu)
    keys = jax.random.split(jax.random.key(0), 1)
    problem = Problem(objectives.channel("relu", 0)).broadcast(1)
    pictures = climb(algorithm, model, problem, keys, steps=steps).result
    way = np.asarray(model.params["conv"])[:, 0] / np.prod(model.input_shape[:2])
    expected = np.broadcast_to(0.5 + moves * way, pictures.shape)
    np.testing.assert_allclose(pictures, expected, atol=1e-6)
