"""How sure a measured share or mean is: 95 % intervals."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from rvis import checks

_NORMAL = 1.959964
"""Between minus and plus so many standard deviations lies 95 % of a normal distribution."""


class Interval(NamedTuple):
    """An estimate and the 95 % interval about it; prints as `mean [low, high]`.

    Attributes:
      mean: the estimate.
      low: the interval's lower end.
      high: its upper end.
    """

    mean: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        """All three numbers in the same format."""
        return f"{self.mean:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


def share(hits: ArrayLike) -> Interval:
    """The share of hits, with Wilson's score interval.

    Args:
      hits: (n,) bool.

    Raises:
      ValueError: naming `hits`, for another rank or none at all.

    Example:
      >>> from rvis import metrics
      >>> f"{metrics.share([True] * 45 + [False] * 5):.0%}"
      '90% [79%, 96%]'

    Reference: Wilson 1927.
    """
    p, n = _listed("hits", np.asarray(hits, bool)).mean(), np.size(hits)
    squared = _NORMAL**2 / n
    middle = (p + squared / 2) / (1 + squared)
    half = _NORMAL / (1 + squared) * math.sqrt(p * (1 - p) / n + squared / (4 * n))
    return Interval(float(p), float(max(middle - half, 0)), float(min(middle + half, 1)))


def mean(values: ArrayLike, *, resamples: int = 2000, seed: int = 0) -> Interval:
    """The mean of values, with its percentile bootstrap interval.

    Args:
      values: (n,) finite numbers.
      resamples: how often as many are drawn from them, with replacement.
      seed: of those draws; equally many values meet the same draws, so that differences pair up.

    Raises:
      ValueError: naming `values`, for another rank or none at all; `resamples`, below 1.

    Example:
      >>> from rvis import metrics
      >>> metrics.mean([2.0, 2.0, 2.0])
      Interval(mean=2.0, low=2.0, high=2.0)

    Reference: Efron & Tibshirani 1993, chapter 13.
    """
    own = _listed("values", np.asarray(values, np.float64))
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(own), (checks.count("resamples", resamples), len(own)))
    low, high = np.quantile(own[drawn].mean(1), [0.025, 0.975])
    return Interval(float(own.mean()), float(low), float(high))


def _listed(argument: str, values: np.ndarray) -> np.ndarray:
    if values.ndim != 1 or not len(values):
        raise ValueError(f"{argument}: (n,) was expected, given shape {values.shape}")
    return values
