"""The small convolutional network of Madry et al. for 28-pixel digits."""

from __future__ import annotations

import flax.linen as nn
import jax

from rvis.data.preparation import Preparation
from rvis.kernels.layers import Conv, flatten
from rvis.kernels.pooling import Pool, max_pool
from rvis.models.families.parts import Architecture
from rvis.types import Relu, Tap, identity


class MnistCNN(nn.Module):
    """Two 5×5 convolutions with 2×2 max-pooling, then two dense layers (MadryLab/mnist_challenge).

    Layers: conv1, relu1, pool1, conv2, relu2, pool2, fc1, relu3, fc2.
    """

    widths: tuple[int, int] = (32, 64)
    dense: int = 256
    classes: int = 10

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
        for i, width in enumerate(self.widths, 1):
            x = tap(f"conv{i}", Conv(width, 5, padding=2, name=f"conv{i}")(x))
            x = tap(f"relu{i}", relu(x))
            x = tap(f"pool{i}", pool(x, 2, 2))
        x = tap("fc1", nn.Dense(self.dense, name="fc1")(flatten(x)))
        x = tap("relu3", relu(x))
        return tap("fc2", nn.Dense(self.classes, name="fc2")(x))


ARCHITECTURES = {
    "mnist_cnn": Architecture(MnistCNN, "fc2", (28, 28, 1), (0.0,), (1.0,), Preparation(crop=1.0))
}
