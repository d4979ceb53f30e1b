"""Networks of several inputs, or of inputs that are no images: all are joined into one image."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks, struct
from rvis.models.apply import LinenApply, assemble, has_activations, reason
from rvis.types import (
    Array,
    ArrayLike,
    Model,
    PyTree,
    Relu,
    Tap,
    check_model,
    flat_shapes,
    identity,
)

Shape = tuple[int, ...]
"""Of one input, without the batch axis."""
Range = tuple[float, float]
"""(low, high) that an input lies between."""


@dataclasses.dataclass(frozen=True)
class JoinedApply:
    """The `apply` of a network of several inputs, as a function of one image; see `join_inputs`.

    Attributes:
      apply: `apply(params, inputs, *, tap, relu)`, with a tuple of inputs (n, *shape), each in its
        own range; it gives an array (n, ...) or a pytree of them.
      shapes: of the inputs.
      ranges: of the inputs.
    """

    apply: Callable[..., Any]
    shapes: tuple[Shape, ...]
    ranges: tuple[Range, ...]

    @property
    def takes_relu(self) -> bool:
        """Whether a rule for the ReLU's gradient can be put in."""
        return getattr(self.apply, "takes_relu", True)

    @property
    def cells(self) -> tuple[int, ...]:
        """How many numbers each input has."""
        return tuple(math.prod(shape) for shape in self.shapes)

    def __call__(
        self, params: PyTree, images: Array, *, tap: Tap = identity, relu: Relu = jax.nn.relu
    ) -> Array:
        """All outputs, flattened to (n, numbers), of images (n, 1, cells, 1) in [0, 1]."""
        outputs = self.apply(params, self.split(images), tap=tap, relu=relu)
        # One number an example is a layer of one unit.
        leaves = [out[:, None] if out.ndim == 1 else out for out in jax.tree.leaves(outputs)]
        outputs = [tap(f"output{i}", out) for i, out in enumerate(leaves)]
        return jnp.concatenate([out.reshape(out.shape[0], -1) for out in outputs], 1)

    def split(self, images: Array) -> tuple[Array, ...]:
        """The inputs (..., *shape), each in its range, of images (..., 1, cells, 1)."""
        parts = jnp.split(images[..., 0, :, 0], np.cumsum(self.cells)[:-1], axis=-1)
        return tuple(
            low + (high - low) * part.reshape(*part.shape[:-1], *shape)
            for part, shape, (low, high) in zip(parts, self.shapes, self.ranges, strict=True)
        )

    def join(self, inputs: Sequence[Array]) -> Array:
        """The images (..., 1, cells, 1) of inputs: undoes `split`."""
        parts = [
            ((part - low) / (high - low)).reshape(*part.shape[: part.ndim - len(shape)], -1)
            for part, shape, (low, high) in zip(inputs, self.shapes, self.ranges, strict=True)
        ]
        return jnp.concatenate(parts, -1)[..., None, :, None]


def join_inputs(
    network: nn.Module | Callable[..., Any],
    params: PyTree,
    shapes: Sequence[Sequence[int]],
    *,
    ranges: Sequence[Range] | None = None,
    name: str = "model",
) -> Model:
    """A model of a network with several inputs and outputs, each of any rank.

    The model's "image" has the shape (1, cells, 1): the inputs one after another, each scaled from
    its range to [0, 1]. `rvis.visualize` optimizes all of them jointly; `split_inputs` takes its
    images apart. The outputs, in the order of `jax.tree.leaves`, are the layers "output0" and
    so on; "logits" is all of them, flattened.

    Neighbours in that image are no neighbours in an input. Give `visualize` therefore
    `image="pixel"` and `transforms=()`, and of the regularizers `l1` alone.

    Args:
      network: a Flax Linen module that is called with the inputs as its arguments; or a function
        `apply(params, inputs, *, tap, relu)` of a tuple of inputs, which hashes by value.
      params: {"params": …} of the module, or what the function takes.
      shapes: of the inputs, without the batch axis.
      ranges: (low, high) of each, between which it stays; (0, 1) by default.
      name: what to call the model.

    Raises:
      TypeError, ValueError: naming the argument.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, rvis
      >>> from rvis.models.inputs import join_inputs, split_inputs
      >>> class Net(nn.Module):
      ...     @nn.compact
      ...     def __call__(self, signal, volume):
      ...         heard = nn.Conv(4, (3,), name="heard")(signal).mean(1)
      ...         return nn.Dense(2, name="a")(heard), nn.Dense(5, name="b")(volume[:, 0, 0, 0])
      >>> shapes = (16, 1), (4, 4, 4, 1)
      >>> params = Net().init(jax.random.key(0), *(jnp.zeros((1, *shape)) for shape in shapes))
      >>> model = join_inputs(Net(), params, shapes, ranges=[(-1, 1), (0, 1)])
      >>> model.layers
      ('heard', 'a', 'b', 'output0', 'output1')
      >>> [part.shape for part in split_inputs(model, jnp.zeros(model.input_shape))]
      [(16, 1), (4, 4, 4, 1)]
    """
    if not isinstance(shapes, Sequence) or not all(isinstance(s, Sequence) for s in shapes):
        raise TypeError(f"shapes: a list with one shape an input was expected, given {shapes!r}")
    sizes = tuple(tuple(checks.count("shapes", side) for side in shape) for shape in shapes)
    if not sizes:
        raise ValueError("shapes: at least one input was expected, given none")
    spans = [(0.0, 1.0)] * len(sizes) if ranges is None else list(ranges)
    if len(spans) != len(sizes):
        raise ValueError(f"ranges: {len(sizes)} were expected, given {len(spans)}")
    if not all(isinstance(span, Sequence) and len(span) == 2 for span in spans):
        raise TypeError(f"ranges: pairs (low, high) were expected, given {spans!r}")
    lows = [checks.number("ranges", low) for low, _ in spans]
    highs = [
        checks.number("ranges", high, above=low) for low, (_, high) in zip(lows, spans, strict=True)
    ]
    inner = LinenApply(network) if isinstance(network, nn.Module) else network
    apply = JoinedApply(inner, sizes, tuple(zip(lows, highs, strict=True)))
    params = jax.tree.map(jnp.asarray, params)
    try:
        model = assemble(apply, params, (1, sum(apply.cells), 1), (), name)
    except ValueError as error:
        raise ValueError(
            f"network: it cannot be called with inputs of shapes {list(sizes)} ({reason(error)})"
        ) from error
    if not isinstance(inner, LinenApply) or inner.takes_relu:
        return model
    active = has_activations(apply, *flat_shapes(params), model.input_shape)
    inner = dataclasses.replace(inner, activations=active)
    return struct.replace(model, apply=dataclasses.replace(apply, apply=inner))


def split_inputs(model: Model, images: ArrayLike) -> tuple[Array, ...]:
    """The inputs (..., *shape), in their ranges, that images (..., 1, cells, 1) of a model hold.

    Raises:
      ValueError: naming `model`, where it is none of `join_inputs`, or `images`.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis.models.inputs import as_image, join_inputs, split_inputs
      >>> def apply(params, inputs, *, tap, relu):
      ...     return inputs[0].sum(1, keepdims=True), inputs[1].sum((1, 2))
      >>> model = join_inputs(apply, {}, [(3,), (2, 1)], ranges=[(0, 1), (-2, 2)])
      >>> image = as_image(model, [jnp.ones(3), jnp.array([[-1.0], [2.0]])])
      >>> [part.tolist() for part in split_inputs(model, image)]
      [[1.0, 1.0, 1.0], [[-1.0], [2.0]]]
    """
    apply = _joined(model)
    array = jnp.asarray(images)
    if array.shape[-3:] != model.input_shape:
        wanted = ", ".join(map(str, model.input_shape))
        raise ValueError(f"images: (…, {wanted}) was expected, given shape {array.shape}")
    return apply.split(array)


def as_image(model: Model, inputs: Sequence[ArrayLike]) -> Array:
    """The image (..., 1, cells, 1) of inputs (..., *shape): undoes `split_inputs`.

    Raises:
      ValueError: naming `model`, where it is none of `join_inputs`, or `inputs`.
    """
    apply = _joined(model)
    arrays = [jnp.asarray(part, jnp.float32) for part in inputs]
    given = [array.shape for array in arrays]
    lead = given[0][: len(given[0]) - len(apply.shapes[0])] if given else ()
    if given != [(*lead, *shape) for shape in apply.shapes]:
        raise ValueError(
            f"inputs: shapes {list(apply.shapes)} with the same leading axes were expected, given "
            f"{given}"
        )
    return apply.join(arrays)


def _joined(model: Model) -> JoinedApply:
    apply = check_model(model).apply
    if not isinstance(apply, JoinedApply):
        raise ValueError(f"model: one of join_inputs was expected, given {model.name}")
    return apply
