"""Points of any kind as rows: checks and exact nearest neighbours."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

_SPARE = 16
"""More candidates than neighbours, so that rounding cannot hide one."""
_BLOCK = 64
"""Points whose neighbours are sought at once, for memory's sake."""


def rows_of(argument: str, value: Any, *, width: int | None = None, least: int = 1) -> np.ndarray:
    """(n, d) float32 from (n, ...).

    Raises:
      TypeError: naming the argument, for anything but an array of numbers.
      ValueError: for fewer than `least` points, another `width` than given, NaN or infinity.
    """
    array = np.asarray(value)
    if array.dtype == bool or not np.issubdtype(array.dtype, np.number):
        raise TypeError(f"{argument}: an array of numbers was expected, given {array.dtype}")
    if array.ndim < 2 or 0 in array.shape:
        raise ValueError(f"{argument}: points (n, ...) were expected, given shape {array.shape}")
    if len(array) < least:
        raise ValueError(f"{argument}: at least {least} points were expected, given {len(array)}")
    flat = np.ascontiguousarray(array.reshape(len(array), -1), np.float32)
    if width is not None and flat.shape[1] != width:
        raise ValueError(
            f"{argument}: points of {width} numbers were expected, given {flat.shape[1]}"
        )
    return flat


def distinct(points: np.ndarray) -> np.ndarray:
    """The rows without those that came before."""
    first: dict[bytes, int] = {}
    for i, row in enumerate(points):
        # −0 and 0 are one number. Digests, not the rows, so that memory does not double.
        first.setdefault(hashlib.blake2b(row + np.float32(0), digest_size=16).digest(), i)
    return points if len(first) == len(points) else points[list(first.values())]


def nearest(
    points: np.ndarray, reference: np.ndarray, k: int, *, own: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The exact k nearest of `reference` to every point.

    Inner products about the middle find the candidates; their distances are then taken from
    differences, where nothing cancels. All of it is in double precision.

    Args:
      points: (n, d).
      reference: (m, d), m ≥ k (> k with `own`).
      k: how many.
      own: (n,) the point's own number in `reference`, which is left out; −1 for none.

    Returns:
      (n, k) distances, ascending, and (n, k) numbers in `reference`.
    """
    others = reference.astype(np.float64)
    middle = others.mean(0)
    shifted = others - middle
    lengths = np.square(shifted).sum(1)
    most = min(k + _SPARE, len(reference))
    left_out = np.full(len(points), -1) if own is None else own
    distances, numbers = np.empty((len(points), k)), np.empty((len(points), k), int)
    for first in range(0, len(points), _BLOCK):
        rows = slice(first, first + _BLOCK)
        given, mine = points[rows].astype(np.float64), left_out[rows, None]
        rough = lengths - 2 * ((given - middle) @ shifted.T)
        rough = np.where(np.arange(len(reference)) == mine, np.inf, rough)
        near = np.argpartition(rough, most - 1, axis=1)[:, :most]
        squares = np.square(others[near] - given[:, None]).sum(2)
        squares = np.where(near == mine, np.inf, squares)
        order = np.lexsort((near, squares), axis=1)[:, :k]
        distances[rows] = np.sqrt(np.take_along_axis(squares, order, 1))
        numbers[rows] = np.take_along_axis(near, order, 1)
    return distances, numbers
