"""What a network takes for alike: a data set's nearest images in any layer's representation."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
from jax import lax

from rvis import checks, plots, ranking, taps
from rvis.data import Dataset
from rvis.results import describe
from rvis.types import LOGITS, Array, ArrayLike, Model, layer_shapes


@dataclasses.dataclass(frozen=True, eq=False)
class Neighbours:
    """Queries and the images that lie nearest to them.

    Attributes:
      queries: (q, H, W, C) float32 in [0, 1].
      images: (q, k, H, W, C) float32 in [0, 1], nearest first.
      indices: (q, k) their numbers in the data set.
      distances: (q, k) ‖R(query) − R(image)‖₂.
      labels: (q, k) the names of their classes.
      config: the arguments and versions, as JSON-able values.
    """

    queries: np.ndarray
    images: np.ndarray
    indices: np.ndarray
    distances: np.ndarray
    labels: np.ndarray
    config: dict[str, Any]

    def show(self) -> PIL.Image.Image:
        """A row for each query: it, then its neighbours with their classes and distances."""
        rows = np.concatenate([self.queries[:, None], self.images], 1)
        titles = []
        for names, lengths in zip(self.labels, self.distances, strict=True):
            titles.append("query")
            titles += [f"{name} {d:.3g}" for name, d in zip(names, lengths, strict=True)]
        return plots.grid(rows, titles=titles)


def nearest(
    model: Model,
    queries: ArrayLike,
    dataset: Dataset,
    layer: str,
    k: int = 6,
    *,
    exclude: ArrayLike | None = None,
    chunk: int | None = None,
    progress: bool = True,
) -> Neighbours:
    """The k images of a data set whose representation is nearest to each query's.

    The distance is ‖R(x₁) − R(x₂)‖₂ with R the layer's activations, from their differences, so that
    nothing cancels. The data set may be of any size.

    Args:
      model: any model.
      queries: (q, H, W, C) or (H, W, C), float32 in [0, 1], of the data set's size.
      dataset: see `rvis.data.load`.
      layer: a name of `model.layers`, or "logits".
      k: how many; ties go to the image that comes first.
      exclude: (q,) the queries' own numbers in the data set, which are left out for that query.
      chunk: images at once, a bound on memory.
      progress: a bar on a terminal.

    Returns:
      `Neighbours`.

    Raises:
      TypeError, ValueError: naming the argument.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import neighbours
      >>> images = np.random.default_rng(0).integers(0, 256, (20, 28, 28, 1), np.uint8)
      >>> noise = rvis.data.Dataset(images, np.zeros(20, np.int32), ("noise",), "noise")
      >>> model = rvis.load("mnist_cnn")
      >>> found = neighbours.nearest(model, noise.floats([7]), noise, "fc1", k=3)
      >>> found.indices[0, 0].item(), found.distances[0, 0].item()
      (7, 0.0)

    Reference: Krizhevsky et al. 2012, figure 4 (right).
    """
    ranking.check_dataset("dataset", dataset, model)
    size = dataset.images.shape[1:]
    asked = np.asarray(checks.images("queries", queries, shape=size))
    checks.choice("layer", layer, (*model.layers, LOGITS))
    if layer not in layer_shapes(model, size):  # type: ignore[arg-type]
        raise ValueError(
            f"dataset: {model.name} reaches {layer!r} only from images of {model.input_shape}, "
            f"given {size}"
        )
    if chunk is not None:
        checks.count("chunk", chunk)
    q = len(asked)
    own = np.full(q, -1)
    if exclude is not None:
        own = checks.integers("exclude", exclude, high=len(dataset), what=dataset.name)
        if own.shape != (q,):
            raise ValueError(
                f"exclude: one number a query, ({q},), was expected, given {own.shape}"
            )
    ranking.count_of("k", k + (exclude is not None), dataset)
    scores, indices = np.zeros((q, 0), np.float32), np.zeros((q, 0), int)
    codes: np.ndarray | None = None
    label = f"{model.name} {layer}"
    for rows, images in ranking.pieces(dataset, chunk=chunk, progress=progress, label=label):
        if codes is None:
            codes = _codes(model.unnamed(), asked, layer, len(images))
        found = np.asarray(_distances(model.unnamed(), images, codes, layer=layer))[:, : len(rows)]
        numbers = np.broadcast_to(np.asarray(rows), found.shape)
        found = np.where(numbers == own[:, None], np.inf, found)
        scores = np.concatenate([scores, -found], 1)
        indices = np.concatenate([indices, numbers], 1)
        order = ranking.best(scores, indices, k)
        scores, indices = (np.take_along_axis(array, order, 1) for array in (scores, indices))
    if not np.isfinite(scores).all():
        raise FloatingPointError(f"dataset: distances in {layer!r} are NaN or infinite")
    config = describe(
        function="nearest",
        model=model.name,
        queries=asked,
        dataset=dataset.name,
        layer=layer,
        k=k,
        exclude=exclude,
    )
    images = dataset.floats(indices.reshape(-1)).reshape(q, k, *size)
    labels = np.asarray(dataset.classes, object)[dataset.labels[indices]]
    return Neighbours(asked, images, indices, -scores, labels, config)


def _codes(model: Model, images: np.ndarray, layer: str, size: int) -> np.ndarray:
    """Representations (n, d), `size` at once.

    In pieces of the data set's size, so that an image's is the same to the bit in both.
    """
    found = []
    for first in range(0, len(images), size):
        rows = np.minimum(np.arange(first, first + size), len(images) - 1)
        code = np.asarray(_code(model, images[rows], layer=layer))
        found.append(code[: len(images) - first])
    return np.concatenate(found)


@partial(jax.jit, static_argnames="layer")
def _code(model: Model, images: Array, *, layer: str) -> Array:
    return taps.activations(model, images, (layer,))[layer].reshape(len(images), -1)


@partial(jax.jit, static_argnames="layer")
def _distances(model: Model, images: Array, codes: Array, *, layer: str) -> Array:
    """(q, n); one query at a time, so that memory holds one difference of representations."""
    own = _code(model, images, layer=layer)
    return lax.map(lambda code: jnp.sqrt(jnp.square(own - code).sum(1)), codes)
