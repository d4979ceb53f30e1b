"""Endless scenes of coloured shapes with captions: what a small CLIP can learn from.

A scene is one, two or three shapes of a kind on a plain ground. Its caption tells some of the
facts, in words that vary. Some combinations of colour, shape and place are held out, to be seen in
tests alone.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks
from rvis.types import Array

SHAPES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "circle": (("circle", "circles"), ("disc", "discs")),
    "square": (("square", "squares"), ("box", "boxes")),
    "triangle": (("triangle", "triangles"),),
    "star": (("star", "stars"),),
    "cross": (("cross", "crosses"), ("plus", "pluses")),
    "ring": (("ring", "rings"), ("hoop", "hoops")),
}
"""The shapes, and how captions call one and several of them."""

COLOURS: Mapping[str, tuple[tuple[float, float, float], tuple[str, ...]]] = {
    "red": ((0.86, 0.11, 0.13), ("red", "scarlet")),
    "orange": ((0.96, 0.55, 0.06), ("orange",)),
    "yellow": ((0.95, 0.87, 0.13), ("yellow", "golden")),
    "green": ((0.13, 0.62, 0.20), ("green",)),
    "cyan": ((0.12, 0.76, 0.80), ("cyan", "turquoise")),
    "blue": ((0.13, 0.27, 0.85), ("blue",)),
    "purple": ((0.50, 0.16, 0.68), ("purple", "violet")),
    "pink": ((0.96, 0.48, 0.70), ("pink",)),
}
"""The colours: RGB in [0, 1], and their names."""

SIZES: Mapping[str, tuple[float, tuple[str, ...]]] = {
    "small": (0.11, ("small", "little", "tiny")),
    "medium": (0.155, ("medium",)),
    "large": (0.21, ("large", "big", "huge")),
}
"""The sizes: the radius as a share of the image's side, and their names."""

POSITIONS: Mapping[str, tuple[str, ...]] = {
    "top left": ("in the top left", "at the top left", "in the upper left corner"),
    "top": ("at the top", "at the upper edge"),
    "top right": ("in the top right", "at the top right", "in the upper right corner"),
    "left": ("on the left", "at the left", "to the left"),
    "centre": ("in the centre", "in the middle", "in the center"),
    "right": ("on the right", "at the right", "to the right"),
    "bottom left": ("in the bottom left", "at the bottom left", "in the lower left corner"),
    "bottom": ("at the bottom", "at the lower edge"),
    "bottom right": ("in the bottom right", "at the bottom right", "in the lower right corner"),
}
"""The nine places, row by row, and how captions tell them."""

BACKGROUNDS: Mapping[str, tuple[float, float, float]] = {
    "white": (0.95, 0.95, 0.95),
    "black": (0.07, 0.07, 0.07),
    "grey": (0.50, 0.50, 0.50),
    "beige": (0.85, 0.77, 0.62),
}
"""The grounds: RGB in [0, 1]."""

COUNTS = ("one", "two", "three")
_ANY = ("shape", "shapes"), ("object", "objects"), ("thing", "things")
_GROUND = "on a {} background", "on {}", "against a {} background"

HELD_OUT: tuple[tuple[str, str, str], ...] = tuple(
    (colour, shape, tuple(POSITIONS)[(4 * i + 2 * j) % len(POSITIONS)])
    for i, colour in enumerate(COLOURS)
    for j, shape in enumerate(SHAPES)
)
"""Combinations of colour, shape and place that no training scene has.

Every pair of colour and shape is kept from one place, another for each colour of a shape and each
shape of a colour, so that no pair of two facts tells anything of the third.
"""

VALUES: Mapping[str, tuple[str, ...]] = {
    "colour": tuple(COLOURS),
    "shape": tuple(SHAPES),
    "size": tuple(SIZES),
    "position": tuple(POSITIONS),
    "count": COUNTS,
    "background": tuple(BACKGROUNDS),
}
"""What every fact of a scene can be."""

_TOLD = {
    "colour": 0.9,
    "shape": 0.9,
    "size": 0.5,
    "position": 0.75,
    "count": 1.0,
    "background": 0.4,
}
"""How often a caption tells of it."""

Facts = Mapping[str, np.ndarray]
"""{fact: (n,) numbers of its values}."""


@dataclasses.dataclass(frozen=True, eq=False)
class Scenes:
    """Some scenes, with what is true of them.

    Attributes:
      images: (n, H, W, 3) float32 in [0, 1].
      masks: (n, H, W) bool, where the shapes are.
      captions: n texts.
      facts: {fact: (n,) numbers of `VALUES[fact]`}.
      told: {fact: (n,) bool}, whether the caption tells of it.
    """

    images: np.ndarray
    masks: np.ndarray
    captions: tuple[str, ...]
    facts: Facts
    told: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.captions)


def vocabulary() -> tuple[str, ...]:
    """Every word that a caption can have, in alphabetical order.

    Example:
      >>> from scripts.clip_scenes import scenes
      >>> {"scarlet", "hoops", "middle"} <= set(scenes.vocabulary())
      True
    """
    nouns = itertools.chain.from_iterable([*SHAPES.values(), _ANY])
    phrases = [
        *itertools.chain.from_iterable(nouns),
        *itertools.chain.from_iterable(names for _, names in COLOURS.values()),
        *itertools.chain.from_iterable(names for _, names in SIZES.values()),
        *itertools.chain.from_iterable(POSITIONS.values()),
        *(ground.format("") for ground in _GROUND),
        *BACKGROUNDS,
        *COUNTS,
        "a an of picture",
    ]
    return tuple(sorted(set(" ".join(phrases).split())))


def caption(rng: np.random.Generator, facts: Mapping[str, int], told: Mapping[str, bool]) -> str:
    """A text that tells some facts of one scene, in words drawn at random.

    Args:
      rng: the generator to draw from.
      facts: {fact: number of its value}.
      told: {fact: whether to tell it}; the count is always told.

    Example:
      >>> import numpy as np
      >>> from scripts.clip_scenes import scenes
      >>> facts = {"colour": 1, "shape": 3, "size": 0, "position": 4, "count": 1, "background": 0}
      >>> told = dict.fromkeys(facts, False) | {"colour": True, "shape": True}
      >>> scenes.caption(np.random.default_rng(0), facts, told)
      'two orange stars'
    """

    def one(options: Sequence[str]) -> str:
        return options[int(rng.integers(len(options)))]

    values = {fact: VALUES[fact][number] for fact, number in facts.items()}
    words = []
    if told["size"]:
        words.append(one(SIZES[values["size"]][1]))
    if told["colour"]:
        words.append(one(COLOURS[values["colour"]][1]))
    nouns = SHAPES[values["shape"]] if told["shape"] else _ANY
    words.append(nouns[int(rng.integers(len(nouns)))][int(facts["count"] > 0)])
    if facts["count"]:
        words.insert(0, values["count"])
    elif rng.random() < 0.2:
        words.insert(0, "one")
    else:
        words.insert(0, "an" if words[0][0] in "aeiou" else "a")
    if told["position"]:
        words.append(one(POSITIONS[values["position"]]))
    if told["background"]:
        words.append(one(_GROUND).format(values["background"]))
    return " ".join(words)


def agreement(told: Mapping[str, np.ndarray], captioned: Facts, seen: Facts) -> np.ndarray:
    """Which captions are true of which scenes.

    Args:
      told: {fact: (m,) bool} of m captions.
      captioned: {fact: (m,)} of the scenes that the captions were written for.
      seen: {fact: (n,)} of n scenes.

    Returns:
      (n, m) bool: whether caption j tells nothing that is not so in scene i. Where the two are the
      same scenes the diagonal is True; what else is must not count as a mistake.

    Example:
      >>> import numpy as np
      >>> from scripts.clip_scenes import scenes
      >>> facts = {"colour": np.array([0, 0, 1])}
      >>> scenes.agreement({"colour": np.array([True, False, True])}, facts, facts).astype(int)
      array([[1, 1, 0],
             [1, 1, 0],
             [0, 1, 1]])
    """
    parts = [
        ~told[fact][None] | (captioned[fact][None] == seen[fact][:, None]) for fact in captioned
    ]
    return np.logical_and.reduce(parts)


def draw_facts(
    rng: np.random.Generator, count: int, *, held_out: bool | None = False, alike: int = 1
) -> Facts:
    """The facts of some scenes, drawn at random.

    Args:
      rng: the generator to draw from.
      count: how many scenes.
      held_out: True for held-out combinations alone, False for all others, None for any.
      alike: scenes come in groups of so many, 1 to 5, that differ in shape alone, or in colour or
        place alone (half, a quarter and a quarter of the groups). Of scenes that differ in
        everything a network learns the easiest difference; here it is left no other. Held-out
        combinations have no such groups.

    Raises:
      ValueError: naming `alike`.

    Example:
      >>> import numpy as np
      >>> from scripts.clip_scenes import scenes
      >>> facts = scenes.draw_facts(np.random.default_rng(0), 100, held_out=True)
      >>> scenes.combinations(facts) <= set(scenes.HELD_OUT)
      True
    """
    every = [
        combination
        for combination in itertools.product(COLOURS, SHAPES, POSITIONS)
        if held_out is None or (combination in HELD_OUT) == held_out
    ]
    if checks.count("alike", alike) > _MOST or (alike > 1 and held_out):
        few = "1" if held_out else f"1 to {_MOST}"
        raise ValueError(f"alike: {few} was expected, with held_out={held_out}, given {alike}")
    groups = -(-count // alike)
    chosen = [every[i] for i in rng.integers(len(every), size=groups)]
    if alike > 1:
        rows = zip(chosen, rng.choice(3, size=groups, p=_VARIED), strict=True)
        some = frozenset(every)
        chosen = [member for one, fact in rows for member in _varied(rng, some, one, fact, alike)]
    told = {
        fact: np.asarray([VALUES[fact].index(values[i]) for values in chosen])[:count]
        for i, fact in enumerate(_COMBINED)
    }
    number = rng.choice(3, size=groups, p=(0.7, 0.15, 0.15))
    size = rng.integers(3, size=groups)
    shared = {
        # Several shapes are small, or they would not fit.
        "size": np.where(number > 0, 0, size),
        "count": number,
        "background": rng.integers(len(BACKGROUNDS), size=groups),
    }
    return told | {fact: values.repeat(alike)[:count] for fact, values in shared.items()}


_COMBINED = ("colour", "shape", "position")
_VARIED = (0.25, 0.5, 0.25)
"""How often a group of scenes that are alike differs in each of them."""
_MOST = 5
"""So many shapes there are at least for every colour and place that are not held out."""


def _varied(
    rng: np.random.Generator,
    every: frozenset[tuple[str, str, str]],
    one: tuple[str, str, str],
    fact: int,
    count: int,
) -> list[tuple[str, str, str]]:
    """Some combinations of `every` that differ from `one` in one fact at most, all different."""
    values = VALUES[_COMBINED[fact]]
    options = [(*one[:fact], value, *one[fact + 1 :]) for value in values]
    allowed = [option for option in options if option in every]
    return [allowed[i] for i in rng.permutation(len(allowed))[:count]]


def combinations(facts: Facts) -> set[tuple[str, ...]]:
    """The combinations of colour, shape and place among some facts.

    Example:
      >>> import numpy as np
      >>> from scripts.clip_scenes import scenes
      >>> scenes.combinations({fact: np.array([0]) for fact in ("colour", "shape", "position")})
      {('red', 'circle', 'top left')}
    """
    rows = zip(*(facts[fact] for fact in _COMBINED), strict=True)
    return {
        tuple(VALUES[fact][value] for fact, value in zip(_COMBINED, row, strict=True))
        for row in rows
    }


def draw(rng: np.random.Generator, facts: Facts, size: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of facts; places, sizes, turns and colours vary a little.

    Args:
      rng: the generator to draw from.
      facts: {fact: (n,)}.
      size: side of the pictures in pixels.

    Returns:
      Images (n, size, size, 3) float32 in [0, 1], and masks (n, size, size) bool of the shapes.

    Raises:
      ValueError: naming `size`, below 16.

    Example:
      >>> import numpy as np
      >>> from scripts.clip_scenes import scenes
      >>> rng = np.random.default_rng(0)
      >>> images, masks = scenes.draw(rng, scenes.draw_facts(rng, 2))
      >>> images.shape, masks.shape
      ((2, 48, 48, 3), (2, 48, 48))
    """
    checks.count("size", size, low=16)
    n = len(facts["shape"])
    number = facts["count"]
    radii = np.asarray([radius for radius, _ in SIZES.values()])[facts["size"]]
    radii = radii * rng.uniform(0.92, 1.08, n)
    # Beside one another: two on a line, three on a triangle about the place.
    spread = np.where(number == 1, 1.25, np.where(number == 2, 1.5, 0.0)) * radii
    angle = rng.uniform(0, 2 * math.pi, (n, 1)) + np.arange(3) * 2 * math.pi / (1 + number[:, None])
    cell = np.stack([facts["position"] // 3, facts["position"] % 3], -1)
    middle = 0.5 + 0.28 * (cell - 1) + rng.uniform(-0.05, 0.05, (n, 2))
    edge = (spread + 1.16 * radii + 0.5 / size)[:, None]
    middle = np.clip(middle, edge, 1 - edge)
    around = np.stack([np.sin(angle), np.cos(angle)], -1) * spread[:, None, None]
    present = np.arange(3) <= number[:, None]
    colours = np.asarray([rgb for rgb, _ in COLOURS.values()])[facts["colour"]]
    grounds = np.asarray(list(BACKGROUNDS.values()))[facts["background"]]
    images, alpha = _drawn(
        np.asarray(facts["shape"], np.int32),
        np.asarray((middle[:, None] + around) * size, np.float32),
        np.asarray(np.where(present, radii[:, None] * size, 0), np.float32),
        rng.uniform(-0.25, 0.25, (n, 3)).astype(np.float32),
        np.clip(colours + rng.uniform(-0.06, 0.06, (n, 3)), 0, 1).astype(np.float32),
        np.clip(grounds + rng.uniform(-0.05, 0.05, (n, 1)), 0, 1).astype(np.float32),
        rng.uniform(-0.05, 0.05, (n, 2)).astype(np.float32),
        size,
    )
    return np.asarray(images), np.asarray(alpha) > 0.5


@functools.partial(jax.jit, static_argnames="size")
def _drawn(
    shapes: Array,
    centres: Array,
    radii: Array,
    turns: Array,
    colours: Array,
    grounds: Array,
    slopes: Array,
    size: int,
) -> tuple[Array, Array]:
    """(images, alpha) of n scenes of up to three shapes; a shape of radius 0 is absent."""
    axis = jnp.arange(size, dtype=jnp.float32) + 0.5

    def scene(shape, centres, radii, turns, colour, ground, slope):  # type: ignore[no-untyped-def]
        def cover(centre: Array, radius: Array, turn: Array) -> Array:
            away = jnp.maximum(radius, 1e-3)
            y, x = (axis[:, None] - centre[0]) / away, (axis[None] - centre[1]) / away
            c, s = jnp.cos(turn), jnp.sin(turn)
            distance = jax.lax.switch(shape, _DISTANCES, c * x - s * y, -(s * x + c * y))
            return jnp.where(radius > 0, jnp.clip(0.5 - distance * radius, 0, 1), 0)

        alpha = jax.vmap(cover)(centres, radii, turns).max(0)
        tilt = slope[0] * (axis[:, None] / size - 0.5) + slope[1] * (axis[None] / size - 0.5)
        ground = jnp.clip(ground[None, None] + 2 * tilt[..., None], 0, 1)
        return ground + alpha[..., None] * (colour[None, None] - ground), alpha

    return jax.vmap(scene)(shapes, centres, radii, turns, colours, grounds, slopes)


# Signed distances from the edge, in radii, of (x to the right, y upwards).
def _circle(x: Array, y: Array) -> Array:
    return jnp.hypot(x, y) - 0.95


def _square(x: Array, y: Array) -> Array:
    return jnp.maximum(jnp.abs(x), jnp.abs(y)) - 0.85


def _triangle(x: Array, y: Array) -> Array:
    return jnp.maximum(-(y + 0.15), math.sqrt(0.75) * jnp.abs(x) + (y + 0.15) / 2) - 0.58


def _star(x: Array, y: Array) -> Array:
    outer, inner, fifth = 1.15, 0.5, math.pi / 5
    turn = jnp.abs(jnp.mod(jnp.arctan2(x, y) + fifth, 2 * fifth) - fifth)
    length = jnp.hypot(x, y)
    corner = inner * math.cos(fifth), inner * math.sin(fifth)
    normal = np.asarray((corner[1], outer - corner[0]), np.float32)
    normal /= np.hypot(*normal)
    along, across = length * jnp.cos(turn) - outer, length * jnp.sin(turn)
    return normal[0] * along + normal[1] * across


def _cross(x: Array, y: Array) -> Array:
    x, y = jnp.abs(x), jnp.abs(y)
    return jnp.minimum(jnp.maximum(x - 1, y - 0.32), jnp.maximum(x - 0.32, y - 1))


def _ring(x: Array, y: Array) -> Array:
    return jnp.abs(jnp.hypot(x, y) - 0.74) - 0.24


_DISTANCES = (_circle, _square, _triangle, _star, _cross, _ring)


def generate(
    count: int,
    *,
    seed: int = 0,
    step: int = 0,
    size: int = 48,
    held_out: bool | None = False,
    alike: int = 1,
) -> Scenes:
    """Some scenes with captions; the same arguments give the same ones.

    Args:
      count: how many.
      seed: of the whole stream of scenes.
      step: which part of the stream.
      size: side of the pictures in pixels.
      held_out: see `draw_facts`.
      alike: see `draw_facts`.

    Raises:
      TypeError, ValueError: naming `count`, `seed`, `step`, `size` or `alike`.

    Example:
      >>> from scripts.clip_scenes import scenes
      >>> some = scenes.generate(2, seed=3)
      >>> some.captions
      ('...', '...')
    """
    checks.count("count", count)
    checks.count("seed", seed, low=0)
    checks.count("step", step, low=0)
    # Held-out scenes come from a stream of their own.
    rng = np.random.default_rng((seed, step, int(held_out is not False)))
    facts = draw_facts(rng, count, held_out=held_out, alike=alike)
    told = {fact: rng.random(count) < share for fact, share in _TOLD.items()}
    captions = tuple(
        caption(
            rng,
            {fact: int(values[i]) for fact, values in facts.items()},
            {fact: bool(values[i]) for fact, values in told.items()},
        )
        for i in range(count)
    )
    images, masks = draw(rng, facts, size)
    return Scenes(images, masks, captions, facts, told)


def stream(
    count: int, *, seed: int = 0, size: int = 48, held_out: bool | None = False
) -> Iterator[Scenes]:
    """Scenes without end, `count` at a time; part t is `generate(…, step=t)`.

    Example:
      >>> from scripts.clip_scenes import scenes
      >>> len(next(scenes.stream(4)))
      4
    """
    for step in itertools.count():
        yield generate(count, seed=seed, step=step, size=size, held_out=held_out)
