"""A data set in memory, and what choosing one of its splits takes."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Collection, Sequence

import numpy as np

from rvis import checks

FORMATS = (
    "a folder with MNIST's IDX files, a folder or .tar.gz of CIFAR batches, or a folder or .zip of "
    "images as SPLIT/CLASS/NAME.jpg"
)
_HELD_OUT = ("val", "valid", "validation", "test")


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images of one size, in memory as bytes.

    Attributes:
      images: (n, H, W, C) uint8; C is 3 for RGB, 1 for grey.
      labels: (n,) int32, each an index into `classes`.
      classes: one name a class.
      name: what to call it in titles and messages.

    Example:
      >>> import numpy as np
      >>> from rvis import data
      >>> images = np.zeros((3, 8, 8, 1), np.uint8)
      >>> ds = data.Dataset(images, np.array([0, 1, 1], np.int32), ("even", "odd"), "parity")
      >>> len(ds), ds.take([2]).labels.tolist(), ds.floats([0, 1]).shape
      (3, [1], (2, 8, 8, 1))
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    name: str

    def __post_init__(self) -> None:
        """Refuses what the attributes may not be."""
        for argument, value, dtype in (
            ("images", self.images, np.uint8),
            ("labels", self.labels, np.int32),
        ):
            if not isinstance(value, np.ndarray) or value.dtype != dtype:
                given = f"{type(value).__name__} of {getattr(value, 'dtype', 'no dtype')}"
                raise TypeError(
                    f"{argument}: a NumPy array of {dtype.__name__} was expected, given {given}"
                )
        shape = self.images.shape
        if len(shape) != 4 or shape[3] not in (1, 3) or 0 in shape[1:]:
            raise ValueError(f"images: (n, H, W, 1 or 3) was expected, given shape {shape}")
        if self.labels.shape != shape[:1]:
            found = self.labels.shape
            raise ValueError(f"labels: shape {shape[:1]} was expected, given shape {found}")
        if not isinstance(self.classes, tuple):
            raise TypeError(f"classes: a tuple of str was expected, given {self.classes!r}")
        for name in self.classes:
            checks.text("classes", name)
        checks.text("name", self.name)
        checks.integers("labels", self.labels, high=len(self.classes), what="the classes")

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.images)

    def take(self, indices: Sequence[int] | np.ndarray | slice) -> Dataset:
        """Some of the images with their labels, of (m,) indices or of a slice (no copy)."""
        chosen = self._indices(indices)
        return dataclasses.replace(self, images=self.images[chosen], labels=self.labels[chosen])

    def floats(self, indices: Sequence[int] | np.ndarray | slice | None = None) -> np.ndarray:
        """Images as models take them, (m, H, W, C) float32 in [0, 1]; all of them by default."""
        chosen = self.images if indices is None else self.images[self._indices(indices)]
        return chosen.astype(np.float32) / np.float32(255)

    def _indices(self, indices: Sequence[int] | np.ndarray | slice) -> np.ndarray | slice:
        if isinstance(indices, slice):
            return indices
        array = np.asarray(indices)
        if array.ndim != 1:
            raise ValueError(
                f"indices: a slice or list of integers was expected, given {indices!r}"
            )
        if array.size == 0:
            return array.astype(np.int32)
        return checks.integers("indices", array, high=len(self), what=f"the images of {self.name}")


def choose(split: str, there: Collection[str], source: pathlib.Path) -> str:
    """The split that is meant, among those there are; the held-out ones have several names."""
    order = (split, *_HELD_OUT) if split in _HELD_OUT else (split,)
    for name in order:
        if name in there:
            return name
    shown = ", ".join(map(repr, sorted(there)))
    raise ValueError(f"split: there is no {split!r} in {source}; it can be one of {shown}")


def title(source: pathlib.Path) -> str:
    """What to call the data of a folder or archive."""
    name = source.resolve().name
    return name if source.is_dir() else re.sub(r"(\.tar)?\.\w+$", "", name)
