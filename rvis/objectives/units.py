"""Objectives of single units: channels, neurons, logits and probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks
from rvis.objectives.base import (
    Activations,
    Objective,
    as_position,
    at,
    check_position,
    kind_field,
)
from rvis.types import LOGITS, Array, Units


class _Unit(Objective):
    """What objectives of numbered units of one layer share."""

    layer: str
    unit: Array

    @property
    def layers(self) -> tuple[str, ...]:
        return (self.layer,)

    def check(self, shapes: Mapping[str, tuple[int, ...]], classes: tuple[str, ...]) -> None:
        checks.choice("layer", self.layer, shapes)
        what = "the logits" if self.layer == LOGITS else f"layer {self.layer!r}"
        checks.integers("unit", np.asarray(self.unit), high=shapes[self.layer][-1], what=what)

    def titles(self, classes: tuple[str, ...]) -> np.ndarray:
        def title(unit: int) -> str:
            if self.layer == LOGITS:
                return classes[unit] if classes else f"class {unit}"
            return f"{self.layer}:{unit}"

        return np.vectorize(title, otypes=[object])(np.asarray(self.unit))

    def identities(self) -> np.ndarray | None:
        return np.asarray(self.unit)

    def siblings(self, shapes: Mapping[str, tuple[int, ...]]) -> Objective | None:
        every = self.replace(  # type: ignore[attr-defined]
            unit=jnp.arange(shapes[self.layer][-1], dtype=jnp.int32)
        )
        return every.broadcast(len(every.unit))


@flax.struct.dataclass
class Channel(_Unit):
    """See `channel`."""

    layer: str = flax.struct.field(pytree_node=False)
    unit: Array
    kind: str = kind_field("Channel")

    event_ranks: ClassVar[Mapping[str, int]] = {"unit": 0}

    def __call__(self, activations: Activations) -> Array:
        return jnp.take(activations[self.layer], self.unit, axis=-1).mean()


@flax.struct.dataclass
class Neuron(_Unit):
    """See `neuron`."""

    layer: str = flax.struct.field(pytree_node=False)
    unit: Array
    position: Array | None
    kind: str = kind_field("Neuron")

    event_ranks: ClassVar[Mapping[str, int]] = {"unit": 0, "position": 1}

    def __call__(self, activations: Activations) -> Array:
        x = activations[self.layer]
        if x.ndim == 4:
            centre = jnp.asarray((x.shape[1] // 2, x.shape[2] // 2))
            x = at(x, centre if self.position is None else self.position)
        return jnp.take(x, self.unit, axis=-1).mean()

    def check(self, shapes: Mapping[str, tuple[int, ...]], classes: tuple[str, ...]) -> None:
        _Unit.check(self, shapes, classes)
        if len(shapes[self.layer]) not in (1, 3):
            raise ValueError(
                f"layer: one of images or single numbers was expected for a neuron, given "
                f"{self.layer!r} of shape {shapes[self.layer]}; `channel` takes any"
            )
        if self.position is not None:
            check_position(self.position, self.layer, shapes[self.layer])

    def siblings(self, shapes: Mapping[str, tuple[int, ...]]) -> Objective | None:
        if self.position is not None and np.ndim(self.position) > 1:
            return None  # of several places there is no one question to ask of every unit
        return _Unit.siblings(self, shapes)

    def titles(self, classes: tuple[str, ...]) -> np.ndarray:
        result = np.broadcast_to(_Unit.titles(self, classes), self.batch_shape).copy()
        if self.position is not None:
            places = np.broadcast_to(self.position, (*self.batch_shape, 2))
            for i in np.ndindex(*self.batch_shape):
                result[i] = f"{result[i]}@{places[i][0]},{places[i][1]}"
        return result


@flax.struct.dataclass
class Probability(_Unit):
    """See `probability`."""

    unit: Array
    kind: str = kind_field("Probability")

    event_ranks: ClassVar[Mapping[str, int]] = {"unit": 0}
    layer: str = flax.struct.field(pytree_node=False, default=LOGITS)

    def __call__(self, activations: Activations) -> Array:
        x = jax.nn.log_softmax(activations[LOGITS])
        return jnp.take(x, self.unit, axis=-1).mean()


def _units(unit: Any) -> Array:
    array = np.asarray(unit)
    if array.ndim > 1:
        raise ValueError(f"unit: one number or a list of them was expected, given {array.shape}")
    if array.dtype == bool or not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"unit: integers were expected, given {unit!r}")
    return jnp.asarray(array, jnp.int32)


def channel(layer: str, unit: Units) -> Channel:
    """The mean activation of a channel over all positions.

    Args:
      layer: a name of `model.layers`.
      unit: a channel's number, or a list of them for as many objectives.

    Raises:
      TypeError, ValueError: naming `unit`, if it is no integer or list of integers.

    Example:
      >>> from rvis.objectives import channel
      >>> channel("layer2", range(4)).batch_shape
      (4,)

    Reference: Olah et al. 2017, Feature Visualization (distill).
    """
    return Channel(layer, _units(unit))


def neuron(layer: str, unit: Units, position: Units | None = None) -> Neuron:
    """The activation of one unit at one position (row, column); the centre by default.

    Args:
      layer: a name of `model.layers`.
      unit: the channel, or a list of them.
      position: (row, column), or (m, 2) for m objectives; (h // 2, w // 2) by default. A dense
        layer has none.

    Raises:
      TypeError, ValueError: naming `unit` or `position`.

    Example:
      >>> from rvis.objectives import neuron
      >>> neuron("layer2", 3, (0, 5)).layers
      ('layer2',)

    Reference: Erhan et al. 2009, Visualizing higher-layer features of a deep network, eq. 1.
    """
    position = None if position is None else as_position(position)
    return Neuron(layer, _units(unit), position)


def logit(unit: Units) -> Channel:
    """A class's logit, before the softmax.

    Example:
      >>> from rvis.objectives import logit
      >>> logit([0, 1]).layers
      ('logits',)

    Reference: Simonyan et al. 2013, Deep Inside Convolutional Networks, eq. 1.
    """
    return channel(LOGITS, unit)


def probability(unit: Units) -> Probability:
    """A class's probability after the softmax, scored by its logarithm (at most 0).

    The logarithm has the same maximum, and a gradient that stays where the probability underflows.
    `-probability(label)` is the cross-entropy.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis.objectives import probability
      >>> round(float(probability(1)({"logits": jnp.zeros((1, 2))})), 4)
      -0.6931
    """
    return Probability(_units(unit))
