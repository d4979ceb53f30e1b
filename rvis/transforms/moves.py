"""What stands between a picture and the model: shifts, zooms, turns, parts, noise.

Each refuses an argument of the wrong type or out of range by a TypeError or ValueError naming it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from rvis import checks, struct
from rvis.types import Array

# A move is q ↦ turn·q + offset, read from the view into the picture, with q = row + i·column from
# the centre. Rotation and zoom are then one complex number, and moves compose by multiplication.
Move = tuple[Array, Array]


class _Shifted:
    """What draws two numbers of pixels from ±`pixels`."""

    pixels: int

    def __post_init__(self) -> None:
        struct.settle(self, pixels=checks.count("pixels", self.pixels, low=0))

    @property
    def options(self) -> int:
        """How many numbers it draws from, twice."""
        return 2 * self.pixels + 1


@dataclasses.dataclass(frozen=True)
class Jitter(_Shifted):
    """Shifts by whole pixels, uniformly in ±`pixels` along each axis.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import transforms
      >>> image = jnp.zeros((1, 8, 8, 1)).at[0, 4, 4, 0].set(1.0)
      >>> seen = transforms.apply((transforms.Pad(2, fill=0.0), transforms.Jitter(2)), 0, image)
      >>> float(seen.max()), float(seen.sum())
      (1.0, 1.0)
    """

    pixels: int

    def move(self, drawn: Array) -> Move:
        """The move that two numbers below `options` stand for."""
        shift = (drawn - self.pixels).astype(jnp.float32)
        return jnp.complex64(1), -lax.complex(shift[0], shift[1])


@dataclasses.dataclass(frozen=True)
class Scale:
    """Zooms about the centre by one of `factors`; above 1 the picture grows.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import transforms
      >>> image = jnp.arange(4.0).reshape(1, 1, 4, 1) / 4
      >>> transforms.apply((transforms.Scale((2,)),), 0, image)[0, 0, :, 0].tolist()
      [0.1875, 0.3125, 0.4375, 0.5625]
    """

    factors: tuple[float, ...]

    def __post_init__(self) -> None:
        struct.settle(self, factors=_numbers("factors", self.factors, above=0, high=1e6))

    @property
    def options(self) -> int:
        """How many numbers it draws from."""
        return len(self.factors)

    def move(self, drawn: Array) -> Move:
        """The move that a number below `options` stands for, the first of two."""
        factor = jnp.asarray(self.factors, jnp.float32)[drawn[0]]
        return 1 / factor.astype(jnp.complex64), jnp.complex64(0)


@dataclasses.dataclass(frozen=True)
class Rotate:
    """Turns about the centre by one of `degrees`, anticlockwise.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import transforms
      >>> image = jnp.array([[0.0, 1.0], [0.0, 0.0]])[None, :, :, None]
      >>> transforms.apply((transforms.Rotate((90,)),), 0, image)[0, :, :, 0].round(3).tolist()
      [[1.0, 0.0], [0.0, 0.0]]
    """

    degrees: tuple[float, ...]

    def __post_init__(self) -> None:
        struct.settle(self, degrees=_numbers("degrees", self.degrees, low=-360, high=360))

    @property
    def options(self) -> int:
        """How many numbers it draws from."""
        return len(self.degrees)

    def move(self, drawn: Array) -> Move:
        """The move that a number below `options` stands for, the first of two."""
        angle = jnp.deg2rad(jnp.asarray(self.degrees, jnp.float32)[drawn[0]])
        return lax.complex(jnp.cos(angle), -jnp.sin(angle)), jnp.complex64(0)


@dataclasses.dataclass(frozen=True)
class Pad:
    """Puts a border of `pixels` in the grey level `fill` around the picture.

    The border shows where a move brings it into the frame, which keeps its size; beyond it all is
    `fill` too. A chain holds one at most; one without reads .5 outside the picture.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import transforms
      >>> chain = (transforms.Pad(9, fill=0.25), transforms.Scale((1e-3,)))
      >>> bool((transforms.apply(chain, 0, jnp.ones((1, 8, 8, 3)))[0, 0] == 0.25).all())
      True
    """

    pixels: int
    fill: float = 0.5

    def __post_init__(self) -> None:
        struct.settle(self, pixels=checks.count("pixels", self.pixels, low=0))
        struct.settle(self, fill=checks.number("fill", self.fill, low=0, high=1))


@dataclasses.dataclass(frozen=True)
class Roll(_Shifted):
    """Rolls the picture by whole pixels, uniformly in ±`pixels` along each axis; it wraps around.

    It is undone in the gradient, so that tiles and convolutions leave no seam in a fixed place. A
    chain may begin with one.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import transforms
      >>> image = jnp.arange(16.0).reshape(1, 4, 4, 1) / 16
      >>> seen = transforms.apply((transforms.Roll(2),), 0, image)
      >>> bool((jnp.sort(seen.ravel()) == image.ravel()).all())
      True

    Reference: google/deepdream, `dream.ipynb` (`make_step`).
    """

    pixels: int

    def rolled(self, drawn: Array, image: Array) -> Array:
        """An image (H, W, C) as two numbers below `options` say."""
        return jnp.roll(image, drawn - self.pixels, axis=(0, 1))


@dataclasses.dataclass(frozen=True)
class RandomCrop:
    """Shows the model square parts of a larger picture, each in a frame of `size` pixels.

    A part's side is a share N(side, spread²) of the picture's, cut off at three spreads and to
    [.05, 1]; its centre lies at .5 + centre·N(0, 1) of the picture along each axis. A chain holds
    one at most; moves before it are of the picture, moves after it of the part.

    Attributes:
      size: height and width that the model is shown, or one number for both.
      side: the mean side, as a share of the picture's (of the side that is the shorter in views).
      spread: its standard deviation.
      centre: the standard deviation of the centre, in sides of the picture.
      count: parts a step, over which an ascent averages.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import transforms
      >>> chain = (transforms.RandomCrop(32, side=0.25),)
      >>> transforms.apply(chain, 0, jnp.ones((2, 128, 128, 3))).shape
      (2, 32, 32, 3)

    Reference: Fel et al. 2023, "Unlocking Feature Visualization for Deeper Networks with MAgnitude
      Constrained Optimization", arXiv:2306.06805.
    """

    size: int | tuple[int, int]
    side: float = 0.25
    spread: float = 0.05
    centre: float = 0.15
    count: int = 1

    def __post_init__(self) -> None:
        struct.settle(self, size=checks.size("size", self.size))
        struct.settle(self, side=checks.number("side", self.side, low=_LEAST, high=1))
        struct.settle(self, spread=checks.number("spread", self.spread, low=0, high=1))
        struct.settle(self, centre=checks.number("centre", self.centre, low=0, high=1))
        struct.settle(self, count=checks.count("count", self.count))

    def draw(self, key: Array, shape: tuple[int, ...]) -> Move:
        """One part of a picture of `shape`."""
        for_side, for_centre = jax.random.split(key)
        away = self.spread * jnp.clip(jax.random.normal(for_side, (), jnp.float32), -3, 3)
        across = self.unit(shape) * jnp.clip(self.side + away, _LEAST, 1)
        rows, columns = self.centre * jax.random.normal(for_centre, (2,), jnp.float32)
        centre = lax.complex(rows * shape[0], columns * shape[1])
        return across.astype(jnp.complex64), centre

    def unit(self, shape: tuple[int, ...]) -> float:
        """Pixels of the picture a pixel of the view, where the part is the whole picture."""
        return min(shape[0] / self.size[0], shape[1] / self.size[1])  # type: ignore[index]

    def zoom(self, shape: tuple[int, ...]) -> float:
        """The most by which a part is ever enlarged."""
        least = max(_LEAST, self.side - 3 * self.spread)
        return 1 / (self.unit(shape) * least)


_LEAST = 0.05


@dataclasses.dataclass(frozen=True)
class Noise:
    """Adds Gaussian noise of standard deviation `sd` to what the model sees, after all moves.

    The result is not clipped to [0, 1]. `sd` is in [0, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import transforms
      >>> seen = transforms.apply((transforms.Noise(0.1),), 0, jnp.full((1, 64, 64, 3), 0.5))
      >>> round(float(seen.std()), 2)
      0.1
    """

    sd: float

    def __post_init__(self) -> None:
        struct.settle(self, sd=checks.number("sd", self.sd, low=0, high=1))

    def seen(self, key: Array, view: Array) -> Array:
        """One draw on a view (H, W, C)."""
        return view + self.sd * jax.random.normal(key, view.shape, view.dtype)


def _numbers(argument: str, given: Any, **bounds: float) -> tuple[float, ...]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"{argument}: a tuple of numbers was expected, given {given!r}")
    numbers = tuple(checks.number(argument, number, **bounds) for number in given)
    if not numbers:
        raise ValueError(f"{argument}: at least one number was expected, given none")
    return numbers
