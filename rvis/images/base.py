"""What every parameterization is, and the checks and colours that they share."""

from __future__ import annotations

from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np

from rvis import checks
from rvis.types import Array, KeyLike, PyTree

Shape = tuple[int, int, int]
"""(height, width, channels)."""


class Parameterization(Protocol):
    """A position, which an optimizer moves, and the picture that it stands for.

    Implementations are frozen dataclasses that hash by value, so that they are static under `jit`;
    `init`, `decode` and `encode` are pure functions of one picture, to be mapped with `vmap`.

    A picture that is no image by itself, such as one with transparency, has a further method
    `composite(key, picture)`, which gives the image (H, W, C) that a model is shown of it.

    A generator network of yours is one, whose position is its input:

        @dataclasses.dataclass(frozen=True, eq=False)  # told apart by identity: its weights are
        class Generator:                               # constants of the compiled program
            module: nn.Module
            variables: dict
            shape: tuple[int, int, int]

            def init(self, key):
                return jax.random.normal(key, (64,))

            def decode(self, position):
                return self.module.apply(self.variables, position)

            def encode(self, image):
                raise ValueError("start: an image to start from was given, which …")

        rvis.visualize(model, objective, image=Generator(decoder, variables, (32, 32, 3)))
    """

    @property
    def shape(self) -> Shape:
        """(H, W, C) of the picture."""

    def init(self, key: KeyLike) -> PyTree:
        """A random position, a pytree of float32."""

    def decode(self, position: PyTree) -> Array:
        """The float32 picture (H, W, C) at a position."""

    def encode(self, image: Array) -> PyTree:
        """A position that decodes to `image` (H, W, C) in [0, 1], as nearly as there is one.

        ValueError, naming `start`, where the parameterization cannot write a given image down.
        """


def logit(image: Array) -> Array:
    """The inverse of the sigmoid, of an image clipped to [.001, .999]."""
    inside = jnp.clip(image, 1e-3, 1 - 1e-3)
    return jnp.log(inside) - jnp.log1p(-inside)


def mixed(planes: Array, matrix: np.ndarray) -> Array:
    """`matrix` (C, C) applied to the colours of (C, H, W)."""
    if len(matrix) == 1:
        return planes * np.float32(matrix[0, 0])
    # Written out: as a matrix product of so narrow a shape it costs a CPU more than the transform
    # does, and an accelerator would keep too few bits of it to be inverted.
    red, green, blue = planes
    weights = matrix.astype(np.float32)
    return jnp.stack([a * red + b * green + c * blue for a, b, c in weights])


def checked(shape: Any) -> Shape:
    """`shape` as (H, W, C), three ints of at least 1."""
    try:
        height, width, channels = shape
    except (TypeError, ValueError) as error:
        raise TypeError(f"shape: (H, W, C) was expected, given {shape!r}") from error
    size = checks.count("shape", height), checks.count("shape", width)
    return (*size, checks.count("shape", channels))


def same_shape(image: Array, shape: Shape) -> Array:
    """`image` as float32, where it has that shape."""
    if jnp.shape(image) != shape:
        raise ValueError(f"image: {shape} was expected, given {jnp.shape(image)}")
    return jnp.asarray(image, jnp.float32)
