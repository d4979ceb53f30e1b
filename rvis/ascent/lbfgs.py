"""Descent by limited-memory BFGS inside the box, in the form of the one step."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from rvis import struct
from rvis.ascent.step import AscentInfo, Problem, energy
from rvis.images import Pixel
from rvis.types import Array, Model


@struct.dataclass
class BoxState:
    """Where a descent stands.

    Attributes:
      step: how many evaluations there were.
      point: (1, H, W, C), the last accepted.
      gradient: there, of what is minimised.
      value: there; inf before the first evaluation.
      direction: of the search in hand.
      length: of the step along it that the next evaluation tries.
      moves: (memory, H·W·C) differences of accepted points, the newest last; 0 where there are
        fewer.
      turns: likewise, of their gradients.
    """

    step: Array
    point: Array
    gradient: Array
    value: Array
    direction: Array
    length: Array
    moves: Array
    turns: Array


@struct.dataclass
class BoxLBFGS:
    """Limited-memory BFGS inside [0, 1]: a two-metric projection, one evaluation a step.

    Coordinates that lie on a bound and would leave it are held. The two-loop recursion, over the
    free coordinates of the remembered differences, gives a direction; points of the path
    clip(x + α·d) are tried with α = 1, ½, ¼ … until one satisfies Armijo's condition. A step is one
    such trial, so that many images run side by side however long the search of each is.

    Attributes:
      image: the positions, which are the images.
      memory: differences remembered.

    Reference: Bertsekas 1982, Projected Newton methods for optimization problems with simple
      constraints; Nocedal & Wright 2006, Numerical Optimization, algorithm 7.4; Schmidt, Kim & Sra
      2011, Projected Newton-type methods in machine learning, section 3.
    """

    image: Pixel = struct.static()
    memory: int = struct.static(default=10)

    @property
    def pixels(self) -> int:
        """What the engine goes by: the picture, and as many pixels for what is remembered."""
        height, width, _ = self.image.shape
        return 2 * height * width

    def init(self, key: Array, position: Array | None = None) -> BoxState:
        """At the image (1, H, W, C) of `position`, which there must be."""
        del key
        assert position is not None
        still = jnp.zeros_like(position)
        history = jnp.zeros((self.memory, position.size), jnp.float32)
        inf, one = jnp.float32(jnp.inf), jnp.float32(1)
        return BoxState(jnp.int32(0), position, still, inf, still, one, history, history)

    def finish(self, state: BoxState, model: Model, problem: Problem) -> Array:
        """What a run gives: `images`."""
        return self.images(state)

    def images(self, state: BoxState) -> Array:
        """The point that the next step evaluates, (1, H, W, C)."""
        return self.trial(state)

    def trial(self, state: BoxState) -> Array:
        """The point that the next step evaluates, whatever `images` shows."""
        return jnp.clip(state.point + state.length * state.direction, 0, 1)

    def step(
        self, key: Array, state: BoxState, model: Model, problem: Problem
    ) -> tuple[BoxState, AscentInfo]:
        """One evaluation; its info: the score of the trial, the energy of what is accepted."""

        def cost(images: Array) -> tuple[Array, Array]:
            total, score = energy(images, key, model, problem)
            return -total, score

        trial = self.trial(state)
        (value, score), gradient = jax.value_and_grad(cost, has_aux=True)(trial)
        move = trial - state.point
        first = jnp.isinf(state.value)
        # Where the clip turned a move uphill, no rise is accepted for it.
        fall = jnp.minimum(jnp.vdot(state.gradient, move), 0)
        accepted = first | (value <= state.value + _ARMIJO * fall)
        turn = gradient - state.gradient
        curved = jnp.vdot(move, turn) > _CURVED * jnp.linalg.norm(move) * jnp.linalg.norm(turn)
        remembered = accepted & curved & ~first
        # Where no step is short enough, what is remembered is no help.
        lost = ~accepted & (state.length < _SHORTEST)

        # Row by row: all that is remembered is far larger than the rest, and copies of it count.
        def pushed(history: Array, latest: Array) -> Array:
            def shifted(i: Array, rows: Array) -> Array:
                after = jnp.where(i + 1 < self.memory, rows[i + 1], latest.reshape(-1))
                return rows.at[i].set(jnp.where(remembered, after, jnp.where(lost, 0, rows[i])))

            return lax.fori_loop(0, self.memory, shifted, history)

        moves, turns = pushed(state.moves, move), pushed(state.turns, turn)
        point = jnp.where(accepted, trial, state.point)
        slope = jnp.where(accepted, gradient, state.gradient)
        again = accepted | lost
        direction = self._direction(point, slope, moves, turns)
        state = BoxState(
            state.step + 1,
            point,
            slope,
            jnp.where(accepted, value, state.value),
            jnp.where(again, direction, state.direction),
            jnp.where(again, 1, state.length / 2),
            moves,
            turns,
        )
        return state, AscentInfo(score, -state.value)

    def _direction(self, point: Array, gradient: Array, moves: Array, turns: Array) -> Array:
        """−H·g over the free coordinates."""
        held = ((point <= 0) & (gradient > 0)) | ((point >= 1) & (gradient < 0))
        free = jnp.where(held, 0, 1).reshape(-1).astype(jnp.float32)
        slope = gradient.reshape(-1) * free

        def products(pair: tuple[Array, Array]) -> tuple[Array, Array, Array]:
            move, turn = (row * free for row in pair)
            exact = partial(jnp.vdot, precision=lax.Precision.HIGHEST)
            return exact(move, turn), exact(move, move), exact(turn, turn)

        curvature, lengths, sizes = lax.map(products, (moves, turns))
        usable = curvature > _CURVED * jnp.sqrt(lengths) * jnp.sqrt(sizes)
        rho = jnp.where(usable, 1 / jnp.where(usable, curvature, 1), 0)

        def back(q: Array, pair: tuple[Array, Array, Array]) -> tuple[Array, Array]:
            move, turn, rho = pair
            alpha = rho * jnp.vdot(move, q)
            return q - alpha * turn * free, alpha

        def forth(q: Array, pair: tuple[Array, Array, Array, Array]) -> tuple[Array, None]:
            move, turn, rho, alpha = pair
            return q + move * free * (alpha - rho * jnp.vdot(turn, q)), None

        q, alphas = lax.scan(back, slope, (moves, turns, rho), reverse=True)
        newest = self.memory - 1 - lax.argmax(usable[::-1], 0, jnp.int32)
        scale = curvature[newest] / jnp.where(usable[newest], sizes[newest], 1)
        # Without curvature, a step by which a pixel changes by a thousandth.
        length = jnp.linalg.norm(slope)
        cautious = 1e-3 * math.sqrt(slope.size) / jnp.where(length > 0, length, 1)
        q, _ = lax.scan(
            forth, q * jnp.where(usable.any(), scale, cautious), (moves, turns, rho, alphas)
        )
        q = q * free
        downhill = jnp.vdot(q, slope) > 0
        return -jnp.where(downhill, q, cautious * slope).reshape(gradient.shape)


_ARMIJO = 1e-4
_CURVED = 1e-7
"""Of ‖s‖·‖y‖, whatever the units: what sᵀy must exceed for a pair to be kept."""
_SHORTEST = 1e-6
