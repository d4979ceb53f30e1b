"""Linear models of what parts of an image do: KernelSHAP and LIME, and pairs of parts."""

from __future__ import annotations

import itertools
import math
from typing import Any

import jax
import numpy as np

from rvis import checks, gate
from rvis.attribution.coalitions import Game, Lane, Listed, Plan, make_plan
from rvis.attribution.shapley import (
    MOST,
    ShapleyAttribution,
    ShapleyResult,
    exact_values,
    finished,
)
from rvis.files import PathLike
from rvis.types import ArrayLike, KeyLike, Model, as_key, on_device


@gate.public
def kernel_shap(
    model: Model | Game,
    images: ArrayLike | None = None,
    target: Any = None,
    *,
    players: Any,
    baseline: str | ArrayLike = 0.0,
    key: KeyLike = 0,
    samples: int = 2048,
    chunk: int | None = None,
    checkpoint: PathLike | None = None,
    progress: bool = True,
) -> ShapleyResult | ShapleyAttribution:
    """Shapley values as the linear model of a game under the Shapley kernel.

    Where 2ᵖ − 2 coalitions are no more than `samples`, all are asked and the values are exact. Else
    coalitions come in pairs with their complements, of sizes s drawn by (p − 1) / (s (p − s)), and
    all of the sizes that are expected to be drawn whole are taken whole, each once.

    Args:
      model, images, target, players, baseline: as in `shapley`; any number of players.
      key: an int seed or a typed key; the same coalitions serve every image.
      samples: coalitions at most, beside those of all players and of none.
      chunk, checkpoint, progress: as in `shapley`.

    Returns:
      As `shapley`. `errors` are 0 for exact values, else NaN: a regression gives none.

    Raises:
      TypeError, ValueError: naming the argument.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import attribution
      >>> def lecture(s):
      ...     return jnp.where(s.all(-1), 2.5, s.sum(-1))
      >>> attribution.kernel_shap(lecture, players=2).values.round(6).tolist()
      [1.25, 1.25]

    Reference: Lundberg & Lee 2017, theorem 2; pairs: Covert & Lee 2021, section 4.2.
    """
    plan = make_plan(model, images, target, players, baseline, chunk, None)
    p, seed = plan.players, as_key(key)
    checks.count("samples", samples, low=2)
    members, weights = _kernel_coalitions(p, samples, seed)
    run: dict[str, Any] = {"chunk": chunk, "checkpoint": checkpoint, "progress": progress}
    whole = len(members) == 2**p - 2
    results = []
    for own, none, full in _values(plan, members, **run):
        solution = _constrained(members, weights, own - none, full - none)
        errors = np.full_like(solution, 0 if whole else np.nan)
        gap = full - none - solution.sum(0)
        results.append(ShapleyResult(solution, errors, gap, len(members) + 2, 0, full))
    about: dict[str, Any] = {"target": target, "players": players, "baseline": baseline}
    return finished(plan, results, "kernel_shap", samples=samples, key=seed, **about)


@gate.public
def lime(
    model: Model | Game,
    images: ArrayLike | None = None,
    target: Any = None,
    *,
    players: Any,
    baseline: str | ArrayLike = 0.0,
    width: float = 0.25,
    ridge: float = 1.0,
    key: KeyLike = 0,
    samples: int = 1000,
    chunk: int | None = None,
    checkpoint: PathLike | None = None,
    progress: bool = True,
) -> ShapleyResult | ShapleyAttribution:
    """The ridge regression of a game on who is there, near to all being there.

    Coalitions are drawn with every player there with probability ½ (all, each once, where 2ᵖ is no
    more than `samples`), and count by exp(−d² / 2 width²), d the cosine distance to all of them.
    The intercept is not shrunk.

    Args:
      model, images, target, players, baseline: as in `shapley`; any number of players.
      width: of the kernel.
      ridge: what the squares of the coefficients count.
      key: an int seed or a typed key; the same coalitions serve every image.
      samples: coalitions, that of all players among them.
      chunk, checkpoint, progress: as in `shapley`.

    Returns:
      As `shapley`: `values` are the coefficients, which need not sum to anything; `errors` NaN.

    Raises:
      TypeError, ValueError: naming the argument.

    Example:
      >>> from rvis import attribution
      >>> attribution.lime(lambda s: 3.0 * s[:, 0] + s[:, 1], players=2, ridge=0).values.round(4)
      array([3., 1.])

    Reference: Ribeiro et al. 2016, "Why Should I Trust You?", section 3.4, with the settings of the
      authors' code for images (whose kernel is the root of the paper's).
    """
    plan = make_plan(model, images, target, players, baseline, chunk, None)
    p, seed = plan.players, as_key(key)
    checks.count("samples", samples, low=2)
    wide = checks.number("width", width, above=0)
    shrink = checks.number("ridge", ridge, low=0)
    if p < 31 and 2**p <= samples:
        members = _every(p)
    else:
        members = np.array(jax.random.bernoulli(seed, 0.5, (samples, p)))
        members[0] = True
    run: dict[str, Any] = {"chunk": chunk, "checkpoint": checkpoint, "progress": progress}
    distance = 1 - np.sqrt(members.sum(1) / p)
    weights = np.exp(-np.square(distance) / (2 * wide**2))
    design = members - np.average(members, axis=0, weights=weights)
    normal = (design.T * weights) @ design + shrink * np.eye(p)
    results = []
    for own, none, full in _values(plan, members, **run):
        solution = np.linalg.lstsq(normal, (design.T * weights) @ _flat(own), rcond=None)[0]
        solution = solution.reshape(p, *own.shape[1:])
        gap = full - none - solution.sum(0)
        errors = np.full_like(solution, np.nan)
        results.append(ShapleyResult(solution, errors, gap, len(members) + 2, 0, full))
    about: dict[str, Any] = {"target": target, "players": players, "baseline": baseline}
    about |= {"width": wide, "ridge": shrink, "samples": samples, "key": seed}
    return finished(plan, results, "lime", **about)


@gate.public
def shapley_interactions(
    model: Model | Game,
    images: ArrayLike | None = None,
    target: Any = None,
    *,
    players: Any,
    baseline: str | ArrayLike = 0.0,
    index: str = "taylor",
    chunk: int | None = None,
    checkpoint: PathLike | None = None,
    progress: bool = True,
) -> ShapleyResult | ShapleyAttribution:
    """What players do alone, and what every pair does beyond that, for up to 16 players.

        Δᵢⱼ(S) = v(S ∪ {i, j}) − v(S ∪ {i}) − v(S ∪ {j}) + v(S)

    Args:
      model, images, target, players, baseline: as in `shapley`; a game with single values.
      index: "taylor", the Shapley-Taylor index of order 2, on whose diagonal is v({i}) − v(∅), and
        which with each pair once sums to v(all) − v(∅); or "shapley", the Shapley interaction
        index, with Shapley values less half of their interactions on the diagonal.
      chunk, checkpoint, progress: as in `shapley`.

    Returns:
      As `shapley`, with symmetric `values` (players, players) of a game and (n, players, players)
      of images, whose maps show each player's own part and half of its pairs'.

    Raises:
      TypeError, ValueError: naming the argument.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import attribution
      >>> def both(s):
      ...     return 2.0 * (s[:, 0] & s[:, 1]) + s[:, 1]
      >>> attribution.shapley_interactions(both, players=2).values.tolist()
      [[0.0, 2.0], [2.0, 1.0]]

    Reference: Grabisch & Roubens 1999, eq. 1; Sundararajan et al. 2020, The Shapley Taylor
      Interaction Index, eq. 3.
    """
    plan = make_plan(model, images, target, players, baseline, chunk, None)
    p = plan.players
    checks.choice("index", index, ("taylor", "shapley"))
    if not 2 <= p <= MOST or plan.shape:
        raise ValueError(
            f"players: 2 to {MOST} of a game with single values were expected, given {p}"
        )
    run: dict[str, Any] = {"chunk": chunk, "checkpoint": checkpoint, "progress": progress}
    results = [_pairs(v, index) for v in exact_values(plan, **run)]
    about: dict[str, Any] = {"target": target, "players": players, "baseline": baseline}
    return finished(plan, results, "shapley_interactions", index=index, **about)


def _pairs(v: np.ndarray, index: str) -> ShapleyResult:
    """From the values (2^p,) of all coalitions, player i being bit i."""
    p = int(math.log2(len(v)))
    members, numbers = _every(p), np.arange(len(v))
    sizes = members.sum(1)
    if index == "taylor":
        weights = np.array([2 / (p * math.comb(p - 1, s)) for s in range(p - 1)])
    else:
        weights = np.array([1 / ((p - 1) * math.comb(p - 2, s)) for s in range(p - 1)])
    values = np.zeros((p, p))
    for i in range(p):
        for j in range(i):
            s = numbers[~members[:, i] & ~members[:, j]]
            a, b = 1 << i, 1 << j
            change = v[s | a | b] - v[s | a] - v[s | b] + v[s]
            values[i, j] = values[j, i] = (weights[sizes[s]] * change).sum()
    if index == "taylor":
        own = v[1 << np.arange(p)] - v[0]
    else:
        ordinary = [1 / (p * math.comb(p - 1, s)) for s in range(p)]
        without = [numbers[~members[:, i]] for i in range(p)]
        own = np.array(
            [
                (np.array(ordinary)[sizes[s]] * (v[s | 1 << i] - v[s])).sum()
                for i, s in enumerate(without)
            ]
        )
        own = own - values.sum(1) / 2
    np.fill_diagonal(values, own)
    gap = v[-1] - v[0] - np.tril(values).sum()
    return ShapleyResult(values, np.zeros_like(values), gap, len(v), 0, v[-1])


def _every(p: int) -> np.ndarray:
    """(2^p, p) bool, all coalitions in the order of their bits."""
    return (np.arange(2**p)[:, None] >> np.arange(p)) & 1 == 1


def _flat(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), math.prod(values.shape[1:]))


def _values(
    plan: Plan, members: np.ndarray, **options: Any
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of every example the values (m, ...) of coalitions (m, players), v(none) and v(all).

    They are float64, and means over all of a batch of baselines.
    """
    ends = np.broadcast_to([[False], [True]], (2, plan.players))
    members = np.concatenate([members, ends])
    count, draws = len(members), max(1, plan.draws)
    block = plan.block(count)
    steps = -(-count // block)
    padded = np.pad(members, ((0, steps * block - count), (0, 0)))
    example, draw = (part.ravel() for part in np.indices((plan.examples, draws), np.int32))
    solution = plan.run(
        Listed(plan.game, on_device(padded), block),
        Lane(example, draw),
        steps=steps,
        starts=np.zeros_like(example),
        pixels=plan.pixels * block,
        label=plan.label,
        **options,
    ).info
    values = solution.reshape(plan.examples, draws, steps * block, *plan.shape)
    means = values[:, :, :count].mean(1, dtype=np.float64)
    return [(own[:-2], own[-2], own[-1]) for own in means]


def _kernel_coalitions(p: int, samples: int, key: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """Coalitions (m, p) and their weights, neither empty nor whole."""
    if p == 1:
        return np.zeros((0, 1), bool), np.zeros(0)
    sizes = np.arange(1, p)
    mass = (p - 1) / (sizes * (p - sizes))
    mass = mass / mass.sum()
    if p < 31 and 2**p - 2 <= samples:
        members = _every(p)[1:-1]
        count = members.sum(1)
        return members, mass[count - 1] / np.array([math.comb(p, c) for c in range(p)])[count]
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    parts: list[np.ndarray] = []
    weights: list[np.ndarray] = []
    left, whole = samples, 0
    # Sizes s and p − s together, from the outside in, while as many as there are would be drawn.
    while whole < (p - 1) // 2:
        size = whole + 1
        number = 2 * math.comb(p, size)
        rest = mass[whole : p - 1 - whole].sum()
        if left * 2 * mass[whole] / rest < number:
            break
        some = np.zeros((number // 2, p), bool)
        for row, players in zip(some, itertools.combinations(range(p), size), strict=True):
            row[list(players)] = True
        parts += [some, ~some]
        weights.append(np.full(number, 2 * mass[whole] / number))
        left, whole = left - number, whole + 1
    rest = mass[whole : p - 1 - whole]
    pairs = max(1, left // 2) if rest.sum() > 0 else 0
    if pairs:
        chosen = rng.choice(sizes[whole : p - 1 - whole], pairs, p=rest / rest.sum())
        order = rng.random((pairs, p)).argsort(1).argsort(1)
        rows = order < chosen[:, None]
        parts += [rows, ~rows]
        weights.append(np.full(2 * pairs, rest.sum() / (2 * pairs)))
    return np.concatenate(parts), np.concatenate(weights)


def _constrained(
    members: np.ndarray, weights: np.ndarray, values: np.ndarray, total: Any
) -> np.ndarray:
    """The coefficients (p, ...) of weighted least squares that sum to `total`."""
    p, shape = members.shape[1], values.shape[1:]
    held, flat = np.asarray(total, np.float64).reshape(1, -1), _flat(values.astype(np.float64))
    if p == 1:
        return held.reshape(1, *shape)
    # The last one is what is left of the total.
    design = members[:, :-1].astype(np.float64) - members[:, -1:]
    rest = flat - members[:, -1:] * held
    normal = (design.T * weights) @ design
    first = np.linalg.lstsq(normal, (design.T * weights) @ rest, rcond=None)[0]
    whole = np.concatenate([first, held - first.sum(0, keepdims=True)])
    return whole.reshape(p, *shape)
