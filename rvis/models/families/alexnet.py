"""AlexNet as torchvision builds it (Krizhevsky 2014), with Caffe's layer names."""

from __future__ import annotations

import flax.linen as nn
import jax

from rvis.kernels.layers import Conv, flatten
from rvis.kernels.pooling import Pool, adaptive_avg_pool, max_pool
from rvis.models.families.parts import imagenet
from rvis.types import Relu, Tap, identity

_CONVOLUTIONS = ((64, 11, 4, 2), (192, 5, 1, 2), (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1))
"""(features, kernel, stride, padding) of conv1 to conv5."""

_POOLED = (1, 2, 5)


class AlexNet(nn.Module):
    """Five convolutions and three dense layers (Krizhevsky 2014, "One weird trick").

    torchvision's `alexnet`, without dropout.

    Layers: conv1, relu1, pool1, conv2, relu2, pool2, conv3, relu3, conv4, relu4, conv5, relu5,
    pool5, fc6, relu6, fc7, relu7, fc8. Takes normalised images (n, H, W, 3) of 63 pixels a side or
    more (trained at 224) and returns logits (n, classes).

    Attributes:
      classes: number of logits; 0 for the convolutions alone, without logits.
    """

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
        del train
        entry = 0
        for i, (features, kernel, stride, padding) in enumerate(_CONVOLUTIONS, 1):
            conv = Conv(features, kernel, stride, padding, name=f"features.{entry}")
            x = tap(f"conv{i}", conv(x))
            x = tap(f"relu{i}", relu(x))
            entry += 2
            if i in _POOLED:
                x = tap(f"pool{i}", pool(x, 3, 2))
                entry += 1
        if not self.classes:
            return x[:, 0, 0, :0]
        x = flatten(adaptive_avg_pool(x, 6))
        for i, entry in ((6, 1), (7, 4)):
            x = tap(f"fc{i}", nn.Dense(4096, name=f"classifier.{entry}")(x))
            x = tap(f"relu{i}", relu(x))
        return tap("fc8", nn.Dense(self.classes, name="classifier.6")(x))


ARCHITECTURES = {"alexnet": imagenet(AlexNet, "classifier.6")}
"""By torchvision's name."""
