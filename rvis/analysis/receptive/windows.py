"""Pixel windows carried through a traced program, from the image to a layer."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend import core


@dataclasses.dataclass(frozen=True, eq=False)
class Field:
    """The windows behind every entry of an array, along one axis of the image.

    Attributes:
      bounds: (4, *shape), with 1 in the place of an axis along which the window is the same. First
        pixel and minus the last, so that a union is a minimum: two rows for an image that goes on
        without end, two for what there is of it. An entry that sees nothing holds infinity.
      step: (4, rank) by how much `bounds` grows from one entry to the next along each axis, which
        says how the windows go on beyond the array's ends. An axis of one entry has one too.
    """

    bounds: np.ndarray
    step: np.ndarray


# A traced value is a field; an array that is known, for what depends neither on the image nor on
# the weights; or None, for what depends on the weights alone.
Value = Any


def pixels(shape: tuple[int, ...], axis: int) -> Field:
    """The windows of an image's own pixels along `axis`: each sees itself."""
    places = np.arange(shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(shape))])
    step = np.zeros((4, len(shape)))
    step[:, axis] = 1, -1, 1, -1
    return Field(np.stack([places, -places] * 2).astype(float), step)


def _settled(bounds: np.ndarray, step: np.ndarray, shape: Sequence[int]) -> Field:
    """With 1 for every axis along which nothing changes, and the steps that the bounds show."""
    step = step.copy()
    for axis, n in enumerate(shape):
        if n == 1:
            continue
        first, last = bounds.take([0], axis + 1), bounds.take([-1], axis + 1)
        if (bounds == first).all():
            bounds, step[:, axis] = first, 0
        else:
            seen = np.isfinite(first) & np.isfinite(last)
            change = np.subtract(last, first, where=seen, out=np.zeros(first.shape))
            largest = np.abs(change).reshape(4, -1).argmax(1)
            step[:, axis] = change.reshape(4, -1)[range(4), largest] / (n - 1)
    return Field(bounds, step)


def _union(fields: Sequence[Field], shape: Sequence[int]) -> Field:
    """The smallest windows that hold those of several arrays, entry by entry."""
    rank = len(shape)
    fields = [
        field if field.step.shape[1] == rank else everything(field, shape) for field in fields
    ]
    if len(fields) == 1:
        return fields[0]
    bounds = functools.reduce(np.minimum, (field.bounds for field in fields))
    return _settled(bounds, _steps(fields), shape)


def _steps(fields: Sequence[Field]) -> np.ndarray:
    """The largest steps among arrays of one rank."""
    return functools.reduce(
        lambda a, b: np.where(np.abs(b) > np.abs(a), b, a), (field.step for field in fields)
    )


def everything(field: Field, shape: Sequence[int]) -> Field:
    """Entries that all see whatever any entry of `field` sees."""
    whole = field.bounds.reshape(4, -1).min(1)
    return Field(whole.reshape(4, *(1,) * len(shape)), np.zeros((4, len(shape))))


def propagate(jaxpr: core.Jaxpr, consts: Sequence[Any], inputs: Sequence[Value]) -> list[Value]:
    """What a program makes of its inputs."""
    values: dict[Any, Value] = {}
    values.update(zip(jaxpr.constvars, consts, strict=True))
    values.update(zip(jaxpr.invars, inputs, strict=True))

    def read(variable: Any) -> Value:
        return variable.val if isinstance(variable, core.Literal) else values[variable]

    for equation in jaxpr.eqns:
        outputs = _through(equation, [read(variable) for variable in equation.invars])
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def _shape(variable: Any) -> tuple[int, ...]:
    return getattr(variable.aval, "shape", ())


_LARGEST = 2**22
"""Entries of an array up to which it is worked out, or its zeros are looked at."""


def _through(equation: core.JaxprEqn, values: list[Value]) -> list[Value]:
    """What an operation makes of its inputs."""
    name, params = equation.primitive.name, equation.params
    shapes = [_shape(variable) for variable in equation.outvars]
    if name in _CALLS:
        called = params["call_jaxpr"] if "call_jaxpr" in params else params["jaxpr"]
        jaxpr, consts = getattr(called, "jaxpr", called), getattr(called, "consts", ())
        return propagate(jaxpr, consts, values)
    fields = [value for value in values if isinstance(value, Field)]
    if not fields:
        small = sum(map(math.prod, shapes)) <= _LARGEST
        if any(value is None for value in values) or equation.effects or not small:
            return [None] * len(shapes)
        outputs = equation.primitive.bind(*values, **params)
        return list(outputs) if equation.primitive.multiple_results else [outputs]
    if name in _ELEMENTWISE:
        return [_union(fields, shape) for shape in shapes]
    if name in _RULES:
        found = _RULES[name](equation, values, shapes[0])
        return list(found) if isinstance(found, list) else [found] * len(shapes)
    return [_mixed(values, shape) for shape in shapes]


_CALLS = frozenset(
    "jit closed_call core_call remat2 checkpoint custom_jvp_call custom_vjp_call".split()
)
_ELEMENTWISE = frozenset(
    "abs acos acosh add add_any and asin asinh atan atan2 atanh cbrt ceil clamp conj "
    "convert_element_type copy copy_p cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1 "
    "floor ge gt igamma igammac imag integer_pow is_finite le lgamma log log1p logistic lt max min "
    "mul ne neg nextafter not or polygamma population_count pow real "
    "reduce_precision rem round rsqrt select_n shift_left shift_right_arithmetic "
    "shift_right_logical sign sin sinh sqrt square stop_gradient sub tan tanh xor".split()
)


def _slid(
    field: Field,
    axis: int,
    *,
    window: int = 1,
    stride: int = 1,
    pads: tuple[int, int] = (0, 0),
    base: int = 1,
    dilation: int = 1,
) -> Field:
    """A window slid along one axis, at whose ends an endless image goes on as it does inside."""
    bounds, step = np.moveaxis(field.bounds, axis + 1, 1), field.step.copy()
    if len(bounds[0]) == 1 and not step[:, axis].any():
        return field
    beyond = -(-max(*pads, 0) // base)
    away = np.arange(beyond, 0, -1).reshape(-1, *(1,) * (bounds.ndim - 2))
    change = step[:, axis].reshape(4, *(1,) * (bounds.ndim - 1))
    before, after = bounds[:, :1] - change * away, bounds[:, -1:] + change * away[::-1]
    before[2:] = after[2:] = np.inf
    bounds = np.concatenate([before, bounds, after], 1)
    # The zeros between dilated inputs see nothing.
    sparse = np.full((4, (bounds.shape[1] - 1) * base + 1, *bounds.shape[2:]), np.inf)
    sparse[:, ::base] = bounds
    start = beyond * base - pads[0]
    sparse = sparse[:, start : sparse.shape[1] - (beyond * base - pads[1])]
    count = (sparse.shape[1] - (window - 1) * dilation - 1) // stride + 1
    span = (count - 1) * stride + 1
    reached = [sparse[:, tap * dilation : tap * dilation + span : stride] for tap in range(window)]
    step[:, axis] *= stride / base
    return Field(np.moveaxis(functools.reduce(np.minimum, reached), 1, axis + 1), step)


def _convolution(equation: core.JaxprEqn, values: list[Value], shape: Sequence[int]) -> Field:
    params = equation.params
    image = values[0]
    if params["batch_group_count"] != 1 or not isinstance(image, Field):
        return _mixed(values, shape)
    numbers, groups = params["dimension_numbers"], params["feature_group_count"]
    order = numbers.lhs_spec
    bounds = image.bounds.transpose(0, *(axis + 1 for axis in order))
    if bounds.shape[2] > 1:
        batch, channels, *places = bounds.shape[1:]
        grouped = bounds.reshape(4, batch, groups, channels // groups, *places).min(3)
        bounds = grouped.repeat(shape[numbers.out_spec[1]] // groups, 2)
    field = Field(bounds, image.step[:, list(order)])
    for i, axis in enumerate(numbers.rhs_spec[2:]):
        field = _slid(
            field,
            i + 2,
            window=_shape(equation.invars[1])[axis],
            stride=params["window_strides"][i],
            pads=params["padding"][i],
            base=params["lhs_dilation"][i],
            dilation=params["rhs_dilation"][i],
        )
    back = np.argsort(numbers.out_spec)
    bounds = field.bounds.transpose(0, *(back + 1))
    found = _settled(bounds, field.step[:, back], shape)
    kernels = [everything(values[1], shape)] if isinstance(values[1], Field) else []
    return _union([found, *kernels], shape)


def _pooling(equation: core.JaxprEqn, values: list[Value], shape: Sequence[int]) -> Field:
    params, field = equation.params, values[0]
    for axis, window in enumerate(params["window_dimensions"]):
        field = _slid(
            field,
            axis,
            window=window,
            stride=params["window_strides"][axis],
            pads=params["padding"][axis],
            base=params["base_dilation"][axis],
            dilation=params["window_dilation"][axis],
        )
    return _settled(field.bounds, field.step, shape)


def _padding(equation: core.JaxprEqn, values: list[Value], shape: Sequence[int]) -> Field:
    if not isinstance(values[0], Field):
        return _mixed(values, shape)
    field = values[0]
    for axis, (low, high, interior) in enumerate(equation.params["padding_config"]):
        field = _slid(field, axis, pads=(low, high), base=interior + 1)
    return _settled(field.bounds, field.step, shape)


def _product(equation: core.JaxprEqn, values: list[Value], shape: Sequence[int]) -> Field:
    """A contraction: a sum over the shared axes, but for the terms that a known zero removes."""
    contracted, batched = equation.params["dimension_numbers"]
    ranks = [len(_shape(variable)) for variable in equation.invars]
    free = [
        [axis for axis in range(ranks[i]) if axis not in (*contracted[i], *batched[i])]
        for i in (0, 1)
    ]
    found = []
    for i, field in enumerate(values):
        if not isinstance(field, Field):
            continue
        other = values[1 - i]
        shared, mine, theirs = len(batched[i]), len(free[i]), len(free[1 - i])
        order = [*batched[i], *free[i], *contracted[i]]
        bounds = field.bounds.transpose(0, *(axis + 1 for axis in order))
        # (4, batch, free of the left, free of the right, contracted)
        gap = 1 + shared + (mine if i == 0 else 0)
        bounds = np.expand_dims(bounds, tuple(range(gap, gap + theirs)))
        if other is not None and not isinstance(other, Field):
            mask = np.asarray(other) != 0
            order = [*batched[1 - i], *free[1 - i], *contracted[1 - i]]
            mask = mask.transpose(order)
            gap = shared + (0 if i == 0 else theirs)
            mask = np.expand_dims(mask, tuple(range(gap, gap + mine)))
            if math.prod(np.broadcast_shapes(mask.shape, bounds.shape[1:])) <= _LARGEST:
                bounds = np.where(mask, bounds, np.inf)
        axes = tuple(range(bounds.ndim - len(contracted[i]), bounds.ndim))
        step = np.zeros((4, len(shape)))
        place = shared + (0 if i == 0 else theirs)
        step[:, :shared] = field.step[:, list(batched[i])]
        step[:, place : place + mine] = field.step[:, free[i]]
        found.append(_settled(bounds.min(axes) if axes else bounds, step, shape))
    return _union(found, shape)


def _reduction(equation: core.JaxprEqn, values: list[Value], shape: Sequence[int]) -> Field:
    params = equation.params
    axes = tuple(params["axes"] if "axes" in params else params["dimensions"])
    left = [axis for axis in range(len(_shape(equation.invars[0]))) if axis not in axes]
    fields = [value for value in values if isinstance(value, Field) and value.step.size]
    return _union(
        [Field(f.bounds.min(tuple(a + 1 for a in axes)), f.step[:, left]) for f in fields], shape
    )


def _mixed(values: list[Value], shape: Sequence[int]) -> Field:
    fields = [everything(value, shape) for value in values if isinstance(value, Field)]
    return _union(fields, shape)


def _transposition(equation: core.JaxprEqn, values: list[Value], shape: Sequence[int]) -> Field:
    del shape
    order = list(equation.params["permutation"])
    bounds = values[0].bounds.transpose(0, *(axis + 1 for axis in order))
    return Field(bounds, values[0].step[:, order])


def _broadcasting(equation: core.JaxprEqn, values: list[Value], shape: Sequence[int]) -> Field:
    places = list(equation.params["broadcast_dimensions"])
    sizes = [4, *(1,) * len(shape)]
    step = np.zeros((4, len(shape)))
    given = _shape(equation.invars[0])
    for axis, place in enumerate(places):
        sizes[place + 1] = values[0].bounds.shape[axis + 1]
        step[:, place] = values[0].step[:, axis] * (given[axis] == shape[place])
    return Field(values[0].bounds.reshape(sizes), step)


def _reshaping(equation: core.JaxprEqn, values: list[Value], shape: Sequence[int]) -> Field:
    """Axes that stay as they are at either end are kept; only those between are written out."""
    given, field = _shape(equation.invars[0]), values[0]
    if equation.params["dimensions"] is not None:
        return _mixed(values, shape)
    head = _common(given, shape)
    tail = _common(given[head:][::-1], tuple(shape)[head:][::-1])
    middle = given[head : len(given) - tail]
    left, right = field.bounds.shape[1 : head + 1], field.bounds.shape[len(given) - tail + 1 :]
    bounds = np.broadcast_to(field.bounds, (4, *left, *middle, *right))
    bounds = bounds.reshape(4, *left, *shape[head : len(shape) - tail], *right)
    step = np.zeros((4, len(shape)))
    step[:, :head] = field.step[:, :head]
    step[:, len(shape) - tail :] = field.step[:, len(given) - tail :]
    return _settled(bounds, step, shape)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many numbers both begin with."""
    same = 0
    while same < min(len(one), len(other)) and one[same] == other[same]:
        same += 1
    return same


def _reversal(equation: core.JaxprEqn, values: list[Value], shape: Sequence[int]) -> Field:
    axes = equation.params["dimensions"]
    bounds = np.flip(values[0].bounds, tuple(axis + 1 for axis in axes))
    step = values[0].step.copy()
    step[:, list(axes)] *= -1
    return _settled(bounds, step, shape)


def _cut(field: Field, axis: int, part: slice, shape: Sequence[int]) -> Field:
    index = [slice(None)] * field.bounds.ndim
    if field.bounds.shape[axis + 1] > 1:
        index[axis + 1] = part
    step = field.step.copy()
    step[:, axis] *= part.step or 1
    return _settled(field.bounds[tuple(index)], step, shape)


def _slicing(equation: core.JaxprEqn, values: list[Value], shape: Sequence[int]) -> Field:
    params, field = equation.params, values[0]
    strides = params["strides"] or (1,) * len(shape)
    parts = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    for axis, (start, stop, stride) in enumerate(parts):
        size = [1 if i != axis else n for i, n in enumerate(shape)]
        field = _cut(field, axis, slice(start, stop, stride), size)
    return field


def _splitting(equation: core.JaxprEqn, values: list[Value], shape: Sequence[int]) -> list[Value]:
    axis, parts, start = equation.params["axis"], [], 0
    for n in equation.params["sizes"]:
        size = [1 if i != axis else n for i in range(len(shape))]
        parts.append(_cut(values[0], axis, slice(start, start + n), size))
        start += n
    return parts


def _concatenation(equation: core.JaxprEqn, values: list[Value], shape: Sequence[int]) -> Field:
    axis = equation.params["dimension"]
    fields = [value for value in values if isinstance(value, Field)]
    common = np.broadcast_shapes(
        *(np.delete(field.bounds.shape, axis + 1).tolist() for field in fields)
    )
    parts = []
    for variable, value in zip(equation.invars, values, strict=True):
        whole = [*common[: axis + 1], _shape(variable)[axis], *common[axis + 1 :]]
        parts.append(np.broadcast_to(value.bounds if isinstance(value, Field) else np.inf, whole))
    return _settled(np.concatenate(parts, axis + 1), _steps(fields), shape)


def _moving(equation: core.JaxprEqn, values: list[Value], shape: Sequence[int]) -> Field:
    """Gathers at known places do to windows what they do to values."""
    field, *where = values
    if not isinstance(field, Field) or any(w is None or isinstance(w, Field) for w in where):
        return _mixed(values, shape)
    whole = np.broadcast_to(field.bounds, (4, *_shape(equation.invars[0])))
    moved = [equation.primitive.bind(jnp.asarray(b), *where, **equation.params) for b in whole]
    # What is read out of range sees nothing.
    bounds = np.nan_to_num(np.stack(moved).astype(float), nan=np.inf)
    return _settled(bounds, np.zeros((4, len(shape))), shape)


_RULES: dict[str, Callable[..., Any]] = {
    "conv_general_dilated": _convolution,
    "dot_general": _product,
    "pad": _padding,
    "transpose": _transposition,
    "broadcast_in_dim": _broadcasting,
    "reshape": _reshaping,
    "squeeze": _reduction,
    "rev": _reversal,
    "slice": _slicing,
    "split": _splitting,
    "concatenate": _concatenation,
    "gather": _moving,
    "dynamic_slice": _moving,
    "optimization_barrier": lambda equation, values, shape: values,
    "reduce": _reduction,
    "argmax": _reduction,
    "argmin": _reduction,
    **dict.fromkeys(
        ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or"),
        _reduction,
    ),
    **dict.fromkeys(
        ("reduce_window", "reduce_window_sum", "reduce_window_max", "reduce_window_min"), _pooling
    ),
}
