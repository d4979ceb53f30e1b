"""InceptionV1, the 2014 network of the distill articles, with lucid's layer names."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rvis.kernels.layers import Conv
from rvis.kernels.pooling import Pool, max_pool
from rvis.models.families.parts import imagenet
from rvis.types import Relu, Tap, identity

_BLOCKS = {
    "mixed3a": (64, 96, 128, 16, 32, 32),
    "mixed3b": (128, 128, 192, 32, 96, 64),
    "mixed4a": (192, 96, 204, 16, 48, 64),
    "mixed4b": (160, 112, 224, 24, 64, 64),
    "mixed4c": (128, 128, 256, 24, 64, 64),
    "mixed4d": (112, 144, 288, 32, 64, 64),
    "mixed4e": (256, 160, 320, 32, 128, 128),
    "mixed5a": (256, 160, 320, 48, 128, 128),
    "mixed5b": (384, 192, 384, 48, 128, 128),
}
"""Channels of each block: 1×1; 3×3's bottleneck, 3×3; 5×5's bottleneck, 5×5; pool's reduction."""

_POOL_AFTER = {"mixed3b": "maxpool4", "mixed4e": "maxpool10"}
_AT_THE_END = ((0, 1), (0, 1))
_LRN_ALPHA = 1e-4


def local_response_norm(x: jax.Array, size: int = 9, beta: float = 0.5) -> jax.Array:
    """x / (1 + α · mean of x² over `size` channels)^β, α = 1e-4 (Krizhevsky 2012, §3.3).

    Channels beyond either end count as zeros in the mean, as in PyTorch's `LocalResponseNorm`.
    """
    half = size // 2
    pads = ((0, 0), (0, 0), (0, 0), (half, half))
    # A windowed sum has a windowed sum as its gradient: 15 times faster on a CPU than nine slices.
    total = lax.reduce_window(
        x * x, np.zeros((), x.dtype), lax.add, (1, 1, 1, size), (1, 1, 1, 1), pads
    )
    scale = 1 + _LRN_ALPHA / size * total
    return x * (lax.rsqrt(scale) if beta == 0.5 else scale**-beta)


class InceptionV1(nn.Module):
    """The GoogLeNet (Szegedy 2014) that Google trained and lucid made known, as lucent ports it.

    Takes normalised images (n, H, W, 3), that is 255·image − 117 (trained at 224); the last pooling
    averages over the whole map. Returns logits (n, classes), before the softmax.

    Layers: conv2d0, maxpool0, localresponsenorm0, conv2d1, conv2d2, localresponsenorm1, maxpool1,
    mixed3a, mixed3b, maxpool4, mixed4a to mixed4e, maxpool10, mixed5a, mixed5b, avgpool0,
    softmax2_pre_activation_matmul, softmax2_pre_activation, softmax2. Each conv2d has its
    `_pre_relu`, and so have a block's branches: mixed3a_1x1, mixed3a_3x3_bottleneck, mixed3a_3x3,
    mixed3a_5x5_bottleneck, mixed3a_5x5, mixed3a_pool_reduce (after mixed3a_pool).
    `softmax2_pre_activation_matmul` includes the bias, as in lucent. `softmax2` is for recording
    alone: a tap that changes it does not change the logits that are returned.

    Attributes:
      classes: number of logits; 1008 in the network that was released.
    """

    classes: int = 1008

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        *,
        tap: Tap = identity,
        relu: Relu = nn.relu,
        pool: Pool = max_pool,
        train: bool = False,
    ) -> jax.Array:
        del train

        def convolved(name: str, x: jax.Array, conv: Conv) -> jax.Array:
            return tap(name, relu(tap(f"{name}_pre_relu", conv(x))))

        def named(name: str, features: int, kernel: int) -> Conv:
            return Conv(features, kernel, padding=kernel // 2, name=f"{name}_pre_relu_conv")

        def mixed(name: str, x: jax.Array, channels: tuple[int, ...]) -> jax.Array:
            one, three_in, three, five_in, five, pooled = channels
            branches = [convolved(f"{name}_1x1", x, named(f"{name}_1x1", one, 1))]
            for size, reduced, features in ((3, three_in, three), (5, five_in, five)):
                branch = f"{name}_{size}x{size}"
                narrow = f"{branch}_bottleneck"
                y = convolved(narrow, x, named(narrow, reduced, 1))
                branches.append(convolved(branch, y, named(branch, features, size)))
            y = tap(f"{name}_pool", pool(x, 3, 1, padding=1))
            reduce = f"{name}_pool_reduce"
            branches.append(convolved(reduce, y, named(reduce, pooled, 1)))
            return tap(name, jnp.concatenate(branches, -1))

        stem = Conv(64, 7, 2, ((2, 3), (2, 3)), name="conv2d0_pre_relu_conv")
        x = convolved("conv2d0", x, stem)
        x = tap("maxpool0", pool(x, 3, 2, padding=_AT_THE_END))
        x = tap("localresponsenorm0", local_response_norm(x))
        x = convolved("conv2d1", x, named("conv2d1", 64, 1))
        x = convolved("conv2d2", x, named("conv2d2", 192, 3))
        x = tap("localresponsenorm1", local_response_norm(x))
        x = tap("maxpool1", pool(x, 3, 2, padding=_AT_THE_END))
        for block, channels in _BLOCKS.items():
            x = mixed(block, x, channels)
            if block in _POOL_AFTER:
                x = tap(_POOL_AFTER[block], pool(x, 3, 2, padding=_AT_THE_END))
        x = tap("avgpool0", x.mean((1, 2)))
        x = nn.Dense(self.classes, name="softmax2_pre_activation_matmul")(x)
        x = tap("softmax2_pre_activation_matmul", x)
        x = tap("softmax2_pre_activation", x)
        tap("softmax2", nn.softmax(x))
        return x


ARCHITECTURES = {
    "inceptionv1": imagenet(
        InceptionV1,
        "softmax2_pre_activation_matmul",
        normalisation=((117 / 255,), (1 / 255,)),
    )
}
"""By lucid's name."""
