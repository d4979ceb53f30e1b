"""Objectives of whole layers: their energy, directions, and likeness to other activations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import flax.struct
import jax.numpy as jnp
import numpy as np
from jax import lax

from rvis import checks
from rvis.objectives.base import (
    Activations,
    Objective,
    as_position,
    at,
    check_position,
    digests,
    kind_field,
)
from rvis.types import Array, ArrayLike, Units


class OfLayer(Objective):
    """What objectives of one whole layer share."""

    layer: str

    @property
    def layers(self) -> tuple[str, ...]:
        return (self.layer,)

    def check(self, shapes: Mapping[str, tuple[int, ...]], classes: tuple[str, ...]) -> None:
        checks.choice("layer", self.layer, shapes)

    def named(self, sign: str) -> np.ndarray:
        """`layer·v` for one objective, `layer·v0` and so on for many."""
        if not self.batch_shape:
            return np.asarray(f"{self.layer}{sign}", object)
        titles = np.empty(self.batch_shape, object)
        titles[...] = [f"{self.layer}{sign}{i}" for i in range(self.batch_shape[0])]
        return titles


@flax.struct.dataclass
class Layer(OfLayer):
    """See `layer`."""

    layer: str = flax.struct.field(pytree_node=False)
    kind: str = kind_field("Layer")

    def __call__(self, activations: Activations) -> Array:
        return jnp.square(activations[self.layer]).mean()

    def titles(self, classes: tuple[str, ...]) -> np.ndarray:
        return np.asarray(self.layer, object)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return ()


def layer(layer: str) -> Layer:
    """The mean squared activation of a whole layer: DeepDream's objective.

    Example:
      >>> from rvis.objectives import layer
      >>> layer("layer2").layers
      ('layer2',)

    Reference: Mordvintsev et al. 2015, google/deepdream.
    """
    return Layer(layer)


def _towards(x: Array, vector: Array, power: Array | None) -> Array:
    """Dot products along the last axis, times max(.1, cosine)^power where that is asked for."""
    dots = (x * vector).sum(-1)
    if power is None:
        return dots
    # The roots of what is kept off zero, so that the gradient stays finite where a vector is zero.
    squares = jnp.square(x).sum(-1) * jnp.square(vector).sum(-1)
    cosine = dots * jnp.where(squares > 0, 1 / jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)
    return dots * jnp.maximum(cosine, _LEAST_COSINE) ** power


_LEAST_COSINE = 0.1


@flax.struct.dataclass
class Direction(OfLayer):
    """See `direction`."""

    layer: str = flax.struct.field(pytree_node=False)
    vector: Array
    cosine_power: Array | None = None
    position: Array | None = None
    kind: str = kind_field("Direction")

    event_ranks: ClassVar[Mapping[str, int]] = {"vector": 1, "cosine_power": 0, "position": 1}

    def identities(self) -> np.ndarray:
        return digests(self.vector, 1)

    def __call__(self, activations: Activations) -> Array:
        x = activations[self.layer]
        if self.position is not None:
            x = at(x, self.position)
        if self.cosine_power is None:
            return (x @ self.vector).mean()
        return _towards(x, self.vector, self.cosine_power).mean()

    def check(self, shapes: Mapping[str, tuple[int, ...]], classes: tuple[str, ...]) -> None:
        OfLayer.check(self, shapes, classes)
        width = shapes[self.layer][-1]
        if np.shape(self.vector)[-1] != width:
            raise ValueError(
                f"vector: {width} entries were expected, one a channel of {self.layer!r}, given "
                f"shape {np.shape(self.vector)}"
            )
        refuse_nan("vector", self.vector)
        if self.position is not None:
            check_position(self.position, self.layer, shapes[self.layer])

    def titles(self, classes: tuple[str, ...]) -> np.ndarray:
        return self.named("·v")


def direction(
    layer: str,
    vector: ArrayLike,
    *,
    cosine_power: ArrayLike | None = None,
    position: Units | None = None,
) -> Direction:
    """The mean dot product of a layer's activation vectors with a direction.

    With `cosine_power` p it is dot·max(.1, cosine)^p at each position, which asks for the direction
    itself rather than for its strongest channels.

    Args:
      layer: a name of `model.layers`.
      vector: (C,), or (m, C) for m objectives.
      cosine_power: p ≥ 0, or one for each objective; none by default.
      position: (row, column), or (m, 2), of the only neuron that counts; all by default.

    Raises:
      TypeError, ValueError: naming the argument.

    Example:
      >>> import numpy as np
      >>> from rvis.objectives import direction
      >>> direction("layer2", np.eye(8), cosine_power=2).batch_shape
      (8,)

    Reference: Olah et al. 2017, Feature Visualization (distill), "Interaction between neurons";
      tensorflow/lucid, `optvis/objectives.py` (`direction`, `direction_neuron`,
      `direction_cossim`).
    """
    array = jnp.asarray(vector, jnp.float32)
    if array.ndim not in (1, 2):
        raise ValueError(f"vector: (C,) or (m, C) was expected, given shape {array.shape}")
    place = None if position is None else as_position(position)
    return Direction(layer, array, _power(cosine_power), place)


@flax.struct.dataclass
class TensorDirection(OfLayer):
    """See `tensor_direction`."""

    layer: str = flax.struct.field(pytree_node=False)
    tensor: Array
    cosine_power: Array | None = None
    position: Array | None = None
    kind: str = kind_field("TensorDirection")

    event_ranks: ClassVar[Mapping[str, int]] = {"tensor": 3, "cosine_power": 0, "position": 1}

    def identities(self) -> np.ndarray:
        return digests(self.tensor, 3)

    def __call__(self, activations: Activations) -> Array:
        x = activations[self.layer]
        height, width = self.tensor.shape[:2]
        if self.position is None:
            top, left = (x.shape[1] - height) // 2, (x.shape[2] - width) // 2
            x = x[:, top : top + height, left : left + width]
        else:
            start = (0, self.position[0], self.position[1], 0)
            x = lax.dynamic_slice(x, start, (x.shape[0], height, width, x.shape[3]))
        return _towards(x, self.tensor, self.cosine_power).mean()

    def check(self, shapes: Mapping[str, tuple[int, ...]], classes: tuple[str, ...]) -> None:
        OfLayer.check(self, shapes, classes)
        shape, given = shapes[self.layer], np.shape(self.tensor)[-3:]
        fits = (
            len(shape) == 3
            and given[2] == shape[2]
            and all(part <= whole for part, whole in zip(given[:2], shape[:2], strict=True))
        )
        if not fits:
            raise ValueError(
                f"tensor: (h, w, C) within {shape}, as {self.layer!r} is, was expected, given "
                f"{given}"
            )
        refuse_nan("tensor", self.tensor)
        if self.position is not None:
            room = [whole - part + 1 for whole, part in zip(shape[:2], given[:2], strict=True)]
            check_position(self.position, self.layer, (*room, shape[2]))

    def titles(self, classes: tuple[str, ...]) -> np.ndarray:
        return self.named("·t")


def tensor_direction(
    layer: str,
    tensor: ArrayLike,
    *,
    cosine_power: ArrayLike | None = None,
    position: Units | None = None,
) -> TensorDirection:
    """The mean dot product of a layer's activations with a tensor laid over them.

    With the activations of an image as the tensor, and a cosine power, its optimum is that image's
    caricature: what the layer saw in it, exaggerated. A vector repeated over a few places is the
    direction of a window of the layer, wherever `position` puts it.

    Args:
      layer: a name of `model.layers` with positions.
      tensor: (h, w, C), or (m, h, w, C) for m objectives; h and w at most the layer's.
      cosine_power: as for `direction`.
      position: (row, column), or (m, 2), of the place where the tensor's first one lies; it lies
        over the centre by default.

    Raises:
      TypeError, ValueError: naming the argument.

    Example:
      >>> import jax.numpy as jnp, rvis
      >>> from rvis.objectives import tensor_direction
      >>> model = rvis.load("mnist_cnn")
      >>> seen = rvis.record(model, jnp.zeros((1, 28, 28, 1)), "conv2")["conv2"][0]
      >>> tensor_direction("conv2", seen, cosine_power=1).batch_shape
      ()

    Reference: tensorflow/lucid, `optvis/objectives.py` (`tensor_direction`) and
      `recipes/caricature.py`; greentfrapp/lucent, `optvis/objectives.py` (`localgroup_weight`);
      Olah et al. 2019, Activation Atlas (distill).
    """
    array = jnp.asarray(tensor, jnp.float32)
    if array.ndim not in (3, 4):
        raise ValueError(f"tensor: (h, w, C) or (m, h, w, C) was expected, given {array.shape}")
    place = None if position is None else as_position(position)
    return TensorDirection(layer, array, _power(cosine_power), place)


@flax.struct.dataclass
class Match(OfLayer):
    """See `match`."""

    layer: str = flax.struct.field(pytree_node=False)
    target: Array
    rank: int = flax.struct.field(pytree_node=False)
    kind: str = kind_field("Match")

    @property
    def event_ranks(self) -> Mapping[str, int]:  # type: ignore[override]
        return {"target": self.rank}

    def __call__(self, activations: Activations) -> Array:
        x = activations[self.layer]
        size = jnp.square(self.target).sum()
        distance = jnp.square(x - self.target).sum(tuple(range(1, x.ndim)))
        return -(distance / jnp.where(size > 0, size, 1)).mean()

    def check(self, shapes: Mapping[str, tuple[int, ...]], classes: tuple[str, ...]) -> None:
        OfLayer.check(self, shapes, classes)
        shape, given = shapes[self.layer], np.shape(self.target)
        if given[len(given) - self.rank :] != shape:
            raise ValueError(
                f"target: {shape}, as {self.layer!r} is, was expected, given shape {given}"
            )
        refuse_nan("target", self.target)

    def titles(self, classes: tuple[str, ...]) -> np.ndarray:
        return self.named(" like target")


def match(layer: str, target: ArrayLike, *, many: bool = False) -> Match:
    """How near a layer's activations come to given ones: −‖Φ − Φ₀‖² / ‖Φ₀‖², at most 0.

    Its negative, `-match(…)`, is the activation difference: it drives an image away from Φ₀.

    Args:
      layer: a name of `model.layers`.
      target: Φ₀, (h, w, C) or (C,) as the layer is.
      many: whether `target` has a leading axis, for as many objectives.

    Raises:
      ValueError: naming `target`, of a rank that no layer has.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis.objectives import match
      >>> float(match("fc", jnp.ones(4))({"fc": jnp.zeros((1, 4))}))
      -1.0

    Reference: Mahendran & Vedaldi 2014, eq. 2 and section 3; tensorflow/lucid,
      `notebooks/differentiable-parameterizations/style_transfer_2d.ipynb`
      (`activation_difference`).
    """
    array = jnp.asarray(target, jnp.float32)
    rank = array.ndim - many
    if rank not in (1, 3):
        raise ValueError(
            f"target: (h, w, C) or (C,){' behind a leading axis' if many else ''} was expected, "
            f"given shape {array.shape}"
        )
    return Match(layer, array, rank)


@flax.struct.dataclass
class Guide(OfLayer):
    """See `guide`."""

    layer: str = flax.struct.field(pytree_node=False)
    features: Array
    kind: str = kind_field("Guide")

    event_ranks: ClassVar[Mapping[str, int]] = {"features": 2}

    def __call__(self, activations: Activations) -> Array:
        return (activations[self.layer] @ self.features.T).max(-1).mean()

    def check(self, shapes: Mapping[str, tuple[int, ...]], classes: tuple[str, ...]) -> None:
        OfLayer.check(self, shapes, classes)
        width = shapes[self.layer][-1]
        if np.shape(self.features)[-1] != width:
            raise ValueError(
                f"features: {width} entries each were expected, one a channel of {self.layer!r}, "
                f"given shape {np.shape(self.features)}"
            )
        refuse_nan("features", self.features)

    def titles(self, classes: tuple[str, ...]) -> np.ndarray:
        return self.named(" guided")


def guide(layer: str, features: ArrayLike) -> Guide:
    """DeepDream's guide: each position climbs towards the one of given features it likes best.

    The mean over positions i of max_j x_i·y_j, whose gradient is y[argmax_j].

    Args:
      layer: a name of `model.layers`.
      features: (h, w, C), the guide image's activations there, or any (k, C) vectors.

    Raises:
      ValueError: naming `features`, of another rank.

    Example:
      >>> import numpy as np
      >>> from rvis.objectives import guide
      >>> guide("layer2", np.ones((4, 4, 8))).features.shape
      (16, 8)

    Reference: google/deepdream, `dream.ipynb`, "Controlling dreams".
    """
    array = jnp.asarray(features, jnp.float32)
    if array.ndim not in (2, 3):
        raise ValueError(f"features: (h, w, C) or (k, C) was expected, given {array.shape}")
    return Guide(layer, array.reshape(-1, array.shape[-1]))


def _power(given: ArrayLike | None) -> Array | None:
    if given is None:
        return None
    array = np.asarray(given)
    if array.ndim > 1 or not np.all(np.isfinite(array)) or np.any(array < 0):
        raise ValueError(f"cosine_power: numbers of at least 0 were expected, given {given!r}")
    return jnp.asarray(array, jnp.float32)


def refuse_nan(argument: str, value: Any) -> None:
    """Raises ValueError, naming the argument, for anything but finite numbers."""
    if not np.all(np.isfinite(value)):
        raise ValueError(f"{argument}: finite numbers were expected, given NaN or infinity")
