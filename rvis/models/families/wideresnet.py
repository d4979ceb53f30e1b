"""CIFAR's networks of RobustBench: Wide ResNets, the pre-activation ResNet-18, a small one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from rvis.data.preparation import Preparation
from rvis.kernels.layers import Conv, flatten
from rvis.models.families.parts import (
    Adapted,
    Architecture,
    activate,
    batch_norm,
    prefixed,
    renamed,
)
from rvis.types import Relu, Tap, identity


class WideBlock(nn.Module):
    """BatchNorm, ReLU, 3×3, twice, beside a shortcut, which starts behind the first ReLU."""

    width: int
    stride: int
    activation: str
    padding: str

    @nn.compact
    def __call__(self, x: jax.Array, *, tap: Tap, relu: Relu, train: bool) -> jax.Array:
        start = x
        same: int | str = 1 if self.padding == "torch" else self.padding
        x = tap("bn1", batch_norm("bn1", train=train)(x))
        x = tap("relu1", activate(self.activation, x, relu))
        if start.shape[-1] != self.width:
            shortcut = Conv(self.width, 1, self.stride, bias=False, name="convShortcut")
            start = tap("convShortcut", shortcut(x))
        x = tap("conv1", Conv(self.width, 3, self.stride, same, bias=False, name="conv1")(x))
        x = tap("bn2", batch_norm("bn2", train=train)(x))
        x = tap("relu2", activate(self.activation, x, relu))
        x = tap("conv2", Conv(self.width, 3, padding=1, bias=False, name="conv2")(x))
        return start + x


class WideResNet(nn.Module):
    """A wide residual network for 32-pixel pictures (Zagoruyko 2016).

    The names are those of TRADES and of most of RobustBench's; DeepMind's are renamed. Layers:
    conv1; blockS.layer.B.{bn1, relu1, convShortcut, conv1, bn2, relu2, conv2}, blockS.layer.B,
    blockS; bn1, relu, avgpool, fc.

    Attributes:
      depth: 4 and a multiple of 6.
      widen: times 16, 32 and 64 channels.
      activation: "relu", or "silu" in DeepMind's.
      padding: "torch", or "SAME" in DeepMind's.
      classes: number of logits.

    Raises:
      ValueError: for another depth.
    """

    depth: int = 28
    widen: int = 10
    activation: str = "relu"
    padding: str = "torch"
    classes: int = 10

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        *,
        tap: Tap = identity,
        relu: Relu = nn.relu,
        train: bool = False,
    ) -> jax.Array:
        if (self.depth - 4) % 6:
            raise ValueError(f"depth: 4 and a multiple of 6 was expected, given {self.depth}")
        x = tap("conv1", Conv(16, 3, padding=1, bias=False, name="conv1")(x))
        for s, channels in enumerate((16, 32, 64), 1):
            for b in range((self.depth - 4) // 6):
                name = f"block{s}.layer.{b}"
                block = WideBlock(
                    channels * self.widen,
                    2 if s > 1 and b == 0 else 1,
                    self.activation,
                    self.padding,
                    name=name,
                )
                x = tap(name, block(x, tap=prefixed(tap, name), relu=relu, train=train))
            x = tap(f"block{s}", x)
        x = tap("bn1", batch_norm("bn1", train=train)(x))
        x = tap("relu", activate(self.activation, x, relu))
        x = tap("avgpool", x.mean((1, 2)))
        return tap("fc", nn.Dense(self.classes, name="fc")(x))


class PreActBlock(nn.Module):
    """BatchNorm, ReLU, 3×3, twice, beside a shortcut."""

    width: int
    stride: int
    activated: bool

    @nn.compact
    def __call__(self, x: jax.Array, *, tap: Tap, relu: Relu, train: bool) -> jax.Array:
        y = tap("bn1", batch_norm("bn1", train=train)(x))
        y = tap("relu1", relu(y))
        if self.stride > 1 or x.shape[-1] != self.width:
            shortcut = Conv(self.width, 1, self.stride, bias=False, name="shortcut.0")
            x = tap("shortcut", shortcut(y if self.activated else x))
        y = tap("conv1", Conv(self.width, 3, self.stride, 1, bias=False, name="conv1")(y))
        y = tap("bn2", batch_norm("bn2", train=train)(y))
        y = tap("relu2", relu(y))
        return x + tap("conv2", Conv(self.width, 3, padding=1, bias=False, name="conv2")(y))


class PreActResNet(nn.Module):
    """A residual network whose blocks begin with BatchNorm and ReLU (He 2016), for 32 pixels.

    RobustBench's names. Layers: conv1; layerS.B.{bn1, relu1, shortcut, conv1, bn2, relu2, conv2},
    layerS.B, layerS; bn and relu (with `last_norm`), avgpool, linear.

    Attributes:
      stages: blocks of each stage.
      last_norm: BatchNorm and ReLU before the mean.
      activated: the shortcut starts behind a block's first ReLU.
      classes: number of logits.
    """

    stages: tuple[int, ...] = (2, 2, 2, 2)
    last_norm: bool = False
    activated: bool = False
    classes: int = 10

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        *,
        tap: Tap = identity,
        relu: Relu = nn.relu,
        train: bool = False,
    ) -> jax.Array:
        x = tap("conv1", Conv(64, 3, padding=1, bias=False, name="conv1")(x))
        for s, blocks in enumerate(self.stages, 1):
            for b in range(blocks):
                name, stride = f"layer{s}.{b}", 2 if s > 1 and b == 0 else 1
                block = PreActBlock(32 * 2**s, stride, self.activated, name=name)
                x = tap(name, block(x, tap=prefixed(tap, name), relu=relu, train=train))
            x = tap(f"layer{s}", x)
        if self.last_norm:
            x = tap("bn", batch_norm("bn", train=train)(x))
            x = tap("relu", relu(x))
        x = tap("avgpool", x.mean((1, 2)))
        return tap("linear", nn.Dense(self.classes, name="linear")(x))


class PlainBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut, without normalisation."""

    width: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array, *, tap: Tap, relu: Relu) -> jax.Array:
        y = tap("conv1", Conv(self.width, 3, self.stride, 1, name="conv1")(x))
        y = tap("relu1", relu(y))
        y = tap("conv2", Conv(self.width, 3, padding=1, name="conv2")(y))
        if self.stride > 1 or x.shape[-1] != self.width:
            x = tap("shortcut", Conv(self.width, 1, self.stride, name="shortcut.0")(x))
        return relu(x + y)


class PlainResNet(nn.Module):
    """A residual network of convolutions alone, whose robustness verifiers can prove.

    `cifar10_resnet4b_adv` of alpha-beta-CROWN (Xu 2021). Layers: conv1, relu1; layerS.B.{conv1,
    relu1, conv2, shortcut}, layerS.B, layerS; linear1, relu2, linear2.

    Attributes:
      stages: blocks of each stage; each stage halves the resolution.
      widths: channels of the stem and of the stages.
      dense: neurons of linear1.
      classes: number of logits.
    """

    stages: tuple[int, ...] = (2, 2)
    widths: tuple[int, ...] = (16, 32, 32)
    dense: int = 100
    classes: int = 10

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        *,
        tap: Tap = identity,
        relu: Relu = nn.relu,
        train: bool = False,
    ) -> jax.Array:
        del train
        x = tap("conv1", Conv(self.widths[0], 3, 2, 1, name="conv1")(x))
        x = tap("relu1", relu(x))
        for s, (blocks, width) in enumerate(zip(self.stages, self.widths[1:], strict=True), 1):
            for b in range(blocks):
                name = f"layer{s}.{b}"
                block = PlainBlock(width, 1 if b else 2, name=name)
                x = tap(name, block(x, tap=prefixed(tap, name), relu=relu))
            x = tap(f"layer{s}", x)
        x = tap("linear1", nn.Dense(self.dense, name="linear1")(flatten(x)))
        x = tap("relu2", relu(x))
        return tap("linear2", nn.Dense(self.classes, name="linear2")(x))


_DEEPMIND = (
    (r"^init_conv\.", "conv1."),
    (r"^batchnorm\.", "bn1."),
    (r"^logits\.", "fc."),
    (r"^layer\.(\d)\.block\.(\d+)\.batchnorm_0\.", r"block[\1].layer.\2.bn1."),
    (r"^layer\.(\d)\.block\.(\d+)\.conv_0\.", r"block[\1].layer.\2.conv1."),
    (r"^layer\.(\d)\.block\.(\d+)\.batchnorm_1\.", r"block[\1].layer.\2.bn2."),
    (r"^layer\.(\d)\.block\.(\d+)\.conv_1\.", r"block[\1].layer.\2.conv2."),
    (r"^layer\.(\d)\.block\.(\d+)\.shortcut\.", r"block[\1].layer.\2.convShortcut."),
)
_MEAN, _STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)


def adapt(state: Mapping[str, Any]) -> Adapted:
    """Names without wrappers; a file's normaliser, and what its names say of the network."""
    state = {re.sub(r"^(module|model)\.", "", name): value for name, value in state.items()}
    implied: dict[str, Any] = {}
    for field, names in (("mean", ("mu", "mean")), ("std", ("sigma", "std"))):
        for name in names:
            if name in state:
                implied[field] = tuple(np.ravel(state.pop(name)).tolist())
    if "init_conv.weight" in state:
        state = renamed(state, _DEEPMIND)
        state = {
            re.sub(r"\[(\d)\]", lambda match: str(int(match[1]) + 1), name): value
            for name, value in state.items()
        }
        implied = {"mean": _MEAN, "std": _STD, **implied}
        implied |= {"activation": "silu", "padding": "SAME"}
    if "bn.weight" in state:
        implied |= {"last_norm": True, "activated": True}
    # TRADES' files hold a first stage that nothing reads.
    state = {name: value for name, value in state.items() if not name.startswith("sub_block1.")}
    return state, implied


_CIFAR = Preparation(crop=1.0, interpolation="bicubic")
_PLAIN = ((32, 32, 3), (0.0,), (1.0,), _CIFAR, adapt)
ARCHITECTURES = {
    "wideresnet28_10": Architecture(WideResNet, "fc", *_PLAIN),
    "wideresnet34_10": Architecture(partial(WideResNet, depth=34), "fc", *_PLAIN),
    "wideresnet70_16": Architecture(
        partial(WideResNet, depth=70, widen=16, activation="silu", padding="SAME"),
        "fc",
        (32, 32, 3),
        _MEAN,
        _STD,
        _CIFAR,
        adapt,
    ),
    "preactresnet18": Architecture(PreActResNet, "linear", *_PLAIN),
    "cifar10_resnet4b_adv": Architecture(PlainResNet, "linear2", (32, 32, 3), _MEAN, _STD, _CIFAR),
}
"""RobustBench's WideResNet-28-10, -34-10, -70-16 and PreActResNet-18, without a normaliser unless
their files hold one; and alpha-beta-CROWN's network."""
