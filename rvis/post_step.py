"""Maps of the iterate: what a step does to the image itself after it has climbed.

Each function raises TypeError or ValueError, naming the argument, for what is out of range.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rvis import checks, gate, struct
from rvis.optimizers import Optimizer, gain, sgd
from rvis.types import Array, on_device


@struct.dataclass
class PostStep:
    """A map of the iterate; its numbers are leaves, so that sweeping them never retraces.

    One of your own is any pytree (`rvis.struct.dataclass`) that is called alike.

    Attributes:
      numbers: what the change takes beside the image.
      change: `change(step, image, gradient, *numbers)`, the image after it.
    """

    numbers: tuple[Array, ...]
    change: Callable[..., Array] = struct.static()

    def __call__(self, step: Array, image: Array, gradient: Array) -> Array:
        """The image (H, W, C) after the map, of it and the gradient before, after `step` steps."""
        return self.change(step, image, gradient, *self.numbers)


@gate.public
def decay(rate: float, *, towards: float | Sequence[float] = 0.5) -> PostStep:
    """Shrinks the picture towards a colour at every step: L2 decay.

    Args:
      rate: the share that is lost, in [0, 1].
      towards: the colour, a number or one a channel in [0, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import post_step
      >>> white = jnp.ones((1, 1, 1))
      >>> float(post_step.decay(0.25)(1, white, white)[0, 0, 0])
      0.875

    Reference: Yosinski et al. 2015, Understanding Neural Networks Through Deep Visualization,
      section 3, eq. 2.
    """
    return PostStep((_number("rate", rate, high=1), _colour(towards)), _decayed)


def _decayed(step: Array, image: Array, gradient: Array, rate: Array, towards: Array) -> Array:
    return image + rate * (towards - image)


@gate.public
def blur(sigma: float, *, every: int = 1) -> PostStep:
    """Blurs the picture with a Gaussian after every so many steps.

    Args:
      sigma: standard deviation in pixels, above 0 and at most 100; the kernel ends at 4σ.
      every: steps between two blurs.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import post_step
      >>> grey = jnp.full((4, 4, 3), 0.25)
      >>> bool(jnp.allclose(post_step.blur(1.0)(4, grey, grey), grey))
      True

    Reference: Yosinski et al. 2015, section 3, eq. 3.
    """
    sigma = checks.number("sigma", sigma, above=0, high=100)
    places = np.arange(-max(1, round(4 * sigma)), max(1, round(4 * sigma)) + 1)
    weights = np.exp(-(places**2) / (2 * sigma**2))
    kernel = on_device(weights / weights.sum(), jnp.float32)
    return PostStep((kernel, on_device(checks.count("every", every), jnp.int32)), _blurred)


def _blurred(step: Array, image: Array, gradient: Array, kernel: Array, every: Array) -> Array:
    planes = jnp.moveaxis(image, -1, 0)[..., None]
    reach = kernel.shape[0] // 2
    for axis in (1, 2):
        # The border is continued, so that it does not darken.
        pads = [(reach, reach) if i == axis else (0, 0) for i in range(4)]
        planes = lax.conv_general_dilated(
            jnp.pad(planes, pads, mode="edge"),
            kernel.reshape([-1 if i == axis - 1 else 1 for i in range(4)]).astype(image.dtype),
            (1, 1),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
    return jnp.where(step % every == 0, jnp.moveaxis(planes[..., 0], 0, -1), image)


@gate.public
def small_norm(percentile: float, *, towards: float | Sequence[float] = 0.5) -> PostStep:
    """Sets the pixels that differ least from a colour to it.

    Args:
      percentile: pixels whose ‖x − towards‖ over the channels lies below this percentile of all are
        erased, in [0, 100].
      towards: the colour, a number or one a channel in [0, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import post_step
      >>> image = jnp.array([0.5, 0.6, 0.7, 1.0]).reshape(2, 2, 1)
      >>> post_step.small_norm(50)(1, image, image).ravel().tolist()
      [0.5, 0.5, 0.699999988079071, 1.0]

    Reference: Yosinski et al. 2015, section 3, "Clipping pixels with small norm".
    """
    return PostStep((_number("percentile", percentile, high=100), _colour(towards)), _large_norms)


def _large_norms(
    step: Array, image: Array, gradient: Array, percentile: Array, towards: Array
) -> Array:
    return _erased(image, jnp.sqrt(jnp.square(image - towards).sum(-1)), percentile, towards)


@gate.public
def small_contribution(percentile: float, *, towards: float | Sequence[float] = 0.5) -> PostStep:
    """Sets the pixels that contribute least to the objective to a colour.

    A pixel's contribution is |Σ_c x·g|, what setting it to the colour would change to first order.

    Args:
      percentile: pixels below this percentile of all are erased, in [0, 100].
      towards: the colour, a number or one a channel in [0, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import post_step
      >>> image = jnp.array([0.0, 1.0]).reshape(1, 2, 1)
      >>> gradient = jnp.array([0.1, 0.2]).reshape(1, 2, 1)
      >>> post_step.small_contribution(60)(1, image, gradient).ravel().tolist()
      [0.5, 1.0]

    Reference: Yosinski et al. 2015, section 3, "Clipping pixels with small contribution".
    """
    numbers = _number("percentile", percentile, high=100), _colour(towards)
    return PostStep(numbers, _large_contributions)


def _large_contributions(
    step: Array, image: Array, gradient: Array, percentile: Array, towards: Array
) -> Array:
    return _erased(image, jnp.abs(((image - towards) * gradient).sum(-1)), percentile, towards)


@gate.public
def yosinski(recipe: int, *, rate: float = 1.0) -> dict[str, Any]:
    """One of the four recipes of Yosinski et al. as options of `rvis.visualize`.

    | recipe | decay | blur σ / every | erased | steps | learning rate |
    |---|---|---|---|---|---|
    | 1 | 0 | .5 / 4 | pixel norm below its 50th percentile | 500 | 2/‖g‖², at most 100 |
    | 2 | .3 | – | pixel norm below its 20th percentile | 750 | 100 |
    | 3 | .0001 | 1 / 4 | – | 1000 | 100 |
    | 4 | 0 | .5 / 4 | contribution below its 90th percentile | 1000 | 2/‖g‖², at most 1e8 |

    Learning rates, converted from pixels of 0 to 255, suit CaffeNet at 227 px; on the CIFAR-10
    networks a `rate` of 300 is right. Colours shrink towards mid-grey. Override any of them:
    `rvis.visualize(model, objective, **(yosinski(2) | {"steps": 100}))`.

    Args:
      recipe: 1 to 4.
      rate: multiplies the learning rate, or the most that it may be.

    Example:
      >>> from rvis import post_step
      >>> sorted(post_step.yosinski(1))
      ['image', 'optimizer', 'post_step', 'steps', 'transforms']

    Reference: Yosinski et al. 2015, table 1; yosinski/deep-visualization-toolbox.
    """
    if not 1 <= checks.count("recipe", recipe) <= 4:
        raise ValueError(f"recipe: 1 to 4 was expected, given {recipe}")
    # A gradient and a step each change by 255 with the unit of pixels.
    unit = 255.0**2 / checks.number("rate", rate, above=0)
    recipes: tuple[tuple[tuple[PostStep, ...], int, Optimizer], ...] = (
        ((blur(0.5, every=4), small_norm(50)), 500, gain(2.0, most=50 / unit)),
        ((decay(0.3), small_norm(20)), 750, sgd(100 / unit)),
        ((decay(1e-4), blur(1.0, every=4)), 1000, sgd(100 / unit)),
        ((blur(0.5, every=4), small_contribution(90)), 1000, gain(2.0, most=5e7 / unit)),
    )
    named = dict(zip(("post_step", "steps", "optimizer"), recipes[recipe - 1], strict=True))
    return {"image": "pixel", "transforms": (), **named}


def _erased(image: Array, size: Array, percentile: Array, colour: Array) -> Array:
    small = size < jnp.percentile(size, percentile)
    return jnp.where(small[..., None], jnp.broadcast_to(colour, image.shape), image)


def _number(argument: str, value: float, *, high: float) -> Array:
    return on_device(checks.number(argument, value, low=0, high=high), jnp.float32)


def _colour(towards: float | Sequence[float]) -> Array:
    if np.ndim(towards) > 1 or np.size(towards) == 0:
        raise ValueError(f"towards: a number, or one a channel, was expected, given {towards!r}")
    for level in np.ravel(towards):
        checks.number("towards", level, low=0, high=1)
    return on_device(towards, jnp.float32)


def apply(maps: Sequence[PostStep], step: Array, images: Array, gradients: Array) -> Array:
    """All maps in order on a group of images (n, H, W, C), each image by itself."""
    for one in maps:
        images = jax.vmap(one, (None, 0, 0))(step, images, gradients)
    return images
