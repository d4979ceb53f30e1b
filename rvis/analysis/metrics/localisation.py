"""Whether a map lies where the object is, and how much of it is concentrated."""

from __future__ import annotations

import numpy as np

from rvis import checks, gate
from rvis.types import ArrayLike


def _heat(maps: ArrayLike) -> np.ndarray:
    """(n, H, W) float64, over the channels where there are any."""
    values = np.asarray(maps, np.float64)
    if values.ndim not in (3, 4) or 0 in values.shape:
        raise ValueError(f"maps: (n, H, W) or (n, H, W, C) was expected, given {values.shape}")
    return values.sum(-1) if values.ndim == 4 else values


def _within(maps: ArrayLike, masks: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """(n, H·W) maps and whether each place is the object's."""
    warm, inside = _heat(maps), np.asarray(masks) != 0
    if inside.shape != warm.shape:
        raise ValueError(f"masks: {warm.shape} was expected, given {inside.shape}")
    if not inside.any((1, 2)).all():
        raise ValueError("masks: a place at least of each object was expected, given none")
    return warm.reshape(len(warm), -1), inside.reshape(len(warm), -1)


@gate.public
def pointing_game(maps: ArrayLike, masks: ArrayLike, *, tolerance: int = 0) -> np.ndarray:
    """Whether the highest place of a map lies on the object.

    Args:
      maps: (n, H, W), or (n, H, W, C), summed over the channels.
      masks: (n, H, W), nonzero on the object.
      tolerance: how many pixels beside it still count; the paper takes 15 of 224 or more.

    Returns:
      (n,) bool; the first of equal places counts.

    Raises:
      ValueError: naming the argument.

    Example:
      >>> import numpy as np
      >>> from rvis.analysis import metrics
      >>> metrics.pointing_game(np.eye(2)[None], [[[1, 0], [0, 0]]]).tolist()
      [True]

    Reference: Zhang et al. 2018, Top-down Neural Attention by Excitation Backprop, section 4.2.
    """
    warm, inside = _within(maps, masks)
    reach = checks.count("tolerance", tolerance, low=0)
    width = np.shape(masks)[2]
    result = []
    for own, mask in zip(warm, inside, strict=True):
        row, column = divmod(int(np.argmax(own)), width)
        rows, columns = np.divmod(np.flatnonzero(mask), width)
        result.append((np.hypot(rows - row, columns - column) <= reach).any())
    return np.asarray(result)


@gate.public
def relevance_mass(maps: ArrayLike, masks: ArrayLike) -> np.ndarray:
    """The share of a map's sum that lies on the object.

    Args and raises as `pointing_game`. Of a map with negative parts rectify it first, or take its
    sizes; a map that sums to zero has none.

    Returns:
      (n,).

    Example:
      >>> from rvis.analysis import metrics
      >>> metrics.relevance_mass([[[3.0, 1.0]]], [[[1, 0]]]).item()
      0.75

    Reference: Arras et al. 2022, CLEVR-XAI, eq. 1.
    """
    warm, inside = _within(maps, masks)
    total = warm.sum(1)
    top = (warm * inside).sum(1)
    return np.where(total == 0, 0, top / np.where(total == 0, 1, total))


@gate.public
def relevance_rank(maps: ArrayLike, masks: ArrayLike) -> np.ndarray:
    """The share of the k highest places that lie on the object, which has k.

    Args and raises as `pointing_game`; of equal places the first count.

    Returns:
      (n,).

    Example:
      >>> from rvis.analysis import metrics
      >>> metrics.relevance_rank([[[3.0, 1.0, 2.0]]], [[[1, 1, 0]]]).item()
      0.5

    Reference: Arras et al. 2022, CLEVR-XAI, eq. 2.
    """
    warm, inside = _within(maps, masks)
    order = np.argsort(-warm, 1, kind="stable")
    return np.asarray(
        [mask[own[: mask.sum()]].mean() for own, mask in zip(order, inside, strict=True)]
    )


@gate.public
def sparseness(maps: ArrayLike) -> np.ndarray:
    """The Gini index of a map's sizes: 0 where all are equal, near 1 where one has all.

    Args:
      maps: (n, H, W), or (n, H, W, C), summed over the channels.

    Returns:
      (n,); 0 of a map that is zero everywhere.

    Raises:
      ValueError: naming `maps`.

    Example:
      >>> from rvis.analysis import metrics
      >>> metrics.sparseness([[[0.0, 0.0, 0.0, 1.0]]]).item()
      0.75

    Reference: Chalasani et al. 2020, Concise Explanations of Neural Networks, section 2.
    """
    size = np.sort(np.abs(_heat(maps)).reshape(len(np.asarray(maps)), -1), 1)
    count, total = size.shape[1], size.sum(1)
    top = ((2 * np.arange(1, count + 1) - count - 1) * size).sum(1)
    return np.where(total == 0, 0, top / (count * np.where(total == 0, 1, total)))


@gate.public
def complexity(maps: ArrayLike) -> np.ndarray:
    """The entropy of a map's sizes as shares of their sum, in nats; low is simple.

    Args and raises as `sparseness`.

    Returns:
      (n,); 0 of a map that is zero everywhere.

    Example:
      >>> import math
      >>> from rvis.analysis import metrics
      >>> round(math.exp(metrics.complexity([[[2.0, 2.0], [0.0, -2.0]]]).item()), 6)
      3.0

    Reference: Bhatt et al. 2020, Evaluating and Aggregating Feature-based Model Explanations,
      definition 3.
    """
    size = np.abs(_heat(maps)).reshape(len(np.asarray(maps)), -1)
    total = size.sum(1, keepdims=True)
    share = size / np.where(total == 0, 1, total)
    return -(share * np.log(np.where(share > 0, share, 1))).sum(1)
