"""APGD in L1: sparse steps, and a ball that shrinks to its radius in the course of the attack."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rvis import struct
from rvis.ascent import Problem
from rvis.attacks.attack import Start
from rvis.attacks.geometry import into_l1
from rvis.attacks.look import Look, loss_gradient
from rvis.attacks.losses import Outcome
from rvis.types import Array, Model

FACTORS = (3.0, 2.0, 1.0)
"""Of the radius, in the first three, the next three and the last four tenths of the steps."""
_SHRINK, _LEAST, _SETTLED = 1.5, 0.1, 0.95


def stages(steps: int) -> np.ndarray:
    """The steps (3,) at which the ball takes its three radii.

    Example:
      >>> from rvis.attacks.sparse_apgd import stages
      >>> stages(100).tolist()
      [0, 30, 60]
    """
    part = -(-3 * steps // 10)
    return np.minimum([0, part, 2 * part], steps - 1).astype(np.int32)


@struct.dataclass
class SparseState:
    """What the attack carries from step to step.

    Attributes:
      step: how many were taken.
      position: (1, H, W, C), the next iterate.
      size: the length of a step.
      share: of all values, how many a step changes.
      support: how many values `top` changed at the last look.
      top: where the loss was highest in this ball.
      top_gradient: there.
      top_score: there.
    """

    step: Array
    position: Array
    size: Array
    share: Array
    support: Array
    top: Array
    top_gradient: Array
    top_score: Array


@struct.dataclass
class SparseAPGD:
    """The step of L1-APGD, see `rvis.attacks.attack.Pursuit`.

    Attributes:
      marks: see `stages`.
      every: steps between two looks at how sparse the best image is.
    """

    marks: Array
    every: Array

    def init(self, key: Array, start: Start) -> SparseState:
        """From a `Start`; a draw is normal noise put into the widest ball."""
        centre = start.ball.centre
        x = jnp.where(
            start.drawn, centre + jax.random.normal(key, centre.shape, jnp.float32), start.given
        )
        return self._begun(jnp.int32(0), x, start.ball)

    def _begun(self, step: Array, x: Array, ball: Any) -> SparseState:
        """At the beginning of a stage, from `x` put into its ball."""
        x = into_l1(x, ball.centre, self._radius(step, ball))
        support = self._support(x, ball)
        low = jnp.float32(-jnp.inf)
        size, share = self._radius(step, ball), support / x.size / _SHRINK
        return SparseState(step, x, size, share, support, x, jnp.zeros_like(x), low)

    def _radius(self, step: Array, ball: Any) -> Array:
        stage = (step >= self.marks).sum() - 1
        return jnp.asarray(ball.radius, jnp.float32) * jnp.asarray(FACTORS, jnp.float32)[stage]

    def _support(self, x: Array, ball: Any) -> Array:
        return (x != ball.centre).sum().astype(jnp.float32)

    def step(
        self, key: Array, state: SparseState, model: Model, problem: Problem
    ) -> tuple[SparseState, Look]:
        """One step up; what fools counts in the last stage alone."""
        ball = problem.constraint
        anew = (state.step == self.marks[1:]).any()
        begun = self._begun(state.step, state.top, ball)
        state = jax.tree.map(lambda new, old: jnp.where(anew, new, old), begun, state)
        gradient, outcome = loss_gradient(state.position, key, model, problem)
        higher = outcome.loss > state.top_score
        top = jnp.where(higher, state.position, state.top)
        top_gradient = jnp.where(higher, gradient, state.top_gradient)
        top_score = jnp.maximum(outcome.loss, state.top_score)

        since = state.step - jnp.where(self.marks <= state.step, self.marks, 0).max()
        asked = (since > 0) & (since % self.every == 0)
        support = self._support(top, ball)
        sparser = support < _SETTLED * state.support
        radius = self._radius(state.step, ball)
        size = jnp.where(sparser, radius, jnp.maximum(state.size / _SHRINK, _LEAST * radius))
        size = jnp.where(asked, size, state.size)
        share = jnp.where(asked, support / top.size / _SHRINK, state.share)
        back = asked & sparser
        x = jnp.where(back, top, state.position)
        gradient = jnp.where(back, top_gradient, gradient)

        moved = x + size * _sparse(gradient, share)
        following = SparseState(
            state.step + 1,
            into_l1(moved, ball.centre, radius),
            size,
            share,
            jnp.where(asked, support, state.support),
            top,
            top_gradient,
            top_score,
        )
        inside = (state.step >= self.marks[-1]) & (ball.project(state.position) == state.position)
        margin = jnp.where(inside.all(), outcome.margin, -jnp.inf)
        return following, Look(state.position, Outcome(outcome.loss, margin, outcome.least))


def _sparse(gradient: Array, share: Array) -> Array:
    """The signs of the largest values, so many of them, to a length of one."""
    size = jnp.abs(gradient)
    count = jnp.clip((share * size.size).astype(jnp.int32), 1, size.size)
    least = jnp.sort(size.ravel())[size.size - count]
    chosen = jnp.where(size >= least, jnp.sign(gradient), 0)
    return chosen / (jnp.abs(chosen).sum() + 1e-10)
