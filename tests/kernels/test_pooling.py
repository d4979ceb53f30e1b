"""Pools equal the stock operations and PyTorch's: values, gradients, sizes."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax import lax

from rvis.kernels import pooling
from tests.kernels.same import assert_same, normal

sizes = st.tuples(st.integers(1, 3), st.integers(6, 9), st.integers(6, 9))


def stock_pool(window, stride, pads):
    def pool(x):
        dims, strides = (1, window, window, 1), (1, stride, stride, 1)
        return lax.reduce_window(x, -jnp.inf, lax.max, dims, strides, ((0, 0), *pads, (0, 0)))

    return pool


@settings(max_examples=8, deadline=None)
@given(
    size=sizes,
    window=st.integers(1, 3),
    stride=st.integers(1, 3),
    pads=st.tuples(st.tuples(st.integers(0, 1), st.integers(0, 1)), st.just((0, 0))),
    ties=st.booleans(),
)
@example(size=(1, 5, 8), window=3, stride=3, pads=((0, 0), (0, 0)), ties=True)
def test_max_pool(size, window, stride, pads, ties):
    x = normal(0, (*size, 2))
    x = jnp.round(x) if ties else x
    assert_same(
        lambda x: pooling.max_pool(x, window, stride, padding=pads),
        stock_pool(window, stride, pads),
        x,
    )


# (size, window, stride, padding, ceil) and PyTorch's output size.
POOLED = [
    ((112, 3, 2, 0, True), 56),
    ((112, 3, 2, 1, False), 56),
    ((55, 3, 2, 0, False), 27),
    ((14, 2, 2, 0, True), 7),
    ((5, 2, 2, 0, True), 3),
    ((5, 2, 2, 1, True), 3),
    ((28, 3, 1, 1, True), 28),
]


@pytest.mark.parametrize(("arguments", "out"), POOLED)
def test_pooling_sizes_are_pytorchs(arguments, out):
    size, window, stride, padding, ceil = arguments
    x = jnp.zeros((1, size, size, 1))
    assert pooling.max_pool(x, window, stride, padding=padding, ceil=ceil).shape[1] == out


def test_average_pool_with_and_without_the_border():
    x = jnp.ones((1, 2, 2, 1))
    assert float(pooling.avg_pool(x, 3, 1, padding=1)[0, 0, 0, 0]) == pytest.approx(4 / 9)
    alone = pooling.avg_pool(x, 3, 1, padding=1, count_padding=False)
    assert float(alone[0, 0, 0, 0]) == pytest.approx(1)


@pytest.mark.parametrize(("n", "size"), [(6, 3), (7, 3), (2, 6), (1, 7)])
def test_adaptive_pool_averages_pytorchs_cells(n, size):
    x = np.random.default_rng(0).standard_normal((1, n, n, 2)).astype(np.float32)
    pooled = pooling.adaptive_avg_pool(jnp.asarray(x), size)
    cells = [slice(i * n // size, -(-(i + 1) * n // size)) for i in range(size)]
    expected = [[x[0, rows, columns].mean((0, 1)) for columns in cells] for rows in cells]
    np.testing.assert_allclose(pooled[0], expected, rtol=1e-5, atol=1e-6)
