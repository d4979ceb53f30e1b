"""Fast layers equal the stock operations: values, both gradients, shapes, paddings, strides."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax import lax

from rvis.models import layers

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


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


def both_convolutions(strides, pads):
    def ours(x, w):
        return layers.conv_general_dilated(x, w, strides, pads, dimension_numbers=DIMENSIONS)

    def stock(x, w):
        # Padded beforehand: XLA:CPU (0.10.2) reads beyond its input in the gradient of pads wider
        # than the kernel, and gives rubbish now and then.
        x = lax.pad(
            x, np.float32(0), ((0, 0, 0), *((a, b, 0) for a, b in padding(x, w)), (0, 0, 0))
        )
        return lax.conv_general_dilated(x, w, strides, "VALID", dimension_numbers=DIMENSIONS)

    def padding(x, w):
        if isinstance(pads, str):
            return lax.padtype_to_pads(x.shape[1:3], w.shape[:2], strides, pads)
        return pads

    return ours, stock


sizes = st.tuples(st.integers(1, 3), st.integers(6, 9), st.integers(6, 9))
side = st.integers(1, 3)


@settings(max_examples=8, deadline=None)
@given(
    size=sizes,
    channels=st.tuples(side, side),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    strides=st.tuples(side, side),
    pads=st.tuples(st.tuples(st.integers(-1, 3), side), st.tuples(side, st.integers(-1, 3))),
)
def test_convolution(size, channels, kernel, strides, pads):
    x, w = normal(0, (*size, channels[0])), normal(1, (*kernel, *channels))
    assert_same(*both_convolutions(strides, pads), x, w)


@pytest.mark.parametrize("wanted", [0, 1])
def test_one_gradient_of_a_convolution_is_traced_without_the_other(wanted):
    ours, stock = both_convolutions((2, 1), ((1, 0), (2, 1)))
    arguments = normal(0, (2, 7, 8, 3)), normal(1, (3, 3, 3, 5))

    def slope(conv):
        return jax.grad(lambda *a: jnp.sin(conv(*a)).sum(), wanted)

    np.testing.assert_allclose(slope(ours)(*arguments), slope(stock)(*arguments), atol=1e-4)
    both = jax.make_jaxpr(jax.grad(lambda *a: jnp.sin(ours(*a)).sum(), (0, 1)))(*arguments)
    assert len(jax.make_jaxpr(slope(ours))(*arguments).eqns) < len(both.eqns) - 3


def test_a_wide_kernel_is_turned_matrix_by_matrix(monkeypatch):
    monkeypatch.setattr(layers, "_WIDE", 1)
    x, w = normal(0, (2, 6, 7, 3)), normal(1, (3, 2, 3, 4))
    assert_same(*both_convolutions((1, 1), ((2, 0), (0, 3))), x, w)


@settings(max_examples=8, deadline=None)
@given(
    size=sizes,
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    strides=st.tuples(side, side),
    pads=st.tuples(st.tuples(st.integers(0, 3), side), st.tuples(side, st.integers(0, 3))),
)
def test_what_every_cell_gives_adds_up_to_the_input_gradient(size, kernel, strides, pads):
    x, w = normal(0, (*size, 2)), normal(1, (*kernel, 2, 3))
    _, stock = both_convolutions(strides, pads)

    @jax.jit
    def both(g):
        _, pull = jax.vjp(lambda x: stock(x, w), x)
        return layers._scattered(g, w, x.shape, strides, pads), pull(g)[0]

    g = normal(9, jax.eval_shape(stock, x, w).shape)
    np.testing.assert_allclose(*both(g), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("places", "kernel", "strides", "added"),
    [
        ((4, 14, 14), (3, 3, 128, 256), (2, 2), True),
        ((1, 7, 7), (3, 3, 512, 512), (1, 1), True),  # a kernel too wide to turn for so little
        ((1, 28, 28), (3, 3, 512, 512), (1, 1), False),
        ((1, 112, 112), (7, 7, 3, 64), (2, 2), False),  # a stem
        ((4, 28, 28), (3, 3, 256, 16), (2, 2), False),  # thin products
        ((4, 28, 28), (3, 3, 64, 64), (1, 2), False),
        ((1, 14, 14), (1, 1, 256, 512), (2, 2), False),  # a shortcut
        ((1, 14, 14), (5, 5, 64, 64), (2, 2), False),
    ],
)
def test_products_are_added_where_that_is_faster(places, kernel, strides, added):
    g, w = (np.broadcast_to(np.float32(0), size) for size in ((*places, kernel[3]), kernel))
    assert layers._by_products(g, w, strides, None) == added
    with layers.as_written(True):
        assert not layers._by_products(g, w, strides, None)


def test_wide_steps_over_thick_layers_have_the_gradients_of_the_stock_operation():
    x, w = normal(0, (2, 9, 8, 16)), normal(1, (3, 3, 16, 24)) / 12
    assert_same(*both_convolutions((2, 2), ((1, 1), (0, 1))), x, w)


@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "pads"),
    [
        ((2, 32, 32, 3), 7, 2, ((3, 3), (3, 3))),  # the stem
        ((2, 33, 47, 3), 11, 4, ((2, 2), (2, 2))),  # AlexNet's
        ((2, 9, 9, 4), 1, 2, ((0, 0), (0, 0))),  # a shortcut
        ((2, 9, 9, 4), 3, 1, "SAME"),
        ((2, 9, 8, 4), 3, 2, "SAME"),
        ((2, 9, 9, 4), 3, 2, "VALID"),
        ((40, 32, 32, 16), 3, 1, ((1, 1), (1, 1))),  # more than one part of the kernel gradient
    ],
)
def test_convolutions_of_the_families(shape, kernel, stride, pads):
    x, w = normal(0, shape), normal(1, (kernel, kernel, shape[-1], 3)) / kernel
    ours, stock = both_convolutions((stride, stride), pads)

    @jax.jit
    def gradients(x, w):
        losses = (lambda x, w, f=f: (f(x, w) ** 2).mean() for f in (ours, stock))
        return [jax.grad(loss, argnums=(0, 1))(x, w) for loss in losses]

    for mine, theirs in zip(*gradients(x, w), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"feature_group_count": 2},
        {"rhs_dilation": (2, 2)},
        {"lhs_dilation": (2, 1)},
        {"dimension_numbers": ("NCHW", "HWIO", "NCHW")},
    ],
)
def test_what_is_not_covered_goes_to_the_stock_operation(options):
    channels_first = options.get("dimension_numbers", DIMENSIONS)[0] == "NCHW"
    x = normal(0, (2, 4, 8, 8) if channels_first else (2, 8, 8, 4))
    w = normal(1, (3, 3, 4 // options.get("feature_group_count", 1), 6))
    options = {"dimension_numbers": DIMENSIONS, **options}
    args = (x, w, (1, 1), "SAME")
    if "lhs_dilation" in options:
        args = (x, w, (1, 1), ((1, 1), (1, 1)))
    np.testing.assert_array_equal(
        layers.conv_general_dilated(*args, **options), lax.conv_general_dilated(*args, **options)
    )


def test_flax_takes_it():
    x = normal(0, (2, 8, 8, 3))
    fast = nn.Conv(4, (3, 3), strides=2, conv_general_dilated=layers.conv_general_dilated)
    stock = nn.Conv(4, (3, 3), strides=2)
    variables = stock.init(jax.random.key(0), x)
    assert_same(lambda x: fast.apply(variables, x), lambda x: stock.apply(variables, x), x)


def test_the_input_gradient_is_a_plain_convolution():
    w = normal(1, (7, 7, 3, 8))
    ours, _ = both_convolutions((2, 2), ((3, 3), (3, 3)))
    text = jax.jit(jax.grad(lambda x: ours(x, w).sum())).lower(normal(0, (1, 32, 32, 3))).as_text()
    assert "lhs_dilate = [2" not in text
    assert "reverse = [true" not in text
    assert "x12xf32" in text  # four phases of three channels


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
        lambda x: layers.max_pool(x, window, stride, padding=pads),
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
    assert layers.max_pool(x, window, stride, padding=padding, ceil=ceil).shape[1] == out


def test_average_pool_with_and_without_the_border():
    x = jnp.ones((1, 2, 2, 1))
    assert float(layers.avg_pool(x, 3, 1, padding=1)[0, 0, 0, 0]) == pytest.approx(4 / 9)
    alone = layers.avg_pool(x, 3, 1, padding=1, count_padding=False)
    assert float(alone[0, 0, 0, 0]) == pytest.approx(1)


@pytest.mark.parametrize(("n", "size"), [(6, 3), (7, 3), (2, 6), (1, 7)])
def test_adaptive_pool_averages_pytorchs_cells(n, size):
    x = np.random.default_rng(0).standard_normal((1, n, n, 2)).astype(np.float32)
    pooled = layers.adaptive_avg_pool(jnp.asarray(x), size)
    cells = [slice(i * n // size, -(-(i + 1) * n // size)) for i in range(size)]
    expected = [[x[0, rows, columns].mean((0, 1)) for columns in cells] for rows in cells]
    np.testing.assert_allclose(pooled[0], expected, rtol=1e-5, atol=1e-6)


def test_flatten_is_channel_first():
    x = jnp.arange(8.0).reshape(1, 2, 2, 2)
    assert layers.flatten(x)[0].tolist() == [0, 2, 4, 6, 1, 3, 5, 7]
