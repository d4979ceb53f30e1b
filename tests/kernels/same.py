"""Two functions have the same values and the same derivatives."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


def normal(seed, shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def assert_same(ours, stock, *arguments):
    """Values, and vector-Jacobian products for every argument."""

    @jax.jit
    def both(g, *arguments):
        y, pull = jax.vjp(ours, *arguments)
        expected, stock_pull = jax.vjp(stock, *arguments)
        return (y, *pull(g)), (expected, *stock_pull(g))

    g = normal(9, jax.eval_shape(stock, *arguments).shape)
    for mine, theirs in zip(*both(g, *arguments), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)
