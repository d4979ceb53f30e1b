"""Pictures of a group that have a part in common, so that they stay aligned."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from rvis.images.base import Shape
from rvis.images.spatial import Pyramid
from rvis.images.spectral import Fourier
from rvis.types import Array, KeyLike, PyTree


@dataclasses.dataclass(frozen=True)
class Shared:
    """Each picture of a group (`facets`) is a part of its own and a part that all have in common.

    A picture decodes from the mean of both parts, in the spectrum of a `Fourier` image or the
    octaves of a `Pyramid`, so that steps move it as far as if it had no part in common. What raises
    the score of all pictures grows in the common part, which each of them pulls at; so forms keep
    their places where objectives change from picture to picture, as along `objectives.interpolate`.

    Attributes:
      own: `Fourier` or `Pyramid`; a position is {"own": its position, "common": its position}. Of
        `common` the mean over the group counts.

    Raises:
      TypeError: naming `own`, for another parameterization: the positions of others do not add up.

    Example:
      >>> from rvis import images
      >>> aligned = images.Shared(images.Fourier((28, 28, 1)))
      >>> {part: leaf.shape for part, leaf in aligned.init(0).items()}
      {'own': (2, 28, 15, 1), 'common': (2, 28, 15, 1)}

    With `model` and `path = interpolate(logit(3), logit(8))` of `rvis.objectives`:
    `rvis.visualize(model, path, image=aligned, facets=5)`.

    Reference: Mordvintsev, Pezzotti, Schubert & Olah, "Differentiable Image Parameterizations",
    Distill 2018, "Aligned feature visualization interpolation"; tensorflow/lucid,
    `optvis/param/lowres.py` and `recipes/image_interpolation_params.py`, whose common tensors are
    octaves such as those of a `Pyramid`; its notebooks take half the sum as well.
    """

    own: Fourier | Pyramid

    def __post_init__(self) -> None:
        if not isinstance(self.own, (Fourier, Pyramid)):
            raise TypeError(f"own: a Fourier or a Pyramid was expected, given {self.own!r}")

    @property
    def shape(self) -> Shape:
        """(H, W, C) of each picture."""
        return self.own.shape

    def init(self, key: KeyLike) -> dict[str, PyTree]:
        """Noise in each picture's own part; the common one starts from zero."""
        own = self.own.init(key)
        return {"own": own, "common": jax.tree.map(jnp.zeros_like, own)}

    def together(self, position: dict[str, PyTree]) -> dict[str, PyTree]:
        """A group's position, leaves (n, ...), with the mean of the common parts in each."""

        def mean(leaf: Array) -> Array:
            return jnp.broadcast_to(leaf.mean(0, keepdims=True), leaf.shape)

        return {**position, "common": jax.tree.map(mean, position["common"])}

    def decode(self, position: dict[str, PyTree]) -> Array:
        """The picture (H, W, C) in (0, 1) of one position."""
        both = jax.tree.map(lambda a, b: (a + b) / 2, position["own"], position["common"])
        return self.own.decode(both)

    def encode(self, image: Array) -> dict[str, PyTree]:
        """`image` (H, W, C) as a picture's own part, with nothing in common.

        Raises:
          ValueError: naming `image`, for another shape.
        """
        own = jax.tree.map(lambda leaf: 2 * leaf, self.own.encode(image))
        return {"own": own, "common": jax.tree.map(jnp.zeros_like, own)}
