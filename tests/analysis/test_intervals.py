"""Intervals of shares and means: by hand, at the ends, and in how often they hold the truth."""

import numpy as np
import pytest

from rvis.analysis import metrics


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


@pytest.mark.parametrize("count", [2, 5, 60])
def test_the_interval_of_a_mean_holds_it_nineteen_times_in_twenty(count):
    rng = np.random.default_rng(1)
    found = [metrics.mean(rng.normal(3, 2, count)) for _ in range(1000)]
    inside = np.mean([one.low <= 3 <= one.high for one in found])
    assert 0.93 < inside < 0.97


def test_the_interval_of_a_mean_is_students():
    # Student 1908, section IX: additional hours of sleep by one of two drugs.
    found = metrics.mean([1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4])
    assert (found.mean, found.low, found.high) == pytest.approx((1.58, 0.7001, 2.4599), abs=1e-4)


def test_a_single_value_tells_no_spread():
    assert metrics.mean([2.0]) == (2.0, -np.inf, np.inf)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.share([]), "hits: "),
        (lambda: metrics.share([[True]]), "hits: "),
        (lambda: metrics.mean([]), "values: "),
    ],
)
def test_what_cannot_be_measured_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
