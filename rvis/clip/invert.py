"""From a sentence to a picture, through CLIP's encoders alone."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks, core, images, projections, regularizers, transforms
from rvis.clip.model import CLIP, Similarity, encode_text, ensemble, unit
from rvis.clip.tokenizer import listed
from rvis.images import Parameterization
from rvis.images.base import Shape
from rvis.objectives import Objective
from rvis.optimizers import Optimizer, adam
from rvis.results import Result, describe
from rvis.types import Array, ArrayLike, KeyLike, Model, PyTree, as_key


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
        seen = jnp.where(jax.random.bernoulli(whether, self.probability), seen, picture)
        channels, reach = picture.shape[-1:], self.colour
        seen = seen * jnp.exp(jax.random.uniform(factor, channels, minval=-reach, maxval=reach))
        seen = seen + jax.random.uniform(offset, channels, minval=-reach, maxval=reach)
        return seen + self.noise * jax.random.normal(grain, picture.shape)

    def _chain(self, side: int) -> tuple[transforms.Transform, ...]:
        return (
            transforms.Rotate(tuple(np.linspace(-self.degrees, self.degrees, _CHOICES).tolist())),
            transforms.Scale(tuple(np.geomspace(*self.zoom, _CHOICES).tolist())),
            transforms.Jitter(round(self.shift * side)),
        )


_CHOICES = 61


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


def invert(
    clip: CLIP | Sequence[CLIP],
    texts: str | Sequence[str],
    *,
    negative: str | Sequence[str] | None = None,
    negative_weight: float = 0.5,
    templates: Sequence[str] = ("{}",),
    samples: int = 1,
    key: KeyLike = 0,
    sizes: int | Sequence[int] | None = None,
    steps: int = 240,
    image: str = "fourier",
    start: ArrayLike | None = None,
    copies: int = 8,
    augment: Augment | None = Augment(),
    tv: float = 0.5,
    optimizer: Optimizer | None = None,
    chunk: int | None = None,
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
      samples: pictures of each text, from different noise.
      key: an int seed or a typed key. A picture depends on it, its text and its number among the
        samples, not on what else is made in the same call.
      sizes: side in pixels, or the sides that the picture grows through; by default a third, two
        thirds and the whole of the largest tower's, or with `start` the last alone.
      steps: gradient steps in all. Each size but the last takes 9 parts for 16 of the last, so that
        three take 9, 9 and 16 of 34.
      image: "fourier" or "pixel"; any name of `rvis.images.KINDS` without transparency. With
        "cppn" it cannot grow: give one size.
      start: an image (H, W, 3) to start from instead of noise, or one for each text.
      copies: how many augmented copies each step sees.
      augment: how they differ; None for the picture itself, once.
      tv: weight of the total variation Σ|dx| + |dy| per value of the picture.
      optimizer: of `rvis.optimizers`; Adam at .05 by default.
      chunk: pictures at once; bounds memory, never changes pictures.
      progress: a bar on a terminal.

    Returns:
      An `Inversion` whose `images` are (m, samples, H, W, 3), without the first axis for a single
      text and without the second for a single sample.

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
    wanted, sentences = listed(texts), listed(templates, "templates")
    unwanted = _negatives(negative, len(wanted))
    weight = checks.number("negative_weight", negative_weight, low=0)
    checks.count("samples", samples)
    checks.count("steps", steps)
    checks.count("copies", copies)
    if chunk is not None:
        checks.count("chunk", chunk)
    if augment is not None and not isinstance(augment, Augment):
        raise TypeError(f"augment: an Augment or None was expected, given {augment!r}")
    if optimizer is not None and not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer: one of rvis.optimizers was expected, given {optimizer!r}")
    checks.number("tv", tv, low=0)
    checks.choice("image", image, [kind for kind in images.KINDS if kind != "rgba"])
    stages = _stages(sizes, model.input_shape[0], start is not None, steps)
    if image == "cppn" and len(stages) > 1:
        raise ValueError(
            f"sizes: one size was expected for image='cppn', given {[side for side, _ in stages]}"
        )
    begun = None if start is None else checks.images("start", start, channels=3)
    if begun is not None and begun.shape[0] not in (1, len(wanted)):
        raise ValueError(
            f"start: one image, or one for each of {len(wanted)} texts was expected, given "
            f"{begun.shape[0]}"
        )
    columns = model
    if augment is not None:
        apply = dataclasses.replace(model.apply, copies=copies)  # type: ignore[type-var]
        columns = model.replace(apply=apply)  # type: ignore[attr-defined]
    objective = _objective(towers, wanted, sentences, 1.0 / len(towers))
    if unwanted is not None:
        away = _objective(towers, unwanted, sentences, weight / len(towers))
        objective = objective - away
    root = as_key(key)
    count = len(wanted) * samples
    keys = jnp.stack(
        [
            jax.random.fold_in(jax.random.fold_in(root, zlib.crc32(text.encode())), sample)
            for text in wanted
            for sample in range(samples)
        ]
    )
    rows = jnp.repeat(jnp.arange(len(wanted)), samples)
    members = jax.tree.map(lambda leaf: leaf[rows], objective.broadcast(len(wanted)))
    pictures = (
        None if begun is None else jnp.broadcast_to(begun, (len(wanted), *begun.shape[1:]))[rows]
    )
    climbing = adam(0.05) if optimizer is None else optimizer
    scores = []
    for stage, (side, length) in enumerate(stages):
        spec: Any = images.named(image, (side, side, 3))
        constraint = projections.Box() if isinstance(spec, images.Pixel) else None
        penalty = regularizers.total_variation(tv / (3 * side * side))
        problem = core.Problem(members, (penalty,), constraint).broadcast(count)
        position = None
        if pictures is not None:
            position = _encoded(spec, _resized(pictures, side))
        outcomes = list(
            core.drive(
                core.Ascent(spec if augment is None else Shown(spec, augment, copies), climbing),
                # Sizes draw different numbers.
                jax.vmap(lambda k, stage=stage: jax.random.fold_in(k, stage))(keys),
                columns,
                problem,
                steps=length,
                position=position,
                width=_width(),
                chunk=chunk,
                progress=progress,
                label=f"{side} px",
            )
        )
        pictures = jnp.asarray(np.concatenate([outcome.images[:, 0] for outcome in outcomes]))
        scores.append(np.concatenate([np.asarray(outcome.info.score) for outcome in outcomes]))
    assert pictures is not None
    made = np.asarray(pictures)
    lead = () if isinstance(texts, str) else (len(wanted),)
    lead = (*lead, samples) if samples > 1 else lead

    def shaped(array: np.ndarray) -> np.ndarray:
        return array.reshape((*lead, *array.shape[1:]))

    labels = np.repeat(np.asarray(wanted, object), samples)
    return Inversion(
        shaped(made),
        shaped(np.concatenate(scores, 1)),
        shaped(labels),
        config=describe(
            function="clip.invert",
            clip=[tower.name for tower in towers],
            texts=wanted,
            negative=unwanted,
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
        similarities=shaped(_similarities(towers, model, made, labels, sentences)),
    )


def _towers(given: CLIP | Sequence[CLIP]) -> tuple[CLIP, ...]:
    several = (given,) if isinstance(given, CLIP) else given
    good = isinstance(several, Sequence) and all(isinstance(clip, CLIP) for clip in several)
    if not good or not several:
        raise TypeError(f"clip: a CLIP or several were expected, given {given!r}")
    return tuple(several)


def _negatives(given: str | Sequence[str] | None, count: int) -> list[str] | None:
    if given is None:
        return None
    several = [given] * count if isinstance(given, str) else listed(given, "negative")
    if len(several) != count:
        raise ValueError(
            f"negative: a text, or one for each of {count} texts was expected, given {given!r}"
        )
    return several


def _stages(
    sizes: int | Sequence[int] | None, side: int, started: bool, steps: int
) -> list[tuple[int, int]]:
    """(side, steps) of each resolution."""
    if sizes is None:
        sizes = (side,) if started else (side // 3, 2 * side // 3, side)
    several = tuple(sizes) if isinstance(sizes, Iterable) else (sizes,)
    if not several:
        raise ValueError("sizes: at least one side was expected, given none")
    sides = [checks.count("sizes", size, low=2) for size in several]
    early = steps * 9 // (9 * (len(sides) - 1) + 16) if len(sides) > 1 else 0
    lengths = [early] * (len(sides) - 1) + [steps - early * (len(sides) - 1)]
    return [(s, length) for s, length in zip(sides, lengths, strict=True) if length]


def _objective(
    towers: Sequence[CLIP], texts: Sequence[str], templates: Sequence[str], weight: float
) -> Objective:
    """The weighted sum over towers of the cosines with texts, as many objectives as texts."""
    terms = [
        weight
        * Similarity(f"{i}.embedding", jnp.asarray(encode_text(tower, texts, templates=templates)))
        for i, tower in enumerate(towers)
    ]
    return sum(terms[1:], terms[0])


def _width() -> int | None:
    """Pictures computed side by side, each in all its copies.

    On a CPU a fixed number, which makes a picture the same in any batch.
    """
    return 2 if jax.default_backend() == "cpu" else None


@partial(jax.jit, static_argnames="side")
def _resized(pictures: Array, side: int) -> Array:
    shape = (pictures.shape[0], side, side, pictures.shape[-1])
    return jnp.clip(jax.image.resize(pictures, shape, "cubic"), 0, 1)


@partial(jax.jit, static_argnames="spec")
def _encoded(spec: Parameterization, pictures: Array) -> PyTree:
    return jax.vmap(jax.vmap(spec.encode))(pictures[:, None])


@jax.jit
def _embedded(model: Model, pictures: Array) -> Array:
    return model.apply(model.params, pictures)


def _similarities(
    towers: Sequence[CLIP],
    model: Model,
    pictures: np.ndarray,
    labels: np.ndarray,
    templates: Sequence[str],
) -> np.ndarray:
    texts = list(dict.fromkeys(labels.tolist()))
    which = np.asarray([texts.index(label) for label in labels])
    bare = model.unnamed()
    found = np.concatenate([np.asarray(_embedded(bare, picture[None])) for picture in pictures])
    edges = np.cumsum([tower.config.projection for tower in towers])[:-1]
    cosines = [
        (
            np.asarray(unit(jnp.asarray(part)))
            * encode_text(tower, texts, templates=templates)[which]
        ).sum(1)
        for tower, part in zip(towers, np.split(found, edges, axis=1), strict=True)
    ]
    return np.mean(cosines, 0)
