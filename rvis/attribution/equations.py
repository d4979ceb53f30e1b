"""A network evaluated anew, equation by equation, by rules for what depends on the image.

A network is read as a jaxpr (`rvis.models.interpret`). What depends on weights alone is computed
as it is; every equation that a `Live` value enters is put to a walk, which says what comes out.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import JaxprEqn

from rvis import struct
from rvis.models import interpret, taps
from rvis.objectives import Objective
from rvis.types import Array, Model, PyTree, Relu, Tap

MOVES = frozenset(
    "reshape transpose squeeze expand_dims slice dynamic_slice gather concatenate pad rev select_n "
    "stack unstack tile "
    "broadcast_in_dim copy copy_p convert_element_type split reduce_max reduce_min max min scatter "
    "reduce_window_max rvis_max_pool sort dynamic_update_slice stop_gradient "
    "optimization_barrier name reduce_precision".split()
)
"""What moves numbers or picks some."""
SUMS = frozenset("reduce_sum reduce_window_sum cumsum".split())
POINTWISE = frozenset(
    "neg exp exp2 log log1p expm1 tanh logistic erf erfc integer_pow square sqrt rsqrt abs sign "
    "sin cos cbrt pow max min clamp".split()
)
"""Functions of one number each, where only one input is live."""
PRODUCTS = frozenset(("conv_general_dilated", "rvis_conv", "dot_general"))


@dataclasses.dataclass(eq=False)
class Live:
    """A value that depends on the image."""

    now: Any

    @property
    def value(self) -> Any:
        return self.now


@dataclasses.dataclass(eq=False)
class Spread:
    """A constant broadcast from `source`, whose axes became `dims`."""

    value: Any
    source: Any
    dims: tuple[int, ...]


def raw(value: Any) -> Any:
    """The array of a value or constant."""
    return value.value if isinstance(value, (Live, Spread)) else value


class Walk:
    """What becomes of the equations that live values enter; subclasses say it."""

    def equation(
        self, name: str, kind: str, equation: JaxprEqn, inputs: list, live: list
    ) -> list | None:
        """The outputs, some of which are `Live`, or None where there is no rule."""
        raise NotImplementedError

    def layer(self, name: str, x: Any) -> Any:
        """A layer's activation on its way."""
        del name
        return x

    def sliced(self, x: Any, i: int) -> Any:
        """One of the rows that a loop takes in turn."""
        raise NotImplementedError

    def stacked(self, column: Sequence[Any]) -> Any:
        """The rows that a loop has made."""
        raise NotImplementedError

    def __call__(self, jaxpr: Any, consts: Sequence[Any], inputs: Sequence[Any]) -> list:
        """The outputs of a jaxpr, of inputs some of which are live."""
        return interpret.evaluate(jaxpr, consts, inputs, _Every(self))

    def rule(self, kind: str, equation: JaxprEqn, inputs: list, plain: Any) -> list:
        """The outputs of one equation."""
        del plain
        live = [value for value in inputs if isinstance(value, Live)]
        name = equation.primitive.name
        if not live:
            values = [raw(value) for value in inputs]
            # A resize makes its matrix in the program: told now, it is known for one.
            known = not any(isinstance(value, jax.core.Tracer) for value in values)
            with jax.ensure_compile_time_eval() if known else contextlib.nullcontext():
                outputs = interpret.bound(equation, values)
            if name == "broadcast_in_dim":
                dims = equation.params["broadcast_dimensions"]
                return [Spread(outputs[0], raw(inputs[0]), dims)]
            return outputs
        if kind == "layer":
            return [self.layer(interpret.layer_name(equation), live[0])]
        inside = interpret.called(equation)
        activation = kind in interpret.NO_ACTIVATION or (kind == "smooth" and bool(inside))
        if name == "scan":
            return self._unrolled(equation, inputs)
        if inside and name in ("while", "cond"):
            raise ValueError(f"model: `{name}` of something that depends on the image has no rule")
        alone = activation and len(live) == 1 and len(equation.outvars) == 1
        if inside and not alone and not name.startswith("reduce"):
            return self(*inside[0], inputs)
        kinds = (getattr(v.aval, "dtype", None) for v in equation.outvars)
        if not any(dtype is not None and jnp.issubdtype(dtype, jnp.floating) for dtype in kinds):
            return interpret.bound(equation, [lax.stop_gradient(raw(value)) for value in inputs])
        outcome = self.equation("activation" if alone else name, kind, equation, inputs, live)
        if outcome is None:
            raise ValueError(
                f"model: {name!r} has no rule here; there are some for convolutions, products, "
                "sums, pooling, normalisation, softmax and functions of single numbers"
            )
        return outcome

    def _unrolled(self, equation: JaxprEqn, inputs: list) -> list:
        p = equation.params
        fixed, carried = p["num_consts"], p["num_carry"]
        jaxpr, consts = interpret.called(equation)[0]
        constants, carry = inputs[:fixed], inputs[fixed : fixed + carried]
        order = range(p["length"])
        rows: list[list] = []
        for i in reversed(order) if p["reverse"] else order:
            slices = [
                self.sliced(v, i) if isinstance(v, Live) else raw(v)[i]
                for v in inputs[fixed + carried :]
            ]
            outputs = self(jaxpr, consts, [*constants, *carry, *slices])
            carry = outputs[:carried]
            rows.append(outputs[carried:])
        if p["reverse"]:
            rows.reverse()
        return [*carry, *map(self.stacked, zip(*rows, strict=True))]


class _Every(Mapping):
    """A rule for equations of every kind."""

    def __init__(self, walk: Walk):
        self.walk = walk

    def __contains__(self, kind: object) -> bool:
        return True

    def __getitem__(self, kind: str) -> interpret.Rule:
        return functools.partial(self.walk.rule, kind)

    def __iter__(self) -> Any:
        return iter(())

    def __len__(self) -> int:
        return 1


class _Marked(NamedTuple):
    """A model's `apply` whose layers can be told apart in its jaxpr."""

    apply: Any

    def __call__(self, params: PyTree, images: Array, *, tap: Tap, relu: Relu) -> Array:
        def marked(name: str, activation: Array) -> Array:
            return tap(name, interpret.mark(name, activation))

        return self.apply(params, images, tap=marked, relu=relu)


def activations(
    model: Model, objective: Objective, images: Array
) -> Callable[[Walk, Any], dict[str, Any]]:
    """What evaluates a model by a walk, from a live value in the place of images (n, H, W, C).

    It gives the activations that the objective reads, each live or an array.
    """

    def forward(params: PyTree, images: Array) -> dict[str, Array]:
        marked = struct.replace(model, apply=_Marked(model.apply), params=params)
        return taps.activations(marked, images, objective.layers)

    program, shapes = jax.make_jaxpr(forward, return_shape=True)(model.params, images)
    structure = jax.tree.structure(shapes)

    def evaluated(walk: Walk, start: Any) -> dict[str, Any]:
        inputs = [*jax.tree.leaves(model.params), start]
        return jax.tree.unflatten(structure, walk(program.jaxpr, program.consts, inputs))

    return evaluated


def positive(constant: Any) -> bool:
    """Whether it is known while tracing that no entry of a constant is negative."""
    source = constant.source if isinstance(constant, Spread) else constant
    known = isinstance(source, (int, float, np.ndarray, np.generic))
    return known and bool(np.all(np.asarray(source) >= 0))
