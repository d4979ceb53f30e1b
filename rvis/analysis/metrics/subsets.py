"""Whether what a map says of some places is what the score does without them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks, gate, struct
from rvis.analysis.metrics.judge import changed, heat
from rvis.analysis.questions import ask, one_baseline
from rvis.types import Array, ArrayLike, KeyLike, Model, as_key, on_device


@struct.dataclass
class _Without:
    """Some random places hidden, sizes[i // draws] of them; tells the map's sum over them."""

    key: Array
    sizes: Array
    draws: Array

    def __call__(self, number: Array, image: Array, own: tuple) -> tuple[Array, Array]:
        warm, hidden = own
        rank = jax.random.permutation(jax.random.fold_in(self.key, number), warm.size)
        away = (rank < self.sizes[number // self.draws]).reshape(warm.shape)
        return jnp.where(away[..., None], hidden, image), jnp.where(away, warm, 0).sum()


@gate.public
def sensitivity_n(
    model: Model,
    images: ArrayLike,
    maps: ArrayLike,
    target: Any,
    *,
    sizes: Sequence[int],
    baseline: str | ArrayLike = 0.0,
    key: KeyLike = 0,
    samples: int = 100,
    chunk: int | None = None,
    progress: bool = True,
) -> np.ndarray:
    """The correlation of a map's sums over random places with the score's fall without them.

    Args:
      model: any model.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      maps: (n, H, W), or (n, H, W, C), summed over the channels.
      target: f: a class number (its logit), one for each image, or an objective.
      sizes: how many places are hidden together.
      baseline: what hides: a number in [0, 1], "mean" of each image's pixels, "blur" (a Gaussian
        with σ an eighth of the shorter side) or an image (H, W, C).
      key: an int seed or a typed key; the same places serve every image.
      samples: sets of places of each size.
      chunk: images on the device at once.
      progress: a bar on a terminal.

    Returns:
      (n, sizes) Pearson correlations, (sizes,) of one image; 0 where one of the two is constant.

    Raises:
      TypeError, ValueError: naming the argument, before anything is compiled.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis.analysis import metrics
      >>> model = rvis.load("mnist_cnn")
      >>> digit, order = np.ones((28, 28, 1), np.float32), np.ones((1, 28, 28))
      >>> metrics.sensitivity_n(model, digit, order, 3, sizes=[9, 99], samples=4).shape
      (2,)

    Reference: Ancona et al. 2018, Towards better understanding of gradient-based attribution
      methods, definition 1 and section 4.
    """
    question = ask(model, images, target, chunk=chunk)
    warm, places = heat(maps, question.images), question.pixels
    wanted = checks.integers("sizes", sizes, low=1, high=places + 1, what="the places")
    if wanted.ndim != 1 or not wanted.size:
        raise ValueError(f"sizes: a list of numbers was expected, given {sizes!r}")
    checks.count("samples", samples, low=2)
    change = _Without(as_key(key), on_device(wanted), on_device(samples, jnp.int32))
    own = (warm, one_baseline(baseline, question.images))
    count = len(wanted) * samples
    scores, sums = changed(change, question, count, own=own, chunk=chunk, progress=progress)
    falls = question.scores().astype(np.float64)[:, None] - scores
    first, second = (
        side.astype(np.float64).reshape(len(warm), len(wanted), samples) for side in (sums, falls)
    )
    return question.shaped(_pearson(first, second))


@gate.public
def faithfulness_correlation(
    model: Model,
    images: ArrayLike,
    maps: ArrayLike,
    target: Any,
    *,
    size: int | None = None,
    baseline: str | ArrayLike = 0.0,
    key: KeyLike = 0,
    samples: int = 100,
    chunk: int | None = None,
    progress: bool = True,
) -> np.ndarray:
    """`sensitivity_n` of one size, by default a fifth of the places.

    All else as `sensitivity_n`.

    Returns:
      (n,), or a number for one image.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis.analysis import metrics
      >>> model = rvis.load("mnist_cnn")
      >>> digit, order = np.ones((1, 28, 28, 1), np.float32), np.ones((1, 28, 28))
      >>> metrics.faithfulness_correlation(model, digit, order, 3, samples=4).shape
      (1,)

    Reference: Bhatt et al. 2020, Evaluating and Aggregating Feature-based Model Explanations,
      definition 2.
    """
    places = int(np.prod(np.shape(images)[-3:-1]))
    some = max(1, places // 5) if size is None else checks.count("size", size)
    run: dict[str, Any] = {"baseline": baseline, "key": key, "samples": samples}
    run |= {"chunk": chunk, "progress": progress}
    return sensitivity_n(model, images, maps, target, sizes=[some], **run)[..., 0]


@struct.dataclass
class _Shown:
    """The first places of an order, on a baseline."""

    step: Array

    def __call__(self, number: Array, image: Array, own: tuple) -> tuple[Array, tuple[()]]:
        ranks, hidden = own
        return jnp.where((ranks < number * self.step)[..., None], image, hidden), ()


@gate.public
def monotonicity(
    model: Model,
    images: ArrayLike,
    maps: ArrayLike,
    target: Any,
    *,
    baseline: str | ArrayLike = 0.0,
    pixels: int | None = None,
    chunk: int | None = None,
    progress: bool = True,
) -> np.ndarray:
    """The share of steps at which the score does not fall while places are shown, the least first.

    1 where it never falls, which is Arya et al.'s criterion. Places count by the map's sizes.

    Args:
      pixels: places a step; the image's width by default.

    All else as `sensitivity_n`.

    Returns:
      (n,), or a number for one image.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis.analysis import metrics
      >>> model = rvis.load("mnist_cnn")
      >>> digit, order = np.ones((1, 28, 28, 1), np.float32), np.ones((1, 28, 28))
      >>> metrics.monotonicity(model, digit, order, 3, pixels=392).shape
      (1,)

    Reference: Arya et al. 2019, One Explanation Does Not Fit All, section 5 ("monotonicity").
    """
    question = ask(model, images, target, chunk=chunk)
    size = np.abs(heat(maps, question.images))
    count, _, width = size.shape
    step = width if pixels is None else checks.count("pixels", pixels)
    order = np.argsort(size.reshape(count, -1), 1, kind="stable")
    ranks = np.argsort(order, 1).reshape(size.shape).astype(np.int32)
    own = (ranks, one_baseline(baseline, question.images))
    steps = -(-question.pixels // step)
    change = _Shown(on_device(step, jnp.int32))
    scores, _ = changed(change, question, steps + 1, own=own, chunk=chunk, progress=progress)
    return question.shaped((np.diff(scores, axis=1) >= 0).mean(1))


def _pearson(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    a, b = (side - side.mean(-1, keepdims=True) for side in (first, second))
    size = np.sqrt(np.square(a).sum(-1) * np.square(b).sum(-1))
    return np.where(size > 0, (a * b).sum(-1) / np.where(size > 0, size, 1), 0)
