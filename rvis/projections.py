"""Constraints: where a position may be, how it gets back there, and where in there it may start.

Every ball has a `centre` (..., H, W, C) in [0, 1], over whose last three axes the norm is, and a
`radius` of at least 0 in units of the [0, 1] image: one number, or one for each image of the
leading axes (n,); inf leaves only the box. Python and NumPy numbers that are NaN, below 0 or in the
wrong order raise a ValueError that names them; JAX arrays are taken as they are, so that a
constraint crosses `jit` without waiting for its values.
"""

from __future__ import annotations

import abc
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks, struct
from rvis.types import Array, ArrayLike, KeyLike, as_key


class Projection(Protocol):
    """A pytree whose numbers are leaves, so that sweeping a radius never retraces."""

    def project(self, x: Array) -> Array:
        """A point of the set near `x`, for one image (H, W, C) or several (..., H, W, C)."""


@struct.dataclass
class Box:
    """low ≤ x ≤ high for every pixel.

    Attributes:
      low: a number, or an array that broadcasts against the images.
      high: likewise, nowhere below `low`.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import projections
      >>> projections.Box().project(jnp.array([-0.5, 0.25, 1.5])).tolist()
      [0.0, 0.25, 1.0]
    """

    low: ArrayLike = 0.0
    high: ArrayLike = 1.0

    def __post_init__(self) -> None:
        _refuse_nan("low", self.low)
        _refuse_nan("high", self.high)
        if _known(self.low) and _known(self.high) and np.any(np.asarray(self.low) > self.high):
            raise ValueError(f"high: at least low = {self.low} was expected, given {self.high}")

    def project(self, x: Array) -> Array:
        """The nearest point of the box, of the shape of `x`."""
        x = jnp.asarray(x)
        return jnp.clip(x, jnp.asarray(self.low, x.dtype), jnp.asarray(self.high, x.dtype))


class _Ball(abc.ABC):
    """What the balls share: alignment of radii, the box, and a uniform start."""

    centre: ArrayLike
    radius: ArrayLike

    def __post_init__(self) -> None:
        _refuse_nan("radius", self.radius)
        if _known(self.radius) and np.any(np.asarray(self.radius) < 0):
            raise ValueError(f"radius: at least 0 was expected, given {self.radius}")

    def project(self, x: Array) -> Array:
        """`x` (..., H, W, C) put on the ball where it lies outside it, then into [0, 1].

        The result, float32 of the shape that `x`, `centre` and `radius` broadcast to, lies within
        radius·(1 + 1e-6) of `centre`; it is `centre` itself, bit for bit, at radius 0.

        Raises:
          ValueError: naming `centre` or `radius`, for too few or too many axes.
        """
        centre, radius = self._aligned(jnp.shape(x))
        x = jnp.broadcast_to(jnp.asarray(x, jnp.float32), centre.shape)
        return jnp.where(radius == 0, centre, jnp.clip(self._onto(x, centre, radius), 0, 1))

    def sample(self, key: KeyLike) -> Array:
        """A uniform draw for each image, put into [0, 1]; the radius must be finite."""
        centre, radius = self._aligned(())
        return self.project(centre + radius * self._unit(as_key(key), centre.shape))

    def _aligned(self, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """Centre and radius with axes written out; a radius's axes are the first ones."""
        centre = jnp.asarray(self.centre, jnp.float32)
        radius = jnp.asarray(self.radius, jnp.float32)
        if centre.ndim < 3:
            raise ValueError(f"centre: (..., H, W, C) was expected, given shape {centre.shape}")
        ndim = max(centre.ndim, len(shape))
        if radius.ndim > max(ndim - 3, 1):
            raise ValueError(
                f"radius: one number, or one for each of the leading axes of images with {ndim} "
                f"axes, was expected, given shape {radius.shape}"
            )
        ndim = max(ndim, radius.ndim + 3)
        radius = radius.reshape(radius.shape + (1,) * (ndim - radius.ndim))
        try:
            full = np.broadcast_shapes(shape, centre.shape, radius.shape)
        except ValueError as error:
            raise ValueError(
                f"centre: images of one shape were expected, given x {shape}, centre "
                f"{centre.shape}, radius {jnp.shape(self.radius)}"
            ) from error
        return jnp.broadcast_to(centre, full), radius

    @abc.abstractmethod
    def _onto(self, x: Array, centre: Array, radius: Array) -> Array:
        """A point of the ball near `x`; all have the same number of axes."""

    @abc.abstractmethod
    def _unit(self, key: Array, shape: tuple[int, ...]) -> Array:
        """A uniform draw from the unit ball about 0 for each image of `shape`."""


@struct.dataclass
class LinfBall(_Ball):
    """|x − centre| ≤ radius for every pixel and channel, within [0, 1].

    `project` gives the nearest point of that set.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import projections
      >>> ball = projections.LinfBall(jnp.array([0.5, 0.0]).reshape(1, 2, 1), 0.25)
      >>> ball.project(jnp.array([2.0, -1.0]).reshape(1, 2, 1)).ravel().tolist()
      [0.75, 0.0]
    """

    centre: ArrayLike
    radius: ArrayLike

    def _onto(self, x: Array, centre: Array, radius: Array) -> Array:
        low = _nearer(centre - radius, centre, radius)
        return jnp.clip(x, low, _nearer(centre + radius, centre, radius))

    def _unit(self, key: Array, shape: tuple[int, ...]) -> Array:
        return jax.random.uniform(key, shape, jnp.float32, -1, 1)


@struct.dataclass
class L2Ball(_Ball):
    """‖x − centre‖₂ ≤ radius for each image, within [0, 1].

    `project` moves along the ray to the centre onto the ball, then clips. The clip keeps the ball,
    since the centre is in the box; the result is in both sets, though not always the nearest point.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import projections
      >>> ball = projections.L2Ball(jnp.full((1, 2, 1), 0.5), 0.25)
      >>> [f"{value:.4f}" for value in ball.project(jnp.array([[[3.5], [4.5]]])).ravel()]
      ['0.6500', '0.7000']
    """

    centre: ArrayLike
    radius: ArrayLike

    def _onto(self, x: Array, centre: Array, radius: Array) -> Array:
        delta = x - centre
        norm = _norm(delta, 2)
        return jnp.where(norm > radius, _placed(centre, radius, delta, norm), x)

    def _unit(self, key: Array, shape: tuple[int, ...]) -> Array:
        return _uniform(key, shape, 2)


@struct.dataclass
class L1Ball(_Ball):
    """Σ|x − centre| ≤ radius for each image, within [0, 1].

    `project` gives the nearest point of the ball, by sorting, then clips as `L2Ball` does.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import projections
      >>> ball = projections.L1Ball(jnp.full((1, 3, 1), 0.5), 0.25)
      >>> [f"{value:.4f}" for value in ball.project(jnp.array([[[0.75], [0.375], [0.5]]])).ravel()]
      ['0.6875', '0.4375', '0.5000']

    Reference: Duchi, Shalev-Shwartz, Singer & Chandra, "Efficient Projections onto the l1-Ball",
    ICML 2008, figure 1.
    """

    centre: ArrayLike
    radius: ArrayLike

    def _onto(self, x: Array, centre: Array, radius: Array) -> Array:
        delta = x - centre
        norm = _norm(delta, 1)
        size = jnp.abs(delta)
        # No entry more than a radius below the largest is ever kept, so all may be lowered until
        # the largest is a radius: sums of huge entries would otherwise drown the threshold.
        limit = jnp.minimum(radius, norm)
        size = jnp.maximum(size - size.max(_IMAGE, keepdims=True) + limit, 0)
        flat = jnp.sort(size.reshape(*size.shape[:-3], -1), descending=True)
        sums = jnp.cumsum(flat, -1) - limit[..., 0, 0]
        ranks = jnp.arange(1, flat.shape[-1] + 1, dtype=jnp.float32)
        ranks = jnp.broadcast_to(ranks, flat.shape)
        kept = jnp.maximum(jnp.sum(flat * ranks > sums, -1, keepdims=True), 1)
        threshold = jnp.take_along_axis(sums, kept - 1, -1) / kept.astype(jnp.float32)
        short = jnp.sign(delta) * jnp.maximum(size - threshold[..., None, None], 0)
        return jnp.where(norm > radius, _placed(centre, radius, short, _norm(short, 1)), x)

    def _unit(self, key: Array, shape: tuple[int, ...]) -> Array:
        return _uniform(key, shape, 1)


_IMAGE = (-3, -2, -1)


def _norm(delta: Array, p: int) -> Array:
    """‖δ‖₁ or ‖δ‖₂ of each image, with axes of length 1, or a few 1e-7 of it more but never less.

    A plain float32 sum over a large image errs by 1e-5, ten times what the balls promise.
    """
    unit = jnp.max(jnp.abs(delta), _IMAGE, keepdims=True)
    unit = jnp.where(unit > 0, unit, 1)
    terms = jnp.abs(delta / unit) ** p
    terms = terms.reshape(*terms.shape[:-3], -1)
    levels = 0
    while terms.shape[-1] > 1:
        half = -(-terms.shape[-1] // 2)
        odd = [(0, 0)] * (terms.ndim - 1) + [(0, 2 * half - terms.shape[-1])]
        terms = jnp.pad(terms, odd)
        terms = terms[..., :half] + terms[..., half:]
        levels += 1
    # An operation errs by one part in 2²⁴: p + 1 for a term, one a level, four for the rest.
    margin = 1 + ((p + 1 + levels) / p + 4) / 2**24
    return unit * (terms[..., None, None] ** (1 / p)) * margin


def _placed(centre: Array, radius: Array, delta: Array, norm: Array) -> Array:
    """centre + δ, with δ shortened to the radius where its norm is larger."""
    outside = norm > radius
    delta = delta * (jnp.where(outside, radius, 1) / jnp.where(outside, norm, 1))
    return _nearer(centre + delta, centre, jnp.abs(delta))


def _nearer(moved: Array, centre: Array, distance: Array) -> Array:
    """`moved`, or the float before it where rounding took it farther than `distance`."""
    return jnp.where(jnp.abs(moved - centre) > distance, jnp.nextafter(moved, centre), moved)


def _uniform(key: Array, shape: tuple[int, ...], p: int) -> Array:
    """Uniform in the unit ball of ‖·‖_p about 0, for p = 1 or 2.

    z / (Σ|z|^p + e)^{1/p} with z of density ∝ exp(−|z|^p) and e exponential (Barthe, Guédon,
    Mendelson & Naor 2005, "A probabilistic approach to the geometry of the lp^n-ball").
    """
    first, second = jax.random.split(key)
    extra = jax.random.exponential(second, (*shape[:-3], 1, 1, 1), jnp.float32)
    if p == 1:
        z = jax.random.laplace(first, shape, jnp.float32)
        return z / (_norm(z, 1) + extra)
    z = jax.random.normal(first, shape, jnp.float32)
    return z / jnp.sqrt(_norm(z, 2) ** 2 + 2 * extra)


def _known(value: Any) -> bool:
    return isinstance(value, (int, float, np.ndarray, np.number))


def _refuse_nan(argument: str, value: Any) -> None:
    # JAX puts anything there while it takes a pytree apart, but for these.
    if isinstance(value, (str, bytes, complex)):
        raise TypeError(f"{argument}: a number was expected, given {value!r}")
    if type(value) is int:
        checks.number(argument, value)
    if _known(value) and np.isnan(value).any():
        raise ValueError(f"{argument}: a number was expected, given {value}")
