"""The score while an image is changed place by place, in the order of a map."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import numpy as np

from rvis import checks
from rvis.likeness import gaussian, windowed
from rvis.metrics.judge import Judge, heat
from rvis.types import ArrayLike, KeyLike, Model, as_key


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """The score while an image is changed place by place, in the order of a map.

    Attributes:
      shares: (k,) share of the places changed, from 0 to 1 (or to where the steps end).
      scores: (n, k).
      area: (n,) by trapezoids over the shares, divided by their span.
      fall: (n,) the mean of f(x) − f(changed x) over all k: the area over the curve ("AOPC").
    """

    shares: np.ndarray
    scores: np.ndarray

    @property
    def area(self) -> np.ndarray:
        return np.trapezoid(self.scores, self.shares, axis=1) / np.ptp(self.shares)

    @property
    def fall(self) -> np.ndarray:
        return (self.scores[:, :1] - self.scores).mean(1)


def deletion(
    model: Model,
    images: ArrayLike,
    maps: ArrayLike,
    target: Any,
    *,
    baseline: ArrayLike = 0.0,
    pixels: int | None = None,
    progress: bool = True,
) -> Curve:
    """The score while places are hidden, the most important ones first; a low area is good.

    Args:
      model: any model.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      maps: (n, H, W), or (n, H, W, C), summed over the channels; highest is most important.
      target: a class number or one for each image, scored by its probability in [0, 1]; or an
        objective of `rvis.objectives`, scored as it is.
      baseline: what hides: a number in [0, 1] or an image (H, W, C).
      pixels: places a step; the image's width by default, as in the paper.
      progress: a bar on a terminal.

    Raises:
      TypeError, ValueError: naming the argument, before anything is compiled.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import metrics
      >>> model = rvis.load("mnist_cnn")
      >>> digit, order = np.ones((28, 28, 1), np.float32), np.ones((1, 28, 28))
      >>> metrics.deletion(model, digit, order, 3, pixels=392).scores.shape
      (1, 3)

    Reference: Petsiuk et al. 2018, RISE, section 4.1.
    """
    judge = Judge(model, images, target, probability=True, progress=progress)
    hidden = judge.like("baseline", baseline)
    return _revealed(judge, maps, judge.images, hidden, pixels)


def insertion(
    model: Model,
    images: ArrayLike,
    maps: ArrayLike,
    target: Any,
    *,
    baseline: ArrayLike | None = None,
    pixels: int | None = None,
    progress: bool = True,
) -> Curve:
    """The score while places are shown, the most important ones first; a high area is good.

    Args:
      baseline: what is seen before: a number in [0, 1] or an image (H, W, C); by default each image
        blurred by a Gaussian of σ 5 cut to 11 × 11, as in the paper.

    All else as `deletion`.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import metrics
      >>> model = rvis.load("mnist_cnn")
      >>> digit, order = np.ones((28, 28, 1), np.float32), np.ones((1, 28, 28))
      >>> metrics.insertion(model, digit, order, 3, pixels=392).area.shape
      (1,)

    Reference: Petsiuk et al. 2018, RISE, section 4.1.
    """
    judge = Judge(model, images, target, probability=True, progress=progress)
    if baseline is None:
        before = np.pad(judge.images, ((0, 0), (5, 5), (5, 5), (0, 0)), "edge")
        before = windowed(before, gaussian(11, 5.0))
    else:
        before = judge.like("baseline", baseline)
    return _revealed(judge, maps, before, judge.images, pixels)


def pixel_flipping(
    model: Model,
    images: ArrayLike,
    maps: ArrayLike,
    target: Any,
    *,
    region: int = 1,
    steps: int = 100,
    draws: int = 10,
    key: KeyLike = 0,
    progress: bool = True,
) -> Curve:
    """The score while regions are replaced by uniform noise, the most important ones first.

    A high `fall` is good. The regions are squares that tile the image from its upper left corner,
    those at the far borders perhaps smaller; a region counts by the sum of the map in it.

    Args:
      region: side of a region in pixels; Samek et al. take 9 at 227 pixels.
      steps: regions replaced one after another, at most all of them.
      draws: the curve is the mean over so many draws of the noise.
      key: an int seed or a typed key; the same noise serves every image.

    All else as `deletion`.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import metrics
      >>> model = rvis.load("mnist_cnn")
      >>> digit, order = np.ones((28, 28, 1), np.float32), np.ones((1, 28, 28))
      >>> metrics.pixel_flipping(model, digit, order, 3, region=7, steps=4, draws=2).scores.shape
      (1, 5)

    Reference: Samek et al. 2017, Evaluating the visualization of what a deep neural network has
      learned, eq. 8 and 12; Bach et al. 2015, section "Pixel-flipping".
    """
    judge = Judge(model, images, target, probability=True, progress=progress)
    for name, value in (("region", region), ("steps", steps), ("draws", draws)):
        checks.count(name, value)
    warm = heat(maps, judge.images)
    _, height, width = warm.shape
    across = -(-width // region)
    tiles = np.arange(height)[:, None] // region * across + np.arange(width) // region
    regions = int(tiles.max()) + 1
    steps = min(steps, regions)
    sums = np.stack([warm[:, tiles == tile].sum(1) for tile in range(regions)], 1)
    ranks = _order(sums)[:, tiles]
    noises = jax.vmap(lambda draw: jax.random.uniform(draw, judge.images.shape[1:]))(
        jax.random.split(as_key(key), draws)
    )

    def changed(row: int, step: int, noise: np.ndarray) -> np.ndarray:
        return np.where((ranks[row] < step)[..., None], noise, judge.images[row])

    drawn = [judge.grid(partial(changed, noise=n), steps + 1) for n in np.asarray(noises)]
    return Curve(np.arange(steps + 1) / regions, np.mean(drawn, 0))


def _order(values: np.ndarray) -> np.ndarray:
    """(n, k) the rank of each value, 0 for the highest; equal values from left to right."""
    return np.argsort(np.argsort(-values, axis=1, kind="stable"), axis=1)


def _revealed(
    judge: Judge, maps: ArrayLike, before: np.ndarray, after: np.ndarray, pixels: int | None
) -> Curve:
    warm = heat(maps, judge.images)
    count, height, width = warm.shape
    step = width if pixels is None else checks.count("pixels", pixels)
    ranks = _order(warm.reshape(count, -1)).reshape(warm.shape)
    stops = np.append(np.arange(0, height * width, step), height * width)

    def changed(row: int, number: int) -> np.ndarray:
        return np.where((ranks[row] < stops[number])[..., None], after[row], before[row])

    # Deletion goes from the image to what hides it, insertion the other way.
    return Curve(stops / (height * width), judge.grid(changed, len(stops)))
