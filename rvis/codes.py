"""Codes: what a layer makes of images, and how far codes and pictures lie from one another."""

from __future__ import annotations

import itertools
from functools import partial

import jax
import numpy as np

from rvis import checks, taps
from rvis.likeness import structural_similarity
from rvis.types import LOGITS, Array, Model, layer_shapes

_PIECE = 16
"""Images encoded at once: one fixed number, so that a code's bits are the same in any company."""


def check_layer(model: Model, layer: str, shape: tuple[int, int, int]) -> str:
    """`layer` if images of `shape` reach it.

    Raises:
      ValueError: naming `layer` (with the nearest names) or `images`.
    """
    checks.choice("layer", layer, (*model.layers, LOGITS))
    if layer not in layer_shapes(model, shape):
        raise ValueError(
            f"images: {model.name} reaches {layer!r} only from images of {model.input_shape}, "
            f"given {shape}"
        )
    return layer


def penultimate(model: Model, shape: tuple[int, int, int] | None = None) -> str:
    """The layer R whose activations the last one turns into logits.

    It is the last layer before the one that gives as many numbers as there are logits.

    Raises:
      ValueError: naming `layer`, where the model has no such layer.

    Example:
      >>> import rvis
      >>> from rvis import codes
      >>> codes.penultimate(rvis.load("mnist_cnn"))
      'relu3'
    """
    shapes = layer_shapes(model, shape)
    inner = [name for name in model.layers if shapes.get(name) not in (None, shapes.get(LOGITS))]
    if not inner:
        raise ValueError(f"layer: {model.name} has no layer before its logits; name one")
    return inner[-1]


def encode(model: Model, images: np.ndarray, layer: str) -> np.ndarray:
    """Φ(x): the activations (n, …) of a layer for images (n, H, W, C), on the host."""
    found = []
    for first in range(0, len(images), _PIECE):
        rows = np.minimum(np.arange(first, first + _PIECE), len(images) - 1)
        code = np.asarray(_encode(model.unnamed(), np.asarray(images)[rows], layer=layer))
        found.append(code[: len(images) - first])
    return np.concatenate(found)


@partial(jax.jit, static_argnames="layer")
def _encode(model: Model, images: Array, *, layer: str) -> Array:
    return taps.activations(model, images, (layer,))[layer]


def distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(n,) ‖a − b‖₂ of n pairs of arrays of any shape."""
    gap = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    return np.linalg.norm(gap.reshape(len(gap), -1), axis=1)


def relative_errors(codes: np.ndarray, references: np.ndarray) -> np.ndarray:
    """(n,) ‖Φ − Φ₀‖ / ‖Φ₀‖; where Φ₀ is 0, ‖Φ‖."""
    size = distances(references, np.zeros_like(references))
    return distances(codes, references) / np.where(size > 0, size, 1)


def mean_squared_distance(codes: np.ndarray) -> float:
    """The mean of ‖Φ_i − Φ_j‖² over all pairs i < j of n ≥ 2 codes; NaN for fewer."""
    n = len(codes)
    if n < 2:
        return float("nan")
    flat = np.asarray(codes, np.float64).reshape(n, -1)
    return float(2 * np.square(flat - flat.mean(0)).sum() / (n - 1))


def psnr(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(n,) peak signal-to-noise ratio in dB of n pairs of pictures in [0, 1]; inf if equal.

    −10·log₁₀ of the mean squared difference.
    """
    gap = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    error = np.square(gap).reshape(len(gap), -1).mean(1)
    with np.errstate(divide="ignore"):
        return -10 * np.log10(error)


def ssim(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(n,) structural similarity of n pairs of pictures (H, W, C), the mean over their channels.

    Pictures of less than 7 pixels a side have none: NaN.
    """
    a, b = np.asarray(first), np.asarray(second)
    if min(a.shape[1:3]) < 7:
        return np.full(len(a), np.nan)
    each = [structural_similarity(a[..., c], b[..., c]) for c in range(a.shape[-1])]
    return np.mean(each, 0)


def spread(samples: np.ndarray) -> tuple[float, float]:
    """How much several pictures (s, H, W, C) of one thing differ among themselves.

    Returns:
      The root mean squared difference of pixels, and the SSIM, both means over all pairs; NaN for
      a single picture.
    """
    pairs = list(itertools.combinations(range(len(samples)), 2))
    if not pairs:
        return float("nan"), float("nan")
    a, b = (samples[[pair[side] for pair in pairs]] for side in (0, 1))
    apart = distances(a, b) / np.sqrt(np.prod(a.shape[1:]))
    return float(apart.mean()), float(ssim(a, b).mean())
