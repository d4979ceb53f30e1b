"""Max-pooling whose gradient is that of average pooling, for pictures without its chessboards."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax

from rvis import struct
from rvis.kernels.pooling import max_pool, unpadded_avg_pool
from rvis.kernels.windows import Pads
from rvis.types import Array, Model, check_model


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _pool(x: Array, window: int, stride: int, padding: int | str | Pads, ceil: bool) -> Array:
    return max_pool(x, window, stride, padding=padding, ceil=ceil)


def _forward(x, window, stride, padding, ceil):
    return _pool(x, window, stride, padding, ceil), x


def _backward(window, stride, padding, ceil, x, g):
    average = partial(unpadded_avg_pool, window=window, stride=stride, padding=padding, ceil=ceil)
    return jax.vjp(average, x)[1](g)


_pool.defvjp(_forward, _backward)


def smoothed_max_pool(
    x: Array, window: int, stride: int, *, padding: int | str | Pads = 0, ceil: bool = False
) -> Array:
    """As `rvis.kernels.pooling.max_pool`, but that all k cells of a window get g / k as gradient.

    A maximum sends its window's gradient g to one cell alone; windows side by side then leave
    chessboards in what is optimized through them. Padding is no part of a window.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from rvis.models.pools import smoothed_max_pool
      >>> x = jnp.array([[1., 3.], [2., 4.]])[None, :, :, None]
      >>> value, slope = jax.value_and_grad(lambda x: smoothed_max_pool(x, 2, 2).sum())(x)
      >>> float(value), slope[0, :, :, 0].tolist()
      (4.0, [[0.25, 0.25], [0.25, 0.25]])

    Reference: tensorflow/lucid, `optvis/overrides/smoothed_maxpool_grad.py`
      (`avg_smoothed_maxpool_grad`, its default).
    """
    return _pool(x, window, stride, padding, ceil)


def smooth_pools(model: Model) -> Model:
    """The same model, through whose max-pooling gradients go back as through averages.

    It is meant for `rvis.visualize` and the like; attribution and attacks ask for the gradient
    itself.

    Args:
      model: a reference architecture, or `from_linen` of a module whose `__call__` takes a keyword
        `pool` and pools by it.

    Raises:
      TypeError, ValueError: naming `model`, where it pools by itself or no longer by maxima.

    Example:
      >>> import rvis
      >>> from rvis.models.pools import smooth_pools
      >>> model = smooth_pools(rvis.load("mnist_cnn"))
      >>> rvis.visualize(model, rvis.objectives.logit(3), steps=2).images.shape
      (28, 28, 1)
    """
    if not getattr(check_model(model).apply, "takes_pool", False):
        raise ValueError(
            f"model: {model.name} pools by itself, so that no gradient can be put in; one whose "
            "module's __call__ has a keyword `pool`, and uses it, was expected"
        )
    if model.apply.pool is unpadded_avg_pool:  # type: ignore[attr-defined]
        raise ValueError(f"model: maxima were expected, but {model.name} takes averages")
    apply = dataclasses.replace(model.apply, pool=smoothed_max_pool)  # type: ignore[type-var, call-arg]
    return struct.replace(model, apply=apply)
