"""Pictures in files: upright, opaque, and brought to one size."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageOps

from rvis import checks, files, gate

Size = int | tuple[int, int]
"""A side in pixels for a square, or (height, width)."""

BROKEN = (OSError, EOFError, struct.error, zlib.error)
"""What reading a damaged file raises."""


@gate.public
def read_image(
    path: files.PathLike, *, size: Size | None = None, longest: int | None = None
) -> np.ndarray:
    """One picture as models take it: (H, W, 3) float32 RGB in [0, 1].

    It is turned upright by its EXIF orientation, put on mid-grey (128/255) where it is transparent,
    and made RGB where it is grey.

    Args:
      path: a PNG, JPEG, WebP, GIF, BMP, TIFF or PPM file, whatever its name says.
      size: the side, or (height, width), to which it is cut at its centre to that aspect and
        resized (bicubic, antialiased); its own size by default.
      longest: pixels of its longer side, to which it is resized with nothing cut off, instead.

    Raises:
      FileNotFoundError: naming `path`, where there is no file.
      TypeError, ValueError: naming the argument; `path` for what is no image, or damaged.

    Example:
      >>> import pathlib, tempfile
      >>> from PIL import Image
      >>> from rvis import data
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     file = pathlib.Path(folder, "red.png")
      ...     Image.new("RGB", (30, 20), "red").save(file)
      ...     data.read_image(file, size=(4, 6)).shape
      (4, 6, 3)
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
    return None if size is None else checks.size("size", size)


FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""The formats that are read, whatever a file's name: Pillow would start Ghostscript for an EPS."""


def open_picture(content: bytes, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """Pillow's picture of a file's content, which must be in one of `formats`."""
    return Image.open(io.BytesIO(content), formats=formats)


def decode(content: bytes, where: str) -> Image.Image:
    """A picture upright and opaque, mode L or RGB."""
    try:
        with open_picture(content) as image:
            return upright(image)
    except Image.DecompressionBombError as error:
        raise ValueError(f"path: {where} is too large an image ({error})") from error
    except Image.UnidentifiedImageError as error:
        kinds = ", ".join(FORMATS)
        raise ValueError(f"path: {where} is no image that can be read ({kinds})") from error
    except (*BROKEN, SyntaxError, ValueError, TypeError, LookupError, OverflowError) as error:
        raise ValueError(f"path: {where} is a damaged or cut short image ({error})") from error


def upright(image: Image.Image) -> Image.Image:
    """Pillow's picture turned by its EXIF orientation, opaque, mode L or RGB."""
    turned = ImageOps.exif_transpose(image)
    return _scaled(turned, image) if image.mode[0] in "IF" else _opaque(turned)


def _scaled(upright: Image.Image, opened: Image.Image) -> Image.Image:
    """A grey picture of 16 bits, scaled to 8; Pillow's conversion clips it instead."""
    values = np.asarray(upright)
    if opened.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise ValueError("whole numbers from 0 to 65535 were expected")
    return Image.fromarray(np.rint(255 * values.astype(np.float64) / 65535).astype(np.uint8))


def _opaque(image: Image.Image) -> Image.Image:
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
