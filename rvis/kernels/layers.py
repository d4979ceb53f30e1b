"""Flax layers on the kernels of this package."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from rvis.kernels.convolution import LAYOUT, conv_general_dilated
from rvis.kernels.windows import Pads

shapes_only = jax.make_user_context(False)
"""`with shapes_only(True)`: layers are initialized without random numbers, for their shapes."""


def flatten(x: jax.Array) -> jax.Array:
    """(n, H, W, C) to (n, C·H·W), in PyTorch's channel-first order so that its weights fit."""
    return x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)


class Conv(nn.Module):
    """A convolution with the fast input gradient; padding in cells, as in PyTorch.

    With `groups`, that many parts of the channels are convolved each by itself.
    """

    features: int
    kernel: int
    stride: int = 1
    padding: int | str | Pads = 0
    bias: bool = True
    groups: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        padding = self.padding
        if isinstance(padding, int):
            padding = ((padding, padding), (padding, padding))
        shape = (self.kernel, self.kernel, x.shape[-1] // self.groups, self.features)
        # Of a kernel that is there Flax traces the initializer all the same, for its shape.
        drawn = not (shapes_only.value or self.has_variable("params", "kernel"))
        init = nn.initializers.he_normal() if drawn else nn.initializers.zeros
        w = self.param("kernel", init, shape, jnp.float32)
        y = conv_general_dilated(
            x,
            w.astype(x.dtype),
            (self.stride, self.stride),
            padding,
            dimension_numbers=LAYOUT,
            feature_group_count=self.groups,
        )
        if self.bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + bias.astype(x.dtype).reshape(1, 1, 1, -1)
        return y
