"""Where syntheses start: a Gaussian of downsampled images for each class, shipped or fitted."""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks, files, gate
from rvis.data import Dataset
from rvis.types import Array, KeyLike, Model, as_key, fold_each

_RIDGE = 1e-4
"""Added to every variance: few images in many dimensions leave a singular covariance."""


@dataclasses.dataclass(frozen=True, eq=False)
class Seeds:
    """For each class a Gaussian over images of h×w pixels, enlarged to the size asked for.

    Attributes:
      classes: (k) names.
      mean: (k, h, w, C).
      root: (k, d, d) lower triangular with root·rootᵀ the covariance of the d = h·w·C values.

    Raises:
      ValueError: naming the attribute, for shapes that do not fit or values that are not finite.

    Example:
      >>> import jax, numpy as np
      >>> from rvis.synthesis import Seeds
      >>> seeds = Seeds(("a", "b"), np.full((2, 2, 2, 1), 0.5), np.zeros((2, 4, 4)))
      >>> seeds.sample(jax.random.split(jax.random.key(0), 3), [0, 1, 1], (8, 8)).shape
      (3, 8, 8, 1)
    """

    classes: tuple[str, ...]
    mean: np.ndarray
    root: np.ndarray

    def __post_init__(self) -> None:
        mean, root = np.asarray(self.mean, np.float32), np.asarray(self.root, np.float32)
        if mean.ndim != 4 or len(mean) != len(self.classes) or mean.shape[3] not in (1, 3):
            raise ValueError(
                f"mean: ({len(self.classes)}, h, w, 1 or 3) was expected, given {mean.shape}"
            )
        size = int(np.prod(mean.shape[1:]))
        if root.shape != (len(mean), size, size):
            raise ValueError(f"root: {(len(mean), size, size)} was expected, given {root.shape}")
        for name, value in (("mean", mean), ("root", root)):
            if not np.isfinite(value).all():
                raise ValueError(f"{name}: finite values were expected, given others")
            object.__setattr__(self, name, value)

    def sample(self, keys: Array, classes: Any, size: tuple[int, int]) -> Array:
        """One image for each key: (m, H, W, C) in [0, 1].

        Args:
          keys: (m,) typed keys.
          classes: (m,) class numbers.
          size: (H, W), to which the h×w cells are enlarged bilinearly.

        Raises:
          ValueError: naming `classes`, for a number out of range.
        """
        numbers = checks.classes("classes", classes, self.classes, count=len(self.classes))
        return _draw(keys, self.mean[numbers], self.root[numbers], size)

    def save(self, path: files.PathLike) -> None:
        """Writes them as .npz, whole or not at all; roots are kept to three digits (float16).

        Raises:
          OSError: naming the path, on a full disk or without permission.
        """
        rows, columns = np.tril_indices(self.root.shape[1])
        with files.atomic(Path(path)) as temporary, open(temporary, "wb") as stream:
            np.savez_compressed(
                stream,
                classes=np.asarray(self.classes),
                mean=self.mean.astype(np.float16),
                root=self.root[:, rows, columns].astype(np.float16),
            )


@functools.partial(jax.jit, static_argnames="size")
def _draw(keys: Array, mean: Array, root: Array, size: tuple[int, int]) -> Array:
    def one(key: Array, mean: Array, root: Array) -> Array:
        noise = jax.random.normal(key, (mean.size,), jnp.float32)
        small = mean + (root @ noise).reshape(mean.shape)
        # The edges of blocks, as "nearest" has them, would stay in the pictures.
        return jax.image.resize(small, (*size, mean.shape[-1]), "linear")

    return jnp.clip(jax.vmap(one)(keys, mean, root), 0, 1)


@gate.public
def fit(dataset: Dataset, *, cells: int = 8) -> Seeds:
    """The Gaussian of each class's downsampled images: their mean and covariance + 1e-4·I.

    Args:
      dataset: images whose sides are multiples of `cells`; at least two of each class.
      cells: the side of the downsampled images; each cell is the mean of a block.

    Raises:
      ValueError: naming `cells` or `dataset`.
      TypeError: naming `cells`, for anything but an int.

    Example:
      >>> import numpy as np
      >>> from rvis import synthesis
      >>> from rvis.data import Dataset
      >>> images = np.arange(4 * 8 * 8, dtype=np.uint8).reshape(4, 8, 8, 1)
      >>> data = Dataset(images, np.array([0, 0, 1, 1], np.int32), ("a", "b"), "ramps")
      >>> synthesis.fit(data, cells=2).mean.shape
      (2, 2, 2, 1)

    Reference: Santurkar et al. 2019, section 3.1; MadryLab/robustness_applications
      (`generation.ipynb`), where cells become blocks.
    """
    checks.count("cells", cells)
    height, width, _ = dataset.images.shape[1:]
    if height % cells or width % cells:
        raise ValueError(f"cells: a divisor of {height} and {width} was expected, given {cells}")
    counts = np.bincount(dataset.labels, minlength=len(dataset.classes))
    if counts.min() < 2:
        few = dataset.classes[int(counts.argmin())]
        raise ValueError(f"dataset: two images of each class were expected, given fewer of {few!r}")
    means, roots = [], []
    for label in range(len(dataset.classes)):
        images = dataset.images[dataset.labels == label].astype(np.float64) / 255
        blocks = images.reshape(len(images), cells, height // cells, cells, width // cells, -1)
        small = blocks.mean((2, 4))
        flat = small.reshape(len(small), -1)
        covariance = np.cov(flat, rowvar=False, bias=True).reshape(flat.shape[1], -1)
        means.append(small.mean(0))
        roots.append(np.linalg.cholesky(covariance + _RIDGE * np.eye(len(covariance))))
    return Seeds(dataset.classes, np.stack(means), np.stack(roots))


@gate.public
def load(path: files.PathLike) -> Seeds:
    """What `Seeds.save` wrote.

    Raises:
      ValueError: naming `path`, for a file that is damaged or holds something else.
      FileNotFoundError: naming it, where there is none.
    """
    with files.opened(path) as stream:
        return _read(stream, str(path))


def _read(stream: Any, where: str) -> Seeds:
    try:
        with np.load(stream, allow_pickle=False) as stored:
            mean, packed = stored["mean"].astype(np.float32), stored["root"]
            size = int(np.prod(mean.shape[1:]))
            rows, columns = np.tril_indices(size)
            root = np.zeros((len(mean), size, size), np.float32)
            root[:, rows, columns] = packed
            return Seeds(tuple(str(name) for name in stored["classes"]), mean, root)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"path: {where} holds no seeds ({error})") from error


@functools.cache
def _shipped() -> tuple[Seeds, ...]:
    places = importlib.resources.files("rvis.synthesis") / "data"
    found = []
    for place in sorted(places.iterdir(), key=lambda place: place.name):
        if place.name.endswith(".npz"):
            with place.open("rb") as stream:
                found.append(_read(stream, place.name))
    return tuple(found)


def get(model: Model, given: Seeds | None = None) -> Seeds:
    """The seeds given, or those that are shipped for a model's classes.

    Raises:
      ValueError: naming `seeds`, where none are shipped for these classes, or for other classes or
        channels than the model's.
    """
    channels = model.input_shape[2]
    if given is None:
        for seeds in _shipped():
            if seeds.classes == model.classes and seeds.mean.shape[3] == channels:
                return seeds
        raise ValueError(
            f"seeds: none are shipped for the classes of {model.name}; rvis.synthesis.fit(dataset) "
            "makes some from images of them"
        )
    if model.classes and given.classes != model.classes:
        raise ValueError(
            f"seeds: those of the {len(model.classes)} classes of {model.name} were expected, "
            f"given {len(given.classes)}: {', '.join(given.classes[:5])} …"
        )
    if given.mean.shape[3] != channels:
        raise ValueError(f"seeds: {channels} channels were expected, given {given.mean.shape[3]}")
    return given


def draws(seeds: Seeds, key: KeyLike, classes: np.ndarray, size: tuple[int, int]) -> Array:
    """One seed for each entry of `classes`; entry i uses `fold_in(key, i)`."""
    root = as_key(key)
    keys = fold_each(root, np.arange(len(classes)))
    return seeds.sample(keys, classes, size)
