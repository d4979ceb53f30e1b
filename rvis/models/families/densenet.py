"""DenseNet 121 to 201, with torchvision's names, which are timm's too."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rvis.kernels.layers import Conv
from rvis.kernels.pooling import Pool, avg_pool, max_pool
from rvis.models.families.parts import Adapted, batch_norm, imagenet, renamed
from rvis.types import Relu, Tap, identity


class DenseNet(nn.Module):
    """Dense blocks: each layer sees all earlier ones' channels (Huang 2016).

    Layers: conv0, norm0, relu0, pool0; denseblockB.denselayerL.{norm1, relu1, conv1, norm2, relu2,
    conv2}, denseblockB.denselayerL, denseblockB; transitionB.{norm, relu, conv}, transitionB;
    norm5, relu5, avgpool, classifier. Takes normalised images (n, H, W, 3) of 29 pixels a side or
    more (trained at 224); returns logits (n, classes).

    Attributes:
      layers: of each block.
      growth: channels that a layer adds.
      stem: channels of conv0.
      classes: number of logits.

    Example:
      >>> import jax
      >>> from rvis.models.families.densenet import DenseNet
      >>> images = jax.ShapeDtypeStruct((1, 64, 64, 3), "float32")
      >>> jax.eval_shape(DenseNet().init_with_output, jax.random.key(0), images)[0].shape
      (1, 1000)
    """

    layers: tuple[int, ...] = (6, 12, 24, 16)
    growth: int = 32
    stem: int = 64
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
        def rectified(norm: str, x: jax.Array) -> jax.Array:
            x = tap(norm, batch_norm(f"features.{norm}", train=train)(x))
            return tap(norm.replace("norm", "relu"), relu(x))

        def conv(name: str, x: jax.Array, features: int, kernel: int, stride: int = 1) -> jax.Array:
            padding = kernel // 2
            layer = Conv(features, kernel, stride, padding, bias=False, name=f"features.{name}")
            return tap(name, layer(x))

        x = rectified("norm0", conv("conv0", x, self.stem, 7, 2))
        x = tap("pool0", pool(x, 3, 2, padding=1))
        for b, count in enumerate(self.layers, 1):
            for i in range(1, count + 1):
                name = f"denseblock{b}.denselayer{i}"
                y = conv(f"{name}.conv1", rectified(f"{name}.norm1", x), 4 * self.growth, 1)
                y = conv(f"{name}.conv2", rectified(f"{name}.norm2", y), self.growth, 3)
                x = tap(name, jnp.concatenate((x, y), -1))
            x = tap(f"denseblock{b}", x)
            if b < len(self.layers):
                name = f"transition{b}"
                y = rectified(f"{name}.norm", x)
                y = conv(f"{name}.conv", y, x.shape[-1] // 2, 1)
                x = tap(name, avg_pool(y, 2, 2))
        x = rectified("norm5", x)
        x = tap("avgpool", x.mean((1, 2)))
        return tap("classifier", nn.Dense(self.classes, name="classifier")(x))


def adapt(state: Mapping[str, Any]) -> Adapted:
    """The names of torchvision's first files: `norm.1` for `norm1`."""
    return renamed(state, ((r"(denselayer\d+\.(?:norm|conv))\.(\d)", r"\1\2"),)), {}


_LAYERS = {
    121: ((6, 12, 24, 16), 32, 64),
    161: ((6, 12, 36, 24), 48, 96),
    169: ((6, 12, 32, 32), 32, 64),
    201: ((6, 12, 48, 32), 32, 64),
}
ARCHITECTURES = {
    f"densenet{depth}": imagenet(
        partial(DenseNet, layers=layers, growth=growth, stem=stem), "classifier", adapt=adapt
    )
    for depth, (layers, growth, stem) in _LAYERS.items()
}
"""By torchvision's names."""
