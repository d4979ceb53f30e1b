"""Penalties on images: what an ascent pays for pictures that no camera would take."""

from __future__ import annotations

from functools import partial
from typing import Protocol

import flax.struct
import jax.numpy as jnp
import numpy as np
from jax import lax

from rvis import checks
from rvis.types import Array, ArrayLike


class Regularizer(Protocol):
    """A pytree whose numbers are leaves, so that sweeping them never retraces.

    In rvis every objective is maximised and every regularizer subtracted: weights are positive, and
    what is published with a negative weight is written here without the sign.
    """

    weight: Array

    def __call__(self, images: Array) -> Array:
        """weight · the mean over n of a sum over each image, for (n, H, W, C); a scalar."""


# jaxlib (0.10.2) compares the structures of two dataclasses by their fields and not by their class:
# a `jit` that has seen one penalty may run its program for another. A static field tells them
# apart.
_told_apart = partial(flax.struct.field, pytree_node=False, repr=False, kw_only=True)


@flax.struct.dataclass
class TotalVariation:
    """See `total_variation`."""

    weight: Array
    beta: Array | None
    _kind: str = _told_apart(default="TotalVariation")

    def __call__(self, images: Array) -> Array:
        """The penalty of images (n, H, W, C), a scalar."""
        down = jnp.diff(_batch(images), axis=1)
        right = jnp.diff(images, axis=2)
        if self.beta is None:
            return _weighted(self.weight, images, _abs(down).sum() + _abs(right).sum())
        squares = jnp.pad(down**2, ((0, 0), (0, 1), (0, 0), (0, 0)))
        squares = squares + jnp.pad(right**2, ((0, 0), (0, 0), (0, 1), (0, 0)))
        return _weighted(self.weight, images, _power(squares, self.beta / 2).sum())


def total_variation(weight: float, beta: float | None = None) -> TotalVariation:
    """How much neighbouring pixels differ, in each channel by itself.

    Without `beta`, the sum of absolute differences, Σ|dx| + |dy| (tensorflow/lucid's
    `total_variation`, which its notebook weighs by .25 at 64 px). With it, Σ(dx² + dy²)^{β/2},
    where the difference beyond the last row or column is 0 (Mahendran & Vedaldi 2014, section 3):
    β = 1 is the isotropic form of the former, β = 2 prefers many small differences to a sharp edge.

    Where an image is flat the gradient is 0, the middle of the subgradients.

    Args:
      weight: at least 0. A weight λ published for pixels of 0 to 255 is λ·255^β here (β = 1 without
        `beta`).
      beta: 1 to 1000, or None.

    Returns:
      A penalty of images (n, H, W, C): a scalar, averaged over the n.

    Raises:
      TypeError: naming the argument, for anything but a number.
      ValueError: naming it, out of range or NaN.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import regularizers
      >>> image = jnp.array([[0.0, 0.3], [0.4, 0.0]])[None, :, :, None]
      >>> round(float(regularizers.total_variation(1.0)(image)), 6)
      1.4
      >>> round(float(regularizers.total_variation(1.0, beta=1)(image)), 6)
      1.2

    Reference: Mahendran & Vedaldi, "Understanding Deep Image Representations by Inverting Them",
    CVPR 2015, arXiv:1412.0035.
    """
    if beta is None:
        return TotalVariation(_leaf("weight", weight), None)
    return TotalVariation(_leaf("weight", weight), _leaf("beta", beta, low=1, high=_STEEPEST))


@flax.struct.dataclass
class LpNorm:
    """See `lp_norm`."""

    weight: Array
    p: Array
    about: Array
    _kind: str = _told_apart(default="LpNorm")

    def __call__(self, images: Array) -> Array:
        """The penalty of images (n, H, W, C), a scalar."""
        distance = _abs(_batch(images) - self.about)
        # In units of the largest, so that high powers of small numbers do not vanish.
        unit = lax.stop_gradient(distance.max((1, 2, 3), keepdims=True))
        unit = jnp.where(unit > 0, unit, 1)
        sums = _power(distance / unit, self.p).sum((1, 2, 3))
        norms = unit[:, 0, 0, 0] * _power(sums, 1 / self.p)
        return _weighted(self.weight, images, norms.sum())


def lp_norm(weight: float, p: float, about: float = 0.5) -> LpNorm:
    """‖x − about‖_p of each image, all its pixels and channels taken together.

    At the norm's kink, where the image is `about` everywhere, the gradient is 0.

    Args:
      weight: at least 0.
      p: 1 to 1000; large p approaches the largest deviation.
      about: the level from which deviations count: a grey in [0, 1] for images, any number for a
        layer's activations (`objectives.penalty`).

    Returns:
      A penalty of images (n, H, W, C): a scalar, averaged over the n.

    Raises:
      TypeError: naming the argument, for anything but a number.
      ValueError: naming it, out of range or NaN.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import regularizers
      >>> image = jnp.array([0.8, 0.1])[None, None, :, None]
      >>> round(float(regularizers.lp_norm(2.0, 2)(image)), 6)
      1.0

    Reference: tensorflow/lucid, `optvis/objectives.py` (`L2`, which adds 1e-6 under the root).
    """
    return LpNorm(
        _leaf("weight", weight),
        _leaf("p", p, low=1, high=_STEEPEST),
        _leaf("about", about, low=-_LARGEST),
    )


@flax.struct.dataclass
class AlphaNorm:
    """See `alpha_norm`."""

    weight: Array
    alpha: Array
    _kind: str = _told_apart(default="AlphaNorm")

    def __call__(self, images: Array) -> Array:
        """The penalty of images (n, H, W, C), a scalar."""
        distance = _abs(_batch(images) - 0.5)
        return _weighted(self.weight, images, _power(distance, self.alpha).sum())


def alpha_norm(weight: float, alpha: float = 6.0) -> AlphaNorm:
    """Σ|x − .5|^α: cheap near mid-grey, steep towards black and white.

    Args:
      weight: at least 0. A weight λ published for pixels of 0 to 255 is λ·255^α here.
      alpha: 1 to 1000.

    Returns:
      A penalty of images (n, H, W, C): a scalar, averaged over the n.

    Raises:
      TypeError: naming the argument, for anything but a number.
      ValueError: naming it, out of range or NaN.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import regularizers
      >>> float(regularizers.alpha_norm(64.0)(jnp.ones((1, 2, 2, 1))))
      4.0

    Reference: Mahendran & Vedaldi, "Understanding Deep Image Representations by Inverting Them",
    CVPR 2015, arXiv:1412.0035, section 3, whose images have mean 0.
    """
    return AlphaNorm(_leaf("weight", weight), _leaf("alpha", alpha, low=1, high=_STEEPEST))


@flax.struct.dataclass
class L1:
    """See `l1`."""

    weight: Array
    about: Array
    _kind: str = _told_apart(default="L1")

    def __call__(self, images: Array) -> Array:
        """The penalty of images (n, H, W, C), a scalar."""
        return _weighted(self.weight, images, _abs(_batch(images) - self.about).sum())


def l1(weight: float, about: float = 0.5) -> L1:
    """Σ|x − about|, with gradient 0 at its kink; lucid's notebook weighs it by .05 at 64 px.

    Args:
      weight: at least 0.
      about: the level from which deviations count: a grey in [0, 1] for images, any number for a
        layer's activations (`objectives.penalty`).

    Returns:
      A penalty of images (n, H, W, C): a scalar, averaged over the n.

    Raises:
      TypeError: naming the argument, for anything but a number.
      ValueError: naming it, out of range or NaN.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import regularizers
      >>> float(regularizers.l1(0.5)(jnp.ones((3, 2, 2, 1))))
      1.0

    Reference: tensorflow/lucid, `optvis/objectives.py` (`L1`).
    """
    return L1(_leaf("weight", weight), _leaf("about", about, low=-_LARGEST))


@flax.struct.dataclass
class Blur:
    """See `blur`."""

    weight: Array
    _kind: str = _told_apart(default="Blur")

    def __call__(self, images: Array) -> Array:
        """The penalty of images (n, H, W, C), a scalar."""
        padded = jnp.pad(_batch(images), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
        rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
        square = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
        blurred = lax.stop_gradient((square + images) / 10)
        return _weighted(self.weight, images, ((images - blurred) ** 2).sum() / 2)


def blur(weight: float) -> Blur:
    """½Σ(x − blur(x))² with the blurred image held fixed.

    For one image a gradient step of length s is x ← (1 − s·weight)·x + s·weight·blur(x), the
    repeated blurring of early feature visualization. The kernel is [[.5, .5, .5], [.5, 1, .5],
    [.5, .5, .5]] over its sum, 5. Beyond the border the nearest pixel is repeated; lucid averages
    over the part of the kernel that lies inside. Its notebook weighs the penalty by 1 at 64 px.

    Args:
      weight: at least 0.

    Returns:
      A penalty of images (n, H, W, C): a scalar, averaged over the n.

    Raises:
      TypeError: naming `weight`, for anything but a number.
      ValueError: naming it, below 0 or NaN.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import regularizers
      >>> dot = jnp.zeros((1, 3, 3, 1)).at[0, 1, 1, 0].set(1.0)
      >>> round(float(regularizers.blur(1.0)(dot)), 6)
      0.36

    Reference: tensorflow/lucid, `optvis/objectives.py` (`blur_input_each_step`); Nguyen, Yosinski &
    Clune 2015.
    """
    return Blur(_leaf("weight", weight))


@flax.struct.dataclass
class Boundary:
    """See `boundary`."""

    weight: Array
    width: Array
    level: Array
    _kind: str = _told_apart(default="Boundary")

    def __call__(self, images: Array) -> Array:
        """The penalty of images (n, H, W, C), a scalar."""
        blurred = images
        for axis in (1, 2):
            pads = [(0, 0)] * 4
            pads[axis] = (2, 2)
            padded = jnp.pad(blurred, pads, mode="edge")
            size = images.shape[axis]
            parts = [lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(5)]
            blurred = jnp.stack(parts).mean(0)
        height, width = images.shape[1:3]
        rows, columns = jnp.arange(height), jnp.arange(width)
        rows = jnp.minimum(rows, height - 1 - rows) < self.width
        columns = jnp.minimum(columns, width - 1 - columns) < self.width
        border = (rows[:, None] | columns)[..., None]
        cost = jnp.square(images - blurred) + 0.8 * jnp.square(images - self.level)
        return _weighted(self.weight, images, jnp.where(border, cost, 0).sum())


def boundary(weight: float, *, width: int = 20, level: float = 0.5) -> Boundary:
    """What happens within `width` pixels of the border: detail, and distance from a grey.

    Σ (x − blur₅(x))² + .8·(x − level)² over the border, with a 5×5 box blur.

    Args:
      weight: at least 0.
      width: of the border, in pixels.
      level: the grey, in [0, 1].

    Returns:
      A penalty of images (n, H, W, C): a scalar, averaged over the n.

    Raises:
      TypeError, ValueError: naming the argument.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import regularizers
      >>> image = jnp.full((1, 8, 8, 1), 0.5).at[0, 4, 4].set(1.0)
      >>> float(regularizers.boundary(1.0, width=1)(image))
      0.0

    Reference: tensorflow/lucid, `optvis/objectives.py` (`penalize_boundary_complexity`).
    """
    return Boundary(
        _leaf("weight", weight),
        jnp.int32(checks.count("width", width)),
        _leaf("level", level, high=1),
    )


@flax.struct.dataclass
class Distance:
    """See `distance`."""

    weight: Array
    reference: Array
    where: Array
    _kind: str = _told_apart(default="Distance")

    def __call__(self, images: Array) -> Array:
        """The penalty of images (n, H, W, C), a scalar."""
        squares = jnp.square((_batch(images) - self.reference) * self.where)
        return _weighted(self.weight, images, squares.sum())


def distance(weight: float, reference: ArrayLike, where: ArrayLike = 1.0) -> Distance:
    """The squared distance to an image where a mask says so: Σ((x − reference) ⊙ where)².

    Args:
      weight: at least 0. A weight λ published for the mean over pixels and channels is λ/(H·W·C).
      reference: (H, W, C) in [0, 1].
      where: (H, W), (H, W, 1) or (H, W, C) in [0, 1], how much each pixel counts; all by default.

    Returns:
      A penalty of images (n, H, W, C): a scalar, averaged over the n.

    Raises:
      TypeError, ValueError: naming the argument.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import regularizers
      >>> grey = jnp.full((2, 2, 1), 0.5)
      >>> top = jnp.array([[1.0, 1.0], [0.0, 0.0]])
      >>> float(regularizers.distance(2.0, grey, top)(jnp.ones((1, 2, 2, 1))))
      1.0

    Reference: Santurkar et al. 2019, "Image synthesis with a single (robust)
      classifier", section 3.2; MadryLab/robustness_applications, `inpainting.ipynb`.
    """
    image = checks.images("reference", reference)
    if image.shape[0] != 1:
        raise ValueError(f"reference: one image was expected, given {image.shape[0]}")
    return Distance(_leaf("weight", weight), image[0], as_mask("where", where, image.shape[1:]))


def as_mask(argument: str, given: ArrayLike, shape: tuple[int, ...]) -> Array:
    """`given` as (H, W, 1) or (H, W, C) in [0, 1], for images of `shape`.

    Raises:
      ValueError: naming the argument, for another shape, NaN or values outside [0, 1].
      TypeError: naming it, for what is no array of numbers.
    """
    mask = np.asarray(given)
    if not (np.issubdtype(mask.dtype, np.number) or mask.dtype == bool):
        raise TypeError(f"{argument}: numbers in [0, 1] were expected, given {given!r}")
    height, width, channels = shape
    if mask.ndim == 0:
        mask = np.broadcast_to(mask, (height, width, 1))
    elif mask.ndim == 2:
        mask = mask[..., None]
    if mask.shape not in ((height, width, 1), (height, width, channels)):
        raise ValueError(
            f"{argument}: {(height, width)} or {(height, width, 1)} was expected, given shape "
            f"{np.shape(given)}"
        )
    if not ((mask >= 0) & (mask <= 1)).all():
        raise ValueError(f"{argument}: values in [0, 1] were expected, given others")
    return jnp.asarray(mask, jnp.float32)


# So high a power is a maximum in all but name.
_STEEPEST = 1000.0
_LARGEST = float(jnp.finfo(jnp.float32).max)


def _leaf(argument: str, value: float, *, low: float = 0.0, high: float = _LARGEST) -> Array:
    return jnp.asarray(checks.number(argument, value, low=low, high=high), jnp.float32)


def _batch(images: Array) -> Array:
    if jnp.ndim(images) != 4:
        raise ValueError(f"images: (n, H, W, C) was expected, given shape {jnp.shape(images)}")
    return images


def _weighted(weight: Array, images: Array, total: Array) -> Array:
    return weight * total / images.shape[0]


def _abs(x: Array) -> Array:
    """|x| whose gradient at 0 is 0, where that of `jnp.abs` is 1."""
    return x * lax.stop_gradient(jnp.sign(x))


def _power(base: Array, exponent: Array) -> Array:
    """base^exponent for base ≥ 0, whose gradient at 0 is 0 where the formula's is infinite."""
    positive = base > 0
    return jnp.where(positive, jnp.where(positive, base, 1) ** exponent, 0)
