"""What texture, style and content are read from, as objectives."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks, gate, objectives, struct
from rvis.models import taps
from rvis.objectives import Objective
from rvis.style import tiles
from rvis.types import Array, ArrayLike, Model, layer_shapes, on_device

Layers = str | Sequence[str] | Mapping[str, float]


class _Known(NamedTuple):
    style: tuple[str, ...]
    content: str


_KNOWN = (
    _Known(("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"), "relu4_2"),
    _Known(("conv2d0", "conv2d2", "mixed3a", "mixed4a", "mixed4d"), "mixed3b"),
    _Known(("conv1", "conv3", "inception3a", "inception4a", "inception4d"), "inception3b"),
    _Known(("relu", "layer1", "layer2", "layer3", "layer4", "layer5"), "layer3"),
    _Known(("relu", "layer1", "layer2", "layer3", "layer4"), "layer2"),
    _Known(("relu1", "relu2", "relu3", "relu4", "relu5"), "relu3"),
    _Known(("relu1", "relu2"), "relu2"),
)
"""By the names that the layers have: VGG as in Gatys et al. 2016, the others at like depths."""


def defaults(argument: str, model: Model) -> tuple[tuple[str, ...], str]:
    """The layers that style is read from and the one that content is.

    Raises:
      ValueError: naming the argument, for a network whose layers have none of the known names.
    """
    for known in _KNOWN:
        if {*known.style, known.content} <= set(model.layers):
            return known
    raise ValueError(
        f"{argument}: names of layers were expected, since none are known for {model.name}; it "
        f"has {', '.join(model.layers[:30])} …"
    )


class Terms(NamedTuple):
    """Layers with the weights that were given, or None for those of the house."""

    names: tuple[str, ...]
    weights: tuple[float, ...] | None


def terms(argument: str, layers: Layers | None, default: Sequence[str], model: Model) -> Terms:
    """Checked names of layers with places, and their weights.

    Raises:
      ValueError: naming the argument: none, a misspelt one (with the nearest) or one without
        places; a weight below 0.
    """
    chosen: Any = default if layers is None else layers
    if isinstance(chosen, str):
        chosen = (chosen,)
    names = tuple(chosen)
    if not names:
        raise ValueError(f"{argument}: at least one layer was expected, given none")
    shapes = layer_shapes(model)
    for name in names:
        checks.choice(argument, name, model.layers)
        if len(shapes.get(name, ())) != 3:
            raise ValueError(f"{argument}: layers with places were expected, given {name!r}")
    if not isinstance(chosen, Mapping):
        return Terms(names, None)
    weights = tuple(checks.number(argument, weight, low=0) for weight in chosen.values())
    return Terms(names, weights)


def textures(
    model: Model,
    images: Sequence[Array],
    shares: Sequence[float],
    layers: Terms,
    *,
    tile: int | None = None,
    summed: bool = False,
) -> Any:
    """The objective of having the Gram matrices of some images, mixed by `shares`.

    To be near a mix of targets is to be near each by its share, up to a constant.

    Args:
      tile: the images that are larger are seen in windows of at most so many pixels a side.
      summed: whether the objective is for a network of `tiles.judged`.
    """
    grams: dict[str, Array] = {}
    for image, share in zip(images, shares, strict=True):
        _reached("style", model, image, layers.names)
        part = tiles.cut(model, layers.names, (image.shape[0], image.shape[1]), tile)
        for name, matrix in _grams(model.unnamed(), image, layers.names, part).items():
            matrix = on_device(share, jnp.float32) * matrix
            grams[name] = grams[name] + matrix if name in grams else matrix
    parts: list[Objective] = []
    sizes = [float(np.square(np.asarray(grams[n], np.float64)).mean()) for n in layers.names]
    for i, name in enumerate(layers.names):
        target = on_device(grams[name])
        if layers.weights is None:
            # A picture whose Gram matrices are all 0 costs 1 in all, and every layer as much. A
            # layer that the style leaves off counts as the one that it excites most.
            weight = 4 / (sizes[i] or max(sizes) or 1.0) / len(layers.names)
        else:
            weight = layers.weights[i]
        goal: Objective = objectives.gram(name, target)
        if summed:
            goal = objectives.function(_unlike, tiles.gram_of(name), target)
        parts.append(goal * weight)
    return sum(parts[1:], parts[0])


def _unlike(seen: Mapping[str, Array], target: Array) -> Array:
    """`objectives.gram`, of Gram matrices (n, C, C)."""
    (matrix,) = seen.values()
    apart = matrix - target.astype(matrix.dtype)
    return -jnp.square(apart).sum((1, 2)).mean() / (4 * target.shape[-1] ** 2)


def contents(
    model: Model, image: Array, layers: Terms, *, tile: int | None = None
) -> tuple[Any, dict[str, Array] | None]:
    """The objective of having the activations of an image: −Σ α_l·½Σ(F − P)².

    By default α_l = 2/‖P‖² over the number of layers, so that no activation at all costs 1.

    Args:
      tile: an image that is larger is seen in windows of at most so many pixels a side; the
        objective then is for a network of `tiles.judged`.

    Returns:
      The objective, and {layer: (h, w, C)}, P, where it is for such a network.
    """
    _reached("content", model, image, layers.names)
    part = tiles.cut(model, layers.names, (image.shape[0], image.shape[1]), tile)
    if part is None:
        features = {name: seen[0] for name, seen in taps.record(model, image, layers.names).items()}
    else:
        features = tiles.features(model.unnamed(), part, image)
    parts: list[Objective] = []
    for i, name in enumerate(layers.names):
        target = features[name]
        size = float(np.square(np.asarray(target)).sum(dtype=np.float64)) or 1.0
        weight = 1 / len(layers.names)
        if layers.weights is not None:
            weight = layers.weights[i] * size / 2  # as `match` has it
        goal: Objective = objectives.match(name, target)
        if part is not None:
            goal = objectives.function(_apart, tiles.distance_in(name), 1 / size)
        parts.append(goal * weight)
    return sum(parts[1:], parts[0]), None if part is None else features


def _apart(seen: Mapping[str, Array], scale: Array) -> Array:
    """`objectives.match`, of squared distances (n,) and 1/‖P‖²."""
    (distance,) = seen.values()
    return -scale.astype(distance.dtype) * distance.mean()


def _reached(argument: str, model: Model, image: Array, names: Sequence[str]) -> None:
    height, width, channels = image.shape
    shapes = layer_shapes(model, (height, width, channels))
    for name in names:
        if not all(shapes.get(name, (0,))):
            raise ValueError(
                f"{argument}: a picture large enough for {name!r} was expected (after `scales`), "
                f"given {height}×{width}"
            )


@functools.partial(jax.jit, static_argnames=("layers", "part"))
def _grams(
    model: Model, image: Array, layers: tuple[str, ...], part: tiles.Cut | None
) -> dict[str, Array]:
    if part is None:
        features = taps.activations(model, image[None], layers)
        return {name: objectives.gram_matrix(features[name][0]) for name in layers}
    sums = tiles.judged(model, part, layers)
    features = taps.activations(sums, image[None], sums.layers)
    return {name: features[tiles.gram_of(name)][0] for name in layers}


@gate.public
def statistics(model: Model, images: ArrayLike, layers: Layers | None = None) -> Any:
    """The texture statistics of a batch as an objective that keeps pictures near the data.

    −Σ_l w_l·E_l against the mean Gram matrices of the images. Add it to any other objective:
    `visualize(model, logit(3) + 10 * style.statistics(model, batch))`.

    Args:
      model: any model.
      images: a reference batch (n, H, W, C) in [0, 1].
      layers: as in `texture`.

    Raises:
      ValueError, TypeError: naming the argument.

    Example:
      >>> import jax.numpy as jnp, rvis
      >>> model = rvis.load("mnist_cnn")
      >>> near = rvis.style.statistics(model, jnp.full((2, 28, 28, 1), 0.3))
      >>> goal = rvis.objectives.logit(3) + 10 * near
      >>> rvis.visualize(model, goal, steps=2).images.shape
      (28, 28, 1)
    """
    batch = checks.images("images", images, channels=model.input_shape[2])
    read = terms("layers", layers, defaults("layers", model)[0] if layers is None else (), model)
    return textures(model, list(batch), [1 / len(batch)] * len(batch), read)


def pooled(model: Model, pooling: str) -> Model:
    """The model with maxima or averages where it pools; its weights are shared.

    Raises:
      ValueError: naming `pooling`, for another word or a network that pools by itself.
    """
    if checks.choice("pooling", pooling, ("max", "average")) == "max":
        return model
    change = getattr(model.apply, "with_average_pooling", None)
    if change is None:
        raise ValueError(f"pooling: {model.name} pools by itself; 'max' was expected")
    return struct.replace(model, apply=change())
