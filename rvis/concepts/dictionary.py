"""A dictionary of directions: what makes concepts of a layer's activations, and back."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks, gate, objectives, struct
from rvis.objectives import Objective
from rvis.types import (
    LOGITS,
    Array,
    ArrayLike,
    Model,
    PyTree,
    Relu,
    Tap,
    Units,
    identity,
    layer_shapes,
)

RULES = ("linear", "relu", "jump", "topk", "signed topk", "nearest")


class Encode(Protocol):
    """What a dictionary's encoder can do; it is a pytree."""

    def readings(self, x: Array) -> Array:
        """(..., k) numbers linear in activations (..., C)."""

    def rule(self, readings: Array) -> Array:
        """(..., k) concepts from readings."""


@struct.dataclass
class Encoder:
    """Concepts z = rule((x − centre)·kernel + bias) of activations x.

    Attributes:
      kernel: (C, k).
      bias: (k,).
      centre: (C,).
      threshold: () or (k,), below which "jump" gives 0.
      kind: the rule. "linear": the readings themselves; "relu": their positive part; "jump": that
        above the threshold; "topk": that of the `active` largest; "signed topk": the `active`
        largest as they are; "nearest": 1 for the largest, 0 for all others.
      active: how many concepts "topk" leaves at each place.
    """

    kernel: Array
    bias: Array
    centre: Array
    threshold: Array
    kind: str = struct.static(default="relu")
    active: int = struct.static(default=0)

    def readings(self, x: Array) -> Array:
        """(..., k) before the rule."""
        return (x - self.centre) @ self.kernel + self.bias

    def rule(self, readings: Array) -> Array:
        """(..., k) concepts."""
        if self.kind == "linear":
            return readings
        if self.kind == "nearest":
            return jax.nn.one_hot(readings.argmax(-1), readings.shape[-1], dtype=readings.dtype)
        if self.kind == "signed topk":
            least = jax.lax.top_k(readings, self.active)[0][..., -1:]
            return jnp.where(readings >= least, readings, 0)
        if self.kind == "topk":
            return largest(readings, self.active)[0]
        least = self.threshold if self.kind == "jump" else jnp.zeros((), readings.dtype)
        return jnp.where(readings > least, jax.nn.relu(readings), 0)


def largest(readings: Array, count: int, *, axis: int | None = -1) -> tuple[Array, Array]:
    """The positive part of the `count` largest along an axis (None: of all), and what they exceed.

    By bisection to the last bits: XLA's sorts take 16 times as long on a CPU (2,048 × 896 readings:
    250 ms of one core against 16).

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis.concepts.dictionary import largest
      >>> largest(jnp.array([3.0, -1.0, 2.0, 5.0]), 2)[0].tolist()
      [3.0, 0.0, 0.0, 5.0]
    """
    positive = jax.nn.relu(readings)
    held = jax.lax.stop_gradient(positive)
    high = held.max(axis, keepdims=True)
    low = jnp.zeros_like(high)
    for _ in range(26):
        middle = (low + high) / 2
        many = (held > middle).sum(axis, keepdims=True, dtype=jnp.int32) > count
        low, high = jnp.where(many, middle, low), jnp.where(many, high, middle)
    return jnp.where(held > high, positive, 0), high


@struct.dataclass
class Decoder:
    """Activations x̂ = z·vectors + offset.

    Attributes:
      vectors: (k, C), the directions.
      offset: (C,).
    """

    vectors: Array
    offset: Array

    def __call__(self, z: Array) -> Array:
        """(..., C) of concepts (..., k)."""
        return z @ self.vectors + self.offset


@struct.dataclass
class Concepts:
    """Directions of a layer, and how strong each is at a place; a pytree.

    Attributes:
      encode: an `Encoder`, or anything with `readings` and `rule`.
      decode: a `Decoder`.
      layer: its name.
      names: one a concept; empty where they have none.

    Example:
      >>> import numpy as np
      >>> from rvis.concepts import channels
      >>> concepts = channels("relu1", 4)
      >>> concepts(np.ones((2, 7, 7, 4), np.float32)).shape, len(concepts)
      ((2, 7, 7, 4), 4)
    """

    encode: Encode
    decode: Decoder
    layer: str = struct.static()
    names: tuple[str, ...] = struct.static(default=())

    def __call__(self, activations: ArrayLike) -> Array:
        """(..., k) concepts of activations (..., C)."""
        return self.encode.rule(self.encode.readings(jnp.asarray(activations)))

    def __len__(self) -> int:
        """How many concepts there are."""
        return int(self.decode.vectors.shape[0])

    def unnamed(self) -> Concepts:
        """The same without its names, as compiled programs know it."""
        return struct.replace(self, names=())

    def named(self, number: int) -> str:
        """What to call a concept."""
        return self.names[number] if self.names else f"{self.layer} concept {number}"

    def numbers(self, given: Units | None) -> np.ndarray:
        """Concept numbers (m,), all of them for None; else an error names `numbers`."""
        if given is None:
            return np.arange(len(self), dtype=np.int32)
        found = checks.integers("numbers", given, high=len(self), what="the concepts").reshape(-1)
        if not found.size:
            raise ValueError("numbers: at least one concept was expected, given none")
        return found

    def objective(self, numbers: Units | None = None) -> Objective:
        """The objectives that raise concepts: the directions along which they are read.

        Args:
          numbers: (m,) of the concepts; all by default.

        Example:
          >>> from rvis.concepts import channels
          >>> channels("relu1", 4).objective([0, 3]).batch_shape
          (2,)
        """
        # The readings are affine in the activations, so that this is their mean but for a constant.
        width = jnp.zeros((self.decode.vectors.shape[1],), jnp.float32)
        rows = jax.jacobian(self.encode.readings)(width)[self.numbers(numbers)]
        return objectives.direction(self.layer, rows)


@gate.public
def channels(layer: str, width: int) -> Concepts:
    """A layer's channels themselves as concepts, to compare others with.

    Args:
      layer: its name.
      width: its channels.

    Example:
      >>> from rvis.concepts import channels
      >>> channels("relu1", 3).names
      ('relu1:0', 'relu1:1', 'relu1:2')
    """
    eye = jnp.eye(checks.count("width", width), dtype=jnp.float32)
    none = jnp.zeros(width, jnp.float32)
    encoder = Encoder(eye, none, none, jnp.float32(0), "linear")
    return Concepts(encoder, Decoder(eye, none), layer, tuple(f"{layer}:{i}" for i in range(width)))


def check_concepts(model: Any, concepts: Any, shape: tuple[int, ...] | None = None) -> tuple:
    """The shape of the layer for an image of `shape`, if the concepts are of this model.

    Raises:
      TypeError, ValueError: naming `model` or `concepts`.
    """
    checks.choice("concepts", concepts.layer, model.layers)
    shapes = layer_shapes(model, shape)  # type: ignore[arg-type]
    found = shapes.get(concepts.layer, ())
    if len(found) not in (1, 3) or found[-1] != concepts.decode.vectors.shape[1]:
        raise ValueError(
            f"concepts: directions of {concepts.layer!r}, whose shape is {found}, were expected, "
            f"given {concepts.decode.vectors.shape[1]} entries"
        )
    return found


@gate.public
def attach(model: Model, concepts: Concepts) -> Model:
    """The model with two layers more: whatever takes a layer and a channel takes a concept.

    `LAYER.readings` are the readings, whose gradient reaches concepts that are off, and
    `LAYER.concepts` the concepts. What a tap changes of them changes the activations by as much:
    x + (z′ − z)·vectors, so that what the dictionary leaves out stays. `rvis.sweep`,
    `rvis.faithfulness`, `attribution.grad_cam` and `analysis.patches.top_activations` take them.

    Args:
      model: any model.
      concepts: of one of its layers.

    Raises:
      TypeError, ValueError: naming the argument.

    Example:
      >>> import rvis
      >>> from rvis import concepts
      >>> model = concepts.attach(rvis.load("mnist_cnn"), concepts.channels("relu1", 32))
      >>> rvis.layer_shapes(model)["relu1.concepts"]
      (28, 28, 32)

    Reference: the error term is Marks et al. 2024, Sparse Feature Circuits, section 2.
    """
    check_concepts(model, concepts)
    layer, place = concepts.layer, model.layers.index(concepts.layer) + 1
    more = (f"{layer}.readings", f"{layer}.concepts")
    if set(more) & set(model.layers):
        raise ValueError(f"model: one without concepts of {layer!r} was expected")
    layers = (*model.layers[:place], *more, *model.layers[place:])
    params = {"model": model.params, "concepts": concepts.unnamed()}
    return struct.replace(model, params=params, apply=_Attached(model.apply, layer), layers=layers)


@dataclasses.dataclass(frozen=True)
class _Attached:
    """The `apply` of `attach`; whatever else is asked of it is asked of the network's own."""

    inner: Any
    layer: str

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __call__(
        self, params: PyTree, images: Array, *, tap: Tap = identity, relu: Relu = jax.nn.relu
    ) -> Array:
        concepts = params["concepts"]

        def tapped(name: str, x: Array) -> Array:
            x = tap(name, x)
            if name != self.layer or tap is identity:
                return x
            plain = concepts.encode.readings(x)
            readings = tap(f"{name}.readings", plain)
            z = concepts.encode.rule(readings)
            changed = tap(f"{name}.concepts", z)
            if readings is plain and changed is z:
                return x
            before = z if readings is plain else concepts.encode.rule(plain)
            return x + (changed - before) @ concepts.decode.vectors

        return self.inner(params["model"], images, tap=tapped, relu=relu)


def class_names(model: Model) -> tuple[str, ...]:
    """Of the model's logits, by their numbers where they have none."""
    return model.classes or tuple(f"class {i}" for i in range(layer_shapes(model)[LOGITS][-1]))
