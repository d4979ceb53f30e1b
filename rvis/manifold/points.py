"""Points of any kind as rows: checks, features of a layer, and exact nearest neighbours."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from tqdm import tqdm

from rvis import checks, taps
from rvis.types import LOGITS, Array, ArrayLike, Model, layer_shapes

_SPARE = 16
"""More candidates than neighbours, so that rounding cannot hide one."""


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
    if not np.isfinite(flat).all():
        raise ValueError(f"{argument}: finite numbers were expected, given NaN or infinity")
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
    """The exact k nearest of `reference` to every point, block by block on the device.

    Inner products find the candidates; their distances are then taken from differences, where
    nothing cancels. Where rounding could have hidden a neighbour, all differences are taken.

    Args:
      points: (n, d).
      reference: (m, d), m ≥ k (> k with `own`).
      k: how many.
      own: (n,) the point's own number in `reference`, which is left out; −1 for none.

    Returns:
      (n, k) distances, ascending, and (n, k) numbers in `reference`.
    """
    # About the middle there is less to cancel.
    middle = reference.mean(0, dtype=np.float64).astype(np.float32)
    shifted, wanted = reference - middle, points - middle
    # Squares of what is far from 1 leave float32; a power of two changes no other bit.
    _, exponent = np.frexp(max(np.abs(shifted).max(), np.abs(wanted).max()))
    unit = np.ldexp(np.float32(1), exponent - 1)
    shifted, wanted = jnp.asarray(shifted / unit), wanted / unit
    left_out = np.full(len(points), -1, np.int32) if own is None else np.asarray(own, np.int32)
    more = min(k + _SPARE, len(reference) - (own is not None))
    size = min(256, len(points))
    distances = np.empty((len(points), k), np.float32)
    numbers = np.empty((len(points), k), np.int32)
    unsure = np.zeros(len(points), bool)
    for first in range(0, len(points), size):
        rows = np.minimum(np.arange(first, first + size), len(points) - 1)
        found = _among(wanted[rows], left_out[rows], shifted, k=k, more=more)
        distances[rows], numbers[rows], unsure[rows] = map(np.asarray, found)
    for i in np.flatnonzero(unsure):
        found = _surely(wanted[i], left_out[i], shifted, k=k)
        distances[i], numbers[i] = map(np.asarray, found)
    return distances * unit, numbers


@partial(jax.jit, static_argnames=("k", "more"))
def _among(
    points: Array, own: Array, reference: Array, *, k: int, more: int
) -> tuple[Array, Array, Array]:
    """Distances, numbers, and whether a neighbour may have been missed."""
    lengths = jnp.square(reference).sum(1)
    inner = jnp.matmul(points, reference.T, precision=lax.Precision.HIGHEST)
    rough = lengths - 2 * inner
    rough = jnp.where(jnp.arange(len(reference)) == own[:, None], jnp.inf, rough)
    lowest, candidates = lax.top_k(-rough, more)

    def exact(row: tuple[Array, Array]) -> Array:
        point, numbers = row
        return jnp.square(reference[numbers] - point).sum(1)

    squares = lax.map(exact, (points, candidates))
    squares, numbers = (x[:, :k] for x in lax.sort((squares, candidates), num_keys=2))
    length = jnp.square(points).sum(1)
    slack = 4 * jnp.finfo(jnp.float32).eps * points.shape[1] ** 0.5 * (length + lengths.max())
    # The least of the last, not the last: XLA:CPU knows top_k only where its result is not cut.
    missed = squares[:, -1] + slack > length - lowest.min(1)
    everything = more >= len(reference) - 1
    return jnp.sqrt(squares), numbers, missed & (not everything)


@partial(jax.jit, static_argnames="k")
def _surely(point: Array, own: Array, reference: Array, *, k: int) -> tuple[Array, Array]:
    squares = jnp.square(reference - point).sum(1)
    squares = jnp.where(jnp.arange(len(reference)) == own, jnp.inf, squares)
    lowest, numbers = lax.top_k(-squares, k)
    return jnp.sqrt(-lowest), numbers


def check_layers(model: Model, layers: Any, shape: tuple[int, ...]) -> tuple[str, ...]:
    """The layers' names, all of the model's by default, if images of `shape` reach them.

    Raises:
      ValueError: naming `layers`, or `images` where they are too small.
    """
    reached = layer_shapes(model, shape)  # type: ignore[arg-type]
    if layers is None:
        return tuple(name for name in model.layers if name in reached)
    names = (layers,) if isinstance(layers, str) else tuple(layers)
    for name in names:
        checks.choice("layers", name, (*model.layers, LOGITS))
        if name not in reached:
            raise ValueError(
                f"images: {model.name} reaches {name!r} only from images of {model.input_shape}, "
                f"given {shape}"
            )
    return names


def features(model: Model, images: np.ndarray, layer: str, *, progress: bool) -> np.ndarray:
    """(n, d) float32: a layer's activations, 64 images at once."""
    size, found = min(64, len(images)), []
    disable = None if progress else True
    with tqdm(total=len(images), desc=f"{model.name} {layer}", disable=disable, leave=False) as bar:
        for first in range(0, len(images), size):
            rows = np.minimum(np.arange(first, first + size), len(images) - 1)
            part = np.asarray(_features(model.unnamed(), images[rows], layer=layer))
            found.append(part[: len(images) - first])
            bar.update(len(found[-1]))
    return np.concatenate(found)


@partial(jax.jit, static_argnames="layer")
def _features(model: Model, images: ArrayLike, *, layer: str) -> Array:
    found = taps.activations(model, jnp.asarray(images), (layer,))[layer]
    return found.reshape(len(found), -1)
