"""Receptive fields: the pixels that a unit can see, by tracing the model."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks, gate, kernels
from rvis.analysis import ranking
from rvis.analysis.receptive import windows
from rvis.models import taps
from rvis.types import Apply, Array, Model, PyTree, flat_shapes, layer_shapes

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


@gate.public
def receptive_field(
    model: Model, layer: str, *, size: int | tuple[int, int] | None = None
) -> ReceptiveField:
    """The pixels that a layer's units can depend on, found by tracing the model.

    On a chain of convolutions and poolings this is r += (k − 1)·j, j *= s. An operation that is not
    known here is taken to mix all that goes into it, so that a window is never too small.

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
      >>> from rvis.analysis.receptive import receptive_field
      >>> field = receptive_field(rvis.load("mnist_cnn"), "pool2")
      >>> field.size, field.stride, field.offset
      ((16, 16), (4.0, 4.0), (-6, -6))
      >>> field.window((0, 3))
      (slice(0, 10, None), slice(6, 22, None))

    Reference: Araujo, Norris & Sim, "Computing Receptive Fields of Convolutional Neural Networks",
    Distill 2019.
    """
    pair = model.input_shape[:2] if size is None else checks.size("size", size)
    shape = *pair, model.input_shape[2]
    ranking.layer_shape(model, layer, shape, argument="size")
    layers = tuple(layer_shapes(model, shape))
    field = _traced(model.apply, *flat_shapes(model.params), layers, shape)[layer]
    if field is None:
        raise ValueError(f"layer: {layer!r} does not depend on the image")
    return field


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
    with kernels.stock():
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
        (high, down, top, rows), (wide, right, left, columns) = (
            _spans(*pair) for pair in zip(both, (1, 2), places, strict=True)
        )
        fields[layer] = ReceptiveField((high, wide), (down, right), (top, left), rows, columns)
    return fields


def _spans(
    field: windows.Field, axis: int, places: int
) -> tuple[int, float, int, tuple[Span, ...]]:
    """Of a layer's rows or columns: size, stride, offset, and the windows as they are."""
    others = tuple(i + 1 for i in range(4) if i != axis)
    bounds = np.broadcast_to(field.bounds.min(others), (4, places))
    seen = np.where(np.isfinite(bounds), bounds * [[1], [-1], [1], [-1]] + [[0], [1], [0], [1]], 0)
    endless, actual = seen.astype(int).reshape(2, 2, places).transpose(0, 2, 1).tolist()
    size = max(stop - start for start, stop in endless)
    return size, float(field.step[0, axis]), endless[0][0], tuple(map(tuple, actual))
