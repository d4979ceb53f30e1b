"""Relevance through a network's own equations: each shares out what its output is worth.

A network is read as a jaxpr (`rvis.models.interpret`) and evaluated anew, so that what `jax.vjp`
carries back is relevance in the place of gradients: the value of every equation is the network's,
and its gradient that of a surrogate, linear in the inputs, with the rule's shares as weights.

    convolutions, products with weights   a rule of the composite; affine maps of channels that
                                          follow (bias, BatchNorm, scale) are folded into them
    sums, differences, means, pooling     in proportion to what is added (the ε-rule)
    maxima, and what moves numbers        whither the gradient goes
    functions of one number               all to it; x·σ(x) and the like: all to x
    LayerNorm and its kin                 all to what is normalised (Achtibat et al. 2024, prop 3.4)
    softmax                               x ⊙ (R − s ΣR) (prop 3.1)
    products of two variables             half to each (prop 3.2 and 3.3)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import JaxprEqn

from rvis.attribution.equations import (
    MOVES,
    POINTWISE,
    PRODUCTS,
    SUMS,
    Live,
    Spread,
    Walk,
    positive,
    raw,
)
from rvis.attribution.rules import Composite, Linear, Numbers, features, stable
from rvis.models import interpret
from rvis.types import Array

_SAME = frozenset("reshape squeeze expand_dims copy convert_element_type name".split())
_KEEPS_ROLE = _SAME | {"broadcast_in_dim", "stop_gradient"}
_KEEPS_BOX = _KEEPS_ROLE | set("transpose slice dynamic_slice gather rev pad concatenate".split())
_CURVED = frozenset("tanh logistic erf erfc".split())


@dataclasses.dataclass(eq=False)
class Worth(Live):
    """A live value; what flows back to it is its relevance.

    Attributes:
      now: the value, or None of a linear map that has not been closed yet.
      linear: that map.
      positive: whether no entry can be negative.
      box: the lowest and highest values, while it is pixels that were moved, scaled or averaged.
      root: what it has the numbers of, perhaps in another shape.
      role: "" or what it is to `of`: "statistic" (a sum or maximum), "shifted" (less a statistic),
        "exp" of it, "total" of the exponentials; or "scale" (a normaliser), "gate" (by a sigmoid).
      axes: over which a total was taken.
    """

    now: Any = None
    linear: Linear | None = None
    positive: bool = False
    box: tuple[Array, Array] | None = None
    root: Worth | None = None
    role: str = ""
    of: Worth | None = None
    axes: tuple[int, ...] = ()

    @property
    def value(self) -> Array:
        if self.now is None and self.linear is not None:
            self.now = self.linear.closed()
        return self.now

    @property
    def still(self) -> Array:
        return lax.stop_gradient(self.value)

    def stems_from(self, other: Worth | None) -> bool:
        return other is not None and (self.root or self) is (other.root or other)


def _still(value: Any) -> Any:
    return value.still if isinstance(value, Worth) else raw(value)


def _averages(kernel: Any, axes: Sequence[int]) -> bool:
    """Whether a constant of the program takes means over its axes, as of pooling or a resize.

    It cannot be told from such a weight, without a sign and of sum 1, that a function closes over.
    """
    value = raw(kernel)
    if isinstance(value, jax.core.Tracer):
        return False
    value = np.asarray(value)
    return bool((value >= 0).all() and np.allclose(value.sum(tuple(axes)), 1, atol=1e-3))


class Propagation(Walk):
    """One evaluation of a network, by the rules of a composite.

    Attributes:
      shifts: zeros that are added to layers: what flows back to them is the layers' relevance.
      through: for one layer, which part of what flows back goes on.
    """

    def __init__(
        self,
        composite: Composite,
        numbers: Numbers,
        shifts: Mapping[str, Array],
        through: Mapping[str, Callable[[Array], Array]],
    ):
        self.composite, self.numbers = composite, numbers
        self.shifts, self.through = shifts, through

    def shifted(self, value: Array, names: Sequence[str]) -> Array:
        for name in names:
            if name in self.shifts:
                value = value + self.shifts[name].astype(value.dtype)
        return value

    def equation(
        self, name: str, kind: str, equation: JaxprEqn, inputs: list, live: list
    ) -> list | None:
        x = live[0]
        if name == "activation":
            box = self._box(equation, inputs) if kind in ("clip", "_clip") else None
            return [self._passed(equation, inputs, x, box=box)]
        if name in PRODUCTS:
            return [self._product(equation, inputs)]
        if name in ("add", "add_any", "sub"):
            return [self._sum(equation, inputs, -1 if name == "sub" else 1)]
        if name == "mul":
            return [self._times(kind, equation, inputs)]
        if name == "div":
            return [self._over(equation, inputs)]
        if name in SUMS:
            return [self._summed(equation, inputs, x)]
        if name in POINTWISE and len(live) == 1:
            return [self._function(name, kind, equation, inputs, x)]
        return self._moved(name, equation, inputs, live) if name in MOVES else None

    def sliced(self, x: Worth, i: int) -> Worth:
        return Worth(x.value[i])

    def stacked(self, column: Sequence[Any]) -> Worth:
        return Worth(jnp.stack([raw(value) for value in column]))

    def layer(self, name: str, x: Worth) -> Worth:
        if name not in self.through:
            if x.linear is not None and x.now is None:
                return Worth(linear=dataclasses.replace(x.linear, names=(*x.linear.names, name)))
            return dataclasses.replace(x, now=self.shifted(x.value, (name,)), root=x.root or x)
        part = self.through[name](x.value)
        return Worth(self.shifted(interpret.valued(x.still, part), (name,)), positive=x.positive)

    def _passed(self, equation: JaxprEqn, inputs: list, x: Worth, **about: Any) -> Worth:
        """A value whose relevance goes to one input as it is."""
        (out,) = interpret.bound(equation, [_still(value) for value in inputs])
        way = jnp.broadcast_to(x.value, out.shape)
        return Worth(interpret.valued(lax.stop_gradient(out), way), **about)

    def _box(self, equation: JaxprEqn, inputs: list) -> tuple[Array, Array] | None:
        ends: list[list] = [[], []]
        for value in inputs:
            pair = value.box if isinstance(value, Worth) else (raw(value), raw(value))
            if pair is None:
                return None
            for end, one in zip(ends, pair, strict=True):
                end.append(one)
        first, last = (interpret.bound(equation, end)[0] for end in ends)
        return jnp.minimum(first, last), jnp.maximum(first, last)

    def _product(self, equation: JaxprEqn, inputs: list) -> Worth:
        first, second = inputs
        if isinstance(first, Worth) and isinstance(second, Worth):
            return self._bilinear(equation, first, second)
        left = isinstance(first, Worth)

        def product(x: Array, kernel: Array) -> Array:
            return interpret.bound(equation, [x, kernel] if left else [kernel, x])[0]

        x, kernel = (first, second) if left else (second, first)
        dense = equation.primitive.name == "dot_general"
        axes = equation.params["dimension_numbers"][0][int(left)] if dense else ()
        if dense and x.value.ndim > 2 and _averages(kernel, axes):
            mean = self._summed(equation, inputs, x)
            return dataclasses.replace(mean, box=self._box(equation, inputs))
        return Worth(
            linear=Linear(
                self,
                product,
                x,
                raw(kernel),
                jnp.zeros((), x.value.dtype),
                "dense" if dense else "conv",
                features(equation, left),
            )
        )

    def _bilinear(self, equation: JaxprEqn, first: Worth, second: Worth) -> Worth:
        def product(a: Any, b: Any) -> Array:
            return interpret.bound(equation, [a, b])[0]

        out = product(first.still, second.still)
        way = product(first.value * first.still, second.still)
        way = way + product(first.still, second.value * second.still)
        way = way / stable(2 * lax.stop_gradient(out), self.numbers.slight)
        return Worth(interpret.valued(lax.stop_gradient(out), way))

    def _sum(self, equation: JaxprEqn, inputs: list, sign: int) -> Worth:
        first, second = inputs
        if not (isinstance(first, Worth) and isinstance(second, Worth)):
            x = first if isinstance(first, Worth) else second
            if x.linear is not None and x.now is None and (x is first or sign > 0):
                folded = x.linear.shifted(second if x is first else first, sign)
                if folded is not None:
                    return Worth(linear=folded)
            role = {"role": x.role} if x.role in ("scale", "gate") else {}
            return self._passed(equation, inputs, x, box=self._box(equation, inputs), **role)
        if sign < 0 and second.role == "statistic" and first.stems_from(second.of):
            return self._passed(equation, inputs, first, role="shifted", of=first)
        out = interpret.bound(equation, [first.still, second.still])[0]
        way = first.value * first.still + sign * second.value * second.still
        way = way / stable(out, self.numbers.slight)
        both = first.positive and second.positive and sign > 0
        return Worth(interpret.valued(out, way), positive=both)

    def _times(self, kind: str, equation: JaxprEqn, inputs: list) -> Worth:
        live = [value for value in inputs if isinstance(value, Worth)]
        if len(live) == 2:
            for role in ("scale",) + ("gate",) * (kind == "smooth"):
                rest = [value for value in live if value.role != role]
                if len(rest) == 1:
                    return self._passed(equation, inputs, rest[0])
            return self._halves(equation, live)
        (x,), (constant,) = live, [value for value in inputs if not isinstance(value, Worth)]
        return self._factor(equation, inputs, x, constant, constant)

    def _over(self, equation: JaxprEqn, inputs: list) -> Worth:
        top, bottom = inputs
        if isinstance(top, Worth) and isinstance(bottom, Worth):
            if top.role == "exp" and bottom.role == "total" and top.of is bottom.of:
                return self._softmax(equation, top, bottom)
            role = {"role": "scale"} if top.role == "scale" else {}
            return self._passed(equation, inputs, top, **role)
        if isinstance(bottom, Worth):
            return self._passed(equation, inputs, bottom, role="scale")
        inverse = bottom
        if isinstance(bottom, Spread):
            inverse = Spread(1 / bottom.value, 1 / bottom.source, bottom.dims)
        elif np.ndim(bottom) == 0:
            inverse = 1 / bottom
        return self._factor(equation, inputs, top, bottom, inverse)

    def _factor(
        self, equation: JaxprEqn, inputs: list, x: Worth, constant: Any, factor: Any
    ) -> Worth:
        """x times a constant."""
        if x.linear is not None and x.now is None:
            folded = x.linear.scaled(factor)
            if folded is not None:
                return Worth(linear=folded)
        keeps = x.role in ("scale", "gate", "statistic")
        return self._passed(
            equation,
            inputs,
            x,
            box=self._box(equation, inputs),
            positive=x.positive and positive(constant),
            role=x.role if keeps else "",
            of=x.of if keeps else None,
        )

    def _halves(self, equation: JaxprEqn, live: list[Worth]) -> Worth:
        out = interpret.bound(equation, [value.still for value in live])[0]
        return Worth(interpret.valued(out, (live[0].value + live[1].value) / 2))

    def _softmax(self, equation: JaxprEqn, top: Worth, bottom: Worth) -> Worth:
        out = interpret.bound(equation, [top.still, bottom.still])[0]
        assert top.of is not None
        x, still = top.of.value, top.of.still
        shared = (x * still * out).sum(bottom.axes, keepdims=True)
        return Worth(interpret.valued(out, x * still - shared), positive=True)

    def _summed(self, equation: JaxprEqn, inputs: list, x: Worth) -> Worth:
        """A sum, or means by a constant matrix: of adaptive pooling, say, or a resize."""
        (out,) = interpret.bound(equation, [_still(value) for value in inputs])
        weighed = [v.value * v.still if v is x else raw(v) for v in inputs]
        (way,) = interpret.bound(equation, weighed)
        about: dict[str, Any] = {"role": "statistic", "of": x}
        if x.role == "exp":
            about = {"role": "total", "of": x.of, "axes": tuple(equation.params.get("axes", ()))}
        value = interpret.valued(out, way / stable(out, self.numbers.slight))
        return Worth(value, positive=x.positive, **about)

    def _function(self, name: str, kind: str, equation: JaxprEqn, inputs: list, x: Worth) -> Worth:
        if getattr(equation.outvars[0].aval, "shape", ()) != x.value.shape:
            raise ValueError(f"model: {name!r} of arrays of two shapes has no rule for relevance")
        others = [value for value in inputs if value is not x]
        capped = name == "min" and x.positive and all(map(positive, others))
        above = kind.startswith("relu") or name in ("exp", "logistic") or capped
        about: dict[str, Any] = {"positive": above}
        if name == "exp":
            about |= {"role": "exp", "of": x.of if x.role == "shifted" else x}
        elif name in _CURVED:
            about["role"] = "gate"
        elif name in ("rsqrt", "sqrt", "pow") or equation.params.get("y", 1) < 0:
            about["role"] = "scale"
        elif name == "max" and x.role == "statistic":
            about |= {"role": x.role, "of": x.of}
        elif name in ("neg", "max", "min", "clamp"):
            about |= {"box": self._box(equation, inputs)}
        return self._passed(equation, inputs, x, **about)

    def _moved(self, name: str, equation: JaxprEqn, inputs: list, live: list[Worth]) -> list:
        outputs = interpret.bound(equation, [raw(value) for value in inputs])
        about: dict[str, Any] = {"positive": all(value.positive for value in live)}
        x = live[0]
        if name in _KEEPS_BOX:
            about["box"] = self._box(equation, inputs)
        if len(live) == 1:
            if name in _SAME:
                about["root"] = x.root or x
            if name in _KEEPS_ROLE and x.role in ("scale", "gate", "statistic", "total"):
                about |= {"role": x.role, "of": x.of, "axes": x.axes}
            if name == "reduce_max":
                about |= {"role": "statistic", "of": x}
        return [Worth(out, **about) for out in outputs]
