"""What an algorithm is: two or three pure functions of one example."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from rvis.types import Array, Model, PyTree


class Algorithm(Protocol):
    """Pure functions of one example; a pytree whose numbers are traced.

    Three more functions are optional:

        done(state) -> bool                      this example needs no further step
        finish(state, model, problem) -> result  what is handed back; the state itself by default
        stopped(state) -> result                 the same for an example that is done; by default
                                                 `finish`, which may look at the model once more
    """

    def init(self, key: Array, start: PyTree) -> PyTree:
        """The first state, from the example's key and where it starts (None for nowhere)."""

    def step(self, key: Array, state: PyTree, model: Model, problem: Any) -> tuple[PyTree, PyTree]:
        """The state after t + 1 steps, and what is worth knowing of this step.

        `key` is `fold_in(key, t)` of the example's key; the model is shared, the problem its own.
        """


class Finished(NamedTuple):
    """One example that has left its slot, on the host.

    Attributes:
      example: its number.
      result: see `Algorithm`.
      info: what every step told, leaves of shape (steps made, …).
      made: how many steps it made.
      snapshots: {step: result after that many steps}.
    """

    example: int
    result: PyTree
    info: PyTree
    made: int
    snapshots: Mapping[int, PyTree]


class Run(NamedTuple):
    """All n examples of a run, on the host.

    Attributes:
      result: leaves of shape (n, …).
      info: leaves of shape (n, steps, …); zeros where an example made fewer steps.
      made: (n,) how many steps each made.
      snapshots: {step: result after that many steps}, of those that all examples reached.
    """

    result: PyTree
    info: PyTree
    made: np.ndarray
    snapshots: Mapping[int, PyTree]


Callback = Callable[[int, PyTree, PyTree], Any]
"""Called with the steps made, the results so far and what the steps told; True ends the run."""
