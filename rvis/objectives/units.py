"""Objectives of single units: channels, neurons, logits and probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks, gate, struct
from rvis.objectives.base import Activations, Objective, OfLayer, as_position, at, check_position
from rvis.types import LOGITS, Array, Units, on_device


class _Unit(OfLayer):
    """What objectives of numbered units of one layer share."""

    unit: Array

    def check(self, shapes: Mapping[str, tuple[int, ...]], classes: tuple[str, ...]) -> None:
        OfLayer.check(self, shapes, classes)
        what = "the logits" if self.layer == LOGITS else f"layer {self.layer!r}"
        checks.integers("unit", self.unit, high=shapes[self.layer][-1], what=what)

    def titles(self, classes: tuple[str, ...]) -> np.ndarray:
        def title(unit: int) -> str:
            if self.layer == LOGITS:
                return classes[unit] if classes else f"class {unit}"
            return f"{self.layer}:{unit}"

        return np.vectorize(title, otypes=[object])(np.asarray(self.unit))

    def identities(self) -> np.ndarray | None:
        return np.asarray(self.unit)

    def siblings(self, shapes: Mapping[str, tuple[int, ...]]) -> Objective | None:
        every = struct.replace(self, unit=jnp.arange(shapes[self.layer][-1], dtype=jnp.int32))
        return every.broadcast(len(every.unit))


def _of(x: Array, unit: Array) -> Array:
    """One unit of the last axis; the gradient of `take` is a scatter, which compiles for longer."""
    numbers = jnp.arange(x.shape[-1], dtype=unit.dtype)
    return jnp.where(numbers == unit, x, 0).sum(-1)


@struct.dataclass
class Channel(_Unit):
    """See `channel`."""

    layer: str = struct.static()
    unit: Array

    event_ranks: ClassVar[Mapping[str, int]] = {"unit": 0}

    def __call__(self, activations: Activations) -> Array:
        x = activations[self.layer]
        # The mean comes first, lest every unit of a layer looks through all the others' places.
        return _of(x.reshape(-1, x.shape[-1]).mean(0), self.unit)


@struct.dataclass
class Neuron(_Unit):
    """See `neuron`."""

    layer: str = struct.static()
    unit: Array
    position: Array | None

    event_ranks: ClassVar[Mapping[str, int]] = {"unit": 0, "position": 1}

    def __call__(self, activations: Activations) -> Array:
        x = activations[self.layer]
        if x.ndim == 4:
            centre = jnp.asarray((x.shape[1] // 2, x.shape[2] // 2))
            x = at(x, centre if self.position is None else self.position)
        return _of(x, self.unit).mean()

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


@struct.dataclass
class Probability(_Unit):
    """See `probability`."""

    unit: Array

    event_ranks: ClassVar[Mapping[str, int]] = {"unit": 0}
    of_classes: ClassVar[bool] = True
    layer: str = struct.static(default=LOGITS)

    def __call__(self, activations: Activations) -> Array:
        x = jax.nn.log_softmax(activations[LOGITS])
        return _of(x, self.unit).mean()


def _units(unit: Any) -> Array:
    if isinstance(unit, jax.core.Tracer):
        return unit.astype(jnp.int32)
    # How many units the layer has is known when a model is.
    numbers = checks.integers("unit", unit, low=-checks.LARGEST)
    if numbers.ndim > 1:
        raise ValueError(f"unit: one number or a list of them was expected, given {numbers.shape}")
    return on_device(numbers)


@gate.public
def channel(layer: str, unit: Units) -> Channel:
    """The mean activation of a channel over all positions.

    Args:
      layer: a name of `model.layers`.
      unit: a channel's number, or a list of them for as many objectives.

    Example:
      >>> from rvis.objectives import channel
      >>> channel("layer2", range(4)).batch_shape
      (4,)

    Reference: Olah et al. 2017, Feature Visualization (distill).
    """
    return Channel(layer, _units(unit))


@gate.public
def neuron(layer: str, unit: Units, position: Units | None = None) -> Neuron:
    """The activation of one unit at one position (row, column); the centre by default.

    Args:
      layer: a name of `model.layers`.
      unit: the channel, or a list of them.
      position: (row, column), or (m, 2) for m objectives; a dense layer has none.

    Example:
      >>> from rvis.objectives import neuron
      >>> neuron("layer2", 3, (0, 5)).layers
      ('layer2',)

    Reference: Erhan et al. 2009, Visualizing higher-layer features of a deep network, eq. 1.
    """
    return Neuron(layer, _units(unit), as_position(position))


@gate.public
def logit(unit: Units) -> Channel:
    """A class's logit, before the softmax.

    Example:
      >>> from rvis.objectives import logit
      >>> logit([0, 1]).layers
      ('logits',)

    Reference: Simonyan et al. 2013, Deep Inside Convolutional Networks, eq. 1.
    """
    return channel(LOGITS, unit)


@gate.public
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
