"""Shapley values: what each player of a game, or each part of an image, is worth."""

from __future__ import annotations

import dataclasses
import math
import time
from functools import partial
from pathlib import Path
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from rvis import checkpoints, checks
from rvis.attribution.coalitions import Game, Plan, make_plan
from rvis.attribution.result import Attribution
from rvis.objectives import Objective
from rvis.results import describe
from rvis.types import Array, ArrayLike, KeyLike, Model, PyTree, as_key

MOST = 16
"""Players of an exact computation at most: 2¹⁶ coalitions."""

_ROUND = 8
"""Pairs of walks between two looks at the tolerance; fixed, so that no chunk moves the end."""


@dataclasses.dataclass(frozen=True, eq=False)
class Shares:
    """Shapley values of a game, how sure they are, and what they cost.

    Attributes:
      values: (players, ...) float64, one share of v(all) − v(none) a player.
      errors: (players, ...) standard errors of `values`; 0 where they are exact, NaN after a single
        pair of walks.
      gap: (...) v(all) − v(none) − Σ values: rounding alone, for every walk telescopes.
      calls: coalitions whose value was asked for.
      walks: permutations walked, reverses included; 0 for an exact computation.
      full: (...) v(all).
    """

    values: np.ndarray
    errors: np.ndarray
    gap: np.ndarray
    calls: int
    walks: int
    full: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class ShapleyAttribution(Attribution):
    """An `Attribution` whose maps spread each player's value evenly over its pixels.

    So a map sums to v(all) − v(none), and `gap` is v(all) − v(none) − Σ values.

    Attributes:
      values: (n, players) float64.
      errors: (n, players) standard errors of `values`; 0 where they are exact.
      calls: (n,) images that the model was asked about.
      walks: (n,) permutations walked; 0 for an exact computation.
    """

    values: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0)))
    errors: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0)))
    calls: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    walks: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))


@overload
def shapley(
    model: Game,
    images: None = None,
    target: None = None,
    *,
    players: int,
    chunk: int | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> Shares: ...


@overload
def shapley(
    model: Model,
    images: ArrayLike,
    target: ArrayLike | Objective,
    *,
    players: ArrayLike,
    baseline: str | ArrayLike = "mean",
    chunk: int | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> ShapleyAttribution: ...


def shapley(
    model: Any,
    images: Any = None,
    target: Any = None,
    *,
    players: Any,
    baseline: str | ArrayLike = "mean",
    chunk: int | None = None,
    checkpoint: str | Path | None = None,
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
        pixels), or an integer map (H, W) of segments, where each number is a player.
      baseline: "zero", "mean" (of each image's pixels, by channel), "blur" (Gaussian, σ an eighth
        of the shorter side), or an image (H, W, C); or a batch (b, H, W, C) of data, over which
        v is averaged.
      chunk: coalitions at once, a bound on memory that changes no result; 1024 on a CPU by default.
      checkpoint: a file where interrupted work is left, from which the same call goes on; it is
        removed at the end.
      progress: a bar on a terminal.

    Returns:
      `Shares` of a game; of images a `ShapleyAttribution`, players numbered row by row, or in
      the order of the segments' numbers.

    Raises:
      TypeError, ValueError: naming the argument, such as `players` for more than 16.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis.attribution.shapley import shapley
      >>> def lecture(s):
      ...     return jnp.where(s.all(-1), 2.5, s.sum(-1))
      >>> shapley(lecture, players=2).values.tolist()
      [1.25, 1.25]

    Reference: Shapley 1953, A value for n-person games; Lundberg & Lee 2017, eq. 4.
    """
    plan = make_plan(model, images, target, players, baseline, chunk)
    if plan.players > MOST:
        raise ValueError(
            f"players: at most {MOST} were expected, given {plan.players}; shapley_sampling takes "
            "any number"
        )
    shares = _exact(plan, None if checkpoint is None else Path(checkpoint), progress)
    arguments = {"target": target, "players": players, "baseline": baseline}
    return _finished(plan, shares, "shapley", model, arguments)


@overload
def shapley_sampling(
    model: Game,
    images: None = None,
    target: None = None,
    *,
    players: int,
    walks: int = 256,
    tolerance: float | None = None,
    key: KeyLike = 0,
    chunk: int | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> Shares: ...


@overload
def shapley_sampling(
    model: Model,
    images: ArrayLike,
    target: ArrayLike | Objective,
    *,
    players: ArrayLike,
    baseline: str | ArrayLike = "mean",
    walks: int = 256,
    tolerance: float | None = None,
    key: KeyLike = 0,
    chunk: int | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> ShapleyAttribution: ...


def shapley_sampling(
    model: Any,
    images: Any = None,
    target: Any = None,
    *,
    players: Any,
    baseline: str | ArrayLike = "mean",
    walks: int = 256,
    tolerance: float | None = None,
    key: KeyLike = 0,
    chunk: int | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> Any:
    """Shapley values by random walks from none to all, for any number of players.

    A walk lets the players in one by one in a random order; each is credited with what it changes.
    Its changes sum to v(all) − v(none), so that efficiency holds for every walk. Each walk comes
    with its reverse (antithetic pairs): the mean of the two is exact for games of at most pairwise
    interactions. The error of the others falls as walks^−½. With a batch as baseline each pair
    draws one image of it, which estimates the marginal Shapley values. All images share the walks,
    so that one's result does not hang on its neighbours.

    Args:
      model: as in `shapley`.
      images: as in `shapley`.
      target: as in `shapley`.
      players: as in `shapley`.
      baseline: as in `shapley`; of a batch, each pair of walks draws one image.
      walks: permutations at most, an even number: half of them are reverses.
      tolerance: stop an image (or the game) as soon as no player's standard error is above it, in
        the value's unit; looked at after every 16 walks.
      key: seed or key of the permutations and draws; pair i uses `fold_in(key, i)`.
      chunk: as in `shapley`.
      checkpoint: as in `shapley`.
      progress: as in `shapley`.

    Returns:
      As `shapley`, with standard errors over the pairs.

    Raises:
      TypeError, ValueError: naming the argument.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis.attribution.shapley import shapley_sampling
      >>> def lecture(s):
      ...     return jnp.where(s.all(-1), 2.5, s.sum(-1))
      >>> shapley_sampling(lecture, players=2, walks=4).values.tolist()
      [1.25, 1.25]

    Reference: Castro et al. 2009, Polynomial calculation of the Shapley value based on sampling;
      Štrumbelj & Kononenko 2010 (baselines drawn from data); Mitchell et al. 2022, Sampling
      permutations for Shapley value estimation, §3.2 (antithetic).
    """
    plan = make_plan(model, images, target, players, baseline, chunk)
    if checks.count("walks", walks, low=2) % 2:
        raise ValueError(
            f"walks: an even number was expected, half of them reverses, given {walks}"
        )
    limit = None if tolerance is None else checks.number("tolerance", tolerance, above=0)
    seed = as_key(key)
    file = None if checkpoint is None else Path(checkpoint)
    shares = _sampled(plan, walks // 2, limit, seed, file, progress)
    arguments = {"target": target, "players": players, "baseline": baseline}
    arguments |= {"walks": walks, "tolerance": limit, "key": seed}
    return _finished(plan, shares, "shapley_sampling", model, arguments)


def _finished(
    plan: Plan, shares: list[Shares], function: str, model: Any, arguments: dict[str, Any]
) -> Shares | ShapleyAttribution:
    """What the user gets."""
    if plan.pictures is None:
        return shares[0]
    question, segments = plan.pictures
    values = np.stack([share.values for share in shares])
    density = values / np.bincount(segments.ravel())
    return ShapleyAttribution(
        maps=density[:, segments].astype(np.float32),
        images=question.images,
        scores=np.array([share.full for share in shares]),
        labels=question.labels,
        method=function,
        gap=np.stack([share.gap for share in shares]),
        config=describe(function=function, model=model.name, **arguments),
        values=values,
        errors=np.stack([share.errors for share in shares]),
        calls=np.array([share.calls for share in shares]),
        walks=np.array([share.walks for share in shares]),
    )


_BLOCK = 64
"""Pairs of walks drawn at once; fixed, so that one compiled program serves all chunks."""


@partial(jax.jit, static_argnames="players")
def _drawn(key: Array, block: Array, draws: Array, *, players: int) -> tuple[Array, Array]:
    """For each pair of a block the place (players,) that each player takes, and a baseline."""

    def one(pair: Array) -> tuple[Array, Array]:
        numbers = jax.random.bits(jax.random.fold_in(key, pair), (players + 1,))
        share = (numbers[-1] >> 8).astype(jnp.float32) / 2**24
        return jnp.argsort(numbers[:-1]), jnp.minimum(share * draws, draws - 1).astype(jnp.int32)

    return jax.vmap(one)(block * _BLOCK + jnp.arange(_BLOCK))


def _walks(plan: Plan, key: Array, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places (k, players) and baselines (k,) of k pairs of walks."""
    if not len(pairs):
        return np.zeros((0, plan.players), int), np.zeros(0, int)
    blocks, which = np.unique(pairs // _BLOCK, return_inverse=True)
    draws = np.int32(max(1, plan.draws))
    found = [_drawn(key, np.int32(block), draws, players=plan.players) for block in blocks]
    rows = which * _BLOCK + pairs % _BLOCK
    places, draw = (np.concatenate(leaves)[rows] for leaves in zip(*found, strict=True))
    return places, draw


def _saved(file: Path | None, state: PyTree, about: dict[str, Any]) -> None:
    if file is not None:
        # As bits: checkpoints hold what JAX holds, which is no float64.
        checkpoints.save(file, jax.tree.map(lambda leaf: leaf.view(np.uint32), state), about=about)


def _restored(file: Path | None, state: PyTree, about: dict[str, Any]) -> PyTree:
    if file is None or not file.exists():
        return state
    bits = jax.tree.map(lambda leaf: leaf.view(np.uint32), state)
    bits, _ = checkpoints.load(file, bits, expect=about["fingerprint"])
    return jax.tree.map(lambda leaf: np.array(leaf).view(np.float64), bits)


# Exact values


@dataclasses.dataclass(frozen=True)
class _Table:
    """Coalitions' values so far, summed over baselines.

    Replaced whole, so that an interruption finds either the old or the new.
    """

    sums: np.ndarray
    done: np.ndarray


def _exact(plan: Plan, file: Path | None, progress: bool) -> list[Shares]:
    p, draws = plan.players, max(1, plan.draws)
    size = 2**p
    members = (np.arange(size)[:, None] >> np.arange(p)) & 1 == 1
    total = plan.examples * draws * size
    about = {"fingerprint": plan.fingerprint("exact") if file is not None else ""}
    start = (np.zeros((plan.examples * size, *plan.shape)), np.zeros(1))
    table = _Table(*_restored(file, start, about))

    def rows(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        numbers = numbers + int(table.done[0])
        example, rest = np.divmod(numbers, draws * size)
        draw, coalition = np.divmod(rest, size)
        return example, draw, members[coalition]

    disable = None if progress else True
    unit = "image" if plan.pictures else "coalition"
    clock = time.monotonic()
    bar = tqdm(total=total, desc=plan.label, unit=unit, disable=disable, leave=False)
    bar.update(int(table.done[0]))
    with bar:
        try:
            while (first := int(table.done[0])) < total:
                last = min(first + plan.chunk, total)
                values = plan.values(last - first, rows, bar)
                numbers = np.arange(first, last)
                sums = table.sums.copy()
                np.add.at(sums, numbers // (draws * size) * size + numbers % size, values)
                table = _Table(sums, np.array([float(last)]))
                if time.monotonic() - clock > 10:
                    _saved(file, dataclasses.astuple(table), about)
                    clock = time.monotonic()
        except KeyboardInterrupt:
            _saved(file, dataclasses.astuple(table), about)
            raise
    if file is not None:
        file.unlink(missing_ok=True)
    tables = table.sums.reshape(plan.examples, size, *plan.shape) / draws
    return [_solved(v, members, draws * size) for v in tables]


def _solved(v: np.ndarray, members: np.ndarray, calls: int) -> Shares:
    """Shares from the values (2^p, ...) of all coalitions, player i being bit i."""
    p = members.shape[1]
    sizes = members.sum(1)
    numbers = np.arange(len(v))
    weights = np.array([1 / (p * math.comb(p - 1, s)) for s in range(p)])
    values = np.empty((p, *v.shape[1:]))
    for i in range(p):
        without = numbers[~members[:, i]]
        change = v[without | 1 << i] - v[without]
        values[i] = np.tensordot(weights[sizes[without]], change, 1)
    gap = v[-1] - v[0] - values.sum(0)
    return Shares(values, np.zeros_like(values), gap, calls, 0, v[-1])


# Sampled values


@dataclasses.dataclass(frozen=True)
class _Moments:
    """Of each example: pairs walked, mean share, sum of squared deviations, mean v(none)."""

    pairs: np.ndarray
    mean: np.ndarray
    squares: np.ndarray
    empty: np.ndarray

    def errors(self) -> np.ndarray:
        """Standard errors of the mean; NaN with a single pair."""
        pairs = self.pairs.reshape(-1, *(1,) * (self.mean.ndim - 1))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.sqrt(self.squares / (pairs - 1) / pairs)

    def with_pairs(self, examples: np.ndarray, shares: np.ndarray, empty: np.ndarray) -> _Moments:
        """One pair after another, so that no grouping of them moves a bit."""
        new = _Moments(self.pairs.copy(), self.mean.copy(), self.squares.copy(), self.empty.copy())
        for e, share, none in zip(examples, shares, empty, strict=True):
            new.pairs[e] += 1
            change = share - new.mean[e]
            new.mean[e] += change / new.pairs[e]
            new.squares[e] += change * (share - new.mean[e])
            new.empty[e] += (none - new.empty[e]) / new.pairs[e]
        return new


def _sampled(
    plan: Plan,
    pairs: int,
    tolerance: float | None,
    key: Array,
    file: Path | None,
    progress: bool,
) -> list[Shares]:
    n, p = plan.examples, plan.players
    slots = 2 * (p - 1) + (plan.draws > 0)
    ends = 1 if plan.draws else 2
    group = max(1, plan.chunk // max(1, slots))
    fingerprint = plan.fingerprint(key, pairs, str(tolerance)) if file is not None else ""
    about = {"fingerprint": fingerprint}
    zeros = np.zeros((n, p, *plan.shape))
    state = _Moments(np.zeros(n), zeros, zeros, np.zeros((n, *plan.shape)))
    state = _Moments(*_restored(file, dataclasses.astuple(state), about))
    disable = None if progress else True
    unit = "image" if plan.pictures else "coalition"
    total = n * (ends + pairs * slots)
    bar = tqdm(total=total, desc=plan.label, unit=unit, disable=disable, leave=False)
    clock = time.monotonic()
    with bar:
        found: np.ndarray | None = None
        bar.update(int(state.pairs.sum()) * slots)
        try:
            while len(items := _next(state, pairs, tolerance, group)) or found is None:
                shares, none, found = _walked(plan, key, items, found, ends, slots, bar)
                state = state.with_pairs(items[:, 1], shares, none)
                if time.monotonic() - clock > 10:
                    _saved(file, dataclasses.astuple(state), about)
                    clock = time.monotonic()
        except KeyboardInterrupt:
            _saved(file, dataclasses.astuple(state), about)
            raise
    if file is not None:
        file.unlink(missing_ok=True)
    full, errors = found[:, 0], state.errors()
    gap = full - state.empty - state.mean.sum(1)
    walked = state.pairs.astype(int)
    return [
        Shares(
            state.mean[e],
            errors[e],
            gap[e],
            ends + int(walked[e]) * slots,
            2 * int(walked[e]),
            full[e],
        )
        for e in range(n)
    ]


def _next(state: _Moments, pairs: int, tolerance: float | None, group: int) -> np.ndarray:
    """Up to `group` (pair, example) that come next; each example's pairs in order."""
    counts = state.pairs.astype(int)
    stop = np.minimum(counts + group, pairs)
    if tolerance is not None:
        stop = np.minimum(stop, (counts // _ROUND + 1) * _ROUND)
        largest = state.errors().reshape(len(counts), -1).max(1)
        looked_at = (counts > 0) & (counts % _ROUND == 0)
        stop = np.where(looked_at & (largest <= tolerance), counts, stop)
    pending = np.nonzero(stop > counts)[0][:group]
    items = [(pair, e) for e in pending for pair in range(counts[e], stop[e])]
    return np.array(sorted(items)[:group], int).reshape(-1, 2)


def _walked(
    plan: Plan,
    key: Array,
    items: np.ndarray,
    found: np.ndarray | None,
    ends: int,
    slots: int,
    bar: tqdm,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each pair of walks its mean shares (k, p, ...) and its v(none) (k, ...).

    And (n, ends, ...), v(all) and, where baselines are not drawn, v(none) of every example: found
    before, or with the walks, for which they need no time of their own.
    """
    number, example = items.T
    k, p = len(items), plan.players
    places, draw = _walks(plan, key, number)
    first = 0 if found is not None else plan.examples * ends

    def rows(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The ends; then a walk's coalitions of 1 to p − 1, its reverse's, the empty one's."""
        of_ends, which = np.divmod(numbers[numbers < first], ends)
        item, slot = np.divmod(numbers[numbers >= first] - first, slots)
        size = slot % max(1, p - 1) + 1
        back = (slot >= p - 1)[:, None]
        there = np.where(back, p - 1 - places[item], places[item])
        walked = there < np.where(slot < 2 * (p - 1), size, 0)[:, None]
        whole = np.broadcast_to(which[:, None] == 0, (len(which), p))
        return (
            np.concatenate([of_ends, example[item]]),
            np.concatenate([np.zeros_like(of_ends), draw[item]]),
            np.concatenate([whole, walked]),
        )

    values = plan.values(first + k * slots, rows, bar)
    if found is None:
        found = values[:first].reshape(plan.examples, ends, *plan.shape)
    told = values[first:].reshape(k, slots, *plan.shape)
    none = told[:, -1] if plan.draws else found[example, -1]
    last = found[example, 0]
    shares = np.zeros((k, p, *plan.shape))
    for start, order in ((0, places), (p - 1, p - 1 - places)):
        between = told[:, start : start + p - 1]
        steps = np.diff(np.concatenate([none[:, None], between, last[:, None]], 1), axis=1)
        shares += steps[np.arange(k)[:, None], order]
    return shares / 2, none, found
