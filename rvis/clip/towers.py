"""CLIP's two towers: a vision transformer and a text transformer that share an embedding.

Submodules are named as the entries of a Hugging Face `CLIPModel`, so that `models.weights.convert`
reads and writes its state-dicts.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks
from rvis.kernels.layers import Conv
from rvis.models.families.parts import ACTIVATIONS, LayerNorm, attention
from rvis.types import Array, Tap, identity

Seen = Callable[[str, Array], Array]


@dataclasses.dataclass(frozen=True)
class Config:
    """The sizes of both towers; those of ViT-B/32 by default.

    Attributes:
      image_size: side of the images in pixels.
      patch: side of a patch.
      width: of the image tower's tokens.
      layers: blocks of the image tower.
      heads: of each of its attentions.
      mlp: hidden neurons of each of its blocks; 0 for four times the width.
      text_width, text_layers, text_heads, text_mlp: of the text tower.
      context: tokens of a text, start and end included.
      vocabulary: different tokens; the end of a text must be the one with the highest number.
      projection: entries of an embedding.
      activation: "quick_gelu" or "gelu".
      stem: widths of 3×3/2 convolutions before the patches (Xiao 2021); none by default.
      pool: "class" for CLIP's class token, "mean" for the mean over patches.

    Raises:
      TypeError, ValueError: naming the field.

    Example:
      >>> from rvis.clip.towers import SIZES
      >>> SIZES["ViT-L-14"].width, SIZES["ViT-L-14"].grid
      (1024, 16)
    """

    image_size: int = 224
    patch: int = 32
    width: int = 768
    layers: int = 12
    heads: int = 12
    mlp: int = 0
    text_width: int = 512
    text_layers: int = 12
    text_heads: int = 8
    text_mlp: int = 0
    context: int = 77
    vocabulary: int = 49408
    projection: int = 512
    activation: str = "gelu"
    stem: tuple[int, ...] = ()
    pool: str = "class"

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(field.default, int):
                checks.count(field.name, value, low=int(bool(field.default)))
        object.__setattr__(self, "stem", tuple(self.stem))
        for width in self.stem:
            checks.count("stem", width)
        # OpenAI's weights were trained with the first, most of OpenCLIP's with the second.
        checks.choice("activation", self.activation, ("quick_gelu", "gelu"))
        checks.choice("pool", self.pool, ("class", "mean"))
        for part, whole in (("heads", "width"), ("text_heads", "text_width")):
            if getattr(self, whole) % getattr(self, part):
                raise ValueError(
                    f"{part}: a divisor of {whole}, {getattr(self, whole)}, was expected, given "
                    f"{getattr(self, part)}"
                )
        for name in ("patch", "image_size"):
            divisor = self.patch if name == "image_size" else 2 ** len(self.stem)
            if getattr(self, name) % divisor:
                raise ValueError(
                    f"{name}: a multiple of {divisor} was expected, given {getattr(self, name)}"
                )

    @property
    def grid(self) -> int:
        """Patches along a side."""
        return self.image_size // self.patch

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the images."""
        return self.image_size, self.image_size, 3


def _named(image: tuple[int, ...], text: tuple[int, ...], projection: int) -> Config:
    size, patch, width, layers, heads, mlp = image
    text_width, text_heads, text_layers = text
    return Config(
        image_size=size,
        patch=patch,
        width=width,
        layers=layers,
        heads=heads,
        mlp=mlp,
        text_width=text_width,
        text_heads=text_heads,
        text_layers=text_layers,
        projection=projection,
    )


_BASE, _LARGE, _HUGE = (512, 8, 12), (768, 12, 12), (1024, 16, 24)
_OPENCLIP = {
    "ViT-S-32": _named((224, 32, 384, 12, 6, 0), (384, 6, 12), 384),
    "ViT-S-16": _named((224, 16, 384, 12, 6, 0), (384, 6, 12), 384),
    "ViT-M-32": _named((224, 32, 512, 12, 8, 0), _BASE, 512),
    "ViT-M-16": _named((224, 16, 512, 12, 8, 0), _BASE, 512),
    "ViT-B-32": _named((224, 32, 768, 12, 12, 0), _BASE, 512),
    "ViT-B-32-256": _named((256, 32, 768, 12, 12, 0), _BASE, 512),
    "ViT-B-16": _named((224, 16, 768, 12, 12, 0), _BASE, 512),
    "ViT-B-16-plus": _named((224, 16, 896, 12, 14, 0), (640, 10, 12), 640),
    "ViT-B-16-plus-240": _named((240, 16, 896, 12, 14, 0), (640, 10, 12), 640),
    "ViT-L-16": _named((224, 16, 1024, 24, 16, 0), _LARGE, 768),
    "ViT-L-16-320": _named((320, 16, 1024, 24, 16, 0), _LARGE, 768),
    "ViT-L-14": _named((224, 14, 1024, 24, 16, 0), _LARGE, 768),
    "ViT-L-14-280": _named((280, 14, 1024, 24, 16, 0), _LARGE, 768),
    "ViT-L-14-336": _named((336, 14, 1024, 24, 16, 0), _LARGE, 768),
    "ViT-H-16": _named((224, 16, 1280, 32, 16, 0), _HUGE, 1024),
    "ViT-H-14": _named((224, 14, 1280, 32, 16, 0), _HUGE, 1024),
    "ViT-g-14": _named((224, 14, 1408, 40, 16, 6144), _HUGE, 1024),
    "ViT-bigG-14": _named((224, 14, 1664, 48, 16, 8192), (1280, 20, 32), 1280),
}
_OPENAI = ("ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336", "ViT-H-14", "ViT-bigG-14")

SIZES: Mapping[str, Config] = {
    **_OPENCLIP,
    **{
        f"{name}-quickgelu": dataclasses.replace(_OPENCLIP[name], activation="quick_gelu")
        for name in _OPENAI
    },
}
"""The common sizes by OpenCLIP's names; OpenAI's networks are those in "-quickgelu"."""


SMALL = Config(
    image_size=48,
    patch=8,
    width=96,
    layers=3,
    heads=3,
    text_width=64,
    text_layers=2,
    text_heads=2,
    context=16,
    vocabulary=3,
    projection=64,
    activation="gelu",
    stem=(16, 32, 64),
    pool="mean",
)
"""The CLIP that a processor can train on generated scenes."""


class Block(nn.Module):
    """x + attention(norm1(x)), then x + mlp(norm2(x))."""

    heads: int
    mlp: int
    activation: str

    @nn.compact
    def __call__(self, x: Array, *, seen: Seen, causal: bool = False) -> Array:
        n, tokens, width = x.shape
        inside = seen("norm1", LayerNorm(1e-5, name="layer_norm1")(x))
        q, k, v = (
            nn.Dense(width, name=f"self_attn.{name}_proj")(inside).reshape(
                n, tokens, self.heads, -1
            )
            for name in "qkv"
        )
        out = attention(q, k, v, causal=causal)
        x = x + nn.Dense(width, name="self_attn.out_proj")(out)
        hidden = LayerNorm(1e-5, name="layer_norm2")(x)
        hidden = nn.Dense(self.mlp or 4 * width, name="mlp.fc1")(hidden)
        hidden = seen("mlp", ACTIVATIONS[self.activation](hidden))
        return seen("", x + nn.Dense(width, name="mlp.fc2")(hidden))


class ImageTower(nn.Module):
    """A vision transformer (Dosovitskiy 2020) whose output is the embedding (n, projection).

    Layers, i from 1: `patches`; `blocki.norm1` (what block i attends to), `blocki.mlp` (its hidden
    neurons) and `blocki` (its output), each a grid (n, h, w, c) of the patches; then `pooled` and
    `embedding`. As grids they are to objectives, Grad-CAM and plots what a convolution's maps are.
    With a class token, that token's part of `blocki.…` is a layer (n, c) of its own,
    `blocki.….class`. In the last block it alone reaches the embedding, so that block's `mlp` and
    output have no grid: the last is `norm1`, which is where Grad-CAM looks by default.

    Positions are interpolated for images of other sizes (bicubic, as OpenCLIP does).

    Attributes:
      config: the sizes.
    """

    config: Config

    @nn.compact
    def __call__(self, x: Array, *, tap: Tap = identity) -> Array:
        c, root = self.config, "vision_model"
        act = ACTIVATIONS[c.activation]
        for i, width in enumerate(c.stem):
            x = act(Conv(width, 3, 2, 1, name=f"{root}.embeddings.stem.{i}")(x))
        side = c.patch >> len(c.stem)
        x = Conv(c.width, side, side, bias=False, name=f"{root}.embeddings.patch_embedding")(x)
        x = tap("patches", x)
        n, height, width, _ = x.shape
        small = nn.initializers.normal(c.width**-0.5)
        first = int(c.pool == "class")
        rows = (c.grid**2 + first, c.width)
        initial = small if first else _waves
        name = f"{root}.embeddings.position_embedding.weight"
        places = self.param(name, initial, rows, jnp.float32)
        x = x.reshape(n, height * width, c.width)
        if first:
            token = self.param(f"{root}.embeddings.class_embedding", small, (c.width,), jnp.float32)
            x = jnp.concatenate([jnp.broadcast_to(token, (n, 1, c.width)), x], 1)
        x = x + _interpolated(places, first, c.grid, (height, width))[None]
        x = LayerNorm(1e-5, name=f"{root}.pre_layrnorm")(x)

        def seen(name: str, x: Array, *, block: int) -> Array:
            name = f"block{block}{name and '.' + name}"
            ahead, patches = x[:, :first], x[:, first:]
            if not first or block < c.layers or name.endswith("norm1"):
                grid = patches.reshape(n, height, width, -1)
                patches = tap(name, grid).reshape(patches.shape)
            if first:
                ahead = tap(f"{name}.class", ahead[:, 0])[:, None]
            return jnp.concatenate([ahead, patches], 1)

        for i in range(c.layers):
            block = Block(c.heads, c.mlp, c.activation, name=f"{root}.encoder.layers.{i}")
            x = block(x, seen=partial(seen, block=i + 1))
        norm = LayerNorm(1e-5, name=f"{root}.post_layernorm")
        x = tap("pooled", norm(x[:, 0] if first else x.mean(1)))
        return tap("embedding", nn.Dense(c.projection, use_bias=False, name="visual_projection")(x))


def _waves(key: Array, shape: tuple[int, int], dtype: jax.typing.DTypeLike) -> Array:
    """Sines and cosines of rows and columns, from which a mean over patches learns places faster.

    Reference: Beyer et al. 2022, "Better plain ViT baselines for ImageNet-1k", section 2.
    """
    del key
    tokens, width = shape
    side, quarter = math.isqrt(tokens), -(-width // 4)
    frequencies = 1 / 100 ** (np.arange(quarter) / quarter)
    angles = np.arange(side)[:, None] * frequencies
    waves = np.concatenate([np.sin(angles), np.cos(angles)], 1)
    both = [np.repeat(waves, side, 0), np.tile(waves, (side, 1))]
    return jnp.asarray(np.concatenate(both, 1)[:, :width], dtype)


def _interpolated(places: Array, first: int, grid: int, size: tuple[int, int]) -> Array:
    """Position embeddings (tokens, c) for a grid of another size."""
    if size == (grid, grid):
        return places
    square = places[first:].reshape(grid, grid, -1)
    other = jax.image.resize(square, (*size, square.shape[-1]), "bicubic")
    return jnp.concatenate([places[:first], other.reshape(-1, square.shape[-1])])


class TextTower(nn.Module):
    """A causal transformer over token numbers (n, context), whose output is (n, projection).

    Its layers are `blocki.norm1`, `blocki.mlp` and `blocki`, (n, context, c), then `pooled` (at the
    first token of the highest number, which is the end of a text) and `embedding`.

    Attributes:
      config: the sizes.
    """

    config: Config

    @nn.compact
    def __call__(self, tokens: Array, *, tap: Tap = identity) -> Array:
        c, root = self.config, "text_model"
        tokens = tokens.astype(jnp.int32)
        small = nn.initializers.normal(0.02)
        name = f"{root}.embeddings.token_embedding"
        x = nn.Embed(c.vocabulary, c.text_width, embedding_init=small, name=name)(tokens)
        shape = (c.context, c.text_width)
        name = f"{root}.embeddings.position_embedding.weight"
        x = x + self.param(name, small, shape, jnp.float32)[None]
        for i in range(c.text_layers):
            block = Block(c.text_heads, c.text_mlp, c.activation, name=f"{root}.encoder.layers.{i}")

            def seen(name: str, x: Array, i: int = i) -> Array:
                return tap(f"block{i + 1}{name and '.' + name}", x)

            x = block(x, seen=seen, causal=True)
        x = LayerNorm(1e-5, name=f"{root}.final_layer_norm")(x)
        ends = tokens.argmax(-1)
        x = tap("pooled", jnp.take_along_axis(x, ends[:, None, None], 1)[:, 0])
        return tap("embedding", nn.Dense(c.projection, use_bias=False, name="text_projection")(x))
