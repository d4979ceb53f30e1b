"""What an attack maximises, and when it has won: objectives of the logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import flax.struct
import jax.numpy as jnp
from jax import lax

from rvis import checks
from rvis.attacks.result import Request
from rvis.objectives import Activations, Objective, Probability
from rvis.objectives.base import kind_field
from rvis.types import LOGITS, Array


class _OfLogits(Objective):
    """An objective that reads the logits alone."""

    @property
    def layers(self) -> tuple[str, ...]:
        return (LOGITS,)


def _most_other(z: Array, unit: Array) -> Array:
    """The largest of the logits (n, k) besides that of `unit`, (n,)."""
    own = jnp.arange(z.shape[-1]) == unit
    return jnp.where(own, -jnp.inf, z).max(-1)


@flax.struct.dataclass
class Margin(_OfLogits):
    """By how much the strongest other logit exceeds that of the class; or less it, if targeted.

    Above 0 exactly where the attack has won. Carlini & Wagner 2017, Towards Evaluating the
    Robustness of Neural Networks, f₆ of section V.A without its bound.
    """

    unit: Array
    targeted: bool = flax.struct.field(pytree_node=False, default=False)
    kind: str = kind_field("Margin")

    event_ranks: ClassVar[Mapping[str, int]] = {"unit": 0}

    def __call__(self, activations: Activations) -> Array:
        z = activations[LOGITS]
        margin = _most_other(z, self.unit) - jnp.take(z, self.unit, axis=-1)
        return (-margin if self.targeted else margin).mean()


@flax.struct.dataclass
class DLR(_OfLogits):
    """The difference-of-logits ratio, −(z_y − max_{i≠y} z_i) / (z_π1 − z_π3).

    Neither shifting nor scaling the logits changes it. Croce & Hein 2020, Reliable evaluation of
    adversarial robustness, equation 6.
    """

    unit: Array
    kind: str = kind_field("DLR")

    event_ranks: ClassVar[Mapping[str, int]] = {"unit": 0}

    def __call__(self, activations: Activations) -> Array:
        z = activations[LOGITS]
        top = lax.top_k(z, 3)[0]
        margin = _most_other(z, self.unit) - jnp.take(z, self.unit, axis=-1)
        return (margin / (top[:, 0] - top[:, 2] + _TINY)).mean()


@flax.struct.dataclass
class TargetedDLR(_OfLogits):
    """−(z_y − z_t) / (z_π1 − (z_π3 + z_π4)/2), of a class y and a target t.

    Croce & Hein 2020, equation 8.
    """

    unit: Array
    target: Array
    kind: str = kind_field("TargetedDLR")

    event_ranks: ClassVar[Mapping[str, int]] = {"unit": 0, "target": 0}

    def __call__(self, activations: Activations) -> Array:
        z = activations[LOGITS]
        top = lax.top_k(z, 4)[0]
        gain = jnp.take(z, self.target, axis=-1) - jnp.take(z, self.unit, axis=-1)
        return (gain / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + _TINY)).mean()


_TINY = 1e-12
"""As in fra31/auto-attack: equal logits give no NaN."""


@flax.struct.dataclass
class Verdict:
    """A score that carries along whether the model is fooled.

    The ascent that climbs it hands both on from one forward pass. Less a penalty it is a number.
    """

    score: Array
    fooled: Array

    def __sub__(self, penalty: Array | int) -> Array:
        return self.score - penalty


@flax.struct.dataclass
class Aim(Objective):
    """An objective of groups of one image, and the class that decides when its attack has won.

    Attributes:
      loss: what is maximised.
      unit: the true class, or the target.
      targeted: which of the two.
    """

    loss: Objective
    unit: Array
    targeted: bool = flax.struct.field(pytree_node=False)
    kind: str = kind_field("Aim")

    @property
    def layers(self) -> tuple[str, ...]:
        return self.loss.layers

    def __call__(self, activations: Activations) -> Verdict:  # type: ignore[override]
        """The loss, and whether another class than the true one leads, or the target does."""
        leads = activations[LOGITS][0].argmax(-1) == self.unit
        return Verdict(self.loss(activations), leads == self.targeted)


def _cross_entropy(request: Request) -> Objective:
    reached = Probability(jnp.asarray(request.labels))
    return reached if request.targeted else -reached


def _dlr(request: Request) -> Objective:
    labels = jnp.asarray(request.labels)
    if request.targeted:
        # The class to leave is not among the arguments of a targeted attack.
        return TargetedDLR(jnp.asarray(request.clean), labels)
    return DLR(labels)


def _margin(request: Request) -> Objective:
    return Margin(jnp.asarray(request.labels), request.targeted)


LOSSES: Mapping[str, Callable[[Request], Objective]] = {
    "ce": _cross_entropy,
    "dlr": _dlr,
    "margin": _margin,
}


def aim(request: Request, loss: str) -> Aim:
    """What an attack maximises for each image of a request, by name.

    Args:
      request: checked arguments.
      loss: "ce", the cross-entropy (its negative towards a target); "dlr", see `DLR`, and
        `TargetedDLR` whose class to leave is the model's own; "margin", see `Margin`.

    Raises:
      ValueError: naming `loss`, for another name, or "dlr" with too few classes for it.
    """
    checks.choice("loss", loss, LOSSES)
    needed = {"dlr": 4 if request.targeted else 3}.get(loss, 2)
    if request.outputs < needed:
        raise ValueError(
            f"loss: {loss!r} needs {needed} classes, given a model of {request.outputs}; "
            "'margin' would be right"
        )
    objective = LOSSES[loss](request).broadcast(len(request.labels))
    return Aim(objective, jnp.asarray(request.labels), request.targeted)
