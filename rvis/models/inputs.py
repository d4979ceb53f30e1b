"""Networks of several inputs, of any rank each: all of them side by side as one picture."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks
from rvis.models.apply import LinenApply, assemble, reason
from rvis.types import Array, ArrayLike, Model, PyTree, Relu, Tap, identity

Shape = tuple[int, ...]
"""Of one input, without the batch axis."""
Range = tuple[float, float]
"""(low, high) that an input lies between."""


@dataclasses.dataclass(frozen=True)
class JoinedApply:
    """The `apply` of a network of several inputs, as one of pictures (1, cells, 1): `join_inputs`.

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
        """All outputs side by side, (n, numbers), of pictures (n, 1, cells, 1) in [0, 1]."""
        outputs = self.apply(params, self.split(images), tap=tap, relu=relu)
        # One number an example is a layer of one unit.
        leaves = [out[:, None] if out.ndim == 1 else out for out in jax.tree.leaves(outputs)]
        outputs = [tap(f"output{i}", out) for i, out in enumerate(leaves)]
        return jnp.concatenate([out.reshape(out.shape[0], -1) for out in outputs], 1)

    def split(self, images: Array) -> tuple[Array, ...]:
        """The inputs (..., *shape), each in its range, of pictures (..., 1, cells, 1)."""
        parts = jnp.split(images[..., 0, :, 0], np.cumsum(self.cells)[:-1], axis=-1)
        return tuple(
            low + (high - low) * part.reshape(*part.shape[:-1], *shape)
            for part, shape, (low, high) in zip(parts, self.shapes, self.ranges, strict=True)
        )

    def join(self, inputs: Sequence[Array]) -> Array:
        """The pictures whose `split` is `inputs`."""
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
    """A model of a network of several inputs and outputs, of any rank each.

    Signals (length, channels), images, volumes (depth, height, width, channels) and plain vectors
    can be mixed. The model's one "image" has the shape (1, cells, 1) and holds the inputs one
    after another, each brought from its range to [0, 1]; `rvis.visualize` so climbs on all of them
    jointly, and `split_inputs` takes its pictures apart. The outputs, in the order of
    `jax.tree.leaves`, are the layers "output0", "output1" …; one objective of several of them is
    the sum of their objectives. "logits" is all of them flattened.

    Cells side by side in that image are no neighbours in an input. `image="pixel"` and
    `transforms=()` are therefore what `visualize` has to be given: Fourier images, pyramids, CPPNs
    and MACO would tie the inputs together, and jitter or rotation mix them. Of the regularizers
    `l1` and `lp_norm` mean what they say; total variation and blur do so on one input (`on_input`).
    Of objectives, `channel` takes layers of any rank (the mean over all places); a neuron at a
    place is for layers of images alone.

    Args:
      network: a Flax Linen module that is called with the inputs as its arguments (see
        `from_linen` for its layers and keywords); or a function `apply(params, inputs, *, tap,
        relu)` of a tuple of them that hashes by value, as `NnxApply` is.
      params: {"params": …} of the module, or what the function takes.
      shapes: of the inputs, without the batch axis.
      ranges: (low, high) of each, between which it stays; (0, 1) by default.
      name: what to call the model.

    Raises:
      TypeError, ValueError: naming the argument: no inputs, sizes below 1, ranges that are empty or
        of another number, a network that cannot be applied to such inputs.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, rvis
      >>> from rvis.models.inputs import join_inputs, split_inputs
      >>> class Net(nn.Module):
      ...     @nn.compact
      ...     def __call__(self, signal, volume):
      ...         heard = nn.Conv(4, (3,), name="heard")(signal).mean(1)
      ...         seen = nn.Conv(4, (3, 3, 3), name="seen")(volume).mean((1, 2, 3))
      ...         return nn.Dense(2, name="a")(heard + seen), nn.Dense(5, name="b")(seen)
      >>> shapes = (16, 1), (4, 4, 4, 1)
      >>> params = Net().init(jax.random.key(0), *(jnp.zeros((1, *shape)) for shape in shapes))
      >>> model = join_inputs(Net(), params, shapes, ranges=[(-1, 1), (0, 1)])
      >>> model.layers
      ('heard', 'seen', 'a', 'b', 'output0', 'output1')
      >>> both = rvis.objectives.channel("output0", 1) + rvis.objectives.channel("output1", 3)
      >>> result = rvis.visualize(model, both, image="pixel", transforms=(), steps=4)
      >>> [part.shape for part in split_inputs(model, result.images)]
      [(16, 1), (4, 4, 4, 1)]

    Reference: keisen/tf-keras-vis, `ActivationMaximization` of models with several inputs and
      outputs (its `input_range`, `regularizers` and `score` for each).
    """
    if not isinstance(shapes, Sequence) or not all(isinstance(s, Sequence) for s in shapes):
        raise TypeError(f"shapes: a list with one shape an input was expected, given {shapes!r}")
    sizes = tuple(tuple(checks.count("shapes", side) for side in shape) for shape in shapes)
    if not sizes:
        raise ValueError("shapes: at least one input was expected, given none")
    spans = [(0.0, 1.0)] * len(sizes) if ranges is None else list(ranges)
    if len(spans) != len(sizes):
        raise ValueError(f"ranges: {len(sizes)} were expected, given {len(spans)}")
    bounds = []
    for span in spans:
        if not isinstance(span, Sequence) or len(span) != 2:
            raise TypeError(f"ranges: pairs (low, high) were expected, given {span!r}")
        low, high = span
        low = checks.number("ranges", low)
        bounds.append((low, checks.number("ranges", high, above=low)))
    inner = LinenApply(network) if isinstance(network, nn.Module) else network
    apply = JoinedApply(inner, sizes, tuple(bounds))
    params = jax.tree.map(jnp.asarray, params)
    try:
        return assemble(apply, params, (1, sum(apply.cells), 1), (), name)
    except ValueError as error:
        raise ValueError(
            f"network: it cannot be called with inputs of shapes {list(sizes)} ({reason(error)})"
        ) from error


def split_inputs(model: Model, images: ArrayLike) -> tuple[Array, ...]:
    """The inputs that pictures of a model of `join_inputs` stand for, each in its own range.

    Args:
      model: of `join_inputs`.
      images: (..., 1, cells, 1) in [0, 1], such as a Result's `images`.

    Returns:
      One array (..., *shape) an input.

    Raises:
      ValueError: naming `model`, of another origin, or `images`, of another shape.

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
        raise ValueError(
            f"images: (…, {', '.join(map(str, model.input_shape))}) was expected, given shape "
            f"{array.shape}"
        )
    return apply.split(array)


def as_image(model: Model, inputs: Sequence[ArrayLike]) -> Array:
    """The picture (..., 1, cells, 1) of inputs (..., *shape), such as `visualize` starts from.

    Args:
      model: of `join_inputs`.
      inputs: one array an input, in its own range, all with the same leading axes.

    Raises:
      ValueError: naming `model`, of another origin, or `inputs`, of other shapes or another number.

    Example:
      See `split_inputs`, which this undoes.
    """
    apply = _joined(model)
    arrays = [jnp.asarray(part, jnp.float32) for part in inputs]
    given = [array.shape for array in arrays]
    leads = {
        shape[: len(shape) - len(own)] for shape, own in zip(given, apply.shapes, strict=False)
    }
    if len(leads) != 1 or given != [(*lead, *own) for lead in leads for own in apply.shapes]:
        raise ValueError(
            f"inputs: shapes {list(apply.shapes)} with the same leading axes were expected, given "
            f"{given}"
        )
    return apply.join(arrays)


@flax.struct.dataclass
class OnInput:
    """See `on_input`."""

    regularizer: Callable[[Array], Array]
    apply: JoinedApply = flax.struct.field(pytree_node=False)
    index: int = flax.struct.field(pytree_node=False)
    _kind: str = flax.struct.field(pytree_node=False, repr=False, kw_only=True, default="OnInput")

    def __call__(self, images: Array) -> Array:
        """The penalty of pictures (n, 1, cells, 1), a scalar."""
        part = self.apply.split(images)[self.index]
        shape = part.shape[1:]
        *slices, height, width, channels = (*(1,) * (3 - len(shape)), *shape)
        pictures = part.reshape(-1, height, width, channels)
        return self.regularizer(pictures) * math.prod(slices)


def on_input(model: Model, index: int, regularizer: Callable[[Array], Array]) -> OnInput:
    """A penalty on one of a joined model's inputs, in its own range and shape.

    A signal (length, channels) is taken as an image of one row, so that total variation is along
    its length; a volume as its slices along the first axis, whose penalties add up.

    Args:
      model: of `join_inputs`.
      index: the input's number.
      regularizer: of `rvis.regularizers`.

    Raises:
      TypeError, ValueError: naming `model` or `index`.

    Example:
      >>> import jax.numpy as jnp, rvis
      >>> from rvis.models.inputs import as_image, join_inputs, on_input
      >>> def apply(params, inputs, *, tap, relu):
      ...     return inputs[0].sum(1)
      >>> model = join_inputs(apply, {}, [(4, 1)])
      >>> penalty = on_input(model, 0, rvis.regularizers.total_variation(1.0))
      >>> round(float(penalty(as_image(model, [jnp.array([[[0.0], [1.0], [1.0], [0.5]]])]))), 4)
      1.5
    """
    apply = _joined(model)
    if checks.count("index", index, low=0) >= len(apply.shapes):
        raise ValueError(f"index: 0 to {len(apply.shapes) - 1} were expected, given {index}")
    return OnInput(regularizer, apply, index)


def _joined(model: Model) -> JoinedApply:
    if not isinstance(model.apply, JoinedApply):
        raise ValueError(f"model: one of join_inputs was expected, given {model.name}")
    return model.apply
