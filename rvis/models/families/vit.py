"""Vision transformers as one: timm's, torchvision's, DeiT, DINOv2, CLIP's and SigLIP's towers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rvis.kernels.layers import Conv
from rvis.models.families.parts import (
    HALVES,
    Adapted,
    Architecture,
    LayerNorm,
    activate,
    attention,
    imagenet,
    prefixed,
    renamed,
)
from rvis.types import Relu, Tap, identity


class Mlp(nn.Module):
    """Two dense layers with an activation between."""

    hidden: int
    activation: str

    @nn.compact
    def __call__(self, x: jax.Array, *, tap: Tap, relu: Relu) -> jax.Array:
        width = x.shape[-1]
        x = tap("fc1", nn.Dense(self.hidden, name="fc1")(x))
        x = tap("act", activate(self.activation, x, relu))
        return nn.Dense(width, name="fc2")(x)


class TransformerBlock(nn.Module):
    """x + attention(norm1(x)), then x + mlp(norm2(x)), each times a factor if `scaled`."""

    heads: int
    hidden: int
    activation: str
    epsilon: float
    scaled: bool

    @nn.compact
    def __call__(self, x: jax.Array, *, tap: Tap, relu: Relu) -> jax.Array:
        n, tokens, width = x.shape

        def scale(name: str, x: jax.Array) -> jax.Array:
            if not self.scaled:
                return x
            gamma = self.param(f"{name}.gamma", nn.initializers.ones, (width,), jnp.float32)
            return x * gamma.astype(x.dtype).reshape(1, 1, -1)

        y = tap("norm1", LayerNorm(self.epsilon, name="norm1")(x))
        qkv = nn.Dense(3 * width, name="attn.qkv")(y).reshape(n, tokens, 3, self.heads, -1)
        y = nn.Dense(width, name="attn.proj")(attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]))
        x = x + scale("ls1", tap("attn", y))
        y = tap("norm2", LayerNorm(self.epsilon, name="norm2")(x))
        mlp = Mlp(self.hidden, self.activation, name="mlp")
        y = tap("mlp", mlp(y, tap=prefixed(tap, "mlp"), relu=relu))
        return x + scale("ls2", y)


class AttentionPool(nn.Module):
    """One learned query attends to all tokens, then a residual MLP (SigLIP, Zhai 2023)."""

    heads: int
    hidden: int
    activation: str
    epsilon: float

    @nn.compact
    def __call__(self, x: jax.Array, *, tap: Tap, relu: Relu) -> jax.Array:
        n, tokens, width = x.shape
        latent = self.param("latent", nn.initializers.zeros, (1, 1, width), jnp.float32)
        q = nn.Dense(width, name="q")(latent.astype(x.dtype)).reshape(1, 1, self.heads, -1)
        kv = nn.Dense(2 * width, name="kv")(x).reshape(n, tokens, 2, self.heads, -1)
        q = jnp.broadcast_to(q, (n, *q.shape[1:]))
        y = nn.Dense(width, name="proj")(attention(q, kv[:, :, 0], kv[:, :, 1]))
        mlp = Mlp(self.hidden, self.activation, name="mlp")
        inside = LayerNorm(self.epsilon, name="norm")(y)
        return (y + mlp(inside, tap=prefixed(tap, "mlp"), relu=relu))[:, 0]


class ViT(nn.Module):
    """A vision transformer (Dosovitskiy 2020), of any of the kinds in use.

    timm's names and weights; torchvision's, DINOv2's, OpenAI's CLIP and Hugging Face's CLIP and
    SigLIP are renamed. Layers: patch_embed (n, H / patch, W / patch, width), norm_pre (where there
    is one), blocks.B.{norm1, attn, norm2, mlp.fc1, mlp.act, mlp}, blocks.B, norm, pooled, and head
    where there is one: tokens (n, tokens, width), those of the picture last and row by row. Takes
    normalised images (n, H, W, 3) of any size that holds a patch: positions are interpolated.
    Returns logits (n, classes), or the pooled features (n, width) where there is no classifier.

    Attributes:
      patch: side of a patch.
      width: of a token.
      depth: number of blocks.
      heads: of an attention.
      mlp: hidden neurons of a block; 0 for four times the width.
      image: side of the images whose positions the weights hold.
      class_token: one token more, from which the class is read.
      registers: tokens more, which nothing is read from (Darcet 2023).
      distilled: a second token and classifier, whose logits are averaged in (DeiT, Touvron 2020).
      placed: class and other tokens have positions too.
      pre_norm: LayerNorm before the blocks, and patches without bias (CLIP).
      scaled: a factor for each channel of what a block adds (Touvron 2021).
      pool: "token", "avg" over the patches, or "map" by attention.
      activation: "gelu", "gelu_tanh" or "quick_gelu".
      epsilon: of LayerNorm.
      classes: number of logits; 0 for features.

    Example:
      >>> import jax
      >>> from rvis.models.families.vit import ViT
      >>> images = jax.ShapeDtypeStruct((1, 64, 48, 3), "float32")
      >>> jax.eval_shape(ViT(depth=1).init_with_output, jax.random.key(0), images)[0].shape
      (1, 1000)
    """

    patch: int = 16
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp: int = 0
    image: int = 224
    class_token: bool = True
    registers: int = 0
    distilled: bool = False
    placed: bool = True
    pre_norm: bool = False
    scaled: bool = False
    pool: str = "token"
    activation: str = "gelu"
    epsilon: float = 1e-6
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
        del train
        hidden = self.mlp or 4 * self.width
        embed = Conv(
            self.width, self.patch, self.patch, bias=not self.pre_norm, name="patch_embed.proj"
        )
        x = self._tokens(tap("patch_embed", embed(x)))
        if self.pre_norm:
            x = tap("norm_pre", LayerNorm(self.epsilon, name="norm_pre")(x))
        for b in range(self.depth):
            name = f"blocks.{b}"
            block = TransformerBlock(
                self.heads, hidden, self.activation, self.epsilon, self.scaled, name=name
            )
            x = tap(name, block(x, tap=prefixed(tap, name), relu=relu))
        if self.pool == "avg":
            x = LayerNorm(self.epsilon, name="fc_norm")(x[:, sum(self._extra().values()) :].mean(1))
        else:
            x = tap("norm", LayerNorm(self.epsilon, name="norm")(x))
        if self.pool == "map":
            pool = AttentionPool(
                self.heads, hidden, self.activation, self.epsilon, name="attn_pool"
            )
            x = pool(x, tap=prefixed(tap, "attn_pool"), relu=relu)
        second = x[:, 1] if self.distilled else None
        x = tap("pooled", x[:, 0] if self.pool == "token" else x)
        if not self.classes:
            return x
        logits = nn.Dense(self.classes, name="head")(x)
        if self.distilled:
            logits = (logits + nn.Dense(self.classes, name="head_dist")(second)) / 2
        return tap("head", logits)

    def _extra(self) -> dict[str, int]:
        counts = {
            "cls_token": int(self.class_token),
            "dist_token": int(self.distilled),
            "reg_token": self.registers,
        }
        return {name: count for name, count in counts.items() if count}

    def _tokens(self, x: jax.Array) -> jax.Array:
        """(n, tokens, width) of patches (n, h, w, width), with their places."""
        (n, *size, width), side = x.shape, self.image // self.patch
        extra = self._extra()
        ahead = sum(extra.values()) if self.placed else 0
        zeros = nn.initializers.zeros
        places = self.param("pos_embed", zeros, (1, ahead + side**2, width), jnp.float32)
        places = places.astype(x.dtype)
        grid = places[:, ahead:].reshape(1, side, side, width)
        if size != [side, side]:
            grid = jax.image.resize(grid, (1, *size, width), "cubic", antialias=True)
        x = (x + grid).reshape(n, -1, width)
        if not extra:
            return x
        shapes = {name: (1, count, width) for name, count in extra.items()}
        drawn = [self.param(name, zeros, shape, jnp.float32) for name, shape in shapes.items()]
        tokens = jnp.concatenate(drawn, 1).astype(x.dtype)
        tokens = tokens + places[:, :ahead] if self.placed else tokens
        return jnp.concatenate((jnp.broadcast_to(tokens, (n, *tokens.shape[1:])), x), 1)


def adapt(state: Mapping[str, Any]) -> Adapted:
    """timm's names for torchvision's, DINOv2's, OpenAI's CLIP, Hugging Face's CLIP and SigLIP."""
    if "conv_proj.weight" in state:
        state = renamed(state, _TORCHVISION)
    elif "visual.conv1.weight" in state:
        state = _from_openai(state)
    elif "vision_model.embeddings.patch_embedding.weight" in state:
        state = _from_hugging_face(state)
    state = {name: value for name, value in state.items() if name != "mask_token"}
    if "register_tokens" in state:
        state["reg_token"] = state.pop("register_tokens")
        # The class token's place is a part of the token, as in timm.
        state["cls_token"] = state["cls_token"] + state["pos_embed"][:, :1]
        state["pos_embed"] = state["pos_embed"][:, 1:]
    places, patches = state.get("pos_embed"), state.get("patch_embed.proj.weight")
    if places is None or patches is None or (places.ndim, patches.ndim) != (3, 4):
        return state, {}
    # One token or two of those that have places may be no patch of a square.
    for ahead in range(3):
        side = math.isqrt(max(0, places.shape[1] - ahead))
        if side**2 + ahead == places.shape[1]:
            return state, {"image": side * patches.shape[-1]}
    return state, {}


_TORCHVISION = (
    (r"^class_token$", "cls_token"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^encoder\.ln\.", "norm."),
    (r"^heads\.head\.", "head."),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.ln_(\d)\.", r"blocks.\1.norm\2."),
    (
        r"^encoder\.layers\.encoder_layer_(\d+)\.self_attention\.in_proj_",
        r"blocks.\1.attn.qkv.",
    ),
    (
        r"^encoder\.layers\.encoder_layer_(\d+)\.self_attention\.out_proj\.",
        r"blocks.\1.attn.proj.",
    ),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:0|linear_1)\.", r"blocks.\1.mlp.fc1."),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:3|linear_2)\.", r"blocks.\1.mlp.fc2."),
)
_OPENAI = (
    (r"^conv1\.", "patch_embed.proj."),
    (r"^ln_pre\.", "norm_pre."),
    (r"^ln_post\.", "norm."),
    (r"^class_embedding$", "cls_token"),
    (r"^positional_embedding$", "pos_embed"),
    (r"^transformer\.resblocks\.(\d+)\.ln_(\d)\.", r"blocks.\1.norm\2."),
    (r"^transformer\.resblocks\.(\d+)\.attn\.in_proj_", r"blocks.\1.attn.qkv."),
    (r"^transformer\.resblocks\.(\d+)\.attn\.out_proj\.", r"blocks.\1.attn.proj."),
    (r"^transformer\.resblocks\.(\d+)\.mlp\.c_fc\.", r"blocks.\1.mlp.fc1."),
    (r"^transformer\.resblocks\.(\d+)\.mlp\.c_proj\.", r"blocks.\1.mlp.fc2."),
)
_HUGGING_FACE = (
    (r"^embeddings\.patch_embedding\.", "patch_embed.proj."),
    (r"^embeddings\.class_embedding$", "cls_token"),
    (r"^embeddings\.position_embedding\.weight$", "pos_embed"),
    (r"^pre_layrnorm\.", "norm_pre."),
    (r"^post_layernorm\.", "norm."),
    (r"^encoder\.layers\.(\d+)\.layer_norm(\d)\.", r"blocks.\1.norm\2."),
    (r"^encoder\.layers\.(\d+)\.self_attn\.out_proj\.", r"blocks.\1.attn.proj."),
    (r"^encoder\.layers\.(\d+)\.self_attn\.(q|k|v)_proj\.", r"blocks.\1.attn.\2."),
    (r"^encoder\.layers\.(\d+)\.mlp\.", r"blocks.\1.mlp."),
    (r"^head\.probe$", "attn_pool.latent"),
    (r"^head\.attention\.in_proj_", "attn_pool.qkv."),
    (r"^head\.attention\.out_proj\.", "attn_pool.proj."),
    (r"^head\.layernorm\.", "attn_pool.norm."),
    (r"^head\.mlp\.", "attn_pool.mlp."),
)


def _tower(
    state: Mapping[str, Any], prefix: str, patterns: tuple[tuple[str, str], ...]
) -> dict[str, Any]:
    """One tower of several, its tokens and places with a batch axis as timm has them."""
    inside = {
        name.removeprefix(prefix): value
        for name, value in state.items()
        if name.startswith(prefix) and not name.endswith("position_ids")
    }
    tower = renamed(inside, patterns)
    for name in ("cls_token", "pos_embed"):
        if name in tower:
            tower[name] = tower[name].reshape(1, -1, tower[name].shape[-1])
    return tower


def _projected(tower: dict[str, Any], weight: Any) -> dict[str, Any]:
    bias = np.zeros(len(weight), np.float32)
    return {**tower, "head.weight": weight, "head.bias": bias}


def _from_openai(state: Mapping[str, Any]) -> dict[str, Any]:
    tower = _tower(state, "visual.", _OPENAI)
    return _projected(tower, tower.pop("proj").T) if "proj" in tower else tower


def _from_hugging_face(state: Mapping[str, Any]) -> dict[str, Any]:
    tower = _tower(state, "vision_model.", _HUGGING_FACE)
    for name in [name for name in tower if re.search(r"attn\.q\.", name)]:
        parts = [tower.pop(name.replace("attn.q.", f"attn.{part}.")) for part in "qkv"]
        tower[name.replace("attn.q.", "attn.qkv.")] = np.concatenate(parts)
    for leaf in ("weight", "bias"):
        if f"attn_pool.qkv.{leaf}" in tower:
            joined = tower.pop(f"attn_pool.qkv.{leaf}")
            third = len(joined) // 3
            tower[f"attn_pool.q.{leaf}"], tower[f"attn_pool.kv.{leaf}"] = (
                joined[:third],
                joined[third:],
            )
    projection = state.get("visual_projection.weight")
    return tower if projection is None else _projected(tower, projection)


_SIZES = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12)}
_SIZES |= {"large": (1024, 24, 16)}
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def _make(size: str, patch: int, **more: Any) -> Any:
    width, depth, heads = _SIZES[size]
    return partial(ViT, patch=patch, width=width, depth=depth, heads=heads, **more)


def _architectures() -> dict[str, Architecture]:
    table: dict[str, Architecture] = {}
    bicubic = partial(imagenet, head="head", interpolation="bicubic", adapt=adapt)
    for size, patch in (
        *((size, 16) for size in _SIZES),
        *((size, 32) for size in ("small", "base", "large")),
        ("base", 8),
    ):
        for image, crop in ((224, 0.9), (384, 1.0)):
            table[f"vit_{size}_patch{patch}_{image}"] = bicubic(
                _make(size, patch, image=image), size=image, crop=crop, normalisation=HALVES
            )
    for size in ("tiny", "small", "base"):
        for kind in ("", "_distilled"):
            table[f"deit_{size}{kind}_patch16_224"] = bicubic(
                _make(size, 16, distilled=bool(kind)), crop=0.9
            )
    for size in ("small", "base", "large"):
        more = {"image": 518, "scaled": True, "classes": 0}
        table[f"vit_{size}_patch14_dinov2"] = bicubic(_make(size, 14, **more), size=518, crop=1.0)
        table[f"vit_{size}_patch14_reg4_dinov2"] = bicubic(
            _make(size, 14, registers=4, placed=False, **more), size=518, crop=1.0
        )
    for size, patch, projected in (("base", 32, 512), ("base", 16, 512), ("large", 14, 768)):
        for kind, activation in (("", "gelu"), ("_quickgelu", "quick_gelu")):
            make = _make(
                size,
                patch,
                pre_norm=True,
                activation=activation,
                epsilon=1e-5,
                classes=projected,
            )
            table[f"vit_{size}_patch{patch}_clip{kind}_224"] = bicubic(
                make, crop=1.0, normalisation=_CLIP
            )
    for size, image in (("base", 224), ("base", 256), ("large", 256)):
        make = _make(size, 16, image=image, class_token=False, pool="map", classes=0)
        table[f"vit_{size}_patch16_siglip_{image}"] = bicubic(
            make, size=image, crop=1.0, normalisation=HALVES
        )
    for letter, size in (("b", "base"), ("l", "large")):
        for patch in (16, 32):
            table[f"vit_{letter}_{patch}"] = imagenet(_make(size, patch), "head", adapt=adapt)
    return table


ARCHITECTURES = _architectures()
"""By timm's names, and torchvision's `vit_b_16` to `vit_l_32`."""
