"""Lengths, and the nearest points within [0, 1] of a hyperplane and of an L1 ball."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from rvis.types import Array


def length(delta: Array, norm: str) -> Array:
    """‖δ‖ of one image, whatever its shape, a scalar."""
    if norm == "linf":
        return jnp.abs(delta).max()
    return jnp.abs(delta).sum() if norm == "l1" else jnp.sqrt(jnp.square(delta).sum())


def dual_length(slope: Array, norm: str) -> Array:
    """What a step of length one gains at most along a slope, a scalar."""
    return length(slope, {"linf": "l1", "l2": "l2", "l1": "linf"}[norm])


def surface(key: Array, shape: tuple[int, ...], norm: str) -> Array:
    """A random direction of length one."""
    if norm == "linf":
        draw = jax.random.uniform(key, shape, jnp.float32, -1, 1)
    else:
        draw = jax.random.normal(key, shape, jnp.float32)
    return draw / length(draw, norm)


def to_plane(image: Array, slope: Array, gain: Array, norm: str) -> Array:
    """The shortest δ with slope·δ = gain and image + δ in [0, 1].

    Where [0, 1] holds no such δ it is the one that gains the most.

    Args:
      image: of any shape, in [0, 1].
      slope: likewise.
      gain: a number, of either sign.
      norm: "linf", "l2" or "l1", in which δ is short.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis.attacks.geometry import to_plane
      >>> image, slope = jnp.array([0.5, 0.9]), jnp.array([1.0, 1.0])
      >>> [to_plane(image, slope, 0.4, norm).round(3).tolist() for norm in ("linf", "l1")]
      [[0.30000001192092896, 0.10000000149011612], [0.4000000059604645, 0.0]]

    Reference: Croce & Hein 2020, Minimally distorted adversarial examples with a fast adaptive
      boundary attack, equation 5 and appendix A.
    """
    way, size = jnp.sign(slope) * jnp.sign(gain), jnp.abs(slope)
    room = jnp.where(way > 0, 1 - image, jnp.where(way < 0, image, 0))
    amount = jnp.abs(gain)
    if norm == "linf":
        return way * jnp.minimum(_level(size, room, amount), room)
    if norm == "l2":
        ends = jnp.where(size > 0, room / jnp.where(size > 0, size, 1), 0)
        return way * jnp.minimum(_level(size * size, ends, amount) * size, room)
    # From the steepest down, each as far as it may go.
    order = jnp.argsort(size.ravel(), descending=True)
    gains = (size * room).ravel()[order]
    left = amount - (jnp.cumsum(gains) - gains)
    share = jnp.clip(left / jnp.where(gains > 0, gains, 1), 0, 1)
    return way * room * jnp.zeros_like(gains).at[order].set(share).reshape(room.shape)


def _level(rates: Array, ends: Array, amount: Array) -> Array:
    """The least λ with Σ rates·min(λ, ends) = amount, or one above all ends if there is none.

    The sum is concave, so that Newton's steps from 0 never go too far and end.
    """

    def lacking(level: Array) -> tuple[Array, Array]:
        lack = amount - (rates * jnp.minimum(level, ends)).sum()
        return lack, jnp.where(ends > level, rates, 0).sum()

    def unsolved(state: tuple[Array, Array, Array, Array]) -> Array:
        steps, _, lack, slope = state
        return (lack > 1e-6 * amount) & (slope > 0) & (steps < 64)

    def newton(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        steps, level, lack, slope = state
        level = level + lack / slope
        return steps + 1, level, *lacking(level)

    zero = jnp.zeros_like(amount)
    return lax.while_loop(unsolved, newton, (jnp.int32(0), zero, *lacking(zero)))[1]


def into_l1(image: Array, centre: Array, radius: Array, *, box: bool = True) -> Array:
    """The nearest point to `image` of those in [0, 1] with ‖x − centre‖₁ ≤ radius.

    Args:
      image: of any shape and any values.
      centre: likewise, in [0, 1].
      radius: a number of at least 0.
      box: whether points must lie in [0, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis.attacks.geometry import into_l1
      >>> into_l1(jnp.array([2.0, 0.75]), jnp.array([0.75, 0.5]), 0.375).round(3).tolist()
      [1.0, 0.625]

    Reference: Croce & Hein 2021, Mind the box: l1-APGD for sparse adversarial attacks on image
      classifiers, proposition 2.1. It halves an interval where they sort.
    """
    way, size = jnp.sign(image - centre), jnp.abs(image - centre)
    room = jnp.where(way > 0, 1 - centre, centre) if box else jnp.full_like(size, jnp.inf)

    def short(cut: Array) -> Array:
        return jnp.clip(size - cut, 0, room)

    def halve(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        cut = (low + high) / 2
        outside = short(cut).sum() > limit
        return jnp.where(outside, cut, low), jnp.where(outside, high, cut)

    # Less by what sums and places of float32 lose.
    limit = radius * (1 - 2e-6)
    zero = jnp.zeros_like(size.max())
    cut = lax.fori_loop(0, 32, halve, (zero, size.max()))[1]
    kept = short(jnp.where(short(zero).sum() > limit, cut, 0))
    moved = centre + way * kept
    moved = jnp.clip(moved, 0, 1) if box else moved
    return jnp.where(jnp.abs(moved - centre) > kept, jnp.nextafter(moved, centre), moved)


def into_ball(delta: Array, radius: Array, norm: str) -> Array:
    """The δ of a length of at most `radius` that is the nearest to the one given, in any box."""
    if norm == "linf":
        return jnp.clip(delta, -radius, radius)
    if norm == "l1":
        return into_l1(delta, jnp.zeros_like(delta), radius, box=False)
    return delta * jnp.minimum(radius / jnp.maximum(length(delta, "l2"), 1e-12), 1)
