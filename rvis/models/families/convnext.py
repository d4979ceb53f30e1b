"""ConvNeXt tiny to large, with timm's names; torchvision's and the authors' are renamed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rvis.kernels.layers import Conv
from rvis.models.families.parts import (
    Adapted,
    LayerNorm,
    gelu,
    imagenet,
    prefixed,
    renamed,
)
from rvis.types import Relu, Tap, identity


class ConvNeXtBlock(nn.Module):
    """x + γ · (7×7 depthwise, LayerNorm, 1×1 to four times the channels, GELU, 1×1 back)."""

    scaled: bool

    @nn.compact
    def __call__(self, x: jax.Array, *, tap: Tap) -> jax.Array:
        channels = x.shape[-1]
        conv = Conv(channels, 7, padding=3, groups=channels, name="conv_dw")
        y = tap("conv_dw", conv(x))
        y = tap("norm", LayerNorm(name="norm")(y))
        y = tap("mlp.fc1", nn.Dense(4 * channels, name="mlp.fc1")(y))
        y = tap("mlp.act", gelu(y))
        y = tap("mlp.fc2", nn.Dense(channels, name="mlp.fc2")(y))
        if self.scaled:
            scale = self.param("gamma", nn.initializers.ones, (channels,), jnp.float32)
            y = y * scale.astype(y.dtype).reshape(1, 1, 1, -1)
        return x + y


class ConvNeXt(nn.Module):
    """Four stages of depthwise convolutions, with a transformer's proportions (Liu 2022).

    Layers: stem; stages.S.downsample, stages.S.blocks.B.{conv_dw, norm, mlp.fc1, mlp.act, mlp.fc2},
    stages.S.blocks.B, stages.S; global_pool, head.norm, head.fc. Takes normalised images
    (n, H, W, 3) of 32 pixels a side or more (trained at 224); returns logits (n, classes).

    Attributes:
      depths: blocks of each stage.
      widths: channels of each stage.
      scaled: a factor γ for each channel of a block.
      classes: number of logits.

    Example:
      >>> import jax
      >>> from rvis.models.families.convnext import ConvNeXt
      >>> images = jax.ShapeDtypeStruct((1, 64, 64, 3), "float32")
      >>> jax.eval_shape(ConvNeXt().init_with_output, jax.random.key(0), images)[0].shape
      (1, 1000)
    """

    depths: tuple[int, ...] = (3, 3, 9, 3)
    widths: tuple[int, ...] = (96, 192, 384, 768)
    scaled: bool = True
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
        del relu, train
        x = Conv(self.widths[0], 4, 4, name="stem.0")(x)
        x = tap("stem", LayerNorm(name="stem.1")(x))
        for s, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True)):
            name = f"stages.{s}"
            if s:
                x = LayerNorm(name=f"{name}.downsample.0")(x)
                x = Conv(width, 2, 2, name=f"{name}.downsample.1")(x)
                x = tap(f"{name}.downsample", x)
            for b in range(depth):
                inside = f"{name}.blocks.{b}"
                block = ConvNeXtBlock(self.scaled, name=inside)
                x = tap(inside, block(x, tap=prefixed(tap, inside)))
            x = tap(name, x)
        x = tap("global_pool", x.mean((1, 2)))
        x = tap("head.norm", LayerNorm(name="head.norm")(x))
        return tap("head.fc", nn.Dense(self.classes, name="head.fc")(x))


def adapt(state: Mapping[str, Any]) -> Adapted:
    """timm's names for torchvision's and for the authors'."""
    if "features.0.0.weight" in state:
        state = {_from_torchvision(name): value for name, value in state.items()}
    state = renamed(
        state,
        (
            (r"^downsample_layers\.0\.", "stem."),
            (r"^downsample_layers\.(\d)\.", r"stages.\1.downsample."),
            (r"^(stages\.\d)\.(\d+)\.dwconv\.", r"\1.blocks.\2.conv_dw."),
            (r"^(stages\.\d)\.(\d+)\.pwconv([12])\.", r"\1.blocks.\2.mlp.fc\3."),
            (r"^(stages\.\d)\.(\d+)\.(norm\.|gamma)", r"\1.blocks.\2.\3"),
            (r"^norm\.", "head.norm."),
            (r"^head\.(weight|bias)$", r"head.fc.\1"),
        ),
    )
    return {
        name: value.reshape(-1) if name.endswith("gamma") else value
        for name, value in state.items()
    }, {}


_PARTS = {"0": "conv_dw", "2": "norm", "3": "mlp.fc1", "5": "mlp.fc2"}


def _from_torchvision(name: str) -> str:
    name = re.sub(r"^features\.0\.", "stem.", name)
    name = re.sub(r"^classifier\.0\.", "head.norm.", name)
    name = re.sub(r"^classifier\.2\.", "head.fc.", name)
    if not (match := re.match(r"features\.(\d)\.(\d+)\.(.*)", name)):
        return name
    number, block, rest = int(match[1]), match[2], match[3]
    if number % 2 == 0:
        return f"stages.{number // 2}.downsample.{block}.{rest}"
    prefix = f"stages.{number // 2}.blocks.{block}"
    if rest == "layer_scale":
        return f"{prefix}.gamma"
    _, part, leaf = rest.split(".")
    return f"{prefix}.{_PARTS[part]}.{leaf}"


_SIZES = {
    "tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
    "small": ((3, 3, 27, 3), (96, 192, 384, 768)),
    "base": ((3, 3, 27, 3), (128, 256, 512, 1024)),
    "large": ((3, 3, 27, 3), (192, 384, 768, 1536)),
}
ARCHITECTURES = {
    f"convnext_{name}": imagenet(
        partial(ConvNeXt, depths=depths, widths=widths),
        "head.fc",
        interpolation="bicubic",
        adapt=adapt,
    )
    for name, (depths, widths) in _SIZES.items()
}
"""By timm's and torchvision's names."""
