"""The linear view of adversarial examples: many small changes add up to a large one."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rvis import checks, engine, gate
from rvis.analysis import ranking
from rvis.plotting import figures
from rvis.types import LOGITS, Array, ArrayLike, KeyLike, Model, as_key, check_classes, fold_each

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclasses.dataclass(frozen=True, eq=False)
class LinearShift:
    """What a change of every pixel by ±ε does to a logit, over the number of pixels changed.

    Attributes:
      dimensions: (m,) how many numbers of the image are changed: powers of two, and all.
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

    def plot(self, ax: Axes | None = None) -> Axes:
        """Root mean squares over the images against the numbers changed, on logarithmic axes.

        Args:
          ax: the axes to draw into; those of a new figure by default.
        """
        ax = figures.axes(ax)
        for name, values, style in (
            ("predicted: ε‖g‖₁", self.predicted, "o-"),
            ("gradient's signs", self.adversarial, "s-"),
            ("random signs", self.noise, "^-"),
        ):
            size = np.sqrt(np.square(values).mean(0))
            # What never moved has no place on a logarithmic axis.
            ax.plot(self.dimensions, np.where(size > 0, size, np.nan), style, ms=4, label=name)
        ax.set(
            xscale="log",
            yscale="log",
            xlabel=f"numbers of the image changed, each by {self.eps:.4g}",
            ylabel="change of the logit (root mean square)",
        )
        ax.legend()
        return ax


@gate.public
def linear_shift(
    model: Model,
    images: ArrayLike,
    target: Any,
    eps: float,
    *,
    key: KeyLike = 0,
) -> LinearShift:
    """How far a logit moves when each of n pixels changes by ε, as n grows.

    For a unit w·x the change by ε·sign(w) is ε‖w‖₁, which grows with the dimension; random signs
    move it by about √n only. Here w is the gradient at each image, and the pixels are a random
    nested choice. Results are not clipped to [0, 1].

    Args:
      model: any model.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      target: (n,) the classes whose logits are moved up, by number or name, or one for all.
      eps: the change of each pixel, in units of the [0, 1] image.
      key: an int seed or a typed key; image i uses `fold_in(key, i)`.

    Raises:
      TypeError, ValueError: naming the argument.

    Example:
      >>> import numpy as np, rvis
      >>> image = np.full((28, 28, 1), 0.5, np.float32)
      >>> found = rvis.analysis.manifold.linear_shift(rvis.load("mnist_cnn"), image, 3, 0.1)
      >>> bool((np.diff(found.predicted) > 0).all()), found.dimensions[-1].item()
      (True, 784)

    Reference: Goodfellow et al. 2015, Explaining and Harnessing Adversarial Examples, section 3.
    """
    batch = checks.images("images", images, channels=check_classes(model).input_shape[2])
    count = len(batch)
    logits = ranking.layer_shape(model, LOGITS, batch.shape[1:])[-1]
    classes = checks.classes("target", target, model.classes, count=logits)
    if classes.shape not in ((), (count,)):
        raise ValueError(f"target: one, or one for each of {count} images, was expected")
    step = checks.number("eps", eps, low=0)
    size = int(np.prod(batch.shape[1:]))
    sizes = np.array([*(2**i for i in range((size - 1).bit_length())), size], np.int32)
    root = as_key(key)
    keys = fold_each(root, np.arange(count))
    data = np.asarray(jax.random.key_data(keys))
    own = (np.asarray(batch), np.broadcast_to(classes, (count,)))
    shared = (np.broadcast_to(np.float32(step), count), np.broadcast_to(sizes, (count, len(sizes))))
    shift = _Shift(str(jax.random.key_impl(keys)))
    pixels = 2 * batch.shape[1] * batch.shape[2]
    predicted, adversarial, noise = engine.apply(shift, model, (data, *own, *shared), pixels=pixels)
    return LinearShift(sizes, predicted, adversarial, noise, step)


@dataclasses.dataclass(frozen=True)
class _Shift:
    """(sizes,) predicted, adversarial and random changes of one image's logit."""

    implementation: str

    def __call__(self, model: Model, problem: tuple[Array, ...]) -> tuple[Array, Array, Array]:
        data, image, unit, eps, sizes = problem
        key = jax.random.wrap_key_data(data, impl=self.implementation)
        order, signs = jax.random.split(key)
        numbers = jnp.arange(image.size, dtype=jnp.int32)
        rank = jax.random.permutation(order, numbers).reshape(image.shape)
        # JAX's own `rademacher` draws other signs where 64 bits are allowed.
        heads = jax.random.bernoulli(signs, jnp.float32(0.5), image.shape)
        random = 2 * heads.astype(jnp.float32) - 1

        def logit(image: Array) -> Array:
            return model.apply(model.params, image[None])[0, unit]

        base, slope = jax.value_and_grad(logit)(image)

        def at(size: Array) -> tuple[Array, Array, Array]:
            step = jnp.where(rank < size, eps, 0)
            moved, shaken = (logit(image + step * s) - base for s in (jnp.sign(slope), random))
            return (step * jnp.abs(slope)).sum(), moved, shaken

        # A dozen sizes of one image, all from one gradient.
        return lax.map(at, sizes)
