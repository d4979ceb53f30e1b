"""Penalties on images: what an ascent pays for pictures that no camera would take.

Penalties are subtracted: every `weight` is at least 0, in units of the objective. Each function
raises TypeError or ValueError, naming the argument, for what is no number, NaN or out of range.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import lax

from rvis import checks, gate, struct
from rvis.types import Array, ArrayLike, on_device


@struct.dataclass
class Regularizer:
    """A penalty; its numbers are leaves, so that sweeping them never retraces.

    One of your own is any pytree (`rvis.struct.dataclass`) that is called alike.

    Attributes:
      weight: at least 0.
      numbers: what the measure takes beside the images.
      measure: `measure(images, *numbers)`, the sum over all of (n, H, W, C).
    """

    weight: Array
    numbers: tuple[Array, ...]
    measure: Callable[..., Array] = struct.static()

    def __call__(self, images: Array) -> Array:
        """weight · the mean over n of a sum over each image, for (n, H, W, C); a scalar."""
        if jnp.ndim(images) != 4:
            raise ValueError(f"images: (n, H, W, C) was expected, given shape {jnp.shape(images)}")
        return self.weight * self.measure(images, *self.numbers) / images.shape[0]


@gate.public
def total_variation(weight: float, beta: float | None = None) -> Regularizer:
    """How much neighbouring pixels differ, in each channel by itself.

    Without `beta`, the sum of absolute differences, Σ|dx| + |dy| (lucid weighs it by .25 at 64 px).
    With it, Σ(dx² + dy²)^{β/2}, where the difference beyond the last row or column is 0. Where an
    image is flat the gradient is 0.

    Args:
      weight: λ·255^β (β = 1 without `beta`) where λ is published for pixels of 0 to 255.
      beta: 1 to 1000, or None.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import regularizers
      >>> image = jnp.array([[0.0, 0.3], [0.4, 0.0]])[None, :, :, None]
      >>> round(float(regularizers.total_variation(1.0)(image)), 6)
      1.4
      >>> round(float(regularizers.total_variation(1.0, beta=1)(image)), 6)
      1.2

    Reference: Mahendran & Vedaldi, "Understanding Deep Image Representations by Inverting Them",
    CVPR 2015, arXiv:1412.0035, section 3.
    """
    if beta is None:
        return Regularizer(_leaf("weight", weight), (), _differences)
    numbers = (_leaf("beta", beta, low=1, high=_STEEPEST),)
    return Regularizer(_leaf("weight", weight), numbers, _powers_of_differences)


def _differences(images: Array) -> Array:
    return _abs(jnp.diff(images, axis=1)).sum() + _abs(jnp.diff(images, axis=2)).sum()


def _powers_of_differences(images: Array, beta: Array) -> Array:
    squares = jnp.pad(jnp.diff(images, axis=1) ** 2, ((0, 0), (0, 1), (0, 0), (0, 0)))
    squares += jnp.pad(jnp.diff(images, axis=2) ** 2, ((0, 0), (0, 0), (0, 1), (0, 0)))
    return _power(squares, beta / 2).sum()


@gate.public
def alpha_norm(weight: float, alpha: float = 6.0) -> Regularizer:
    """Σ|x − .5|^α: cheap near mid-grey, steep towards black and white.

    Args:
      weight: λ·255^α where λ is published for pixels of 0 to 255.
      alpha: 1 to 1000.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import regularizers
      >>> float(regularizers.alpha_norm(64.0)(jnp.ones((1, 2, 2, 1))))
      4.0

    Reference: Mahendran & Vedaldi 2015 (see `total_variation`), whose images have mean 0.
    """
    return Regularizer(
        _leaf("weight", weight), (_leaf("alpha", alpha, low=1, high=_STEEPEST),), _alpha_norm
    )


def _alpha_norm(images: Array, alpha: Array) -> Array:
    return _power(_abs(images - 0.5), alpha).sum()


@gate.public
def l1(weight: float, about: float = 0.5) -> Regularizer:
    """Σ|x − about|, with gradient 0 at its kink; lucid's notebook weighs it by .05 at 64 px.

    `about` is the level from which deviations count.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import regularizers
      >>> float(regularizers.l1(0.5)(jnp.ones((3, 2, 2, 1))))
      1.0

    Reference: tensorflow/lucid, `optvis/objectives.py` (`L1`).
    """
    return Regularizer(_leaf("weight", weight), (_leaf("about", about, low=-_LARGEST),), _l1)


def _l1(images: Array, about: Array) -> Array:
    return _abs(images - about).sum()


@gate.public
def blur(weight: float) -> Regularizer:
    """½Σ(x − blur(x))² with the blurred image held fixed.

    For one image a gradient step of length s is x ← (1 − s·weight)·x + s·weight·blur(x), the
    repeated blurring of early feature visualization. The kernel is [[.5, .5, .5], [.5, 1, .5],
    [.5, .5, .5]] / 5. Beyond the border the nearest pixel is repeated. Lucid weighs it by 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import regularizers
      >>> dot = jnp.zeros((1, 3, 3, 1)).at[0, 1, 1, 0].set(1.0)
      >>> round(float(regularizers.blur(1.0)(dot)), 6)
      0.36

    Reference: tensorflow/lucid, `optvis/objectives.py` (`blur_input_each_step`); Nguyen, Yosinski &
    Clune 2015.
    """
    return Regularizer(_leaf("weight", weight), (), _blur)


def _blur(images: Array) -> Array:
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    square = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    blurred = lax.stop_gradient((square + images) / 10)
    return ((images - blurred) ** 2).sum() / 2


@gate.public
def distance(weight: float, reference: ArrayLike, where: ArrayLike = 1.0) -> Regularizer:
    """The squared distance to an image where a mask says so: Σ((x − reference) ⊙ where)².

    Args:
      weight: λ/(H·W·C) where λ is published for the mean over pixels and channels.
      reference: (H, W, C) in [0, 1].
      where: (H, W), (H, W, 1) or (H, W, C) in [0, 1], how much each pixel counts; all by default.

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
    mask = as_mask("where", where, image.shape[1:])
    return Regularizer(_leaf("weight", weight), (image[0], mask), squared_distance)


def squared_distance(images: Array, reference: Array, where: Array) -> Array:
    """Σ((x − reference) ⊙ where)², the measure of `distance`."""
    return jnp.square((images - reference[None]) * where[None]).sum()


@gate.public
def opacity(weight: float) -> Regularizer:
    """How opaque pictures are on average: weight · mean α, for `images.RGBA` pictures.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import regularizers
      >>> float(regularizers.opacity(2.0)(jnp.full((1, 8, 8, 4), 0.25)))
      0.5

    Reference: Mordvintsev, Pezzotti, Schubert & Olah, "Differentiable Image Parameterizations",
    Distill 2018, which multiplies the objective by 1 − mean α to the same end.
    """
    return Regularizer(_leaf("weight", weight), (), _opacity)


def _opacity(images: Array) -> Array:
    return images[..., -1].mean((1, 2)).sum()


def as_mask(argument: str, given: ArrayLike, shape: tuple[int, ...]) -> Array:
    """`given` as (H, W, 1) or (H, W, C) in [0, 1], for images of `shape`."""
    mask = np.asarray(checks.array(argument, given))
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
    return on_device(mask, jnp.float32)


# So high a power is a maximum in all but name.
_STEEPEST = 1000.0
_LARGEST = float(jnp.finfo(jnp.float32).max)


def _leaf(argument: str, value: float, *, low: float = 0.0, high: float = _LARGEST) -> Array:
    return on_device(checks.number(argument, value, low=low, high=high), jnp.float32)


def _abs(x: Array) -> Array:
    """|x| whose gradient at 0 is 0, where that of `jnp.abs` is 1."""
    return x * lax.stop_gradient(jnp.sign(x))


def _power(base: Array, exponent: Array) -> Array:
    """base^exponent for base ≥ 0, whose gradient at 0 is 0 where the formula's is infinite."""
    positive = base > 0
    return jnp.where(positive, jnp.where(positive, base, 1) ** exponent, 0)
