"""rvis.projections: what is projected or drawn is in the set, and as near as the docstrings say."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvis import projections
from rvis.projections import Box, L1Ball, L2Ball, LinfBall

ORDERS = {LinfBall: np.inf, L2Ball: 2, L1Ball: 1}
DUALS = {LinfBall: 1, L2Ball: 2, L1Ball: np.inf}
SHAPES = [(1, 1, 1), (3, 5, 1), (4, 4, 3)]
balls = pytest.mark.parametrize("ball", ORDERS, ids=[ball.__name__ for ball in ORDERS])

projected = jax.jit(lambda ball, x: ball.project(x))
drawn = jax.jit(lambda ball, key: ball.sample(key))


def project(ball: projections.Projection, x: np.ndarray) -> np.ndarray:
    return np.asarray(projected(ball, x))


def sample(ball: projections.Projection, key: jax.Array) -> np.ndarray:
    return np.asarray(drawn(ball, key))


def random(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, np.float32)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def excess(ball: projections.Projection, x: np.ndarray) -> float:
    """‖x − centre‖ / radius − 1 of the arrays as they are, in double precision."""
    delta = np.asarray(x, np.float64) - np.asarray(ball.centre, np.float64)
    return np.linalg.norm(delta.ravel(), ORDERS[type(ball)]) / float(ball.radius) - 1


@balls
@settings(deadline=None, max_examples=40)
@given(
    shape=st.sampled_from(SHAPES),
    seed=st.integers(0, 2**31 - 1),
    radius=st.floats(2**-20, 64, width=32),
    spread=st.sampled_from([1e-6, 1e-3, 0.1, 1.0, 1e3, 1e20]),
    binary=st.booleans(),
)
def test_what_is_projected_is_in_ball_and_box(ball, shape, seed, radius, spread, binary):
    centre = random(seed, *shape)
    ball = ball(np.round(centre) if binary else centre, np.float32(radius))
    x = project(ball, ball.centre + np.float32(spread) * normal(seed + 1, *shape))
    assert excess(ball, x) <= 1e-6
    assert x.min() >= 0 and x.max() <= 1


@balls
@pytest.mark.parametrize("radius", [1e-3, 8 / 255, 0.5, 3.0])
def test_the_bound_holds_on_a_photograph_size(ball, radius):
    centre, noise = random(0, 2, 128, 128, 3)
    ball = ball(centre, np.float32(radius))
    assert excess(ball, project(ball, noise)) <= 1e-6


@balls
@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31 - 1), radius=st.floats(2**-20, 64, width=32))
def test_what_is_drawn_is_in_ball_and_box(ball, seed, radius):
    ball = ball(random(seed, 4, 4, 3), np.float32(radius))
    x = sample(ball, jax.random.key(seed))
    assert excess(ball, x) <= 1e-6
    assert x.min() >= 0 and x.max() <= 1


@balls
@pytest.mark.parametrize("radius", [0.01, 0.3])
@pytest.mark.parametrize("spread", [0.1, 10.0, 1e6])
def test_the_projection_is_the_nearest_point(ball, radius, spread):
    # p is nearest to x in a convex set iff no point of it lies farther than p along x − p. For a
    # ball the farthest lies at radius · the dual norm. The box is far away from grey.
    ball = ball(np.full((3, 5, 1), 0.5, np.float32), np.float32(radius))
    x = ball.centre + np.float32(spread) * normal(0, 3, 5, 1)
    delta = np.asarray(project(ball, x), np.float64) - 0.5
    rest = np.asarray(x, np.float64) - 0.5 - delta
    farthest = radius * np.linalg.norm(rest.ravel(), DUALS[type(ball)])
    np.testing.assert_allclose((rest * delta).sum(), farthest, rtol=2e-5)


def test_the_l1_projection_by_hand():
    # Lowering both by 1/16 leaves .1875 + .0625 = .25; the third is within the threshold.
    ball = L1Ball(np.full((1, 3, 1), 0.5, np.float32), 0.25)
    x = np.array([0.75, 0.375, 0.5625], np.float32).reshape(1, 3, 1)
    np.testing.assert_allclose(project(ball, x).ravel(), [0.6875, 0.4375, 0.5], atol=1e-6)


def test_the_linf_projection_is_a_clip():
    ball = LinfBall(np.array([0.5, 0.5, 0.9], np.float32).reshape(1, 3, 1), 0.25)
    x = np.array([0.6, -1.0, 2.0], np.float32).reshape(1, 3, 1)
    np.testing.assert_allclose(project(ball, x).ravel(), [0.6, 0.25, 1.0], atol=1e-7)


@balls
def test_a_point_inside_stays_bit_for_bit(ball):
    centre = np.float32(0.2) + np.float32(0.6) * random(0, 4, 4, 3)
    x = centre + np.float32(1e-3) * normal(1, 4, 4, 3)
    assert np.array_equal(project(ball(centre, np.float32(1.0)), x), x)


@balls
def test_radius_zero_gives_the_centre_bit_for_bit(ball):
    centre, x = random(0, 2, 4, 4, 3)
    ball = ball(centre, np.float32(0.0))
    assert np.array_equal(project(ball, x), centre)
    assert np.array_equal(sample(ball, jax.random.key(0)), centre)


@balls
def test_an_infinite_radius_leaves_the_box(ball):
    centre, x = normal(0, 2, 4, 4, 3)
    found = project(ball(np.clip(centre, 0, 1), np.float32(np.inf)), x)
    assert np.array_equal(found, np.clip(x, 0, 1))


@balls
@pytest.mark.parametrize("lead", [(), (1,)], ids=["n", "n groups"])
def test_radii_of_a_batch_are_those_of_its_examples(ball, lead):
    centre, x = random(0, 2, 3, *lead, 4, 4, 1)
    radii = np.array([0.0, 0.1, 2.0], np.float32)
    wanted = [project(ball(c, r), y) for c, r, y in zip(centre, radii, x, strict=True)]
    batch = ball(centre, radii)
    np.testing.assert_allclose(project(batch, x), np.stack(wanted), atol=1e-6)
    np.testing.assert_allclose(jax.vmap(projected)(batch, x), np.stack(wanted), atol=1e-6)


@balls
def test_one_centre_serves_many_radii(ball):
    ball = ball(np.full((4, 4, 1), 0.5, np.float32), np.array([0.01, 0.1], np.float32))
    x = sample(ball, jax.random.key(0))
    order = ORDERS[type(ball)]
    norms = [np.linalg.norm((image - 0.5).ravel(), order) for image in x]
    assert norms[0] <= 0.01 * (1 + 1e-6) < norms[1] <= 0.1 * (1 + 1e-6)


@balls
@pytest.mark.parametrize("shrink", [0.5, 0.8])
def test_draws_are_uniform(ball, shrink):
    # The part of a ball's volume within r of its centre is r to the power of the dimension.
    ball = ball(np.full((8000, 1, 3, 1), 0.5, np.float32), np.float32(0.25))
    delta = (sample(ball, jax.random.key(0)) - 0.5).reshape(8000, 3)
    within = np.linalg.norm(delta, ORDERS[type(ball)], axis=1) < shrink * 0.25
    assert abs(within.mean() - shrink**3) < 0.02
    np.testing.assert_allclose(delta.mean(0), 0, atol=0.01)


@balls
def test_a_draw_repeats_with_its_key(ball):
    ball = ball(np.full((4, 4, 1), 0.5, np.float32), np.float32(0.2))
    assert np.array_equal(sample(ball, jax.random.key(3)), sample(ball, jax.random.key(3)))
    assert not np.array_equal(sample(ball, jax.random.key(3)), sample(ball, jax.random.key(4)))


@balls
def test_sweeping_a_radius_does_not_retrace(ball):
    traces = []

    @jax.jit
    def evaluate(ball: projections.Projection) -> jax.Array:
        traces.append(ball)
        return ball.project(jnp.ones((2, 2, 1)))

    for radius in (0.1, 0.5):
        evaluate(ball(np.zeros((2, 2, 1), np.float32), radius))
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("one", "other"), [*itertools.combinations([LinfBall, L2Ball, L1Ball, Box], 2)]
)
def test_kinds_have_structures_of_their_own(one, other):
    # Where two structures are equal, `jit` may run the program of the one for the other.
    assert jax.tree.structure(one(0.0, 1.0)) != jax.tree.structure(other(0.0, 1.0))


def test_a_box_clips_where_it_is_told_to():
    x = jnp.array([-1.0, 0.3, 2.0])
    found = Box(-0.5, jnp.array([0.0, 0.25, 3.0])).project(x)
    assert found.tolist() == [-0.5, 0.25, 2.0]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: L2Ball(np.zeros((2, 2, 1)), -0.5), ValueError, "radius: at least 0.*-0.5"),
        (lambda: LinfBall(np.zeros((2, 2, 1)), float("nan")), ValueError, "radius: .*nan"),
        (lambda: L1Ball(np.zeros((2, 2, 1)), np.array([1, -1])), ValueError, "radius: .*-1"),
        (lambda: Box(0.5, 0.0), ValueError, "high: at least low = 0.5.*0.0"),
        (lambda: Box(float("nan")), ValueError, "low: .*nan"),
        (
            lambda: L2Ball(np.zeros((2, 2)), 1.0).project(np.zeros((2, 2))),
            ValueError,
            r"centre: \(..., H, W, C\).*\(2, 2\)",
        ),
        (
            lambda: L2Ball(np.zeros((2, 2, 1)), np.ones((2, 2, 1))).project(np.zeros((2, 2, 1))),
            ValueError,
            r"radius: .*\(2, 2, 1\)",
        ),
        (
            lambda: L2Ball(np.zeros((3, 2, 2, 1)), np.ones(2)).project(np.zeros((3, 2, 2, 1))),
            ValueError,
            r"centre: .*\(3, 2, 2, 1\), radius \(2,\)",
        ),
        (lambda: L2Ball(np.zeros((2, 2, 1)), 1.0).sample("a"), TypeError, "key: .*'a'"),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
