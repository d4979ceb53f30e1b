"""Maps of the iterate: what a step does to the image itself after it has climbed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rvis import checks
from rvis.optimizers import Optimizer, gain, sgd
from rvis.types import Array


class IterateMap(Protocol):
    """A pytree whose numbers are leaves, so that sweeping them never retraces."""

    def __call__(self, step: Array, image: Array, gradient: Array) -> Array:
        """The image (H, W, C) after the map.

        Args:
          step: how many steps were made, this one included.
          image: (H, W, C) after the step.
          gradient: (H, W, C) of the objective at the image before it.
        """


_told_apart = partial(flax.struct.field, pytree_node=False, repr=False, kw_only=True)


@flax.struct.dataclass
class Decay:
    """See `decay`."""

    rate: Array
    towards: Array
    _kind: str = _told_apart(default="Decay")

    def __call__(self, step: Array, image: Array, gradient: Array) -> Array:
        del step, gradient
        return image + self.rate * (self.towards - image)


def decay(rate: float, *, towards: float | Sequence[float] = 0.5) -> Decay:
    """Shrinks the picture towards a colour at every step: L2 decay.

    Args:
      rate: the share that is lost, in [0, 1].
      towards: the colour, a number or one a channel in [0, 1].

    Raises:
      ValueError, TypeError: naming the argument.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import iterates
      >>> white = jnp.ones((1, 1, 1))
      >>> float(iterates.decay(0.25)(1, white, white)[0, 0, 0])
      0.875

    Reference: Yosinski et al. 2015, Understanding Neural Networks Through Deep Visualization,
      section 3, eq. 2.
    """
    return Decay(_number("rate", rate, high=1), _colour(towards))


@flax.struct.dataclass
class Blur:
    """See `blur`."""

    kernel: Array
    every: Array
    _kind: str = _told_apart(default="Blur")

    def __call__(self, step: Array, image: Array, gradient: Array) -> Array:
        del gradient
        channels = image.shape[-1]
        planes = jnp.moveaxis(image, -1, 0)[..., None]
        for shape in ((-1, 1, 1, 1), (1, -1, 1, 1)):
            kernel = self.kernel.reshape(shape)
            reach = self.kernel.shape[0] // 2
            pads = [(0, 0), *((reach, reach) if n != 1 else (0, 0) for n in kernel.shape[:2])]
            # The border is continued, so that it does not darken.
            padded = jnp.pad(planes, (*pads, (0, 0)), mode="edge")
            planes = lax.conv_general_dilated(
                padded, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
        blurred = jnp.moveaxis(planes[..., 0], 0, -1).reshape(*image.shape[:2], channels)
        return jnp.where(step % self.every == 0, blurred, image)


def blur(sigma: float, *, every: int = 1) -> Blur:
    """Blurs the picture with a Gaussian after every so many steps.

    Args:
      sigma: standard deviation in pixels, above 0 and at most 100; the kernel ends at 4σ.
      every: steps between two blurs.

    Raises:
      ValueError, TypeError: naming the argument.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import iterates
      >>> grey = jnp.full((4, 4, 3), 0.25)
      >>> bool(jnp.allclose(iterates.blur(1.0)(4, grey, grey), grey))
      True

    Reference: Yosinski et al. 2015, section 3, eq. 3.
    """
    sigma = checks.number("sigma", sigma, above=0, high=100)
    places = np.arange(-max(1, round(4 * sigma)), max(1, round(4 * sigma)) + 1)
    kernel = np.exp(-(places**2) / (2 * sigma**2))
    return Blur(
        jnp.asarray(kernel / kernel.sum(), jnp.float32), jnp.int32(checks.count("every", every))
    )


@flax.struct.dataclass
class SmallNorm:
    """See `small_norm`."""

    percentile: Array
    towards: Array
    _kind: str = _told_apart(default="SmallNorm")

    def __call__(self, step: Array, image: Array, gradient: Array) -> Array:
        del step, gradient
        norms = jnp.sqrt(jnp.square(image - self.towards).sum(-1))
        return _erased(image, norms, self.percentile, self.towards)


def small_norm(percentile: float, *, towards: float | Sequence[float] = 0.5) -> SmallNorm:
    """Sets the pixels that differ least from a colour to it.

    Args:
      percentile: pixels whose ‖x − towards‖ over the channels lies below this percentile of all are
        erased, in [0, 100].
      towards: the colour, a number or one a channel in [0, 1].

    Raises:
      ValueError, TypeError: naming the argument.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import iterates
      >>> image = jnp.array([0.5, 0.6, 0.7, 1.0]).reshape(2, 2, 1)
      >>> iterates.small_norm(50)(1, image, image).ravel().tolist()
      [0.5, 0.5, 0.699999988079071, 1.0]

    Reference: Yosinski et al. 2015, section 3, "Clipping pixels with small norm".
    """
    return SmallNorm(_number("percentile", percentile, high=100), _colour(towards))


@flax.struct.dataclass
class SmallContribution:
    """See `small_contribution`."""

    percentile: Array
    towards: Array
    _kind: str = _told_apart(default="SmallContribution")

    def __call__(self, step: Array, image: Array, gradient: Array) -> Array:
        del step
        share = jnp.abs(((image - self.towards) * gradient).sum(-1))
        return _erased(image, share, self.percentile, self.towards)


def small_contribution(
    percentile: float, *, towards: float | Sequence[float] = 0.5
) -> SmallContribution:
    """Sets the pixels that contribute least to the objective to a colour.

    A pixel's contribution is |Σ_c x·g|, what setting it to the colour would change to first order.

    Args:
      percentile: pixels below this percentile of all are erased, in [0, 100].
      towards: the colour, a number or one a channel in [0, 1].

    Raises:
      ValueError, TypeError: naming the argument.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import iterates
      >>> image = jnp.array([0.0, 1.0]).reshape(1, 2, 1)
      >>> gradient = jnp.array([0.1, 0.2]).reshape(1, 2, 1)
      >>> iterates.small_contribution(60)(1, image, gradient).ravel().tolist()
      [0.5, 1.0]

    Reference: Yosinski et al. 2015, section 3, "Clipping pixels with small contribution".
    """
    return SmallContribution(_number("percentile", percentile, high=100), _colour(towards))


@flax.struct.dataclass
class SmallValue:
    """See `small_value`."""

    percentile: Array
    towards: Array
    _kind: str = _told_apart(default="SmallValue")

    def __call__(self, step: Array, image: Array, gradient: Array) -> Array:
        del step, gradient
        size = jnp.abs(image - self.towards)
        small = size < jnp.percentile(size, self.percentile)
        return jnp.where(small, jnp.broadcast_to(self.towards, image.shape), image)


def small_value(percentile: float, *, towards: float | Sequence[float] = 0.5) -> SmallValue:
    """Sets the values that differ least from a colour to it, each channel of a pixel by itself.

    Args:
      percentile: values whose |x − towards| lies below this percentile of all are erased, in
        [0, 100].
      towards: the colour, a number or one a channel in [0, 1].

    Raises:
      ValueError, TypeError: naming the argument.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import iterates
      >>> image = jnp.array([0.25, 0.625]).reshape(1, 1, 2)
      >>> iterates.small_value(50)(1, image, image).ravel().tolist()
      [0.25, 0.5]

    Reference: yosinski/deep-visualization-toolbox, `optimize/gradient_optimizer.py`
      (`small_val_percentile`).
    """
    return SmallValue(_number("percentile", percentile, high=100), _colour(towards))


@flax.struct.dataclass
class SmallBenefit:
    """See `small_benefit`."""

    percentile: Array
    towards: Array
    _kind: str = _told_apart(default="SmallBenefit")

    def __call__(self, step: Array, image: Array, gradient: Array) -> Array:
        del step
        benefit = ((self.towards - image) * gradient).sum(-1)
        return _erased(image, benefit, self.percentile, self.towards)


def small_benefit(percentile: float, *, towards: float | Sequence[float] = 0.5) -> SmallBenefit:
    """Sets to a colour the pixels whose erasure would raise the objective least.

    To first order setting a pixel to the colour raises the objective by Σ_c (towards − x)·g, which
    is negative for pixels that help. The toolbox erases those below a percentile of it, the most
    helpful ones first; its paper uses the absolute value (`small_contribution`).

    Args:
      percentile: pixels below this percentile of all are erased, in [0, 100].
      towards: the colour, a number or one a channel in [0, 1].

    Raises:
      ValueError, TypeError: naming the argument.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import iterates
      >>> image = jnp.array([0.0, 1.0]).reshape(1, 2, 1)
      >>> iterates.small_benefit(60)(1, image, jnp.ones((1, 2, 1))).ravel().tolist()
      [0.0, 0.5]

    Reference: yosinski/deep-visualization-toolbox, `optimize/gradient_optimizer.py`
      (`px_benefit_percentile`).
    """
    return SmallBenefit(_number("percentile", percentile, high=100), _colour(towards))


def yosinski(recipe: int, *, rate: float = 1.0) -> dict[str, Any]:
    """One of the four recipes of Yosinski et al. as options of `rvis.visualize`.

    | recipe | decay | blur σ / every | erased | steps | learning rate |
    |---|---|---|---|---|---|
    | 1 | 0 | .5 / 4 | pixel norm below its 50th percentile | 500 | 2/‖g‖², at most 100 |
    | 2 | .3 | – | pixel norm below its 20th percentile | 750 | 100 |
    | 3 | .0001 | 1 / 4 | – | 1000 | 100 |
    | 4 | 0 | .5 / 4 | contribution below its 90th percentile | 1000 | 2/‖g‖², at most 1e8 |

    Published for pixels of 0 to 255, from which learning rates are converted; colours shrink
    towards mid-grey, and pixels stay in [0, 1] as theirs do in the box. Override any of them:
    `rvis.visualize(model, objective, **(yosinski(2) | {"steps": 100}))`.

    The learning rates suit CaffeNet at 227 px; on the CIFAR-10 networks a `rate` of 300 is right.

    Args:
      recipe: 1 to 4.
      rate: multiplies the learning rate, or the most that it may be.

    Raises:
      ValueError, TypeError: naming `recipe` or `rate`.

    Example:
      >>> from rvis import iterates
      >>> sorted(iterates.yosinski(1))
      ['image', 'maps', 'optimizer', 'steps', 'transforms']

    Reference: Yosinski et al. 2015, table 1; yosinski/deep-visualization-toolbox.
    """
    if not 1 <= checks.count("recipe", recipe) <= 4:
        raise ValueError(f"recipe: 1 to 4 was expected, given {recipe}")
    # A gradient and a step each change by 255 with the unit of pixels.
    unit = 255.0**2 / checks.number("rate", rate, above=0)
    maps: tuple[IterateMap, ...]
    optimizer: Optimizer
    maps, steps, optimizer = (
        ((blur(0.5, every=4), small_norm(50)), 500, gain(2.0, most=50 / unit)),
        ((decay(0.3), small_norm(20)), 750, sgd(100 / unit)),
        ((decay(1e-4), blur(1.0, every=4)), 1000, sgd(100 / unit)),
        ((blur(0.5, every=4), small_contribution(90)), 1000, gain(2.0, most=5e7 / unit)),
    )[recipe - 1]
    return {
        "image": "pixel",
        "transforms": (),
        "maps": maps,
        "optimizer": optimizer,
        "steps": steps,
    }


def _erased(image: Array, size: Array, percentile: Array, colour: Array) -> Array:
    small = size < jnp.percentile(size, percentile)
    return jnp.where(small[..., None], jnp.broadcast_to(colour, image.shape), image)


def _number(argument: str, value: float, *, high: float) -> Array:
    return jnp.float32(checks.number(argument, value, low=0, high=high))


def _colour(towards: float | Sequence[float]) -> Array:
    if np.ndim(towards) > 1 or np.size(towards) == 0:
        raise ValueError(f"towards: a number, or one a channel, was expected, given {towards!r}")
    for level in np.ravel(towards):
        checks.number("towards", level, low=0, high=1)
    return jnp.asarray(towards, jnp.float32)


def apply(maps: Sequence[IterateMap], step: Array, images: Array, gradients: Array) -> Array:
    """All maps in order on a group of images (n, H, W, C), each image by itself."""
    for one in maps:
        images = jax.vmap(one, (None, 0, 0))(step, images, gradients)
    return images
