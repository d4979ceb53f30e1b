"""A look at an image: what the model makes of it, in 8 bits or several draws where asked for."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp

from rvis import struct
from rvis.ascent import Problem, energy
from rvis.attacks.geometry import length
from rvis.attacks.losses import Outcome
from rvis.attacks.request import Drawing, bound
from rvis.types import Array, Model


class Look(NamedTuple):
    """What a step has learned of one image (1, H, W, C)."""

    image: Array
    outcome: Outcome


@struct.dataclass
class Rounded:
    """A ball whose images are looked at in the 8 bits in which they can be saved.

    Positions in it are of any value, so that short steps add up.
    """

    ball: Any

    @property
    def centre(self) -> Array:
        """That of the ball, of 8 bits."""
        return cast(Array, self.ball.centre)

    @property
    def radius(self) -> Array:
        """That of the ball."""
        return cast(Array, self.ball.radius)

    def project(self, x: Array) -> Array:
        """As the ball."""
        return cast(Array, self.ball.project(x))

    def rounded(self, x: Array) -> Array:
        """The nearest levels, or where they leave the ball those on the side of the centre."""
        nearest = jnp.round(255 * x) / 255
        delta = 255 * (x - self.centre)
        levels = jnp.round(255 * self.centre) + jnp.trunc(delta + 1e-3 * jnp.sign(delta))
        inside = (self.project(nearest) == nearest).all()
        return jnp.clip(jnp.where(inside, nearest, levels / 255), 0, 1)


def shown(images: Array, problem: Problem) -> Array:
    """What the model is shown of (1, H, W, C)."""
    if isinstance(problem.constraint, Rounded):
        return problem.constraint.rounded(images)
    return images


def look(images: Array, key: Array, model: Model, problem: Problem) -> tuple[Array, Outcome]:
    """What is maximised at (1, H, W, C), a number, and the outcome there."""
    if isinstance(problem.constraint, Rounded):  # whose gradient goes straight through
        images = images + jax.lax.stop_gradient(shown(images, problem) - images)
    if not isinstance(model.apply, Drawing):
        total, outcome = energy(images, key, model, problem)
        return total, cast(Outcome, outcome)

    def one(key: Array) -> tuple[Array, Array]:
        return energy(images, key, bound(model, key), problem)

    found = jax.vmap(one)(jax.random.split(key, model.apply.draws))
    return cast(tuple[Array, Outcome], jax.tree.map(lambda leaf: leaf.mean(0), found))


def nearest(image: Array, outcome: Outcome, problem: Problem, norm: str) -> Outcome:
    """The outcome at (1, H, W, C) where what counts is to be near; none outside of its ball."""
    ball, image = problem.constraint, shown(image, problem)
    inside = (ball.project(image) == image).all()
    distance = length(image - ball.centre, norm)
    return Outcome(-distance, jnp.where(inside, outcome.margin, -jnp.inf), outcome.least)


def loss_gradient(
    images: Array, key: Array, model: Model, problem: Problem
) -> tuple[Array, Outcome]:
    """The gradient of what is maximised at (1, H, W, C), and the outcome there."""
    return jax.grad(look, has_aux=True)(images, key, model, problem)
