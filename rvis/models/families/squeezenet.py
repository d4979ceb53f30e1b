"""SqueezeNet 1.0 and 1.1, with Caffe's layer names and torchvision's weights."""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from rvis.kernels.layers import Conv
from rvis.kernels.pooling import Pool, max_pool
from rvis.models.families.parts import imagenet, prefixed
from rvis.types import Relu, Tap, identity

_FIRE = {2: (16, 64), 3: (16, 64), 4: (32, 128), 5: (32, 128), 6: (48, 192), 7: (48, 192)}
_FIRE |= {8: (64, 256), 9: (64, 256)}
"""Channels of each fire module: squeezed, and expanded by either kernel."""


class SqueezeNet(nn.Module):
    """A stem, eight fire modules and a 1×1 convolution as the classifier (Iandola 2016).

    Layers: conv1, relu1, pool1, fire2 to fire9 (each with .squeeze, .squeeze_relu, .expand1x1,
    .expand3x3), pools behind the modules that `pooled` names, conv10, relu10, avgpool. Takes
    normalised images (n, H, W, 3) of 21 pixels a side or more (trained at 224); returns logits
    (n, classes), which are not negative.

    Attributes:
      stem: (channels, kernel) of conv1; (64, 3) is version 1.1.
      pooled: fire modules that pooling follows.
      classes: number of logits.

    Example:
      >>> import jax
      >>> from rvis.models.families.squeezenet import SqueezeNet
      >>> images = jax.ShapeDtypeStruct((1, 224, 224, 3), "float32")
      >>> jax.eval_shape(SqueezeNet().init_with_output, jax.random.key(0), images)[0].shape
      (1, 1000)
    """

    stem: tuple[int, int] = (96, 7)
    pooled: tuple[int, ...] = (4, 8)
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
        x = tap("conv1", Conv(*self.stem, 2, name="features.0")(x))
        x = tap("relu1", relu(x))
        x = tap("pool1", pool(x, 3, 2, ceil=True))
        entry = 3
        for i, channels in _FIRE.items():
            fire = Fire(*channels, name=f"features.{entry}")
            x = tap(f"fire{i}", fire(x, tap=prefixed(tap, f"fire{i}"), relu=relu))
            entry += 1
            if i in self.pooled:
                x = tap(f"pool{i}", pool(x, 3, 2, ceil=True))
                entry += 1
        x = tap("conv10", Conv(self.classes, 1, name="classifier.1")(x))
        x = tap("relu10", relu(x))
        return tap("avgpool", x.mean((1, 2)))


class Fire(nn.Module):
    """A 1×1 convolution to few channels, then 1×1 and 3×3 side by side."""

    squeezed: int
    expanded: int

    @nn.compact
    def __call__(self, x: jax.Array, *, tap: Tap, relu: Relu) -> jax.Array:
        x = tap("squeeze", Conv(self.squeezed, 1, name="squeeze")(x))
        x = tap("squeeze_relu", relu(x))
        one = tap("expand1x1", Conv(self.expanded, 1, name="expand1x1")(x))
        three = tap("expand3x3", Conv(self.expanded, 3, padding=1, name="expand3x3")(x))
        return relu(jnp.concatenate((one, three), -1))


ARCHITECTURES = {
    "squeezenet1_0": imagenet(SqueezeNet, "classifier.1"),
    "squeezenet1_1": imagenet(partial(SqueezeNet, stem=(64, 3), pooled=(3, 5)), "classifier.1"),
}
"""By torchvision's names."""
