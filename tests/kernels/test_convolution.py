"""Fast convolutions equal the stock operation: values, gradients, paddings, strides."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from rvis.kernels import convolution
from tests.kernels.same import assert_same, normal

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def both_convolutions(strides, pads):
    def ours(x, w):
        return convolution.conv_general_dilated(x, w, strides, pads, dimension_numbers=DIMENSIONS)

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


@pytest.mark.parametrize(
    ("kernel", "strides", "pads"),
    [
        pytest.param(7, (2, 2), (3, 3), id="a stem"),
        pytest.param(11, (4, 4), (2, 2), id="AlexNet's"),
        pytest.param(5, (1, 1), (0, 0), id="without padding"),
        pytest.param(3, (1, 1), (2, 2), id="full"),
    ],
)
def test_no_convolution_gives_more_places_than_it_takes(kernel, strides, pads):
    # XLA:CPU (0.10.2) gives wrong blocks of such ones while a second program runs.
    x, w = normal(0, (1, 24, 24, 20)), normal(1, (kernel, kernel, 20, 24))
    ours, _ = both_convolutions(strides, (pads, pads))

    def both(x):
        y, pull = jax.vjp(lambda x: ours(x, w), x)
        return pull(y)

    sides = [(tensor(op.operands[0]), tensor(op.results[0])) for op in convolutions(both, x)]
    assert sides
    assert all(out <= into for into, out in sides)


@pytest.mark.parametrize("groups", (1, 2))
@pytest.mark.parametrize(("side", "kernel"), [(1, 3), (2, 3), (4, 5)])
def test_no_kernel_is_longer_than_what_it_moves_over(side, kernel, groups):
    # XLA:CPU (0.10.2) computes such ones with a plain loop: a ResNet at 64 pixels took five times
    # as long for its last layer's 2×2 places.
    x, w = normal(0, (2, side, 9, 20)), normal(1, (kernel, kernel, 20 // groups, 24))
    pads = ((kernel // 2, kernel // 2),) * 2

    def applied(convolve, x):
        return convolve(
            x, w, (1, 1), pads, dimension_numbers=DIMENSIONS, feature_group_count=groups
        )

    ours = functools.partial(applied, convolution.conv_general_dilated)
    found = convolutions(ours, x)
    assert found and all(tensor(op.operands[0]) >= kernel for op in found)
    np.testing.assert_allclose(ours(x), applied(lax.conv_general_dilated, x), atol=1e-4)


def convolutions(function, x):
    """Those of a compiled program."""
    text = jax.jit(function).lower(x).compiler_ir("stablehlo")
    return [op for op in _operations(text.operation) if op.name == "stablehlo.convolution"]


def tensor(value):
    """The height of a (n, H, W, C) value of a program."""
    return value.type.shape[1]


def _operations(operation):
    for region in operation.regions:
        for block in region.blocks:
            for inner in block.operations:
                yield inner.operation
                yield from _operations(inner.operation)


def test_derivatives_of_every_order_and_direction():
    ours, stock = both_convolutions((2, 1), ((1, 0), (2, 1)))
    x, w = normal(0, (2, 5, 6, 2)), normal(1, (3, 3, 2, 3))

    def curvature(conv):
        def loss(x, w):
            return jnp.tanh(conv(x, w)).sum()

        def slope(x, w):
            return jax.grad(loss, (0, 1))(x, w)

        moves = normal(2, x.shape), normal(3, w.shape)
        return jax.jit(lambda x, w: jax.jvp(slope, (x, w), moves))(x, w)

    for mine, theirs in zip(
        *map(jax.tree.leaves, (curvature(ours), curvature(stock))), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("axes", [(0, None), (None, 3), (1, 0)])
def test_what_is_mapped_over_inputs_or_kernels(axes):
    ours, stock = both_convolutions((2, 1), ((1, 0), (2, 1)))
    x, w = normal(0, (2, 5, 6, 2)), normal(1, (3, 3, 2, 3))
    stack = [
        array if i is None else jnp.stack([array, 2 * array, -array], i)
        for array, i in zip((x, w), axes, strict=True)
    ]

    def slopes(conv):
        slope = jax.grad(lambda *a: jnp.sin(conv(*a)).sum(), (0, 1))
        return jax.jit(jax.vmap(slope, axes))(*stack)

    for mine, theirs in zip(slopes(ours), slopes(stock), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)


def test_a_wide_kernel_is_turned_matrix_by_matrix(monkeypatch):
    monkeypatch.setattr(convolution, "_WIDE", 1)
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
        options = convolution.Options(strides, pads)
        return convolution._scattered(g, w, x.shape[1:3], options), pull(g)[0]

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
    options = convolution.Options(strides, ((1, 1), (1, 1)))
    assert convolution._by_products(g, w, options) == added


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
        convolution.conv_general_dilated(*args, **options),
        lax.conv_general_dilated(*args, **options),
    )


def test_the_input_gradient_is_a_plain_convolution():
    w = normal(1, (7, 7, 3, 8))
    ours, _ = both_convolutions((2, 2), ((3, 3), (3, 3)))
    text = jax.jit(jax.grad(lambda x: ours(x, w).sum())).lower(normal(0, (1, 32, 32, 3))).as_text()
    assert "lhs_dilate = [2" not in text
    assert "reverse = [true" not in text
    assert "x12xf32" in text  # four phases of three channels


@settings(max_examples=8, deadline=None)
@given(
    size=sizes,
    multiplier=st.integers(1, 2),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    strides=st.tuples(side, side),
    pads=st.tuples(st.tuples(st.integers(0, 3), side), st.tuples(side, st.integers(0, 3))),
)
def test_depthwise(size, multiplier, kernel, strides, pads):
    x, w = normal(0, (*size, 3)), normal(1, (*kernel, 1, 3 * multiplier))
    options = {"dimension_numbers": DIMENSIONS, "feature_group_count": 3}

    def stock(x, w):
        x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
        return lax.conv_general_dilated(x, w, strides, "VALID", **options)

    assert_same(
        lambda x, w: convolution.conv_general_dilated(x, w, strides, pads, **options), stock, x, w
    )


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 2)])
def test_depthwise_differs_by_rounding(kernel, stride):
    x, w = normal(0, (2, 28, 28, 24)), normal(1, (kernel, kernel, 1, 24)) / kernel
    options = {"dimension_numbers": DIMENSIONS, "feature_group_count": 24}

    @jax.jit
    def both(x, w):
        def outcome(conv):
            y, pull = jax.vjp(lambda x, w: conv(x, w, (stride, stride), "SAME", **options), x, w)
            return y, *pull(jnp.cos(y))

        return outcome(convolution.conv_general_dilated), outcome(lax.conv_general_dilated)

    for mine, theirs in zip(*both(x, w), strict=True):
        assert np.abs(mine - theirs).max() <= 1e-5 * np.abs(theirs).max()


def test_groups_of_several_channels_have_the_stock_form():
    x, w = normal(0, (2, 6, 7, 4)), normal(1, (3, 3, 2, 6))
    options = {"dimension_numbers": DIMENSIONS, "feature_group_count": 2}

    def convolved(conv):
        return lambda x, w: conv(x, w, (2, 1), ((1, 0), (2, 1)), **options)

    assert_same(
        convolved(convolution.conv_general_dilated), convolved(lax.conv_general_dilated), x, w
    )


def test_of_no_examples_the_kernel_gradient_is_zero():
    ours, _ = both_convolutions((1, 1), "SAME")
    kernel = jnp.ones((3, 3, 3, 4))
    slope = jax.grad(lambda w: ours(jnp.zeros((0, 8, 8, 3)), w).sum())(kernel)
    np.testing.assert_array_equal(slope, np.zeros_like(kernel))
