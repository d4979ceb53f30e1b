"""What an attack maximises, and when it has won: objectives of the logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rvis import checks, struct
from rvis.attacks.request import Request
from rvis.objectives import Activations, Objective, check
from rvis.types import LOGITS, Array, on_device


class _OfLogits(Objective):
    """An objective that reads the logits alone."""

    @property
    def layers(self) -> tuple[str, ...]:
        return (LOGITS,)


def _most_other(z: Array, unit: Array) -> Array:
    """The largest of the logits (n, k) besides that of `unit`, (n,)."""
    own = jnp.arange(z.shape[-1], dtype=jnp.int32) == unit
    return jnp.where(own, -jnp.inf, z).max(-1)


@struct.dataclass
class Margin(_OfLogits):
    """By how much the strongest other logit exceeds that of the class; or less it, if targeted.

    Above 0 exactly where the attack has won. Carlini & Wagner 2017, Towards Evaluating the
    Robustness of Neural Networks, f₆ of section V.A without its bound.
    """

    unit: Array
    targeted: bool = struct.static(default=False)

    event_ranks: ClassVar[Mapping[str, int]] = {"unit": 0}

    def __call__(self, activations: Activations) -> Array:
        z = activations[LOGITS]
        margin = _most_other(z, self.unit) - jnp.take(z, self.unit, axis=-1)
        return (-margin if self.targeted else margin).mean()


@struct.dataclass
class CrossEntropy(_OfLogits):
    """−log p of the class; or log p of it, if targeted.

    With m = log Σ_{i≠y} exp(z_i) − z_y it is log(1 + exp m). Computed so, and continued by its
    tangent below m = −60, its gradient keeps its direction however sure the network is; that of a
    log-softmax loses the part along z_y above a gap of 16 and all of itself above 100.
    """

    unit: Array
    targeted: bool = struct.static(default=False)

    event_ranks: ClassVar[Mapping[str, int]] = {"unit": 0}

    def __call__(self, activations: Activations) -> Array:
        z = activations[LOGITS]
        own = jnp.arange(z.shape[-1], dtype=jnp.int32) == self.unit
        others = jax.nn.logsumexp(jnp.where(own, -jnp.inf, z), axis=-1)
        m = others - jnp.take(z, self.unit, axis=-1)
        tail = jnp.minimum(m + _SURE, 0) * np.exp(-_SURE).astype(np.float32)
        entropy = jax.nn.softplus(jnp.maximum(m, -_SURE)) + tail
        return (-entropy if self.targeted else entropy).mean()


_SURE = 60.0


@struct.dataclass
class DLR(_OfLogits):
    """The difference-of-logits ratio, −(z_y − max_{i≠y} z_i) / (z_π1 − z_π3).

    Neither shifting nor scaling the logits changes it. Croce & Hein 2020, Reliable evaluation of
    adversarial robustness, equation 6.
    """

    unit: Array

    event_ranks: ClassVar[Mapping[str, int]] = {"unit": 0}

    def __call__(self, activations: Activations) -> Array:
        z = activations[LOGITS]
        top = lax.top_k(z, 3)[0]
        margin = _most_other(z, self.unit) - jnp.take(z, self.unit, axis=-1)
        return (margin / (top[:, 0] - top[:, 2] + _TINY)).mean()


@struct.dataclass
class TargetedDLR(_OfLogits):
    """−(z_y − z_t) / (z_π1 − (z_π3 + z_π4)/2), of a class y and a target t.

    Croce & Hein 2020, equation 8.
    """

    unit: Array
    target: Array

    event_ranks: ClassVar[Mapping[str, int]] = {"unit": 0, "target": 0}

    def __call__(self, activations: Activations) -> Array:
        z = activations[LOGITS]
        top = lax.top_k(z, 4)[0]
        gain = jnp.take(z, self.target, axis=-1) - jnp.take(z, self.unit, axis=-1)
        return (gain / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + _TINY)).mean()


@struct.dataclass
class Difference(_OfLogits):
    """z_t − z_y, of a class y and a target t."""

    unit: Array
    target: Array

    event_ranks: ClassVar[Mapping[str, int]] = {"unit": 0, "target": 0}

    def __call__(self, activations: Activations) -> Array:
        z = activations[LOGITS]
        return (jnp.take(z, self.target, axis=-1) - jnp.take(z, self.unit, axis=-1)).mean()


_TINY = 1e-12
"""As in fra31/auto-attack: equal logits give no NaN."""


@struct.dataclass
class Outcome:
    """A loss that carries along the margin by which its attack has won.

    The ascent that climbs it hands both on from one forward pass. Less a penalty it is a number.

    Attributes:
      loss: what is maximised.
      margin: of logits, above 0 where the attack has won.
      least: what a margin must exceed so that no other order of sums undoes it.
    """

    loss: Array
    margin: Array
    least: Array

    def __sub__(self, penalty: Array | int) -> Array:
        return self.loss - penalty

    @property
    def success(self) -> Array:
        """Whether the model is fooled, in this program and in any other."""
        return self.margin > self.least


@struct.dataclass
class AttackObjective(Objective):
    """An objective of groups of one image, with the margin that decides when its attack has won.

    Attributes:
      loss: what is maximised.
      margin: see `Margin`.
      weight: of the loss.
    """

    loss: Objective
    margin: Margin
    weight: Array

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((LOGITS, *self.loss.layers)))

    def __call__(self, activations: Activations) -> Outcome:  # type: ignore[override]
        """The weighted loss, with the margin."""
        loss = self.weight * self.loss(activations)
        return Outcome(loss, self.margin(activations), least_margin(activations[LOGITS]))


_CLEAR = 1e-5
"""Of the largest logit: programs that add in another order differ by a tenth of it."""


def least_margin(logits: Array) -> Array:
    """What a margin of these logits must exceed so that rounding does not undo it."""
    return _CLEAR * jnp.abs(jnp.where(jnp.isfinite(logits), logits, 0)).max()


def _cross_entropy(request: Request) -> Objective:
    return CrossEntropy(on_device(request.unit), request.targeted)


def _dlr(request: Request) -> Objective:
    if request.targeted:
        return TargetedDLR(on_device(request.labels), on_device(request.target))
    return DLR(on_device(request.labels))


def margin(request: Request) -> Margin:
    """The n margins of a request."""
    return Margin(on_device(request.unit), request.targeted)


LOSSES: Mapping[str, Callable[[Request], Objective]] = {
    "ce": _cross_entropy,
    "dlr": _dlr,
    "margin": margin,
}


def objective(request: Request, loss: str | Objective) -> AttackObjective:
    """What an attack maximises for each image of a request.

    Args:
      request: checked arguments.
      loss: n objectives, or a name: "ce", the cross-entropy (its negative towards a target); "dlr",
        see `DLR` and `TargetedDLR`; "margin", see `Margin`.

    Raises:
      TypeError, ValueError: naming `loss`, for another name, "dlr" with too few classes for it, or
        objectives of another number; otherwise as `rvis.objectives.check`.
    """
    count = len(request.images)
    if isinstance(loss, str):
        checks.choice("loss", loss, LOSSES)
        least = {"dlr": 4 if request.targeted else 3}.get(loss, 2)
        if request.outputs < least:
            raise ValueError(
                f"loss: {loss!r} needs {least} classes, given a model of {request.outputs}; "
                "'margin' would be right"
            )
        loss = LOSSES[loss](request)
    elif not isinstance(loss, Objective):
        raise TypeError(f"loss: a name or an objective was expected, given {loss!r}")
    else:
        named = struct.replace(request.model, name=request.name, classes=request.classes)
        check(loss, named, request.shape)
        loss.check_count("loss", count)
    return AttackObjective(
        loss.broadcast(count), margin(request), on_device(np.ones(count, np.float32))
    )
