"""The floor under a row: the work that it cannot do without, and what the machine can do."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters import partial_eval

from rvis import kernels
from rvis.models import taps
from rvis.types import Model


class Cost(NamedTuple):
    """Floating-point operations, and the bytes of what convolutions and products read and write."""

    flops: float
    bytes: float

    def times(self, count: float) -> Cost:
        """Of so many evaluations."""
        return Cost(self.flops * count, self.bytes * count)


class Ceiling(NamedTuple):
    """What the machine reached: operations a second of a product, bytes a second of a copy."""

    flops: float
    bytes: float

    def seconds(self, cost: Cost) -> float:
        """The time below which the work cannot be done at these rates."""
        return max(cost.flops / self.flops, cost.bytes / self.bytes)


def ceiling(side: int = 2048, rounds: int = 7) -> Ceiling:
    """The best of several products of float32 matrices and of several copies."""
    a = jax.random.normal(jax.random.key(0), (side, side))
    big = jnp.zeros(1 << 26)
    product, copy = jax.jit(jnp.matmul), jax.jit(lambda x: x + 1)

    def best(call: Any) -> float:
        jax.block_until_ready(call())
        times = []
        for _ in range(rounds):
            started = time.perf_counter()
            jax.block_until_ready(call())
            times.append(time.perf_counter() - started)
        return min(times)

    return Ceiling(
        2 * side**3 / best(lambda: product(a, a)), 2 * big.nbytes / best(lambda: copy(big))
    )


def gradient(model: Model, layer: str, images: int, size: int, *, backward: bool = True) -> Cost:
    """Of a forward pass to `layer` and, unless told otherwise, of its gradient at the images."""
    shape = (images, size, size, model.input_shape[2])

    def total(batch: Any) -> Any:
        return taps.activations(model, batch, (layer,))[layer].sum()

    function = jax.grad(total) if backward else total
    with kernels.stock():
        traced = jax.make_jaxpr(function)(jax.ShapeDtypeStruct(shape, jnp.float32)).jaxpr
    # Gradients of weights are traced where a layer has a rule of its own, and never computed.
    needed, _ = partial_eval.dce_jaxpr(traced, [True] * len(traced.outvars))
    return of(needed)


def of(jaxpr: Any) -> Cost:
    """Of the convolutions and matrix products of a traced function, inner functions included."""
    flops = moved = 0.0
    for equation in jaxpr.eqns:
        for inner in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns")):
            if not hasattr(inner, "eqns"):
                continue
            within = of(getattr(inner, "jaxpr", inner))
            repeats = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
            flops, moved = flops + repeats * within.flops, moved + repeats * within.bytes
        if equation.primitive.name not in ("conv_general_dilated", "dot_general"):
            continue
        left, right = (variable.aval for variable in equation.invars[:2])
        out = equation.outvars[0].aval
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            depth = np.prod([left.shape[axis] for axis in contracted])
        else:
            numbers = equation.params["dimension_numbers"]
            depth = np.prod([right.shape[axis] for axis in numbers.rhs_spec[1:]])
            # Zeros that a dilated input brings are no work.
            depth /= np.prod(equation.params["lhs_dilation"])
        flops += 2 * float(depth) * out.size
        moved += sum(one.size * one.dtype.itemsize for one in (left, right, out))
    return Cost(flops, moved)
