"""From a sentence to a picture, through CLIP's encoders alone."""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks, engine, files, gate, images, projections, regularizers, struct, transforms
from rvis.ascent import Ascent, Problem, watcher
from rvis.clip.model import CLIP, Similarity, encode_text, ensemble, unit
from rvis.clip.tokenizer import listed
from rvis.images import Parameterization
from rvis.images.base import Shape
from rvis.objectives import Objective
from rvis.optimizers import Optimizer, adam
from rvis.results import Result, describe
from rvis.types import Array, ArrayLike, KeyLike, Model, PyTree, as_key, on_device


@dataclasses.dataclass(frozen=True)
class Augment:
    """How much the copies of a picture differ that a tower is shown.

    Attributes:
      degrees: turned by up to so many, either way.
      shift: moved by up to this share of the side along each axis.
      zoom: the smallest and the largest factor.
      probability: of being turned, moved and zoomed at all.
      colour: each channel is multiplied by e^U(±colour), and U(±colour) is added.
      noise: the standard deviation of what is added to each value.

    Raises:
      TypeError, ValueError: naming the field.

    Example:
      >>> from rvis.clip import Augment
      >>> Augment(colour=0).zoom
      (0.7, 1.2)

    Reference: Kazemi et al. 2024, "What do we learn from inverting CLIP models?", section 3.2;
      Ghiasi et al. 2021, "Plug-in inversion", section 3.3 (colour).
    """

    degrees: float = 30.0
    shift: float = 0.1
    zoom: tuple[float, float] = (0.7, 1.2)
    probability: float = 0.5
    colour: float = 0.1
    noise: float = 0.1

    def __post_init__(self) -> None:
        highest = {"degrees": 180, "shift": 1, "probability": 1, "colour": 3, "noise": 1}
        for name, most in highest.items():
            # Equal descriptions must hash alike, whether a number came as int or float.
            value = checks.number(name, getattr(self, name), low=0, high=most)
            object.__setattr__(self, name, value)
        try:
            low, high = self.zoom
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"zoom: the smallest and the largest factor were expected, given {self.zoom!r}"
            ) from error
        checks.number("zoom", low, above=0)
        checks.number("zoom", high, low=float(low), high=10)
        object.__setattr__(self, "zoom", (float(low), float(high)))

    def __call__(self, key: Array, picture: Array) -> Array:
        """One copy of a picture (H, W, C); its values may leave [0, 1]."""
        moved, whether, factor, offset, grain = jax.random.split(key, 5)
        chain = self._chain(min(picture.shape[:2]))
        seen = transforms.apply(chain, moved, picture[None])[0]
        moves = jax.random.bernoulli(whether, jnp.float32(self.probability))
        seen = jnp.where(moves, seen, picture)
        channels = (1, 1, picture.shape[-1])
        change = (jnp.float32, -self.colour, self.colour)
        seen = seen * jnp.exp(jax.random.uniform(factor, channels, *change))
        seen = seen + jax.random.uniform(offset, channels, *change)
        return seen + self.noise * jax.random.normal(grain, picture.shape, jnp.float32)

    def _chain(self, side: int) -> tuple[transforms.Transform, ...]:
        return (
            transforms.Rotate(tuple(np.linspace(-self.degrees, self.degrees, _CHOICES).tolist())),
            transforms.Scale(tuple(np.geomspace(*self.zoom, _CHOICES).tolist())),
            transforms.Jitter(round(self.shift * side)),
        )


_CHOICES = 61

_DRAWN = 4


@dataclasses.dataclass(frozen=True)
class Shown:
    """A parameterization whose picture is shown as a column of copies that differ.

    A model of `ensemble` takes such a column apart, see `Towers.copies`.
    """

    base: Parameterization
    augment: Augment
    copies: int

    @property
    def shape(self) -> Shape:
        return self.base.shape

    def init(self, key: KeyLike) -> PyTree:
        """As the base."""
        return self.base.init(key)

    def decode(self, position: PyTree) -> Array:
        """As the base."""
        return self.base.decode(position)

    def encode(self, image: Array) -> PyTree:
        """As the base."""
        return self.base.encode(image)

    def composite(self, key: Array, picture: Array) -> Array:
        """The copies one below the other, (copies·H, W, C)."""
        column = jax.vmap(self.augment, (0, None))(jax.random.split(key, self.copies), picture)
        return column.reshape(-1, *picture.shape[1:])


@dataclasses.dataclass(frozen=True, eq=False)
class Inversion(Result):
    """Pictures of texts.

    Attributes:
      similarities: (...) the mean over towers of the finished picture's cosine with its text.
    """

    similarities: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))


@gate.public
def invert(
    clip: CLIP | Sequence[CLIP],
    texts: str | Sequence[str],
    *,
    negative: str | Sequence[str] | None = None,
    negative_weight: float = 0.5,
    templates: Sequence[str] = ("{}",),
    sizes: int | Sequence[int] | None = None,
    image: str = "fourier",
    start: ArrayLike | None = None,
    copies: int = 8,
    augment: Augment | None = Augment(),
    tv: float = 0.5,
    key: KeyLike = 0,
    steps: int = 240,
    samples: int | None = None,
    optimizer: Optimizer | None = None,
    chunk: int | None = None,
    checkpoint: files.PathLike | None = None,
    callback: Callable[[int, np.ndarray, np.ndarray], Any] | None = None,
    progress: bool = True,
) -> Inversion:
    """Pictures whose embedding is that of a text, by gradient ascent on the input.

    Maximises the mean over copies and towers of cos(E(T(x)), e(text)) − w·cos(E(T(x)), e(negative))
    less the total variation, where T draws an augmentation for each copy at each step. The picture
    grows from size to size, with a new optimizer at each, and every tower sees it enlarged to its
    own.

    Args:
      clip: one CLIP, or several whose cosines are averaged.
      texts: one text, or several for as many pictures.
      negative: a text to keep away from, or one for each text.
      negative_weight: how much that counts.
      templates: sentences in whose {} each text is put, see `encode_text`.
      sizes: side in pixels, or the sides that the picture grows through, from the largest patch to
        the side of the largest tower; by default a third, two thirds and the whole of the latter,
        or with `start` the last alone.
      image: "fourier" or "pixel"; any name of `rvis.images.KINDS` without transparency. With
        "cppn" it cannot grow: give one size.
      start: an image (H, W, 3) to start from instead of noise, or one for each text.
      copies: how many augmented copies each step sees.
      augment: how they differ; None for the picture itself, once.
      tv: weight of the total variation Σ|dx| + |dy| per value of the picture.
      key: an int seed or a typed key. A picture depends on it, its text and its number among the
        samples, not on what else is made in the same call.
      steps: gradient steps in all. Each size but the last takes 9 parts for 16 of the last, so that
        three take 9, 9 and 16 of 34.
      samples: pictures of each text, from different noise; by default four are made and the nearest
        to the text, by `similarities`, is returned: a first one often has another colour.
      optimizer: of `rvis.optimizers`; Adam at .05 by default.
      chunk: pictures at once, for memory's sake.
      checkpoint: a folder for the state of an interrupted run; the same call then goes on.
      callback: called as `callback(step, images, scores)` after each step, with the images at the
        size under way and all scores so far; True ends the run.
      progress: a bar on a terminal.

    Returns:
      An `Inversion` whose `images` are (m, samples, H, W, 3), without the first axis for a single
      text and without the second for a single sample or by default. `callback` is shown them all.

    Raises:
      TypeError, ValueError: naming the argument, before anything is compiled.
      FloatingPointError: if a score becomes NaN.

    Example:
      >>> import dataclasses
      >>> from rvis import clip
      >>> config = dataclasses.replace(clip.SMALL, layers=1, text_layers=1)
      >>> small = clip.untrained(config, words=("a", "red", "circle"))
      >>> found = clip.invert(small, ["a red circle", "a circle"], sizes=24, steps=2, copies=2)
      >>> found.images.shape, found.similarities.shape
      ((2, 24, 24, 3), (2,))

    Reference: Kazemi et al. 2024, "What do we learn from inverting CLIP models?", equation 2 and
      section 3; their copies are 13, steps 3400 at 64, 128 and 224 pixels, Adam at .1.
    """
    towers = _towers(clip)
    model = ensemble(towers)
    phrases, sentences = listed(texts), listed(templates, "templates")
    negatives = _negatives(negative, len(phrases))
    weight = checks.number("negative_weight", negative_weight, low=0)
    checks.count("copies", copies)
    if augment is not None and not isinstance(augment, Augment):
        raise TypeError(f"augment: an Augment or None was expected, given {augment!r}")
    checks.number("tv", tv, low=0)
    checks.choice("image", image, [kind for kind in images.KINDS if kind != "rgba"])
    stages = _stages(sizes, towers, start is not None, steps)
    if image == "cppn" and len(stages) > 1:
        raise ValueError(
            f"sizes: one size was expected for image='cppn', given {[side for side, _ in stages]}"
        )
    begun = None if start is None else checks.images("start", start, channels=3)
    if begun is not None:
        checks.one_or_each("start", len(begun), len(phrases), "texts")
    columns = model
    if augment is not None:
        apply = dataclasses.replace(model.apply, copies=copies)  # type: ignore[type-var]
        columns = struct.replace(model, apply=apply)
    objective = _objective(towers, phrases, sentences, 1.0 / len(towers))
    if negatives is not None:
        away = _objective(towers, negatives, sentences, weight / len(towers))
        objective = objective - away
    root = as_key(key)
    drawn = _DRAWN if samples is None else checks.count("samples", samples)
    count = len(phrases) * drawn
    keys = jnp.stack(
        [
            jax.random.fold_in(jax.random.fold_in(root, zlib.crc32(text.encode())), sample)
            for text in phrases
            for sample in range(drawn)
        ]
    )
    rows = jnp.repeat(jnp.arange(len(phrases), dtype=jnp.int32), drawn)
    members = jax.tree.map(lambda leaf: leaf[rows], objective.broadcast(len(phrases)))
    climbing = adam(0.05) if optimizer is None else optimizer
    one = () if isinstance(texts, str) else (len(phrases),)
    lead = (*one, drawn) if drawn > 1 else one

    def shaped(array: np.ndarray) -> np.ndarray:
        return array.reshape((*lead, *array.shape[1:]))

    def climb(carry: engine.Carry, folder: Path | None, *, stage: int) -> engine.Carry:
        """One size: (pictures, scores so far)."""
        pictures, scores = carry
        side, length = stages[stage]
        started = stage > 0 or begun is not None
        if started:
            pictures = _resized(on_device(pictures), side)
        if scores.shape[1] < sum(length for _, length in stages[:stage]):
            return pictures, scores  # the callback has ended the run
        spec: Any = images.named(image, (side, side, 3))
        constraint = projections.Box() if isinstance(spec, images.Pixel) else None
        penalty = regularizers.total_variation(tv / (3 * side * side))
        ascent = Ascent(spec if augment is None else Shown(spec, augment, copies), climbing)
        run = engine.run(
            ascent,
            columns,
            Problem(members, (penalty,), constraint).broadcast(count),
            # Sizes draw different numbers.
            jax.vmap(lambda key: jax.random.fold_in(key, stage))(keys),
            steps=length,
            pixels=ascent.pixels * (1 if augment is None else copies),
            starts=_encoded(spec, pictures) if started else None,
            callback=watcher(callback, shaped, scores),
            chunk=chunk,
            checkpoint=folder,
            progress=progress,
            label=f"{side} px",
        )
        return run.result[:, 0], np.concatenate([scores, run.info.score], 1)

    first = (
        np.zeros((count, 0))
        if begun is None
        else jnp.broadcast_to(begun, (len(phrases), *begun.shape[1:]))[rows]
    )
    about = (members, keys, stages, image, first, copies, augment, tv, climbing, columns.unnamed())
    pictures, scores = engine.in_stages(
        [partial(climb, stage=stage) for stage in range(len(stages))],
        (first, np.zeros((count, 0), np.float32)),
        about=about,
        checkpoint=checkpoint,
    )
    pictures = np.asarray(pictures)
    labels = np.repeat(np.asarray(phrases, object), drawn)
    near = _similarities(towers, model, pictures, labels, sentences)
    if samples is None:
        best = near.reshape(-1, drawn).argmax(1) + drawn * np.arange(len(phrases))
        pictures, scores, labels, near = (x[best] for x in (pictures, scores, labels, near))
        lead = one
    return Inversion(
        shaped(pictures),
        shaped(scores),
        shaped(labels),
        config=describe(
            function="clip.invert",
            clip=[tower.name for tower in towers],
            texts=phrases,
            negative=negatives,
            negative_weight=weight,
            templates=tuple(sentences),
            samples=samples,
            key=root,
            sizes=[side for side, _ in stages],
            steps=steps,
            image=image,
            start=begun,
            copies=copies,
            augment=augment,
            tv=tv,
            optimizer=climbing,
        ),
        similarities=shaped(near),
    )


def _towers(clips: CLIP | Sequence[CLIP]) -> tuple[CLIP, ...]:
    several = (clips,) if isinstance(clips, CLIP) else clips
    good = isinstance(several, Sequence) and all(isinstance(clip, CLIP) for clip in several)
    if not good or not several:
        raise TypeError(f"clip: a CLIP or several were expected, given {clips!r}")
    return tuple(several)


def _negatives(negative: str | Sequence[str] | None, count: int) -> list[str] | None:
    if negative is None:
        return None
    several = [negative] * count if isinstance(negative, str) else listed(negative, "negative")
    if len(several) != count:
        raise ValueError(
            f"negative: a text, or one for each of {count} texts was expected, given {negative!r}"
        )
    return several


def _stages(
    sizes: int | Sequence[int] | None, towers: Sequence[CLIP], started: bool, steps: int
) -> list[tuple[int, int]]:
    """(side, steps) of each size."""
    least = max(tower.config.patch for tower in towers)
    side = max(tower.config.image_size for tower in towers)
    if sizes is None:
        sizes = (side,) if started else (max(least, side // 3), 2 * side // 3, side)
    several = tuple(sizes) if isinstance(sizes, Iterable) else (sizes,)
    if not several:
        raise ValueError("sizes: at least one side was expected, given none")
    for size in several:
        if not least <= checks.count("sizes", size) <= side:
            raise ValueError(
                f"sizes: sides of {least} (a patch) to {side} pixels (what the largest tower sees) "
                f"were expected, given {size}"
            )
    early = steps * 9 // (9 * (len(several) - 1) + 16) if len(several) > 1 else 0
    lengths = [early] * (len(several) - 1) + [steps - early * (len(several) - 1)]
    return [(s, length) for s, length in zip(several, lengths, strict=True) if length]


def _objective(
    towers: Sequence[CLIP], texts: Sequence[str], templates: Sequence[str], weight: float
) -> Objective:
    """The weighted sum over towers of the cosines with texts, as many objectives as texts."""
    terms = [
        weight
        * Similarity(f"{i}.embedding", on_device(encode_text(tower, texts, templates=templates)))
        for i, tower in enumerate(towers)
    ]
    return sum(terms[1:], terms[0])


@partial(jax.jit, static_argnames="side")
def _resized(pictures: Array, side: int) -> Array:
    shape = (pictures.shape[0], side, side, pictures.shape[-1])
    return jnp.clip(jax.image.resize(pictures, shape, "cubic"), 0, 1)


@partial(jax.jit, static_argnames="spec")
def _encoded(spec: Parameterization, pictures: Array) -> PyTree:
    return jax.vmap(jax.vmap(spec.encode))(pictures[:, None])


def _embedded(model: Model, picture: Array) -> Array:
    return model.apply(model.params, picture[None])[0]


def _similarities(
    towers: Sequence[CLIP],
    model: Model,
    pictures: np.ndarray,
    labels: np.ndarray,
    templates: Sequence[str],
) -> np.ndarray:
    texts = list(dict.fromkeys(labels.tolist()))
    which = np.asarray([texts.index(label) for label in labels])
    found = engine.apply(_embedded, model, pictures, pixels=math.prod(model.input_shape[:2]))
    edges = np.cumsum([tower.config.projection for tower in towers])[:-1]
    cosines = [
        (
            np.asarray(unit(jnp.asarray(part)))
            * encode_text(tower, texts, templates=templates)[which]
        ).sum(1)
        for tower, part in zip(towers, np.split(found, edges, axis=1), strict=True)
    ]
    return np.mean(cosines, 0)
