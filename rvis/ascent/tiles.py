"""How a model sees an image that is too large for it at once: tile by tile, on a shifted torus."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from rvis import struct
from rvis.types import Array


@struct.dataclass
class Tiles:
    """Tiles of one shape, whatever the size of the image, so that all sizes share a program.

    Attributes:
      side: (rows, columns) of a tile.
      size: (2,) rows and columns of the image, at least `side`; what lies beyond is not looked at.
      reach: each step shifts the image by up to so many pixels along each axis, around its edges.
    """

    side: tuple[int, int] = struct.static()
    size: Array
    reach: Array

    def climb(
        self, pictures: Array, key: Array, score: Callable[[Array], Array]
    ) -> tuple[Array, Array]:
        """The mean score of all tiles, and the tiles' gradients put together.

        Where tiles overlap, the mean of their gradients counts.

        Args:
          pictures: (facets, H, W, C), of which `size` is looked at.
          key: of the shift.
          score: of a tile (facets, rows, columns, C).
        """
        size, side = self.size, jnp.asarray(self.side, jnp.int32)
        counts = -(-size // side)
        shift = jax.random.randint(key, (2,), -self.reach, self.reach + 1, jnp.int32)
        seen = self._shifted(pictures, shift)
        shape = (len(pictures), *self.side, pictures.shape[-1])

        def tile(i: Array, carried: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            gradients, cover, total = carried
            number = jnp.stack([i // counts[1], i % counts[1]])
            row, column = (size - side) * number // jnp.maximum(counts - 1, 1)
            place = (jnp.zeros_like(row), row, column, jnp.zeros_like(row))
            one, slope = jax.value_and_grad(score)(lax.dynamic_slice(seen, place, shape))
            before = (
                lax.dynamic_slice(a, place, (len(a), *shape[1:3], a.shape[-1]))
                for a in (gradients, cover)
            )
            gradients, cover = (
                lax.dynamic_update_slice(whole, part + more, place)
                for whole, part, more in zip((gradients, cover), before, (slope, 1.0), strict=True)
            )
            return gradients, cover, total + one

        count = counts.prod()
        start = jnp.zeros_like(seen), jnp.zeros_like(seen[:1, ..., :1]), jnp.float32(0)
        gradients, cover, total = lax.fori_loop(0, count, tile, start)
        return total / count, self._shifted(gradients / jnp.maximum(cover, 1), -shift)

    def _shifted(self, pictures: Array, shift: Array) -> Array:
        for axis, by in enumerate(shift, 1):
            places = jnp.arange(pictures.shape[axis], dtype=jnp.int32)
            size = self.size[axis - 1]
            around = jnp.where(places < size, (places - by) % size, places)
            pictures = jnp.take(pictures, around, axis)
        return pictures
