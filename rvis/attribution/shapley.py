"""Shapley values: what each player of a game, or each part of an image, is worth."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, TypedDict, Unpack, overload

import jax.numpy as jnp
import numpy as np
from scipy.special import stdtrit

from rvis import checks, gate
from rvis.attribution.coalitions import (
    Blocks,
    Game,
    Lane,
    Pair,
    Permutations,
    Plan,
    UntilSure,
    make_plan,
    shares,
    standard_errors,
)
from rvis.attribution.result import Attribution
from rvis.attribution.segments import spread_over
from rvis.files import PathLike
from rvis.results import describe
from rvis.types import Array, ArrayLike, KeyLike, Model, as_key, on_device

MOST = 16
"""Players of an exact computation at most: 2¹⁶ coalitions."""

Callback = Callable[[int, np.ndarray, np.ndarray], Any]


@dataclasses.dataclass(frozen=True, eq=False)
class ShapleyResult:
    """Shapley values of a game, how sure they are, and what they cost.

    Attributes:
      values: (players, ...) float64, what each player gets of v(all) − v(none).
      errors: (players, ...) standard errors of `values`; 0 for exact values, NaN after a single
        pair of permutations.
      gap: (...) v(all) − v(none) − Σ values: rounding alone, for every permutation telescopes.
      calls: coalitions whose value was asked for.
      permutations: how many were drawn, reverses included; 0 for an exact computation.
      full: (...) v(all).
    """

    values: np.ndarray
    errors: np.ndarray
    gap: np.ndarray
    calls: int
    permutations: int
    full: np.ndarray

    def intervals(self, level: float = 0.95) -> np.ndarray:
        """(2, players, ...) Student's intervals, of which a share `level` holds the truth."""
        return _intervals(self.values, self.errors, self.permutations, level)


@dataclasses.dataclass(frozen=True, eq=False)
class ShapleyAttribution(Attribution):
    """An `Attribution` whose maps spread each player's value evenly over its pixels.

    So a map sums to v(all) − v(none), and `gap` is v(all) − v(none) − Σ values.

    Attributes:
      values: (n, players) float64.
      errors: (n, players) standard errors of `values`; 0 for exact values.
      calls: (n,) images that the model was asked about.
      permutations: (n,) how many were drawn; 0 for an exact computation.
    """

    values: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0)))
    errors: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0)))
    calls: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    permutations: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))

    def intervals(self, level: float = 0.95) -> np.ndarray:
        """(2, n, players), as `ShapleyResult.intervals`."""
        return _intervals(self.values, self.errors, self.permutations[..., None], level)


def _intervals(values: np.ndarray, errors: np.ndarray, drawn: Any, level: float) -> np.ndarray:
    share = checks.number("level", level, above=0, high=1 - 1e-12)
    # Each pair is one observation.
    half = stdtrit(np.maximum(np.asarray(drawn) // 2 - 1, 1), (1 + share) / 2) * errors
    return np.stack([values - half, values + half])


class _Options(TypedDict, total=False):
    baseline: str | ArrayLike
    chunk: int | None
    checkpoint: PathLike | None
    progress: bool


class _Drawing(_Options, total=False):
    groups: Any
    permutations: int
    tolerance: float | None
    key: KeyLike
    callback: Callback | None


@overload
def shapley(model: Game, *, players: int, **options: Unpack[_Options]) -> ShapleyResult: ...


@overload
def shapley(
    model: Model, images: ArrayLike, target: Any, *, players: ArrayLike, **options: Unpack[_Options]
) -> ShapleyAttribution: ...


@gate.public
def shapley(
    model: Any,
    images: Any = None,
    target: Any = None,
    *,
    players: Any,
    baseline: str | ArrayLike = 0.0,
    chunk: int | None = None,
    checkpoint: PathLike | None = None,
    progress: bool = True,
) -> Any:
    """Shapley values by all coalitions, for up to 16 players.

        φᵢ = Σ_{S ∌ i} |S|! (p − |S| − 1)! / p! · (v(S ∪ {i}) − v(S))

    `shapley(game, players=2)` solves any game. `shapley(model, images, target, players=8)` asks how
    much each part of an image gives to the target: v(S) is the target's value on the image whose
    parts outside S are replaced by the baseline.

    Args:
      model: a network; or a game, a function of coalitions (m, players) of bool to values (m, ...).
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      target: a class number, or (n,) of them: that class's logit. Or an objective of
        `rvis.objectives`, one for all images or one each; `-probability(labels)` is the class loss.
      players: of a game their number; of images the side of square patches in pixels (1 for
        pixels), or an integer map (H, W) of segments, where each number is a player, or one for
        each image (n, H, W), such as `superpixels` gives.
      baseline: a number in [0, 1], "mean" (of each image's pixels, by channel), "blur" (Gaussian, σ
        an eighth of the shorter side), or an image (H, W, C); or a batch (b, H, W, C) of data, over
        which v is averaged.
      chunk: parts of images' work on the device at once, a bound on memory.
      checkpoint: a folder for the state of interrupted work; the same call then goes on.
      progress: a bar on a terminal.

    Returns:
      A `ShapleyResult` of a game; of images a `ShapleyAttribution`, players numbered row by row, or
      in the order of the segments' numbers.

    Raises:
      TypeError, ValueError: naming the argument, such as `players` for more than 16.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis.attribution.shapley import shapley
      >>> def lecture(s):
      ...     return jnp.where(s.all(-1), 2.5, s.sum(-1, dtype=float))
      >>> shapley(lecture, players=2).values.tolist()
      [1.25, 1.25]

    Reference: Shapley 1953, A value for n-person games; Lundberg & Lee 2017, eq. 4.
    """
    plan = make_plan(model, images, target, players, baseline, chunk, None)
    if plan.players > MOST:
        raise ValueError(
            f"players: at most {MOST} were expected, given {plan.players}; shapley_sampling takes "
            "any number"
        )
    run: dict[str, Any] = {"chunk": chunk, "checkpoint": checkpoint, "progress": progress}
    calls = max(1, plan.draws) * 2**plan.players
    results = [solved(v, plan.players, calls) for v in exact_values(plan, **run)]
    arguments: dict[str, Any] = {"target": target, "players": players, "baseline": baseline}
    return finished(plan, results, "shapley", **arguments)


@overload
def shapley_sampling(
    model: Game, *, players: int, **options: Unpack[_Drawing]
) -> ShapleyResult: ...


@overload
def shapley_sampling(
    model: Model, images: ArrayLike, target: Any, *, players: ArrayLike, **options: Unpack[_Drawing]
) -> ShapleyAttribution: ...


@gate.public
def shapley_sampling(
    model: Any,
    images: Any = None,
    target: Any = None,
    *,
    players: Any,
    baseline: str | ArrayLike = 0.0,
    groups: Any = None,
    permutations: int = 256,
    tolerance: float | None = None,
    key: KeyLike = 0,
    chunk: int | None = None,
    checkpoint: PathLike | None = None,
    callback: Callback | None = None,
    progress: bool = True,
) -> Any:
    """Shapley values by random permutations, for any number of players.

    A permutation lets the players in one by one; each is credited with what it changes. Each comes
    with its reverse (antithetic pairs): the mean of the two is exact for games of at most pairwise
    interactions. The error of the others falls as permutations^−½; it is taken over the pairs, and
    each player's variance is mixed with the mean of all players', by how much of their spread is
    sampling noise.

    Args:
      model, images, target, players: as in `shapley`.
      baseline: as in `shapley`; of a batch, each pair of permutations draws one image.
      groups: (levels, players) integers, the group of each player, coarsest level first; or
        "quadtree", of square patches. Players of one group then come in one after another, and the
        values are Owen's (of several levels Winter's).
      permutations: how many at most, an even number: half of them are reverses.
      tolerance: stop an image (or the game) as soon as no player's standard error is above it, in
        the value's unit; looked at after 32 permutations and then after every 16.
      key: seed or key of the permutations and draws; pair i uses `fold_in(key, i)`.
      chunk, checkpoint, progress: as in `shapley`.
      callback: `callback(step, values, full)` is called after every pair, with the permutations
        drawn, the values so far and v(all); where it returns True the work ends with these values.

    Returns:
      As `shapley`, with standard errors; `intervals()` gives Student's intervals.

    Raises:
      TypeError, ValueError: naming the argument.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis.attribution.shapley import shapley_sampling
      >>> def lecture(s):
      ...     return jnp.where(s.all(-1), 2.5, s.sum(-1, dtype=float))
      >>> shapley_sampling(lecture, players=2, permutations=4).values.tolist()
      [1.25, 1.25]

    Reference: Castro et al. 2009, Polynomial calculation of the Shapley value based on sampling;
      Štrumbelj & Kononenko 2010 (baselines drawn from data); Mitchell et al. 2022, Sampling
      permutations for Shapley value estimation, §3.2 (antithetic); Owen 1977,
      Winter 1989 (groups).
    """
    plan = make_plan(model, images, target, players, baseline, chunk, callback)
    if checks.count("permutations", permutations, low=2) % 2:
        raise ValueError(
            f"permutations: an even number was expected, half of them reverses, given "
            f"{permutations}"
        )
    limit = None if tolerance is None else checks.number("tolerance", tolerance, above=0)
    seed = as_key(key)
    options: dict[str, Any] = {"chunk": chunk, "checkpoint": checkpoint, "progress": progress}
    nested = _levels(groups, players, plan)
    results = _sampled(plan, permutations // 2, limit, seed, callback, nested, **options)
    arguments: dict[str, Any] = {"target": target, "players": players, "baseline": baseline}
    arguments |= {"groups": groups, "permutations": permutations}
    arguments |= {"tolerance": limit, "key": seed}
    return finished(plan, results, "shapley_sampling", **arguments)


def _levels(groups: Any, players: Any, plan: Plan) -> np.ndarray:
    """(levels, players) int32, the group of each player."""
    if groups is None:
        return np.zeros((0, plan.players), np.int32)
    if isinstance(groups, str):
        checks.choice("groups", groups, ("quadtree",))
        if plan.pictures is None or np.ndim(players) != 0:
            raise ValueError("groups: 'quadtree' is of images' square patches")
        height, width, _ = plan.pictures[0].shape
        rows, columns = np.divmod(np.arange(plan.players), -(-width // players))
        depth = (max(-(-height // players), -(-width // players)) - 1).bit_length()
        levels = [(rows >> d) << 16 | (columns >> d) for d in range(depth - 1, 0, -1)]
        groups = np.asarray(levels, np.int32).reshape(-1, plan.players)
    held = checks.integers("groups", groups, low=-checks.LARGEST)
    if held.ndim != 2 or held.shape[1] != plan.players:
        raise ValueError(f"groups: (levels, {plan.players}) was expected, given shape {held.shape}")
    dense = [np.unique(level, return_inverse=True)[1] for level in held]
    return np.asarray(dense, np.int32).reshape(held.shape)


def _sampled(
    plan: Plan,
    pairs: int,
    tolerance: float | None,
    key: Array,
    callback: Callback | None,
    groups: np.ndarray,
    **options: Any,
) -> list[ShapleyResult]:
    p, n = plan.players, plan.examples
    draws = on_device(max(1, plan.draws), jnp.int32)
    game = Permutations(plan.game, key, draws, on_device(groups), p, plan.block(2 * p))
    numbers = np.arange(n, dtype=np.int32)
    options |= {"pixels": plan.pixels * 2 * p, "label": plan.label}
    watch = None
    if callback is not None:

        def watch(step: int, states: Any, told: Pair) -> Any:
            so_far = [_averaged(plan, _row(told, i)) for i in range(n)]
            return callback(2 * step, *_told(plan, so_far))

    if tolerance is not None or callback is not None:
        lane = Lane(numbers, np.zeros_like(numbers))
        limit = on_device(-1 if tolerance is None else tolerance, jnp.float32)
        sure = UntilSure(game, limit, (p, *plan.shape))
        found = plan.run(
            sure,
            lane,
            steps=pairs,
            starts=np.zeros_like(numbers),
            callback=watch,
            **options,
        )
        made = [int(count) for count in found.made]
        return [_averaged(plan, _row(found.info, i, made[i])) for i in range(n)]
    lanes = plan.lanes(pairs)
    steps = -(-pairs // lanes)
    example = np.repeat(numbers, lanes)
    first = np.tile(np.arange(lanes, dtype=np.int32) * steps, n)
    lane = Lane(example, np.zeros_like(example))
    told = plan.run(game, lane, steps=steps, starts=first, **options).info
    whole = Pair(*(leaf.reshape(n, lanes * steps, *leaf.shape[2:]) for leaf in told))
    return [_averaged(plan, _row(whole, i, pairs)) for i in range(n)]


def _row(told: Pair, example: int, count: int | None = None) -> Pair:
    """The first pairs of one example."""
    return Pair(*(leaf[example, :count] for leaf in told))


def _averaged(plan: Plan, told: Pair) -> ShapleyResult:
    """The mean over pairs, in double precision, so that values sum to what they share."""
    values, none, full = (np.asarray(leaf, np.float64) for leaf in told[1:])
    pairs = len(values)
    each = np.stack([shares(np, *row) for row in zip(told.places, values, none, full, strict=True)])
    mean, whole = each.mean(0), full.mean(0)
    errors = np.full_like(mean, np.nan)
    if pairs > 1:
        away = each - each[0]
        errors = standard_errors(np, pairs, [(away**power).sum(0) for power in (1, 2, 3, 4)])
    gap = whole - none.mean(0) - mean.sum(0)
    return ShapleyResult(mean, errors, gap, 2 * pairs * plan.players, 2 * pairs, whole)


def exact_values(plan: Plan, **options: Any) -> np.ndarray:
    """(n, 2^p, ...) float64 values of all coalitions, player i being bit i."""
    p, n, draws = plan.players, plan.examples, max(1, plan.draws)
    size = 2**p
    block = plan.block(size)
    blocks = -(-size // block)
    lanes = plan.lanes(blocks)
    steps = -(-blocks // lanes)
    example, draw, lane = (part.ravel() for part in np.indices((n, draws, lanes), np.int32))
    found = plan.run(
        Blocks(plan.game, p, block),
        Lane(example, draw),
        steps=steps,
        starts=lane * np.int32(steps * block),
        pixels=plan.pixels * block,
        label=plan.label,
        **options,
    )
    values = found.info.reshape(n, draws, -1, *plan.shape)[:, :, :size]
    return values.mean(1, dtype=np.float64)


def solved(v: np.ndarray, players: int, calls: int) -> ShapleyResult:
    """From the values (2^p, ...) of all coalitions, player i being bit i."""
    numbers = np.arange(len(v))
    members = (numbers[:, None] >> np.arange(players)) & 1 == 1
    sizes = members.sum(1)
    weights = np.array([1 / (players * math.comb(players - 1, s)) for s in range(players)])
    values = np.empty((players, *v.shape[1:]))
    for i in range(players):
        without = numbers[~members[:, i]]
        change = v[without | 1 << i] - v[without]
        values[i] = np.tensordot(weights[sizes[without]], change, 1)
    gap = v[-1] - v[0] - values.sum(0)
    return ShapleyResult(values, np.zeros_like(values), gap, calls, 0, v[-1])


def _told(plan: Plan, results: list[ShapleyResult]) -> tuple[np.ndarray, np.ndarray]:
    """Values and v(all) with the axis of images that was given."""
    values, full = (np.stack([getattr(r, name) for r in results]) for name in ("values", "full"))
    if plan.pictures is None:
        return values[0], full[0]
    question, _ = plan.pictures
    return question.shaped(values), question.shaped(full)


def finished(
    plan: Plan, results: list[ShapleyResult], function: str, **arguments: Any
) -> ShapleyResult | ShapleyAttribution:
    """What the user gets."""
    if plan.pictures is None:
        return results[0]
    question, segments = plan.pictures

    def all_(name: str) -> np.ndarray:
        return question.shaped(np.array([getattr(result, name) for result in results]))

    values = all_("values")
    shares = np.stack([result.values for result in results])
    if shares.ndim == 3:  # interactions: half of each pair's goes to either
        shares = (shares + shares * np.eye(plan.players)).sum(2) / 2
    return ShapleyAttribution(
        maps=question.shaped(spread_over(shares, segments)),
        images=question.shaped(question.images),
        scores=all_("full"),
        labels=question.shaped(question.labels),
        method=function,
        gap=all_("gap"),
        config=describe(function=function, model=question.model.name, **arguments),
        values=values,
        errors=all_("errors"),
        calls=all_("calls"),
        permutations=all_("permutations"),
    )
