"""Winograd's convolution equals the stock one, where it is chosen and where it is not."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from rvis.kernels import convolution, winograd

DIMENSIONS = ("NHWC", "HWIO", "NHWC")
ONE = ((1, 1), (1, 1))


def drawn(seed, shape, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def stock(x, w, pads):
    return lax.conv_general_dilated(x, w, (1, 1), pads, dimension_numbers=DIMENSIONS)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(
    ("shape", "pads", "many"),
    [
        ((1, 8, 8), ONE, 1),
        pytest.param((1, 7, 9), ONE, 1, marks=pytest.mark.slow),  # odd sides are in the next too
        ((4, 5, 6), ((0, 0), (0, 0)), 4),
        ((6, 6, 3), ((0, 2), (2, 1)), 2),
        ((3, 1, 4), ((2, 2), (0, 1)), 1),
    ],
)
def test_it_is_the_convolution_to_the_last_digits(shape, pads, many, transposed):
    with jax.enable_x64(True):
        w = drawn(1, (3, 3, 5, 7), np.float64)
        x = drawn(2, (*shape, 7 if transposed else 5), np.float64)
        turned = w[::-1, ::-1].transpose(0, 1, 3, 2) if transposed else w

        @jax.jit
        def both(x, w, turned):
            found = winograd.convolve(x, w, pads, many, transposed=transposed)
            return found, stock(x, turned, pads)

        np.testing.assert_allclose(*both(x, w, turned), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "shape", [(1, 56, 56, 32), pytest.param((8, 32, 32, 32), marks=pytest.mark.slow)]
)
def test_in_float32_values_and_gradients_differ_by_rounding(shape):
    x, w = drawn(1, shape), drawn(2, (3, 3, 32, 96)) / 17
    assert winograd.group(shape, ONE, w) > 0

    def ours(x, w):
        return convolution.conv_general_dilated(x, w, (1, 1), ONE, dimension_numbers=DIMENSIONS)

    @jax.jit
    def both(g):
        expected, stock_pull = jax.vjp(lambda x, w: stock(x, w, ONE), x, w)
        found, pull = jax.vjp(ours, x, w)
        return (found, *pull(g)), (expected, *stock_pull(g))

    for found, expected in zip(*both(drawn(3, (*shape[:3], 96))), strict=True):
        assert np.abs(found - expected).max() <= 2e-5 * np.abs(expected).max()


def test_a_batch_of_images_is_convolved_as_each_alone():
    x, w = drawn(1, (2, 1, 56, 56, 32)), drawn(2, (3, 3, 32, 96))

    def ours(x):
        return convolution.conv_general_dilated(x, w, (1, 1), ONE, dimension_numbers=DIMENSIONS)

    expected = np.stack([ours(one) for one in x])
    np.testing.assert_allclose(jax.vmap(ours)(x), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("shape", "kernel", "pads", "many"),
    [
        ((1, 64, 64, 256), (3, 3, 256, 256), ONE, 1),
        ((1, 56, 56, 192), (3, 3, 64, 192), ONE, 1),
        ((16, 8, 8, 128), (3, 3, 128, 128), ONE, 16),
        ((128, 32, 32, 32), (3, 3, 32, 32), ONE, 32),
        ((1, 256, 256, 64), (3, 3, 64, 64), ONE, 0),  # does not fit the cache
        ((1, 32, 32, 32), (3, 3, 32, 32), ONE, 0),  # little to win
        ((1, 14, 14, 512), (3, 3, 512, 512), ONE, 0),  # few places
        ((9, 32, 32, 16), (3, 3, 16, 512), ONE, 0),  # few channels
        ((1, 64, 64, 256), (5, 5, 256, 256), ((2, 2), (2, 2)), 0),
        ((1, 64, 64, 256), (3, 3, 256, 256), ((-1, 0), (1, 1)), 0),
    ],
)
def test_it_is_chosen_where_it_is_faster(shape, kernel, pads, many):
    w = np.broadcast_to(np.float32(0), kernel)
    assert winograd.group(shape, pads, w) == many


def test_other_precisions_keep_the_stock_convolution():
    w = jnp.zeros((3, 3, 256, 256), jnp.bfloat16)
    assert winograd.group((1, 64, 64, 256), ONE, w) == 0


def test_a_loop_turns_the_kernel_into_matrices_but_once():
    x, w = drawn(1, (1, 32, 32, 64)), drawn(2, (3, 3, 64, 128))

    def climb(x, w):
        def body(x, _):
            made = winograd.convolve(x, w, ONE, 1, transposed=False)
            return x + made.mean(), None

        return lax.scan(body, x, length=9)[0]

    written = jax.jit(climb).lower(x, w).compile().as_text()
    entry = written[written.index("ENTRY ") :]
    assert "f32[36,8192]" in entry.split("while(")[0]


def convolutions(function, x):
    return jax.jit(function).lower(x).as_text().count("stablehlo.convolution")


def test_what_is_mapped_over_counts():
    x, w = drawn(1, (8, 1, 16, 16, 64)), drawn(2, (3, 3, 64, 64))

    @jax.vmap
    def mapped(x):
        return convolution.conv_general_dilated(x, w, (1, 1), ONE, dimension_numbers=DIMENSIONS)

    assert convolutions(mapped, x) == 0 and convolutions(mapped, x[:1]) == 1
    expected = np.concatenate([mapped(x[i : i + 1]) for i in range(8)])
    np.testing.assert_allclose(mapped(x), expected, rtol=0, atol=1e-3)
