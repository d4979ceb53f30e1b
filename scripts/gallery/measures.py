"""What several sections measure on pictures, and how pictures of unequal size are put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from rvis.analysis.metrics import Interval
from rvis.plotting import grids

ENDS = (", low", ", high")
"""What is added to a figure's name for the ends of its interval."""


def told(name: str, interval: Interval) -> dict[str, float]:
    """An interval as figures of a table, which the page shows in one cell.

    Example:
      >>> from rvis.analysis import metrics
      >>> from scripts.gallery import measures
      >>> row = measures.told("right", metrics.share([True, True, False]))
      >>> f"{measures.read(row, 'right'):.0%}"
      '67% [21%, 94%]'
    """
    ends = zip(ENDS, interval[1:], strict=True)
    return {name: interval.mean} | {name + end: x for end, x in ends if np.isfinite(x)}


def read(row: Mapping[str, float], name: str) -> Interval:
    """What `told` wrote; without ends where there are none."""
    low, high = (row.get(name + end, np.nan) for end in ENDS)
    return Interval(row[name], low, high)


def resized(images: np.ndarray, side: int) -> np.ndarray:
    """(n, side, side, 3) of square pictures (n, H, W, 3), by cubics."""
    pictures = [
        grids.to_pil(image).resize((side, side), Image.Resampling.BICUBIC) for image in images
    ]
    return np.stack([np.asarray(picture, np.float32) for picture in pictures]) / 255


def power(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies in cycles a pixel and the energy at each, of all colours less their means.

    Args:
      images: (n, H, W, C).

    Returns:
      (H, W) and (n, H, W).
    """
    height, width = images.shape[1:3]
    centred = images - images.mean((1, 2), keepdims=True)
    energy = (np.abs(np.fft.fft2(centred, axes=(1, 2))) ** 2).sum(-1)
    return np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)), energy


def centroid(images: np.ndarray) -> float:
    """The spectral centroid: the mean frequency of the energy, in cycles a pixel; mean over images.

    Example:
      >>> import numpy as np
      >>> from scripts.gallery import measures
      >>> wave = np.sin(np.arange(32) * 2 * np.pi / 8)
      >>> round(measures.centroid(np.broadcast_to(wave[None, None, :, None], (1, 32, 32, 1))), 3)
      0.125
    """
    frequency, energy = power(images)
    total = np.maximum(energy.sum((1, 2)), 1e-12)
    return float(((energy * frequency).sum((1, 2)) / total).mean())


def fine(images: np.ndarray) -> float:
    """The share of energy above a quarter of a cycle a pixel; mean over images."""
    frequency, energy = power(images)
    total = np.maximum(energy.sum((1, 2)), 1e-12)
    return float((energy[:, frequency > 0.25].sum(1) / total).mean())


def stacked(pictures: Sequence[Image.Image], *, beside: bool = False) -> Image.Image:
    """Pictures below one another, or beside, on white."""
    wide, high = (sum, max) if beside else (max, sum)
    size = wide(p.width for p in pictures), high(p.height for p in pictures)
    sheet = Image.new("RGB", size, "white")
    x = y = 0
    for picture in pictures:
        sheet.paste(picture, (x, y))
        x, y = (x + picture.width, 0) if beside else (0, y + picture.height)
    return sheet
