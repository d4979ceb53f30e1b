"""How far points lie from data: from the nearest of them, and from the plane of the near ones."""

from __future__ import annotations

import dataclasses

import numpy as np

from rvis import checks, gate
from rvis.analysis.manifold.points import nearest, rows_of
from rvis.types import ArrayLike


@dataclasses.dataclass(frozen=True, eq=False)
class DataDistance:
    """How far points lie from data.

    Attributes:
      nearest: (...) the distance to the nearest data point.
      residual: (...) the distance to the affine plane that fits the k nearest data points best.
      indices: (...) the number of the nearest data point.
    """

    nearest: np.ndarray
    residual: np.ndarray
    indices: np.ndarray


@gate.public
def distance_to_data(
    points: ArrayLike,
    data: ArrayLike,
    *,
    k: int = 20,
    directions: int = 10,
    exclude: ArrayLike | None = None,
) -> DataDistance:
    """How far points, such as those along an ascent, lie from data.

    The plane goes through the mean of the k nearest data points, along the `directions` in which
    they vary most: the manifold's tangent. Compare with held-out data, which lie off it too.

    Args:
      points: (..., *event), such as (steps, H, W, C) or (images, steps, H, W, C).
      data: (m, *event).
      k: data points that span a plane.
      directions: the plane's dimension, below k; the intrinsic dimension of the data, say.
      exclude: (...) for each point the number of a data point to leave out, −1 for none: its own,
        where it was made from one of these.

    Returns:
      A `DataDistance` of shape (...), in the units of the points, by the Euclidean norm.

    Raises:
      TypeError, ValueError: naming the argument.

    Example:
      >>> import numpy as np
      >>> from rvis.analysis import manifold
      >>> grid = np.stack(np.meshgrid(np.arange(5.0), np.arange(5.0), [0.0]), -1).reshape(-1, 3)
      >>> above = manifold.distance_to_data([[2.2, 2.0, 0.5]], grid, k=8, directions=2)
      >>> [round(float(d[0]), 3) for d in (above.nearest, above.residual)]
      [0.539, 0.5]
    """
    others = rows_of("data", data, least=3)
    event = np.shape(data)[1:]
    given = np.asarray(points)
    if given.ndim < len(event) or given.shape[given.ndim - len(event) :] != event:
        raise ValueError(f"points: (..., {event}) was expected, given shape {given.shape}")
    leading = given.shape[: given.ndim - len(event)]
    rows = rows_of("points", given.reshape(-1, *event))
    own = None
    if exclude is not None:
        if np.shape(exclude) != leading:
            raise ValueError(f"exclude: {leading} was expected, given {np.shape(exclude)}")
        own = checks.integers("exclude", exclude, low=-1, high=len(others)).reshape(-1)
    most = len(others) - (own is not None)
    if checks.count("k", k, low=2) > most:
        raise ValueError(f"k: at most {most}, the data points, was expected, given {k}")
    if checks.count("directions", directions) >= k:
        raise ValueError(f"directions: fewer than k = {k} were expected, given {directions}")
    distances, numbers = nearest(rows, others, k, own=own)
    pairs = zip(rows, numbers, strict=True)
    residual = np.array([_residual(row, others[near], directions) for row, near in pairs])
    found = zip((distances[:, 0], residual, numbers[:, 0]), ("f4", "f4", "i4"), strict=True)
    return DataDistance(*(array.astype(kind).reshape(leading) for array, kind in found))


def _residual(point: np.ndarray, near: np.ndarray, directions: int) -> float:
    """How far a point lies from the plane of some others, along the directions that they have."""
    middle = near.mean(0, dtype=np.float64)
    _, sizes, basis = np.linalg.svd(near - middle, full_matrices=False)
    basis = basis[:directions][sizes[:directions] > 1e-3 * sizes[0]]
    off = point - middle
    return float(np.linalg.norm(off - basis.T @ (basis @ off)))
