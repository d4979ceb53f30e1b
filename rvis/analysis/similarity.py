"""How alike two maps are, or a map and its image."""

from __future__ import annotations

import numpy as np

from rvis import checks, gate
from rvis.types import ArrayLike


@gate.public
def alignment(images: ArrayLike, maps: ArrayLike) -> np.ndarray:
    """|⟨x, ∇f⟩| / ‖∇f‖: how far an image points along its gradient; high is aligned.

    Args:
      images: (n, H, W, C).
      maps: gradients of the same shape.

    Returns:
      (n,); 0 where the gradient is.

    Raises:
      ValueError: naming `maps`, for another shape.

    Example:
      >>> import numpy as np
      >>> from rvis.analysis import metrics
      >>> metrics.alignment(np.full((1, 2, 2, 1), 0.5), np.ones((1, 2, 2, 1))).item()
      1.0

    Reference: Etmann et al. 2019, On the Connection Between Adversarial Robustness and Saliency Map
      Interpretability, definition 3.
    """
    if np.iscomplexobj(images):
        raise TypeError("images: real numbers were expected, given complex ones")
    checks.finite("images", images)
    given, gradients = (np.asarray(array, np.float64) for array in (images, maps))
    if given.shape != gradients.shape:
        raise ValueError(f"maps: {given.shape} was expected, given shape {gradients.shape}")
    first, second = (array.reshape(len(array), -1) for array in (given, gradients))
    norm = np.linalg.norm(second, axis=1)
    return np.where(norm > 0, np.abs((first * second).sum(1)) / np.where(norm > 0, norm, 1), 0)


@gate.public
def spearman(first: ArrayLike, second: ArrayLike) -> np.ndarray:
    """Rank correlation of n pairs of arrays; equal values share their mean rank.

    Args:
      first: (n, …).
      second: likewise.

    Returns:
      (n,) in [−1, 1]; 0 where one of the two is constant.

    Raises:
      ValueError: naming the argument, for NaN, which has no rank.

    Example:
      >>> from rvis.analysis import metrics
      >>> metrics.spearman([[1, 2, 3, 9]], [[10, 20, 30, 31]]).item()
      1.0

    Reference: Spearman 1904, The Proof and Measurement of Association between Two Things.
    """
    ranks = []
    for name, given in (("first", first), ("second", second)):
        rows = np.asarray(given)
        if rows.shape != np.shape(first) or rows.ndim < 2:
            raise ValueError(
                f"{name}: (n, …) of one shape was expected, given {np.shape(first)} and "
                f"{rows.shape}"
            )
        ranks.append(np.stack([_mean_ranks(row) for row in rows.reshape(len(rows), -1)]))
    a, b = (r - r.mean(1, keepdims=True) for r in ranks)
    size = np.sqrt(np.square(a).sum(1) * np.square(b).sum(1))
    return np.where(size > 0, (a * b).sum(1) / np.where(size > 0, size, 1), 0)


@gate.public
def structural_similarity(first: ArrayLike, second: ArrayLike, *, window: int = 11) -> np.ndarray:
    """The mean structural similarity (SSIM) of n pairs of pictures of one channel in [0, 1].

    Gaussian windows of σ 1.5, only where they fit; K1 .01, K2 .03; variances divided by the sum of
    the weights. With 11 × 11 it is scikit-image's, as Wang et al. have it.

    Args:
      first: (n, H, W), at least `window` pixels each way.
      second: likewise.
      window: an odd side; smaller ones are for pictures less than 11 pixels high or wide.

    Returns:
      (n,), 1 for equal pictures.

    Raises:
      ValueError: naming the argument, for another rank or shape.

    Example:
      >>> import numpy as np
      >>> from rvis.analysis import metrics
      >>> picture = np.linspace(0, 1, 144).reshape(1, 12, 12)
      >>> metrics.structural_similarity(picture, picture).item()
      1.0

    Reference: Wang et al. 2004, Image Quality Assessment: From Error Visibility to Structural
      Similarity, eq. 13.
    """
    a, b = (np.asarray(given, np.float64) for given in (first, second))
    if checks.count("window", window, low=3) % 2 == 0:
        raise ValueError(f"window: an odd number was expected, given {window}")
    if a.ndim != 3 or min(a.shape[1:]) < window:
        raise ValueError(
            f"first: (n, H, W) of {window} × {window} at least was expected, given {a.shape}"
        )
    if a.shape != b.shape:
        raise ValueError(f"second: {a.shape} was expected, given shape {b.shape}")
    weights = gaussian(window, 1.5)
    moments = (a, b, a * a, b * b, a * b)
    mean_a, mean_b, aa, bb, ab = (windowed(m[..., None], weights)[..., 0] for m in moments)
    c1, c2 = 0.01**2, 0.03**2
    top = (2 * mean_a * mean_b + c1) * (2 * (ab - mean_a * mean_b) + c2)
    bottom = (mean_a**2 + mean_b**2 + c1) * (aa - mean_a**2 + bb - mean_b**2 + c2)
    return (top / bottom).mean((1, 2))


def _mean_ranks(row: np.ndarray) -> np.ndarray:
    _, place, counts = np.unique(row, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[place.reshape(-1)]


def gaussian(side: int, deviation: float) -> np.ndarray:
    """One side of a separable window; it sums to 1."""
    weights = np.exp(-np.square(np.arange(side) - side // 2) / (2 * deviation**2))
    return weights / weights.sum()


def windowed(images: np.ndarray, window: np.ndarray) -> np.ndarray:
    """(n, H, W, C) averaged under a separable window, where it fits."""
    for axis in (1, 2):
        images = np.lib.stride_tricks.sliding_window_view(images, len(window), axis) @ window
    return images
