"""Genomes that are pictures: every pixel a gene."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from rvis import struct
from rvis.types import Array


@struct.dataclass
class Direct:
    """Pixels as genes in [0, 1]; simulated binary crossover and polynomial mutation.

    Fewer and larger mutations than in the paper, which has 0.1, 15, 0.5 and 10 for these rates: on
    `mnist_cnn`, 200 generations of 200 reach a median confidence of 99.997 % instead of 99.85 %.

    Attributes:
      shape: (H, W, C) of the picture.
      mutation: the share of genes that mutate.
      eta_mutation: the distribution index of mutation; the higher, the smaller the changes.
      crossover: the share of pairs of parents that are crossed; the others are copied.
      eta_crossover: the distribution index of crossover.

    Reference: Deb 2001, pp. 113 and 124; Nguyen et al. 2014, section 2.3.
    """

    shape: tuple[int, int, int] = struct.static()
    mutation: Array | float = 0.03
    eta_mutation: Array | float = 1.0
    crossover: Array | float = 0.1
    eta_crossover: Array | float = 10.0

    def init(self, key: Array) -> Array:
        """A genome, (H, W, C): uniform noise."""
        return jax.random.uniform(key, self.shape, jnp.float32)

    def picture(self, genome: Array) -> Array:
        """(H, W, C) in [0, 1]."""
        return genome

    def cross(self, key: Array, one: Array, other: Array) -> tuple[Array, Array]:
        """Two children of two parents."""
        # One call for all that is random: every call costs compilation time.
        size = math.prod(self.shape)
        draws = jax.random.uniform(key, (2 * size + 1,), jnp.float32)
        low, high = jnp.minimum(one, other), jnp.maximum(one, other)
        gap = high - low
        apart = gap > float(jnp.finfo(jnp.float32).eps)
        gap = jnp.where(apart, gap, 1)
        draw, swapped = draws[:size].reshape(self.shape), draws[size:-1].reshape(self.shape) < 0.5
        near = (low + high) / 2 - self._spread(draw, low / gap) * gap / 2
        far = (low + high) / 2 + self._spread(draw, (1 - high) / gap) * gap / 2
        near, far = jnp.clip(near, 0, 1), jnp.clip(far, 0, 1)
        crossed = apart & (draws[-1] < self.crossover)
        return (
            jnp.where(crossed, jnp.where(swapped, far, near), one),
            jnp.where(crossed, jnp.where(swapped, near, far), other),
        )

    def _spread(self, draw: Array, room: Array) -> Array:
        """How far a child lies from its parents' middle, in halves of their distance.

        Args:
          draw: uniform in [0, 1].
          room: between a parent and the end of the gene's range, in distances of the parents.
        """
        power = 1 / (self.eta_crossover + 1.0)
        mass = 2 - (1 + 2 * room) ** -(self.eta_crossover + 1.0)
        inner, outer = draw * mass, 1 / jnp.maximum(2 - draw * mass, 1e-7)
        return jnp.where(inner <= 1, inner, outer) ** power

    def mutate(self, key: Array, genome: Array) -> Array:
        """The genome with some genes changed."""
        where, draw = jax.random.uniform(key, (2, *self.shape), jnp.float32)
        return jnp.where(where < self.mutation, polynomial(draw, genome, self.eta_mutation), genome)


def polynomial(draw: Array, genes: Array, eta: Array | float) -> Array:
    """Genes in [0, 1] after polynomial mutation: steps of the order of 1/η, both ways alike.

    Args:
      draw: uniform in [0, 1], of the genes' shape.
      genes: (...).
      eta: the distribution index.

    Reference: Deb 2001, p. 124.
    """
    side = jnp.minimum(draw, 1 - draw)
    length = 1 - (2 * side) ** (1 / (eta + 1.0))
    return jnp.clip(genes + jnp.where(draw < 0.5, -length, length), 0, 1)
