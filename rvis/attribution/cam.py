"""Class activation maps: a layer's activations A, weighed by gradients G or by what they do."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, TypedDict, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks, engine, gate
from rvis.analysis.questions import Question, Score, ask
from rvis.attribution import stream
from rvis.attribution.result import Attribution
from rvis.objectives import Objective
from rvis.types import LOGITS, Array, ArrayLike, Model, layer_shapes

Layers = str | Sequence[str]


class Options(TypedDict, total=False):
    """How a class activation map is made; see `rvis.attribution.grad_cam`."""

    layer: Layers | None
    signed: bool
    chunk: int | None
    progress: bool


def _plus(a: Array, g: Array) -> Array:
    """Grad-CAM++'s channel weights, equations 9 and 19 with Y = exp(S).

    The factor exp(S) that all of them share is left out: it would overflow and changes no map's
    form.
    """
    square = jnp.square(g)
    bottom = 2 * square + a.sum((0, 1), keepdims=True) * square * g
    alpha = jnp.where(bottom == 0, 0, square / jnp.where(bottom == 0, 1, bottom))
    return (alpha * jax.nn.relu(g)).sum((0, 1))


def _xgrad(a: Array, g: Array) -> Array:
    total = a.sum((0, 1))
    return (a * g).sum((0, 1)) * jnp.where(total == 0, 0, 1 / jnp.where(total == 0, 1, total))


def _eigen(a: Array, g: Array) -> Array:
    """The first principal component of the places; where most is active it is positive."""
    del g
    flat = a.reshape(-1, a.shape[-1])
    away = flat - flat.mean(0, keepdims=True)
    across, sizes, _ = jnp.linalg.svd(away, full_matrices=False)
    first = across[:, 0] * sizes[0]
    sign = jnp.where((first * away.sum(1)).sum() < 0, -1, 1)
    return (sign * first).reshape(a.shape[:2])


_MAPS: dict[str, Callable[[Array, Array], Array]] = {
    "grad_cam": lambda a, g: a @ g.mean((0, 1)),
    "grad_cam_plus": lambda a, g: a @ _plus(a, g),
    "xgrad_cam": lambda a, g: a @ _xgrad(a, g),
    "hires_cam": lambda a, g: (a * g).sum(-1),
    "layer_cam": lambda a, g: (a * jax.nn.relu(g)).sum(-1),
    "eigen_cam": _eigen,
    "layer_gradient_x_activation": lambda a, g: a * g,
    "activation": lambda a, g: a,
}
"""What a map is, from activations and gradients (h, w, c)."""


@dataclasses.dataclass(frozen=True)
class AtLayers:
    """f(x), and the maps of some layers by the method of that name."""

    layers: tuple[str, ...]
    method: str

    def __call__(self, model: Model, problem: tuple[Objective, Array]) -> tuple[Array, list[Array]]:
        objective, image = problem
        score, a, g = Score(model, objective).at_layers(self.layers, image)
        return score, [_MAPS[self.method](a[name], g[name]) for name in self.layers]


@gate.public
def grad_cam(
    model: Model, images: ArrayLike, target: Any, **options: Unpack[Options]
) -> Attribution:
    """relu(Σ_k α_k A_k), α_k the mean over places of the score's gradient in channel k of a layer.

    On a network that ends in global average pooling and one dense layer it is the CAM of Zhou et
    al. 2016, rectified and divided by the number of places.

    Args:
      model: any model.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      target: f: a class number (its logit), one for each image, or an objective of
        `rvis.objectives` (one, or one for each image).
      layer: a name of `model.layers` with places (h, w, c), tokens among them, before the target's;
        by default the last that has more than one place and that the score depends on: of a
        transformer whose class has a token, the normalised tokens that the last attention reads.
        Of several, the maps are enlarged, divided by their maxima and averaged.
      signed: leaves out the final ReLU: negative numbers speak against the target.
      chunk: images on the device at once; bounds memory, never changes maps (to the bit on a CPU).
      progress: a bar on a terminal.

    Returns:
      An `Attribution` with maps (n, H, W), bilinearly enlarged from `raw` (n, h, w); of one image
      (H, W) and (h, w). Of several layers there is no `raw`.

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
    return _at_layers("grad_cam", model, images, target, **options)


@gate.public
def grad_cam_plus(
    model: Model, images: ArrayLike, target: Any, **options: Unpack[Options]
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
    return _at_layers("grad_cam_plus", model, images, target, **options)


@gate.public
def xgrad_cam(
    model: Model, images: ArrayLike, target: Any, **options: Unpack[Options]
) -> Attribution:
    """relu(Σ_k w_k A_k), w_k = Σ_ij A_kij·g_kij / Σ_ij A_kij: gradients weighed by activations.

    A channel that sums to zero has no weight. Args, returns and raises as `grad_cam`.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attribution
      >>> model = rvis.load("mnist_cnn")
      >>> grey = np.full((28, 28, 1), 0.5, np.float32)
      >>> attribution.xgrad_cam(model, grey, 3).maps.shape
      (28, 28)

    Reference: Fu et al. 2020, Axiom-based Grad-CAM, eq. 9.
    """
    return _at_layers("xgrad_cam", model, images, target, **options)


@gate.public
def hires_cam(
    model: Model, images: ArrayLike, target: Any, **options: Unpack[Options]
) -> Attribution:
    """relu(Σ_k A_k ⊙ g_k): each place with its own gradient.

    Args, returns and raises as `grad_cam`.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attribution
      >>> model = rvis.load("mnist_cnn")
      >>> grey = np.full((28, 28, 1), 0.5, np.float32)
      >>> attribution.hires_cam(model, grey, 3, layer=["pool1", "pool2"]).maps.shape
      (28, 28)

    Reference: Draelos & Carin 2020, HiResCAM, eq. 4.
    """
    return _at_layers("hires_cam", model, images, target, **options)


@gate.public
def layer_cam(
    model: Model, images: ArrayLike, target: Any, **options: Unpack[Options]
) -> Attribution:
    """relu(Σ_k relu(g_k) ⊙ A_k): fine maps, of early layers too.

    Args, returns and raises as `grad_cam`.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attribution
      >>> model = rvis.load("mnist_cnn")
      >>> grey = np.full((28, 28, 1), 0.5, np.float32)
      >>> attribution.layer_cam(model, grey, 3, layer="relu1").raw.shape
      (28, 28)

    Reference: Jiang et al. 2021, LayerCAM, equations 6 and 7.
    """
    return _at_layers("layer_cam", model, images, target, **options)


@gate.public
def eigen_cam(
    model: Model, images: ArrayLike, target: Any, **options: Unpack[Options]
) -> Attribution:
    """The first principal component of a layer's activations; it does not depend on the target.

    Its sign is such that it is positive where the channels' sum is high. Args, returns and raises
    as `grad_cam`; the target says no more than which layers lie before it.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attribution
      >>> model = rvis.load("mnist_cnn")
      >>> grey = np.full((28, 28, 1), 0.5, np.float32)
      >>> attribution.eigen_cam(model, grey, 3).maps.shape
      (28, 28)

    Reference: Muhammad & Yeasin 2020, Eigen-CAM, eq. 4; channels less their means, as
      pytorch-grad-cam has them.
    """
    return _at_layers("eigen_cam", model, images, target, **options)


@gate.public
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
      network see".
    """
    run: dict[str, Any] = {"chunk": chunk, "progress": progress}
    method = "layer_gradient_x_activation"
    return _at_layers(method, model, images, target, layer=layer, signed=True, **run)


def _at_layers(
    method: str,
    model: Model,
    images: ArrayLike,
    target: Any,
    *,
    layer: Layers | None = None,
    signed: bool = False,
    chunk: int | None = None,
    progress: bool = True,
) -> Attribution:
    question = ask(model, images, target, chunk=chunk)
    each = [layer] if layer is None or isinstance(layer, str) else layer
    names = [default_layer(question, name) for name in each]
    if not names:
        raise ValueError("layer: one name at least was expected, given none")
    function = AtLayers(tuple(names), method)
    scores, raw = stream.each(function, question, chunk=chunk, progress=progress, label=method)
    return merged(method, question, scores, raw, names, signed, target=target)


def merged(
    method: str,
    question: Question,
    scores: np.ndarray,
    raw: Sequence[np.ndarray],
    names: Sequence[str],
    signed: bool,
    **about: Any,
) -> Attribution:
    """The answer of one layer's maps, or of several merged."""
    if not signed:
        raw = [np.maximum(one, 0) for one in raw]
    wide = [
        np.asarray(enlarged(one if one.ndim == 3 else one.sum(-1), question.shape[:2]))
        for one in raw
    ]
    maps = wide[0]
    if len(wide) > 1:
        highest = [np.abs(one).max((1, 2), keepdims=True) for one in wide]
        maps = np.mean(
            [one / np.where(top > 0, top, 1) for one, top in zip(wide, highest, strict=True)], 0
        )
    about |= {"layer": names[0] if len(names) == 1 else list(names), "signed": signed}
    return stream.answer(
        method, question, maps, scores, raw=raw[0] if len(raw) == 1 else None, **about
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


def default_layer(question: Question, layer: str | None) -> str:
    """`layer`, or the last with more than one place, if it lies before those of the target."""
    model, before = question.model, question.objective.layers
    ends = (len(model.layers) if n == LOGITS else model.layers.index(n) for n in before)
    earlier, shapes = model.layers[: max(ends)], layer_shapes(model, question.shape)
    if layer is None:
        placed = [name for name in earlier if len(shapes.get(name, ())) == 3]
        placed = [name for name in placed if math.prod(shapes[name][:2]) > 1]
        if not placed:
            raise ValueError(
                f"layer: {model.name} has none with more than one place before the target"
            )
        if f"{placed[-1]}.class" not in model.layers:
            return placed[-1]
        # The class is read from its token: after the last attention the other tokens reach nothing.
        one = jax.tree.map(lambda leaf: leaf[:1], (question.objective, question.images))
        reach = engine.apply(_Reach(tuple(placed)), model, one, pixels=question.pixels)[0]
        return placed[np.flatnonzero(reach)[-1]] if reach.any() else placed[-1]
    checks.choice("layer", layer, model.layers)
    if len(shapes.get(layer, ())) != 3:
        raise ValueError(
            f"layer: one with places (h, w, c) was expected, given {layer!r} of shape "
            f"{shapes.get(layer, ())}"
        )
    if layer not in earlier:
        raise ValueError(f"layer: one before the target's was expected, given {layer!r}")
    return layer


@dataclasses.dataclass(frozen=True)
class _Reach:
    """Whether the score depends on each of some layers."""

    layers: tuple[str, ...]

    def __call__(self, model: Model, problem: tuple[Objective, Array]) -> Array:
        objective, image = problem
        _, _, gradients = Score(model, objective).at_layers(self.layers, image)
        return jnp.stack([(gradients[name] != 0).any() for name in self.layers])
