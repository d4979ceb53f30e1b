"""Photographs of any size as a network was evaluated on them, and maps back on the whole ones."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from rvis import checks, files
from rvis.data.pictures import decode, upright

Picture = Any
"""A path, a picture of Pillow, or an array (H, W, C) or (H, W): uint8, or float in [0, 1]."""

FITS = ("crop", "pad", "squash")
_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".gif", ".tif", ".tiff")
_GREY = 128 / 255
_LUMA = (0.299, 0.587, 0.114)
"""How much red, green and blue there is in grey (ITU-R 601), as Pillow has it."""


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a picture goes: resized to `size`, then moved by `offset`, (vertical, horizontal)."""

    size: tuple[int, int]
    offset: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Preparation:
    """How a network's photographs were resized and cut when it was evaluated.

    Attributes:
      crop: the side of what is cut out, of the shorter side after resizing; 0.875 is 224 of 256.
      interpolation: "bilinear", "bicubic", "lanczos" or "nearest", antialiased.
      torchvision: torchvision and timm drop the fraction of the longer side's pixels, and round
        where the cut begins; else it is the other way round.

    Raises:
      TypeError, ValueError: naming the attribute.

    Example:
      >>> import numpy as np
      >>> from rvis.data.preparation import Preparation
      >>> pictures = [np.zeros((300, 400, 3)), np.zeros((91, 77, 3), np.uint8)]
      >>> Preparation()(pictures, (224, 224, 3)).shape
      (2, 224, 224, 3)
    """

    crop: float = 0.875
    interpolation: str = "bilinear"
    torchvision: bool = True

    def __post_init__(self) -> None:
        checks.number("crop", self.crop, high=1, above=0)
        checks.choice("interpolation", self.interpolation, _FILTERS)

    def __call__(
        self, pictures: Picture, shape: tuple[int, int, int], *, fit: str = "crop"
    ) -> np.ndarray:
        """Pictures as a network of input `shape` takes them; see `rvis.Model.prepare`."""
        checks.choice("fit", fit, FITS)
        listed, single = _listed(pictures)
        prepared = [self._prepared(picture, shape, fit) for picture in listed]
        return prepared[0] if single else np.stack(prepared)

    def restore(
        self, maps: Any, pictures: Picture, shape: tuple[int, int, int], *, fit: str = "crop"
    ) -> Any:
        """Maps of prepared pictures on the whole pictures; see `rvis.Model.restore`."""
        checks.choice("fit", fit, FITS)
        listed, single = _listed(pictures)
        arrays = np.asarray(maps, np.float32)
        batch = arrays[None] if single else arrays
        if len(batch) != len(listed) or batch.ndim not in (3, 4):
            raise ValueError(
                f"maps: one (h, w) or (h, w, c) a picture was expected, given {arrays.shape} for "
                f"{len(listed)} pictures"
            )
        restored = [
            self._restored(each, _size(picture), shape, fit)
            for each, picture in zip(batch, listed, strict=True)
        ]
        return restored[0] if single else restored

    def _place(self, size: tuple[int, int], shape: tuple[int, int, int], fit: str) -> _Place:
        target = shape[0], shape[1]
        if fit == "squash":
            return _Place(target, (0, 0))
        ratios = [wanted / n for wanted, n in zip(target, size, strict=True)]
        if fit == "pad":
            scale = min(ratios)
            resized = [max(1, round(n * scale)) for n in size]
            offset = [(wanted - n) // 2 for wanted, n in zip(target, resized, strict=True)]
        else:
            limiting = int(ratios[1] > ratios[0])
            side = math.floor(target[limiting] / self.crop)
            whole = math.floor if self.torchvision else round
            resized = [
                max(m, whole(side * n / size[limiting])) for m, n in zip(target, size, strict=True)
            ]
            resized[limiting] = side
            begin = round if self.torchvision else math.floor
            offset = [-begin((n - m) / 2) for m, n in zip(target, resized, strict=True)]
        return _Place((resized[0], resized[1]), (offset[0], offset[1]))

    def _prepared(self, picture: Picture, shape: tuple[int, int, int], fit: str) -> np.ndarray:
        channels = shape[2]
        pixels = _pixels(picture, channels)
        place = self._place((pixels.shape[0], pixels.shape[1]), shape, fit)
        pixels = self._resized(pixels, place.size)
        out = np.full(shape, _GREY, np.float32)
        inside, outside = [], []
        for offset, n, wanted in zip(place.offset, place.size, shape, strict=False):
            start, stop = max(0, offset), min(wanted, offset + n)
            outside.append(slice(start, stop))
            inside.append(slice(start - offset, stop - offset))
        out[tuple(outside)] = pixels[tuple(inside)]
        return out

    def _resized(self, pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """(H, W, C) floats in [0, 1]; bytes are resized as bytes, as those who evaluate do."""
        if pixels.shape[:2] != size:
            filtered = _FILTERS[self.interpolation]
            mode = pixels if pixels.dtype == np.uint8 else pixels.astype(np.float32)
            channels = [
                np.asarray(Image.fromarray(mode[..., c]).resize(size[::-1], filtered))
                for c in range(pixels.shape[2])
            ]
            pixels = np.stack(channels, -1)
        if pixels.dtype == np.uint8:
            return pixels.astype(np.float32) / np.float32(255)
        return np.clip(pixels, 0, 1).astype(np.float32)

    def _restored(
        self, array: np.ndarray, size: tuple[int, int], shape: tuple[int, int, int], fit: str
    ) -> np.ndarray:
        place = self._place(size, shape, fit)
        # A pixel of the picture, times a and plus b, is one of the map.
        down, across = (
            (
                resized / whole * cells / wanted,
                offset * cells / wanted,
            )
            for resized, whole, cells, wanted, offset in zip(
                place.size, size, array.shape, shape, place.offset, strict=False
            )
        )
        matrix = (across[0], 0.0, across[1], 0.0, down[0], down[1])
        layers = [
            np.asarray(
                Image.fromarray(layer).transform(
                    size[::-1], Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
                )
            )
            for layer in np.moveaxis(array.reshape(*array.shape[:2], -1), -1, 0)
        ]
        return layers[0] if array.ndim == 2 else np.stack(layers, -1)


def _listed(pictures: Picture) -> tuple[list[Picture], bool]:
    """The pictures one by one, and whether a single one was given."""
    if isinstance(pictures, (str, os.PathLike)):
        path = files.as_path("pictures", pictures)
        if not path.is_dir():
            return [path], True
        listed: list[Picture] = sorted(
            file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES
        )
        if not listed:
            raise ValueError(f"pictures: a folder of pictures was expected, {path} holds none")
        return listed, False
    if isinstance(pictures, Image.Image):
        return [pictures], True
    if hasattr(pictures, "ndim") and pictures.ndim != 4:
        return [pictures], True
    if not isinstance(pictures, (Sequence, Iterable)) and not hasattr(pictures, "ndim"):
        raise TypeError(
            "pictures: paths, pictures of Pillow, arrays or a folder were expected, given "
            f"{type(pictures).__name__}"
        )
    listed = list(pictures)
    if not listed:
        raise ValueError("pictures: at least one was expected, given none")
    return listed, False


def _opened(picture: Picture) -> Image.Image | None:
    if isinstance(picture, Image.Image):
        return upright(picture)
    if isinstance(picture, (str, os.PathLike)):
        path = pathlib.Path(picture)
        if not path.is_file():
            raise FileNotFoundError(f"pictures: there is no file at {path}")
        return decode(path.read_bytes(), str(path))
    return None


def _pixels(picture: Picture, channels: int) -> np.ndarray:
    """(H, W, channels), uint8 or float in [0, 1]."""
    opened = _opened(picture)
    if opened is not None:
        pixels = np.asarray(opened.convert("L" if channels == 1 else "RGB"))
        return pixels.reshape(*pixels.shape[:2], -1)
    array = np.asarray(picture)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(f"pictures: (H, W, C) was expected, given shape {np.shape(picture)}")
    if array.dtype != np.uint8:
        checked = checks.images("pictures", array[None])
        array = np.asarray(checked[0])
    if array.shape[2] == 1:
        array = np.repeat(array, channels, 2)
    elif array.shape[2] == 3 and channels == 1:
        grey = (array @ np.array(_LUMA, np.float32))[..., None]
        array = np.rint(grey).astype(np.uint8) if array.dtype == np.uint8 else grey
    if array.shape[2] != channels:
        raise ValueError(
            f"pictures: {channels} channels last were expected, given shape {np.shape(picture)}"
        )
    return array


def _size(picture: Picture) -> tuple[int, int]:
    opened = _opened(picture)
    if opened is not None:
        return opened.height, opened.width
    height, width = np.shape(picture)[:2]
    return height, width
