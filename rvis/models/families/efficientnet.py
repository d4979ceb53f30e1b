"""EfficientNet B0 to B7 and Lite 0 to 4, and MobileNetV2: stages of inverted residuals."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax

from rvis.kernels.layers import Conv
from rvis.models.families.parts import (
    Adapted,
    Architecture,
    activate,
    batch_norm,
    deeper,
    divisible,
    imagenet,
    prefixed,
)
from rvis.types import Relu, Tap, identity

Stage = tuple[int, int, int, int, int]
"""Side of the depthwise kernel, stride, expansion, channels, blocks."""

_EFFICIENT: tuple[Stage, ...] = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_MOBILE: tuple[Stage, ...] = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (3, 2, 6, 32, 3),
    (3, 2, 6, 64, 4),
    (3, 1, 6, 96, 3),
    (3, 2, 6, 160, 3),
    (3, 1, 6, 320, 1),
)
# Width, depth and input size of B0 to B7, and of Lite 0 to 4 (Tan 2019 and 2020).
_SCALES = (
    (1.0, 1.0, 224),
    (1.0, 1.1, 240),
    (1.1, 1.2, 260),
    (1.2, 1.4, 300),
    (1.4, 1.8, 380),
    (1.6, 2.2, 456),
    (1.8, 2.6, 528),
    (2.0, 3.1, 600),
)
_LITE_SCALES = (*_SCALES[:3], (1.2, 1.4, 280), (1.4, 1.8, 300))


class InvertedResidual(nn.Module):
    """1×1 to more channels, depthwise, 1×1 to fewer (Sandler 2018), perhaps with channel gates.

    timm's names. Without an expansion the first of the three is missing.
    """

    kernel: int
    stride: int
    expansion: int
    channels: int
    gates: bool
    activation: str
    padding: str
    epsilon: float

    @nn.compact
    def __call__(self, x: jax.Array, *, tap: Tap, relu: Relu, train: bool) -> jax.Array:
        start, inner, number = x, x.shape[-1] * self.expansion, 1

        def normalised(x: jax.Array, *, act: bool) -> jax.Array:
            nonlocal number
            norm = batch_norm(f"bn{number}", train=train, epsilon=self.epsilon)
            x = tap(f"bn{number}", norm(x))
            x = tap(f"act{number}", activate(self.activation, x, relu)) if act else x
            number += 1
            return x

        if self.expansion > 1:
            x = tap("conv_pw", Conv(inner, 1, bias=False, name="conv_pw")(x))
            x = normalised(x, act=True)
        padding = pads(self.kernel, self.padding)
        depthwise = Conv(
            inner, self.kernel, self.stride, padding, bias=False, groups=inner, name="conv_dw"
        )
        x = normalised(tap("conv_dw", depthwise(x)), act=True)
        if self.gates:
            x = tap("se", self._gated(x, max(1, start.shape[-1] // 4), relu))
        last = "conv_pwl" if self.expansion > 1 else "conv_pw"
        x = tap(last, Conv(self.channels, 1, bias=False, name=last)(x))
        x = normalised(x, act=False)
        return start + x if self.stride == 1 and start.shape[-1] == self.channels else x

    def _gated(self, x: jax.Array, few: int, relu: Relu) -> jax.Array:
        gates = Conv(few, 1, name="se.conv_reduce")(x.mean((1, 2), keepdims=True))
        gates = activate(self.activation, gates, relu)
        return x * jax.nn.sigmoid(Conv(x.shape[-1], 1, name="se.conv_expand")(gates))


def pads(kernel: int, padding: str) -> int | str:
    """Half the kernel, or TensorFlow's "SAME", which depends on the image's size."""
    return kernel // 2 if padding == "torch" else padding


class EfficientNet(nn.Module):
    """Stages of inverted residuals between two convolutions (Tan 2019; MobileNetV2, Sandler 2018).

    timm's names and weights; torchvision's and lukemelas' (`EfficientNet-PyTorch`) are renamed.
    Layers: conv_stem, bn1, act1; blocks.S.B.{conv_pw, bn1, act1, conv_dw, bn2, act2, se, conv_pwl,
    bn3}, blocks.S.B and, after a stage's last block, blocks.S; conv_head, bn2, act2, global_pool,
    classifier. Takes normalised images (n, H, W, 3); returns logits (n, classes).

    Attributes:
      blocks: of each stage (kernel, stride, expansion, channels, blocks).
      stem: channels of the first convolution.
      head: channels of the last one.
      gates: squeeze-and-excitation in each block (Hu 2017); the Lite networks have none.
      activation: "silu", "relu6" or "relu".
      padding: "torch" pads all sides alike; "SAME" as TensorFlow does, whose weights need it.
      epsilon: of BatchNorm; 1e-3 in TensorFlow.
      classes: number of logits.

    Example:
      >>> import jax
      >>> from rvis.models.families.efficientnet import EfficientNet
      >>> images = jax.ShapeDtypeStruct((1, 64, 64, 3), "float32")
      >>> jax.eval_shape(EfficientNet().init_with_output, jax.random.key(0), images)[0].shape
      (1, 1000)
    """

    blocks: tuple[Stage, ...] = _EFFICIENT
    stem: int = 32
    head: int = 1280
    gates: bool = True
    activation: str = "silu"
    padding: str = "torch"
    epsilon: float = 1e-5
    classes: int = 1000

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        *,
        tap: Tap = identity,
        relu: Relu = nn.relu,
        train: bool = False,
    ) -> jax.Array:
        def normalised(number: int, x: jax.Array) -> jax.Array:
            norm = batch_norm(f"bn{number}", train=train, epsilon=self.epsilon)
            x = tap(f"bn{number}", norm(x))
            return tap(f"act{number}", activate(self.activation, x, relu))

        stem = Conv(self.stem, 3, 2, pads(3, self.padding), bias=False, name="conv_stem")
        x = normalised(1, tap("conv_stem", stem(x)))
        for s, (kernel, stride, expansion, channels, count) in enumerate(self.blocks):
            for b in range(count):
                name = f"blocks.{s}.{b}"
                block = InvertedResidual(
                    kernel,
                    1 if b else stride,
                    expansion,
                    channels,
                    self.gates,
                    self.activation,
                    self.padding,
                    self.epsilon,
                    name=name,
                )
                x = tap(name, block(x, tap=prefixed(tap, name), relu=relu, train=train))
            x = tap(f"blocks.{s}", x)
        x = normalised(2, tap("conv_head", Conv(self.head, 1, bias=False, name="conv_head")(x)))
        x = tap("global_pool", x.mean((1, 2)))
        return tap("classifier", nn.Dense(self.classes, name="classifier")(x))


def adapt(state: Mapping[str, Any]) -> Adapted:
    """timm's names for lukemelas' (TensorFlow's weights) and for torchvision's."""
    state = {re.sub(r"^module\.", "", name): value for name, value in state.items()}
    if "_conv_stem.weight" in state:
        return _from_lukemelas(state), {"padding": "SAME", "epsilon": 1e-3}
    if "features.0.0.weight" in state:
        deep = sum(name.endswith("block.0.0.weight") for name in state) > 32
        return _from_torchvision(state), {"epsilon": 1e-3} if deep else {}
    return dict(state), {}


_LUKEMELAS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_se_reduce": "se.conv_reduce",
    "_se_expand": "se.conv_expand",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_UNEXPANDED = {"bn2": "bn1", "bn3": "bn2", "conv_pwl": "conv_pw"}
_ENDS = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}


def _from_lukemelas(state: Mapping[str, Any]) -> dict[str, Any]:
    stages: dict[int, str] = {}
    stage, block, previous = -1, 0, None
    for i in range(sum(name.endswith("_depthwise_conv.weight") for name in state)):
        channels = len(state[f"_blocks.{i}._project_conv.weight"])
        same = channels == previous
        stage, block, previous = (stage, block + 1, channels) if same else (stage + 1, 0, channels)
        stages[i] = f"blocks.{stage}.{block}"
    renamed = {}
    for name, value in state.items():
        parts = name.split(".")
        if parts[0] == "_blocks":
            expanded = f"_blocks.{parts[1]}._expand_conv.weight" in state
            part = _LUKEMELAS.get(parts[2], parts[2])
            part = part if expanded else _UNEXPANDED.get(part, part)
            name = ".".join((stages.get(int(parts[1]), name), part, *parts[3:]))
        else:
            name = ".".join((_ENDS.get(parts[0], parts[0]), *parts[1:]))
        renamed[name] = value
    return renamed


_TORCHVISION = (
    ("0.0", "conv_pw"),
    ("0.1", "bn1"),
    ("1.0", "conv_dw"),
    ("1.1", "bn2"),
)
"""The parts of an expanded block that both of torchvision's families name alike."""


def _from_torchvision(state: Mapping[str, Any]) -> dict[str, Any]:
    """EfficientNet's features.S.B.block.I.J, and MobileNetV2's features.I.conv.J."""
    last = max(int(name.split(".")[1]) for name in state if name.startswith("features."))
    nested = "features.1.0.block.0.0.weight" in state
    places = {} if nested else _flat_stages(state, last)
    renamed = {}
    for name, value in state.items():
        parts = name.split(".")
        if parts[0] != "features":
            name = re.sub(r"^classifier\.1\.", "classifier.", name)
        elif parts[1] in ("0", str(last)):
            convolution, norm = ("conv_stem", "bn1") if parts[1] == "0" else ("conv_head", "bn2")
            name = ".".join((convolution if parts[2] == "0" else norm, *parts[3:]))
        elif nested:
            inside = ".".join(parts[4:-1])
            prefix = ".".join((*parts[:3], "block"))
            name = f"blocks.{int(parts[1]) - 1}.{parts[2]}.{_nested(inside, prefix, state)}"
            name = f"{name}.{parts[-1]}"
        else:
            inside = ".".join(parts[3:-1])
            expanded = f"features.{parts[1]}.conv.3.weight" in state
            names = dict(_TORCHVISION) | {"2": "conv_pwl", "3": "bn3"}
            if not expanded:
                names = {"0.0": "conv_dw", "0.1": "bn1", "1": "conv_pw", "2": "bn2"}
            name = ".".join((places[parts[1]], names.get(inside, inside), parts[-1]))
        renamed[name] = value
    return renamed


def _nested(inside: str, prefix: str, state: Mapping[str, Any]) -> str:
    gates = {"fc1": "se.conv_reduce", "fc2": "se.conv_expand"}
    if f"{prefix}.3.0.weight" in state:
        names = dict(_TORCHVISION) | {"3.0": "conv_pwl", "3.1": "bn3"}
    else:
        names = {"0.0": "conv_dw", "0.1": "bn1", "2.0": "conv_pw", "2.1": "bn2"}
    kind = inside.rsplit(".", 1)[-1]
    return gates.get(kind) or names.get(inside, inside)


def _flat_stages(state: Mapping[str, Any], last: int) -> dict[str, str]:
    places = {}
    stage, block, previous = -1, 0, None
    for i in range(1, last):
        entry = state.get(f"features.{i}.conv.3.bias", state.get(f"features.{i}.conv.2.bias"))
        channels = 0 if entry is None else len(entry)
        same = channels == previous
        stage, block, previous = (stage, block + 1, channels) if same else (stage + 1, 0, channels)
        places[str(i)] = f"blocks.{stage}.{block}"
    return places


def _scaled(width: float, depth: float, *, lite: bool = False) -> tuple[Stage, ...]:
    ends = (0, len(_EFFICIENT) - 1)
    return tuple(
        (k, s, e, divisible(c * width), n if lite and i in ends else deeper(n, depth))
        for i, (k, s, e, c, n) in enumerate(_EFFICIENT)
    )


_TENSORFLOW: dict[str, Any] = {"padding": "SAME", "epsilon": 1e-3}
# Crops that timm evaluates its own and TensorFlow's weights with.
_CROPS = (0.875, 0.882, 0.89, 0.904, 0.922, 0.934, 0.942, 0.949)


def _architectures() -> dict[str, Architecture]:
    table: dict[str, Architecture] = {}
    bicubic = partial(imagenet, head="classifier", interpolation="bicubic", adapt=adapt)
    for i, (width, depth, size) in enumerate(_SCALES):
        make = partial(
            EfficientNet,
            blocks=_scaled(width, depth),
            stem=divisible(32 * width),
            head=divisible(1280 * width),
        )
        table[f"efficientnet_b{i}"] = bicubic(make, size=size, crop=_CROPS[i])
        make = partial(make, **_TENSORFLOW)
        table[f"tf_efficientnet_b{i}"] = bicubic(make, size=size, crop=_CROPS[i], torchvision=False)
    for i, (width, depth, size) in enumerate(_LITE_SCALES):
        make = partial(
            EfficientNet,
            blocks=_scaled(width, depth, lite=True),
            gates=False,
            activation="relu6",
        )
        crop = (*_CROPS[:4], 0.92)[i]
        table[f"efficientnet_lite{i}"] = bicubic(make, size=size, crop=crop)
        # Its mean and deviation are 127 and 128 of 255.
        table[f"tf_efficientnet_lite{i}"] = bicubic(
            partial(make, **_TENSORFLOW),
            size=size,
            crop=crop,
            torchvision=False,
            normalisation=((127 / 255,), (128 / 255,)),
        )
    for width in (0.35, 0.5, 0.75, 1.0, 1.4):
        make = partial(
            EfficientNet,
            blocks=tuple((k, s, e, divisible(c * width), n) for k, s, e, c, n in _MOBILE),
            stem=divisible(32 * width),
            head=divisible(1280 * max(1.0, width)),
            gates=False,
            activation="relu6",
        )
        table[f"mobilenetv2_{round(100 * width):03d}"] = bicubic(make)
    table["mobilenet_v2"] = imagenet(table["mobilenetv2_100"].make, "classifier", adapt=adapt)
    return table


ARCHITECTURES = _architectures()
"""By timm's names; `tf_…` are those whose weights came from TensorFlow. `mobilenet_v2` is
torchvision's name."""
