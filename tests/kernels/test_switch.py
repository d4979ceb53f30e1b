"""Programs for other devices, and those under the switch, have the stock operations alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax

from rvis import kernels
from rvis.kernels.convolution import conv_general_dilated
from rvis.kernels.pooling import max_pool
from tests.kernels.same import normal

DIMENSIONS = ("NHWC", "HWIO", "NHWC")
# (kernel, channels, stride), of a size for which each has a form of its own on a CPU.
LAYERS = [(7, 16, 2), (3, 64, 1), (3, 64, 1), (3, 32, 2)]


def network(convolve, pool):
    weights, channels = [], 3
    for i, (kernel, features, _) in enumerate(LAYERS):
        weights.append(normal(i, (kernel, kernel, channels, features)) / kernel)
        channels = features

    def score(x):
        for w, (_, _, stride) in zip(weights, LAYERS, strict=True):
            x = convolve(x, w, (stride, stride), "SAME", dimension_numbers=DIMENSIONS)
            x = pool(jax.nn.relu(x), 3, 1, padding=1)
        return x[..., 0].sum()

    return score


def stock_pool(x, window, stride, padding):
    pads = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    sides, strides = (1, window, window, 1), (1, stride, stride, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, sides, strides, pads)


OURS = network(conv_general_dilated, max_pool)
STOCK = network(lax.conv_general_dilated, stock_pool)
IMAGE = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)


def operations(text):
    """How often each operation occurs, in alphabetical order."""
    found = re.findall(r"stablehlo\.\w+", text)
    return {name: found.count(name) for name in sorted(set(found))}


def exported(score, platform):
    climb = jax.jit(jax.value_and_grad(score))
    return operations(export.export(climb, platforms=[platform])(IMAGE).mlir_module())


@pytest.mark.parametrize("platform", ["cuda", "rocm", "tpu"])
def test_a_program_for_another_device_has_the_networks_own_operations(platform):
    with kernels.stock(False):
        found = exported(OURS, platform)
    # Each convolution once forward and once back to its input.
    assert found["stablehlo.convolution"] == 2 * len(LAYERS)
    assert found["stablehlo.select_and_scatter"] == found["stablehlo.reduce_window"] == len(LAYERS)
    assert "stablehlo.dot_general" not in found and "stablehlo.optimization_barrier" not in found
    expected = exported(STOCK, platform)
    same = ("convolution", "select_and_scatter", "reduce_window", "reverse", "transpose", "pad")
    for name in (f"stablehlo.{name}" for name in same):
        assert found.get(name) == expected.get(name), name


def test_a_program_for_a_cpu_has_the_kernels():
    with kernels.stock(False):
        found = exported(OURS, "cpu")
    assert found["stablehlo.convolution"] < 2 * len(LAYERS)
    assert "stablehlo.select_and_scatter" not in found
    assert "stablehlo.reduce_window" not in found


def test_one_program_for_several_devices_chooses_where_it_runs():
    x = normal(0, IMAGE.shape)
    with kernels.stock(False):
        climb = jax.jit(jax.grad(OURS))
        program = export.export(climb, platforms=["cpu", "cuda"])(IMAGE)
        np.testing.assert_allclose(jax.jit(program.call)(x), climb(x), rtol=1e-3, atol=1e-3)


def test_mapped_over_it_is_stock_elsewhere_too():
    batch = jax.ShapeDtypeStruct((3, *IMAGE.shape), jnp.float32)
    with kernels.stock(False):
        climb = jax.jit(jax.vmap(jax.grad(OURS)))
        found = operations(export.export(climb, platforms=["cuda"])(batch).mlir_module())
    assert found["stablehlo.convolution"] == 2 * len(LAYERS)


def test_the_switch_is_part_of_what_a_program_is_known_by():
    x = normal(0, IMAGE.shape)
    climb = jax.jit(jax.value_and_grad(OURS))

    def text():
        return operations(climb.lower(x).as_text())

    with kernels.stock(False):
        fast = text(), climb(x)
        with kernels.stock():
            plain = text(), climb(x)
        assert text() == fast[0]
    assert plain[0] == operations(jax.jit(jax.value_and_grad(STOCK)).lower(x).as_text())
    assert fast[0] != plain[0]
    assert climb._cache_size() == 2
    for mine, theirs in zip(fast[1], plain[1], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-3 * np.abs(theirs).max())


@pytest.mark.parametrize(("value", "message"), [("off", "False"), ("no", "RVIS_KERNELS")])
def test_the_environment_turns_them_off(value, message):
    asked = "from rvis import kernels; print(kernels.enabled())"
    environment = {**os.environ, "RVIS_KERNELS": value}
    done = subprocess.run(
        [sys.executable, "-c", asked], env=environment, capture_output=True, text=True, check=False
    )
    assert message in done.stdout + done.stderr


def test_dimensions_that_are_symbols_go_to_the_stock_operations():
    images = jax.ShapeDtypeStruct(export.symbolic_shape("b, 64, 64, 3"), jnp.float32)
    program = export.export(jax.jit(jax.grad(OURS)))(images)
    x = normal(0, IMAGE.shape)
    np.testing.assert_allclose(program.call(x), jax.jit(jax.grad(STOCK))(x), rtol=1e-3, atol=1e-3)
