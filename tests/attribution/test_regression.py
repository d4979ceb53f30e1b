"""KernelSHAP, LIME, pairs and groups of players: by formulas, by hand and by brute force."""

from __future__ import annotations

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from rvis import attribution
from rvis.attribution.coalitions import make_plan
from rvis.attribution.shapley import _levels
from tests import toys
from tests.attribution.explained import MODELS
from tests.golden.attribution import seeded_networks as golden

QUIET = {"progress": False}
RNG = np.random.default_rng(0)


def table(players):
    """A game of random values, and those values."""
    values = jnp.asarray(RNG.normal(size=2**players), jnp.float32)

    def game(coalitions):
        return values[coalitions @ (2 ** jnp.arange(players))]

    return game


def lecture(s):
    return jnp.where(s.all(-1), 2.5, s.sum(-1))


@pytest.mark.parametrize("players", [1, 2, 5, 8])
def test_kernel_shap_of_all_coalitions_is_exact(players):
    game = table(players)
    exact = attribution.shapley(game, players=players, **QUIET)
    found = attribution.kernel_shap(game, players=players, **QUIET)
    np.testing.assert_allclose(found.values, exact.values, atol=1e-5)
    assert (found.errors == 0).all()
    assert found.calls == 2**players


def test_the_lecture_by_every_route():
    for function in (attribution.shapley, attribution.kernel_shap, attribution.shapley_sampling):
        np.testing.assert_allclose(function(lecture, players=2, **QUIET).values, 1.25, atol=1e-6)
    pairs = attribution.shapley_interactions(lecture, players=2, **QUIET).values
    np.testing.assert_allclose(pairs, [[1, 0.5], [0.5, 1]], atol=1e-6)


def quadratic(s):
    x = s.astype(jnp.float32)
    slope = jnp.arange(20, dtype=jnp.float32)
    return x @ slope + 3 * x[:, 0] * x[:, 5] - 2 * x[:, 7] * x[:, 19]


def test_sampled_kernel_shap_is_exact_on_pairwise_games_but_for_their_pairs():
    exact = np.arange(20.0)
    exact[[0, 5]] += 1.5
    exact[[7, 19]] -= 1
    found = attribution.kernel_shap(quadratic, players=20, samples=400, **QUIET)
    np.testing.assert_allclose(found.values, exact, atol=0.15)
    np.testing.assert_allclose(found.gap, 0, atol=1e-4)
    assert np.isnan(found.errors).all()
    assert found.calls <= 402
    linear = attribution.kernel_shap(
        lambda s: s @ jnp.arange(20.0), players=20, samples=200, **QUIET
    )
    np.testing.assert_allclose(linear.values, np.arange(20), atol=1e-4)


def test_more_samples_come_nearer():
    game, errors = table(12), []
    exact = attribution.shapley(game, players=12, **QUIET).values
    for samples in (64, 2000):
        found = attribution.kernel_shap(game, players=12, samples=samples, **QUIET)
        errors.append(np.square(found.values - exact).mean())
    assert errors[1] < errors[0] / 10


def test_lime_is_its_ridge_regression():
    game, p = table(4), 4
    found = attribution.lime(game, players=p, width=0.3, ridge=0.7, **QUIET)
    rows = np.array(list(itertools.product([0, 1], repeat=p)))[:, ::-1].astype(bool)
    values = np.asarray(game(jnp.asarray(rows)), np.float64)
    cosine = np.array([row.sum() / np.sqrt(max(row.sum(), 1) * p) for row in rows])
    weights = np.sqrt(np.exp(-((1 - cosine) ** 2) / 0.3**2))  # as the authors' code has it
    design = np.column_stack([np.ones(16), rows])
    shrink = np.diag([0.0] + [0.7] * p)
    normal = (design.T * weights) @ design + shrink
    expected = np.linalg.solve(normal, (design.T * weights) @ values)[1:]
    np.testing.assert_allclose(found.values, expected, atol=1e-5)


def test_lime_of_a_linear_game_is_its_weights():
    found = attribution.lime(
        lambda s: s @ jnp.arange(12.0), players=12, ridge=0, samples=200, **QUIET
    )
    np.testing.assert_allclose(found.values, np.arange(12), atol=1e-3)


@pytest.mark.parametrize("index", ["taylor", "shapley"])
def test_pairs_by_their_definition(index):
    game, p = table(4), 4
    v = {
        s: float(game(jnp.asarray([[i in s for i in range(p)]]))[0])
        for r in range(p + 1)
        for s in map(frozenset, itertools.combinations(range(p), r))
    }
    found = attribution.shapley_interactions(game, players=p, index=index, **QUIET)
    for i, j in itertools.combinations(range(p), 2):
        total = 0.0
        rest = [k for k in range(p) if k not in (i, j)]
        for r in range(p - 1):
            for s in map(frozenset, itertools.combinations(rest, r)):
                change = v[s | {i, j}] - v[s | {i}] - v[s | {j}] + v[s]
                weight = {
                    "taylor": 2 / p / [1, 3, 3][r],  # C(3, r)
                    "shapley": [2, 1, 2][r] / 6,  # r! (2 − r)! / 3!
                }[index]
                total += weight * change
        np.testing.assert_allclose(found.values[i, j], total, atol=1e-5)
    if index == "taylor":
        np.testing.assert_allclose(
            np.tril(found.values).sum(), v[frozenset(range(p))] - v[frozenset()], atol=1e-5
        )
        np.testing.assert_allclose(
            found.values[2, 2], v[frozenset({2})] - v[frozenset()], atol=1e-6
        )
    else:
        exact = attribution.shapley(game, players=p, **QUIET).values
        off = found.values - np.diag(np.diag(found.values))
        np.testing.assert_allclose(np.diag(found.values) + off.sum(1) / 2, exact, atol=1e-5)


def test_owen_values_by_all_orders():
    """Players 0 1 | 2 3 4, whose groups come in one after another."""
    game, groups = table(5), np.array([[0, 0, 1, 1, 1]])
    v = np.asarray(game(jnp.asarray(np.array(list(itertools.product([0, 1], repeat=5)), bool))))
    exact, count = np.zeros(5), 0
    for first in itertools.permutations((0, 1)):
        for second in itertools.permutations((2, 3, 4)):
            for order in (first + second, second + first):
                before = 0
                for i in order:
                    after = before | 1 << (4 - i)
                    exact[i] += v[after] - v[before]
                    before, count = after, count
        count += 12
    exact /= count
    found = attribution.shapley_sampling(game, players=5, groups=groups, permutations=4000, **QUIET)
    np.testing.assert_allclose(found.values, exact, atol=5 * found.errors.max() + 1e-3)
    plain = attribution.shapley_sampling(game, players=5, permutations=4000, **QUIET)
    assert np.abs(plain.values - exact).max() > 10 * found.errors.max()


def test_a_quadtree_splits_squares_into_four():
    """v = 1 where the upper left quarter is whole and anything else is there: by quarters."""
    weights = RNG.normal(size=(64, 1)).astype(np.float32)
    model, image = toys.linear(weights, (8, 8, 1)), RNG.random((8, 8, 1), np.float32)
    found = attribution.shapley_sampling(
        model, image, 0, players=2, groups="quadtree", permutations=2, **QUIET
    )
    parts = (image.ravel() * weights[:, 0]).reshape(4, 2, 4, 2).sum((1, 3))
    np.testing.assert_allclose(found.values, parts.ravel(), atol=1e-5)

    def quarters(s):
        return (s[:, [0, 1, 4, 5]].all(1) & s[:, 10]).astype(jnp.float32)

    rows, columns = np.divmod(np.arange(16), 4)
    levels = [(rows // 2) * 2 + columns // 2]
    owen = attribution.shapley_sampling(
        quarters, players=16, groups=levels, permutations=2000, **QUIET
    )
    # Of two groups, each is last half the time; inside the first the last of four.
    np.testing.assert_allclose(owen.values[[0, 1, 4, 5]], 1 / 8, atol=0.03)
    np.testing.assert_allclose(owen.values[10], 1 / 2, atol=0.05)


def test_a_quadtree_goes_from_the_coarse_to_the_fine():
    model, image = toys.linear(np.ones((256, 1)), (16, 16, 1)), np.zeros((16, 16, 1), np.float32)
    plan = make_plan(model, image, 0, 2, 0.0, None, None)
    coarse, fine = _levels("quadtree", 2, plan).reshape(2, 8, 8)
    assert [len(np.unique(level)) for level in (coarse, fine)] == [4, 16]
    assert len(np.unique(coarse[:4, 4:])) == len(np.unique(fine[2:4, 4:6])) == 1


def test_images_may_have_segments_of_their_own():
    weights = RNG.normal(size=(16, 1)).astype(np.float32)
    model, images = toys.linear(weights, (4, 4, 1)), RNG.random((2, 4, 4, 1), np.float32)
    segments = np.stack([np.arange(16).reshape(4, 4) // 4, np.arange(16).reshape(4, 4) % 2])
    found = attribution.kernel_shap(model, images, 0, players=segments, **QUIET)
    parts = images.reshape(2, 16) * weights[:, 0]
    for own, where, values in zip(parts, segments.reshape(2, 16), found.values, strict=True):
        expected = np.bincount(where, own, minlength=4)
        np.testing.assert_allclose(values, expected, atol=1e-5)
    np.testing.assert_allclose(found.maps.sum((1, 2)), parts.sum(1), atol=1e-5)
    pairs = attribution.shapley_interactions(model, images, 0, players=segments, **QUIET)
    np.testing.assert_allclose(pairs.maps, found.maps, atol=1e-5)
    np.testing.assert_allclose(
        attribution.lime(model, images, 0, players=segments, ridge=0, **QUIET).maps,
        found.maps,
        atol=1e-4,
    )


@pytest.mark.parametrize("name", ["occlusion", "rise"])
def test_segments_in_the_place_of_windows(name):
    weights = RNG.normal(size=(16, 1)).astype(np.float32)
    model, image = toys.linear(weights, (4, 4, 1)), RNG.random((4, 4, 1), np.float32)
    segments = np.arange(16).reshape(4, 4) // 8
    options = {"occlusion": {}, "rise": {"samples": 400}}[name]
    found = getattr(attribution, name)(model, image, 0, players=segments, **options, **QUIET)
    parts = np.bincount(segments.ravel(), image.ravel() * weights[:, 0])
    expected = parts if name == "occlusion" else (parts - parts[::-1]) / 2
    # E[f | i kept] is its own part and half of the other's, and half the others'.
    tolerance = 1e-5 if name == "occlusion" else 0.1
    np.testing.assert_allclose(
        found.maps, expected[segments] / (1 if name == "occlusion" else 2), atol=tolerance
    )


def test_xrai_covers_the_best_regions_first():
    weights = np.zeros((4, 4), np.float32)
    weights[:2, :2], weights[2:, 2:] = 3, 1
    model, image = toys.linear(weights.reshape(16, 1), (4, 4, 1)), np.full((4, 4, 1), 0.75)
    quarters = (np.arange(4)[:, None] // 2) * 2 + np.arange(4) // 2
    scales = np.stack([quarters, np.arange(4)[:, None] // 2 + 0 * quarters])
    found = attribution.xrai(
        model, image.astype(np.float32), 0, segments=scales, dilation=0, **QUIET
    )
    # From black .75 w, from white −.25 w: on the mean .25 w.
    np.testing.assert_allclose(found.maps[:2, :2], 0.75, atol=1e-5)
    np.testing.assert_allclose(found.maps[2:, 2:], 0.25, atol=1e-5)
    np.testing.assert_allclose(found.maps[:2, 2:], 0, atol=1e-5)


def test_superpixels_are_players():
    pytest.importorskip("skimage")
    segments = attribution.superpixels(golden.IMAGES, segments=6)
    assert segments.shape == golden.IMAGES.shape[:3]
    assert segments.min() == 0
    found = attribution.shapley_sampling(
        MODELS["plain"], golden.IMAGES, 1, players=segments, permutations=2, **QUIET
    )
    np.testing.assert_allclose(found.gap, 0, atol=1e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: attribution.lime(lecture, players=2, width=0), "width: a number above 0"),
        (lambda: attribution.kernel_shap(lecture, players=2, samples=1), "samples: at least 2"),
        (
            lambda: attribution.shapley_interactions(lecture, players=17),
            "players: 2 to 16 of a game",
        ),
        (
            lambda: attribution.shapley_sampling(lecture, players=2, groups="quadtree"),
            "groups: 'quadtree' is of images",
        ),
        (
            lambda: attribution.shapley_sampling(lecture, players=2, groups=[[0, 1, 2]]),
            r"groups: \(levels, 2\) was expected",
        ),
        (
            lambda: attribution.occlusion(
                MODELS["plain"], golden.IMAGES, 1, players=np.zeros((3, 3), int)
            ),
            "players: a map of shape",
        ),
        (
            lambda: attribution.xrai(
                MODELS["plain"], golden.IMAGES, 1, segments=np.zeros((3, 3), int)
            ),
            "segments: ",
        ),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
