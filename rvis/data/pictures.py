"""Pictures in files: upright, opaque, and brought to one size."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageOps

from rvis import checks, files

Size = int | tuple[int, int]
"""A side in pixels for a square, or (height, width)."""

BROKEN = (OSError, EOFError, struct.error, zlib.error)
"""What reading a damaged file raises."""


def read_image(
    path: files.PathLike, *, size: Size | None = None, longest: int | None = None
) -> np.ndarray:
    """One picture as models take it: (H, W, 3) float32 RGB in [0, 1].

    It is turned upright by its EXIF orientation, put on mid-grey (128/255, about .5) where it is
    transparent, and made RGB where it is grey.

    Args:
      path: a file in any format that Pillow reads.
      size: the side, or (height, width), to which it is cut at its centre to that aspect and
        resized (bicubic, antialiased); its own size by default.
      longest: pixels of its longer side, to which it is resized with nothing cut off, instead.

    Raises:
      FileNotFoundError: naming `path`, where there is no file.
      TypeError: naming `path`, `size` or `longest`, for a wrong type.
      ValueError: naming `path`, where it is no image, is cut short, or is beyond Pillow's limit
        (twice `PIL.Image.MAX_IMAGE_PIXELS`); naming `size` or `longest`, where it is not positive,
        or where both are given.

    Example:
      >>> import pathlib, tempfile
      >>> from PIL import Image
      >>> from rvis import data
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     file = pathlib.Path(folder, "red.png")
      ...     Image.new("RGB", (30, 20), "red").save(file)
      ...     image = data.read_image(file, size=(4, 6))
      >>> image.shape, image[0, 0].tolist()
      ((4, 6, 3), [1.0, 0.0, 0.0])
    """
    source = files.as_path("path", path)
    target = as_size(size)
    if longest is not None:
        checks.count("longest", longest)
        if target is not None:
            raise ValueError(f"longest: None was expected beside size={size}, given {longest}")
    if not source.is_file():
        kind = "a folder is" if source.is_dir() else "there is nothing"
        raise FileNotFoundError(f"path: an image file was expected, {kind} at {source}")
    image = decode(source.read_bytes(), str(source))
    if longest is not None:
        scale = longest / max(image.size)
        target = max(1, round(image.height * scale)), max(1, round(image.width * scale))
    pixels = np.asarray(fit(image, target).convert("RGB"))
    return pixels.astype(np.float32) / np.float32(255)


def as_size(size: Size | None) -> tuple[int, int] | None:
    """(height, width), checked."""
    if size is None:
        return None
    pair = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    if len(pair) != 2:
        raise ValueError(f"size: an int or (height, width) was expected, given {size!r}")
    return checks.count("size", pair[0]), checks.count("size", pair[1])


def decode(content: bytes, where: str) -> Image.Image:
    """A picture upright and opaque, mode L or RGB."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            return _opaque(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError as error:
        raise ValueError(f"path: {where} is too large an image ({error})") from error
    except Image.UnidentifiedImageError as error:
        raise ValueError(f"path: {where} is no image that Pillow can read") from error
    except (*BROKEN, SyntaxError, ValueError, TypeError, LookupError, OverflowError) as error:
        raise ValueError(f"path: {where} is a damaged or cut short image ({error})") from error


def _opaque(image: Image.Image) -> Image.Image:
    if image.mode[0] == "I":
        # Pillow's own conversion clips 16-bit grey at 255 instead of scaling it.
        wide = np.clip(np.asarray(image).astype(np.float32), 0, 65535)
        return Image.fromarray(np.rint(wide / 257).astype(np.uint8))
    grey = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        backing = Image.new("RGBA", image.size, (128, 128, 128, 255))
        image = Image.alpha_composite(backing, image.convert("RGBA")).convert("RGB")
    return image.convert("L" if grey else "RGB")


def fit(image: Image.Image, size: tuple[int, int] | None) -> Image.Image:
    """Cut at its centre to the aspect of (height, width), and resized."""
    if size is None or image.size == size[::-1]:
        return image
    return ImageOps.fit(image, size[::-1], method=Image.Resampling.BICUBIC)


def stack(
    count: int, pictures: Iterable[tuple[str, Image.Image]], size: tuple[int, int] | None
) -> np.ndarray:
    """(count, H, W, C) uint8 of pictures given with their names; grey only if all of them are."""
    images = np.empty((0, 0, 0, 1), np.uint8)
    for i, (where, picture) in enumerate(pictures):
        pixels = np.asarray(fit(picture, size))
        if pixels.ndim == 2:
            pixels = pixels[..., None]
        if i == 0:
            images = np.empty((count, *pixels.shape), np.uint8)
        elif pixels.shape[:2] != images.shape[1:3]:
            raise ValueError(
                f"size: the images differ in size, {images.shape[1:3]} and then {pixels.shape[:2]} "
                f"in {where}; pass size= to bring all to one"
            )
        elif pixels.shape[2] > images.shape[3]:
            images = np.repeat(images, pixels.shape[2], axis=3)
        images[i] = pixels
    return images


def resized(images: np.ndarray, where: str, size: tuple[int, int] | None) -> np.ndarray:
    """(n, H, W, C) uint8, each as `fit` gives it."""
    if size is None or images.shape[1:3] == size:
        return images
    flat = images[..., 0] if images.shape[3] == 1 else images
    return stack(len(images), ((where, Image.fromarray(pixels)) for pixels in flat), size)
