"""How an operation gets one form for CPUs and JAX's own form for all other devices.

Each operation is a JAX primitive. JAX asks for its form when a program is lowered for a platform,
so that a program that is exported for a GPU, or runs on a CPU beside one, has the right form. A
primitive is traced once for all equal layers, which `lax.platform_dependent` is not, and sees how
many examples `vmap` maps over.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

from rvis.kernels.switch import enabled

Form = Callable[..., jax.Array]


def define(
    name: str,
    shape: Callable[..., tuple[int, ...]],
    *,
    stock: Form,
    cpu: Form,
    over_examples: tuple[int, ...],
) -> Primitive:
    """A primitive of arrays of one dtype, whose result has that dtype as well.

    Args:
      name: what programs in print call it.
      shape: the result's shape, of the arrays' shapes and the parameters.
      stock: computes it by JAX's operations, of the arrays and the parameters.
      cpu: computes it on a CPU.
      over_examples: which of the arrays have examples as their first axis, as the result then has;
        a `vmap` over these makes one operation with more examples.
    """
    primitive = Primitive(name)
    primitive.def_impl(
        lambda *arrays, **parameters: _compiled(primitive, tuple(parameters.items()))(*arrays)
    )
    primitive.def_abstract_eval(
        lambda *avals, **parameters: avals[0].update(
            shape=shape(*(aval.shape for aval in avals), **parameters), weak_type=False
        )
    )
    mlir.register_lowering(primitive, mlir.lower_fun(stock, multiple_results=False))
    mlir.register_lowering(primitive, mlir.lower_fun(cpu, multiple_results=False), platform="cpu")

    def mapped(arrays: Any, axes: Any, **parameters: Any) -> tuple[jax.Array, int]:
        size = next(a.shape[i] for a, i in zip(arrays, axes, strict=True) if i is not None)
        mapped_over = {i for i, axis in enumerate(axes) if axis is not None}
        if not over_examples or not mapped_over <= set(over_examples):
            fast, plain = (jax.vmap(partial(form, **parameters), axes) for form in (cpu, stock))
            return lax.platform_dependent(*arrays, cpu=fast, default=plain), 0
        merged = []
        for i, (array, axis) in enumerate(zip(arrays, axes, strict=True)):
            if i in over_examples:
                array = batching.bdim_at_front(array, axis, size)
                array = array.reshape(size * array.shape[1], *array.shape[2:])
            merged.append(array)
        out = primitive.bind(*merged, **parameters)
        return out.reshape(size, out.shape[0] // size, *out.shape[1:]), 0

    batching.primitive_batchers[primitive] = mapped
    return primitive


@functools.cache
def _compiled(primitive: Primitive, parameters: tuple[tuple[str, Any], ...]) -> Form:
    return jax.jit(partial(primitive.bind, **dict(parameters)))


def usable(*arrays: jax.Array) -> bool:
    """Whether the kernels can take these arrays; else JAX's own operations have to.

    Those also know dimensions that are symbols (`jax.export`) and arrays whose type says over which
    devices they are spread (`jax.shard_map`, explicit meshes).
    """
    types = [jax.typeof(array) for array in arrays]
    return (
        enabled()
        and len({one.dtype for one in types}) == 1
        and all(isinstance(side, int) for one in types for side in one.shape)
        and not any(one.mat.varying or any(one.sharding.spec) for one in types)
    )
