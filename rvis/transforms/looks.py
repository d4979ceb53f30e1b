"""What a view looks like beside where it lies: blur and noise."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from rvis import checks
from rvis.transforms.moves import normalise, progress
from rvis.types import Array


@dataclasses.dataclass(frozen=True)
class Noise:
    """Adds Gaussian noise of standard deviation `sd` to what the model sees, after all moves.

    The result is not clipped to [0, 1].

    Attributes:
      sd: in [0, 1].
      to: the standard deviation at the end, above 0, for one that changes by the same factor at
        each of `steps` steps of an ascent.
      steps: how many.

    Raises:
      TypeError: naming the argument, for anything but a number.
      ValueError: naming it, outside [0, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import transforms
      >>> seen = transforms.apply((transforms.Noise(0.1),), 0, jnp.full((1, 64, 64, 3), 0.5))
      >>> round(float(seen.std()), 2)
      0.1
    """

    sd: float
    to: float | None = None
    steps: int = 1

    def __post_init__(self) -> None:
        normalise(self, sd=checks.number("sd", self.sd, low=0, high=1))
        if self.to is not None:
            checks.number("sd", self.sd, above=0)
            normalise(self, to=checks.number("to", self.to, above=0, high=1))
        normalise(self, steps=checks.count("steps", self.steps))

    def seen(self, key: Array, step: Array, view: Array) -> Array:
        """One draw on a view (H, W, C)."""
        sd: float | Array = self.sd
        if self.to is not None:
            sd = self.sd * (self.to / self.sd) ** progress(step, self.steps)
        return view + sd * jax.random.normal(key, view.shape, view.dtype)


@dataclasses.dataclass(frozen=True)
class Blur:
    """Blurs what the model sees with a Gaussian of `low` to `high` pixels, after all moves.

    At the border it is averaged over what lies inside.

    Raises:
      TypeError: naming the argument, for anything but a number.
      ValueError: naming it, at 0 or below, above 100, or for `high` below `low`.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import transforms
      >>> dot = jnp.zeros((1, 9, 9, 1)).at[0, 4, 4].set(1.0)
      >>> seen = transforms.apply((transforms.Blur(1.0, 1.0),), 0, dot)
      >>> round(float(seen[0, 4, 4, 0]), 3)
      0.159

    Reference: deel-ai/xplique, `features_visualizations/transformations.py` (`random_blur`), whose
      kernel is cut off at 5 pixels.
    """

    low: float = 1.0
    high: float = 2.0

    def __post_init__(self) -> None:
        normalise(self, low=checks.number("low", self.low, above=0, high=100))
        normalise(self, high=checks.number("high", self.high, low=self.low, high=100))

    def seen(self, key: Array, step: Array, view: Array) -> Array:
        """One draw on a view (H, W, C)."""
        del step
        sigma = jax.random.uniform(key, (), view.dtype, self.low, self.high)
        down, across = (_smoothing(size, sigma) for size in view.shape[:2])
        # Products of matrices: quick where a convolution of single channels is not.
        return jnp.einsum("ij,jkc,lk->ilc", down, view, across)


def _smoothing(size: int, sigma: Array) -> Array:
    """(size, size): each row the weights of one pixel's neighbours."""
    places = jnp.arange(size, dtype=jnp.float32)
    weights = jnp.exp(-jnp.square((places[:, None] - places) / sigma) / 2)
    return weights / weights.sum(1, keepdims=True)
