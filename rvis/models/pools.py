"""Max-pooling whose gradient is that of a smooth pooling, for pictures without its chessboards."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp

from rvis import checks
from rvis.models.layers import Pads, average_instead, max_pool
from rvis.types import Array, Model


@dataclasses.dataclass(frozen=True)
class SmoothedMaxPool:
    """Max-pooling, back through which the gradient g goes as through a smooth pooling s.

    A maximum sends its window's gradient to one cell alone; windows side by side then leave
    chessboards in what is optimized through them. Here all cells of a window share:

        average:  s = mean(x)                       so that each of k cells gets g / k
        l2:       s = mean(x²) / (0.01 + mean(|x|)) so that larger activations get more, and a
                  window of zeros, as behind ReLUs that are off, nothing at all

    where the padding is no part of a window. The pooling itself is the maximum.

    Attributes:
      kind: "average" or "l2".

    Raises:
      ValueError: naming `kind`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from rvis.models.pools import SmoothedMaxPool
      >>> x = jnp.array([[1., 3.], [2., 4.]])[None, :, :, None]
      >>> value, slope = jax.value_and_grad(lambda x: SmoothedMaxPool()(x, 2, 2).sum())(x)
      >>> float(value), slope[0, :, :, 0].tolist()
      (4.0, [[0.25, 0.25], [0.25, 0.25]])

    Reference: tensorflow/lucid, `optvis/overrides/smoothed_maxpool_grad.py`
      (`avg_smoothed_maxpool_grad`, its default, and `l2_smoothed_maxpool_grad`).
    """

    kind: str = "average"

    def __post_init__(self) -> None:
        checks.choice("kind", self.kind, ("average", "l2"))

    def __call__(
        self,
        x: Array,
        window: int,
        stride: int,
        *,
        padding: int | str | Pads = 0,
        ceil: bool = False,
    ) -> Array:
        """As `rvis.models.layers.max_pool`."""
        return _pool(x, window, stride, padding, ceil, self.kind)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4, 5))
def _pool(
    x: Array, window: int, stride: int, padding: int | str | Pads, ceil: bool, kind: str
) -> Array:
    return max_pool(x, window, stride, padding=padding, ceil=ceil)


def _forward(x, window, stride, padding, ceil, kind):
    return _pool(x, window, stride, padding, ceil, kind), x


def _backward(window, stride, padding, ceil, kind, x, g):
    def smooth(x: Array) -> Array:
        def mean(values: Array) -> Array:
            return average_instead(values, window, stride, padding=padding, ceil=ceil)

        return mean(x) if kind == "average" else mean(x**2) / (0.01 + mean(jnp.abs(x)))

    return jax.vjp(smooth, x)[1](g)


_pool.defvjp(_forward, _backward)


def smooth_pools(model: Model, kind: str = "average") -> Model:
    """The same model, the gradient of whose max-pooling is smoothed (see `SmoothedMaxPool`).

    Its outputs are the model's own, and so are its weights. It is meant for `rvis.visualize`,
    `rvis.sweep` and the like. What asks for the gradient itself, such as attribution, attacks and
    the switches of `rvis.deconv`, would have the smoothed one of it: give those the plain model.

    Args:
      model: a reference architecture, or `from_linen` of a module whose `__call__` takes a keyword
        `pool` and pools by it. One without max-pooling stays as it is.
      kind: "average" or "l2".

    Raises:
      ValueError: naming `kind`, or `model`, where it pools by itself or no longer by maxima.

    Example:
      >>> import rvis
      >>> from rvis.models.pools import smooth_pools
      >>> model = smooth_pools(rvis.load("mnist_cnn"))
      >>> rvis.visualize(model, rvis.objectives.logit(3), steps=2).images.shape
      (28, 28, 1)
    """
    if not getattr(model.apply, "takes_pool", False):
        raise ValueError(
            f"model: {model.name} pools by itself, so that no gradient can be put in; one whose "
            "module's __call__ has a keyword `pool`, and uses it, was expected"
        )
    if model.apply.pool is average_instead:  # type: ignore[attr-defined]
        raise ValueError(f"model: maxima were expected, but {model.name} takes averages")
    apply = dataclasses.replace(model.apply, pool=SmoothedMaxPool(kind))  # type: ignore[type-var, call-arg]
    return model.replace(apply=apply)  # type: ignore[attr-defined]
