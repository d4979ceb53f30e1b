"""The nearest points of a hyperplane and of an L1 ball, against conditions that they alone meet."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import scipy.optimize

from rvis.attacks.geometry import into_l1, length, surface, to_plane

RNG = np.random.default_rng(0)
SIZE = 9
IMAGES = np.where(
    RNG.random((12, SIZE)) < 0.3, RNG.random((12, SIZE)) < 0.5, RNG.random((12, SIZE))
)
SLOPES = RNG.standard_normal((12, SIZE)) * np.exp(RNG.standard_normal((12, SIZE)))
GAINS = RNG.standard_normal(12)


def shortest(image, slope, gain, norm):
    """The least length of a linear program; None where it has no solution."""
    bounds = [(-x, 1 - x) for x in image]
    eye = np.eye(SIZE)
    if norm == "linf":
        cost, extra = np.r_[np.zeros(SIZE), 1], -np.ones((SIZE, 1))
    else:
        cost, extra = np.r_[np.zeros(SIZE), np.ones(SIZE)], -eye
    above = np.block([[eye, extra], [-eye, extra]])
    equal = np.r_[slope, np.zeros(extra.shape[1])][None]
    bounds += [(0, None)] * extra.shape[1]
    found = scipy.optimize.linprog(cost, above, np.zeros(2 * SIZE), equal, [gain], bounds=bounds)
    return found.fun if found.success else None


@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_the_way_to_a_plane_is_as_short_as_a_linear_programs(norm):
    solved = 0
    moves = jax.jit(jax.vmap(lambda *a: to_plane(*a, norm)))(
        *(a.astype(np.float32) for a in (IMAGES, SLOPES, GAINS))
    )
    for image, slope, gain, move in zip(IMAGES, SLOPES, GAINS, np.asarray(moves), strict=True):
        least = shortest(image, slope, gain, norm)
        assert (image + move).min() >= -1e-6 and (image + move).max() <= 1 + 1e-6
        if least is None:  # as far as [0, 1] lets it
            most = np.where(slope * gain > 0, 1 - image, image) @ np.abs(slope)
            assert np.abs(slope @ move) == pytest.approx(most, rel=1e-4)
            continue
        solved += 1
        assert slope @ move == pytest.approx(gain, rel=1e-4, abs=1e-5)
        assert float(length(move, norm)) == pytest.approx(least, rel=1e-4)
    assert solved >= 8


def test_in_l2_all_that_may_move_moves_along_the_slope():
    moves = jax.jit(jax.vmap(lambda *a: to_plane(*a, "l2")))(
        *(a.astype(np.float32) for a in (IMAGES, SLOPES, GAINS))
    )
    for image, slope, gain, move in zip(IMAGES, SLOPES, GAINS, np.asarray(moves), strict=True):
        room = np.where(slope * gain > 0, 1 - image, image)
        if room @ np.abs(slope) < abs(gain):
            continue
        assert slope @ move == pytest.approx(gain, rel=1e-4, abs=1e-5)
        ratio, free = move / slope, np.abs(move) < room - 1e-6
        assert np.ptp(ratio[free]) < 1e-4 * np.abs(ratio[free]).max()
        assert (np.abs(ratio[~free]) <= np.abs(ratio[free]).max() * (1 + 1e-4)).all()


@pytest.mark.parametrize("radius", [0.0, 0.3, 2.0, 50.0])
def test_the_nearest_point_of_an_l1_ball_is_cut_alike_everywhere(radius):
    centres = IMAGES.astype(np.float32)
    others = (centres + RNG.standard_normal(centres.shape)).astype(np.float32)
    radii = np.full(12, radius, np.float32)
    points = np.asarray(jax.jit(jax.vmap(into_l1))(others, centres, radii))
    for centre, other, point in zip(centres, others, points, strict=True):
        moved, size = np.abs(point - centre), np.abs(other - centre)
        room = np.where(other > centre, 1 - centre, centre)
        assert moved.sum() <= radius and (moved <= room + 1e-6).all()
        assert ((point - centre) * (other - centre) >= 0).all()
        if np.minimum(size, room).sum() <= radius:
            np.testing.assert_allclose(moved, np.minimum(size, room), atol=1e-5)
            continue
        assert moved.sum() == pytest.approx(radius, rel=1e-4, abs=1e-6)
        inner = (moved > 1e-6) & (moved < room - 1e-6)
        if inner.any():
            cut = (size - moved)[inner]
            assert np.ptp(cut) < 1e-4
            assert (size[moved <= 1e-6] <= cut.max() + 1e-4).all() or (room <= 1e-6).any()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_random_directions_have_length_one(norm):
    draws = np.asarray(
        jax.jit(jax.vmap(lambda k: surface(k, (4, 4, 3), norm)))(
            jax.random.split(jax.random.key(0), 64)
        )
    )
    lengths = [float(length(draw, norm)) for draw in draws]
    np.testing.assert_allclose(lengths, 1, rtol=1e-5)
    assert np.abs(draws.mean(0)).max() < 0.5 * np.abs(draws).max()
