"""Residual networks: torchvision's for ImageNet, and the CIFAR form of any width and depth."""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax

from rvis.data.preparation import Preparation
from rvis.kernels.layers import Conv
from rvis.kernels.pooling import Pool, max_pool
from rvis.models.families.parts import Architecture, imagenet, prefixed
from rvis.types import Relu, Tap, identity


class Block(nn.Module):
    """Two 3×3 convolutions (or 1×1, 3×3, 1×1 with `bottleneck`) beside a shortcut.

    `groups` of `each` channels (of a stage as wide as 64) are what a bottleneck convolves.
    The stride sits in the 3×3 convolution, as in torchvision ("v1.5").
    """

    width: int
    stride: int
    bottleneck: bool
    groups: int = 1
    each: int = 64

    @nn.compact
    def __call__(
        self, x: jax.Array, *, tap: Tap = identity, relu: Relu = nn.relu, train: bool = False
    ) -> jax.Array:
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5)
        if self.bottleneck:
            inner = self.width * self.each // 64 * self.groups
            spec = [(inner, 1, 1), (inner, 3, self.stride), (4 * self.width, 1, 1)]
        else:
            spec = [(self.width, 3, self.stride), (self.width, 3, 1)]
        y = x
        for i, (width, kernel, stride) in enumerate(spec, 1):
            groups = self.groups if kernel == 3 else 1
            padding = kernel // 2
            conv = Conv(width, kernel, stride, padding, bias=False, groups=groups, name=f"conv{i}")
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
      groups: of a bottleneck's 3×3 convolution: ResNeXt (Xie 2016).
      each: channels of each of them in the first stage: 128 is a wide one (Zagoruyko 2016).
      classes: number of logits.
    """

    stages: tuple[int, ...] = (2, 2, 2, 2)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    bottleneck: bool = False
    stem: str = "imagenet"
    groups: int = 1
    each: int = 64
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
                stride = 2 if s > 1 and b == 0 else 1
                block = Block(width, stride, self.bottleneck, self.groups, self.each, name=name)
                x = block(x, tap=prefixed(tap, name), relu=relu, train=train)
                x = tap(name, x)
            x = tap(f"layer{s}", x)
        x = tap("avgpool", x.mean((1, 2)))
        return tap("fc", nn.Dense(self.classes, name="fc")(x))


# What published CIFAR-10 networks use (kuangliu/pytorch-cifar, MadryLab/robustness).
_CIFAR = ((32, 32, 3), (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), Preparation(crop=1.0))
_STAGES = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}
_WIDER = {
    "wide_resnet50_2": (50, 1, 128),
    "wide_resnet101_2": (101, 1, 128),
    "resnext50_32x4d": (50, 32, 4),
    "resnext101_32x8d": (101, 32, 8),
    "resnext101_64x4d": (101, 64, 4),
}
ARCHITECTURES = {
    "cifar_resnet": Architecture(
        partial(ResNet, stages=(1, 1, 1, 1), widths=(32, 64, 128, 256), stem="cifar", classes=10),
        "fc",
        *_CIFAR,
    ),
    **{
        f"resnet{depth}": imagenet(partial(ResNet, stages=stages, bottleneck=bottleneck), "fc")
        for depth, (stages, bottleneck) in _STAGES.items()
    },
    **{
        name: imagenet(
            partial(ResNet, stages=_STAGES[depth][0], bottleneck=True, groups=groups, each=each),
            "fc",
        )
        for name, (depth, groups, each) in _WIDER.items()
    },
}
"""By torchvision's names; `cifar_resnet` is for 32 pixels."""
