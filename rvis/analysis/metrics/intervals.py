"""How sure a measured share or mean is: 95 % intervals."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike
from scipy.special import stdtrit

from rvis import gate

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


@gate.public
def share(hits: ArrayLike) -> Interval:
    """The share of hits, with Wilson's score interval.

    Args:
      hits: (n,) bool.

    Raises:
      ValueError: naming `hits`, for another rank or none at all.

    Example:
      >>> from rvis.analysis import metrics
      >>> f"{metrics.share([True] * 45 + [False] * 5):.0%}"
      '90% [79%, 96%]'

    Reference: Wilson 1927.
    """
    p, n = _listed("hits", _truths(hits)).mean(), np.size(hits)
    squared = _NORMAL**2 / n
    middle = (p + squared / 2) / (1 + squared)
    half = _NORMAL / (1 + squared) * math.sqrt(p * (1 - p) / n + squared / (4 * n))
    return Interval(float(p), float(max(middle - half, 0)), float(min(middle + half, 1)))


@gate.public
def mean(values: ArrayLike) -> Interval:
    """The mean of values, with Student's interval: without ends for a single value.

    Args:
      values: (n,) finite numbers.

    Raises:
      ValueError: naming `values`, for another rank or none at all.

    Example:
      >>> from rvis.analysis import metrics
      >>> f"{metrics.mean([1.0, 2.0, 3.0]):.2f}"
      '2.00 [-0.48, 4.48]'

    Reference: Student 1908.
    """
    own = _listed("values", np.asarray(values, np.float64))
    half = math.inf
    if len(own) > 1:
        half = stdtrit(len(own) - 1, 0.975) * own.std(ddof=1) / math.sqrt(len(own))
    return Interval(float(own.mean()), float(own.mean() - half), float(own.mean() + half))


def _truths(hits: ArrayLike) -> np.ndarray:
    given = np.asarray(hits)
    if given.dtype != bool and not (given.dtype.kind in "iuf" and np.isin(given, (0, 1)).all()):
        raise ValueError(f"hits: True or False, or 1 or 0, was expected of each, given {hits!r}")
    return given.astype(bool)


def _listed(argument: str, values: np.ndarray) -> np.ndarray:
    if values.ndim != 1 or not len(values):
        raise ValueError(f"{argument}: (n,) was expected, given shape {values.shape}")
    return values
