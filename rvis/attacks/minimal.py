"""The search that the attacks of least distance share: rounds of descent, each weighing the loss.

Carlini & Wagner 2017 and Szegedy et al. 2013 both minimise ‖x′ − x‖² + c·loss(x′) and look for the
smallest c whose minimum fools the network. What differs is who descends, in what variables, and the
loss.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks, core
from rvis.attacks.losses import Margin
from rvis.attacks.result import AttackResult, Request, conclude, lanes
from rvis.objectives import Activations, Objective
from rvis.objectives.base import kind_field
from rvis.types import LOGITS, Array, Model, PyTree

_CLEAR = 1e-5
"""Of the largest logit; see `Judged.least`."""

_UNBOUNDED = 1e9


@flax.struct.dataclass
class Judged:
    """A score that carries along the margin by which the model is fooled.

    The algorithm that climbs it hands both on from one forward pass; less a penalty it is a number.

    Attributes:
      score: what is maximised.
      margin: of logits, above 0 where the attack has won.
      least: what a margin must exceed so that no other order of sums undoes it.
    """

    score: Array
    margin: Array
    least: Array

    def __sub__(self, penalty: Array | int) -> Array:
        return self.score - penalty


@flax.struct.dataclass
class Goal(Objective):
    """What is maximised of a group of one image, its weight, and the margin that is looked for."""

    loss: Objective
    margin: Margin
    weight: Array
    kind: str = kind_field("Goal")

    @property
    def layers(self) -> tuple[str, ...]:
        return (LOGITS,)

    def __call__(self, activations: Activations) -> Judged:  # type: ignore[override]
        """The weighted loss, with the margin."""
        least = _CLEAR * jnp.abs(activations[LOGITS]).max()
        return Judged(self.weight * self.loss(activations), self.margin(activations), least)


@flax.struct.dataclass
class SquaredDistance:
    """‖x − origin‖², a penalty on a group of one image."""

    origin: Array
    _kind: str = flax.struct.field(
        pytree_node=False, default="SquaredDistance", repr=False, kw_only=True
    )

    def __call__(self, images: Array) -> Array:
        """The penalty of (1, H, W, C), a scalar."""
        return jnp.square(images - self.origin).sum()


@flax.struct.dataclass
class SearchState:
    """What a search carries from step to step.

    Attributes:
      step: how many there were.
      origin: (1, H, W, C).
      inner: the state of the descent.
      weight: c of this round.
      low: the largest c that was too small, or 0.
      high: the smallest that was enough, or 1e9.
      enough: whether this round has fooled.
      distance: ‖best − origin‖², inf where nothing has fooled yet.
      margin: that of `best`.
      best: the nearest image that fooled; before there is one, that of the largest margin.
      base: where rounds begin.
    """

    step: Array
    origin: Array
    inner: PyTree
    weight: Array
    low: Array
    high: Array
    enough: Array
    distance: Array
    margin: Array
    best: Array
    base: Array


@flax.struct.dataclass
class Search:
    """Rounds of an inner descent, with a bisection on the weight of its objective.

    While all rounds have fooled, or none has, c falls or rises tenfold; then it is the geometric
    mean of its bounds. Every image on the way counts for the nearest that fools.

    Attributes:
      inner: an algorithm that maximises a problem's objective less its penalties from a position
        of its parameterization `image`; its `images` are those that the next step evaluates.
      every: steps of a round.
      first: c of the first round.
      confidence: the margin of logits that counts as fooled.
      follow: whether a round begins where the last one that did not fool ended, so that the least
        of the weighted sum is followed as c grows, and not at the origin.
    """

    inner: Any
    every: Array
    first: Array
    confidence: Array
    follow: bool = flax.struct.field(pytree_node=False, default=False)

    def init(self, key: Array, position: Array | None = None) -> SearchState:
        """At the image (1, H, W, C) of `position`, which there must be."""
        assert position is not None
        zero = jnp.float32(0)
        return SearchState(
            jnp.int32(0),
            position,
            self._begun(key, position),
            self.first,
            zero,
            jnp.float32(_UNBOUNDED),
            jnp.bool_(False),
            jnp.float32(jnp.inf),
            jnp.float32(-jnp.inf),
            position,
            position,
        )

    def _begun(self, key: Array, origin: Array) -> PyTree:
        return self.inner.init(key, jax.vmap(self.inner.image.encode)(origin))

    def step(
        self, key: Array, state: SearchState, model: Model, problem: core.Problem
    ) -> tuple[SearchState, Array]:
        """One step of the descent, of an objective that is a `Goal`; tells the margin before it."""
        goal = problem.objective
        assert isinstance(goal, Goal)
        images = self.inner.images(state.inner)
        weighted = goal.replace(weight=state.weight)  # type: ignore[attr-defined]
        inner, told = self.inner.step(
            key,
            state.inner,
            model,
            problem.replace(objective=weighted),  # type: ignore[attr-defined]
        )
        margin = told.score.margin
        fooled = margin > self.confidence + told.score.least
        distance = jnp.square(images - state.origin).sum()
        better = jnp.where(
            jnp.isfinite(state.distance),
            fooled & (distance < state.distance),
            fooled | (margin > state.margin),
        )
        step, enough = state.step + 1, state.enough | fooled
        over = step % self.every == 0
        low = jnp.where(over & ~enough, jnp.maximum(state.low, state.weight), state.low)
        high = jnp.where(over & enough, jnp.minimum(state.high, state.weight), state.high)
        between = jnp.where(low > 0, jnp.sqrt(low * high), state.weight / 10)
        tried = jnp.where(high < _UNBOUNDED, between, state.weight * 10)
        base = state.base
        if self.follow:
            base = jnp.where(over & ~enough, self.inner.images(inner), base)
        again = self._begun(key, base)
        inner = jax.tree.map(lambda new, old: jnp.where(over, new, old), again, inner)
        state = SearchState(
            step,
            state.origin,
            inner,
            jnp.where(over, tried, state.weight),
            low,
            high,
            enough & ~over,
            jnp.where(better & fooled, distance, state.distance),
            jnp.where(better, margin, state.margin),
            jnp.where(better, images, state.best),
            base,
        )
        return state, margin

    def images(self, state: SearchState) -> Array:
        """The nearest image that fooled, or the best attempt, (1, H, W, C)."""
        return state.best


def searched(
    inner: Any,
    request: Request,
    loss: Objective,
    *,
    method: str,
    rounds: int,
    steps: int,
    weight: float,
    checkpoint: str | Path | None,
    progress: bool,
    confidence: float = 0.0,
    follow: bool = False,
    **options: Any,
) -> AttackResult:
    """Searches for every image of an attack.

    Args:
      inner: see `Search`.
      request: checked arguments.
      loss: n objectives that are maximised.
      method: the attack's name.
      rounds: as `carlini_wagner` takes them.
      steps: of each.
      weight: c of the first round.
      checkpoint: see `core.drive`.
      progress: a bar on a terminal.
      confidence: see `Search`.
      follow: see `Search`.
      **options: the attack's own, for its result's `config`.
    """
    checks.count("rounds", rounds)
    checks.count("steps", steps)
    checks.number("weight", weight, above=0)
    algorithm = Search(
        inner, jnp.int32(steps), jnp.float32(weight), jnp.float32(confidence), follow
    )
    count = len(request.images)
    margin = Margin(jnp.asarray(request.labels), request.targeted)
    goal = Goal(loss.broadcast(count), margin, jnp.ones(count, jnp.float32))
    origin = jnp.asarray(request.images[:, None])
    parts, margins = [], []
    for outcome in core.drive(
        algorithm,
        request.keys,
        request.model,
        core.Problem(goal, (SquaredDistance(origin),)),
        steps=rounds * steps,
        position=origin,
        width=lanes(request.shape),
        checkpoint=checkpoint,
        progress=progress,
        label=method,
    ):
        parts.append(outcome.images[:, 0])
        margins.append(outcome.info)
    told = np.concatenate(margins)
    # Where the margin is above 0 the model is fooled, whatever the confidence asked for.
    first = np.where((told > 0).any(1), (told > 0).argmax(1), told.argmax(1))
    # What is fooled already needs no change, and keeps its bits.
    solved = request.solved
    return conclude(
        request,
        np.where(solved[:, None, None, None], request.images, np.concatenate(parts)),
        method=method,
        iterations=np.where(solved, 0, first),
        losses=told,
        rounds=rounds,
        steps=steps,
        weight=weight,
        confidence=confidence,
        **options,
    )
