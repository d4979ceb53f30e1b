"""Attribution at a layer: class activation maps by gradients, and activation times gradient."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks
from rvis.analysis.questions import Score, ask
from rvis.attribution import stream
from rvis.attribution.result import Attribution
from rvis.objectives import Objective
from rvis.types import LOGITS, Array, ArrayLike, Model, layer_shapes


@dataclasses.dataclass(frozen=True)
class _AtLayer:
    """f(x), and a map of a layer's activation and gradient by the method of that name."""

    layer: str
    method: str

    def __call__(self, model: Model, problem: tuple[Objective, Array]) -> tuple[Array, Array]:
        objective, image = problem
        score, activation, gradient = Score(model, objective).at(self.layer, image)
        if self.method == "layer_gradient_x_activation":
            return score, activation * gradient
        plain = self.method == "grad_cam"
        weights = gradient.mean((0, 1)) if plain else _plus(activation, gradient)
        return score, jax.nn.relu(activation @ weights)


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
      An `Attribution` with maps (n, H, W), bilinearly enlarged from `raw` (n, h, w); of one image
      (H, W) and (h, w).

    Raises:
      TypeError, ValueError: naming the argument, before anything is compiled.
      FloatingPointError: naming the images whose map is not finite.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attribution
      >>> model = rvis.load("mnist_cnn")
      >>> grey = np.full((28, 28, 1), 0.5, np.float32)
      >>> attribution.grad_cam(model, grey, 3).raw.shape
      (7, 7)

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
      (14, 14)

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
      (7, 7, 64)

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
    layer = _layer(model, question.shape, layer, question.objective.layers)
    function = _AtLayer(layer, method)
    scores, raw = stream.each(function, question, chunk=chunk, progress=progress, label=method)
    small = raw if raw.ndim == 3 else raw.sum(-1)
    maps = np.asarray(enlarged(small, question.shape[:2]))
    return stream.answer(method, question, maps, scores, raw=raw, target=target, layer=layer)


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


def _layer(
    model: Model, shape: tuple[int, int, int], layer: str | None, before: Iterable[str]
) -> str:
    """`layer`, or the last with more than one place, if it lies before those of the target."""
    ends = (len(model.layers) if n == LOGITS else model.layers.index(n) for n in before)
    earlier, shapes = model.layers[: max(ends)], layer_shapes(model, shape)
    if layer is None:
        for name in reversed(earlier):
            places = shapes.get(name, ())
            if len(places) == 3 and places[0] * places[1] > 1:
                return name
        raise ValueError(f"layer: {model.name} has none with more than one place before the target")
    checks.choice("layer", layer, model.layers)
    if len(shapes.get(layer, ())) != 3:
        raise ValueError(
            f"layer: one with places (h, w, c) was expected, given {layer!r} of shape "
            f"{shapes.get(layer, ())}"
        )
    if layer not in earlier:
        raise ValueError(f"layer: one before the target's was expected, given {layer!r}")
    return layer
