"""Textures, and the style of one picture on the content of another, on the one step."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from rvis import checkpoints, checks, core, objectives, projections, regularizers, taps
from rvis.images import Pixel
from rvis.objectives import Objective
from rvis.optimizers import Optimizer
from rvis.results import Result, describe
from rvis.style import colours, tiles
from rvis.style.layers import Layers, contents, defaults, terms, textures
from rvis.types import Array, ArrayLike, KeyLike, Model, as_key, fold_each

MEMORY = 20
"""Pairs that L-BFGS remembers, as Gatys et al. 2015 have it."""


@dataclasses.dataclass(frozen=True, eq=False)
class StyleResult(Result):
    """Pictures with a style, and how near they came.

    `scores` is the total (objective less penalties) of the last accepted picture after each
    evaluation under L-BFGS, which never falls, and that before each step under another optimizer;
    with several scales one after another.

    Attributes:
      style_loss: (m,) of `images`, after any histogram matching (of their luminance, where that
        alone was transferred); 0 where every Gram matrix is matched.
      content_loss: (m,) likewise, without the ratio; NaN where there is no content.
    """

    style_loss: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    content_loss: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))


@flax.struct.dataclass
class _Accepted(core.BoxLBFGS):
    """L-BFGS that shows the last point it accepted, and not the next that it tries."""

    kind: str = flax.struct.field(pytree_node=False, default="accepted")

    def images(self, state: core.BoxState) -> Array:
        return state.point


def transfer(
    model: Model,
    content: ArrayLike,
    style: ArrayLike | Sequence[ArrayLike],
    *,
    ratio: float | Sequence[float] = 1e-2,
    content_layers: Layers | None = None,
    style_layers: Layers | None = None,
    shares: Sequence[float] | None = None,
    tv: float = 0.0,
    start: str | ArrayLike = "content",
    colour: str = "style",
    pooling: str = "max",
    scales: Sequence[float] = (1.0,),
    tile: int | None = None,
    optimizer: Optimizer | None = None,
    steps: int = 500,
    key: KeyLike = 0,
    snapshots: Sequence[int] = (),
    checkpoint: str | Path | None = None,
    progress: bool = True,
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
      ratio: α/β, of content to style; several make as many pictures in one compiled program.
      content_layers: a name, several, or {name: α_l}; by the network's family by default.
      style_layers: several names, or {name: w_l}; by the network's family by default.
      shares: how much each of several styles counts; equal ones by default. They are normalised.
      tv: weight of the total variation.
      start: "content", "style" (resized), "noise" or a picture of the content's size.
      colour: "style" takes the style's colours over; "histogram" gives the style the mean colour
        and covariance of the content beforehand; "luminance" transfers luminance alone.
      pooling: "max" as the network has it, or "average" in its place.
      scales: sizes as shares of the content's, rising and ending with 1; each starts from the
        one before, enlarged.
      tile: larger pictures are seen in windows of at most so many pixels a side, so that memory
        does not grow with the network's activations, but for those of the content layers. They
        overlap by the layers' receptive fields, and loss and gradient are those of the whole but
        for rounding, for networks that do the same at every place (not with coordinates or sizes
        for inputs). On VGG-16 at 1024×768 an evaluation takes 2.6 times as long in windows of 512,
        3.1 times in windows of 384. None for the whole at once.
      optimizer: L-BFGS in the box by default; or one of `rvis.optimizers`, such as adam(0.02).
      steps: evaluations of the network and its gradient at each scale.
      key: an int seed or a typed key, for noise.
      snapshots: evaluations of the last scale after which to keep the pictures.
      checkpoint: a folder for the state of an interrupted run; the same call then goes on.
      progress: a bar on a terminal.

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
    given = _shares(shares, len(styles))
    checks.choice("colour", colour, ("style", "histogram", "luminance"))
    if colour == "luminance" and picture.shape[-1] != 3:
        raise ValueError("colour: 'luminance' is for networks of three channels, given one of 1")
    ratios = np.array([checks.number("ratio", value, low=0) for value in np.atleast_1d(ratio)])
    if not len(ratios):
        raise ValueError("ratio: at least one was expected, given none")
    known = () if style_layers is not None else defaults("style_layers", model)[0]
    style_terms = terms("style_layers", style_layers, known, model)
    known = () if content_layers is not None else (defaults("content_layers", model)[1],)
    content_terms = terms("content_layers", content_layers, known, model)
    sizes = _sizes(scales, picture.shape[:2])
    original = np.asarray(picture)
    if colour == "luminance":
        styles = [
            jnp.asarray(colours.like_luminance(colours.luminance(one), colours.luminance(original)))
            for one in map(np.asarray, styles)
        ]
        picture = jnp.asarray(colours.luminance(original))
    elif colour == "histogram":
        styles = [jnp.asarray(colours.with_colours_of(np.asarray(one), original)) for one in styles]
    begin = _start(start, picture, styles[0], grey=colour == "luminance")
    network = pooled(model, pooling)
    _tile(tile)

    def asked(size: tuple[int, int]) -> _Asked:
        factor = size[0] / picture.shape[0]
        own = [_resized(one, _scaled(one.shape, factor)) for one in styles]
        part = tiles.cut(network, (*style_terms.names, *content_terms.names), size, tile)
        likeness = textures(network, own, given, style_terms, tile=tile, summed=part is not None)
        likeness_to, targets = contents(network, _resized(picture, size), content_terms, tile=tile)
        total = likeness + likeness_to * jnp.asarray(ratios, jnp.float32)
        judge = network
        if part is not None:
            judge = tiles.judged(network, part, style_terms.names, targets)
        return _Asked(judge, total, likeness, likeness_to)

    def finish(images: np.ndarray) -> np.ndarray:
        if colour != "luminance":
            return images
        return np.stack([colours.with_luminance_of(original, one) for one in images])

    result = _climb(
        network,
        asked,
        sizes,
        begin,
        count=len(ratios),
        titles=np.array([f"ratio {value:g}" for value in ratios], object),
        tv=tv,
        optimizer=optimizer,
        steps=steps,
        key=as_key(key),
        snapshots=snapshots,
        checkpoint=checkpoint,
        progress=progress,
        finish=finish,
        config={
            "function": "style.transfer",
            "model": model.name,
            "content": original,
            "style": [np.asarray(one) for one in styles],
            "ratio": ratios,
            "content_layers": content_terms._asdict(),
            "style_layers": style_terms._asdict(),
            "shares": given,
            "colour": colour,
            "pooling": pooling,
            "tile": tile,
        },
    )
    return result if np.ndim(ratio) else _single(result)


def texture(
    model: Model,
    image: ArrayLike,
    *,
    size: int | tuple[int, int] | None = None,
    layers: Layers | None = None,
    samples: int = 1,
    tv: float = 0.0,
    pooling: str | None = None,
    scales: Sequence[float] = (1.0,),
    tile: int | None = None,
    histogram: bool = True,
    optimizer: Optimizer | None = None,
    steps: int = 500,
    key: KeyLike = 0,
    snapshots: Sequence[int] = (),
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> StyleResult:
    """Noise turned into the texture of a picture: the same Gram matrices, at other places.

    Args:
      model: any model.
      image: (H, W, C) in [0, 1].
      size: height and width of the result, or one number for both; the picture's by default.
      layers: several names, or {name: w_l}; by the network's family by default. See `transfer`.
      samples: how many, from different noise.
      tv: weight of the total variation.
      pooling: "average" in the place of maxima, as published, or "max"; by default the former
        where the network lets it be put in.
      scales, tile: as in `transfer`.
      histogram: whether to give the result the picture's histogram at the end.
      optimizer, steps, key, snapshots, checkpoint, progress: as in `transfer`.

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
    checks.count("samples", samples)
    wanted = terms("layers", layers, defaults("layers", model)[0] if layers is None else (), model)
    height, width = picture.shape[:2] if size is None else checks.size("size", size)
    sizes = _sizes(scales, (height, width))
    if pooling is None:
        pooling = "average" if hasattr(model.apply, "with_average_pooling") else "max"
    network = pooled(model, pooling)
    _tile(tile)

    def asked(size: tuple[int, int]) -> _Asked:
        own = [_resized(picture, _scaled(picture.shape, size[0] / height))]
        part = tiles.cut(network, wanted.names, size, tile)
        likeness = textures(network, own, [1.0], wanted, tile=tile, summed=part is not None)
        judge = network if part is None else tiles.judged(network, part, wanted.names)
        return _Asked(judge, likeness, likeness, None)

    def finish(images: np.ndarray) -> np.ndarray:
        if not histogram:
            return images
        return np.stack([colours.match_histogram(one, np.asarray(picture)) for one in images])

    result = _climb(
        network,
        asked,
        sizes,
        None,
        count=samples,
        titles=np.array([f"sample {i}" for i in range(samples)], object),
        tv=tv,
        optimizer=optimizer,
        steps=steps,
        key=as_key(key),
        snapshots=snapshots,
        checkpoint=checkpoint,
        progress=progress,
        finish=finish,
        config={
            "function": "style.texture",
            "model": model.name,
            "image": np.asarray(picture),
            "layers": wanted._asdict(),
            "pooling": pooling,
            "tile": tile,
            "histogram": histogram,
        },
    )
    return result if samples > 1 else _single(result)


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
    wanted = terms("layers", layers, defaults("layers", model)[0] if layers is None else (), model)
    return textures(model, list(batch), [1 / len(batch)] * len(batch), wanted)


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
    return model.replace(apply=change())  # type: ignore[attr-defined]


class _Asked(NamedTuple):
    """What is asked at one size: of which network, in all, and the two parts by themselves."""

    model: Model
    total: Objective
    style: Objective
    content: Objective | None


def _tile(given: int | None) -> None:
    if given is not None:
        checks.count("tile", given)


def _climb(
    model: Model,
    asked: Callable[[tuple[int, int]], _Asked],
    sizes: Sequence[tuple[int, int]],
    begin: Array | None,
    *,
    count: int,
    titles: np.ndarray,
    tv: float,
    optimizer: Optimizer | None,
    steps: int,
    key: Array,
    snapshots: Sequence[int],
    checkpoint: str | Path | None,
    progress: bool,
    finish: Any,
    config: dict[str, Any],
) -> StyleResult:
    """From coarse to fine; `count` pictures side by side."""
    checks.count("steps", steps)
    for step in snapshots:
        checks.integers("snapshots", step, high=steps + 1, what="the steps")
    if optimizer is not None and not isinstance(optimizer, Optimizer):
        raise TypeError(
            f"optimizer: None for L-BFGS, or one of rvis.optimizers, was expected, given "
            f"{optimizer!r}"
        )
    penalties = (regularizers.total_variation(tv),) if checks.number("tv", tv, low=0) else ()
    channels = model.input_shape[2]
    wanted = [asked(size) for size in sizes]
    for size, one in zip(sizes, wanted, strict=True):
        objectives.check(one.total, one.model, (*size, channels))
    keys = fold_each(key, np.arange(count))
    position: Array | None = None
    scores = []
    folder = None if checkpoint is None else Path(checkpoint)
    about = ""
    if folder is not None:
        parts = (config, sizes, begin, penalties, optimizer, steps, tuple(snapshots), key)
        about = checkpoints.fingerprint(parts, model.params, checkpoints.stable(model.apply))
    for number, size in enumerate(sizes):
        image = Pixel((*size, channels), sd=0.1)
        goal = wanted[number]
        stored = None if folder is None else folder / f"scale{number}.npz"
        if stored is not None and stored.exists():
            blank = (jnp.zeros((count, 1, *size, channels)), np.zeros((count, steps), np.float32))
            (position, told), _ = checkpoints.load(stored, blank, expect=about)
            scores.append(np.asarray(told))
            continue
        algorithm: Any = _Accepted(image, MEMORY)
        constraint = None
        if optimizer is not None:
            algorithm, constraint = core.Ascent(image, optimizer), projections.Box()
        if position is None and begin is None:
            position = jnp.clip(jax.vmap(image.init)(keys)[:, None], 0, 1)
        elif position is None:
            position = jnp.broadcast_to(_resized(begin, size), (count, 1, *size, channels))
        else:
            position = _resized(position, size)
        last = number == len(sizes) - 1
        width = core.width_for((*size, channels))
        outcomes = list(
            core.drive(
                algorithm,
                keys,
                goal.model,
                core.Problem(goal.total, penalties, constraint).broadcast(count),
                steps=steps,
                position=position,
                snapshots=tuple(snapshots) if last else (),
                width=width,
                # One group at a time, on all cores: pictures are large, networks deep.
                chunk=width,
                checkpoint=None if folder is None else folder / f"scale{number}",
                progress=progress,
                label=f"{model.name} {size[0]}×{size[1]}",
            )
        )
        position = jnp.asarray(np.concatenate([outcome.images for outcome in outcomes]))
        told = np.concatenate([np.asarray(outcome.info.energy) for outcome in outcomes])
        scores.append(told)
        if stored is not None and not last:
            checkpoints.save(stored, (position, scores[-1]), about={"fingerprint": about})
    if folder is not None:
        for number in range(len(sizes)):
            (folder / f"scale{number}.npz").unlink(missing_ok=True)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    climbed = np.asarray(position)[:, 0]
    images = finish(climbed)
    # Luminance was climbed alone, so that it alone can be judged.
    judged = climbed if config.get("colour") == "luminance" else images
    style_loss = -_values(goal.model, goal.style, judged)
    content_loss = np.full(count, np.nan)
    if goal.content is not None:
        content_loss = -_values(goal.model, goal.content, judged)
    kept = {
        step: finish(np.concatenate([outcome.snapshots[step][:, 0] for outcome in outcomes]))
        for step in sorted(set(snapshots))
    }
    return StyleResult(
        images,
        np.concatenate(scores, 1),
        titles,
        kept,
        config=describe(
            **config, sizes=sizes, tv=tv, optimizer=optimizer or "L-BFGS", steps=steps, key=key
        ),
        style_loss=style_loss,
        content_loss=content_loss,
    )


@functools.partial(jax.jit)
def _value(model: Model, objective: Objective, image: Array) -> Array:
    return objective(taps.activations(model, image[None], objective.layers))


def _values(model: Model, objective: Objective, images: np.ndarray) -> np.ndarray:
    bare = model.unnamed()
    return np.array([float(_value(bare, objective, image)) for image in images])


def _single(result: StyleResult) -> StyleResult:
    """Without the axis of one picture."""
    return dataclasses.replace(
        result,
        images=result.images[0],
        scores=result.scores[0],
        labels=result.labels[0],
        snapshots={step: images[0] for step, images in result.snapshots.items()},
        style_loss=result.style_loss[0],
        content_loss=result.content_loss[0],
    )


def _one(argument: str, given: ArrayLike, model: Model) -> Array:
    if not isinstance(model, Model):
        raise TypeError(f"model: an rvis.Model was expected, given {type(model).__name__}")
    images = checks.images(argument, given, channels=model.input_shape[2])
    if len(images) != 1:
        raise ValueError(f"{argument}: one image was expected, given {len(images)}")
    return images[0]


def _several(given: Any, model: Model) -> list[Array]:
    many = isinstance(given, (list, tuple)) or np.ndim(given) == 4
    pictures = list(given) if many else [given]
    if not pictures:
        raise ValueError("style: at least one image was expected, given none")
    return [_one("style", picture, model) for picture in pictures]


def _shares(given: Sequence[float] | None, count: int) -> list[float]:
    shares = np.ones(count) if given is None else np.asarray(list(given), np.float64)
    if shares.shape != (count,):
        raise ValueError(f"shares: one for each of {count} styles was expected, given {given!r}")
    for share in shares:
        checks.number("shares", share, low=0)
    if shares.sum() == 0:
        raise ValueError("shares: at least one above 0 was expected, given none")
    return (shares / shares.sum()).tolist()


def _start(given: str | ArrayLike, content: Array, style: Array, *, grey: bool) -> Array | None:
    """The picture to start from, or None for noise; `content` and `style` as they are used."""
    if isinstance(given, str):
        named = {"content": content, "noise": None, "style": style}
        chosen = named[checks.choice("start", given, named)]
        return chosen if given != "style" else _resized(style, content.shape[:2])
    shape: Any = content.shape
    image = checks.images("start", given, shape=shape)[0]
    return jnp.asarray(colours.luminance(np.asarray(image))) if grey else image


def _sizes(scales: Sequence[float], size: tuple[int, ...]) -> list[tuple[int, int]]:
    values = [checks.number("scales", scale, above=0) for scale in scales]
    if not values or values[-1] != 1 or values != sorted(set(values)):
        raise ValueError(f"scales: rising numbers that end with 1 were expected, given {scales!r}")
    return [_scaled(size, value) for value in values]


def _scaled(shape: Sequence[int], factor: float) -> tuple[int, int]:
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def _resized(images: Array | None, size: Sequence[int]) -> Any:
    """(..., H, W, C) at another size, bicubic with antialiasing, in [0, 1]."""
    if images is None or images.shape[-3:-1] == tuple(size):
        return images
    shape = (*images.shape[:-3], *size, images.shape[-1])
    return jnp.clip(jax.image.resize(images, shape, "cubic"), 0, 1)
