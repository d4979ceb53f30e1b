"""Layers on the kernels."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from rvis.kernels import convolution, layers
from tests.kernels.same import assert_same, normal


def test_flax_takes_it():
    x = normal(0, (2, 8, 8, 3))
    fast = nn.Conv(4, (3, 3), strides=2, conv_general_dilated=convolution.conv_general_dilated)
    stock = nn.Conv(4, (3, 3), strides=2)
    variables = stock.init(jax.random.key(0), x)
    assert_same(lambda x: fast.apply(variables, x), lambda x: stock.apply(variables, x), x)


def test_flatten_is_channel_first():
    x = jnp.arange(8.0).reshape(1, 2, 2, 2)
    assert layers.flatten(x)[0].tolist() == [0, 2, 4, 6, 1, 3, 5, 7]
