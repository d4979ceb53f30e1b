"""The rules by which convolutions and products with weights share their relevance out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import JaxprEqn

from rvis import checks
from rvis.attribution.equations import Spread, raw
from rvis.models import interpret
from rvis.types import Array

RULES = ("epsilon", "gamma", "alpha_beta", "z_plus", "flat", "w_square", "box")


@dataclasses.dataclass(frozen=True)
class Composite:
    """Which rule each kind of layer follows; `lrp` has the rules' numbers.

    Attributes:
      conv: the rule of convolutions, one of `RULES`.
      dense: that of other products with weights.
      first: that of the layers that see the image itself; "" for that of their kind.

    Raises:
      ValueError: naming the field, for an unknown rule.

    Example:
      >>> from rvis.attribution import Composite
      >>> Composite("gamma", first="box")
      Composite(conv='gamma', dense='epsilon', first='box')
    """

    conv: str = "epsilon"
    dense: str = "epsilon"
    first: str = ""

    def __post_init__(self) -> None:
        for kind in ("conv", "dense", "first"):
            known = (*RULES, *[""] * (kind == "first"))
            checks.choice(f"composite.{kind}", getattr(self, kind), known)


class Numbers(NamedTuple):
    """Of the rules, traced; see `rvis.attribution.lrp`."""

    epsilon: Any
    gamma: Any
    alpha: Any

    @property
    def slight(self) -> Any:
        """What keeps sums, means and products of two values from zero, which are no layers."""
        return jnp.minimum(self.epsilon, 1e-6)


@dataclasses.dataclass(eq=False)
class Linear:
    """product(x, kernel) + bias, a convolution or a product with weights, with its rule.

    Attributes:
      features: {axis of the output: axis of the kernel}, of those that only the kernel has.
      names: layers whose activations it or a map that it was folded into was.
    """

    walk: Any
    product: Callable[[Array, Array], Array]
    x: Any
    kernel: Array
    bias: Any
    kind: str
    features: Mapping[int, int]
    names: tuple[str, ...] = ()

    def scaled(self, factor: Any) -> Linear | None:
        """Times a constant of the output's channels; None where it is no such."""
        wide = self._as_kernel(factor)
        if wide is None:
            return None
        kernel, bias = self.kernel * wide, self.bias * raw(factor)
        return dataclasses.replace(self, kernel=kernel, bias=bias)

    def shifted(self, by: Any, sign: int) -> Linear | None:
        """Plus a constant of the output's channels; None where it is no such."""
        if self._as_kernel(by) is None:
            return None
        return dataclasses.replace(self, bias=self.bias + sign * raw(by))

    def _as_kernel(self, constant: Any) -> Any:
        if np.ndim(raw(constant)) == 0:
            return raw(constant)
        source, dims = raw(constant), tuple(range(np.ndim(raw(constant))))
        if isinstance(constant, Spread):
            source, dims = constant.source, constant.dims
        wide = [axis for axis in range(np.ndim(source)) if np.shape(source)[axis] > 1]
        axes = [self.features.get(dims[axis], -1) for axis in wide]
        if -1 in axes or axes != sorted(axes):
            return None
        flat = jnp.reshape(source, [np.shape(source)[axis] for axis in wide])
        return lax.broadcast_in_dim(flat, self.kernel.shape, axes)

    def closed(self) -> Array:
        composite, first = self.walk.composite, self.x.box is not None
        rule = composite.dense if self.kind == "dense" else composite.conv
        out = self.product(self.x.still, self.kernel) + self.bias
        way = self._way(composite.first or rule if first else rule, out)
        return self.walk.shifted(interpret.valued(lax.stop_gradient(out), way), self.names)

    def _way(self, rule: str, out: Array) -> Array:
        """The surrogate: Σ over parts of factor · Σ W(x ⊙ x′) / z, for the inputs x′ of a part.

        Its gradient gives an input x′ · Wᵀ(factor · R / z), as Montavon et al. 2019 write rules.
        """
        c, x, w, b = self.walk.numbers, self.x.still, self.kernel, self.bias
        up, down = jnp.maximum(w, 0), jnp.minimum(w, 0)
        more, less = jnp.maximum(b, 0), jnp.minimum(b, 0)

        def signed(first: Any, second: Any, bias: Any) -> list[tuple]:
            """Positive inputs by one kernel, negative ones by the other."""
            if self.x.positive:
                return [(x, first, bias)]
            return [(jnp.maximum(x, 0), first, bias), (jnp.minimum(x, 0), second, 0)]

        ones = jnp.ones_like(x)
        parts: list[tuple[Any, list[tuple]]]
        if rule == "epsilon":
            parts = [(1, [(x, w, b)])]
        elif rule == "z_plus":
            parts = [(1, signed(up, down, more))]
        elif rule == "alpha_beta":
            parts = [
                (c.alpha, signed(up, down, more)),
                (1 - c.alpha, signed(down, up, less)),
            ]
        elif rule == "gamma":
            g, wide, narrow = c.gamma, w + c.gamma * up, w + c.gamma * down
            parts = [
                ((out > 0).astype(out.dtype), signed(wide, narrow, b + g * more)),
                ((out < 0).astype(out.dtype), signed(narrow, wide, b + g * less)),
            ]
        elif rule == "flat":
            parts = [(1, [(ones, jnp.ones_like(w), 0)])]
        elif rule == "w_square":
            parts = [(1, [(ones, w * w, b * b)])]
        else:
            low, high = self.x.box or (0 * x, 0 * x)
            parts = [(1, [(x, w, 0), (-low, up, 0), (-high, down, 0)])]
        return sum((factor * self._shares(terms) for factor, terms in parts), jnp.zeros_like(out))

    def _shares(self, terms: list[tuple]) -> Array:
        z = sum(self.product(part, kernel) + bias for part, kernel, bias in terms)
        x = self.x.value
        way = sum(self.product(x * part, kernel) for part, kernel, _ in terms)
        return way / stable(lax.stop_gradient(z), self.walk.numbers.epsilon)


def stable(z: Any, epsilon: Any) -> Any:
    """z, further from zero by ε."""
    return z + epsilon * jnp.where(z < 0, -1, 1).astype(z.dtype)


def features(equation: JaxprEqn, left: bool) -> dict[int, int]:
    """{axis of the output: axis of the kernel}, where x is the left operand or the right one."""
    name, p = equation.primitive.name, equation.params
    if name == "rvis_conv":
        return {3: 3}
    if name == "conv_general_dilated":
        numbers = p["dimension_numbers"]
        return {numbers.out_spec[1]: numbers.rhs_spec[0]} if left else {}
    contracted, batch = p["dimension_numbers"]
    ranks = [len(getattr(v.aval, "shape", ())) for v in equation.invars]
    free = [
        [axis for axis in range(ranks[i]) if axis not in (*contracted[i], *batch[i])]
        for i in range(2)
    ]
    own = free[1] if left else free[0]
    start = len(batch[0]) + (len(free[0]) if left else 0)
    return {start + i: axis for i, axis in enumerate(own)}


def along(direction: Array) -> Callable[[Array], Array]:
    """The part of a layer's relevance that goes through a direction v of its channels.

    a ⊙ v (v·R/a), the relevance of a linear unit v·a shared out by the ε-rule: of one channel its
    own relevance (Achtibat et al. 2023, eq. 5), of a direction that of Chormai et al. 2024, eq. 6.
    """
    size = jnp.sqrt(jnp.square(direction).sum(-1, keepdims=True))
    v = direction / jnp.where(size > 0, size, 1)

    def part(x: Array) -> Array:
        a = lax.stop_gradient(x)
        inverse = jnp.where(a == 0, 0, 1 / jnp.where(a == 0, 1, a))
        return v * inverse * (x * a * v).sum(-1, keepdims=True)

    return part
