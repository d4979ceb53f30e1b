"""Judges of maps: Quantus's values on one network, and what follows by hand."""

from __future__ import annotations

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rvis import attribution
from rvis.analysis import metrics
from rvis.analysis.metrics.removal import _filled
from rvis.analysis.metrics.subsets import _Without
from tests import toys
from tests.attribution.explained import MODELS
from tests.golden.attribution import seeded_networks as golden

QUIET = {"progress": False}
MODEL = MODELS["plain"]
with np.load(pathlib.Path(__file__).parents[1] / "golden" / "attribution" / "maps.npz") as file:
    THEIRS = {name.partition("/")[2]: file[name] for name in file if name.startswith("judge/")}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("pointing_game", "PointingGame"),
        ("relevance_mass", "RelevanceMassAccuracy"),
        ("relevance_rank", "RelevanceRankAccuracy"),
        ("sparseness", "Sparseness"),
        ("complexity", "Complexity"),
    ],
)
def test_maps_alone_are_judged_as_by_quantus(ours, theirs):
    masks = () if ours in ("sparseness", "complexity") else (golden.MASKS,)
    found = getattr(metrics, ours)(golden.JUDGED, *masks)
    np.testing.assert_allclose(found, THEIRS[theirs].ravel(), rtol=1e-3)


def test_places_are_filled_as_by_quantus():
    order = np.argsort(-golden.JUDGED[0].ravel(), kind="stable")[:77]
    filled = _filled(golden.IMAGES[0], order, np.zeros(golden.SHAPE))
    np.testing.assert_allclose(filled, THEIRS["filled"], atol=1e-4)
    kept = np.ones(256, bool)
    kept[order] = False
    np.testing.assert_array_equal(
        filled.reshape(256, 3)[kept], golden.IMAGES[0].reshape(256, 3)[kept]
    )


def test_the_pointing_game_tolerates_near_misses():
    maps, masks = np.zeros((1, 5, 5)), np.zeros((1, 5, 5), int)
    maps[0, 0, 0] = masks[0, 1, 2] = 1
    assert not metrics.pointing_game(maps, masks)[0]
    assert not metrics.pointing_game(maps, masks, tolerance=2)[0]
    assert metrics.pointing_game(maps, masks, tolerance=3)[0]


def test_maps_of_nothing():
    nothing, masks = np.zeros((1, 2, 2)), np.ones((1, 2, 2), int)
    assert metrics.sparseness(nothing)[0] == metrics.complexity(nothing)[0] == 0
    assert metrics.relevance_mass(nothing, masks)[0] == 0
    with pytest.raises(ValueError, match="masks: a place at least"):
        metrics.relevance_mass(nothing, 0 * masks)
    with pytest.raises(ValueError, match="maps: finite numbers"):
        metrics.sparseness(nothing + np.nan)


WEIGHTS = np.random.default_rng(0).normal(size=(48, 2)).astype(np.float32)
LINEAR = toys.linear(WEIGHTS, (4, 4, 3))
IMAGES = np.random.default_rng(1).random((2, 4, 4, 3), np.float32)
EXACT = (IMAGES * WEIGHTS[:, 1].reshape(4, 4, 3)).sum(-1)


def test_the_exact_parts_of_a_linear_score_are_faithful():
    found = metrics.sensitivity_n(LINEAR, IMAGES, EXACT, 1, sizes=[1, 5, 12], samples=20, **QUIET)
    np.testing.assert_allclose(found, 1, atol=1e-4)
    other = metrics.sensitivity_n(LINEAR, IMAGES, -EXACT, 1, sizes=[5], samples=20, **QUIET)
    np.testing.assert_allclose(other, -1, atol=1e-4)
    one = metrics.faithfulness_correlation(
        LINEAR, IMAGES[0], EXACT[0], 1, size=5, samples=20, **QUIET
    )
    np.testing.assert_allclose(one, 1, atol=1e-4)
    flat = metrics.faithfulness_correlation(LINEAR, IMAGES, 0 * EXACT, 1, samples=8, **QUIET)
    np.testing.assert_array_equal(flat, 0)


def test_sensitivity_n_takes_n_places_away():
    change = _Without(jax.random.key(0), jnp.array([1, 5, 16]), jnp.int32(4))
    for number in range(12):
        own = (jnp.ones((4, 4)), jnp.zeros((4, 4, 3)))
        image, told = change(jnp.int32(number), jnp.ones((4, 4, 3)), own)
        assert told == (1, 5, 16)[number // 4] == (image == 0).all(-1).sum()


def test_places_are_shown_in_rising_order():
    """With weights of one sign the score only rises; a map of the wrong sizes does not matter."""
    up = toys.linear(np.abs(WEIGHTS), (4, 4, 3))
    np.testing.assert_array_equal(metrics.monotonicity(up, IMAGES, EXACT, 1, **QUIET), 1)
    down = toys.linear(-np.abs(WEIGHTS), (4, 4, 3))
    np.testing.assert_array_equal(metrics.monotonicity(down, IMAGES, EXACT, 1, **QUIET), 0)
    weights = np.zeros((4, 1), np.float32)
    weights[:, 0] = [3, -1, 2, -4]
    model, image = toys.linear(weights, (2, 2, 1)), np.full((2, 2, 1), 0.5, np.float32)
    # Shown from the least: −1, 2, 3, −4.
    sizes = np.array([[3.0, -1], [2, -4]])
    found = metrics.monotonicity(model, image, sizes, 0, pixels=1, **QUIET)
    assert found == 0.5
    # The three least together, −1, 1 and 1, and then the last.
    model = toys.linear([[1], [-1], [1], [1]], (2, 2, 1))
    assert metrics.monotonicity(model, image, sizes, 0, pixels=3, **QUIET) == 1


def test_road_asks_whether_the_class_is_still_on_top():
    weights = np.zeros((16, 2), np.float32)
    weights[:4, 1], weights[4:, 0] = 4, 0.1
    model = toys.linear(weights, (4, 4, 1))
    image = np.zeros((1, 4, 4, 1), np.float32)
    image[0, 0], image[0, 1:] = 1, 0.1
    first = np.zeros((1, 4, 4))
    first[0, 0] = 1
    curve = metrics.road(model, image, first, 1, shares=[0.25], noise=0, **QUIET)
    np.testing.assert_array_equal(curve.shares, [0, 0.25])
    # Filled from the row below, the first row is .1 too: 1.6 beside .12.
    np.testing.assert_array_equal(curve.scores, [[1, 1]])
    weaker = toys.linear(weights * [[1, 0.05]], (4, 4, 1))
    curve = metrics.road(weaker, image, first, 1, shares=[0.25], noise=0, **QUIET)
    np.testing.assert_array_equal(curve.scores, [[1, 0]])
    with pytest.raises(ValueError, match="shares: rising numbers"):
        metrics.road(model, image, first, 1, shares=[0.5, 0.25], **QUIET)


def test_irof_hides_the_best_segments_first():
    weights = np.repeat([4.0, 1.0], 8)[:, None].astype(np.float32)
    model, image = toys.linear(weights, (4, 4, 1)), np.full((1, 4, 4, 1), 0.5, np.float32)
    from rvis import objectives

    target = objectives.logit(0)
    halves = np.repeat([0, 1], 8).reshape(4, 4)
    best = halves == 0
    curve = metrics.irof(
        model, image, best[None] * 1.0, target, segments=halves, baseline=0.0, **QUIET
    )
    np.testing.assert_allclose(curve.scores, [[1, 0.2, 0]], atol=1e-6)
    worst = metrics.irof(
        model, image, 1.0 - best[None], target, segments=halves, baseline=0.0, **QUIET
    )
    np.testing.assert_allclose(worst.scores, [[1, 0.8, 0]], atol=1e-6)
    assert 1 - curve.area > 1 - worst.area
    # A small segment of a high mean comes before a large one of a higher sum.
    first, most = np.arange(16).reshape(4, 4) // 4 > 0, np.full((1, 4, 4), 2.0)
    most[0, 0] = 3
    curve = metrics.irof(model, image, most, target, segments=first * 1, baseline=0.0, **QUIET)
    np.testing.assert_allclose(curve.scores, [[1, 0.6, 0]], atol=1e-6)


def test_noise_for_weights_makes_a_maps_entropy_rise():
    image = golden.IMAGES[:1]
    same = metrics.efficient_sanity_check(MODEL, lambda model, images, target: images, image, 1)
    np.testing.assert_array_equal(same, 0)

    def by_weights(model, images, target):
        spot = np.zeros((1, 16, 16))
        spot[0, 3, 4] = 1
        return spot if model is MODEL else np.arange(256.0).reshape(1, 16, 16)

    found = metrics.efficient_sanity_check(MODEL, by_weights, image, 1, bins=256)
    p = 1 / 256
    before = -(p * np.log(p) + (1 - p) * np.log(1 - p))
    np.testing.assert_allclose(found, (np.log(256) - before) / before, rtol=1e-6)


def test_the_smooth_sanity_check_is_that_of_smoothed_maps():
    method = functools.partial(
        attribution.smoothgrad, of=attribution.gradient, samples=2, progress=False
    )
    found = metrics.sanity_check(MODEL, method, golden.IMAGES[:1], 1)
    assert found.signed.shape == (5, 1)
