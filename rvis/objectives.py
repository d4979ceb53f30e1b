"""What an ascent maximises: functions of activations, as pytrees that add, subtract and scale.

The layer's name is structure; units, vectors, targets and weights are leaves. So
`channel("layer3", jnp.arange(128))` is 128 objectives in one compiled program, which another layer
width or weight reuses. Every objective is maximised; `-objective` is therefore minimised.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks
from rvis.types import LOGITS, Array, ArrayLike, Model, Units, layer_shapes

Activations = Mapping[str, Array]


class Objective:
    """The algebra and the bookkeeping that every objective shares.

    An objective is called with `{layer: (n, ...)}` for one group of n images and gives a scalar,
    the mean over the group. Leaves may have leading axes: then it stands for that many objectives
    (`batch_shape`), and `rvis.core` maps over them.
    """

    event_ranks: ClassVar[Mapping[str, int]] = {}
    __array_ufunc__ = None  # so that `np.float32(2) * objective` reaches `__rmul__`

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers whose activations it reads."""
        raise TypeError(f"{type(self).__name__} does not say which layers it reads")

    def __call__(self, activations: Activations) -> Array:
        """The score of one group of images, from {layer: (n, ...)}."""
        raise TypeError(f"{type(self).__name__} cannot be evaluated")

    def check(self, shapes: Mapping[str, tuple[int, ...]], classes: tuple[str, ...]) -> None:
        """Raises ValueError where it does not fit a model with these layer shapes."""

    def titles(self, classes: tuple[str, ...]) -> np.ndarray:
        """One short title an objective, of shape `batch_shape`."""
        return np.full(self.batch_shape, type(self).__name__.lower(), object)

    def identities(self) -> np.ndarray | None:
        """What `fold_in` tells its members apart by, or None where position must serve."""
        return None

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """() for one objective, (m,) for m of them."""
        shapes = [
            np.shape(leaf)[: np.ndim(leaf) - rank]
            for name, rank in self.event_ranks.items()
            if (leaf := getattr(self, name)) is not None
        ]
        try:
            return np.broadcast_shapes(*shapes)
        except ValueError:
            names = " and ".join(self.event_ranks)
            raise ValueError(
                f"{names}: as many of each (or one) were expected, given batches of "
                + ", ".join(map(str, shapes))
            ) from None

    def broadcast(self, count: int) -> Objective:
        """The same objectives with every leaf's leading axis written out to `count`."""
        changes = {}
        for name, rank in self.event_ranks.items():
            leaf = getattr(self, name)
            if leaf is not None:
                event = np.shape(leaf)[np.ndim(leaf) - rank :]
                changes[name] = jnp.broadcast_to(leaf, (count, *event))
        return self.replace(**changes)  # type: ignore[attr-defined]

    def __add__(self, other: Objective) -> Objective:
        if not isinstance(other, Objective):
            return NotImplemented
        return Sum((self, other), (jnp.float32(1), jnp.float32(1)))

    def __radd__(self, other: Any) -> Objective:
        # The built-in `sum` starts from 0.
        return self if isinstance(other, int) and other == 0 else NotImplemented

    def __sub__(self, other: Objective) -> Objective:
        if not isinstance(other, Objective):
            return NotImplemented
        return Sum((self, other), (jnp.float32(1), jnp.float32(-1)))

    def __mul__(self, scale: ArrayLike) -> Objective:
        if isinstance(scale, Objective):
            return NotImplemented
        weight = jnp.asarray(scale, jnp.float32)
        if weight.ndim > 1:
            raise ValueError(
                f"weight: one number, or one a member, was expected, given shape {weight.shape}"
            )
        return Sum((self,), (weight,))

    def __rmul__(self, scale: ArrayLike) -> Objective:
        return self * scale

    def __truediv__(self, scale: ArrayLike) -> Objective:
        return self * (1 / jnp.asarray(scale, jnp.float32))

    def __neg__(self) -> Objective:
        return self * -1.0


def _kind(name: str) -> Any:
    """A static field that tells classes apart.

    jaxlib 0.10 compares the tree structures of two dataclasses by their static fields alone, so
    that without it a compiled `Channel` of the logits could serve for a `Probability`.
    """
    return flax.struct.field(pytree_node=False, default=name, repr=False, kw_only=True)


@flax.struct.dataclass
class Sum(Objective):
    """A weighted sum of objectives; the weights are leaves."""

    terms: tuple[Objective, ...]
    weights: tuple[Array, ...]
    kind: str = _kind("Sum")

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(layer for term in self.terms for layer in term.layers))

    def __call__(self, activations: Activations) -> Array:
        pairs = zip(self.terms, self.weights, strict=True)
        return sum((w * term(activations) for term, w in pairs), jnp.float32(0))

    def check(self, shapes: Mapping[str, tuple[int, ...]], classes: tuple[str, ...]) -> None:
        for term, weight in zip(self.terms, self.weights, strict=True):
            term.check(shapes, classes)
            if not np.all(np.isfinite(weight)):
                raise ValueError(f"weight: finite numbers were expected, given {weight}")
        _ = self.batch_shape

    def titles(self, classes: tuple[str, ...]) -> np.ndarray:
        result = np.full(self.batch_shape, "", object)
        for term, weight in zip(self.terms, self.weights, strict=True):
            for i, title in np.ndenumerate(np.broadcast_to(term.titles(classes), result.shape)):
                w = float(np.broadcast_to(weight, result.shape)[i])
                sign = (" + " if w >= 0 else " − ") if result[i] else ("" if w >= 0 else "−")
                result[i] += f"{sign}{'' if abs(w) == 1 else f'{abs(w):g} × '}{title}"
        return result

    def identities(self) -> np.ndarray | None:
        found = (term.identities() for term in self.terms)
        return next((i for i in found if i is not None), None)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        shapes = [term.batch_shape for term in self.terms] + [np.shape(w) for w in self.weights]
        try:
            return np.broadcast_shapes(*shapes)
        except ValueError:
            raise ValueError(
                "objective: sums need as many members in every term (or one), given batches of "
                + ", ".join(map(str, shapes))
            ) from None

    def broadcast(self, count: int) -> Objective:
        return Sum(
            tuple(term.broadcast(count) for term in self.terms),
            tuple(jnp.broadcast_to(w, (count,)) for w in self.weights),
        )


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


@flax.struct.dataclass
class Channel(_Unit):
    """See `channel`."""

    layer: str = flax.struct.field(pytree_node=False)
    unit: Array
    kind: str = _kind("Channel")

    event_ranks: ClassVar[Mapping[str, int]] = {"unit": 0}

    def __call__(self, activations: Activations) -> Array:
        return jnp.take(activations[self.layer], self.unit, axis=-1).mean()


@flax.struct.dataclass
class Neuron(_Unit):
    """See `neuron`."""

    layer: str = flax.struct.field(pytree_node=False)
    unit: Array
    position: Array | None
    kind: str = _kind("Neuron")

    event_ranks: ClassVar[Mapping[str, int]] = {"unit": 0, "position": 1}

    def __call__(self, activations: Activations) -> Array:
        x = activations[self.layer]
        if x.ndim == 4:
            y, x_ = (x.shape[1] // 2, x.shape[2] // 2) if self.position is None else self.position
            x = x[:, y, x_]
        return jnp.take(x, self.unit, axis=-1).mean()

    def check(self, shapes: Mapping[str, tuple[int, ...]], classes: tuple[str, ...]) -> None:
        _Unit.check(self, shapes, classes)
        shape = shapes[self.layer]
        if self.position is None:
            return
        if len(shape) != 3:
            raise ValueError(
                f"position: layer {self.layer!r} has shape {shape}, without places to choose from"
            )
        position = np.asarray(self.position)
        for axis, name in enumerate(("position[0] (row)", "position[1] (column)")):
            checks.integers(name, position[..., axis], high=shape[axis], what=repr(self.layer))

    def titles(self, classes: tuple[str, ...]) -> np.ndarray:
        result = np.broadcast_to(_Unit.titles(self, classes), self.batch_shape).copy()
        if self.position is not None:
            places = np.broadcast_to(self.position, (*self.batch_shape, 2))
            for i in np.ndindex(*self.batch_shape):
                result[i] = f"{result[i]}@{places[i][0]},{places[i][1]}"
        return result


@flax.struct.dataclass
class Layer(Objective):
    """See `layer`."""

    layer: str = flax.struct.field(pytree_node=False)
    kind: str = _kind("Layer")

    @property
    def layers(self) -> tuple[str, ...]:
        return (self.layer,)

    def __call__(self, activations: Activations) -> Array:
        return jnp.square(activations[self.layer]).mean()

    def check(self, shapes: Mapping[str, tuple[int, ...]], classes: tuple[str, ...]) -> None:
        checks.choice("layer", self.layer, shapes)

    def titles(self, classes: tuple[str, ...]) -> np.ndarray:
        return np.asarray(self.layer, object)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return ()


@flax.struct.dataclass
class Direction(Objective):
    """See `direction`."""

    layer: str = flax.struct.field(pytree_node=False)
    vector: Array
    kind: str = _kind("Direction")

    event_ranks: ClassVar[Mapping[str, int]] = {"vector": 1}

    @property
    def layers(self) -> tuple[str, ...]:
        return (self.layer,)

    def __call__(self, activations: Activations) -> Array:
        return (activations[self.layer] @ self.vector).mean()

    def check(self, shapes: Mapping[str, tuple[int, ...]], classes: tuple[str, ...]) -> None:
        checks.choice("layer", self.layer, shapes)
        width = shapes[self.layer][-1]
        if np.shape(self.vector)[-1] != width:
            raise ValueError(
                f"vector: {width} entries were expected, one a channel of {self.layer!r}, given "
                f"shape {np.shape(self.vector)}"
            )
        if not np.all(np.isfinite(self.vector)):
            raise ValueError("vector: finite numbers were expected, given NaN or infinity")

    def titles(self, classes: tuple[str, ...]) -> np.ndarray:
        if not self.batch_shape:
            return np.asarray(f"{self.layer}·v", object)
        titles = np.empty(self.batch_shape, object)
        titles[...] = [f"{self.layer}·v{i}" for i in range(self.batch_shape[0])]
        return titles


@flax.struct.dataclass
class Probability(_Unit):
    """See `probability`."""

    unit: Array
    kind: str = _kind("Probability")

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


def neuron(layer: str, unit: Units, position: ArrayLike | None = None) -> Neuron:
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
    if position is not None:
        places = np.asarray(position)
        if places.ndim not in (1, 2) or places.shape[-1] != 2:
            raise ValueError(f"position: (row, column) was expected, given {position!r}")
        if not np.issubdtype(places.dtype, np.integer):
            raise TypeError(f"position: integers were expected, given {position!r}")
        position = jnp.asarray(places, jnp.int32)
    return Neuron(layer, _units(unit), position)


def layer(layer: str) -> Layer:
    """The mean squared activation of a whole layer: DeepDream's objective.

    Example:
      >>> from rvis.objectives import layer
      >>> layer("layer2").layers
      ('layer2',)

    Reference: Mordvintsev et al. 2015, google/deepdream.
    """
    return Layer(layer)


def direction(layer: str, vector: ArrayLike) -> Direction:
    """The mean dot product of a layer's activation vectors with a direction.

    Args:
      layer: a name of `model.layers`.
      vector: (C,), or (m, C) for m objectives.

    Raises:
      ValueError: naming `vector`, of another rank.

    Example:
      >>> import numpy as np
      >>> from rvis.objectives import direction
      >>> direction("layer2", np.eye(8)).batch_shape
      (8,)

    Reference: Olah et al. 2017, Feature Visualization (distill), "Interaction between neurons".
    """
    array = jnp.asarray(vector, jnp.float32)
    if array.ndim not in (1, 2):
        raise ValueError(f"vector: (C,) or (m, C) was expected, given shape {array.shape}")
    return Direction(layer, array)


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


def check(objective: Any, model: Model, shape: tuple[int, int, int]) -> Objective:
    """`objective` if it fits `model` on images of `shape`.

    Raises:
      TypeError: naming `objective`, if it is none.
      ValueError: a misspelt layer (with the nearest names), a unit, position or vector that does
        not fit.
    """
    if not isinstance(objective, Objective):
        raise TypeError(
            f"objective: one of rvis.objectives was expected, such as channel('…', 0), given "
            f"{objective!r}"
        )
    reached = layer_shapes(model, shape)
    for name in objective.layers:
        checks.choice("layer", name, (*model.layers, LOGITS))
        if name not in reached:
            raise ValueError(
                f"size: {model.name} reaches {name!r} only from images of {model.input_shape}, "
                f"given {shape}"
            )
    objective.check(reached, model.classes)
    return objective
