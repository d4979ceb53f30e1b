"""What a user may name as a target, as an objective: a class by number or name, or an objective."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from rvis import checks
from rvis.objectives.base import Objective, check
from rvis.objectives.units import logit
from rvis.types import LOGITS, Model, Units, layer_shapes


def target(
    argument: str,
    given: Any,
    model: Model,
    shape: tuple[int, int, int],
    *,
    kind: Callable[[Units], Objective] = logit,
) -> Objective:
    """The objective of a target, checked against a model.

    Args:
      argument: the caller's name for it, to be named in errors.
      given: a class's number or name, a list of them, or an objective.
      model: any model; names are looked up among its classes.
      shape: (H, W, C) of the images it will see.
      kind: what is asked of a class: `logit` or `probability`.

    Raises:
      TypeError: naming the argument, for anything else.
      ValueError: naming it, for an unknown name (with the nearest) or a number out of range, or
        what `check` raises.

    Example:
      >>> import rvis
      >>> model = rvis.load("mnist_cnn")
      >>> rvis.objectives.target("classes", ["3", 8], model, (28, 28, 1)).unit.tolist()
      [3, 8]
    """
    if isinstance(given, Objective):
        return check(given, model, shape)
    single = isinstance(given, str) or np.ndim(given) == 0
    entries = [given] if single else list(given)
    if not entries:
        raise ValueError(f"{argument}: at least one class was expected, given {given!r}")
    check(logit(0), model, shape)
    width = layer_shapes(model, shape)[LOGITS][-1]
    numbers = []
    for entry in entries:
        if isinstance(entry, str):
            if not model.classes:
                raise ValueError(
                    f"{argument}: a class number was expected, since {model.name} does not name "
                    f"its classes, given {entry!r}"
                )
            numbers.append(model.classes.index(checks.choice(argument, entry, model.classes)))
            continue
        if isinstance(entry, bool) or not np.issubdtype(np.asarray(entry).dtype, np.integer):
            raise TypeError(
                f"{argument}: a class number or name, one for each image, or one of "
                f"rvis.objectives was expected, given {given!r}"
            )
        if np.ndim(entry):
            raise TypeError(
                f"{argument}: one class, or a list of them, was expected, given {given!r}"
            )
        numbers.append(int(checks.integers(argument, entry, high=width, what="the logits")))
    return kind(numbers[0] if single else numbers)
