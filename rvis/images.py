"""How an image is written down while it is optimised: as pixels, or as a decorrelated spectrum."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rvis import checks
from rvis.types import Array, KeyLike, PyTree, as_key

Shape = tuple[int, int, int]


class Parameterization(Protocol):
    """A position, which an optimizer moves, and the image that it stands for.

    Implementations are frozen dataclasses that hash by value, so that they are static under `jit`;
    `init`, `decode` and `encode` are pure functions of one image, to be mapped with `vmap`.
    """

    @property
    def shape(self) -> Shape:
        """(H, W, C) of the image."""

    def init(self, key: KeyLike) -> PyTree:
        """A random position, a pytree of float32."""

    def decode(self, position: PyTree) -> Array:
        """The float32 image (H, W, C) at a position."""

    def encode(self, image: Array) -> PyTree:
        """A position that decodes to `image` (H, W, C) in [0, 1], as nearly as there is one."""


@dataclasses.dataclass(frozen=True)
class Pixel:
    """The position is the image itself.

    Nothing keeps it in [0, 1] here: a projection after each step does.

    Attributes:
      shape: (H, W, C) with C = 1 or 3.
      mean: the grey level that `init` starts from.
      sd: the standard deviation of the Gaussian noise around it; lucid's .01 (tensorflow/lucid,
        `optvis/param/spatial.py`).

    Raises:
      TypeError: naming the argument, for anything but three ints and two numbers.
      ValueError: naming it, for a size below 1, channels other than 1 and 3, `mean` outside [0, 1]
        or `sd` below 0.

    Example:
      >>> from rvis import images
      >>> images.Pixel((28, 28, 1)).init(0).shape
      (28, 28, 1)
    """

    shape: Shape
    mean: float = 0.5
    sd: float = 0.01

    def __post_init__(self) -> None:
        _normalise(self, shape=_checked(self.shape))
        _normalise(self, mean=checks.number("mean", self.mean, low=0, high=1))
        _normalise(self, sd=checks.number("sd", self.sd, low=0, high=1))

    def init(self, key: KeyLike) -> Array:
        """mean + sd·N(0, 1), of shape (H, W, C)."""
        return self.mean + self.sd * jax.random.normal(as_key(key), self.shape, jnp.float32)

    def decode(self, position: Array) -> Array:
        """`position` as it is."""
        return position

    def encode(self, image: Array) -> Array:
        """`image` (H, W, C) as it is.

        Raises:
          ValueError: naming `image`, for another shape.
        """
        return _same_shape(image, self.shape)


# The square root of ImageNet's colour correlation; its columns are decorrelated colours.
_CORRELATION_ROOT = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
_COLOURS = _CORRELATION_ROOT / np.linalg.norm(_CORRELATION_ROOT, axis=0).max()

_MARGIN = 1e-3


@dataclasses.dataclass(frozen=True)
class Fourier:
    """The position is the image's spectrum, scaled so that all frequencies learn equally fast.

    With s(f) = √(W·H) / max(f, 1/max(W, H))^decay, f in cycles per pixel,

        image = sigmoid(irfft2(s · (re + i·im)) / 4 · Mᵀ)

    where M is the colour matrix (three channels with `decorrelate`, else the identity). Steepest
    descent here is descent under another metric in pixels, which favours low frequencies and the
    colours that go together in photographs.

    Attributes:
      shape: (H, W, C) with C = 1 or 3; a position is (2, H, W//2 + 1, C): real and imaginary parts.
      sd: the standard deviation of the coefficients that `init` draws.
      decay: how fast amplitudes fall with frequency; 1 is that of photographs, 0 flat.
      decorrelate: whether to mix three channels through the colour matrix.

    Raises:
      TypeError: naming the argument, for anything of another type.
      ValueError: naming it, for a size below 1, channels other than 1 and 3, `sd` below 0 or
        `decay` outside [0, 4].

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import images
      >>> image = images.Fourier((33, 20, 3))
      >>> image.init(0).shape
      (2, 33, 11, 3)
      >>> grey = jnp.full(image.shape, 0.25)
      >>> bool(jnp.allclose(image.decode(image.encode(grey)), grey, atol=1e-5))
      True

    Reference: Olah, Mordvintsev & Schubert, "Feature Visualization", Distill 2017; and
    tensorflow/lucid, `optvis/param/spatial.py` (`fft_image`) and `color.py`. Where W is odd lucid
    draws one more column of frequencies and crops a pixel; here the transform has the size of the
    image.
    """

    shape: Shape
    sd: float = 0.01
    decay: float = 1.0
    decorrelate: bool = True

    def __post_init__(self) -> None:
        _normalise(self, shape=_checked(self.shape))
        _normalise(self, sd=checks.number("sd", self.sd, low=0, high=1e3))
        _normalise(self, decay=checks.number("decay", self.decay, low=0, high=4))
        if not isinstance(self.decorrelate, bool):
            raise TypeError(f"decorrelate: True or False was expected, given {self.decorrelate!r}")

    def init(self, key: KeyLike) -> Array:
        """sd·N(0, 1), of shape (2, H, W//2 + 1, C)."""
        height, width, channels = self.shape
        shape = (2, height, width // 2 + 1, channels)
        return self.sd * jax.random.normal(as_key(key), shape, jnp.float32)

    def decode(self, position: Array) -> Array:
        """The image (H, W, C) in (0, 1) of a spectrum (2, H, W//2 + 1, C)."""
        real, imaginary = jnp.moveaxis(position * self._scale(), -1, 1)
        planes = jnp.fft.irfft2(lax.complex(real, imaginary), s=self.shape[:2]) / 4
        return jax.nn.sigmoid(jnp.moveaxis(self._mixed(planes, _COLOURS), 0, -1))

    def encode(self, image: Array) -> Array:
        """The spectrum (2, H, W//2 + 1, C) of `image` (H, W, C), clipped to [.001, .999] first.

        Of the many spectra with one image it is the one whose redundant coefficients are
        consistent, so that `decode(encode(image))` is `image` within the clip.

        Raises:
          ValueError: naming `image`, for another shape.
        """
        inside = jnp.clip(_same_shape(image, self.shape), _MARGIN, 1 - _MARGIN)
        planes = jnp.moveaxis(jnp.log(inside) - jnp.log1p(-inside), -1, 0)
        spectrum = jnp.fft.rfft2(4 * self._mixed(planes, np.linalg.inv(_COLOURS)))
        return jnp.moveaxis(jnp.stack([spectrum.real, spectrum.imag]), 1, -1) / self._scale()

    def _mixed(self, planes: Array, matrix: np.ndarray) -> Array:
        """`matrix` applied to the colours of (C, H, W)."""
        if self.shape[2] != 3 or not self.decorrelate:
            return planes
        # Written out: as a matrix product of so narrow a shape it costs a CPU more than the
        # transform does, and an accelerator would keep too few bits of it to be inverted.
        red, green, blue = planes
        weights = matrix.astype(np.float32)
        return jnp.stack([a * red + b * green + c * blue for a, b, c in weights])

    def _scale(self) -> Array:
        height, width, _ = self.shape
        rows = jnp.asarray(np.fft.fftfreq(height), jnp.float32)[None, :, None, None]
        columns = jnp.asarray(np.fft.rfftfreq(width), jnp.float32)[None, None, :, None]
        frequency = jnp.maximum(jnp.sqrt(rows**2 + columns**2), 1 / max(width, height))
        return math.sqrt(width * height) / frequency**self.decay


_KINDS: dict[str, type[Pixel] | type[Fourier]] = {"pixel": Pixel, "fourier": Fourier}


def named(kind: str, shape: Shape) -> Parameterization:
    """The parameterization of that name, with its defaults.

    Args:
      kind: "pixel" or "fourier".
      shape: (H, W, C) with C = 1 or 3.

    Raises:
      ValueError: naming `kind`, for any other, or `shape`.
      TypeError: naming `shape`, for anything but three ints.

    Example:
      >>> from rvis import images
      >>> images.named("fourier", (32, 32, 3))
      Fourier(shape=(32, 32, 3), sd=0.01, decay=1.0, decorrelate=True)
    """
    return _KINDS[checks.choice("kind", kind, _KINDS)](shape)


def _normalise(instance: Any, **values: Any) -> None:
    # Equal descriptions must hash alike, whether a number came as int, float or NumPy scalar.
    for name, value in values.items():
        object.__setattr__(instance, name, value)


def _checked(shape: Any) -> Shape:
    try:
        height, width, channels = shape
    except (TypeError, ValueError) as error:
        raise TypeError(f"shape: (H, W, C) was expected, given {shape!r}") from error
    size = checks.count("shape", height), checks.count("shape", width)
    if checks.count("shape", channels) not in (1, 3):
        raise ValueError(f"shape: 1 or 3 channels last were expected, given {shape!r}")
    return (*size, int(channels))


def _same_shape(image: Array, shape: Shape) -> Array:
    if jnp.shape(image) != shape:
        raise ValueError(f"image: {shape} was expected, given {jnp.shape(image)}")
    return jnp.asarray(image, jnp.float32)
