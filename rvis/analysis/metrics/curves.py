"""The score while an image is changed place by place, in the order of a map."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.ndimage import gaussian_filter1d

from rvis import checks, gate, struct
from rvis.analysis.metrics.judge import changed, heat, judged
from rvis.analysis.questions import Question, one_baseline
from rvis.analysis.similarity import windowed
from rvis.plotting import figures
from rvis.types import Array, ArrayLike, KeyLike, Model, as_key, on_device

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """The score while an image is changed place by place, in the order of a map.

    Attributes:
      shares: (k,) share of the places changed, from 0 to 1 (or to where the steps end).
      scores: (n, k), of one image too.
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

    def plot(self, ax: Axes | None = None, *, label: str | None = None) -> Axes:
        """The mean score over the images against the share changed, and each image's own, pale.

        Args:
          ax: the axes to draw into; those of a new figure by default.
          label: the curve's name in a legend.

        Raises:
          ImportError: naming the extra, where matplotlib is not installed.

        Example:
          >>> import numpy as np
          >>> from rvis.analysis import metrics
          >>> curve = metrics.Curve(np.array([0.0, 0.5, 1.0]), np.array([[0.9, 0.4, 0.1]]))
          >>> curve.plot().get_ylabel()
          'score'
        """
        ax = figures.axes(ax)
        (line,) = ax.plot(100 * self.shares, self.scores.mean(0), label=label, lw=2, zorder=3)
        if len(self.scores) > 1:
            ax.plot(100 * self.shares, self.scores.T, color=line.get_color(), lw=0.6, alpha=0.25)
        ax.set(xlabel="share of the places changed (%)", ylabel="score")
        if label is not None:
            ax.legend()
        return ax


@gate.public
def deletion(
    model: Model,
    images: ArrayLike,
    maps: ArrayLike,
    target: Any,
    *,
    baseline: str | ArrayLike = 0.0,
    pixels: int | None = None,
    chunk: int | None = None,
    progress: bool = True,
) -> Curve:
    """The score while places are hidden, the most important ones first; a low area is good.

    Args:
      model: any model.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      maps: (n, H, W), or (n, H, W, C), summed over the channels; highest is most important.
      target: a class number or one for each image, scored by its probability in [0, 1]; or an
        objective of `rvis.objectives`, scored as it is.
      baseline: what hides: a number in [0, 1], "mean" of each image's pixels, "blur" (a Gaussian
        with σ an eighth of the shorter side) or an image (H, W, C).
      pixels: places a step; the image's width by default, as in the paper.
      chunk: images on the device at once.
      progress: a bar on a terminal.

    Raises:
      TypeError, ValueError: naming the argument, before anything is compiled.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis.analysis import metrics
      >>> model = rvis.load("mnist_cnn")
      >>> digit, order = np.ones((28, 28, 1), np.float32), np.ones((1, 28, 28))
      >>> metrics.deletion(model, digit, order, 3, pixels=392).scores.shape
      (1, 3)

    Reference: Petsiuk et al. 2018, RISE, section 4.1.
    """
    question, logarithms = judged(model, images, target)
    hidden = one_baseline(baseline, question.images)
    options = {"logarithms": logarithms, "chunk": chunk, "progress": progress}
    return _revealed(question, maps, question.images, hidden, pixels, **options)


@gate.public
def insertion(
    model: Model,
    images: ArrayLike,
    maps: ArrayLike,
    target: Any,
    *,
    baseline: str | ArrayLike = "rise",
    pixels: int | None = None,
    chunk: int | None = None,
    progress: bool = True,
) -> Curve:
    """The score while places are shown, the most important ones first; a high area is good.

    Args:
      baseline: what is seen before. "rise" is each image under the blur of the paper's authors: a
        window of 11 × 11 whose weights are a Gaussian of σ 5 reflected at the window's border, with
        the model's mean colour around the image. Else as `deletion`.

    All else as `deletion`.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis.analysis import metrics
      >>> model = rvis.load("mnist_cnn")
      >>> digit, order = np.ones((28, 28, 1), np.float32), np.ones((1, 28, 28))
      >>> metrics.insertion(model, digit, order, 3, pixels=392).area.shape
      (1,)

    Reference: Petsiuk et al. 2018, RISE, section 4.1.
    """
    question, logarithms = judged(model, images, target)
    if isinstance(baseline, str):
        checks.choice("baseline", baseline, ("rise", "mean", "blur"))
    rise = isinstance(baseline, str) and baseline == "rise"
    before = _blurred(question) if rise else one_baseline(baseline, question.images)
    options = {"logarithms": logarithms, "chunk": chunk, "progress": progress}
    return _revealed(question, maps, before, question.images, pixels, **options)


def _blurred(question: Question) -> np.ndarray:
    # Petsiuk et al.'s `gkern` filters an impulse inside its window.
    window = gaussian_filter1d(np.eye(11)[5], 5.0)
    mean = np.asarray(getattr(question.model.apply, "mean", 0.0), np.float32)
    padded = np.pad(question.images - mean, ((0, 0), (5, 5), (5, 5), (0, 0)))
    return windowed(padded, window).astype(np.float32) + mean


@gate.public
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
    chunk: int | None = None,
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
      >>> from rvis.analysis import metrics
      >>> model = rvis.load("mnist_cnn")
      >>> digit, order = np.ones((28, 28, 1), np.float32), np.ones((1, 28, 28))
      >>> metrics.pixel_flipping(model, digit, order, 3, region=7, steps=4, draws=2).scores.shape
      (1, 5)

    Reference: Samek et al. 2017, Evaluating the visualization of what a deep neural network has
      learned, eq. 8 and 12; Bach et al. 2015, section "Pixel-flipping".
    """
    question, logarithms = judged(model, images, target)
    for name, value in (("region", region), ("steps", steps), ("draws", draws)):
        checks.count(name, value)
    warm = heat(maps, question.images)
    _, height, width = warm.shape
    across = -(-width // region)
    tiles = np.arange(height)[:, None] // region * across + np.arange(width) // region
    regions = int(tiles.max()) + 1
    steps = min(steps, regions)
    sums = np.stack([warm[:, tiles == tile].sum(1) for tile in range(regions)], 1)
    keys = jax.random.split(as_key(key), draws)
    noise = jax.vmap(lambda draw: jax.random.uniform(draw, question.shape, jnp.float32))(keys)
    scores, _ = changed(
        _Replaced(jnp.arange(steps + 1, dtype=jnp.int32), noise),
        question,
        draws * (steps + 1),
        own=_order(sums)[:, tiles],
        logarithms=logarithms,
        chunk=chunk,
        progress=progress,
    )
    mean = scores.reshape(-1, draws, steps + 1).mean(1)
    return Curve(np.arange(steps + 1) / regions, mean)


@struct.dataclass
class _Replaced:
    """The first stops[i mod k] places of an order replaced by draw ⌊i / k⌋ of (H, W, C) noise."""

    stops: Array
    noise: Array

    def __call__(self, number: Array, image: Array, own: Array) -> tuple[Array, tuple[()]]:
        draw, stop = number // len(self.stops), number % len(self.stops)
        return jnp.where((own < self.stops[stop])[..., None], self.noise[draw], image), ()


@struct.dataclass
class _Revealed:
    """The first places of an order taken from another image; `stops` are how many."""

    stops: Array

    def __call__(
        self, number: Array, image: Array, own: tuple[Array, Array, Array]
    ) -> tuple[Array, tuple[()]]:
        ranks, before, after = own
        return jnp.where((ranks < self.stops[number])[..., None], after, before), ()


def _order(values: np.ndarray) -> np.ndarray:
    """(n, k) the rank of each value, 0 for the highest; equal values from left to right."""
    return np.argsort(np.argsort(-values, axis=1, kind="stable"), axis=1).astype(np.int32)


def _revealed(
    question: Question,
    maps: ArrayLike,
    before: np.ndarray,
    after: np.ndarray,
    pixels: int | None,
    **options: Any,
) -> Curve:
    """From `before` to `after`: deletion goes from the image, insertion to it."""
    warm = heat(maps, question.images)
    count, height, width = warm.shape
    step = width if pixels is None else checks.count("pixels", pixels)
    ranks = _order(warm.reshape(count, -1)).reshape(warm.shape)
    stops = np.append(np.arange(0, height * width, step), height * width)
    # Filled up, so that other numbers of steps share the program.
    filled = np.pad(stops, (0, max(0, height * width + 1 - len(stops))), "edge")
    change, own = _Revealed(on_device(filled, jnp.int32)), (ranks, before, after)
    scores, _ = changed(change, question, len(stops), own=own, **options)
    return Curve(stops / (height * width), scores)
