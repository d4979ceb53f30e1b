"""How many dimensions points have: of a whole set, and about each point."""

from __future__ import annotations

import dataclasses
import math

import jax
import numpy as np

from rvis import checks, gate
from rvis.analysis.manifold.points import distinct, nearest, rows_of
from rvis.types import ArrayLike, KeyLike, as_key, on_device

_KEPT = 0.9
"""The share of the lowest ratios that TwoNN fits; the highest are the least certain."""
_BATCH = 100
"""Reference points among which a local dimension is taken, as in its paper."""
_HALVES = 100
"""Random halves of the points, whose estimates give the error."""


@dataclasses.dataclass(frozen=True)
class Dimension:
    """An estimate of an intrinsic dimension.

    Attributes:
      value: the estimate.
      error: its standard error, from estimates of random halves of the points, whose neighbours
        are sought within them (a delete-half jackknife); the method's bias is not in it.
      interval: (low, high), of 95 %, likewise.
      points: how many different ones there were.
      sample: at how many of them neighbours were sought.
      duplicates: how many were left out because they had come before.
      method: "mle" or "twonn".
      k: neighbours used; 2 for "twonn".
    """

    value: float
    error: float
    interval: tuple[float, float]
    points: int
    sample: int
    duplicates: int
    method: str
    k: int


@gate.public
def intrinsic_dimension(
    points: ArrayLike,
    *,
    method: str = "mle",
    k: int = 20,
    sample: int | None = None,
    key: KeyLike = 0,
) -> Dimension:
    """The dimension of the manifold that points seem to lie on.

    "mle" takes from each point the mean over j < k of log(T_k/T_j), with T_j the distance to its
    j-th neighbour, averages that over all points and inverts it. "twonn" needs two neighbours: the
    slope through the origin of −log(1 − F) over log(T_2/T_1), F the ratio's rank divided by n, of
    the lowest 90 %.

    Distances are exact, and duplicates are left out first. Of few points in many dimensions both
    methods see too little: compare like with like, at one k and one number of points.

    Args:
      points: (n, ...), such as images, or a layer's activations (`representations.encode`).
      method: "mle" or "twonn".
      k: neighbours of "mle", at least 2.
      sample: at how many points, drawn at random, to look; all by default. Their neighbours are
        sought among all points in any case, so that fewer cost time and certainty, but no bias.
      key: an int seed or a typed key, for the sample and the halves.

    Raises:
      TypeError, ValueError: naming the argument: a method that is none, as many neighbours as
        points, NaN, all neighbours of a point at one distance, as in a lattice.

    Example:
      >>> import numpy as np
      >>> from rvis.analysis import manifold
      >>> turns = np.random.default_rng(0).uniform(0, 2 * np.pi, (1000, 1))
      >>> circle = np.concatenate([np.cos(turns), np.sin(turns), 0 * turns], 1)
      >>> found = manifold.intrinsic_dimension(circle)
      >>> round(found.value, 1), found.points
      (1.0, 1000)

    Reference: Levina & Bickel 2004, equation 8, averaged as in MacKay & Ghahramani 2005; Facco et
    al. 2017, equation 5; Shao & Wu 1989 (jackknife).
    """
    checks.choice("method", method, ("mle", "twonn"))
    k = 2 if method == "twonn" else checks.count("k", k, low=2)
    root = as_key(key)
    given = rows_of("points", points)
    kept = distinct(given)
    if len(kept) <= k:
        raise ValueError(
            f"points: more than k = {k} different ones were expected, given {len(kept)}"
        )
    rows = np.arange(len(kept))
    if sample is not None and checks.count("sample", sample, low=2) < len(kept):
        drawn = jax.random.permutation(jax.random.fold_in(root, on_device(1)), len(kept))
        rows = np.sort(np.asarray(drawn)[:sample])
    # With spare ones, of which about k are in a half.
    half = max(len(kept) // 2, min(len(kept) - 1, 2 * k + 2))
    most = min(len(kept) - 1, math.ceil(1.5 * k * len(kept) / half) + 16)
    distances, numbers = nearest(kept[rows], kept, most, own=rows)
    logs = np.log(distances)
    fit = _slope if method == "twonn" else _inverse_mean
    value = fit(_told(logs[:, :k]))
    if not np.isfinite(value):
        raise ValueError("points: neighbours at different distances were expected, given a lattice")
    rng = np.random.default_rng(np.asarray(jax.random.key_data(root)))
    estimates = []
    for _ in range(_HALVES):
        within = np.zeros(len(kept), bool)
        within[rng.permutation(len(kept))[:half]] = True
        told = _told_within(logs[within[rows]], within[numbers[within[rows]]], k)
        estimates.append(fit(told))
    spread = np.asarray(estimates)[np.isfinite(estimates)].std(ddof=1)
    error = float(spread * np.sqrt(half / (len(kept) - half)))
    interval = (value - 1.96 * error, value + 1.96 * error)
    left_out = len(given) - len(kept)
    return Dimension(value, error, interval, len(kept), len(rows), left_out, method, k)


def _told(logs: np.ndarray) -> np.ndarray:
    """(n,) mean over j < k of log(T_k/T_j), of the logarithms (n, k) of distances."""
    return (logs[:, -1:] - logs[:, :-1]).mean(1)


def _told_within(logs: np.ndarray, within: np.ndarray, k: int) -> np.ndarray:
    """`_told` of the first k neighbours that are within; of the points that have as many."""
    rank = within.cumsum(1)
    last = within & (rank == k)
    has = last.any(1)
    furthest = logs[has][last[has]]
    nearer = np.where(within & (rank < k), logs, 0)[has].sum(1)
    return furthest - nearer / (k - 1)


def _inverse_mean(told: np.ndarray) -> float:
    mean = told.mean()
    return float(1 / mean) if mean > 0 else math.inf


def _slope(told: np.ndarray) -> float:
    n = len(told)
    kept = int(_KEPT * n)
    x = np.sort(told)[:kept]
    y = -np.log1p(-np.arange(1, kept + 1) / n)
    squares = np.square(x).sum()
    return float((x * y).sum() / squares) if squares > 0 else math.inf


@gate.public
def local_dimension(points: ArrayLike, reference: ArrayLike, *, k: int = 20) -> np.ndarray:
    """The local intrinsic dimension at points, as seen from batches of a reference set.

    −1 / (mean over j ≤ k of log(r_j/r_k)), with r_j the distance to the j-th nearest of the other
    members of the batch. Adversarial points, off the data, have higher ones than clean points.

    Args:
      points: (n, ...).
      reference: (n, ...): row i is what point i was made from (for clean points, itself); it is
        left out of its neighbours, so that clean, noisy and adversarial points see the same others.
      k: neighbours, below 100: the reference is cut into batches of so many, in its order; the last
        one reaches back to be full.

    Returns:
      (n,) float64. NaN where all k neighbours are at one distance.

    Raises:
      TypeError, ValueError: naming the argument.

    Example:
      >>> import numpy as np
      >>> from rvis.analysis import manifold
      >>> rng = np.random.default_rng(0)
      >>> plane = np.pad(rng.random((200, 2)), ((0, 0), (0, 48)))
      >>> noisy = plane + 0.3 * rng.standard_normal(plane.shape)
      >>> clean, off = (manifold.local_dimension(p, plane).mean() for p in (plane, noisy))
      >>> bool(clean < 3 < off)
      True

    Reference: Ma et al. 2018, Characterizing Adversarial Subspaces Using Local Intrinsic
    Dimensionality, equation 4 and section 4.
    """
    given = rows_of("points", points)
    others = rows_of("reference", reference, width=given.shape[1])
    if len(given) != len(others):
        raise ValueError(
            f"reference: a row for each of {len(given)} points was expected, given {len(others)}"
        )
    size = min(_BATCH, len(others))
    if checks.count("k", k, low=2) >= size:
        raise ValueError(f"k: fewer than the {size} of a batch were expected, given {k}")
    found = np.empty(len(given))
    for first in range(0, len(given), size):
        start = min(first, len(others) - size)
        rows = np.arange(first, min(first + size, len(given)))
        distances, _ = nearest(given[rows], others[start : start + size], k, own=rows - start)
        found[rows] = _local(distances)
    return found


def _local(distances: np.ndarray) -> np.ndarray:
    """(n,) from ascending (n, k); neighbours at distance zero tell nothing and are passed over."""
    told = distances > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        result = -told.sum(1) / np.log(distances / distances[:, -1:]).sum(1, where=told)
    return np.where(np.isfinite(result), result, np.nan)
