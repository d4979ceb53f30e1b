"""The number format and the precision that a network computes in."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from rvis.types import Array, PyTree, Relu, Tap, identity

DTYPES = ("float32", "bfloat16", "float16")
PRECISIONS = ("highest", "float32", "tensorfloat32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class InPrecision:
    """A network's `apply` in another number format, seen from outside in that of the images.

    Images, activations at the tap and logits keep their format, so that objectives, optimizers and
    means do.

    Attributes:
      inner: the network's own `apply`; whatever else is asked of this one is asked of it.
      dtype: what images are brought to; None for their own.
      precision: of products, as `jax.default_matmul_precision` names it; None for the default.
    """

    inner: Any
    dtype: str | None
    precision: str | None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __call__(
        self, params: PyTree, images: Array, *, tap: Tap = identity, relu: Relu = jax.nn.relu
    ) -> Array:
        """Logits (n, classes) of images (n, H, W, C) in [0, 1]."""
        outside = images.dtype

        def tapped(name: str, x: Array) -> Array:
            shown = x.astype(outside)
            kept = tap(name, shown)
            return x if kept is shown else kept.astype(x.dtype)

        named = jax.default_matmul_precision(self.precision) if self.precision else None
        with named or contextlib.nullcontext():
            inside = images if self.dtype is None else images.astype(self.dtype)
            seen = tap if tap is identity or self.dtype is None else tapped
            return self.inner(params, inside, tap=seen, relu=relu).astype(outside)


def cast(params: PyTree, dtype: str) -> PyTree:
    """Weights in another number format; what is no floating-point number stays."""

    def one(leaf: Any) -> Any:
        floating = jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
        return jnp.asarray(leaf, dtype) if floating else leaf

    return jax.tree.map(one, params)
