"""What a network takes for alike: a data set's nearest images in any layer's representation."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import PIL.Image

from rvis import checks, gate
from rvis.analysis import ranking
from rvis.data import Dataset
from rvis.plotting import grids
from rvis.results import describe
from rvis.types import ArrayLike, Model


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
        return grids.grid(rows, titles=titles)


@gate.public
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

    The distance is ‖R(x₁) − R(x₂)‖₂ with R the layer's activations.

    Args:
      model: any model.
      queries: (q, H, W, C) or (H, W, C), float32 in [0, 1], of the data set's size.
      dataset: see `rvis.data.load`.
      layer: a name of `model.layers`, or "logits".
      k: how many; ties go to the image that comes first.
      exclude: (q,) the queries' own numbers in the data set, which are left out for that query.
      chunk: images at once, a bound on memory.
      progress: a bar on a terminal.

    Raises:
      TypeError, ValueError: naming the argument.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis.analysis import neighbours
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
    ranking.layer_shape(model, layer, size, argument="dataset")
    q = len(asked)
    own = np.full(q, -1)
    if exclude is not None:
        own = checks.integers("exclude", exclude, high=len(dataset), what=dataset.name)
        if own.shape != (q,):
            raise ValueError(
                f"exclude: one number a query, ({q},), was expected, given {own.shape}"
            )
    ranking.count_of("k", k + (exclude is not None), dataset)
    label, activations = f"{model.name} {layer}", ranking.Activations(layer)
    options: dict[str, Any] = {"many": True, "label": label}
    queried = ranking.each(activations, model, asked, **options)
    kept: tuple[np.ndarray, ...] = (np.zeros((q, 0), np.float32), np.zeros((q, 0), int))
    for rows, pictures in ranking.pieces(dataset, chunk=chunk):
        seen = ranking.each(activations, model, pictures, progress=progress, **options)
        # From differences, where nothing cancels; one query at a time, for memory's sake.
        apart = np.stack([_lengths(seen - one) for one in queried])
        numbers = np.broadcast_to(np.asarray(rows), apart.shape)
        apart = np.where(numbers == own[:, None], np.inf, apart)
        kept = ranking.leading(kept, (-apart, numbers), k)
    scores, indices = kept
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


def _lengths(rows: np.ndarray) -> np.ndarray:
    """(n,) L2 norms of (n, …)."""
    flat = rows.reshape(len(rows), -1)
    return np.sqrt(np.einsum("nd,nd->n", flat, flat))
