"""Which layers texture and style are read from, where nobody says."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks, objectives, taps
from rvis.objectives import Objective
from rvis.style import tiles
from rvis.types import Array, Model, layer_shapes

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


def terms(argument: str, given: Layers | None, default: Sequence[str], model: Model) -> Terms:
    """Checked names of layers with places, and their weights.

    Raises:
      ValueError: naming the argument: none, a misspelt one (with the nearest) or one without
        places; a weight below 0.
    """
    chosen: Any = default if given is None else given
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
    wanted: Terms,
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
    grams: dict[str, Any] = dict.fromkeys(wanted.names, 0.0)
    for image, share in zip(images, shares, strict=True):
        _reached("style", model, image, wanted.names)
        part = tiles.cut(model, wanted.names, (image.shape[0], image.shape[1]), tile)
        for name, found in _grams(model.unnamed(), image, wanted.names, part).items():
            grams[name] = grams[name] + share * found
    parts: list[Objective] = []
    sizes = [float(np.square(np.asarray(grams[n], np.float64)).mean()) for n in wanted.names]
    for i, name in enumerate(wanted.names):
        target = jnp.asarray(grams[name])
        if wanted.weights is None:
            # A picture whose Gram matrices are all 0 costs 1 in all, and every layer as much. A
            # layer that the style leaves off counts as the one that it excites most.
            weight = 4 / (sizes[i] or max(sizes) or 1.0) / len(wanted.names)
        else:
            weight = wanted.weights[i]
        goal: Objective = objectives.gram(name, target)
        if summed:
            goal = objectives.function(_unlike, tiles.gram_of(name), target)
        parts.append(goal * weight)
    return sum(parts[1:], parts[0])


def _unlike(seen: Mapping[str, Array], target: Array) -> Array:
    """`objectives.gram`, of Gram matrices (n, C, C)."""
    (found,) = seen.values()
    apart = found - target.astype(found.dtype)
    return -jnp.square(apart).sum((1, 2)).mean() / (4 * target.shape[-1] ** 2)


def contents(
    model: Model, image: Array, wanted: Terms, *, tile: int | None = None
) -> tuple[Any, dict[str, Array] | None]:
    """The objective of having the activations of an image: −Σ α_l·½Σ(F − P)².

    By default α_l = 2/‖P‖² over the number of layers, so that no activation at all costs 1.

    Args:
      tile: an image that is larger is seen in windows of at most so many pixels a side; the
        objective then is for a network of `tiles.judged`.

    Returns:
      The objective, and {layer: (h, w, C)}, P, where it is for such a network.
    """
    _reached("content", model, image, wanted.names)
    part = tiles.cut(model, wanted.names, (image.shape[0], image.shape[1]), tile)
    if part is None:
        found = {name: seen[0] for name, seen in taps.record(model, image, wanted.names).items()}
    else:
        found = tiles.features(model.unnamed(), part, image)
    parts: list[Objective] = []
    for i, name in enumerate(wanted.names):
        target = found[name]
        size = float(np.square(np.asarray(target)).sum(dtype=np.float64)) or 1.0
        weight = 1 / len(wanted.names)
        if wanted.weights is not None:
            weight = wanted.weights[i] * size / 2  # as `match` has it
        goal: Objective = objectives.match(name, target)
        if part is not None:
            goal = objectives.function(_apart, tiles.distance_in(name), 1 / size)
        parts.append(goal * weight)
    return sum(parts[1:], parts[0]), None if part is None else found


def _apart(seen: Mapping[str, Array], scale: Array) -> Array:
    """`objectives.match`, of squared distances (n,) and 1/‖P‖²."""
    (found,) = seen.values()
    return -scale.astype(found.dtype) * found.mean()


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
        found = taps.activations(model, image[None], layers)
        return {name: objectives.gram_matrix(found[name][0]) for name in layers}
    sums = tiles.judged(model, part, layers)
    found = taps.activations(sums, image[None], sums.layers)
    return {name: found[tiles.gram_of(name)][0] for name in layers}
