"""The linear view of adversarial examples: many small changes add up to a large one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
from jax import lax

from rvis import charts, checks
from rvis.types import LOGITS, Array, ArrayLike, KeyLike, Model, as_key, fold_each, layer_shapes


@dataclasses.dataclass(frozen=True, eq=False)
class LinearShift:
    """What a change of every pixel by ±ε does to a logit, over the number of pixels changed.

    Attributes:
      dimensions: (m,) how many numbers of the image are changed.
      predicted: (n, m) ε‖g‖₁ over those, g the logit's gradient at the image.
      adversarial: (n, m) the logit's measured change for the signs of g.
      noise: (n, m) that for random signs.
      eps: the change of each number.
    """

    dimensions: np.ndarray
    predicted: np.ndarray
    adversarial: np.ndarray
    noise: np.ndarray
    eps: float

    def show(self) -> PIL.Image.Image:
        """Root mean squares over images, on logarithmic axes."""
        curves = {
            "predicted": self.predicted,
            "adversarial": self.adversarial,
            "noise": self.noise,
        }
        # What never moved has no place on a logarithmic axis.
        lines = {
            name: (self.dimensions, np.maximum(np.sqrt(np.square(y).mean(0)), 1e-12))
            for name, y in curves.items()
        }
        return charts.chart(
            lines,
            lines,
            xlabel="numbers changed",
            ylabel="change of the logit",
            title=f"every one by {self.eps:g}",
            xlog=True,
            ylog=True,
        )


def linear_shift(
    model: Model,
    images: ArrayLike,
    target: ArrayLike,
    eps: float,
    *,
    dimensions: Sequence[int] | None = None,
    key: KeyLike = 0,
) -> LinearShift:
    """How far a logit moves when each of n pixels changes by ε, as n grows.

    For a unit w·x the change by ε·sign(w) is ε‖w‖₁: it grows with the dimension, while the change
    of each pixel stays, and random signs move it by about √n only. Here w is the gradient at each
    image, and the pixels are a random nested choice. Results are not clipped to [0, 1], so that a
    linear model meets the prediction exactly.

    Args:
      model: any model.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      target: (n,) the classes whose logits are moved up, or one for all.
      eps: the change of each pixel, in units of the [0, 1] image.
      dimensions: how many pixels (channels counted) to change; by default powers of two up to all.
      key: an int seed or a typed key; image i uses `fold_in(key, i)`.

    Returns:
      A `LinearShift`.

    Raises:
      TypeError, ValueError: naming the argument.

    Example:
      >>> import numpy as np, rvis
      >>> image = np.full((28, 28, 1), 0.5, np.float32)
      >>> found = rvis.manifold.linear_shift(rvis.load("mnist_cnn"), image, 3, 0.1)
      >>> bool((np.diff(found.predicted) > 0).all()), found.dimensions[-1].item()
      (True, 784)

    Reference: Goodfellow et al. 2015, Explaining and Harnessing Adversarial Examples, section 3.
    """
    batch = checks.images("images", images, channels=model.input_shape[2])
    count = len(batch)
    top = layer_shapes(model, batch.shape[1:])  # type: ignore[arg-type]
    if LOGITS not in top:
        raise ValueError(
            f"images: {model.name} takes images of {model.input_shape}, given {batch.shape[1:]}"
        )
    classes = checks.integers("target", target, high=top[LOGITS][-1], what="the logits")
    if classes.shape not in ((), (count,)):
        raise ValueError(f"target: one, or one for each of {count} images, was expected")
    step = checks.number("eps", eps, low=0)
    size = int(np.prod(batch.shape[1:]))
    if dimensions is None:
        dimensions = [*(2**i for i in range(int(np.log2(size)) + 1) if 2**i < size), size]
    sizes = checks.integers("dimensions", dimensions, low=1, high=size + 1, what="numbers")
    if sizes.ndim != 1 or not sizes.size:
        raise ValueError(f"dimensions: a list of numbers was expected, given {dimensions}")
    root = as_key(key)
    keys = fold_each(root, np.arange(count))
    told = _shifts(
        model.unnamed(),
        keys,
        batch,
        jnp.broadcast_to(classes, (count,)),
        jnp.float32(step),
        jnp.asarray(sizes),
    )
    predicted, adversarial, noise = (np.asarray(leaf) for leaf in told)
    return LinearShift(sizes, predicted, adversarial, noise, step)


@jax.jit
def _shifts(
    model: Model, keys: Array, images: Array, classes: Array, eps: Array, sizes: Array
) -> tuple[Array, Array, Array]:
    def one(row: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        key, image, unit = row
        order, signs = jax.random.split(key)
        rank = jax.random.permutation(order, image.size).reshape(image.shape)
        random = jax.random.rademacher(signs, image.shape, jnp.float32)

        def logit(image: Array) -> Array:
            return model.apply(model.params, image[None])[0, unit]

        base, slope = jax.value_and_grad(logit)(image)

        def at(size: Array) -> tuple[Array, Array, Array]:
            step = jnp.where(rank < size, eps, 0)
            moved, shaken = (logit(image + step * s) - base for s in (jnp.sign(slope), random))
            return (step * jnp.abs(slope)).sum(), moved, shaken

        return lax.map(at, sizes)

    return lax.map(one, (keys, images, classes))
