"""Whether a map says what the score does, and whether it is stable."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks
from rvis.metrics.judge import Attribute, Judge, explained, spread
from rvis.types import Array, ArrayLike, KeyLike, Model, as_key


def infidelity(
    model: Model,
    images: ArrayLike,
    maps: ArrayLike,
    target: Any,
    *,
    noise: float | None = 0.1,
    square: int | None = None,
    scaled: bool = False,
    samples: int = 1000,
    key: KeyLike = 0,
    progress: bool = True,
) -> np.ndarray:
    """E[(Σ I ⊙ map − (f(x) − f(x − I)))²] over perturbations I of the image; low is good.

    Zero for the gradient of a linear function.

    Args:
      model: any model.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      maps: (n, H, W, C); or (n, H, W), of which every channel takes an equal part.
      target: f: a class number (its logit), one for each image, or an objective.
      noise: I is normal with this standard deviation.
      square: I is the image itself inside a square of this side at a random place, which is thereby
        blackened; `noise` must be None then.
      scaled: multiplies each map by the number that suits it best, so that only its form counts.
      samples: perturbations; the same serve every image.
      key: an int seed or a typed key.
      progress: a bar on a terminal.

    Returns:
      (n,).

    Raises:
      TypeError, ValueError: naming the argument, before anything is compiled.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import metrics
      >>> model = rvis.load("mnist_cnn")
      >>> digit = np.ones((1, 28, 28, 1), np.float32)
      >>> metrics.infidelity(model, digit, 0 * digit, 3, samples=8).shape
      (1,)

    Reference: Yeh et al. 2019, On the (In)fidelity and Sensitivity of Explanations, definition 2.1;
      squares, section 2.3; the scale, appendix (captum's `normalize`).
    """
    judge = Judge(model, images, target, probability=False, progress=progress)
    checks.count("samples", samples)
    shares = spread(maps, judge.images)
    count, height, width, _ = judge.images.shape
    if (noise is None) == (square is None):
        raise ValueError(f"noise: one of noise and square was expected, given {noise}, {square}")
    start = as_key(key)
    if square is None:
        size = checks.number("noise", noise, above=0)
        shape = judge.images.shape[1:]
    else:
        side = checks.count("square", square)
        if side > min(height, width):
            raise ValueError(f"square: at most {min(height, width)} was expected, given {square}")
        room = jnp.array([height - side, width - side]) + 1
        corners = np.asarray(jax.random.randint(start, (samples, 2), 0, room))
    clean = judge.grid(lambda row, _: judge.images[row], 1)
    expected = np.empty((count, samples))

    def perturbation(row: int, sample: int) -> np.ndarray:
        if square is None:
            return size * np.asarray(_normal(start, sample, shape))
        top, left = corners[sample]
        box = np.zeros_like(judge.images[row])
        here = np.s_[top : top + side, left : left + side]
        box[here] = judge.images[row][here]
        return box

    def changed(row: int, sample: int) -> np.ndarray:
        away = perturbation(row, sample)
        expected[row, sample] = np.sum(away * shares[row], dtype=np.float64)
        return judge.images[row] - away

    seen = clean - judge.grid(changed, samples)
    if scaled:
        below = np.square(expected).mean(1, keepdims=True)
        above = (expected * seen).mean(1, keepdims=True)
        expected *= np.where(below > 0, above / np.where(below > 0, below, 1), 0)
    return np.square(expected - seen).mean(1)


@partial(jax.jit, static_argnames="shape")
def _normal(key: Array, number: int, shape: tuple[int, ...]) -> Array:
    return jax.random.normal(jax.random.fold_in(key, number), shape)


def max_sensitivity(
    model: Model,
    attribute: Attribute,
    images: ArrayLike,
    target: Any,
    *,
    radius: float = 0.02,
    samples: int = 10,
    key: KeyLike = 0,
) -> np.ndarray:
    """max ‖Φ(x + r) − Φ(x)‖ / ‖Φ(x)‖ over random r in a box of half-side `radius`; low is good.

    Args:
      model: any model.
      attribute: Φ, called as `attribute(model, images, target)`.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1]; so are the changed ones, clipped.
      target: handed on to `attribute`.
      radius: half the side of the box.
      samples: r are drawn, the same for every image.
      key: an int seed or a typed key.

    Returns:
      (n,); 0 where a map is zero and stays so.

    Raises:
      TypeError, ValueError: naming the argument, before anything is compiled.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import metrics
      >>> model = rvis.load("mnist_cnn")
      >>> digit = np.full((1, 28, 28, 1), 0.5, np.float32)
      >>> constant = lambda model, images, target: np.ones(images.shape)
      >>> metrics.max_sensitivity(model, constant, digit, 3, samples=2).item()
      0.0

    Reference: Yeh et al. 2019, On the (In)fidelity and Sensitivity of Explanations, definition 3.1
      and its Monte-Carlo estimate; divided by ‖Φ(x)‖, as captum's `sensitivity_max` does.
    """
    batch = np.asarray(checks.images("images", images, channels=model.input_shape[2]))
    size = checks.number("radius", radius, low=0)
    checks.count("samples", samples)
    plain = explained(attribute, model, batch, target)
    flat = tuple(range(1, plain.ndim))
    worst = np.zeros(len(batch))
    for draw in jax.random.split(as_key(key), samples):
        moved = batch + np.asarray(
            jax.random.uniform(draw, batch.shape[1:], minval=-size, maxval=size)
        )
        found = explained(attribute, model, np.clip(moved, 0, 1), target)
        worst = np.maximum(worst, np.sqrt(np.square(found - plain).sum(flat)))
    norm = np.sqrt(np.square(plain).sum(flat))
    return np.where(worst == 0, 0, worst / np.where(norm == 0, np.finfo(float).tiny, norm))
