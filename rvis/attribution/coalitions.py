"""Games of coalitions: parts of an image are there or not, and a model says what that is worth."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rvis import checks, engine, struct
from rvis.analysis.questions import Question, ask, baselines
from rvis.attribution.segments import segment_maps
from rvis.engine import policy
from rvis.models import taps
from rvis.objectives import Objective
from rvis.types import Array, ArrayLike, Model, as_key, on_device

Game = Callable[[Array], Array]
"""Coalitions (m, players) of bool to their values (m, ...); pure, and hashing by value or a pytree
(`rvis.struct.dataclass`, `jax.tree_util.Partial`) whose arrays are traced."""


class Values(Protocol):
    """A game of n examples at once, as a pytree."""

    def values(self, example: ArrayLike, draw: ArrayLike, coalitions: Array) -> Array:
        """(m, ...) values of coalitions (m, players) of one example over one of its baselines."""


@struct.dataclass
class _Users:
    """A user's game, as a pytree."""

    game: Any

    def values(self, example: ArrayLike, draw: ArrayLike, coalitions: Array) -> Array:
        del example, draw
        return self.game(coalitions)


@struct.dataclass
class _Pictures:
    """The target's value on images whose absent parts are a baseline's.

    Attributes:
      baselines: (b, H, W, C) to draw from, or (n, H, W, C).
      segments: (n, H, W) the number of each pixel's player.
      drawn: whether baselines are drawn, and not each image's own.
    """

    model: Model
    images: Array
    baselines: Array
    segments: Array
    target: Objective
    drawn: bool = struct.static()

    def values(self, example: ArrayLike, draw: ArrayLike, coalitions: Array) -> Array:
        present = coalitions[:, self.segments[example]][..., None]
        absent = self.baselines[draw if self.drawn else example]
        seen = jnp.where(present, self.images[example], absent)
        found = taps.activations(self.model, seen, self.target.layers)
        target = jax.tree.map(lambda leaf: leaf[example], self.target)

        def one(activations: dict[str, Array]) -> Array:
            return target(jax.tree.map(lambda leaf: leaf[None], activations))

        return jax.vmap(one)(found)


def _in_blocks(
    game: Values, example: ArrayLike, draw: ArrayLike, coalitions: Array, block: int
) -> Array:
    """The values (m, ...) of coalitions (m, players), `block` side by side."""
    blocks = -(-len(coalitions) // block)
    if blocks == 1:
        return game.values(example, draw, coalitions).astype(jnp.float32)
    padded = jnp.pad(coalitions, ((0, blocks * block - len(coalitions)), (0, 0)))
    # One pair's coalitions are part of one step: in turn, since all at once would leave the cache.
    values = lax.map(
        lambda some: game.values(example, draw, some).astype(jnp.float32),
        padded.reshape(blocks, block, -1),
    )
    return values.reshape(blocks * block, *values.shape[2:])[: len(coalitions)]


class Lane(NamedTuple):
    """A part of an example's work, to the engine an example of its own, so that all cores work.

    Attributes:
      example: its number.
      draw: the number of its baseline, where the lane is of one.
    """

    example: ArrayLike
    draw: ArrayLike


@struct.dataclass
class Blocks:
    """The values of all coalitions in the order of their bits; a step is a block of them."""

    game: Values
    players: int = struct.static()
    block: int = struct.static()

    def init(self, key: Array, first: Array) -> Array:
        return first

    def step(self, key: Array, first: Array, model: None, lane: Lane) -> tuple[Array, Array]:
        numbers = first + jnp.arange(self.block, dtype=first.dtype)
        members = (numbers[:, None] >> jnp.arange(self.players, dtype=first.dtype)[None]) & 1 == 1
        return first + self.block, self.game.values(*lane, members).astype(jnp.float32)


@struct.dataclass
class Listed:
    """The values of some coalitions (m, players), the same for every lane; a step is a block."""

    game: Values
    members: Array
    block: int = struct.static()

    def init(self, key: Array, first: Array) -> Array:
        return first

    def step(self, key: Array, first: Array, model: None, lane: Lane) -> tuple[Array, Array]:
        some = jax.lax.dynamic_slice_in_dim(self.members, first, self.block)
        return first + self.block, self.game.values(*lane, some).astype(jnp.float32)


class Pair(NamedTuple):
    """What a pair of permutations tells.

    Attributes:
      places: (players,) the place of each player in the first; the second is its reverse.
      values: (2·(players − 1), ...) of the first 1, 2, … players of the first, then of the second.
      none, full: (...) v(none) and v(all).
    """

    places: Array
    values: Array
    none: Array
    full: Array


@struct.dataclass
class Permutations:
    """Pairs of a permutation and its reverse; a step is a pair.

    Attributes:
      key: pair i uses `fold_in(key, i)`, whichever example it is of.
      draws: baselines to draw one from for each pair; at least 1.
      block: coalitions computed side by side.
      groups: (levels, players) the group of each player, coarsest first: those of one group come
        one after another.
    """

    game: Values
    key: Array
    draws: Array
    groups: Array
    players: int = struct.static()
    block: int = struct.static()

    def init(self, key: Array, first: Array) -> Any:
        return first

    def step(self, key: Array, number: Array, model: None, lane: Lane) -> tuple[Any, Pair]:
        return number + 1, self.pair(number, lane.example)

    def pair(self, number: Array, example: ArrayLike) -> Pair:
        """What pair `number` tells of an example."""
        p = self.players
        own = jax.random.fold_in(self.key, number)
        bits = jax.random.bits(own, (p + 1,), jnp.uint32)
        if len(self.groups):
            shape = self.groups.shape
            ranks = jax.random.bits(jax.random.fold_in(own, 1), shape, jnp.uint32)
            ranks = jnp.take_along_axis(ranks, self.groups, 1)
            # Groups of equal rank would be mixed; their numbers tell them apart.
            keys = [part for level in zip(self.groups, ranks, strict=True) for part in level]
            order = jnp.lexsort([bits[:-1], *reversed(keys)])
            places = jnp.argsort(order).astype(jnp.int32)
        else:
            places = jnp.argsort(bits[:-1]).astype(jnp.int32)
        share = (bits[-1] >> 8).astype(jnp.float32) / 2**24
        draws = jnp.asarray(self.draws, jnp.float32)
        draw = jnp.minimum(share * draws, draws - 1).astype(jnp.int32)
        sizes = jnp.arange(1, p, dtype=jnp.int32)[:, None]
        # Both ends anew for every pair: beside its own coalitions they cost less than a run does.
        ends = jnp.asarray([[False], [True]]) & jnp.ones((2, p), bool)
        coalitions = jnp.concatenate([places[None] < sizes, p - 1 - places[None] < sizes, ends])
        values = _in_blocks(self.game, example, draw, coalitions, self.block)
        return Pair(places, values[:-2], values[-2], values[-1])


def shares(xp: Any, places: Any, values: Any, none: Any, full: Any) -> Any:
    """(players, ...) the mean of what each player changes in a permutation and in its reverse.

    It sums to v(all) − v(none), since both permutations' changes telescope.

    Args:
      xp: `numpy`, for all of its precision, or `jax.numpy`.
      places, values: see `Pair`.
      none, full: (...) v(none) and v(all).
    """
    last = len(places) - 1
    total = 0
    for part, order in ((values[:last], places), (values[last:], last - places)):
        path = xp.concatenate([none[None], part, full[None]])
        total = total + (path[1:] - path[:-1])[order]
    return total / 2


def standard_errors(xp: Any, count: Any, sums: Any) -> Any:
    """Standard errors (players, ...) of means over `count` pairs.

    The variance of a player that seldom matters is seldom seen. So each variance is drawn towards
    the mean of all players', by the share of their spread that is sampling noise (an empirical
    Bayes estimate, after James & Stein).

    Args:
      xp: `numpy` or `jax.numpy`.
      count: pairs, at least 2.
      sums: the sums over pairs of the shares, each less that of the first pair, to the powers 1 to
        4, (players, ...) each.
    """
    mean, second, third, fourth = (power / count for power in sums)
    square = xp.maximum(second - mean**2, 0)
    variance = square * count / (count - 1)
    kurtosis = xp.maximum(fourth - 4 * mean * third + 6 * mean**2 * second - 3 * mean**4, 0)
    noise = (xp.maximum(kurtosis - square**2, 0) / count).mean(0)
    spread = variance.var(0) * len(variance) / max(1, len(variance) - 1)
    weight = xp.where(spread > noise, noise / xp.where(spread > 0, spread, 1), 1)
    return xp.sqrt((weight * variance.mean(0) + (1 - weight) * variance) / count)


LEAST = 16
"""Pairs of permutations before an error is believed."""
LOOK = 8
"""Pairs from one look at the tolerance to the next."""


@struct.dataclass
class UntilSure:
    """Pairs until no player's standard error is above the tolerance; shares are (players, ...)."""

    permutations: Permutations
    tolerance: Array
    shape: tuple[int, ...] = struct.static()

    def init(self, key: Array, start: Array) -> Any:
        # The first pair's shares are subtracted from all, so that little cancels.
        zeros = jnp.zeros(self.shape, jnp.float32)
        return start, zeros, (zeros,) * 4

    def step(self, key: Array, state: Any, model: None, lane: Lane) -> tuple[Any, Pair]:
        count, first, sums = state
        pair = self.permutations.pair(count, lane.example)
        own = shares(jnp, *pair)
        first = jnp.where(count == 0, own, first)
        away = own - first
        sums = tuple(total + away ** (power + 1) for power, total in enumerate(sums))
        return (count + 1, first, sums), pair

    def done(self, state: Any) -> Array:
        count, _, sums = state
        errors = standard_errors(jnp, jnp.maximum(count, 2).astype(jnp.float32), sums)
        looked_at = (count >= LEAST) & (count % LOOK == 0)
        return looked_at & (errors.max() <= self.tolerance)


@dataclasses.dataclass(frozen=True)
class Plan:
    """A checked game: n examples, p players, and b baselines to draw from (0 where fixed).

    Attributes:
      pixels: of a coalition, for the engine.
      shape: of a value.
      pictures: the question and the segments, where the game is of images.
    """

    game: Values
    examples: int
    players: int
    draws: int
    shape: tuple[int, ...]
    pixels: int
    label: str
    pictures: tuple[Question, np.ndarray] | None = None

    def block(self, count: int) -> int:
        """How many of `count` coalitions are computed side by side: blocks of equal size."""
        return policy.equal_blocks(self.pixels, count, widest=16 if self.pictures else 256)

    def run(self, algorithm: Any, problems: Any, **options: Any) -> engine.Run:
        """`engine.run` without a model, which the game has, and without keys of examples."""
        count = len(jax.tree.leaves(problems)[0])
        keys = jnp.broadcast_to(as_key(0), (count,))
        options |= {"failure": _not_finite}
        return engine.run(algorithm, None, problems, keys, **options)

    def lanes(self, steps: int) -> int:
        """In how many parts of equal size an example's steps are cut.

        Few are made in vain, and two cores have as many each; of what serves them alike, the most.
        """
        most = range(1, -(-8 // self.examples) + 1)
        fine = [n for n in most if n == 1 or -(-steps // n) * n <= 1.0625 * steps]
        return min(fine, key=lambda n: (-(-n * self.examples // 2) * -(-steps // n), -n))


def _not_finite(examples: list[int]) -> str:
    return "target: a coalition's value is NaN or infinite"


def make_plan(
    model: Any, images: Any, target: Any, players: Any, baseline: Any, chunk: Any, callback: Any
) -> Plan:
    """Refuses what cannot be, before anything compiles."""
    if chunk is not None:
        checks.count("chunk", chunk)
    if not isinstance(model, Model):
        if images is not None or target is not None:
            raise TypeError(f"model: a Model was expected beside images, given {model!r}")
        return _plan_of_game(model, players)
    if images is None or target is None:
        raise TypeError("images and target: both were expected beside a Model")
    question = ask(model, images, target, callback=callback)
    height, width, _ = question.shape
    segments = segment_maps(players, question.images)
    absent = baselines(baseline, question.images)
    draws = absent.shape[1] if absent.shape[1] > 1 else 0
    game = _Pictures(
        model.unnamed(),
        on_device(question.images),
        on_device(absent[0] if draws else absent[:, 0]),
        on_device(segments),
        jax.tree.map(jnp.asarray, question.objective),
        bool(draws),
    )
    return Plan(
        game=game,
        examples=len(question.images),
        players=int(segments.max()) + 1,
        draws=draws,
        shape=(),
        pixels=height * width,
        label=f"{model.name} Shapley",
        pictures=(question, segments),
    )


def _plan_of_game(game: Any, players: Any) -> Plan:
    if not callable(game):
        raise TypeError(f"model: a Model or a game was expected, given {game!r}")
    count = checks.count("players", players)
    arrays = all(hasattr(leaf, "dtype") for leaf in jax.tree.leaves(game))
    if not arrays and not isinstance(game, Hashable):
        raise TypeError(f"model: a game that hashes, or is a pytree, was expected, given {game!r}")
    width = 257
    out = jax.eval_shape(game, jax.ShapeDtypeStruct((width, count), bool))
    shape = getattr(out, "shape", ())
    if shape[:1] != (width,):
        raise ValueError(
            f"model: a game that gives ({width}, …) values of ({width}, {count}) coalitions was "
            f"expected, given one that gives {shape or out}"
        )
    return Plan(
        game=_Users(game if arrays else jax.tree_util.Partial(game)),
        examples=1,
        players=count,
        draws=0,
        shape=shape[1:],
        pixels=1,
        label="Shapley",
    )
