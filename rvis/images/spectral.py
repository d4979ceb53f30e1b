"""Images written down as spectra: all of one, or its phase alone."""

from __future__ import annotations

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rvis import checks, struct
from rvis.images import statistics
from rvis.images.base import Shape, checked, logit, mixed, same_shape
from rvis.images.statistics import Statistics
from rvis.types import Array, KeyLike, as_key


@dataclasses.dataclass(frozen=True)
class Fourier:
    """The position is the image's spectrum, scaled so that all frequencies learn equally fast.

    With s(f) = √(W·H) / max(f, 1/max(W, H))^decay, f in cycles per pixel,

        image = sigmoid(irfft2(s · (re + i·im)) / 4 · Mᵀ)

    where M is the colour matrix (three channels with `decorrelate`, else the identity). So low
    frequencies, and colours that go together in photographs, are favoured.

    Attributes:
      shape: (H, W, C); a position is (2, H, W//2 + 1, C): real and imaginary parts.
      sd: the standard deviation of the coefficients that `init` draws.
      decay: how fast amplitudes fall with frequency; 1 is that of photographs, 0 flat.
      decorrelate: whether to mix three channels through the colour matrix.
      statistics: whose colours; a name of `statistics.NAMES`, or those of your own images.

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
    tensorflow/lucid, `optvis/param/spatial.py` (`fft_image`) and `color.py`.
    """

    shape: Shape
    sd: float = 0.01
    decay: float = 1.0
    decorrelate: bool = True
    statistics: str | Statistics = "imagenet"

    def __post_init__(self) -> None:
        struct.settle(self, shape=checked(self.shape))
        struct.settle(self, sd=checks.number("sd", self.sd, low=0, high=1e3))
        checks.flag("decorrelate", self.decorrelate)
        struct.settle(self, decay=checks.number("decay", self.decay, low=0, high=4))
        if self._coloured:
            statistics.get(self.statistics, channels=3)

    @property
    def _coloured(self) -> bool:
        return self.shape[2] == 3 and self.decorrelate

    def init(self, key: KeyLike) -> Array:
        """sd·N(0, 1), of shape (2, H, W//2 + 1, C)."""
        height, width, channels = self.shape
        shape = (2, height, width // 2 + 1, channels)
        return self.sd * jax.random.normal(as_key(key), shape, jnp.float32)

    def decode(self, position: Array) -> Array:
        """The image (H, W, C) in (0, 1) of a spectrum (2, H, W//2 + 1, C)."""
        real, imaginary = jnp.moveaxis(position * self._scale(), -1, 1)
        planes = jnp.fft.irfft2(lax.complex(real, imaginary), s=self.shape[:2]) / 4
        if self._coloured:
            planes = mixed(planes, statistics.get(self.statistics).matrix)
        return jax.nn.sigmoid(jnp.moveaxis(planes, 0, -1))

    def encode(self, image: Array) -> Array:
        """The spectrum (2, H, W//2 + 1, C) of `image` (H, W, C), clipped to [.001, .999] first."""
        planes = jnp.moveaxis(logit(same_shape(image, self.shape)), -1, 0)
        if self._coloured:
            planes = mixed(planes, statistics.get(self.statistics).inverse)
        spectrum = jnp.fft.rfft2(4 * planes)
        return jnp.moveaxis(jnp.stack([spectrum.real, spectrum.imag]), 1, -1) / self._scale()

    def _scale(self) -> Array:
        height, width, _ = self.shape
        rows = jnp.asarray(np.fft.fftfreq(height), jnp.float32)[None, :, None, None]
        columns = jnp.asarray(np.fft.rfftfreq(width), jnp.float32)[None, None, :, None]
        frequency = jnp.maximum(jnp.sqrt(rows**2 + columns**2), 1 / max(width, height))
        return math.sqrt(width * height) / frequency**self.decay


@dataclasses.dataclass(frozen=True)
class MACO:
    """The position is a phase; the magnitude of each frequency is that of real images.

    With r the mean magnitude spectrum of decorrelated colours over a data set, m its mean colour
    and M its colour matrix,

        image = sigmoid(logit(m) + irfft2(r·exp(i·phase)) · Mᵀ / (m·(1 − m)))

    so that, to first order, the picture has the data's mean, contrast, colours and sharpness at
    every step, and only where things are is left to be optimized. A coefficient that is real, such
    as the constant one, is r·cos(phase): it may be anything up to its magnitude.
    `rvis.visualize` climbs with NAdam at a quarter. The article shows the network parts of a larger
    picture (`transforms.maco`).

    Attributes:
      shape: (H, W, C) with C = 1 or 3; a position is (H, W//2 + 1, C), in radians.
      statistics: whose magnitudes and colours; a name of `statistics.NAMES` that has a spectrum, or
        those of your own images. By default "tiny_imagenet" for three channels and "mnist" for one.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import images
      >>> image = images.MACO((32, 32, 3), statistics="cifar10")
      >>> picture = image.decode(image.init(0))
      >>> again = image.decode(image.encode(picture))
      >>> bool(jnp.allclose(picture, again, atol=1e-4))
      True

    Reference: Fel et al., "Unlocking Feature Visualization for Deeper Networks with MAgnitude
    Constrained Optimization", 2023, equation 4; serre-lab/Horama, `maco_fv.py`, which standardises
    phases and image, in the place of which the mean and contrast of the data stand here.
    """

    shape: Shape
    statistics: str | Statistics | None = None

    def __post_init__(self) -> None:
        struct.settle(self, shape=checked(self.shape))
        if self.shape[2] not in (1, 3):
            raise ValueError(f"shape: 1 or 3 channels last were expected, given {self.shape!r}")
        if self.statistics is None:
            struct.settle(self, statistics="mnist" if self.shape[2] == 1 else "tiny_imagenet")
        self._data()

    def _data(self) -> Statistics:
        assert self.statistics is not None
        return statistics.get(self.statistics, channels=self.shape[2], spectrum=True)

    def init(self, key: KeyLike) -> Array:
        """Phases drawn uniformly from ±π, of shape (H, W//2 + 1, C)."""
        height, width, channels = self.shape
        shape = (height, width // 2 + 1, channels)
        return jax.random.uniform(as_key(key), shape, jnp.float32, -math.pi, math.pi)

    def decode(self, position: Array) -> Array:
        """The image (H, W, C) in (0, 1) of a phase (H, W//2 + 1, C)."""
        height, width, _ = self.shape
        data = self._data()
        paired, real = (np.moveaxis(mask, -1, 0) for mask in _redundant(height, width))
        magnitude = np.moveaxis(data.magnitude(height, width), -1, 0)
        phase = jnp.moveaxis(position, -1, 0)
        # The first and the last column hold each frequency and its mirror image, which have
        # opposite phases in a real image.
        mirrored = jnp.roll(phase[:, ::-1], 1, axis=1)
        phase = jnp.where(paired, (phase - mirrored) / 2, phase)
        spectrum = lax.complex(
            magnitude * jnp.cos(phase), np.where(real, 0, magnitude) * jnp.sin(phase)
        )
        planes = jnp.fft.irfft2(spectrum, s=(height, width), norm="ortho")
        logits = jnp.moveaxis(mixed(planes, data.matrix), 0, -1) / _slope(data)
        return jax.nn.sigmoid(logits + _middle(data))

    def encode(self, image: Array) -> Array:
        """The phase of `image` (H, W, C), clipped to [.001, .999] first, of any magnitudes."""
        data = self._data()
        logits = logit(same_shape(image, self.shape)) - _middle(data)
        planes = mixed(jnp.moveaxis(logits * _slope(data), -1, 0), data.inverse)
        spectrum = jnp.moveaxis(jnp.fft.rfft2(planes, norm="ortho"), 0, -1)
        magnitude = np.maximum(data.magnitude(*self.shape[:2]), np.finfo(np.float32).tiny)
        share = jnp.clip(spectrum.real / magnitude, -1, 1)
        _, real = _redundant(*self.shape[:2])
        return jnp.where(real, jnp.arccos(share), jnp.angle(spectrum))


def _middle(data: Statistics) -> np.ndarray:
    return np.log(data.mean / (1 - data.mean)).astype(np.float32).reshape(1, 1, -1)


def _slope(data: Statistics) -> np.ndarray:
    return (data.mean * (1 - data.mean)).astype(np.float32).reshape(1, 1, -1)


@functools.lru_cache(maxsize=64)
def _redundant(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Where `rfft2` holds both of a conjugate pair, and where a coefficient is real; (H, W', 1)."""
    columns = np.arange(width // 2 + 1) % (width / 2) == 0
    rows = np.arange(height) % (height / 2) == 0
    real = columns & rows[:, None]
    return (columns & ~rows[:, None])[..., None], real[..., None]
