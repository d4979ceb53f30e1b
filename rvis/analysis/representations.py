"""What a layer makes of images, and how far representations and pictures lie from one another."""

from __future__ import annotations

import itertools

import numpy as np

from rvis import checks, gate
from rvis.analysis import ranking
from rvis.analysis.similarity import structural_similarity
from rvis.types import LOGITS, Model, layer_shapes


@gate.public
def penultimate(model: Model, shape: tuple[int, int, int] | None = None) -> str:
    """The layer R whose activations the last one turns into logits.

    It is the last layer before the one that gives as many numbers as there are logits.

    Raises:
      ValueError: naming `layer`, where the model has no such layer.

    Example:
      >>> import rvis
      >>> from rvis.analysis import representations
      >>> representations.penultimate(rvis.load("mnist_cnn"))
      'relu3'
    """
    shapes = layer_shapes(model, shape)
    inner = [name for name in model.layers if shapes.get(name) not in (None, shapes.get(LOGITS))]
    if not inner:
        raise ValueError(f"layer: {model.name} has no layer before its logits; name one")
    return inner[-1]


@gate.public
def encode(model: Model, images: np.ndarray, layer: str) -> np.ndarray:
    """Φ(x): the activations (n, …) of a layer for images (n, H, W, C), on the host."""
    checks.images("images", images, channels=model.input_shape[2])
    checks.choice("layer", layer, (*model.layers, LOGITS))
    return ranking.each(ranking.Activations(layer), model, images)


@gate.public
def distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(n,) ‖a − b‖₂ of n pairs of arrays of any shape."""
    gap = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    return np.linalg.norm(gap.reshape(len(gap), -1), axis=1)


@gate.public
def relative_errors(found: np.ndarray, references: np.ndarray) -> np.ndarray:
    """(n,) ‖Φ − Φ₀‖ / ‖Φ₀‖; where Φ₀ is 0, ‖Φ‖."""
    size = distances(references, np.zeros_like(references))
    return distances(found, references) / np.where(size > 0, size, 1)


def mean_squared_distance(representations: np.ndarray) -> float:
    """The mean of ‖Φ_i − Φ_j‖² over all pairs i < j of n ≥ 2; NaN for fewer."""
    n = len(representations)
    if n < 2:
        return float("nan")
    flat = np.asarray(representations, np.float64).reshape(n, -1)
    return float(2 * np.square(flat - flat.mean(0)).sum() / (n - 1))


@gate.public
def psnr(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(n,) −10·log₁₀ of the mean squared difference of n pairs of pictures in [0, 1], in dB."""
    gap = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    error = np.square(gap).reshape(len(gap), -1).mean(1)
    with np.errstate(divide="ignore"):
        return -10 * np.log10(error)


@gate.public
def ssim(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(n,) mean structural similarity of the channels of n pairs; NaN below 11 pixels a side."""
    a, b = np.asarray(first), np.asarray(second)
    if min(a.shape[1:3]) < 11:
        return np.full(len(a), np.nan)
    each = [structural_similarity(a[..., c], b[..., c]) for c in range(a.shape[-1])]
    return np.mean(each, 0)


@gate.public
def spread(pictures: np.ndarray) -> tuple[float, float]:
    """Of pictures (s, H, W, C): RMS difference and SSIM, means over all pairs; NaN for one."""
    pairs = list(itertools.combinations(range(len(pictures)), 2))
    if not pairs:
        return float("nan"), float("nan")
    a, b = (pictures[[pair[side] for pair in pairs]] for side in (0, 1))
    apart = distances(a, b) / np.sqrt(np.prod(a.shape[1:]))
    return float(apart.mean()), float(ssim(a, b).mean())
