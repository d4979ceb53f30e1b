"""The search that the attacks of least distance share: rounds of descent, each weighing the loss.

Carlini & Wagner 2017 and Szegedy et al. 2013 both minimise ‖x′ − x‖² + c·loss(x′) and look for the
smallest c whose minimum fools the network. What differs is who descends, in what variables, and the
loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks, engine, struct
from rvis.ascent import Problem
from rvis.attacks.attack import losses_of
from rvis.attacks.losses import AttackObjective, objective
from rvis.attacks.request import (
    Callback,
    Options,
    Request,
    conclude,
    failure,
    watch,
)
from rvis.attacks.result import AttackResult
from rvis.objectives import Objective
from rvis.types import Array, Model, PyTree, on_device

_UNBOUNDED = 1e9


@struct.dataclass
class SquaredDistance:
    """‖x − origin‖², a penalty on a group of one image."""

    origin: Array

    def __call__(self, images: Array) -> Array:
        """The penalty of (1, H, W, C), a scalar."""
        return jnp.square(images - self.origin).sum()


@struct.dataclass
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


@struct.dataclass
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
    follow: bool = struct.static(default=False)

    def init(self, key: Array, start: Array) -> SearchState:
        """At the image (1, H, W, C)."""
        zero = jnp.float32(0)
        return SearchState(
            jnp.int32(0),
            start,
            self._begun(key, start),
            self.first,
            zero,
            jnp.float32(_UNBOUNDED),
            jnp.bool_(False),
            jnp.float32(jnp.inf),
            jnp.float32(-jnp.inf),
            start,
            start,
        )

    def _begun(self, key: Array, origin: Array) -> PyTree:
        return self.inner.init(key, jax.vmap(self.inner.image.encode)(origin))

    def step(
        self, key: Array, state: SearchState, model: Model, problem: Problem
    ) -> tuple[SearchState, Array]:
        """One step of the descent, of an `AttackObjective`; tells the margin before it."""
        assert isinstance(problem.objective, AttackObjective)
        weighted = struct.replace(problem.objective, weight=state.weight)
        problem = struct.replace(problem, objective=weighted)
        images = self.inner.images(state.inner)
        inner, told = self.inner.step(key, state.inner, model, problem)
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

    def finish(self, state: SearchState, model: Model, problem: Problem) -> Array:
        """The nearest image that fooled, or the best attempt, (H, W, C)."""
        return state.best[0]


def run_unsolved(
    algorithm: Any,
    request: Request,
    posed: Callable[[Request], Problem],
    *,
    steps: int,
    callback: Callback | None = None,
    **options: Any,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs an algorithm for a nearby image wherever the original does not fool the model already.

    Args:
      algorithm: starts from an image (1, H, W, C), tells losses and gives an image (H, W, C).
      request: checked arguments.
      posed: gives the n problems of a request.
      steps: at most.
      callback: see `pgd`.
      **options: of `engine.run`.

    Returns:
      Images (n, H, W, C), losses (n, steps), and the steps that each took, 0 where it is untouched.
    """
    rows = np.flatnonzero(~request.solved)
    images, made = request.images.copy(), np.zeros(len(request.images), np.int32)
    losses = np.full((len(images), steps), np.nan, np.float32)
    if rows.size:
        some = request.rows(rows)
        run = engine.run(
            algorithm,
            request.model,
            posed(some),
            some.keys(),
            steps=steps,
            pixels=request.pixels,
            starts=some.images[:, None],
            widest=8,
            callback=watch(request, callback, np.asarray, rows=rows),
            failure=failure(rows),
            **options,
        )
        images[rows], made[rows], losses[rows] = run.result, run.made, losses_of(run, steps)
    return images, losses, made


def searched(
    inner: Any,
    request: Request,
    loss: Callable[[Request], Objective],
    *,
    method: str,
    binary_search_steps: int,
    steps: int,
    weight: float,
    confidence: float = 0.0,
    follow: bool = False,
    own: Mapping[str, Any] | None = None,
    **options: Unpack[Options],
) -> AttackResult:
    """Searches for every image of an attack that does not fool the model already.

    Args:
      inner: see `Search`.
      request: checked arguments.
      loss: gives the n objectives of a request that are maximised.
      method: the attack's name.
      binary_search_steps: as `carlini_wagner` takes them; so the next.
      steps: of each round.
      weight: c of the first round.
      confidence: see `Search`.
      follow: see `Search`.
      own: the attack's own options, for its result's `config`.
      **options: see `pgd`.
    """
    checks.number("weight", weight, above=0)
    algorithm = Search(
        inner,
        on_device(steps, jnp.int32),
        on_device(weight, jnp.float32),
        on_device(confidence, jnp.float32),
        follow,
    )
    images, losses, made = run_unsolved(
        algorithm,
        request,
        lambda some: Problem(
            objective(some, loss(some)), (SquaredDistance(on_device(some.images[:, None])),)
        ),
        steps=binary_search_steps * steps,
        label=method,
        **options,
    )
    # Where the margin is above 0 the model is fooled, whatever the confidence asked for.
    told = np.where(np.isnan(losses), -np.inf, losses)
    first = np.where((told > 0).any(1), (told > 0).argmax(1), told.argmax(1))
    return conclude(
        request,
        images,
        method=method,
        iterations=np.where(made > 0, first, 0),
        losses=losses,
        binary_search_steps=binary_search_steps,
        steps=steps,
        weight=weight,
        confidence=confidence,
        **(own or {}),
    )
