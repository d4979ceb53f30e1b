"""Where the cells of sliding windows fall in a padded image (n, H, W, C)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]


def cells(window: Pair) -> list[Pair]:
    """All (row, column) of a window, in order."""
    return [(i, j) for i in range(window[0]) for j in range(window[1])]


def shifted(x: jax.Array, cell: Pair, count: Pair, strides: Pair) -> jax.Array:
    """What `cell` of each of (rows, columns) = `count` windows has in a padded image."""
    stops = (i + s * (n - 1) + 1 for i, s, n in zip(cell, strides, count, strict=True))
    return lax.slice(x, (0, *cell, 0), (x.shape[0], *stops, x.shape[3]), (1, *strides, 1))


def placed(y: jax.Array, cell: Pair, size: Pair, strides: Pair) -> jax.Array:
    """The transpose of `shifted`: a padded image of (H, W) = `size`, zero elsewhere."""
    around = []
    for i, n, count, stride in zip(cell, size, y.shape[1:3], strides, strict=True):
        around.append((i, n - i - stride * (count - 1) - 1, stride - 1))
    return lax.pad(y, np.zeros((), y.dtype), [(0, 0, 0), *around, (0, 0, 0)])


def summed(
    term: Callable[..., jax.Array],
    arrays: Sequence[jax.Array],
    fills: Sequence[float],
    *,
    size: Pair,
    window: Pair,
    strides: Pair,
) -> jax.Array:
    """Σ over cells of `placed(term(cell, *arrays), …)`, without the zeros in between.

    The pixels that are a stride apart are one phase, a sum over a few cells.

    Args:
      term: what each window sends to its `cell`; computed place by place.
      arrays: (n, rows, columns, C), with one place for each window.
      fills: what stands in the arrays for windows that do not exist; its `term` must be zero.
      size: (H, W) of the padded image.
      window: (height, width).
      strides: (down, across).
    """
    n, *count, c = arrays[0].shape
    reach = [(side - 1) // s for side, s in zip(window, strides, strict=True)]
    sides = [-(-side // s) for side, s in zip(size, strides, strict=True)]
    around = [(r, side - k, 0) for r, side, k in zip(reach, sides, count, strict=True)]
    padded = [
        lax.pad(array, np.array(fill, array.dtype), [(0, 0, 0), *around, (0, 0, 0)])
        for array, fill in zip(arrays, fills, strict=True)
    ]
    phases = []
    for r, s in cells(strides):
        total = jnp.zeros((n, *sides, c), arrays[-1].dtype)
        for i in range(r, window[0], strides[0]):
            for j in range(s, window[1], strides[1]):
                top, left = reach[0] - i // strides[0], reach[1] - j // strides[1]
                rows, columns = slice(top, top + sides[0]), slice(left, left + sides[1])
                total = total + term((i, j), *(array[:, rows, columns] for array in padded))
        phases.append(total)
    if len(phases) == 1:
        return phases[0][:, : size[0], : size[1]]
    out = jnp.stack(lax.optimization_barrier(phases)).reshape(*strides, n, *sides, c)
    out = out.transpose(2, 3, 0, 4, 1, 5)
    out = out.reshape(n, sides[0] * strides[0], sides[1] * strides[1], c)
    return out[:, : size[0], : size[1]]


def padded_size(size: Pair, pads: Pads) -> Pair:
    """(H, W) with the padding."""
    (top, bottom), (left, right) = pads
    return size[0] + top + bottom, size[1] + left + right


def cropped(x: jax.Array, size: Pair, pads: Pads) -> jax.Array:
    """The image of (H, W) = `size` inside a padded one."""
    (top, _), (left, _) = pads
    return x[:, top : top + size[0], left : left + size[1]]
