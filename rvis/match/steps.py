"""What matching adds to the one ascent step: steps that shorten."""

from __future__ import annotations

import flax.struct

from rvis import core
from rvis.types import Array, Model, PyTree


@flax.struct.dataclass
class Shortening:
    """An ascent whose learning rate falls in a straight line, to 0 after `steps` steps.

    Steps of one length would end on a circle about what they look for, not in it.

    Attributes:
      ascent: the step.
      steps: how many there are; a leaf.
    """

    ascent: core.Ascent
    steps: Array

    def init(self, key: Array, position: PyTree | None = None) -> core.AscentState:
        """See `rvis.core.Ascent`."""
        return self.ascent.init(key, position)

    def step(
        self, key: Array, state: core.AscentState, model: Model, problem: core.Problem
    ) -> tuple[core.AscentState, core.AscentInfo]:
        """One step up, shorter than the one before."""
        optimizer = self.ascent.optimizer
        rate = optimizer.learning_rate * (1 - state.step / self.steps)
        shorter = optimizer.replace(learning_rate=rate)  # type: ignore[attr-defined]
        ascent = self.ascent.replace(optimizer=shorter)  # type: ignore[attr-defined]
        return ascent.step(key, state, model, problem)

    def images(self, state: core.AscentState) -> Array:
        """See `rvis.core.Ascent`."""
        return self.ascent.images(state)
