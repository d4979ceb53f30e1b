"""How far points lie from data: from the nearest of them, and from the plane of the near ones."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rvis import checks
from rvis.manifold.points import nearest, rows_of
from rvis.types import Array, ArrayLike


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
    they vary most: the manifold's tangent, as far as so few points tell it. Compare with held-out
    data, which lie off that plane too.

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
      >>> from rvis import manifold
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
    residual = np.asarray(_residuals(rows, numbers, others, directions=directions))
    return DataDistance(
        distances[:, 0].reshape(leading), residual.reshape(leading), numbers[:, 0].reshape(leading)
    )


@partial(jax.jit, static_argnames="directions")
def _residuals(points: Array, numbers: Array, data: Array, *, directions: int) -> Array:
    def one(row: tuple[Array, Array]) -> Array:
        point, near = row
        middle = data[near].mean(0)
        spread = data[near] - middle
        # The directions of the few points are combinations of them: k × k instead of d × d.
        values, vectors = jnp.linalg.eigh(spread @ spread.T)
        values, vectors = values[-directions:], vectors[:, -directions:]
        real = values > 1e-6 * values[-1]
        basis = (vectors.T @ spread) / jnp.sqrt(jnp.where(real, values, 1))[:, None]
        basis = jnp.where(real[:, None], basis, 0)
        off = point - middle
        # Twice, because one projection in single precision leaves a part.
        off = off - basis.T @ (basis @ off)
        off = off - basis.T @ (basis @ off)
        return jnp.linalg.norm(off)

    return lax.map(one, (points, numbers))
