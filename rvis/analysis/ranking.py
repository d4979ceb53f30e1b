"""Data sets looked at piece by piece, images a few at a time, and the best of a stream."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from rvis import checks, engine
from rvis.data import Dataset
from rvis.engine import policy
from rvis.models import taps
from rvis.types import LOGITS, Array, Model, PyTree, layer_shapes


def check_dataset(argument: str, given: Dataset, model: Model) -> Dataset:
    """`given` if it is a data set that the model can look at; else an error names the argument."""
    if not isinstance(given, Dataset):
        raise TypeError(f"{argument}: an rvis.data.Dataset was expected, given {given!r}")
    if len(given) == 0 or given.images.shape[3] != model.input_shape[2]:
        raise ValueError(
            f"{argument}: images of {model.input_shape[2]} channels were expected, given "
            f"{given.images.shape}"
        )
    return given


def layer_shape(
    model: Model, layer: str, shape: tuple[int, ...], *, argument: str = "images"
) -> tuple[int, ...]:
    """The shape of a layer for an image of `shape`; else an error names `layer` or the argument."""
    checks.choice("layer", layer, (*model.layers, LOGITS))
    shapes = layer_shapes(model, shape)  # type: ignore[arg-type]
    if layer not in shapes:
        raise ValueError(
            f"{argument}: {model.name} reaches {layer!r} only from images of {model.input_shape}, "
            f"given {shape}"
        )
    return shapes[layer]


def pieces(dataset: Dataset, *, chunk: int | None = None) -> Iterator[tuple[range, np.ndarray]]:
    """(numbers, images (size, H, W, C) float32) piece by piece, some megabytes by default."""
    n, height, width, _ = dataset.images.shape
    size = max(16, 2**20 // (height * width)) if chunk is None else chunk
    for first in range(0, n, size):
        numbers = range(first, min(first + size, n))
        yield numbers, dataset.floats(np.asarray(numbers))


def each(
    function: Callable[[Any, Any], PyTree],
    model: Any,
    images: np.ndarray,
    *own: np.ndarray,
    many: bool = False,
    progress: bool = False,
    label: str = "images",
) -> PyTree:
    """`function(model, (images, *own))` of a few images at once, leaves (n, …).

    How many they are is a function of their size alone, so that what an image gives is the same in
    any company.

    Args:
      function: of (b, H, W, C) images, hashing by value; gives leaves of shape (b, …).
      model, images: any model, and (n, H, W, C).
      own: arrays that serve all images.
      many: whether images come by the hundred, so that larger blocks pay.
      progress, label: a bar on a terminal, and its title.
    """
    count, height, width, _ = images.shape
    block = policy.side_by_side(height * width, widest=16) * (4 if many else 1)
    blocks = -(-count // block)
    rows = np.minimum(np.arange(blocks * block), count - 1).reshape(blocks, block)
    shared = tuple(np.broadcast_to(array, (blocks, *np.shape(array))) for array in own)
    found = engine.apply(
        function,
        model,
        (np.asarray(images)[rows], *shared),
        pixels=height * width * block,
        progress=progress,
        label=label,
        failure=lambda blocks: engine.no_number(np.unique(rows[blocks]).tolist()),
    )
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:count], found)


@dataclasses.dataclass(frozen=True)
class Activations:
    """A layer's activations, for `each`."""

    layer: str

    def __call__(self, model: Model, problem: tuple[Array]) -> Array:
        return taps.activations(model, problem[0], (self.layer,))[self.layer]


def leading(
    kept: Sequence[np.ndarray], found: Sequence[np.ndarray], k: int
) -> tuple[np.ndarray, ...]:
    """The k highest of each row of two groups, highest first; ties go to the lower number.

    Args:
      kept: scores (m, n), numbers that break ties (m, n), and whatever else belongs to them.
      found: likewise, of more columns.
      k: how many.

    Example:
      >>> import numpy as np
      >>> from rvis.analysis.ranking import leading
      >>> kept = np.array([[3.0, 1.0]]), np.array([[5, 0]])
      >>> leading(kept, (np.array([[3.0]]), np.array([[8]])), 2)[1].tolist()
      [[5, 8]]
    """
    both = [np.concatenate(pair, 1) for pair in zip(kept, found, strict=True)]
    order = np.lexsort((both[1], -both[0]), axis=1)[:, :k]
    return tuple(np.take_along_axis(array, order, 1) for array in both)


def count_of(argument: str, k: int, dataset: Dataset) -> int:
    """`k` if the data set has as many images; else an error names the argument."""
    if checks.count(argument, k) > len(dataset):
        raise ValueError(
            f"{argument}: at most {len(dataset)}, the images of {dataset.name}, was expected, "
            f"given {k}"
        )
    return k
