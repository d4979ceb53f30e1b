"""GoogLeNet with BatchNorm as torchvision ships it, and Caffe's without; torchvision's names."""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from rvis.kernels.layers import Conv
from rvis.kernels.pooling import Pool, max_pool
from rvis.models.families.inceptionv1 import local_response_norm
from rvis.models.families.parts import HALVES, batch_norm, imagenet
from rvis.types import Relu, Tap, identity

_BLOCKS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
"""Channels: 1×1; 3×3's reduction, 3×3; "5×5"'s reduction, "5×5"; the pool's projection."""

_POOL_AFTER = {"3b": ("maxpool3", 3), "4e": ("maxpool4", 2)}


class GoogLeNet(nn.Module):
    """Nine inception blocks (Szegedy 2014) as torchvision's `googlenet` has them.

    Its "5×5" branch is 3×3, as in the weights that torchvision ships; no auxiliary heads, no
    dropout, no input transform. Takes normalised images (n, H, W, 3) of 15 pixels a side or more
    (trained at 224); returns logits (n, classes).

    Layers: conv1, maxpool1, conv2, conv3, maxpool2, inception3a, inception3b, maxpool3,
    inception4a to inception4e, maxpool4, inception5a, inception5b, avgpool, fc. A convolution's
    parts are layers of their own: conv1.conv, conv1.bn, then conv1 after its ReLU; and so are a
    block's branches: inception3a.branch1, .branch2.0, .branch2.1, .branch2, and so on, where
    .branch4.0 is max-pooling. Caffe's network has no .bn, but norm1 behind maxpool1 and norm2
    before maxpool2.

    Attributes:
      caffe: the network of Caffe's model zoo (`bvlc_googlenet`): 5×5 where they are called so,
        biases and local response normalisation instead of BatchNorm.
      classes: number of logits.
    """

    caffe: bool = False
    classes: int = 1000

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
        def convolved(
            name: str, x: jax.Array, features: int, kernel: int, stride: int = 1
        ) -> jax.Array:
            padding = kernel // 2
            conv = Conv(features, kernel, stride, padding, self.caffe, name=f"{name}.conv")
            x = tap(f"{name}.conv", conv(x))
            if not self.caffe:
                norm = batch_norm(f"{name}.bn", train=train, epsilon=1e-3)
                x = tap(f"{name}.bn", norm(x))
            return tap(name, relu(x))

        def inception(name: str, x: jax.Array, channels: tuple[int, ...]) -> jax.Array:
            one, three_in, three, five_in, five, pooled = channels
            branches = [convolved(f"{name}.branch1", x, one, 1)]
            for branch, reduced, features, kernel in (
                ("branch2", three_in, three, 3),
                ("branch3", five_in, five, 5 if self.caffe else 3),
            ):
                y = convolved(f"{name}.{branch}.0", x, reduced, 1)
                y = convolved(f"{name}.{branch}.1", y, features, kernel)
                branches.append(tap(f"{name}.{branch}", y))
            y = tap(f"{name}.branch4.0", pool(x, 3, 1, padding=1, ceil=True))
            y = convolved(f"{name}.branch4.1", y, pooled, 1)
            branches.append(tap(f"{name}.branch4", y))
            return tap(name, jnp.concatenate(branches, -1))

        x = convolved("conv1", x, 64, 7, 2)
        x = tap("maxpool1", pool(x, 3, 2, ceil=True))
        if self.caffe:
            x = tap("norm1", local_response_norm(x, 5, 0.75))
        x = convolved("conv2", x, 64, 1)
        x = convolved("conv3", x, 192, 3)
        if self.caffe:
            x = tap("norm2", local_response_norm(x, 5, 0.75))
        x = tap("maxpool2", pool(x, 3, 2, ceil=True))
        for block, channels in _BLOCKS.items():
            x = inception(f"inception{block}", x, channels)
            if block in _POOL_AFTER:
                name, window = _POOL_AFTER[block]
                window = 3 if self.caffe else window
                x = tap(name, pool(x, window, 2, ceil=True))
        x = tap("avgpool", x.mean((1, 2)))
        return tap("fc", nn.Dense(self.classes, name="fc")(x))


ARCHITECTURES = {
    # torchvision's weights were trained on [-1, 1], which its `transform_input` restores.
    "googlenet": imagenet(GoogLeNet, "fc", normalisation=HALVES),
    "googlenet_bvlc": imagenet(
        partial(GoogLeNet, caffe=True),
        "fc",
        interpolation="bicubic",
        torchvision=False,
        normalisation=((123 / 255, 117 / 255, 104 / 255), (1 / 255,)),
    ),
}
"""By torchvision's name, and Caffe's network."""
