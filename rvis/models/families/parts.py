"""What several families are made of: normalisation, activations, names below names."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from rvis.data.imagenet import classes
from rvis.data.preparation import Preparation
from rvis.types import Relu, Tap

Floats = tuple[float, ...]
Adapted = tuple[dict[str, Any], dict[str, Any]]
"""A state-dict under a family's names, and fields of the module that the given names imply."""


class Architecture(NamedTuple):
    """What is known of a network before its weights are.

    Attributes:
      make: the module from its configuration, `make(**config)`.
      head: the classifier's prefix in a state-dict.
      input_shape: (H, W, C) it is trained at.
      mean: of the images in [0, 1], one for all channels or one for each.
      std: likewise, what they are divided by.
      preparation: how photographs are brought to that size.
      adapt: a state-dict under other libraries' names → `Adapted`.
      names: of the classes it is trained on.
    """

    make: Callable[..., nn.Module]
    head: str
    input_shape: tuple[int, int, int]
    mean: Floats
    std: Floats
    preparation: Preparation = Preparation()
    adapt: Callable[[Mapping[str, Any]], Adapted] | None = None
    names: Callable[[], tuple[str, ...]] | None = None


IMAGENET: tuple[Floats, Floats] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation that torchvision's and most of timm's networks were trained with."""
HALVES: tuple[Floats, Floats] = ((0.5,), (0.5,))
"""Of networks that were trained on [-1, 1]."""


def imagenet(
    make: Callable[..., nn.Module],
    head: str,
    *,
    size: int = 224,
    crop: float = 0.875,
    interpolation: str = "bilinear",
    normalisation: tuple[Floats, Floats] = IMAGENET,
    torchvision: bool = True,
    adapt: Callable[[Mapping[str, Any]], Adapted] | None = None,
) -> Architecture:
    """An architecture for ImageNet's photographs."""
    preparation = Preparation(crop, interpolation, torchvision)
    return Architecture(make, head, (size, size, 3), *normalisation, preparation, adapt, classes)


def batch_norm(name: str, *, train: bool, epsilon: float = 1e-5) -> nn.BatchNorm:
    """BatchNorm, with its running statistics unless in training."""
    return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=epsilon, name=name)


class LayerNorm(nn.Module):
    """LayerNorm over channels; mean and variance in float32 and two passes, as in PyTorch."""

    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        ones, zeros, shape = nn.initializers.ones, nn.initializers.zeros, x.shape[-1:]
        scale = self.param("scale", ones, shape, jnp.float32)
        bias = self.param("bias", zeros, shape, jnp.float32)
        scale, bias = (f.astype(x.dtype).reshape(*[1] * (x.ndim - 1), -1) for f in (scale, bias))
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        wide = wide - wide.mean(-1, keepdims=True)
        # Flax multiplies the narrow factors first, for which XLA:CPU writes out a wide array.
        wide = wide * jax.lax.rsqrt((wide * wide).mean(-1, keepdims=True) + self.epsilon)
        return wide.astype(x.dtype) * scale + bias


def attention(q: jax.Array, k: jax.Array, v: jax.Array, *, causal: bool = False) -> jax.Array:
    """Scaled dot-product attention of (n, tokens, heads, d) (Vaswani 2017)."""
    # XLA:CPU multiplies heads with their tokens side by side in two thirds of the time.
    q, k, v = (x.transpose(0, 2, 1, 3) for x in (q, k, v))
    scores = jnp.einsum("nhqd,nhkd->nhqk", q / math.sqrt(q.shape[-1]), k)
    if causal:
        earlier = jnp.tril(jnp.ones(scores.shape[-2:], bool))
        scores = jnp.where(earlier, scores, jnp.finfo(scores.dtype).min)
    out = (jax.nn.softmax(scores) @ v).transpose(0, 2, 1, 3)
    return out.reshape(*out.shape[:2], -1)


def prefixed(tap: Tap, prefix: str) -> Tap:
    """`tap` for the layers of a submodule of that name."""
    return partial(_prefixed, tap, prefix)


def _prefixed(tap: Tap, prefix: str, name: str, activation: jax.Array) -> jax.Array:
    return tap(f"{prefix}.{name}", activation)


def gelu(x: jax.Array) -> jax.Array:
    """x Φ(x), Φ the standard normal distribution (Hendrycks 2016)."""
    return x * (0.5 + 0.5 * jax.lax.erf(x * math.sqrt(0.5)))


def activate(name: str, x: jax.Array, relu: Relu) -> jax.Array:
    """An activation by its name: those that are rectifiers go through `relu`."""
    if name == "relu":
        return relu(x)
    if name == "relu6":
        return jnp.minimum(relu(x), 6)
    return ACTIVATIONS[name](x)


ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
    "silu": jax.nn.silu,
    "gelu": gelu,
    "gelu_tanh": partial(jax.nn.gelu, approximate=True),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
}
"""Activations that are no rectifiers."""


def divisible(channels: float, by: int = 8) -> int:
    """The nearest multiple, but not below nine tenths of what was wanted (Sandler 2018)."""
    nearest = max(by, int(channels + by / 2) // by * by)
    return nearest + by if nearest < 0.9 * channels else nearest


def deeper(repeats: int, factor: float) -> int:
    """So many times the blocks, rounded up (Tan 2019)."""
    return math.ceil(round(repeats * factor, 6))


def renamed(state: Mapping[str, Any], patterns: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """A state-dict, each entry under the name that the first pattern that is in its own gives."""
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in patterns]

    def new(name: str) -> str:
        for pattern, replacement in compiled:
            if pattern.search(name):
                return pattern.sub(replacement, name)
        return name

    return {new(name): value for name, value in state.items()}
