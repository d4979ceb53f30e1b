"""The Square attack against its definition: what a query proposes, and what is kept of it."""

from __future__ import annotations

import itertools

import jax
import numpy as np
import pytest

from rvis import attacks
from rvis.attacks.square import _pattern, _shift, _tiles, halvings
from tests import toys


def test_squares_shrink_as_published():
    published = [11, 51, 201, 501, 1001, 2001, 4001, 6001, 8001]  # of 10,000 queries
    assert halvings(10000).tolist() == published
    assert halvings(5000, rescale=False).tolist() == published
    # `p_selection`: place = int(query / queries * 10000), halved where place > 10, 50, …
    for queries in (7, 5000, 300_000):
        places = np.arange(queries, dtype=np.int64) * 10000 // queries
        first = [(places > mark - 1).argmax() for mark in published]
        np.testing.assert_array_equal(halvings(queries), np.where(first, first, queries))


@pytest.mark.parametrize("shape", [(12, 12, 1), (9, 14, 3)])
def test_each_query_that_is_kept_puts_a_square_in(shape):
    rng = np.random.default_rng(0)
    # Two classes so much alike that squares of a thousandth never fool.
    weights = rng.standard_normal((np.prod(shape), 2)).astype(np.float32)
    weights[:, 1] = weights[:, 0] + 0.01 * rng.standard_normal(np.prod(shape))
    grey = np.full(shape, 0.5, np.float32)
    model = toys.linear(weights, shape)
    label = int(np.asarray(model(grey)).argmax())
    seen = [grey]
    attacks.square(
        model,
        grey,
        label,
        eps=1e-3,
        p=0.25,
        steps=40,
        rescale_schedule=False,
        callback=lambda _, image, losses: seen.append(image),
        progress=False,
    )
    stages = np.stack(seen)
    np.testing.assert_allclose(np.abs(stages[1:] - 0.5), 1e-3, rtol=1e-3)
    assert (stages[1] == stages[1, :1]).all()  # stripes
    spans = {}
    for query, (before, after) in enumerate(itertools.pairwise(stages[1:]), 1):
        changed = (after != before).any(-1)
        if not changed.any():
            continue
        # One sign for each channel.
        assert len(np.unique(after[changed], axis=0)) == 1
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        side = round((0.25 / 2 ** (query > 10) * shape[0] * shape[1]) ** 0.5)
        spans.setdefault(side, []).append(max(np.ptp(rows), np.ptp(columns)) + 1)
    assert len(spans) == 2
    for side, found in spans.items():
        assert max(found) == side


def authors_pile(tall, wide):
    """The authors' loop for one half of η."""
    delta = np.zeros((tall, wide))
    middle = tall // 2 + 1, wide // 2 + 1
    corner = [middle[0] - 1, middle[1] - 1]
    for k in range(max(middle)):
        rows = slice(max(corner[0], 0), min(corner[0] + 2 * k + 1, tall))
        columns = slice(max(corner[1], 0), min(corner[1] + 2 * k + 1, wide))
        delta[rows, columns] += 1 / (k + 1) ** 2
        corner = [corner[0] - 1, corner[1] - 1]
    return delta / np.sqrt((delta**2).sum())


@pytest.mark.parametrize("side", [3, 5, 6, 11])
def test_the_pattern_is_the_authors(side):
    expected = np.concatenate(
        [authors_pile(side // 2, side), -authors_pile(side - side // 2, side)]
    ) / np.sqrt(2)
    whole = np.zeros((12, 14))
    whole[1 : 1 + side, 2 : 2 + side] = expected
    found = jax.jit(_pattern)(np.arange(12) - 1, np.arange(14) - 2, np.int32(side))
    assert np.abs(np.asarray(found) - whole).max() < 1e-6


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 24, 3)])
def test_l2_candidates_use_the_whole_radius(shape):
    @jax.jit
    def candidates(key):
        begun = 2 * _tiles(key, shape)
        return begun, _shift(key, begun, np.float32(2), np.float32(0.1))

    begun, moved = map(np.asarray, candidates(jax.random.key(0)))
    assert np.linalg.norm(begun) == pytest.approx(2, rel=1e-5)
    assert np.linalg.norm(moved) == pytest.approx(2, rel=1e-5)
    # Outside of the two squares everything is as it was: the new one has the length of both.
    ratio = np.median((moved / np.where(begun == 0, np.inf, begun))[begun != 0])
    assert ratio == pytest.approx(1, rel=1e-4)
    side = 2 * (round(np.sqrt(0.1 * shape[0] * shape[1])) // 2) + 1
    changed = ~np.isclose(moved, ratio * begun, atol=1e-6).all(-1)
    assert side**2 / 2 < changed.sum() <= 2 * side**2


def test_l2_candidates_wipe_another_square_out():
    shape, wiped, tiled = (28, 28, 1), [], jax.jit(_tiles, static_argnums=1)
    for seed in range(8):
        key = jax.random.key(seed)
        begun = 2 * np.asarray(tiled(key, shape))
        moved = np.asarray(jax.jit(_shift)(key, begun, np.float32(2), np.float32(0.05)))
        wiped.append(((moved == 0) & (begun != 0)).sum())
    side = 7  # the odd number at or above √(.05·28²)
    assert max(wiped) == side**2 and min(wiped) > 0
