"""Objectives whose weight changes from step to step of an ascent."""

from __future__ import annotations

from collections.abc import Mapping

import flax.struct
import jax.numpy as jnp
import numpy as np

from rvis import checks
from rvis.objectives.base import Activations, Objective, Sum, kind_field
from rvis.types import Array


@flax.struct.dataclass
class Scheduled(Objective):
    """See `scheduled`."""

    term: Objective
    steps: Array
    weights: Array
    kind: str = kind_field("Scheduled")

    @property
    def layers(self) -> tuple[str, ...]:
        return self.term.layers

    def __call__(self, activations: Activations) -> Array:
        return self.term(activations)

    def at_step(self, step: Array) -> Objective:
        weight = jnp.interp(jnp.float32(step), self.steps, self.weights)
        return Sum((self.term.at_step(step),), (weight,))

    def check(self, shapes: Mapping[str, tuple[int, ...]], classes: tuple[str, ...]) -> None:
        self.term.check(shapes, classes)

    def titles(self, classes: tuple[str, ...]) -> np.ndarray:
        return self.term.titles(classes)

    def identities(self) -> np.ndarray | None:
        return self.term.identities()

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return self.term.batch_shape

    def broadcast(self, count: int) -> Objective:
        steps, weights = (
            jnp.broadcast_to(leaf, (count, *leaf.shape)) for leaf in (self.steps, self.weights)
        )
        return Scheduled(self.term.broadcast(count), steps, weights)


def scheduled(objective: Objective, weights: Mapping[int, float]) -> Scheduled:
    """An objective whose weight depends on the step of the ascent.

    Between the steps given the weight changes evenly, before the first and after the last it stays.
    Only after step 100: `scheduled(objective, {100: 0, 101: 1})`; fading out over 512 steps:
    `scheduled(objective, {0: 1, 512: 0})`. Outside an ascent, as for `rvis.faithfulness`, the
    objective counts once.

    Args:
      objective: any.
      weights: {step: weight}, with as many steps as you like; those of two schedules of equal
        length share their compiled programs.

    Raises:
      TypeError: naming the argument, for anything but an objective, a mapping, ints and numbers.
      ValueError: naming `weights`, where there are none, or for a step below 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis.objectives import logit, scheduled
      >>> fading = scheduled(logit(0), {0: 1.0, 10: 0.0})
      >>> float(fading.at_step(4)({"logits": jnp.ones((1, 2))}))
      0.6000000238418579

    Reference: tensorflow/lucid's notebooks, which multiply objectives by functions of the step.
    """
    if not isinstance(objective, Objective):
        raise TypeError(f"objective: one of rvis.objectives was expected, given {objective!r}")
    if not isinstance(weights, Mapping):
        raise TypeError(f"weights: {{step: weight}} was expected, given {weights!r}")
    if not weights:
        raise ValueError("weights: at least one step was expected, given none")
    steps = sorted(checks.count("weights", step, low=0) for step in weights)
    values = [checks.number("weights", weights[step]) for step in steps]
    return Scheduled(objective, jnp.asarray(steps, jnp.float32), jnp.asarray(values, jnp.float32))
