"""Objectives of whole layers: their energy, directions, and similarity to other activations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rvis import checks, gate, struct
from rvis.objectives.base import (
    Activations,
    OfLayer,
    as_floats,
    as_position,
    at,
    check_position,
    digests,
)
from rvis.types import Array, ArrayLike, Units


@struct.dataclass
class Layer(OfLayer):
    """See `layer`."""

    layer: str = struct.static()

    def __call__(self, activations: Activations) -> Array:
        return jnp.square(activations[self.layer]).mean()


@gate.public
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
    vector = vector.reshape((1,) * (x.ndim - vector.ndim) + vector.shape)
    dots = (x * vector).sum(-1)
    if power is None:
        return dots
    # The roots of what is kept off zero, so that the gradient stays finite where a vector is zero.
    squares = jnp.square(x).sum(-1) * jnp.square(vector).sum(-1)
    cosine = dots * jnp.where(squares > 0, 1 / jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)
    return dots * jnp.maximum(cosine, _LEAST_COSINE) ** power


_LEAST_COSINE = 0.1


@struct.dataclass
class Direction(OfLayer):
    """See `direction`."""

    layer: str = struct.static()
    vector: Array
    cosine_power: Array | None = None
    position: Array | None = None

    mark = "·v"
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
        _check_width("vector", self.vector, self.layer, shapes)
        if self.position is not None:
            check_position(self.position, self.layer, shapes[self.layer])


@gate.public
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

    Example:
      >>> import numpy as np
      >>> from rvis.objectives import direction
      >>> direction("layer2", np.eye(8), cosine_power=2).batch_shape
      (8,)

    Reference: Olah et al. 2017, Feature Visualization (distill), "Interaction between neurons";
      tensorflow/lucid, `optvis/objectives.py` (`direction_neuron`, `direction_cossim`).
    """
    vectors = as_floats("vector", vector, "(C,)", "(m, C)")
    return Direction(layer, vectors, _power(cosine_power), as_position(position))


@struct.dataclass
class TensorDirection(OfLayer):
    """See `tensor_direction`."""

    layer: str = struct.static()
    tensor: Array
    cosine_power: Array | None = None
    position: Array | None = None

    mark = "·t"
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
            zero = jnp.zeros_like(self.position[0])
            start = (zero, self.position[0], self.position[1], zero)
            x = lax.dynamic_slice(x, start, (x.shape[0], height, width, x.shape[3]))
        return _towards(x, self.tensor, self.cosine_power).mean()

    def check(self, shapes: Mapping[str, tuple[int, ...]], classes: tuple[str, ...]) -> None:
        OfLayer.check(self, shapes, classes)
        shape, given = shapes[self.layer], np.shape(self.tensor)[-3:]
        fits = len(shape) == 3 and given[2] == shape[2] and given[0] <= shape[0]
        if not fits or given[1] > shape[1]:
            raise ValueError(f"tensor: (h, w, C) within {shape} was expected, given {given}")
        checks.finite("tensor", self.tensor)
        if self.position is not None:
            room = [whole - part + 1 for whole, part in zip(shape[:2], given[:2], strict=True)]
            check_position(self.position, self.layer, (*room, shape[2]))


@gate.public
def tensor_direction(
    layer: str,
    tensor: ArrayLike,
    *,
    cosine_power: ArrayLike | None = None,
    position: Units | None = None,
) -> TensorDirection:
    """The mean dot product of a layer's activations with a tensor laid over them.

    With the activations of an image as the tensor, and a cosine power, its optimum is that image's
    caricature: what the layer saw in it, exaggerated.

    Args:
      layer: a name of `model.layers` with positions.
      tensor: (h, w, C), or (m, h, w, C) for m objectives; h and w at most the layer's.
      cosine_power: as for `direction`.
      position: (row, column), or (m, 2), of the tensor's first place; centred by default.

    Example:
      >>> import numpy as np
      >>> from rvis.objectives import tensor_direction
      >>> tensor_direction("conv2", np.ones((3, 3, 64)), cosine_power=1).batch_shape
      ()

    Reference: tensorflow/lucid, `optvis/objectives.py` and `recipes/caricature.py`.
    """
    tensors = as_floats("tensor", tensor, "(h, w, C)", "(m, h, w, C)")
    return TensorDirection(layer, tensors, _power(cosine_power), as_position(position))


@struct.dataclass
class Match(OfLayer):
    """See `match`."""

    layer: str = struct.static()
    target: Array
    rank: int = struct.static()

    mark = " like target"

    @property
    def event_ranks(self) -> Mapping[str, int]:  # type: ignore[override]
        return {"target": self.rank}

    def __call__(self, activations: Activations) -> Array:
        x = activations[self.layer]
        size = jnp.square(self.target).sum()
        distance = jnp.square(x - self.target[None]).sum(tuple(range(1, x.ndim)))
        return -(distance / jnp.where(size > 0, size, 1)).mean()

    def check(self, shapes: Mapping[str, tuple[int, ...]], classes: tuple[str, ...]) -> None:
        OfLayer.check(self, shapes, classes)
        shape, given = shapes[self.layer], np.shape(self.target)
        if given[len(given) - self.rank :] != shape:
            raise ValueError(f"target: {shape}, as {self.layer!r} is, was expected, given {given}")
        checks.finite("target", self.target)


@gate.public
def match(layer: str, target: ArrayLike, *, many: bool = False) -> Match:
    """How near a layer's activations come to given ones: −‖Φ − Φ₀‖² / ‖Φ₀‖², at most 0.

    Its negative, `-match(…)`, is the activation difference: it drives an image away from Φ₀.

    Args:
      layer: a name of `model.layers`.
      target: Φ₀, (h, w, C) or (C,) as the layer is.
      many: whether `target` has a leading axis, for as many objectives.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis.objectives import match
      >>> float(match("fc", jnp.ones(4))({"fc": jnp.zeros((1, 4))}))
      -1.0

    Reference: Mahendran & Vedaldi 2014, eq. 2 and section 3.
    """
    shapes = ("(m, h, w, C)", "(m, C)") if many else ("(h, w, C)", "(C,)")
    wanted = as_floats("target", target, *shapes)
    return Match(layer, wanted, wanted.ndim - many)


@struct.dataclass
class Guide(OfLayer):
    """See `guide`."""

    layer: str = struct.static()
    features: Array

    mark = " guided"
    event_ranks: ClassVar[Mapping[str, int]] = {"features": 2}

    def __call__(self, activations: Activations) -> Array:
        return (activations[self.layer] @ self.features.T).max(-1).mean()

    def check(self, shapes: Mapping[str, tuple[int, ...]], classes: tuple[str, ...]) -> None:
        OfLayer.check(self, shapes, classes)
        _check_width("features", self.features, self.layer, shapes)


@gate.public
def guide(layer: str, features: ArrayLike) -> Guide:
    """DeepDream's guide: each position climbs towards the one of given features it likes best.

    The mean over positions i of max_j x_i·y_j, whose gradient is y[argmax_j].

    Args:
      layer: a name of `model.layers`.
      features: (h, w, C), the guide image's activations there, or any (k, C) vectors.

    Example:
      >>> import numpy as np
      >>> from rvis.objectives import guide
      >>> guide("layer2", np.ones((4, 4, 8))).features.shape
      (16, 8)

    Reference: google/deepdream, `dream.ipynb`, "Controlling dreams".
    """
    vectors = as_floats("features", features, "(h, w, C)", "(k, C)")
    return Guide(layer, vectors.reshape(-1, vectors.shape[-1]))


def _check_width(
    argument: str, vectors: Array, layer: str, shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Refuses vectors that are not finite, or have not one entry a channel of the layer."""
    given, width = np.shape(vectors), shapes[layer][-1]
    if given[-1] != width:
        raise ValueError(f"{argument}: {width} entries were expected, given shape {given}")
    checks.finite(argument, vectors)


def _power(given: ArrayLike | None) -> Array | None:
    if given is None:
        return None
    powers = checks.array("cosine_power", given)
    if not isinstance(powers, jax.core.Tracer):
        held = np.asarray(jax.device_get(powers))
        if not np.isfinite(held).all() or (held < 0).any():
            raise ValueError(f"cosine_power: numbers of at least 0 were expected, given {given!r}")
    return as_floats("cosine_power", powers, "()", "(m,)")
