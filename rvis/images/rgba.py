"""Pictures with transparency, shown to the model over a background that changes at every step."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from rvis import checks, struct
from rvis.images.base import Parameterization, Shape, same_shape
from rvis.images.spatial import Pixel
from rvis.images.spectral import Fourier
from rvis.types import Array, KeyLike, PyTree, as_key


@dataclasses.dataclass(frozen=True)
class RGBA:
    """A picture and how opaque it is, each a parameterization of its own.

    The model is shown α·colour + (1 − α)·background with a random Fourier image as background,
    another at every step: what the objective does not hang on has no reason to be opaque, and
    `regularizers.opacity` takes it away.

    Attributes:
      colour: any parameterization that keeps to [0, 1]; a position is {"colour": its position,
        "alpha": that of `Fourier((H, W, 1))`}.
      background: standard deviation of the background's coefficients; lucid's .5.

    Example:
      >>> from rvis import images
      >>> image = images.RGBA(images.Fourier((32, 32, 3)))
      >>> picture = image.decode(image.init(0))
      >>> picture.shape, image.composite(1, picture).shape
      ((32, 32, 4), (32, 32, 3))

    Reference: Mordvintsev, Pezzotti, Schubert & Olah, "Differentiable Image Parameterizations",
    Distill 2018; tensorflow/lucid, `optvis/transform.py` (`collapse_alpha_random`).
    """

    colour: Parameterization
    background: float = 0.5

    def __post_init__(self) -> None:
        unfit = isinstance(self.colour, (Pixel, RGBA))
        if unfit or not hasattr(self.colour, "decode"):
            raise TypeError(
                "colour: a parameterization that keeps to [0, 1], such as Fourier, was expected, "
                f"given {self.colour!r}"
            )
        behind = checks.number("background", self.background, low=0, high=1e3)
        struct.settle(self, background=behind)

    @property
    def shape(self) -> Shape:
        """(H, W, C + 1) of the picture; opacity is the last channel."""
        height, width, channels = self.colour.shape
        return height, width, channels + 1

    @property
    def _alpha(self) -> Fourier:
        return Fourier((*self.shape[:2], 1))

    def init(self, key: KeyLike) -> dict[str, PyTree]:
        """A random position of each; half opaque but for the noise."""
        key = as_key(key)
        return {
            "colour": self.colour.init(key),
            "alpha": self._alpha.init(jax.random.fold_in(key, 1)),
        }

    def decode(self, position: dict[str, PyTree]) -> Array:
        """The picture (H, W, C + 1) in (0, 1), not multiplied by its opacity."""
        return jnp.concatenate(
            [self.colour.decode(position["colour"]), self._alpha.decode(position["alpha"])], -1
        )

    def encode(self, image: Array) -> dict[str, PyTree]:
        """The positions of `image` (H, W, C + 1) in colour and opacity."""
        picture = same_shape(image, self.shape)
        return {
            "colour": self.colour.encode(picture[..., :-1]),
            "alpha": self._alpha.encode(picture[..., -1:]),
        }

    def composite(self, key: KeyLike, picture: Array) -> Array:
        """The image (H, W, C) that a model is shown: `picture` over a random background."""
        behind = Fourier(self.colour.shape, sd=self.background)
        colour, alpha = picture[..., :-1], picture[..., -1:]
        return alpha * colour + (1 - alpha) * behind.decode(behind.init(key))
