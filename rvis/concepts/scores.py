"""Can concepts be understood? Their top images, how pure these are, and how much they explain."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rvis import files, gate
from rvis.analysis import ranking
from rvis.concepts.dictionary import Concepts, check_concepts
from rvis.concepts.source import source
from rvis.data import Dataset
from rvis.types import Array, KeyLike, Model, as_key


@dataclasses.dataclass(frozen=True, eq=False)
class Measures:
    """What m concepts do on a data set.

    Attributes:
      values: (m, k) each concept's strongest value in each of its top images, highest first.
      indices: (m, k) the images' numbers in the data set.
      positions: (m, k, 2) row and column of that value in the layer.
      frequency: (m,) the share of all places at which it is not 0.
      variance: (m,) by what share of the activations' variance the unexplained part grows without
        it.
      purity: (m,) the share of the commonest class among its top images; NaN for a concept that is
        above 0 in fewer than k images.
      commonest: (m,) that class's number.
      explained: the share of the variance that all concepts together explain.
      active: how many concepts are not 0 at a place, in the mean.
    """

    values: np.ndarray
    indices: np.ndarray
    positions: np.ndarray
    frequency: np.ndarray
    variance: np.ndarray
    purity: np.ndarray
    commonest: np.ndarray
    explained: float
    active: float


@gate.public
def measure(
    model: Model,
    concepts: Concepts,
    dataset: Dataset,
    k: int = 9,
    *,
    store: files.PathLike | None = None,
    chunk: int | None = None,
    progress: bool = True,
) -> Measures:
    """What concepts do on a data set: one pass over it, however many concepts there are.

    Args:
      model: any model.
      concepts: of one of its layers; `channels(layer, width)` measures the channels themselves.
      dataset: labelled images that the model takes.
      k: top images of each concept; ties go to the image that comes first.
      store: as of `train_sae`.
      chunk: images at once, a bound on memory.
      progress: a bar on a terminal.

    Raises:
      TypeError, ValueError: naming the argument.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import concepts
      >>> images = np.random.default_rng(0).integers(0, 256, (12, 28, 28, 1), np.uint8)
      >>> noise = rvis.data.Dataset(images, np.zeros(12, np.int32), ("noise",), "noise")
      >>> model = rvis.load("mnist_cnn")
      >>> measures = concepts.measure(model, concepts.channels("relu2", 64), noise, k=3)
      >>> measures.indices.shape, round(measures.explained, 3)
      ((64, 3), 1.0)
    """
    check_concepts(model, concepts)
    ranking.check_dataset("dataset", dataset, model)
    ranking.count_of("k", k, dataset)
    data = source(model, concepts.layer, dataset, store=store, chunk=chunk, progress=progress)
    m = len(concepts)
    kept: tuple[np.ndarray, ...] = tuple(np.zeros((m, 0), kind) for kind in (np.float32, int, int))
    totals: Any = None
    for numbers, piece in data.pieces(chunk=chunk, progress=progress):
        peaks, places, *sums = ranking.each(_scan, concepts, piece, many=True)
        own = np.broadcast_to(np.asarray(numbers), (m, len(numbers)))
        kept = ranking.leading(kept, (peaks.T, own, places.T), k)
        added = [leaf.sum(0, dtype=np.float64) for leaf in sums]
        totals = added if totals is None else [a + b for a, b in zip(totals, added, strict=True)]
    on, gained, left, squares, vector = totals
    count = len(dataset) * data.places
    spread = squares - np.square(vector).sum() / count
    values, indices, flat = kept
    columns = data.shape[1] if len(data.shape) == 3 else 1
    purity, commonest = pureness(dataset.labels[indices])
    return Measures(
        values,
        indices,
        np.stack(np.divmod(flat, columns), -1),
        on / count,
        gained / (spread or 1),
        np.where(values[:, -1] > 0, purity, np.nan),
        commonest,
        float(1 - left / (spread or 1)),
        float(on.sum() / count),
    )


def _scan(concepts: Concepts, problem: tuple[Array]) -> tuple[Array, ...]:
    """Of each of some images: its peaks and their places, and sums over its places."""
    (x,) = problem
    rows = x.reshape(len(x), -1, x.shape[-1])
    z = concepts(rows)
    left = rows - concepts.decode(z)
    lengths = jnp.square(concepts.decode.vectors).sum(1)
    # ‖r + z·v‖² − ‖r‖², what is left without the concept less what is left with it.
    gained = 2 * z * (left @ concepts.decode.vectors.T) + jnp.square(z) * lengths
    places = z.argmax(1)
    peaks = jnp.take_along_axis(z, places[:, None], 1)[:, 0]
    on = (z != 0).sum(1, dtype=jnp.int32)
    sums = (jnp.square(left).sum((1, 2)), jnp.square(rows).sum((1, 2)), rows.sum(1))
    return (peaks, places, on, gained.sum(1), *sums)


def pureness(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(m,) the commonest label's share of each row (m, k), and that label.

    Example:
      >>> import numpy as np
      >>> from rvis.concepts.scores import pureness
      >>> [part.tolist() for part in pureness(np.array([[1, 1, 0, 1]]))]
      [[0.75], [1]]
    """
    same = (labels[:, :, None] == labels[:, None]).sum(2)
    first = same.argmax(1)[:, None]
    share = np.take_along_axis(same, first, 1)[:, 0] / labels.shape[1]
    return share, np.take_along_axis(labels, first, 1)[:, 0]


@gate.public
def compare(
    measures: Measures, others: Measures, *, samples: int = 2000, key: KeyLike = 0
) -> tuple[float, tuple[float, float]]:
    """By how much purer the top images of the former are, with a 95 % interval over the concepts.

    Concepts that are above 0 in too few images are left out.

    Args:
      measures: of concepts.
      others: likewise, such as of the channels on the same data.
      samples: bootstrap samples of the concepts of both.
      key: of the samples.

    Returns:
      The difference of the mean purities, and the ends of its interval.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import concepts
      >>> images = np.random.default_rng(0).integers(0, 256, (12, 28, 28, 1), np.uint8)
      >>> noise = rvis.data.Dataset(images, np.zeros(12, np.int32), ("noise",), "noise")
      >>> model = rvis.load("mnist_cnn")
      >>> measures = concepts.measure(model, concepts.channels("relu2", 64), noise, k=3)
      >>> concepts.compare(measures, measures)[0]
      0.0

    Reference: Efron 1979, Bootstrap methods: another look at the jackknife.
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(as_key(key))).tolist())
    purities = [each.purity[np.isfinite(each.purity)] for each in (measures, others)]
    for name, each in zip(("measures", "others"), purities, strict=True):
        if not each.size:
            raise ValueError(f"{name}: concepts that are above 0 were expected, given none")
    means = [each[rng.integers(0, len(each), (samples, len(each)))].mean(1) for each in purities]
    low, high = np.percentile(means[0] - means[1], (2.5, 97.5))
    return float(purities[0].mean() - purities[1].mean()), (float(low), float(high))
