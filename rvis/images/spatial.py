"""Images written down in space: as pixels, or as a sum of octaves."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from rvis import checks, struct
from rvis.images import statistics
from rvis.images.base import Shape, checked, logit, mixed, same_shape
from rvis.images.statistics import Statistics
from rvis.types import Array, KeyLike, as_key


@dataclasses.dataclass(frozen=True)
class Pixel:
    """The position is the image itself.

    Nothing keeps it in [0, 1] here: a projection after each step does.

    Attributes:
      shape: (H, W, C).
      mean: the grey level that `init` starts from.
      sd: the standard deviation of the Gaussian noise around it; lucid's .01 (tensorflow/lucid,
        `optvis/param/spatial.py`).

    Example:
      >>> from rvis import images
      >>> images.Pixel((28, 28, 1)).init(0).shape
      (28, 28, 1)
    """

    shape: Shape
    mean: float = 0.5
    sd: float = 0.01

    def __post_init__(self) -> None:
        struct.settle(self, shape=checked(self.shape))
        struct.settle(self, mean=checks.number("mean", self.mean, low=0, high=1))
        struct.settle(self, sd=checks.number("sd", self.sd, low=0, high=1))

    def init(self, key: KeyLike) -> Array:
        """mean + sd·N(0, 1), of shape (H, W, C)."""
        return self.mean + self.sd * jax.random.normal(as_key(key), self.shape, jnp.float32)

    def decode(self, position: Array) -> Array:
        """`position` as it is."""
        return position

    def encode(self, image: Array) -> Array:
        """`image` (H, W, C) as it is."""
        return same_shape(image, self.shape)


@dataclasses.dataclass(frozen=True)
class Pyramid:
    """The position is a Laplacian pyramid: images at falling resolution, enlarged and added up.

    With U_k the bilinear enlargement of octave k, which has ⌊H/2^k⌋×⌊W/2^k⌋ pixels (one at least),

        image = sigmoid(Σ_k U_k p_k · Mᵀ)

    where M is the colour matrix (three channels with `decorrelate`, else the identity). A step of
    Adam moves every octave alike, so that large forms grow as fast as fine ones.

    Attributes:
      shape: (H, W, C); a position is a tuple of `levels` arrays (h, w, C), the finest first.
      levels: how many octaves; lucid's 4.
      sd: the standard deviation of the noise that `init` draws for each.
      decorrelate: whether to mix three channels through the colour matrix.
      statistics: whose colours; a name of `statistics.NAMES`, or those of your own images.

    Example:
      >>> from rvis import images
      >>> pyramid = images.Pyramid((33, 20, 3))
      >>> [octave.shape for octave in pyramid.init(0)]
      [(33, 20, 3), (16, 10, 3), (8, 5, 3), (4, 2, 3)]

    Reference: tensorflow/lucid, `optvis/param/spatial.py` (`laplacian_pyramid_image`); Burt &
    Adelson, "The Laplacian Pyramid as a Compact Image Code", 1983.
    """

    shape: Shape
    levels: int = 4
    sd: float = 0.01
    decorrelate: bool = True
    statistics: str | Statistics = "imagenet"

    def __post_init__(self) -> None:
        struct.settle(self, shape=checked(self.shape))
        struct.settle(self, levels=checks.count("levels", self.levels))
        struct.settle(self, sd=checks.number("sd", self.sd, low=0, high=1e3))
        checks.flag("decorrelate", self.decorrelate)
        if self._coloured:
            statistics.get(self.statistics, channels=3)

    @property
    def _coloured(self) -> bool:
        return self.shape[2] == 3 and self.decorrelate

    def _octaves(self) -> list[Shape]:
        height, width, channels = self.shape
        return [
            (max(1, height >> level), max(1, width >> level), channels)
            for level in range(self.levels)
        ]

    def init(self, key: KeyLike) -> tuple[Array, ...]:
        """sd·N(0, 1) for each octave."""
        keys = jax.random.split(as_key(key), self.levels)
        return tuple(
            self.sd * jax.random.normal(k, octave, jnp.float32)
            for k, octave in zip(keys, self._octaves(), strict=True)
        )

    def decode(self, position: tuple[Array, ...]) -> Array:
        """The image (H, W, C) in (0, 1) of a pyramid."""
        finest, *coarser = position
        total = finest + sum(self._enlarged(octave) for octave in coarser)
        if not self._coloured:
            return jax.nn.sigmoid(total)
        matrix = statistics.get(self.statistics).matrix
        return jax.nn.sigmoid(jnp.moveaxis(mixed(jnp.moveaxis(total, -1, 0), matrix), 0, -1))

    def encode(self, image: Array) -> tuple[Array, ...]:
        """The pyramid of `image` (H, W, C), clipped to [.001, .999] first.

        From the coarsest octave on, each holds what those before have left, reduced to its size;
        the finest holds the rest, so that `decode(encode(image))` is `image` within the clip.
        """
        rest = logit(same_shape(image, self.shape))
        if self._coloured:
            inverse = statistics.get(self.statistics).inverse
            rest = jnp.moveaxis(mixed(jnp.moveaxis(rest, -1, 0), inverse), 0, -1)
        octaves = []
        for shape in reversed(self._octaves()[1:]):
            octaves.append(jax.image.resize(rest, shape, "linear"))
            rest = rest - self._enlarged(octaves[-1])
        return (rest, *reversed(octaves))

    def _enlarged(self, octave: Array) -> Array:
        return jax.image.resize(octave, self.shape, "linear")
