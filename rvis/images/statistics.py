"""Colours and magnitude spectra as properties of a data set: those shipped, and your own."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.resources
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from rvis import checks, files, gate


@dataclasses.dataclass(frozen=True, eq=False)
class Statistics:
    """What the images of a data set have in common; it hashes by value.

    Attributes:
      name: what to call it.
      mean: (C,) the mean colour in (0, 1).
      root: (C, C) a square root of the colours' covariance (root·rootᵀ); its columns are
        decorrelated colours, strongest first.
      table: (n, n, C) the mean magnitude of decorrelated colours times frequency, on a grid of
        frequencies from 0 to ½ cycles a pixel down and across; photographs are nearly flat there.
        None where only colours are known.
    """

    name: str
    mean: np.ndarray
    root: np.ndarray
    table: np.ndarray | None = None

    def __post_init__(self) -> None:
        checks.text("name", self.name)
        mean = np.array(self.mean, np.float64)
        root = np.array(self.root, np.float64)
        if mean.shape not in ((1,), (3,)) or not ((mean > 0) & (mean < 1)).all():
            raise ValueError(f"mean: 1 or 3 values between 0 and 1 were expected, given {mean}")
        if root.shape != mean.shape * 2 or not np.isfinite(root).all():
            raise ValueError(f"root: {mean.shape * 2} was expected, given {root}")
        if np.linalg.matrix_rank(root) < len(root):
            raise ValueError(f"root: colours that vary independently were expected, given {root}")
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "root", root)
        if self.table is None:
            return
        table = np.array(self.table, np.float32)
        if table.ndim != 3 or table.shape[0] != table.shape[1] or table.shape[2] != len(mean):
            raise ValueError(f"table: (n, n, {len(mean)}) was expected, given {table.shape}")
        if not (np.isfinite(table) & (table >= 0)).all():
            raise ValueError("table: finite magnitudes of at least 0 were expected")
        object.__setattr__(self, "table", table)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of name and numbers."""
        content = hashlib.sha256(self.name.encode())
        for array in (self.mean, self.root, self.table):
            content.update(b"none" if array is None else array.tobytes())
        return content.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Statistics) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Statistics({self.name!r}, SHA-256 {self.digest[:16]})"

    @functools.cached_property
    def matrix(self) -> np.ndarray:
        """(C, C) from decorrelated to real colours: the root, its largest column of length 1."""
        return self.root / np.linalg.norm(self.root, axis=0).max()

    @functools.cached_property
    def inverse(self) -> np.ndarray:
        """(C, C) from real to decorrelated colours."""
        return np.linalg.inv(self.matrix)

    def whitened(self, height: int, width: int) -> np.ndarray:
        """(H, W//2 + 1, C) float32: magnitude times frequency, at the frequencies of `rfft2`."""
        if self.table is None:
            raise ValueError(f"statistics: a spectrum was expected, given {self!r}")
        down, across = np.abs(np.fft.fftfreq(height)), np.fft.rfftfreq(width)
        return _sampled(_sampled(self.table, down), across, axis=1).astype(np.float32)

    def magnitude(self, height: int, width: int) -> np.ndarray:
        """(H, W//2 + 1, C) float32: the mean |rfft2| of decorrelated colours, `norm="ortho"`.

        At another size than that of the data it is that of images as sharp: magnitudes are a
        function of cycles a pixel, and go on as 1/frequency below the lowest that were seen.

        Example:
          >>> from rvis.images import statistics
          >>> statistics.get("cifar10").magnitude(48, 64).shape
          (48, 33, 3)
        """
        return self.whitened(height, width) / _frequency(height, width).astype(np.float32)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes it as .npz, whole or not at all; `load` reads it."""
        arrays: dict[str, Any] = {"name": self.name, "mean": self.mean, "root": self.root}
        if self.table is not None:
            arrays["table"] = self.table.astype(np.float16)
        with files.atomic(Path(path)) as temporary, open(temporary, "wb") as stream:
            np.savez_compressed(stream, **arrays)


@gate.public
def load(path: str | os.PathLike[str]) -> Statistics:
    """What `Statistics.save` wrote; spectra are kept to three digits (float16)."""
    with files.opened(path) as stream:
        return _read(stream, str(path))


def _read(stream: Any, where: str) -> Statistics:
    try:
        files.check_arrays(where, stream)
        with np.load(stream, allow_pickle=False) as stored:
            table = stored["table"] if "table" in stored else None
            return Statistics(str(stored["name"]), stored["mean"], stored["root"], table)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"path: {where} holds no statistics of images ({error})") from error


NAMES = ("imagenet", "tiny_imagenet", "cifar10", "mnist")
"""The statistics that are shipped. "imagenet" has colours alone."""


@functools.cache
def _shipped(name: str) -> Statistics:
    if name == "imagenet":
        # tensorflow/lucid, `optvis/param/color.py`; of its spectrum nobody's numbers are at hand.
        root = [[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]]
        return Statistics(name, np.array([0.48, 0.46, 0.41]), np.array(root))
    place = importlib.resources.files("rvis.images") / "data" / f"{name}.npz"
    with place.open("rb") as stream:
        return _read(stream, str(place))


def get(
    given: str | Statistics, *, channels: int | None = None, spectrum: bool = False
) -> Statistics:
    """Statistics by name, or those given.

    Args:
      given: a name of `NAMES`, or a `Statistics`.
      channels: how many they must be of.
      spectrum: whether they must have one.

    Example:
      >>> from rvis.images import statistics
      >>> statistics.get("imagenet").mean.tolist()
      [0.48, 0.46, 0.41]
    """
    if isinstance(given, str):
        given = _shipped(checks.choice("statistics", given, NAMES))
    elif not isinstance(given, Statistics):
        raise TypeError(
            f"statistics: one of {', '.join(map(repr, NAMES))} or a Statistics was expected, given "
            f"{given!r}"
        )
    if channels is not None and len(given.mean) != channels:
        raise ValueError(
            f"statistics: those of images with {channels} channels were expected, given {given!r}"
        )
    if spectrum and given.table is None:
        raise ValueError(
            "statistics: some with a magnitude spectrum were expected ('tiny_imagenet', 'cifar10', "
            f"'mnist', or `estimate` of your images), given {given!r}"
        )
    return given


_CHUNK = 512


@gate.public
def estimate(images: np.ndarray, *, name: str = "estimated") -> Statistics:
    """The mean colour, colour covariance and mean magnitude spectrum of a batch of images.

    Args:
      images: (n, H, W, C) with C = 1 or 3, uint8 or floats in [0, 1].
      name: what to call the result.

    Example:
      >>> import numpy as np
      >>> from rvis.images import statistics
      >>> noise = np.random.default_rng(0).uniform(size=(64, 16, 16, 3))
      >>> found = statistics.estimate(noise)
      >>> found.mean.round(1).tolist(), found.magnitude(16, 16).shape
      ([0.5, 0.5, 0.5], (16, 9, 3))
    """
    array = np.asarray(images)
    if array.ndim != 4 or 0 in array.shape or array.shape[3] not in (1, 3):
        raise ValueError(f"images: (n, H, W, 1 or 3) was expected, given shape {array.shape}")
    if array.dtype != np.uint8:
        checks.images("images", array)
    count, height, width, channels = array.shape
    parts = range(0, count, _CHUNK)

    def part(first: int) -> np.ndarray:
        some = array[first : first + _CHUNK]
        return some.astype(np.float64) / (255 if array.dtype == np.uint8 else 1)

    pixels = count * height * width
    mean = sum(part(first).sum((0, 1, 2)) for first in parts) / pixels
    covariance = np.zeros((channels, channels))
    for first in parts:
        some = (part(first) - mean).reshape(-1, channels)
        covariance += some.T @ some / pixels
    values, vectors = np.linalg.eigh(covariance)
    if values[0] <= 1e-12 * max(values[-1], 1e-12):
        raise ValueError("images: colours that vary independently were expected, given none")
    vectors = vectors[:, ::-1] * np.where(vectors[0, ::-1] < 0, -1, 1)
    root = vectors * np.sqrt(values[::-1])
    colours = Statistics(name, mean, root)
    total = np.zeros((height, width // 2 + 1, channels))
    for first in parts:
        planes = (part(first) - mean) @ colours.inverse.T
        total += np.abs(np.fft.rfft2(planes, axes=(1, 2), norm="ortho")).sum(0)
    whitened = total / count * _frequency(height, width)
    half = height // 2 + 1
    whitened = (whitened[:half] + whitened[-np.arange(half)]) / 2
    grid = np.linspace(0, 0.5, min(height, width) // 2 + 1)
    table = _resampled(whitened, np.arange(half) / height, grid, 0)
    return Statistics(name, mean, root, _resampled(table, np.fft.rfftfreq(width), grid, 1))


def _frequency(height: int, width: int) -> np.ndarray:
    """(H, W//2 + 1, 1) in cycles a pixel, the mean colour's as if it were one cycle an image."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    return np.maximum(frequency, 1 / max(height, width))[..., None]


def _sampled(table: np.ndarray, frequencies: np.ndarray, axis: int = 0) -> np.ndarray:
    return _resampled(table, np.linspace(0, 0.5, table.shape[axis]), frequencies, axis)


def _resampled(table: np.ndarray, at: np.ndarray, wanted: np.ndarray, axis: int) -> np.ndarray:
    """Linear interpolation along an axis, with the values at its ends beyond them."""
    return np.apply_along_axis(lambda line: np.interp(wanted, at, line), axis, table)
