"""Colours of one image put on another: histograms, means with covariances, and luminance."""

from __future__ import annotations

import numpy as np

from rvis import checks, gate

_LUMA = np.array([0.299, 0.587, 0.114])
"""Of ITU-R BT.601, the Y of YIQ."""


@gate.public
def match_histogram(image: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """`image` with the histogram of `reference`, in each channel by itself.

    Args:
      image: (H, W, C).
      reference: (h, w, C), of any size.

    Returns:
      (H, W, C) float32; equal values stay equal.

    Example:
      >>> import numpy as np
      >>> from rvis.style import match_histogram
      >>> ramp = np.linspace(0, 1, 4).reshape(2, 2, 1)
      >>> match_histogram(ramp, ramp / 2).ravel().round(3)
      array([0.   , 0.167, 0.333, 0.5  ], dtype=float32)

    Reference: Gatys, Ecker & Bethge 2015, Texture synthesis using convolutional neural networks,
      section 4, match the histogram at the end.
    """
    image, reference = (
        np.asarray(checks.images(name, given))
        for name, given in (("image", image), ("reference", reference))
    )
    if len(image) > 1 or len(reference) > 1 or image.shape[-1] != reference.shape[-1]:
        raise ValueError(
            f"reference: one picture, of as many channels as the other, was expected, given "
            f"{image.shape} and {reference.shape}"
        )
    image, reference = image[0], reference[0]
    matched = np.empty(image.shape, np.float32)
    for channel in range(image.shape[-1]):
        _, places, counts = np.unique(image[..., channel], return_inverse=True, return_counts=True)
        # The middle of the ranks that a value takes up.
        ranks = (np.cumsum(counts) - counts / 2) / counts.sum()
        values = np.sort(reference[..., channel].ravel())
        quantiles = (np.arange(values.size) + 0.5) / values.size
        levels = np.interp(ranks, quantiles, values)
        matched[..., channel] = levels[places].reshape(image.shape[:2])
    return matched


def with_colours_of(image: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """`image` with the mean colour and colour covariance of `reference`, cut to [0, 1].

    x′ = Σ_r^{1/2} Σ_x^{-1/2} (x − μ_x) + μ_r.

    Reference: Gatys et al. 2016, Preserving color in neural artistic style transfer, section 2.1
      (the symmetric square root of "image analogies").
    """
    flat = image.reshape(-1, image.shape[-1]).astype(np.float64)
    other = reference.reshape(-1, image.shape[-1]).astype(np.float64)
    moved = (flat - flat.mean(0)) @ _root(flat, -0.5) @ _root(other, 0.5) + other.mean(0)
    return np.clip(moved, 0, 1).reshape(image.shape).astype(np.float32)


def _root(pixels: np.ndarray, power: float) -> np.ndarray:
    """A power of the pixels' covariance."""
    covariance = np.cov(pixels, rowvar=False, bias=True).reshape(pixels.shape[1], -1)
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.maximum(values, 1e-8) ** power) @ vectors.T


def luminance(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) grey, the luminance of (H, W, 3)."""
    return np.repeat((image @ _LUMA)[..., None], 3, -1).astype(np.float32)


def like_luminance(image: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """A grey image with the mean and standard deviation of another, cut to [0, 1].

    Reference: Gatys et al. 2016, Preserving color in neural artistic style transfer, eq. 10.
    """
    spread = reference.std() / max(float(image.std()), 1e-6)
    moved = spread * (image - image.mean()) + reference.mean()
    return np.clip(moved, 0, 1).astype(np.float32)


def with_luminance_of(image: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """`image` in its own chrominance with the luminance of `reference`, cut to [0, 1]."""
    moved = image + luminance(reference) - luminance(image)
    return np.clip(moved, 0, 1).astype(np.float32)
