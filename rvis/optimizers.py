"""Descriptions of optimizers: structure that hashes by value, with the learning rate as a leaf."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from rvis import checks
from rvis.types import Array, ArrayLike, PyTree


def _scale_by_l2() -> optax.GradientTransformation:
    """Divides by the L2 norm of each image: the steepest ascent under that norm."""

    def update(updates: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, Any]:
        del params

        def square(leaf: Array) -> Array:
            return jnp.square(leaf).reshape(leaf.shape[0], -1).sum(1)

        squares = sum(square(leaf) for leaf in jax.tree.leaves(updates))
        inverse = jnp.where(squares > 0, jax.lax.rsqrt(jnp.maximum(squares, 1e-37)), 0)

        def scale(leaf: Array) -> Array:
            return leaf * inverse.reshape(-1, *(1,) * (leaf.ndim - 1))

        return jax.tree.map(scale, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


_FACTORIES: Mapping[str, Callable[..., optax.GradientTransformation]] = {
    "adam": optax.scale_by_adam,
    "momentum": optax.trace,
    "l2": _scale_by_l2,
    "linf": optax.scale_by_sign,
}


@flax.struct.dataclass
class Optimizer:
    """A chain of named gradient maps, then a step of `learning_rate` upwards.

    Attributes:
      learning_rate: a leaf: sweeping it does not retrace.
      maps: ((name, ((option, value), ...)), ...), structure that hashes by value.
    """

    learning_rate: Array
    maps: tuple[tuple[str, tuple[tuple[str, Any], ...]], ...] = flax.struct.field(
        pytree_node=False, default=()
    )

    def _chain(self) -> optax.GradientTransformation:
        maps = (_FACTORIES[name](**dict(options)) for name, options in self.maps)
        return optax.chain(optax.identity(), *maps)

    def init(self, position: PyTree) -> PyTree:
        """The state for a group's position, whose leaves lead with the group's axis."""
        return self._chain().init(position)

    def update(self, gradient: PyTree, state: PyTree, position: PyTree) -> tuple[PyTree, PyTree]:
        """The next position, uphill, and the next state."""
        updates, state = self._chain().update(gradient, state, position)
        moved = jax.tree.map(lambda p, u: p + self.learning_rate * u, position, updates)
        return moved, state


def _rate(learning_rate: ArrayLike) -> Array:
    if not isinstance(learning_rate, jax.Array):  # a traced one has no value yet
        checks.number("learning_rate", learning_rate, low=0)
    return jnp.asarray(learning_rate, jnp.float32)


def adam(learning_rate: ArrayLike = 0.05, *, b1: float = 0.9, b2: float = 0.999) -> Optimizer:
    """Adam (Kingma & Ba 2014), the optimizer of lucid's renders.

    Raises:
      ValueError: naming `learning_rate`, below zero or NaN.

    Example:
      >>> import rvis
      >>> hash(rvis.optimizers.adam(0.1).maps) == hash(rvis.optimizers.adam(0.2).maps)
      True
    """
    return Optimizer(_rate(learning_rate), (("adam", (("b1", b1), ("b2", b2))),))


def sgd(learning_rate: ArrayLike, *, momentum: float = 0.0) -> Optimizer:
    """The gradient itself, with heavy-ball momentum if asked for.

    Example:
      >>> import rvis
      >>> rvis.optimizers.sgd(1.0).maps
      ()
    """
    maps = (("momentum", (("decay", momentum),)),) if momentum else ()
    return Optimizer(_rate(learning_rate), maps)


def steepest(learning_rate: ArrayLike, *, norm: str = "l2") -> Optimizer:
    """Steps of fixed length `learning_rate` in a norm: g/‖g‖₂ for "l2", sign(g) for "linf".

    Lengths are in units of the [0, 1] image, each image of a group by itself.

    Raises:
      ValueError: naming `norm`, for any other.

    Example:
      >>> import rvis
      >>> rvis.optimizers.steepest(0.5, norm="l2").maps
      (('l2', ()),)

    Reference: Madry et al. 2017, eq. 2.3; Engstrom et al. 2019, MadryLab/robustness
      (`attack_steps`).
    """
    checks.choice("norm", norm, ("l2", "linf"))
    return Optimizer(_rate(learning_rate), ((norm, ()),))
