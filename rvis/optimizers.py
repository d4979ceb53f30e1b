"""Optimizers of ascents: gradient maps that hash by value, with the learning rate as a leaf.

Each function raises TypeError or ValueError, naming the argument, for a rate below 0 or NaN.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from rvis import checks, gate, struct
from rvis.types import Array, ArrayLike, PyTree, on_device


def _scaled(factor: Callable[..., Array], **options: Any) -> optax.GradientTransformation:
    """Multiplies each image's gradient by `factor(gradient)`, (n,) for a group of n images."""

    def update(updates: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, Any]:
        del params
        factors = factor(updates, **options)

        def scale(leaf: Array) -> Array:
            return leaf * factors.reshape(-1, *(1,) * (leaf.ndim - 1))

        return jax.tree.map(scale, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _rows(updates: PyTree) -> list[Array]:
    """(n, m) absolute entries of each leaf, a row an image."""
    return [jnp.abs(leaf).reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(updates)]


def _squares(updates: PyTree) -> Array:
    leaves = jax.tree.leaves(updates)
    sums = [jnp.square(leaf).reshape(leaf.shape[0], -1).sum(1) for leaf in leaves]
    return jnp.stack(sums).sum(0)


def _l2(updates: PyTree) -> Array:
    """One over the L2 norm of each image: the steepest ascent under that norm."""
    rows, squares = _rows(updates), _squares(updates)
    # What a saturated network lets through, such as 1e-20, has no squares in float32.
    largest = jnp.stack([leaf.max(1) for leaf in rows]).max(0)
    unit = jnp.where(largest > 0, largest, 1)
    scaled = jax.lax.rsqrt(_squares([leaf / unit[:, None] for leaf in rows])) / unit
    plain = (squares > 1e-30) & (squares < 1e30)
    scaled = jnp.where(largest > 0, scaled, 0)
    return jnp.where(plain, jax.lax.rsqrt(jnp.where(plain, squares, 1)), scaled)


def _mean_abs(updates: PyTree) -> Array:
    """One over the mean absolute entry of each image."""
    rows = _rows(updates)
    mean = sum(leaf.sum(1) for leaf in rows) / sum(leaf.shape[1] for leaf in rows)
    return jnp.where(mean > 0, 1 / jnp.where(mean > 0, mean, 1), 0)


def _gain(updates: PyTree, most: float) -> Array:
    """One over the squared L2 norm of each image, and `most` at the most."""
    return jnp.minimum(1 / jnp.maximum(_squares(updates), 1e-37), most)


_FACTORIES: Mapping[str, Callable[..., optax.GradientTransformation]] = {
    "adam": optax.scale_by_adam,
    "nadam": partial(optax.scale_by_adam, nesterov=True),
    "momentum": optax.trace,
    "l2": partial(_scaled, _l2),
    "mean_abs": partial(_scaled, _mean_abs),
    "gain": partial(_scaled, _gain),
    "linf": optax.scale_by_sign,
}


@contextlib.contextmanager
def _optax_promotes() -> Iterator[None]:
    """optax raises its rates to integer counts of steps, whatever JAX is told to refuse."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@struct.dataclass
class Optimizer:
    """A chain of named gradient maps, then a step of `learning_rate` upwards.

    Attributes:
      learning_rate: a leaf: sweeping it does not retrace.
      maps: ((name, ((option, value), ...)), ...), structure that hashes by value.
    """

    learning_rate: Array
    maps: tuple[tuple[str, tuple[tuple[str, Any], ...]], ...] = struct.static(default=())

    def _chain(self) -> optax.GradientTransformation:
        maps = (_FACTORIES[name](**dict(options)) for name, options in self.maps)
        return optax.chain(optax.identity(), *maps)

    def init(self, position: PyTree) -> PyTree:
        """The state for a group's position, whose leaves lead with the group's axis."""
        return self._chain().init(position)

    def update(self, gradient: PyTree, state: PyTree, position: PyTree) -> tuple[PyTree, PyTree]:
        """The next position, uphill, and the next state."""
        with _optax_promotes():
            updates, state = self._chain().update(gradient, state, position)
        moved = jax.tree.map(lambda p, u: p + self.learning_rate * u, position, updates)
        return moved, state


@struct.dataclass
class Wrapped(Optimizer):
    """See `from_optax`."""

    factory: Callable[..., optax.GradientTransformation] = struct.static(kw_only=True)
    options: tuple[tuple[str, Any], ...] = struct.static(default=())

    def _chain(self) -> optax.GradientTransformation:
        return self.factory(self.learning_rate, **dict(self.options))

    def init(self, position: PyTree) -> PyTree:
        """The state for a group's position: one of the transformation's own an image."""
        return jax.vmap(self._chain().init)(position)

    def update(self, gradient: PyTree, state: PyTree, position: PyTree) -> tuple[PyTree, PyTree]:
        """The next position, uphill, and the next state."""
        # optax goes downhill.
        downhill = jax.tree.map(jnp.negative, gradient)
        with _optax_promotes():
            updates, state = jax.vmap(self._chain().update)(downhill, state, position)
        return optax.apply_updates(position, updates), state


def _rate(learning_rate: ArrayLike, argument: str = "learning_rate") -> Array:
    if not isinstance(learning_rate, jax.Array):  # a traced one has no value yet
        checks.number(argument, learning_rate, low=0)
    return on_device(learning_rate, jnp.float32)


@gate.public
def adam(learning_rate: ArrayLike = 0.05, *, b1: float = 0.9, b2: float = 0.999) -> Optimizer:
    """Adam (Kingma & Ba 2014), the optimizer of lucid's renders; 0 ≤ b1, b2 < 1.

    Example:
      >>> import rvis
      >>> hash(rvis.optimizers.adam(0.1).maps) == hash(rvis.optimizers.adam(0.2).maps)
      True
    """
    return Optimizer(_rate(learning_rate), (("adam", _decays(b1, b2)),))


def _decays(b1: float, b2: float) -> tuple[tuple[str, float], ...]:
    most = 1 - 2**-24
    return tuple((n, checks.number(n, b, low=0, high=most)) for n, b in (("b1", b1), ("b2", b2)))


@gate.public
def nadam(learning_rate: ArrayLike = 1.0, *, b1: float = 0.9, b2: float = 0.999) -> Optimizer:
    """Adam with Nesterov's momentum (Dozat 2016); the optimizer of MACO.

    Example:
      >>> import rvis
      >>> rvis.optimizers.nadam().learning_rate.item()
      1.0
    """
    return Optimizer(_rate(learning_rate), (("nadam", _decays(b1, b2)),))


def from_optax(
    factory: Callable[..., optax.GradientTransformation], learning_rate: ArrayLike, **options: Any
) -> Optimizer:
    """Any optimizer of optax, or a chain of your own, for each image by itself.

    The score is maximised: the transformation is given the gradient of its negative.

    Args:
      factory: `factory(learning_rate, **options)` gives the transformation, such as `optax.lion`,
        or a function of yours. Programs are shared by the function object: define it once.
      learning_rate: a leaf: sweeping it does not retrace.
      **options: of the factory; they must hash.

    Raises:
      TypeError: naming `factory`, if it makes no transformation of such arguments (an
        `optax.adam(.1)` is one already), or an option that does not hash.

    Example:
      >>> import optax, rvis
      >>> rvis.optimizers.from_optax(optax.lion, 0.01, b1=0.95).options
      (('b1', 0.95),)
    """
    rate = _rate(learning_rate)
    for name, value in options.items():
        try:
            hash(value)
        except TypeError as error:
            raise TypeError(f"{name}: what hashes was expected, given {value!r}") from error
    wrapped = Wrapped(rate, factory=factory, options=tuple(sorted(options.items())))
    if not callable(factory) or isinstance(factory, optax.GradientTransformation):
        raise TypeError(
            "factory: a function from the learning rate to an optax transformation, such as "
            f"optax.lion, was expected, given {factory!r}"
        )
    try:
        chain = wrapped._chain()
    except TypeError as error:
        raise TypeError(f"factory: {factory!r} refuses these arguments ({error})") from error
    if not isinstance(chain, optax.GradientTransformation):
        raise TypeError(f"factory: an optax transformation was expected of it, given {chain!r}")
    return wrapped


@gate.public
def sgd(learning_rate: ArrayLike, *, momentum: float = 0.0) -> Optimizer:
    """The gradient itself, with heavy-ball momentum if asked for.

    Example:
      >>> import rvis
      >>> rvis.optimizers.sgd(1.0).maps
      ()
    """
    decay = checks.number("momentum", momentum, low=0, high=1)
    maps = (("momentum", (("decay", decay),)),) if decay else ()
    return Optimizer(_rate(learning_rate), maps)


@gate.public
def gain(amount: ArrayLike = 2.0, *, most: float = 1e8) -> Optimizer:
    """Steps that would raise a linear objective by `amount`: amount·g/‖g‖₂², for each image.

    Args:
      amount: by how much a step raises the objective to first order, at least 0.
      most: the largest factor 1/‖g‖₂² allowed, for objectives that are nearly flat; in units of the
        [0, 1] image.

    Example:
      >>> import rvis
      >>> rvis.optimizers.gain(2.0, most=100.0).maps
      (('gain', (('most', 100.0),)),)

    Reference: Yosinski et al. 2015, deep-visualization-toolbox, `optimize_image.py`
      (`--lr-policy progress`).
    """
    return Optimizer(
        _rate(amount, "amount"), (("gain", (("most", checks.number("most", most, above=0)),)),)
    )


@gate.public
def steepest(learning_rate: ArrayLike, *, norm: str = "l2") -> Optimizer:
    """Steps of fixed length `learning_rate` in a norm: g/‖g‖₂ for "l2", sign(g) for "linf".

    "mean_abs" gives g/mean|g|, whose average pixel moves by `learning_rate` (google/deepdream).
    Lengths are in units of the [0, 1] image, each image of a group by itself.

    Example:
      >>> import rvis
      >>> rvis.optimizers.steepest(0.5, norm="l2").maps
      (('l2', ()),)

    Reference: Madry et al. 2017, eq. 2.3; Engstrom et al. 2019, MadryLab/robustness
      (`attack_steps`).
    """
    norms = ("l2", "linf", "mean_abs")
    return Optimizer(_rate(learning_rate), ((checks.choice("norm", norm, norms), ()),))
