"""What a user may name as a target, as an objective: a class by number or name, or an objective."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rvis import checks
from rvis.objectives.base import Objective, check
from rvis.objectives.units import logit
from rvis.types import LOGITS, Model, Units, check_classes, check_model, layer_shapes


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

    Example:
      >>> import rvis
      >>> model = rvis.load("mnist_cnn")
      >>> rvis.objectives.target("classes", ["3", 8], model, (28, 28, 1)).unit.tolist()
      [3, 8]
    """
    check_model(model)
    if isinstance(given, Objective):
        return check(given, model, shape)
    check_classes(model)
    check(logit(0), model, shape)
    width = layer_shapes(model, shape)[LOGITS][-1]
    numbers = checks.classes(argument, given, model.classes, count=width)
    if numbers.ndim > 1 or not numbers.size:
        raise ValueError(f"{argument}: one class, or a list of them, was expected, given {given!r}")
    return kind(numbers)
