"""The words every room shares: a model is a pytree, a result is arrays with what made them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks

Array = jax.Array
ArrayLike = jax.typing.ArrayLike
PyTree = Any
Units = ArrayLike | Sequence[int]
"""One unit number, or many."""
KeyLike = jax.Array | int
"""A typed PRNG key (`jax.random.key(0)`) or an int seed."""

Tap = Callable[[str, Array], Array]
"""`tap(layer_name, activation) -> activation`, called at every named layer of a model."""

Relu = Callable[[Array], Array]


def identity(name: str, activation: Array) -> Array:
    """The tap that changes nothing."""
    del name
    return activation


class Apply(Protocol):
    """What a model's `apply` must do; it must hash by value so that equal models share programs."""

    def __call__(
        self, params: PyTree, images: Array, *, tap: Tap = identity, relu: Relu = jax.nn.relu
    ) -> Array:
        """Logits (n, classes) of `images` (n, H, W, C) in [0, 1]."""


@flax.struct.dataclass
class Model:
    """A vision network as a pytree: its weights are leaves, everything else is structure.

    It passes through `jax.jit` as an argument, so weights are never baked into a program, and two
    models of one architecture share their compiled programs.

    Attributes:
      params: the weights, any pytree.
      apply: `apply(params, images, *, tap, relu) -> logits`; images are (n, H, W, C) float32 in
        [0, 1] and are normalised inside. It must hash by value (a module-level function, or a
        frozen dataclass with `__call__`).
      layers: the names that `tap` is called with, in order of execution.
      input_shape: (H, W, C) that the network was trained at.
      classes: one name a logit; empty where unknown.
      name: what to call it in titles and messages.

    Example:
      >>> import jax, jax.numpy as jnp, rvis
      >>> def apply(params, images, *, tap=lambda name, x: x, relu=jax.nn.relu):
      ...     hidden = tap("hidden", relu(images.mean((1, 2)) @ params["hidden"]))
      ...     return hidden @ params["out"]
      >>> params = {"hidden": jnp.eye(3, 4), "out": jnp.ones((4, 2))}
      >>> model = rvis.Model(params, apply, layers=("hidden",), input_shape=(8, 8, 3))
      >>> model(jnp.ones((5, 8, 8, 3))).shape
      (5, 2)
    """

    params: PyTree
    apply: Apply = flax.struct.field(pytree_node=False)
    layers: tuple[str, ...] = flax.struct.field(pytree_node=False)
    input_shape: tuple[int, int, int] = flax.struct.field(pytree_node=False)
    classes: tuple[str, ...] = flax.struct.field(pytree_node=False, default=())
    name: str = flax.struct.field(pytree_node=False, default="model")

    def __call__(self, images: ArrayLike) -> Array:
        """Logits (n, classes) of a batch of images.

        Args:
          images: (n, H, W, C) or (H, W, C), float32 in [0, 1], RGB or grey as the model takes it.

        Raises:
          ValueError: naming `images`, when rank, channels, dtype or range are not those above.
        """
        batch = checks.images("images", images, channels=self.input_shape[2])
        return logits(self, batch)


@jax.jit
def logits(model: Model, images: Array) -> Array:
    """`model.apply` compiled once for each architecture and batch shape; inputs are not checked."""
    return model.apply(model.params, images)


LOGITS = "logits"
"""The name under which every model's output can be asked for, beside its own layers."""


def layer_shapes(model: Model, shape: tuple[int, int, int] | None = None) -> dict[str, tuple]:
    """The shape of every layer's activation for one image, without running the model.

    Args:
      model: any model.
      shape: (H, W, C) of the image; the model's own by default.

    Returns:
      {layer: shape without the batch axis}, "logits" included.
    """
    found: dict[str, tuple] = {}

    def tap(name: str, activation: Array) -> Array:
        found[name] = activation.shape[1:]
        return activation

    def forward(params: PyTree, images: Array) -> Array:
        return model.apply(params, images, tap=tap)

    images = jax.ShapeDtypeStruct((1, *(shape or model.input_shape)), jnp.float32)
    try:
        out = jax.eval_shape(forward, model.params, images)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise ValueError(
            f"size: {model.name} cannot take an image of shape {tuple(images.shape[1:])}; its own "
            f"is {model.input_shape} ({error})"
        ) from error
    found[LOGITS] = out.shape[1:]
    return found


def as_key(key: KeyLike) -> Array:
    """A typed PRNG key from a typed key or an int seed.

    Raises:
      TypeError: naming `key`, for anything else (old raw uint32 keys included).
    """
    if isinstance(key, (int, np.integer)) and not isinstance(key, bool):
        return jax.random.key(int(key))
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        if key.shape == ():
            return key
        raise TypeError(f"key: one typed key was expected, given an array of shape {key.shape}")
    raise TypeError(
        f"key: an int seed or a typed key such as jax.random.key(0) was expected, given {key!r}"
    )
