"""Winograd's convolution with 3×3 kernels, which needs a quarter of the products, for CPUs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rvis.kernels.windows import Pads

_KERNEL = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
_INPUT = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
_OUTPUT = np.array(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
)
"""G, Bᵀ and Aᵀ of F(4×4, 3×3)."""

_PLACES, PER_PLACE = 256, 512
"""Places at least, and weights a tap of the kernel to one place at most."""

_WORK = 2**23
"""Places times channels in and out, below which half a second more to compile is not won back."""

_NARROW, _CACHED, _MOST = 128, 2**20, 2**24
"""Layers narrower than the first are faster only while their maps have no more floats than the
second, which stay in a core's cache; the third bounds the memory of the others."""


def group(shape: tuple[int, ...], pads: Pads, w: jax.Array) -> int:
    """How many examples (n, H, W, …) to convolve at once with w; 0 where another way is better."""
    n, height, width, _ = shape
    kh, kw, *channels = w.shape
    weights, area = int(np.prod(channels)), height * width
    if (kh, kw) != (3, 3) or w.dtype not in (jnp.float32, jnp.float64) or min(min(pads)) < 0:
        return 0
    if min(channels) < 32 or n * area * weights < _WORK:
        return 0
    least = max(_PLACES, weights // PER_PLACE)
    most = _CACHED if min(channels) < _NARROW else _MOST
    fitting = range(1, min(n, most // (area * max(channels))) + 1)
    return max((k for k in fitting if n % k == 0 and k * area >= least), default=0)


def convolve(x: jax.Array, w: jax.Array, pads: Pads, many: int, *, transposed: bool) -> jax.Array:
    """The stride-1 convolution of (n, H, W, in) with (3, 3, in, out).

    F(4×4, 3×3) in float32 errs by about 1e-5 of the largest value. Where `group` chooses it, it is
    1.5 to 3.9 times as fast as XLA:CPU's convolution in a loop (jaxlib 0.11.2).

    Args:
      x: (n, H, W, in), or (n, H, W, out) where transposed.
      w: (3, 3, in, out).
      pads: zeros before and after, of each of the two axes.
      many: examples at once, as `group` gives them; a divisor of n.
      transposed: whether w is turned by 180° and its channels change places, as in the gradient.

    Reference: Lavin & Gray 2015, Fast algorithms for convolutional neural networks, §4.1 and 4.3.
    """
    n, lengths = x.shape[0], x.shape[1:3]
    sizes = [length + sum(pad) - 2 for length, pad in zip(lengths, pads, strict=True)]
    fill = [
        (pad[0], -(-size // 4) * 4 + 4 - length - pad[0])
        for pad, size, length in zip(pads, sizes, lengths, strict=True)
    ]
    x = jnp.pad(x, ((0, 0), *fill, (0, 0)))
    matrices = _matrices(w, turned=transposed)
    if many == n:
        y = _products(x, matrices)
    else:
        parts = x.reshape(n // many, many, *x.shape[1:])
        y = lax.map(lambda part: _products(part, matrices), parts)
        y = y.reshape(n, *y.shape[2:])
    return y[:, : sizes[0], : sizes[1]]


def _matrices(w: jax.Array, *, turned: bool) -> jax.Array:
    """The 36 matrices (36, in, out) of a kernel; (36, out, in) where it is turned."""
    cells = np.einsum("ja,ib->jiba", _KERNEL, _KERNEL).reshape(36, 9)
    if turned:  # here, where a loop does it once: products of transposed matrices take 1.5 times
        cells, w = cells[:, ::-1], w.swapaxes(2, 3)
    matrices = jnp.asarray(cells, w.dtype) @ w.reshape(9, -1)
    return lax.optimization_barrier(matrices.reshape(36, *w.shape[2:]))


def _products(x: jax.Array, matrices: jax.Array) -> jax.Array:
    """(n, 4·a, 4·b, out) of (n, 4·a + 4, 4·b + 4, in), two rows and columns of which count not."""
    n, height, width, channels = x.shape
    down, across = height // 4 - 1, width // 4 - 1
    x = x.reshape(n, down + 1, 4, across + 1, 4, channels)
    lines = _stacked(_mixed(_INPUT, [x[:, i // 4 : i // 4 + down, i % 4] for i in range(6)]))
    cells = [lines[:, :, :, j // 4 : j // 4 + across, j % 4] for j in range(6)]
    tiles = _stacked(_mixed(_INPUT, cells)).reshape(36, -1, channels)
    products = lax.optimization_barrier(tiles @ matrices)
    products = products.reshape(6, 6, n, down, across, -1)
    columns = _stacked(_mixed(_OUTPUT, list(products)))
    out = _stacked(_mixed(_OUTPUT, [columns[:, i] for i in range(6)]))
    return out.transpose(2, 3, 0, 4, 1, 5).reshape(n, 4 * down, 4 * across, -1)


def _mixed(weights: np.ndarray, terms: Sequence[jax.Array]) -> list[jax.Array]:
    """For each row of weights the sum of the terms that it weighs."""

    def weighed(row: np.ndarray) -> jax.Array:
        pairs = zip(row.tolist(), terms, strict=True)
        return reduce(jnp.add, (term if w == 1 else w * term for w, term in pairs if w))

    return [weighed(row) for row in weights]


def _stacked(arrays: Sequence[jax.Array]) -> jax.Array:
    # Barriers, or XLA computes each stage again for every term of the next, three times as slowly.
    return lax.optimization_barrier(jnp.stack(lax.optimization_barrier(list(arrays))))
