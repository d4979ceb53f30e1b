"""Small functions over the one tap: record, replace, and rules for the ReLU's gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import jax
import jax.numpy as jnp

from rvis import checks, gate
from rvis.types import LOGITS, Array, ArrayLike, Model, Relu, layer_shapes


def activations(
    model: Model, images: Array, layers: Iterable[str], *, relu: Relu = jax.nn.relu
) -> dict[str, Array]:
    """The activations of `layers` in traced code, unchecked; the network is left at the last."""
    wanted = frozenset(layers)
    found: dict[str, Array] = {}

    def tap(name: str, activation: Array) -> Array:
        if name in wanted:
            found[name] = activation
            if len(found) == len(wanted):
                raise _Complete
        return activation

    try:
        out = model.apply(model.params, images, tap=tap, relu=relu)
    except _Complete:
        return found
    if LOGITS in wanted:
        found[LOGITS] = out
    return found


class _Complete(Exception):
    """Everything asked for was seen."""


@partial(jax.jit, static_argnames="layers")
def _record(model: Model, images: Array, layers: tuple[str, ...]) -> dict[str, Array]:
    return activations(model, images, layers)


@gate.public
def record(model: Model, images: ArrayLike, layers: str | Iterable[str]) -> dict[str, Array]:
    """The activations of some layers for a batch of images.

    Args:
      model: any model.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      layers: one name of `model.layers` (or "logits"), or several.

    Returns:
      {layer: (n, h, w, c)}, or (n, c) for a dense layer.

    Raises:
      TypeError, ValueError: naming the argument, such as a misspelt layer (with the nearest names).

    Example:
      >>> import jax.numpy as jnp, rvis
      >>> model = rvis.load("mnist_cnn")
      >>> rvis.record(model, jnp.zeros((2, 28, 28, 1)), "conv1")["conv1"].shape
      (2, 28, 28, 32)
    """
    names = (layers,) if isinstance(layers, str) else tuple(layers)
    for name in names:
        checks.choice("layers", name, (*model.layers, LOGITS))
    batch = checks.images("images", images, channels=model.input_shape[2])
    _, height, width, channels = batch.shape
    reached = layer_shapes(model, (height, width, channels))
    for name in names:
        if name not in reached:
            raise ValueError(
                f"images: {model.name} reaches {name!r} only from images of {model.input_shape}, "
                f"given {(height, width, channels)}"
            )
    return _record(model.unnamed(), batch, names)


def replacing(values: Mapping[str, Array]) -> Callable[[str, Array], Array]:
    """A tap that puts `values[layer]` in the place of that layer's activation.

    Example:
      >>> import jax.numpy as jnp, rvis
      >>> model = rvis.load("mnist_cnn")
      >>> tap = rvis.models.taps.replacing({"fc1": jnp.zeros((1, 256))})
      >>> model.apply(model.params, jnp.ones((1, 28, 28, 1)), tap=tap).shape
      (1, 10)
    """

    def tap(name: str, activation: Array) -> Array:
        if name not in values:
            return activation
        return jnp.broadcast_to(values[name], activation.shape).astype(activation.dtype)

    return tap


@jax.custom_vjp
def guided_relu(x: Array) -> Array:
    """ReLU whose gradient passes where both input and gradient are positive (Springenberg 2014)."""
    return jax.nn.relu(x)


guided_relu.defvjp(
    lambda x: (jax.nn.relu(x), x),
    lambda x, g: (jnp.where((x > 0) & (g > 0), g, 0).astype(g.dtype),),
)


@jax.custom_vjp
def deconvnet_relu(x: Array) -> Array:
    """ReLU whose gradient is itself rectified, whatever the input was (Zeiler & Fergus 2013)."""
    return jax.nn.relu(x)


deconvnet_relu.defvjp(lambda x: (jax.nn.relu(x), None), lambda _, g: (jax.nn.relu(g),))


@jax.custom_vjp
def redirecting_relu(x: Array, redirect: Array) -> Array:
    """ReLU through which an ascending gradient can wake units that are off.

    Where no gradient at all would pass for an example, the part that pushes an inactive unit up is
    let through (tensorflow/lucid, `redirected_relu_grad`).

    `redirect` is a scalar: where it is false, this is the plain ReLU.
    """
    del redirect
    return jax.nn.relu(x)


def _redirecting_backward(residual: tuple[Array, Array], g: Array) -> tuple[Array, None]:
    x, redirect = residual
    plain = jnp.where(x > 0, g, 0)
    blocked = jnp.all(plain == 0, axis=tuple(range(1, g.ndim)), keepdims=True)
    redirected = jnp.where((x > 0) | (g > 0), g, 0)
    return jnp.where(blocked & redirect, redirected, plain).astype(g.dtype), None


redirecting_relu.defvjp(
    lambda x, redirect: (jax.nn.relu(x), (x, redirect)),
    _redirecting_backward,
)
