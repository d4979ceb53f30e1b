"""The VGG networks of 11 to 19 layers, with and without BatchNorm, with Caffe's layer names."""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax

from rvis.kernels.layers import Conv, flatten
from rvis.kernels.pooling import Pool, adaptive_avg_pool, max_pool
from rvis.models.families.parts import imagenet
from rvis.types import Relu, Tap, identity


class VGG(nn.Module):
    """Stages of 3×3 convolutions, each closed by 2×2 max-pooling (Simonyan & Zisserman 2014).

    torchvision's `vgg11` to `vgg19_bn`, without dropout. Layers: convS_I, (bnS_I,) reluS_I, and
    poolS for stage S and convolution I from 1; then fc6, relu6, fc7, relu7, fc8. Takes normalised
    images (n, H, W, 3) of 32 pixels a side or more (trained at 224); returns logits (n, classes).

    Attributes:
      stages: number of convolutions in each stage; (2, 2, 3, 3, 3) is VGG-16.
      widths: channels of each stage.
      dense: width of fc6 and fc7.
      norm: BatchNorm after every convolution.
      classes: number of logits; 0 for the convolutions alone, without logits.
    """

    stages: tuple[int, ...] = (2, 2, 3, 3, 3)
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    dense: int = 4096
    norm: bool = False
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
        entry = 0
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5)
        for s, (convolutions, width) in enumerate(zip(self.stages, self.widths, strict=True), 1):
            for i in range(1, convolutions + 1):
                conv = Conv(width, 3, padding=1, name=f"features.{entry}")
                x = tap(f"conv{s}_{i}", conv(x))
                if self.norm:
                    x = tap(f"bn{s}_{i}", norm(name=f"features.{entry + 1}")(x))
                x = tap(f"relu{s}_{i}", relu(x))
                entry += 3 if self.norm else 2
            x = tap(f"pool{s}", pool(x, 2, 2))
            entry += 1
        if not self.classes:
            return x[:, 0, 0, :0]
        x = flatten(adaptive_avg_pool(x, 7))
        for i, entry in ((6, 0), (7, 3)):
            x = tap(f"fc{i}", nn.Dense(self.dense, name=f"classifier.{entry}")(x))
            x = tap(f"relu{i}", relu(x))
        return tap("fc8", nn.Dense(self.classes, name="classifier.6")(x))


_STAGES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
ARCHITECTURES = {
    f"vgg{depth}{suffix}": imagenet(partial(VGG, stages=stages, norm=bool(suffix)), "classifier.6")
    for suffix in ("", "_bn")
    for depth, stages in _STAGES.items()
}
"""By torchvision's names."""
