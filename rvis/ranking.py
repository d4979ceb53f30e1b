"""The best of a stream: the exact top k over a data set of any size, one piece at a time."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import numpy as np
from tqdm import tqdm

from rvis import checks
from rvis.data import Dataset
from rvis.types import Model


def check_dataset(argument: str, given: Dataset, model: Model) -> Dataset:
    """`given` if it is a data set that the model can look at.

    Raises:
      TypeError: naming the argument, for anything but a `Dataset`.
      ValueError: naming it, for other channels than the model's, or no image at all.
    """
    if not isinstance(given, Dataset):
        raise TypeError(f"{argument}: an rvis.data.Dataset was expected, given {given!r}")
    if len(given) == 0 or given.images.shape[3] != model.input_shape[2]:
        raise ValueError(
            f"{argument}: images of {model.input_shape[2]} channels were expected, given "
            f"{given.images.shape}"
        )
    return given


def pieces(
    dataset: Dataset, *, chunk: int | None, progress: bool, label: str
) -> Iterator[tuple[range, np.ndarray]]:
    """The images piece by piece, as (numbers, (size, H, W, C) float32 in [0, 1]).

    Every piece has the same size, the last one being filled up with copies of its last image, so
    that one compiled program serves all: only the first `len(numbers)` count.

    Args:
      dataset: of any size.
      chunk: images in a piece; by default what suits the platform.
      progress: a bar on a terminal.
      label: the bar's title.
    """
    n, height, width, _ = dataset.images.shape
    if chunk is None:
        pixels, most = (2**16, 64) if jax.default_backend() == "cpu" else (2**24, 1024)
        chunk = min(most, max(1, pixels // (height * width)))
    size = min(chunk, n)
    disable = None if progress else True
    with tqdm(total=n, desc=label, unit="image", disable=disable, leave=False) as bar:
        for first in range(0, n, size):
            numbers = range(first, min(first + size, n))
            images = dataset.floats(np.minimum(np.arange(first, first + size), n - 1))
            yield numbers, images
            bar.update(len(numbers))


def best(scores: np.ndarray, numbers: np.ndarray, k: int) -> np.ndarray:
    """Where the k highest scores of each row are, highest first; ties go to the lower number.

    Args:
      scores: (m, n).
      numbers: (m, n) what breaks ties.
      k: how many, at most n.

    Returns:
      (m, k) indices along the rows, for `np.take_along_axis`.

    Example:
      >>> import numpy as np
      >>> from rvis.ranking import best
      >>> best(np.array([[1.0, 3.0, 3.0]]), np.array([[0, 8, 5]]), 2).tolist()
      [[2, 1]]
    """
    return np.lexsort((numbers, -scores), axis=1)[:, :k]


def count_of(argument: str, k: int, dataset: Dataset) -> int:
    """`k` if the data set has as many images.

    Raises:
      TypeError, ValueError: naming the argument.
    """
    if checks.count(argument, k) > len(dataset):
        raise ValueError(
            f"{argument}: at most {len(dataset)}, the images of {dataset.name}, was expected, "
            f"given {k}"
        )
    return k
