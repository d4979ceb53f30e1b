"""Residual networks: torchvision's for ImageNet, and the CIFAR form of any width and depth."""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax

from rvis.kernels.layers import Conv
from rvis.kernels.pooling import Pool, max_pool
from rvis.types import Relu, Tap, identity


class Block(nn.Module):
    """Two 3×3 convolutions (or 1×1, 3×3, 1×1 with `bottleneck`) beside a shortcut.

    The stride sits in the 3×3 convolution, as in torchvision ("v1.5").
    """

    width: int
    stride: int
    bottleneck: bool

    @nn.compact
    def __call__(
        self, x: jax.Array, *, tap: Tap = identity, relu: Relu = nn.relu, train: bool = False
    ) -> jax.Array:
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5)
        if self.bottleneck:
            spec = [(self.width, 1, 1), (self.width, 3, self.stride), (4 * self.width, 1, 1)]
        else:
            spec = [(self.width, 3, self.stride), (self.width, 3, 1)]
        y = x
        for i, (width, kernel, stride) in enumerate(spec, 1):
            conv = Conv(width, kernel, stride, kernel // 2, bias=False, name=f"conv{i}")
            y = tap(f"conv{i}", conv(y))
            y = tap(f"bn{i}", norm(name=f"bn{i}")(y))
            if i < len(spec):
                y = tap(f"relu{i}", relu(y))
        if self.stride != 1 or x.shape[-1] != y.shape[-1]:
            shortcut = Conv(y.shape[-1], 1, self.stride, bias=False, name="downsample.0")
            x = tap("downsample", norm(name="downsample.1")(shortcut(x)))
        return relu(x + y)


class ResNet(nn.Module):
    """Residual network (He 2015) with torchvision's layer names.

    Layers: conv1, bn1, relu, maxpool (ImageNet stem only), then layerS.B.{conv1, bn1, relu1, conv2,
    bn2, …, downsample}, layerS.B and, after a stage's last block, layerS; avgpool, fc.

    Attributes:
      stages: number of blocks in each stage; every stage but the first halves the resolution.
      widths: width of each stage.
      bottleneck: 1×1–3×3–1×1 blocks with four times the width going out.
      stem: "imagenet" (7×7/2, then max-pooling) or "cifar" (3×3).
      classes: number of logits.
    """

    stages: tuple[int, ...] = (2, 2, 2, 2)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    bottleneck: bool = False
    stem: str = "imagenet"
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
        large = self.stem == "imagenet"
        kernel, stride = (7, 2) if large else (3, 1)
        stem_width = 64 if large else self.widths[0]
        conv = Conv(stem_width, kernel, stride, kernel // 2, bias=False, name="conv1")
        x = tap("conv1", conv(x))
        norm = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, name="bn1")
        x = tap("bn1", norm(x))
        x = tap("relu", relu(x))
        if large:
            x = tap("maxpool", pool(x, 3, 2, padding=1))
        for s, (blocks, width) in enumerate(zip(self.stages, self.widths, strict=True), 1):
            for b in range(blocks):
                name = f"layer{s}.{b}"
                block = Block(width, 2 if s > 1 and b == 0 else 1, self.bottleneck, name=name)
                x = block(x, tap=partial(_prefixed, tap, name), relu=relu, train=train)
                x = tap(name, x)
            x = tap(f"layer{s}", x)
        x = tap("avgpool", x.mean((1, 2)))
        return tap("fc", nn.Dense(self.classes, name="fc")(x))


def _prefixed(tap: Tap, prefix: str, name: str, activation: jax.Array) -> jax.Array:
    return tap(f"{prefix}.{name}", activation)
