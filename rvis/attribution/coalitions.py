"""Games of coalitions: parts of an image are there or not, and a model says what that is worth."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.signal import convolve
from tqdm import tqdm

from rvis import checkpoints, checks, taps
from rvis.attribution.stream import Question, ask
from rvis.compilation import abreast, hands, jit
from rvis.objectives import Objective
from rvis.types import Array, Model

Game = Callable[[Array], Array]
"""Coalitions (m, players) of bool to their values (m, ...); pure, and hashing by value or a pytree
(`flax.struct.dataclass`, `jax.tree_util.Partial`) whose arrays are traced."""


class Values(Protocol):
    """A game of n examples at once, as a pytree."""

    def values(self, example: Array, draw: Array, coalitions: Array) -> Array:
        """(m, ...) values of m coalitions (m, players), each for its example and baseline."""


@flax.struct.dataclass
class _Traced:
    """A user's game that is a pytree."""

    game: Any
    kind: str = flax.struct.field(pytree_node=False, default="traced")

    def values(self, example: Array, draw: Array, coalitions: Array) -> Array:
        del example, draw
        return self.game(coalitions)


@flax.struct.dataclass
class _Static:
    """A user's game that is a function."""

    game: Game = flax.struct.field(pytree_node=False)
    kind: str = flax.struct.field(pytree_node=False, default="static")

    def values(self, example: Array, draw: Array, coalitions: Array) -> Array:
        del example, draw
        return self.game(coalitions)


@flax.struct.dataclass
class _Pictures:
    """The target's value on images whose absent parts are a baseline's."""

    model: Model
    images: Array
    baselines: Array
    segments: Array
    target: Objective
    kind: str = flax.struct.field(pytree_node=False, default="pictures")

    def values(self, example: Array, draw: Array, coalitions: Array) -> Array:
        present = coalitions[:, self.segments][..., None]
        seen = jnp.where(present, self.images[example], self.baselines[draw])
        found = taps.activations(self.model, seen, self.target.layers)
        targets = jax.tree.map(lambda leaf: leaf[example], self.target)

        def one(target: Objective, activations: dict[str, Array]) -> Array:
            return target(jax.tree.map(lambda leaf: leaf[None], activations))

        return jax.vmap(one)(targets, found)


@partial(jit, static_argnames=("width", "kind"))
def _evaluate(
    game: Values,
    example: Array,
    draw: Array,
    coalitions: Array,
    count: Array,
    *,
    width: int,
    kind: Any,
) -> Array:
    """The values of the first `count` coalitions, `width` side by side; zeros beyond."""
    del kind  # jaxlib 0.10 takes dataclasses with equal static fields for one type

    def rows(first: Array | int) -> tuple[Array, Array, Array]:
        cut = partial(lax.dynamic_slice_in_dim, start_index=first, slice_size=width)
        return cut(example), cut(draw), cut(coalitions)

    def block(i: Array, values: Array) -> Array:
        part = game.values(*rows(i * width)).astype(jnp.float32)
        return lax.dynamic_update_slice_in_dim(values, part, i * width, 0)

    shape = jax.eval_shape(lambda: game.values(*rows(0))).shape[1:]
    start = jnp.zeros((len(coalitions), *shape), jnp.float32)
    return lax.fori_loop(0, -(-count // width), block, start)


@dataclasses.dataclass(frozen=True)
class Plan:
    """A checked game: n examples, p players, and b baselines to draw from (0 where fixed)."""

    game: Values
    kind: Any
    examples: int
    players: int
    draws: int
    shape: tuple[int, ...]
    width: int
    chunk: int
    label: str
    pictures: tuple[Question, np.ndarray] | None = None

    def values(
        self,
        count: int,
        rows: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]],
        bar: tqdm,
    ) -> np.ndarray:
        """(count, ...) float64 values; `rows` gives examples, draws and coalitions by number."""
        found = np.empty((count, *self.shape))

        def part(numbers: np.ndarray) -> np.ndarray:
            example, draw, coalitions = rows(numbers)
            if not self.draws:
                draw = example
            padding = size - len(numbers)  # one program for all parts
            values = _evaluate(
                self.game,
                np.pad(example.astype(np.int32), (0, padding)),
                np.pad(draw.astype(np.int32), (0, padding)),
                np.pad(coalitions, ((0, padding), (0, 0))),
                np.int32(len(numbers)),
                width=self.width,
                kind=self.kind,
            )
            return np.asarray(values)[: len(numbers)]

        size = -(-self.chunk // (hands() * self.width)) * self.width
        for first in range(0, count, self.chunk):
            numbers = np.arange(first, min(first + self.chunk, count))
            share = -(-len(numbers) // (hands() * self.width)) * self.width
            parts = np.split(numbers, range(share, len(numbers), share))
            found[numbers] = np.concatenate(abreast(part, parts))
            bar.update(len(numbers))
        if not np.isfinite(found).all():
            raise FloatingPointError("target: a coalition's value is NaN or infinite")
        return found

    def fingerprint(self, *others: Any) -> str:
        """Of all that the values depend on; neither chunk nor progress are among it."""
        return checkpoints.fingerprint(self.game, self.players, self.draws, others)


def make_plan(
    model: Any, images: Any, target: Any, players: Any, baseline: Any, chunk: int | None
) -> Plan:
    """Refuses what cannot be, before anything compiles."""
    cpu = jax.default_backend() == "cpu"
    chunk = checks.count("chunk", chunk) if chunk is not None else 1024 if cpu else 16384
    if not isinstance(model, Model):
        if images is not None or target is not None:
            raise TypeError(f"model: a Model was expected beside images, given {model!r}")
        return _plan_of_game(model, players, chunk)
    if images is None or target is None:
        raise TypeError("images and target: both were expected beside a Model")
    question = ask(model, images, target)
    batch = jnp.asarray(question.images)
    n, height, width, _ = batch.shape
    segments = _segments(players, height, width)
    baselines, draws = _baselines(baseline, batch)
    # A few small images fit a core's cache; an accelerator wants many.
    side_by_side = (2**14 if cpu else 2**22) // (height * width)
    side_by_side = min(max(1, side_by_side), 16 if cpu else 1024)
    segmented = jnp.asarray(segments)
    return Plan(
        game=_Pictures(model.unnamed(), batch, baselines, segmented, question.objective),
        kind=type(question.objective),
        examples=n,
        players=int(segments.max()) + 1,
        draws=draws,
        shape=(),
        width=side_by_side,
        chunk=-(-chunk // side_by_side) * side_by_side,
        label=f"{model.name} Shapley",
        pictures=(question, segments),
    )


def _plan_of_game(game: Any, players: Any, chunk: int) -> Plan:
    if not callable(game):
        raise TypeError(f"model: a Model or a game was expected, given {game!r}")
    count = checks.count("players", players)
    arrays = all(hasattr(leaf, "dtype") for leaf in jax.tree.leaves(game))
    if not arrays and not isinstance(game, Hashable):
        raise TypeError(f"model: a game that hashes, or is a pytree, was expected, given {game!r}")
    width = 256
    out = jax.eval_shape(game, jax.ShapeDtypeStruct((width, count), bool))
    shape = getattr(out, "shape", ())
    if shape[:1] != (width,):
        raise ValueError(
            f"model: a game that gives ({width}, …) values of ({width}, {count}) coalitions was "
            f"expected, given one that gives {shape or out}"
        )
    return Plan(
        game=_Traced(game) if arrays else _Static(game),
        kind=type(game),
        examples=1,
        players=count,
        draws=0,
        shape=shape[1:],
        width=width,
        chunk=-(-chunk // width) * width,
        label="Shapley",
    )


def _segments(players: Any, height: int, width: int) -> np.ndarray:
    """(H, W) int32 player numbers from 0, without holes."""
    if isinstance(players, (int, np.integer)) and not isinstance(players, bool):
        side = checks.count("players", players)
        if side > max(height, width):
            raise ValueError(
                f"players: a patch's side of 1 to {max(height, width)} was expected, given {side}"
            )
        rows, columns = np.arange(height) // side, np.arange(width) // side
        return (rows[:, None] * (columns[-1] + 1) + columns).astype(np.int32)
    given = np.asarray(players)
    if given.dtype == bool or not np.issubdtype(given.dtype, np.integer):
        raise TypeError(
            "players: a patch's side in pixels or an integer map (H, W) of segments was expected, "
            f"given {players!r}"
        )
    if given.shape != (height, width):
        raise ValueError(
            f"players: a map of shape {(height, width)} was expected, given {given.shape}"
        )
    return np.unique(given, return_inverse=True)[1].reshape(given.shape).astype(np.int32)


def _baselines(baseline: Any, images: Array) -> tuple[Array, int]:
    """The pictures of absence: one an image and 0, or b to draw from and b."""
    if isinstance(baseline, str):
        checks.choice("baseline", baseline, ("zero", "mean", "blur"))
        if baseline == "zero":
            return jnp.zeros_like(images), 0
        if baseline == "mean":
            return jnp.broadcast_to(images.mean((1, 2), keepdims=True), images.shape), 0
        return _blurred(images), 0
    given = checks.images("baseline", baseline, channels=images.shape[3])
    if given.shape[1:] != images.shape[1:]:
        raise ValueError(
            f"baseline: {images.shape[1:]} an image was expected, given {given.shape[1:]}"
        )
    if np.ndim(baseline) == 3:
        return jnp.broadcast_to(given, images.shape), 0
    return given, len(given)


@jax.jit
def _blurred(images: Array) -> Array:
    """Gaussian blur with σ an eighth of the shorter side, edges repeated."""
    sigma = min(images.shape[1:3]) / 8
    reach = math.ceil(3 * sigma)
    bell = jnp.exp(-0.5 * (jnp.arange(-reach, reach + 1) / sigma) ** 2)
    bell = bell / bell.sum()
    pads = ((0, 0), (reach, reach), (reach, reach), (0, 0))
    padded = jnp.pad(images, pads, mode="edge")
    rows = convolve(padded, bell[None, :, None, None], mode="valid")
    return jnp.clip(convolve(rows, bell[None, None, :, None], mode="valid"), 0, 1)
