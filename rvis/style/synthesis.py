"""Textures, and the style of one picture on the content of another, on the one step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import jax.numpy as jnp
import numpy as np

from rvis import checks, gate
from rvis.models.families.vgg import VGG
from rvis.style import colours, tiles
from rvis.style.climb import Goal, Options, StyleResult, climb, resized, scaled
from rvis.style.layers import Layers, contents, defaults, pooled, terms, textures
from rvis.types import Array, ArrayLike, Model, on_device


@gate.public
def transfer(
    model: Model,
    content: ArrayLike,
    style: ArrayLike | Sequence[ArrayLike],
    *,
    ratio: float | Sequence[float] | None = None,
    content_layers: Layers | None = None,
    style_layers: Layers | None = None,
    shares: Sequence[float] | None = None,
    start: str | ArrayLike = "content",
    colour: str = "style",
    pooling: str = "max",
    **options: Unpack[Options],
) -> StyleResult:
    """The content of one picture in the style of another.

    Maximises −ratio·content loss − style loss − tv·Σ(|dx| + |dy|). The style loss is
    Σ_l w_l·E_l with E_l as in `objectives.gram` (Gram matrices divided by the number of places,
    so that pictures may differ in size), the content loss Σ_l α_l·½Σ(F − P)² as in Gatys et al.
    2016, eq. 1. Where layers come without weights, w_l = 1/(L·E_l(0)) and α_l = 1/(L·½ΣP²): a
    picture without any activation costs 1 of each, in every network.

    Args:
      model: any model; VGG-19 with its weights is the published choice.
      content: (H, W, C) in [0, 1], of any size that the layers can take.
      style: another picture (h, w, C) of any size, or several.
      ratio: α/β, of content to style; several make as many pictures in one compiled program. By
        default .1 for a VGG of ours and .01 for other networks. The published 1e-3 and 1e-4 weigh
        losses that are not normalised: give the layers weights for them, such as
        `content_layers={"relu4_2": 1}` and .2 for each of five style layers.
      content_layers: a name, several, or {name: α_l}; by the network's family by default.
      style_layers: several names, or {name: w_l}; by the network's family by default.
      shares: how much each of several styles counts; equal ones by default. They are normalised.
      start: "content", "style" (resized), "noise" or a picture of the content's size.
      colour: "style" takes the style's colours over; "histogram" gives the style the mean colour
        and covariance of the content beforehand; "luminance" transfers luminance alone.
      pooling: "max" as the network has it, or "average" in its place.
      **options: see `Options`.

    Returns:
      A StyleResult whose `images` are (H, W, C), or (m, H, W, C) for m ratios.

    Raises:
      ValueError, TypeError: naming the argument, before anything is compiled.
      FloatingPointError: if a score becomes NaN.

    Example:
      >>> import numpy as np, rvis
      >>> model = rvis.load("mnist_cnn")
      >>> rng = np.random.default_rng(0)
      >>> content, style = rng.uniform(size=(2, 28, 28, 1)).astype(np.float32)
      >>> rvis.style.transfer(model, content, style, ratio=[0.1, 1], steps=3).images.shape
      (2, 28, 28, 1)

    Reference: Gatys, Ecker & Bethge 2016, Image style transfer using convolutional neural networks.
    """
    picture = _one("content", content, model)
    styles = _several(style, model)
    parts = _shares(shares, len(styles))
    checks.choice("colour", colour, ("style", "histogram", "luminance"))
    if colour == "luminance" and picture.shape[-1] != 3:
        raise ValueError("colour: 'luminance' is for networks of three channels, given one of 1")
    if ratio is None:  # both pictures are to be seen
        ratio = 0.1 if isinstance(getattr(model.apply, "module", None), VGG) else 0.01
    ratios = np.array([checks.number("ratio", value, low=0) for value in np.atleast_1d(ratio)])
    if not len(ratios):
        raise ValueError("ratio: at least one was expected, given none")
    known = () if style_layers is not None else defaults("style_layers", model)[0]
    style_terms = terms("style_layers", style_layers, known, model)
    known = () if content_layers is not None else (defaults("content_layers", model)[1],)
    content_terms = terms("content_layers", content_layers, known, model)
    tile = options.get("tile")
    original = np.asarray(picture)
    if colour == "luminance":
        styles = [
            on_device(colours.like_luminance(colours.luminance(one), colours.luminance(original)))
            for one in map(np.asarray, styles)
        ]
        picture = on_device(colours.luminance(original))
    elif colour == "histogram":
        styles = [on_device(colours.with_colours_of(np.asarray(one), original)) for one in styles]
    begin = _start(start, picture, styles[0], grey=colour == "luminance")
    network = pooled(model, pooling)

    def goal_at(size: tuple[int, int]) -> Goal:
        factor = size[0] / picture.shape[0]
        sized = [resized(one, scaled(one.shape, factor)) for one in styles]
        part = tiles.cut(network, (*style_terms.names, *content_terms.names), size, tile)
        near = textures(network, sized, parts, style_terms, tile=tile, summed=part is not None)
        alike, targets = contents(network, resized(picture, size), content_terms, tile=tile)
        total = near + alike * on_device(ratios, jnp.float32)
        seen_by = network
        if part is not None:
            seen_by = tiles.judged(network, part, style_terms.names, targets)
        return Goal(seen_by, total, near, alike)

    def finish(images: np.ndarray) -> np.ndarray:
        if colour != "luminance":
            return images
        return np.stack([colours.with_luminance_of(original, one) for one in images])

    return climb(
        network,
        goal_at,
        picture.shape[:2],
        begin,
        options,
        titles=[f"ratio {value:g}" for value in ratios],
        single=np.ndim(ratio) == 0,
        finish=finish,
        config={
            "function": "style.transfer",
            "model": model.name,
            "content": original,
            "style": [np.asarray(one) for one in styles],
            "ratio": ratios,
            "content_layers": content_terms._asdict(),
            "style_layers": style_terms._asdict(),
            "shares": parts,
            "colour": colour,
            "pooling": pooling,
        },
    )


@gate.public
def texture(
    model: Model,
    image: ArrayLike,
    *,
    size: int | tuple[int, int] | None = None,
    layers: Layers | None = None,
    pooling: str | None = None,
    histogram: bool = True,
    samples: int = 1,
    **options: Unpack[Options],
) -> StyleResult:
    """Noise turned into the texture of a picture: the same Gram matrices, at other places.

    Args:
      model: any model.
      image: (H, W, C) in [0, 1].
      size: height and width of the result, or one number for both; the picture's by default.
      layers: several names, or {name: w_l}; by the network's family by default. See `transfer`.
      pooling: "average" in the place of maxima, as published, or "max"; by default the former
        where the network lets it be put in.
      histogram: whether to give the result the picture's histogram at the end.
      samples: how many, from different noise.
      **options: see `Options`.

    Returns:
      A StyleResult whose `images` are (h, w, C), or (samples, h, w, C) for more than one.

    Raises:
      ValueError, TypeError: naming the argument, before anything is compiled.
      FloatingPointError: if a score becomes NaN.

    Example:
      >>> import numpy as np, rvis
      >>> model = rvis.load("mnist_cnn")
      >>> stripes = np.tile(np.float32([0.2, 0.8]), (28, 14))[..., None]
      >>> result = rvis.style.texture(model, stripes, steps=10)
      >>> bool(result.scores[-1] > result.scores[0])
      True

    Reference: Gatys, Ecker & Bethge 2015, Texture synthesis using convolutional neural networks.
    """
    picture = _one("image", image, model)
    read = terms("layers", layers, defaults("layers", model)[0] if layers is None else (), model)
    height, width = picture.shape[:2] if size is None else checks.size("size", size)
    tile = options.get("tile")
    if pooling is None:
        pooling = "average" if hasattr(model.apply, "with_average_pooling") else "max"
    network = pooled(model, pooling)

    def goal_at(size: tuple[int, int]) -> Goal:
        sized = [resized(picture, scaled(picture.shape, size[0] / height))]
        part = tiles.cut(network, read.names, size, tile)
        near = textures(network, sized, [1.0], read, tile=tile, summed=part is not None)
        seen_by = network if part is None else tiles.judged(network, part, read.names)
        return Goal(seen_by, near, near, None)

    def finish(images: np.ndarray) -> np.ndarray:
        if not histogram:
            return images
        return np.stack([colours.match_histogram(one, np.asarray(picture)) for one in images])

    return climb(
        network,
        goal_at,
        (height, width),
        None,
        options,
        titles=[f"sample {i}" for i in range(samples)],
        single=samples == 1,
        finish=finish,
        config={
            "function": "style.texture",
            "model": model.name,
            "image": np.asarray(picture),
            "layers": read._asdict(),
            "pooling": pooling,
            "histogram": histogram,
        },
    )


def _one(argument: str, value: ArrayLike, model: Model) -> Array:
    images = checks.images(argument, value, channels=model.input_shape[2])
    if len(images) != 1:
        raise ValueError(f"{argument}: one image was expected, given {len(images)}")
    return on_device(np.asarray(images)[0])  # where nothing compiles


def _several(value: Any, model: Model) -> list[Array]:
    many = isinstance(value, (list, tuple)) or np.ndim(value) == 4
    pictures = list(value) if many else [value]
    if not pictures:
        raise ValueError("style: at least one image was expected, given none")
    return [_one("style", picture, model) for picture in pictures]


def _shares(value: Sequence[float] | None, count: int) -> list[float]:
    shares = np.ones(count) if value is None else np.asarray(list(value), np.float64)
    if shares.shape != (count,):
        raise ValueError(f"shares: one for each of {count} styles was expected, given {value!r}")
    for share in shares:
        checks.number("shares", share, low=0)
    if shares.sum() == 0:
        raise ValueError("shares: at least one above 0 was expected, given none")
    return (shares / shares.sum()).tolist()


def _start(start: str | ArrayLike, content: Array, style: Array, *, grey: bool) -> Array | None:
    """The picture to start from, or None for noise; `content` and `style` as they are used."""
    if isinstance(start, str):
        named = {"content": content, "noise": None, "style": style}
        chosen = named[checks.choice("start", start, named)]
        return chosen if start != "style" else resized(style, content.shape[:2])
    shape: Any = content.shape
    image = on_device(np.asarray(checks.images("start", start, shape=shape))[0])
    return on_device(colours.luminance(np.asarray(image))) if grey else image
