"""Receptive fields: the pixels that a unit can see, by tracing the model, and those it heeds."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rvis import checks, taps
from rvis.models.layers import as_written
from rvis.receptive import windows
from rvis.types import (
    LOGITS,
    Apply,
    Array,
    ArrayLike,
    KeyLike,
    Model,
    PyTree,
    as_key,
    layer_shapes,
)

Span = tuple[int, int]
"""First pixel of a window along one axis, and the one after its last."""


@dataclasses.dataclass(frozen=True)
class ReceptiveField:
    """Which pixels the units of a layer depend on; pairs are (rows, columns).

    Attributes:
      size: height and width of a unit's window in an image without end: all places of a
        convolutional layer have windows of one size, of which padding may hide a part. Should they
        differ, those of the largest.
      stride: pixels between the windows of neighbouring places; 0 for a layer without places.
      offset: the first place's first pixel; negative where its window begins in the padding.
      rows: for each row of the layer's places, those of the image's rows that it sees, as (first,
        last + 1).
      columns: likewise for the columns.
    """

    size: tuple[int, int]
    stride: tuple[float, float]
    offset: tuple[int, int]
    rows: tuple[Span, ...]
    columns: tuple[Span, ...]

    def window(self, position: tuple[int, int] | None = None) -> tuple[slice, slice]:
        """The part of the image that a place sees: `image[field.window()]` is the centre's.

        Args:
          position: (row, column) in the layer; (h // 2, w // 2) by default, as for
            `rvis.objectives.neuron`.

        Raises:
          ValueError, TypeError: naming `position`, for anything but a place of the layer.
        """
        places = len(self.rows), len(self.columns)
        row, column = (n // 2 for n in places) if position is None else position
        checks.integers("position", [row], high=places[0], what="the layer's rows")
        checks.integers("position", [column], high=places[1], what="the layer's columns")
        return slice(*self.rows[row]), slice(*self.columns[column])


def receptive_field(
    model: Model, layer: str, *, size: int | tuple[int, int] | None = None
) -> ReceptiveField:
    """The pixels that a layer's units can depend on, found by tracing the model.

    Each operation of the traced program maps the window of pixels behind each of its inputs to that
    behind each of its outputs; branches are joined by the smallest window that holds them. On a
    chain of convolutions and poolings this is r += (k − 1)·j, j *= s. It serves any model of any
    family: what a stored matrix cannot mix (an adaptive pooling) stays apart, and an operation that
    is not known here is taken to mix all that goes into it, so that a window is never too small.

    A dense layer sees the union of the windows of all places below it, padding included: with
    AlexNet at 224 pixels fc6 sees 355, that is all of the image.

    Args:
      model: any model; its weights play no part.
      layer: a name of `model.layers`, or "logits".
      size: height and width of the image, or one number for both; the model's own by default.

    Returns:
      A ReceptiveField. A layer that is not (n, h, w, c) has a single place, which sees what any of
      its units sees.

    Raises:
      ValueError, TypeError: naming `layer` (with the nearest names) or `size`.

    Example:
      >>> import rvis
      >>> from rvis.receptive import receptive_field
      >>> field = receptive_field(rvis.load("mnist_cnn"), "pool2")
      >>> field.size, field.stride, field.offset
      ((16, 16), (4.0, 4.0), (-6, -6))
      >>> field.window((0, 3))
      (slice(0, 10, None), slice(6, 22, None))

    Reference: Araujo, Norris & Sim, "Computing Receptive Fields of Convolutional Neural Networks",
    Distill 2019.
    """
    checks.choice("layer", layer, (*model.layers, LOGITS))
    pair = (size, size) if isinstance(size, (int, np.integer)) else size
    if pair is None:
        pair = model.input_shape[:2]
    elif isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
        raise TypeError(f"size: (height, width) or one number was expected, given {size!r}")
    height, width = (checks.count("size", side) for side in pair)
    shape = height, width, model.input_shape[2]
    reached = layer_shapes(model, shape)
    if layer not in reached:
        raise ValueError(
            f"size: {model.name} reaches {layer!r} only from images of {model.input_shape[:2]}, "
            f"given {shape[:2]}"
        )
    leaves, structure = jax.tree.flatten(model.params)
    avals = tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves)
    field = _traced(model.apply, structure, avals, tuple(reached), shape)[layer]
    if field is None:
        raise ValueError(f"layer: {layer!r} does not depend on the image")
    return field


@dataclasses.dataclass(frozen=True, eq=False)
class EffectiveField:
    """Which pixels a unit heeds.

    Attributes:
      map: (H, W) float32, the mean size of the unit's gradient at each pixel; the largest is 1.
      size: √(number of pixels with at least 4.55 % of the largest), in pixels.
    """

    map: np.ndarray
    size: float


def effective_field(
    model: Model,
    layer: str,
    images: ArrayLike,
    *,
    unit: int | None = None,
    position: tuple[int, int] | None = None,
    key: KeyLike = 0,
    batch: int = 64,
) -> EffectiveField:
    """How much each pixel moves a unit at one place, averaged over images.

    The map is the mean over images of Σ_colours |∂y/∂x|. It is as a rule much smaller than the
    window that the unit could see, and falls off like a Gaussian from its centre.

    Args:
      model: any model.
      layer: a name of `model.layers`, or "logits".
      images: (n, H, W, C) float32 in [0, 1]; photographs, or noise where there are none.
      unit: a channel; by default y is Σ ± y_c over all of them, with random signs for each image.
      position: (row, column) in the layer; (h // 2, w // 2) by default. A dense layer has none.
      key: an int seed or a typed key, for the signs.
      batch: images at once.

    Raises:
      ValueError, TypeError: naming the argument.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis.receptive import effective_field
      >>> noise = np.random.default_rng(0).uniform(size=(4, 28, 28, 1)).astype(np.float32)
      >>> field = effective_field(rvis.load("mnist_cnn"), "pool2", noise)
      >>> field.map.shape, bool(field.size <= 16)
      ((28, 28), True)

    Reference: Luo, Li, Urtasun & Zemel, "Understanding the Effective Receptive Field in Deep
    Convolutional Neural Networks", 2016.
    """
    checks.choice("layer", layer, (*model.layers, LOGITS))
    pictures = checks.images("images", images, channels=model.input_shape[2])
    checks.count("batch", batch)
    _, height, width, colours = pictures.shape
    reached = layer_shapes(model, (height, width, colours))
    if layer not in reached:
        raise ValueError(
            f"images: {model.name} reaches {layer!r} only from images of {model.input_shape}, "
            f"given {(height, width, colours)}"
        )
    *places, channels = reached[layer]
    centre = [n // 2 for n in places] if position is None else list(position)
    if len(centre) != len(places):
        raise ValueError(
            f"position: {len(places)} numbers were expected for layer {layer!r}, given {position!r}"
        )
    for number, high in zip(centre, places, strict=True):
        checks.integers("position", [number], high=high, what=f"layer {layer!r}")
    if unit is not None:
        checks.integers("unit", [unit], high=channels, what=f"layer {layer!r}")
    total = np.zeros((height, width), np.float64)
    where = jnp.asarray(centre, jnp.int32)
    for first in range(0, len(pictures), batch):
        some = np.minimum(np.arange(first, first + batch), len(pictures) - 1)
        with as_written(True):
            maps = _sensitivity(
                model.unnamed(),
                pictures[some],
                jax.vmap(partial(jax.random.fold_in, as_key(key)))(jnp.asarray(some)),
                where,
                jnp.int32(-1 if unit is None else unit),
                layer,
            )
        total += np.asarray(maps, np.float64)[: len(pictures) - first].sum(0)
    total /= max(total.max(), np.finfo(np.float64).tiny)
    return EffectiveField(total.astype(np.float32), math.sqrt((total >= 1 - 0.9545).sum()))


@partial(jax.jit, static_argnames="layer")
def _sensitivity(
    model: Model, images: Array, keys: Array, position: Array, unit: Array, layer: str
) -> Array:
    """(n, H, W): Σ_colours |∂y/∂x|, with random signs over the channels where `unit` is −1."""

    def value(images: Array) -> Array:
        y = taps.activations(model, images, (layer,))[layer]
        for number in position:
            y = lax.dynamic_index_in_dim(y, number, 1, keepdims=False)
        signs = jax.vmap(lambda key: jax.random.rademacher(key, y.shape[1:], y.dtype))(keys)
        one = jax.nn.one_hot(unit, y.shape[-1], dtype=y.dtype)
        return (y * jnp.where(unit < 0, signs, one)).sum()

    return jnp.abs(jax.grad(value)(images)).sum(-1)


@functools.lru_cache(maxsize=64)
def _traced(
    apply: Apply,
    structure: Any,
    leaves: tuple,
    layers: tuple[str, ...],
    shape: tuple[int, int, int],
) -> dict[str, ReceptiveField | None]:
    """The fields of all layers, as one trace gives them; None where the image plays no part."""

    def forward(params: PyTree, images: Array) -> list[Array]:
        found = taps.activations(Model(params, apply, layers, shape), images, layers)
        return [found[layer] for layer in layers]

    params = jax.tree.unflatten(structure, leaves)
    image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    with as_written(True):
        closed, avals = jax.make_jaxpr(forward, return_shape=True)(params, image)
    weights = [None] * len(leaves)
    found = [
        windows.propagate(
            closed.jaxpr, closed.consts, [*weights, windows.pixels(image.shape, axis)]
        )
        for axis in (1, 2)
    ]
    fields: dict[str, ReceptiveField | None] = {}
    for layer, aval, *both in zip(layers, avals, *found, strict=True):
        if not all(isinstance(field, windows.Field) for field in both):
            fields[layer] = None
            continue
        if aval.ndim != 4:
            both = [windows.everything(field, (1, 1, 1, 1)) for field in both]
        places = aval.shape[1:3] if aval.ndim == 4 else (1, 1)
        fields[layer] = _field([_spans(*pair) for pair in zip(both, (1, 2), places, strict=True)])
    return fields


def _spans(field: windows.Field, axis: int, places: int) -> tuple[list[Span], list[Span], float]:
    """The windows of a layer's rows or columns: without end, as they are, and their stride."""
    others = tuple(i + 1 for i in range(4) if i != axis)
    bounds = np.broadcast_to(field.bounds.min(others), (4, places))
    seen = np.where(np.isfinite(bounds), bounds * [[1], [-1], [1], [-1]] + [[0], [1], [0], [1]], 0)
    endless, actual = seen.astype(int).reshape(2, 2, places).transpose(0, 2, 1).tolist()
    return list(map(tuple, endless)), list(map(tuple, actual)), float(field.step[0, axis])


def _field(both: list[tuple[list[Span], list[Span], float]]) -> ReceptiveField:
    (rows, seen_rows, down), (columns, seen_columns, right) = both
    height, width = (max(stop - start for start, stop in spans) for spans in (rows, columns))
    return ReceptiveField(
        (height, width),
        (down, right),
        (rows[0][0], columns[0][0]),
        tuple(seen_rows),
        tuple(seen_columns),
    )
