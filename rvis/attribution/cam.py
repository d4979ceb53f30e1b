"""Attribution at a layer: class activation maps by gradients, and activation times gradient."""

from __future__ import annotations

import math
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from rvis.attribution.result import Attribution
from rvis.attribution.stream import (
    Score,
    Shape,
    ask,
    check_layer,
    scored,
    spatial_layer,
    stream,
    unscored,
)
from rvis.results import describe
from rvis.types import Array, ArrayLike, Model, PyTree, layer_shapes


@flax.struct.dataclass
class AtLayer:
    """What a layer's activation and gradient say, one sample an image, and the score (`scored`).

    Attributes:
      layer: its name.
      size: (h, w, c) of its activation.
      rule: which map is made of the two; a name of this module's functions.
    """

    layer: str = flax.struct.field(pytree_node=False)
    size: tuple[int, int, int] = flax.struct.field(pytree_node=False)
    rule: str = flax.struct.field(pytree_node=False)
    kind: str = flax.struct.field(pytree_node=False, default="AtLayer")

    @property
    def map_shape(self) -> Shape:
        """(h, w, c) or (h, w)."""
        return self.size if self.rule == "layer_gradient_x_activation" else self.size[:2]

    def shapes(self, shape: Shape) -> tuple[Shape, Shape]:
        return (math.prod(self.map_shape) + 1,), ()

    def __call__(
        self, key: Array, number: Array, image: Array, own: PyTree, score: Score
    ) -> tuple[Array, Array]:
        reached, activation, gradient = score.at(self.layer, image)
        if self.rule == "layer_gradient_x_activation":
            return scored(reached, activation * gradient), jnp.float32(1)
        weights = gradient.mean((0, 1)) if self.rule == "grad_cam" else _plus(activation, gradient)
        return scored(reached, jax.nn.relu(activation @ weights)), jnp.float32(1)


def _plus(activation: Array, gradient: Array) -> Array:
    """Grad-CAM++'s channel weights, equations 9 and 19 with Y = exp(S).

    The factor exp(S) that all of them share is left out: it would overflow and changes no map's
    form.
    """
    square = jnp.square(gradient)
    bottom = 2 * square + activation.sum((0, 1)) * square * gradient
    alpha = jnp.where(bottom == 0, 0, square / jnp.where(bottom == 0, 1, bottom))
    return (alpha * jax.nn.relu(gradient)).sum((0, 1))


def grad_cam(
    model: Model,
    images: ArrayLike,
    target: Any,
    *,
    layer: str | None = None,
    chunk: int | None = None,
    progress: bool = True,
) -> Attribution:
    """relu(Σ_k α_k A_k), α_k the mean over places of the score's gradient in channel k of a layer.

    On a network that ends in global average pooling and one dense layer it is the CAM of Zhou et
    al. 2016, rectified and divided by the number of places.

    Args:
      model: any model.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      target: f: a class number (its logit), one for each image, or an objective of
        `rvis.objectives` (one, or one for each image).
      layer: a name of `model.layers` with places (h, w, c), before the target's; by default the
        last that has more than one place.
      chunk: images on the device at once; bounds memory, never changes maps (to the bit on a CPU).
      progress: a bar on a terminal.

    Returns:
      An `Attribution` with maps (n, H, W), bilinearly enlarged from `raw` (n, h, w).

    Raises:
      TypeError, ValueError: naming the argument, before anything is compiled.
      FloatingPointError: naming the images whose map is not finite.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attribution
      >>> model = rvis.load("mnist_cnn")
      >>> grey = np.full((28, 28, 1), 0.5, np.float32)
      >>> attribution.grad_cam(model, grey, 3).raw.shape
      (1, 7, 7)

    Reference: Selvaraju et al. 2016, Grad-CAM, equations 1 and 2.
    """
    return _at_layer("grad_cam", model, images, target, layer, chunk, progress)


def grad_cam_plus(
    model: Model,
    images: ArrayLike,
    target: Any,
    *,
    layer: str | None = None,
    chunk: int | None = None,
    progress: bool = True,
) -> Attribution:
    """Grad-CAM++: relu(Σ_k w_k A_k), w_k = Σ_ij α_kij·relu(g_kij), g the score's gradient.

    α_kij = g² / (2g² + Σ_ab A_kab·g³), the closed form for the exponential of the score; where the
    denominator is zero, α is. The factor exp(score), common to all w_k of an image, is left out.
    Args, returns and raises as `grad_cam`.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attribution
      >>> model = rvis.load("mnist_cnn")
      >>> grey = np.full((28, 28, 1), 0.5, np.float32)
      >>> attribution.grad_cam_plus(model, grey, 3, layer="relu2").raw.shape
      (1, 14, 14)

    Reference: Chattopadhay et al. 2018, Grad-CAM++, equations 9 and 19.
    """
    return _at_layer("grad_cam_plus", model, images, target, layer, chunk, progress)


def layer_gradient_x_activation(
    model: Model,
    images: ArrayLike,
    target: Any,
    *,
    layer: str | None = None,
    chunk: int | None = None,
    progress: bool = True,
) -> Attribution:
    """A ⊙ ∂f/∂A: a layer's activations times the score's gradient there.

    `raw` holds every product, (n, h, w, c); `maps` their sums over channels, bilinearly enlarged to
    the image (which is HiResCAM without its ReLU). Args and raises as `grad_cam`.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attribution
      >>> model = rvis.load("mnist_cnn")
      >>> grey = np.full((28, 28, 1), 0.5, np.float32)
      >>> attribution.layer_gradient_x_activation(model, grey, 3).raw.shape
      (1, 7, 7, 64)

    Reference: Olah et al. 2018, The Building Blocks of Interpretability (distill), "What does the
      network see"; Draelos & Carin 2020, HiResCAM, eq. 4.
    """
    return _at_layer("layer_gradient_x_activation", model, images, target, layer, chunk, progress)


def _at_layer(
    method: str,
    model: Model,
    images: ArrayLike,
    target: Any,
    layer: str | None,
    chunk: int | None,
    progress: bool,
) -> Attribution:
    question = ask(model, images, target, chunk=chunk)
    before = question.objective.layers
    if layer is None:
        layer = spatial_layer(model, question.shape, before)
    layer = check_layer(model, question.shape, layer, before)
    sampler = AtLayer(layer, layer_shapes(model, question.shape)[layer], method)
    moments = stream(
        sampler,
        model,
        question.objective,
        question.images,
        samples=1,
        key=jax.random.key(0),
        chunk=chunk,
        progress=progress,
        label=f"{model.name} {method}",
    )
    reached, raw = unscored(moments.mean, sampler.map_shape)
    small = raw if raw.ndim == 3 else raw.sum(-1)
    return Attribution(
        maps=np.asarray(enlarged(small, question.shape[:2])),
        images=question.images,
        scores=reached,
        labels=question.labels,
        method=method,
        raw=raw,
        config=describe(function=method, model=model.name, target=target, layer=layer),
    )


def enlarged(maps: ArrayLike, size: tuple[int, int]) -> Array:
    """(n, h, w) bilinearly at another size (n, H, W), pixel centres kept.

    Example:
      >>> import numpy as np
      >>> from rvis.attribution.cam import enlarged
      >>> enlarged(np.array([[[0.0, 1.0]]]), (1, 4))[0, 0].tolist()
      [0.0, 0.25, 0.75, 1.0]
    """
    maps = jnp.asarray(maps, jnp.float32)
    return jax.image.resize(maps, (maps.shape[0], *size), "bilinear", antialias=False)
