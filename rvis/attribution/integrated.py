"""Integrated gradients: gradients along the line from a baseline to the image, added up."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks, engine, gate, struct
from rvis.analysis.questions import Question, Score, Shape, ask, baselines
from rvis.attribution import stream
from rvis.attribution.result import Attribution
from rvis.attribution.stream import Callback, answer
from rvis.engine import policy
from rvis.files import PathLike
from rvis.objectives import Objective
from rvis.types import Array, ArrayLike, Model, PyTree, as_key, on_device


@struct.dataclass
class Along:
    """∇f ⊙ (x − x′) at a node of the line from one of an image's baselines x′.

    `own` is (b, H, W, C); sample i is node i mod s of baseline ⌊i / s⌋.
    """

    nodes: Array
    weights: Array
    steps: Array

    def shapes(self, shape: Shape) -> tuple[Shape, Shape]:
        return shape, ()

    def __call__(
        self, key: Array, number: Array, image: Array, own: PyTree, score: Score
    ) -> tuple[Array, Array]:
        node = number % self.steps
        return on_line(self.nodes[node], image, own[number // self.steps], score), (
            self.weights[node]
        )


def on_line(t: Array, image: Array, start: Array, score: Score) -> Array:
    """∇f(x′ + t·(x − x′)) ⊙ (x − x′)."""
    away = image - start
    return score.and_gradient(image - (1 - t) * away)[1] * away


_LEVELS = 4
"""Times that the nodes are made three times as many."""


class Line(NamedTuple):
    """An image, its baselines (b, H, W, C), how much higher its score is, and the gap allowed."""

    objective: Objective
    image: Any
    starts: Any
    rise: Any
    gap: Any = ()


@struct.dataclass
class _Refining:
    """The midpoint rule with ever more nodes, till the map is complete; a step is a block of them.

    The midpoints of n parts are among those of 3 n.
    """

    steps: Array
    block: int = struct.static()

    def init(self, key: Array, start: Array) -> Any:
        # The map at the last level that has ended, the sum so far, nodes, level, whether it serves.
        return start, jnp.zeros_like(start), jnp.int32(0), jnp.int32(0), jnp.bool_(False)

    def step(self, key: Array, state: Any, model: Model, problem: Line) -> tuple[Any, tuple[()]]:
        maps, total, count, level, _ = state
        several = len(problem.starts)
        score, parts = Score(model, problem.objective), self.steps * 3**level
        before = jnp.where(level > 0, parts // 3, 0)

        def value(number: Array) -> Array:
            node, which = number // several, number % several
            later = node - before
            own = jnp.where(level > 0, 3 * (later // 2) + 2 * (later % 2), node)
            t = (own.astype(jnp.float32) + 0.5) / parts
            part = on_line(t, problem.image, problem.starts[which], score)
            return jnp.where(node < parts, part, 0)

        values = jax.vmap(value)(count + jnp.arange(self.block, dtype=jnp.int32))
        total = total + values.sum(0)
        count = jnp.minimum(count + self.block, parts * several)
        ended = count == parts * several
        maps = jnp.where(ended, total / count, maps)
        serves = ended & (jnp.abs(problem.rise - maps.sum()) <= problem.gap)
        serves = serves | (ended & (level == _LEVELS))
        return (maps, total, count, level + ended, serves), ()

    def done(self, state: Any) -> Array:
        return state[-1]

    def finish(self, state: Any, model: Model, problem: Line) -> Array:
        return state[0]


def _refined(
    question: Question,
    starts: np.ndarray,
    rise: np.ndarray,
    allowed: np.ndarray,
    maps: np.ndarray,
    steps: int,
    chunk: int | None,
    progress: bool,
) -> np.ndarray:
    """The maps, those that are not complete anew."""
    gap = np.abs(rise - maps.sum((1, 2, 3)))
    some = np.flatnonzero(gap > allowed)
    if not some.size:
        return maps
    block = policy.samples_for(question.pixels, steps)
    blocks = sum(-(-steps * starts.shape[1] * 3**level // block) for level in range(_LEVELS + 1))
    found = engine.run(
        _Refining(on_device(steps, jnp.int32), block),
        question.model,
        jax.tree.map(
            lambda leaf: np.asarray(leaf)[some],
            Line(question.objective, question.images, starts, rise, allowed),
        ),
        jnp.broadcast_to(as_key(0), (len(some),)),
        starts=maps[some],
        steps=blocks,
        pixels=question.pixels * block,
        chunk=chunk,
        progress=progress,
        label=f"{question.model.name} integrated_gradients",
        failure=stream.not_finite,
    ).result
    better = np.abs(rise[some] - found.sum((1, 2, 3))) < gap[some]
    maps = maps.copy()
    maps[some[better]] = found[better]
    return maps


@gate.public
def integrated_gradients(
    model: Model,
    images: ArrayLike,
    target: Any,
    *,
    baseline: str | ArrayLike = 0.0,
    rule: str = "gauss-legendre",
    tol: float | None = 0.005,
    steps: int = 50,
    chunk: int | None = None,
    checkpoint: PathLike | None = None,
    callback: Callback | None = None,
    progress: bool = True,
) -> Attribution:
    """(x − x′) ⊙ ∫₀¹ ∇f(x′ + t·(x − x′)) dt: maps that sum to f(x) − f(x′).

    How far they are from doing so is `gap`.

    Args:
      model: any model.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      target: see `gradient`.
      baseline: x′ in [0, 1]: a number; "mean" of each image's pixels, by channel; "blur", a
        Gaussian with σ an eighth of the shorter side; an image (H, W, C); several (b, H, W, C),
        over which the mean is taken.
      rule: "gauss-legendre" or "midpoint".
      tol: where |gap| is more than `tol` · max(1, |f(x) − f(x′)|), the midpoint rule takes 1, 3, 9,
        27 and 81 times `steps` nodes, each with those of the one before, until it is not; None for
        the first rule alone.
      steps: nodes of the integral, for each baseline.
      chunk, checkpoint, callback, progress: as `smoothgrad`; the callback's steps are nodes of
        the first rule.

    Returns:
      An `Attribution` with maps (n, H, W, C), or (H, W, C) of one image, and the completeness `gap`
      f(x) − f(x′) − Σ map (with several baselines, from the mean of f over them).

    Raises:
      TypeError, ValueError, FloatingPointError: as `gradient`.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attribution
      >>> model = rvis.load("mnist_cnn")
      >>> grey = np.full((28, 28, 1), 0.5, np.float32)
      >>> result = attribution.integrated_gradients(model, grey, 3, steps=20)
      >>> bool(abs(result.gap) < 0.01)
      True

    Reference: Sundararajan et al. 2017, Axiomatic Attribution for Deep Networks, eq. 1; several
      baselines: Erion et al. 2019 (expected gradients).
    """
    question = ask(model, images, target, chunk=chunk, callback=callback)
    steps = checks.count("steps", steps)
    ended = False

    def watch(*told: Any) -> Any:
        nonlocal ended
        ended = bool(callback is not None and callback(*told))
        return ended

    limit = None if tol is None else checks.number("tol", tol, low=0)
    nodes, weights = quadrature(rule, steps)
    starts = baselines(baseline, question.images)
    maps = stream.mean(
        Along(on_device(nodes), on_device(weights), on_device(steps, jnp.int32)),
        question,
        samples=steps * starts.shape[1],
        key=as_key(0),
        own=starts,
        chunk=chunk,
        checkpoint=checkpoint,
        callback=watch if callback is not None else None,
        progress=progress,
        label="integrated_gradients",
    )
    scores = question.scores()
    rise = scores - np.mean([question.scores(starts[:, b]) for b in range(starts.shape[1])], 0)
    if limit is not None and not ended:
        allowed = (limit * np.maximum(1, np.abs(rise))).astype(np.float32)
        maps = _refined(question, starts, rise, allowed, maps, steps, chunk, progress)
    gap = rise - maps.sum((1, 2, 3))
    about: dict[str, Any] = {"baseline": baseline, "steps": steps, "rule": rule, "tol": limit}
    return answer("integrated_gradients", question, maps, scores, gap=gap, target=target, **about)


def quadrature(rule: str, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights on [0, 1]; the weights sum to 1.

    Both are filled with zeros up to a power of two, at least 64, so that many numbers of steps
    share one compiled program.

    Raises:
      ValueError: naming `rule`.

    Example:
      >>> from rvis.attribution.integrated import quadrature
      >>> quadrature("midpoint", 2)[0][:3].tolist()
      [0.25, 0.75, 0.0]
    """
    checks.choice("rule", rule, ("gauss-legendre", "midpoint"))
    if rule == "midpoint":
        nodes, weights = (np.arange(steps) + 0.5) / steps, np.full(steps, 1 / steps)
    else:
        nodes, weights = np.polynomial.legendre.leggauss(steps)
        nodes, weights = (nodes + 1) / 2, weights / 2
    rest = max(64, 1 << (steps - 1).bit_length()) - steps
    whole = (np.pad(array, (0, rest)).astype(np.float32) for array in (nodes, weights))
    return tuple(whole)  # type: ignore[return-value]
