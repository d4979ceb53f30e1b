"""Rounds of one attack on an image: other draws, other losses, one after another."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from rvis import struct
from rvis.ascent import Problem
from rvis.attacks.attack import Plan, Start
from rvis.attacks.look import Look
from rvis.attacks.losses import AttackObjective
from rvis.objectives import Objective
from rvis.types import Array, Model


@struct.dataclass
class RoundsState:
    """How many steps there were, where rounds start, and the state of the attack in this one."""

    step: Array
    start: Start
    inner: Any

    @property
    def position(self) -> Array:
        """See `Pursuit`."""
        return self.inner.position


@struct.dataclass
class Rounds:
    """An attack again and again, each time with another loss or from another draw.

    Attributes:
      attack: starts from a `Start`; all rounds but the first, from a draw.
      every: steps of a round, of which the last but looks where the one before has led.
      complete: see `Pursuit`.

    The leaves of the problem's loss have an axis of as many rounds.
    """

    attack: Any
    every: Array
    complete: bool = struct.static(default=True)

    def init(self, key: Array, start: Start) -> RoundsState:
        """Before the first round."""
        return RoundsState(jnp.int32(0), start, self.attack.init(key, start))

    def step(
        self, key: Array, state: RoundsState, model: Model, problem: Problem
    ) -> tuple[RoundsState, Look]:
        """A step of this round."""
        number = state.step // self.every
        start = struct.replace(state.start, drawn=state.start.drawn | (number > 0))
        again = self.attack.init(jax.random.fold_in(key, number), start)
        inner = jax.tree.map(partial(jnp.where, state.step % self.every == 0), again, state.inner)
        objective = cast(AttackObjective, problem.objective)
        loss = jax.tree.map(lambda leaf: leaf[number], objective.loss)
        objective = struct.replace(objective, loss=loss)
        problem = struct.replace(problem, objective=objective)
        inner, seen = self.attack.step(key, inner, model, problem)
        return RoundsState(state.step + 1, state.start, inner), seen


def repeated(plan: Plan, losses: Sequence[Objective] | int) -> Plan:
    """Rounds of a plan, each with one of these losses of n images, or so many with its own."""
    own = cast(AttackObjective, plan.problem.objective)
    several: Sequence[Any] = [own.loss] * losses if isinstance(losses, int) else losses
    loss = jax.tree.map(lambda *leaves: np.stack(leaves, 1), *several)
    every = plan.steps if getattr(plan.attack, "complete", False) else plan.steps + 1
    return dataclasses.replace(
        plan,
        attack=Rounds(plan.attack, jnp.int32(every)),
        problem=struct.replace(plan.problem, objective=struct.replace(own, loss=loss)),
        steps=every * len(several),
    )
