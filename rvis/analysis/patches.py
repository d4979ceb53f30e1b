"""The patches of real images that excite a unit most, exactly and from any number of images."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from rvis import checks, gate
from rvis.analysis import ranking, receptive
from rvis.data import Dataset
from rvis.models import taps
from rvis.types import LOGITS, Array, Model, Units


@dataclasses.dataclass(frozen=True, eq=False)
class TopActivations:
    """The images of a data set that excite each of m units most, one place an image.

    Attributes:
      layer: the layer's name.
      units: (m,) channel numbers.
      values: (m, k) activations, highest first.
      indices: (m, k) the images' numbers in the data set.
      positions: (m, k, 2) row and column of the maximum in the layer; 0 for a dense layer.
      corners: (m, k, 2) first row and column of the patch in the image.
      patches: (m, k, h, w, C) float32, what the unit can see there: its receptive field, moved
        inside where it hangs over the border.
    """

    layer: str
    units: np.ndarray
    values: np.ndarray
    indices: np.ndarray
    positions: np.ndarray
    corners: np.ndarray
    patches: np.ndarray


@gate.public
def top_activations(
    model: Model,
    layer: str,
    units: Units,
    dataset: Dataset,
    k: int = 9,
    *,
    chunk: int | None = None,
    progress: bool = True,
) -> TopActivations:
    """The k images that excite each unit most, exactly, from a data set of any size.

    Args:
      model: any model.
      layer: a name of `model.layers`.
      units: a channel's number, or a list of them; of "logits" class names too.
      dataset: see `rvis.data.load`; it is looked at piece by piece.
      k: how many; ties go to the image that comes first.
      chunk: images at once, a bound on memory.
      progress: a bar on a terminal.

    Raises:
      TypeError, ValueError: naming the argument.
      FloatingPointError: naming `model`, where an activation is not finite.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis.analysis import patches
      >>> images = np.random.default_rng(0).integers(0, 256, (20, 28, 28, 1), np.uint8)
      >>> noise = rvis.data.Dataset(images, np.zeros(20, np.int32), ("noise",), "noise")
      >>> top = patches.top_activations(rvis.load("mnist_cnn"), "conv2", [3, 4], noise, k=5)
      >>> top.values.shape, top.patches.shape
      ((2, 5), (2, 5, 14, 14, 1))

    Reference: Zeiler & Fergus 2013, §4, figure 2.
    """
    ranking.check_dataset("dataset", dataset, model)
    ranking.count_of("k", k, dataset)
    size = dataset.images.shape[1:]
    shape = ranking.layer_shape(model, layer, size)
    numbers = unit_numbers(units, shape, model, layer).reshape(-1)
    m, label = len(numbers), f"{model.name} {layer}"
    options: dict[str, Any] = {"many": True, "progress": progress, "label": label}
    kept: tuple[np.ndarray, ...] = tuple(np.zeros((m, 0), kind) for kind in (np.float32, int, int))
    for rows, images in ranking.pieces(dataset, chunk=chunk):
        found = ranking.each(_Peaks(layer), model, images, numbers, **options)
        heights, places = (leaf.T for leaf in found)
        own = np.broadcast_to(np.asarray(rows), (m, len(rows)))
        kept = ranking.leading(kept, (heights, own, places), k)
    values, indices, flat = kept
    columns = shape[1] if len(shape) == 3 else 1
    positions = np.stack(np.divmod(flat, columns), -1)
    corners, window = windows(model, layer, positions, size)
    patches = np.empty((m, k, *window, size[2]), np.float32)
    for i in np.ndindex(m, k):
        image = dataset.floats(indices[i][None])[0]
        patches[i] = cut(image, corners[i], window)
    return TopActivations(layer, numbers, values, indices, positions, corners, patches)


@dataclasses.dataclass(frozen=True)
class _Peaks:
    """Each unit's strongest activation (b, m) in every image, and its flat place."""

    layer: str

    def __call__(self, model: Model, problem: tuple[Array, Array]) -> tuple[Array, Array]:
        images, units = problem
        found = taps.activations(model, images, (self.layer,))[self.layer]
        own = jnp.take(found.reshape(len(images), -1, found.shape[-1]), units, axis=2)
        places = own.argmax(1)
        return jnp.take_along_axis(own, places[:, None], 1)[:, 0], places


def windows(
    model: Model, layer: str, positions: np.ndarray, size: tuple[int, ...]
) -> tuple[np.ndarray, tuple[int, int]]:
    """First pixels (..., 2) of receptive fields at positions (..., 2), and their common size."""
    field = receptive.receptive_field(model, layer, size=(size[0], size[1]))
    window = min(field.size[0], size[0]), min(field.size[1], size[1])
    corners = np.empty(positions.shape, int)
    for axis, spans in enumerate((field.rows, field.columns)):
        first = np.array([span[0] for span in spans])[positions[..., axis]]
        corners[..., axis] = np.clip(first, 0, size[axis] - window[axis])
    return corners, window


def cut(image: np.ndarray, corner: np.ndarray, window: tuple[int, int]) -> np.ndarray:
    """The window of (H, W, C) whose first row and column are `corner`."""
    top, left = corner
    return image[top : top + window[0], left : left + window[1]]


def unit_numbers(units: Any, shape: tuple[int, ...], model: Model, layer: str) -> np.ndarray:
    """`units` as integers of a layer, logits by name too; else an error names them."""
    array = np.asarray(units)
    if array.ndim > 1 or array.size == 0:
        raise ValueError(f"units: one number or a list of them was expected, given {units!r}")
    if layer == LOGITS:
        return checks.classes("units", units, model.classes, count=shape[-1])
    return checks.integers("units", array, high=shape[-1], what=f"layer {layer!r}")
