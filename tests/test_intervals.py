"""Intervals of shares and means: by hand, at the ends, and in how often they hold the truth."""

import numpy as np
import pytest

from rvis import metrics


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    # Newcombe 1998, table I (Wilson's score method).
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_a_share_has_the_published_interval(hits, count, low, high):
    found = metrics.share([True] * hits + [False] * (count - hits))
    assert found.mean == pytest.approx(hits / count)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


def test_a_share_of_all_ends_at_one():
    assert metrics.share([True] * 7).high == 1


def test_the_interval_of_a_mean_holds_it_nineteen_times_in_twenty():
    rng = np.random.default_rng(1)
    inside = 0
    for i in range(300):
        found = metrics.mean(rng.exponential(size=60), resamples=400, seed=i)
        inside += found.low <= 1 <= found.high
    assert 0.89 < inside / 300 < 0.98


def test_the_interval_of_a_mean_is_that_of_the_normal_law():
    values = np.random.default_rng(2).normal(size=2000)
    found = metrics.mean(values)
    half = 1.96 * values.std() / np.sqrt(2000)
    assert found.high - found.mean == pytest.approx(half, rel=0.1)
    assert found.mean - found.low == pytest.approx(half, rel=0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.share([]), "hits: "),
        (lambda: metrics.share([[True]]), "hits: "),
        (lambda: metrics.mean([]), "values: "),
        (lambda: metrics.mean([1.0], resamples=0), "resamples: "),
    ],
)
def test_what_cannot_be_measured_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
