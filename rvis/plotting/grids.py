"""Pictures of many images at once: sheets and titled grids, and how they reach the disk."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable
from typing import Any, cast

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rvis import checks, files, gate
from rvis.files import PathLike

_LEGIBLE = 96
"""The longer side, in pixels, to which small images are enlarged at least."""


def to_pil(image: Any, *, alpha: bool = False) -> Image.Image:
    """One image as a PIL picture of 8 bits a channel.

    Args:
      image: (H, W, C), floating point in [0, 1]: C = 1 is grey and 3 colour. Of any other C each
        channel is shown in grey, side by side from left to right.
      alpha: whether the last channel of C = 2 or 4 is opacity (0 is clear) instead.

    Returns:
      A picture of mode "L", "LA", "RGB" or "RGBA" and size (W, H), or (C·W, H) with channels side
      by side; v becomes ⌊255·v + ½⌋.

    Raises:
      TypeError, ValueError: naming `image`.

    Example:
      >>> import numpy as np
      >>> from rvis.plotting import grids
      >>> grids.to_pil(np.full((28, 20, 1), 0.5)).getpixel((0, 0))
      128
    """
    if np.ndim(image) != 3:
        raise ValueError(f"image: (H, W, C) was expected, given shape {np.shape(image)}")
    pixels = _bytes("image", image, alpha)[0]
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


@gate.public
def spritemap(images: Any, *, columns: int | None = None, alpha: bool = False) -> Image.Image:
    """Images edge to edge on one sheet, row by row, at their own size.

    Args:
      images: (n, H, W, C), or a list of (H, W, C), floating point in [0, 1]; C as in `to_pil`.
      columns: images in a row; by default the sheet is as square as it can be.
      alpha: as in `to_pil`; what is transparent lies on white.

    Returns:
      An RGB picture of (columns·W, rows·H); places left over are black.

    Raises:
      TypeError, ValueError: naming the argument.

    Example:
      >>> import numpy as np
      >>> from rvis.plotting import grids
      >>> grids.spritemap(np.zeros((12, 32, 32, 3))).size
      (128, 96)
    """
    batch = _coloured(images, alpha)
    columns = _columns(len(batch), columns)
    height, width = batch.shape[1:3]
    rows = -(-len(batch) // columns)
    sheet = np.zeros((rows * columns, height, width, 3), np.uint8)
    sheet[: len(batch)] = batch
    sheet = sheet.reshape(rows, columns, height, width, 3).swapaxes(1, 2)
    return Image.fromarray(sheet.reshape(rows * height, columns * width, 3))


@gate.public
def grid(
    images: Any,
    *,
    titles: Iterable[object] | None = None,
    row_titles: Iterable[object] | None = None,
    columns: int | None = None,
    scale: int | None = None,
    pad: int = 4,
    alpha: bool = False,
) -> Image.Image:
    """Images in rows with gaps between them, small ones enlarged, and titles where there are any.

    Args:
      images: (n, H, W, C); or (rows, columns, H, W, C); or a list of (H, W, C); or a list of rows,
        each (m, H, W, C) or a list, of any length. C as in `to_pil`, floats in [0, 1].
      titles: one for each image in row-major order; or, for images given in rows, one for each
        column. One too long for its cell ends in "…"; accents are dropped and Greek letters
        spelled out, which Pillow's built-in font does not have.
      row_titles: one for each row, drawn to its left, in at most twice a cell's width.
      columns: images in a row, for images not given in rows; by default as square as can be.
      scale: by how much to enlarge, a whole number; by default the least that brings the longer
        side to 96 pixels.
      pad: pixels between cells and around them.
      alpha: as in `to_pil`; what is transparent lies on white.

    Returns:
      An RGB picture.

    Raises:
      TypeError, ValueError: naming the argument.

    Example:
      >>> import numpy as np
      >>> from rvis.plotting import grids
      >>> grids.grid(np.zeros((6, 28, 28, 1)), titles=list("abcdef"), columns=3).size
      (352, 272)
    """
    rows, in_rows = _rows(images, columns, alpha)
    height, width = rows[0].shape[1:3]
    if scale is None:
        scale = -(-_LEGIBLE // max(height, width))
    scale = checks.count("scale", scale)
    height, width = height * scale, width * scale
    across = max(map(len, rows))
    count = sum(map(len, rows))
    # One title an image, or one a column.
    texts = _texts("titles", titles, (count, across) if in_rows else (count,))
    above, header = (texts, []) if len(texts) == count else ([], texts)
    beside = _texts("row_titles", row_titles, (len(rows),)) or [""] * len(rows)

    # With a size given, what comes back is scalable, though the signature does not say so.
    font = cast("ImageFont.FreeTypeFont", ImageFont.load_default(min(18, max(11, width // 8))))
    line = sum(font.getmetrics())
    beside = [_clipped(text, font, 2 * width) for text in beside]
    label = math.ceil(max(map(font.getlength, beside)))
    left = pad + (label + pad if label else 0)
    top = pad + (line if header else 0)
    cell = height + (line if above else 0)
    size = (left + across * (width + pad), top + len(rows) * (cell + pad))
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)

    def write(text: str, column: int, y: int) -> None:
        x = left + column * (width + pad) + width / 2
        draw.text((x, y), _clipped(text, font, width), fill="black", font=font, anchor="ma")

    for column, text in enumerate(header):
        write(text, column, pad)
    each = iter(above)
    for i, row in enumerate(rows):
        bottom = top + i * (cell + pad) + cell
        draw.text(
            (left - pad, bottom - height / 2), beside[i], fill="black", font=font, anchor="rm"
        )
        for j, pixels in enumerate(row):
            write(next(each, ""), j, bottom - cell)
            enlarged = pixels.repeat(scale, 0).repeat(scale, 1)
            picture.paste(Image.fromarray(enlarged), (left + j * (width + pad), bottom - height))
    return picture


@gate.public
def overlay(images: Any, maps: Any, *, style: str = "beside") -> np.ndarray:
    """Heat maps in colour beside their images, over them, or alone.

    Zero is white. With a negative value anywhere maps run to red above and blue below, else from
    yellow to purple. A map's 99th percentile of absolute values takes the full colour. Equal steps
    of a map are equal steps of colour (in OKLab), and of lightness in print.

    Args:
      images: (n, H, W, C), floating point in [0, 1]; grey for C = 1, colour for 3, and the mean of
        the channels in grey for any other C.
      maps: (n, H, W), any finite numbers.
      style: "beside" the image; "blend", over a pale grey copy of it; or "map" alone.

    Returns:
      (n, H, W, 3) float32 in [0, 1], or (n, H, 2·W, 3) beside: images for `grid`.

    Raises:
      TypeError, ValueError: naming the argument.

    Example:
      >>> import numpy as np
      >>> from rvis.plotting import grids
      >>> grids.overlay(np.zeros((2, 8, 8, 3)), np.ones((2, 8, 8))).shape
      (2, 8, 16, 3)

    Reference: percentiles, Smilkov et al. 2017, SmoothGrad, section 2; OKLab, Ottosson 2020.
    """
    checks.choice("style", style, ("beside", "blend", "map"))
    batch = np.asarray(checks.images("images", images))
    batch = batch if batch.shape[-1] in (1, 3) else batch.mean(-1, keepdims=True)
    shown = _coloured(batch, False).astype(np.float32) / 255
    values = np.asarray(maps, np.float32)
    if values.shape != shown.shape[:3]:
        raise ValueError(f"maps: {shown.shape[:3]} was expected, given shape {values.shape}")
    size = np.abs(values)
    full = np.percentile(size, 99, axis=(1, 2), keepdims=True)
    # A map of few places may be zero at the percentile.
    full = np.where(full > 0, full, size.max((1, 2), keepdims=True))
    level = np.clip(values / np.where(full > 0, full, 1), -1, 1)
    colours = _in_colour(level, _WARM if (values < 0).any() else _SEQUENTIAL, _COLD)
    if style == "map":
        return colours
    if style == "beside":
        return np.concatenate([shown, colours], 2)
    grey = 0.35 + 0.65 * (shown @ np.asarray([0.299, 0.587, 0.114], np.float32))[..., None]
    opacity = 0.8 * np.sqrt(np.abs(level))[..., None]
    return np.clip(grey + opacity * (colours - grey), 0, 1)


@gate.public
def save(picture: Image.Image, path: PathLike) -> None:
    """Writes a PIL picture to a `path` that ends in ".png", whole or not at all.

    Raises:
      TypeError, ValueError: naming the argument.
      OSError: naming `path` and the reason, as in `rvis.files.atomic`.
    """
    if not isinstance(picture, Image.Image):
        raise TypeError(f"picture: a PIL picture was expected, given {type(picture).__name__}")
    target = files.as_path("path", path)
    if target.suffix.lower() != ".png":
        raise ValueError(f"path: a name ending in .png was expected, given {str(target)!r}")
    with files.atomic(target) as beside:
        picture.save(beside, format="PNG")


def _bytes(argument: str, images: Any, alpha: bool) -> np.ndarray:
    """Checked images as (n, H, W, 1 to 4) of uint8; see `to_pil` for the channels."""
    batch = np.asarray(checks.images(argument, images))
    count, height, width, channels = batch.shape
    if alpha and channels not in (2, 4):
        raise ValueError(
            f"{argument}: 2 or 4 channels, the last for opacity, were expected with alpha=True, "
            f"given {channels}"
        )
    if not alpha and channels not in (1, 3):
        batch = batch.swapaxes(2, 3).reshape(count, height, channels * width, 1)
    return np.floor(255 * np.clip(batch, 0, 1) + 0.5).astype(np.uint8)


def _coloured(images: Any, alpha: bool) -> np.ndarray:
    """A batch, or a list of images, as (n, H, W, 3) of uint8."""
    if isinstance(images, (list, tuple)):
        shapes = {np.shape(image) for image in images}
        if len(shapes) != 1:
            shown = ", ".join(map(str, sorted(shapes))) or "none at all"
            raise ValueError(f"images: images of one shape were expected, given {shown}")
        images = np.stack(images)
    batch = _bytes("images", images, alpha)
    if alpha:  # transparent pictures lie on white
        opacity = batch[..., -1:] / 255
        batch = np.round(255 + opacity * (batch[..., :-1] - 255.0)).astype(np.uint8)
    return np.broadcast_to(batch, (*batch.shape[:3], 3))


def _rows(images: Any, columns: int | None, alpha: bool) -> tuple[list[np.ndarray], bool]:
    """The images row by row, and whether they were given so."""
    first = images[0] if isinstance(images, (list, tuple)) and images else images
    in_rows = np.ndim(images) == 5 if first is images else isinstance(first, (list, tuple))
    in_rows = in_rows or (first is not images and np.ndim(first) == 4)
    if not in_rows:
        batch = _coloured(images, alpha)
        step = _columns(len(batch), columns)
        return [batch[i : i + step] for i in range(0, len(batch), step)], False
    if columns is not None:
        raise ValueError(f"columns: None was expected for images given in rows, given {columns}")
    rows = [_coloured(row, alpha) for row in images]
    shapes = {row.shape[1:3] for row in rows}
    if len(shapes) != 1:
        shown = ", ".join(map(str, sorted(shapes)))
        raise ValueError(f"images: images of one size were expected, given {shown}")
    return rows, True


def _columns(count: int, columns: int | None) -> int:
    square = math.ceil(math.sqrt(count))
    return square if columns is None else min(count, checks.count("columns", columns))


def _texts(argument: str, given: Iterable[object] | None, counts: tuple[int, ...]) -> list[str]:
    if given is None:
        return []
    texts = [_drawable(" ".join(str(text).split())) for text in given]
    if len(texts) not in counts:
        wanted = " or ".join(map(str, sorted(set(counts), reverse=True)))
        raise ValueError(f"{argument}: {wanted} of them were expected, given {len(texts)}")
    return texts


# What Pillow's built-in font has beyond ASCII, and how to spell what it has not.
_GLYPHS = frozenset("©«°±´·»‘’“”…‹›⁄™")
_SPELLINGS = {"−": "-", "–": "-", "—": "-", "×": "x", "→": "->", "≤": "<=", "≥": ">=", "∞": "inf"}


def _drawable(text: str) -> str:
    """`text` in characters that the built-in font can draw; it shows an empty box for others."""
    return "".join(map(_spelling, text))


def _spelling(letter: str) -> str:
    if letter.isascii() or letter in _GLYPHS:
        return letter
    if letter in _SPELLINGS:
        return _SPELLINGS[letter]
    parts = unicodedata.normalize("NFKD", letter)
    if plain := "".join(part for part in parts if part.isascii() or part in _GLYPHS):
        return plain
    greek = re.match(r"GREEK (?:SMALL|CAPITAL) LETTER (\w+)", unicodedata.name(letter, ""))
    return greek[1].lower() if greek else "?"


def _clipped(text: str, font: ImageFont.FreeTypeFont, room: int) -> str:
    """`text`, cut and ended with an ellipsis where it is longer than `room` pixels."""
    if font.getlength(text) <= room:
        return text
    cut = (text[:end].rstrip() + "…" for end in range(len(text) - 1, -1, -1))
    return next((short for short in cut if font.getlength(short) <= room), "")


# Anchors in OKLab as (lightness, chroma, hue in degrees), from zero to the full colour.
_WARM = ((1.0, 0.0, 27.0), (0.5, 0.19, 27.0))
_COLD = ((1.0, 0.0, 258.0), (0.5, 0.19, 258.0))
_SEQUENTIAL = ((1.0, 0.0, 95.0), (0.88, 0.13, 88.0), (0.62, 0.2, 32.0), (0.25, 0.1, 325.0))


def _in_colour(level: np.ndarray, above: tuple, below: tuple) -> np.ndarray:
    """(…, 3) sRGB of values in [−1, 1], on one way through OKLab above zero, on another below."""
    size = np.abs(level)[..., None]
    lab = np.where(level[..., None] < 0, _along(below, size), _along(above, size))
    return _srgb(lab).astype(np.float32)


def _along(anchors: tuple, size: np.ndarray) -> np.ndarray:
    """(…, 3) OKLab at a share `size` (…, 1) of the way's length: equal steps are equal to see."""
    light, chroma, hue = np.asarray(anchors).T
    turn = np.deg2rad(hue)
    places = np.stack([light, chroma * np.cos(turn), chroma * np.sin(turn)], -1)
    length = np.append(0, np.cumsum(np.linalg.norm(np.diff(places, axis=0), axis=-1)))
    share = size[..., 0] * length[-1]
    return np.stack([np.interp(share, length, places[:, i]) for i in range(3)], -1)


_TO_CONES = np.array(
    [
        [1, 0.3963377774, 0.2158037573],
        [1, -0.1055613458, -0.0638541728],
        [1, -0.0894841775, -1.291485548],
    ]
)
_TO_LINEAR = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.707614701],
    ]
)


def _srgb(lab: np.ndarray) -> np.ndarray:
    """sRGB of OKLab (Ottosson 2020), clipped to what a screen shows."""
    linear = np.clip((lab @ _TO_CONES.T) ** 3 @ _TO_LINEAR.T, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
