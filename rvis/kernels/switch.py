"""The one switch of the kernels: the environment variable `RVIS_KERNELS`, or `stock()`."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager

import jax

from rvis import checks

_STATE = checks.choice("RVIS_KERNELS", os.environ.get("RVIS_KERNELS", "on"), ("on", "off"))

# `jax.jit` keeps the programs of each value apart.
_ON = jax.make_user_context(_STATE == "on")


def enabled() -> bool:
    """Whether what is traced now may use the kernels of this package."""
    return bool(_ON.value)


def stock(on: bool = True) -> AbstractContextManager[None]:
    """Inside it, programs are traced with JAX's own operations in place of the kernels.

    `on=False` turns the kernels on, where `RVIS_KERNELS=off` has turned them off.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from rvis import kernels
      >>> from rvis.kernels.pooling import max_pool
      >>> with kernels.stock():
      ...     text = str(jax.make_jaxpr(lambda x: max_pool(x, 2, 2))(jnp.ones((1, 4, 4, 1))))
      >>> "reduce_window_max" in text
      True
    """
    return _ON(not on)
