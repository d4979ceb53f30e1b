"""How every attack in a ball is run: the best of its iterates, restarts, and the result.

A new attack is `init` and `step` of one image (see `Pursuit`), a function that plans it for the
images of a request, and a public function that calls `prepare` and `run_attack`. An entry in
`rvis.attacks.sweep.ATTACKS` lets `robustness` find it by name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks, engine, projections, struct
from rvis.ascent import Problem
from rvis.attacks.look import Rounded, look, shown
from rvis.attacks.losses import Outcome, objective
from rvis.attacks.request import (
    Callback,
    Request,
    conclude,
    drawing,
    draws,
    failure,
    watch,
)
from rvis.attacks.result import AttackResult
from rvis.objectives import Objective
from rvis.projections import Projection
from rvis.types import Array, Model, PyTree

Keep = Literal["best", "first", "last"]

BALLS: Mapping[str, Callable[..., Projection]] = {
    "linf": projections.LinfBall,
    "l2": projections.L2Ball,
    "l1": projections.L1Ball,
}


@struct.dataclass
class Start:
    """Where an attack in a ball begins.

    Attributes:
      ball: about the image.
      given: (1, H, W, C), from where it is put into the ball.
      drawn: whether a draw from the ball takes its place.
    """

    ball: Any
    given: Array
    drawn: Array

    def point(self, draw: Array) -> Array:
        """The first iterate, (1, H, W, C), where `draw` is one from the ball."""
        return jnp.where(self.drawn, draw, self.ball.project(self.given))


def balls(request: Request) -> Projection:
    """The n balls in which the attacked images must lie, each a group of one image."""
    return BALLS[request.norm](request.images[:, None], request.eps)


def starts(request: Request, given: np.ndarray | None = None, drawn: Any = True) -> Start:
    """The n starts of a request's images.

    Args:
      request: checked arguments.
      given: (n, H, W, C) images to start from; the request's by default.
      drawn: where to start from a draw instead, (n,) or one.
    """
    images = request.images if given is None else given
    chosen = np.broadcast_to(np.asarray(drawn), len(images))
    return Start(balls(request), cast(Array, images[:, None]), cast(Array, chosen))


_LOWEST = np.finfo(np.float32).min
"""The loss of an image that was not looked at; finite, as all that a run gives must be."""


@struct.dataclass
class Best:
    """Of the iterates looked at so far, the one to give back.

    Attributes:
      image: (H, W, C).
      loss: there.
      success: whether the model is fooled.
      since: the step at which it first was, −1 if it never was.
    """

    image: Array
    loss: Array
    success: Array
    since: Array

    def after(self, image: Array, outcome: Outcome, step: Array, *, last: bool) -> Best:
        """With one more iterate (1, H, W, C) looked at; `last` to keep whatever came last.

        One outside of its ball, whose margin is −inf, is never kept.
        """
        loss, success = outcome.loss, outcome.success
        higher = (success & ~self.success) | ((success == self.success) & (loss > self.loss))
        taken = jnp.bool_(True) if last else higher & jnp.isfinite(outcome.margin)
        return Best(
            jnp.where(taken, image[0], self.image),
            jnp.where(taken, loss, self.loss),
            jnp.where(taken, success, self.success),
            jnp.where((self.since < 0) & success, step, self.since),
        )


@struct.dataclass
class PursuitState:
    """How many steps there were, an attack's own state, and the best iterate."""

    step: Array
    inner: Any
    best: Best


@struct.dataclass
class Pursuit:
    """An attack as the engine runs it: to the last step, keeping the iterate to give back.

    Attributes:
      attack: an `Algorithm` whose steps tell a `Look`. Its state's `position` (1, H, W, C) is the
        iterate at which the next step looks, and after the last step this does, unless the attack
        has an attribute `complete` that is true.
      last: whether the last iterate is given back, not one that fools, of these or else of all that
        of the highest loss.
    """

    attack: Any
    last: bool = struct.static(default=False)

    def init(self, key: Array, start: Any) -> PursuitState:
        """Before any iterate was looked at."""
        inner = self.attack.init(key, start)
        none = Best(inner.position[0], jnp.float32(_LOWEST), jnp.bool_(False), jnp.int32(-1))
        return PursuitState(jnp.int32(0), inner, none)

    def step(
        self, key: Array, state: PursuitState, model: Model, problem: Problem
    ) -> tuple[PursuitState, Array]:
        """One step of the attack; tells the loss of what it looked at."""
        inner, seen = self.attack.step(key, state.inner, model, problem)
        image = shown(seen.image, problem)
        best = state.best.after(image, seen.outcome, state.step, last=self.last)
        return PursuitState(state.step + 1, inner, best), seen.outcome.loss

    def finish(self, state: PursuitState, model: Model, problem: Problem) -> Best:
        """The best, with the last iterate looked at too."""
        if getattr(self.attack, "complete", False):
            return state.best
        still = jax.random.key(0)  # without views nothing is random
        _, outcome = look(state.inner.position, still, model, problem)
        image = shown(state.inner.position, problem)
        return state.best.after(image, outcome, state.step, last=self.last)


@struct.dataclass
class UntilFooled(Pursuit):
    """The same, content with the first image that fools."""

    def done(self, state: PursuitState) -> Array:
        """Whether the model is fooled."""
        return state.best.success

    def stopped(self, state: PursuitState) -> Best:
        """What fooled it."""
        return state.best


@dataclasses.dataclass(frozen=True)
class Plan:
    """An attack on the n images of a request.

    Attributes:
      attack: see `Pursuit`.
      problem: n problems, whose objectives are `AttackObjective`s.
      starts: what `attack.init` takes for each, leaves of shape (n, …).
      steps: how many.
      piece: steps between two looks at which images are done; twice that where all go on to the
        end.
      keep: which iterate is given back: "best", one that fools and has the highest loss; "first",
        the first that fools, with which the image is done; "last", whatever comes last.
      held: places that a step holds for each of an image's: its own, and one for its gradient.
    """

    attack: Any
    problem: Problem
    starts: PyTree
    steps: int
    piece: int = 5
    keep: Keep = "best"
    held: int = 2

    @property
    def algorithm(self) -> Pursuit:
        """What the engine runs."""
        if self.keep == "first":
            return UntilFooled(self.attack)
        return Pursuit(self.attack, last=self.keep == "last")

    def rows(self, rows: np.ndarray) -> Plan:
        """The same for some of the images."""
        problem, starts = jax.tree.map(
            lambda leaf: np.asarray(leaf)[rows], (self.problem, self.starts)
        )
        return dataclasses.replace(self, problem=problem, starts=starts)

    def stopping(self) -> Plan:
        """The same attack, content with the first image that fools."""
        return dataclasses.replace(self, keep="first")


def plan(
    request: Request, attack: Any, starts: Any, *, steps: int, loss: str | Objective, **rest: Any
) -> Plan:
    """An attack on the images of a request, each in its ball; arguments as `Plan`."""
    return Plan(
        attack, Problem(objective(request, loss), (), balls(request)), starts, steps, **rest
    )


class Found(NamedTuple):
    """What an attack found for each of n images; see `Best` and `AttackResult`."""

    images: np.ndarray
    scores: np.ndarray
    success: np.ndarray
    since: np.ndarray
    losses: np.ndarray


def run_plan(
    plan: Plan,
    request: Request,
    *,
    attempt: int = 0,
    eot: int = 1,
    rows: np.ndarray | None = None,
    **options: Any,
) -> Found:
    """Runs a plan; where it is content with the first success, images leave when they are fooled.

    Args:
      plan: of the request's images.
      request: checked arguments.
      attempt: folded into the keys, for other chances.
      eot: draws of a network that draws, for each step.
      rows: what messages call the images; their places by default.
      **options: of `engine.run`.

    Raises:
      ValueError: naming `checkpoint`, if the folder is of other work.
      FloatingPointError: naming the images whose loss became NaN.
    """
    count = len(request.images)
    run = engine.run(
        plan.algorithm,
        drawing(request.model, eot),
        plan.problem,
        request.keys(attempt),
        steps=plan.steps,
        pixels=request.pixels // 2 * plan.held,
        starts=plan.starts,
        widest=16 // plan.held,
        piece=plan.piece if plan.keep == "first" else 2 * plan.piece,
        failure=failure(np.arange(count) if rows is None else rows),
        **options,
    )
    best = run.result
    return Found(best.image, best.loss, best.success, best.since, losses_of(run, plan.steps))


def losses_of(run: engine.Run, steps: int) -> np.ndarray:
    """(n, steps) what the steps told, NaN where there was none."""
    losses = np.full((len(run.made), steps), np.nan, np.float32)
    taken = run.info.shape[1]
    losses[:, :taken] = np.where(np.arange(taken) < run.made[:, None], run.info, np.nan)
    return losses


def run_attack(
    planned: Callable[..., Plan],
    request: Request,
    method: str,
    *,
    restarts: int = 1,
    quantize: bool = False,
    eot: int = 1,
    chunk: int | None = None,
    checkpoint: str | Path | None = None,
    callback: Callback | None = None,
    progress: bool = True,
    **options: Any,
) -> AttackResult:
    """Runs an attack, again from other starts for the images that still hold.

    Args:
      planned: `planned(request, **options)` is its plan.
      request: checked arguments.
      method: the attack's name.
      restarts: how many attempts in all.
      quantize: see `pgd`; so the next.
      eot: draws of a network that draws, for each step.
      chunk: see `pgd`; so the next.
      checkpoint: a folder.
      callback: called between steps, which count on from attempt to attempt.
      progress: a bar on a terminal.
      **options: the attack's own.
    """
    checks.count("restarts", restarts)
    checks.count("eot", eot)
    plan = planned(request, **options)
    if draws(request.model):
        options["eot"] = eot
    elif eot > 1:
        raise ValueError(f"eot: 1 was expected of a network that says of no key, given {eot}")
    if quantize:
        levels = 255 * request.images
        if np.abs(levels - np.round(levels)).max() > 1e-3:
            raise ValueError("quantize: images of 8 bits were expected, given others")
        ball = Rounded(plan.problem.constraint)
        plan = dataclasses.replace(plan, problem=struct.replace(plan.problem, constraint=ball))
        options["quantize"] = True
    ended: list[int] = []

    def attempt(number: int, carry: tuple[Any, ...], folder: Path | None) -> tuple[Any, ...]:
        found = Found(*map(np.array, carry))
        rows = np.flatnonzero(~found.success)
        if not rows.size or ended:
            return found
        pictures = partial(_shown, found.images[rows], found.scores[rows])
        watched = watch(
            request, callback, pictures, rows=rows, images=found.images, before=number * plan.steps
        )

        def called(*arguments: Any) -> Any:
            assert watched is not None
            if watched(*arguments):
                ended.append(number)
            return bool(ended)

        again = run_plan(
            plan.rows(rows),
            request.rows(rows),
            eot=eot,
            attempt=number,
            rows=rows,
            chunk=chunk,
            checkpoint=folder,
            callback=None if watched is None else called,
            progress=progress,
            label=method,
        )
        better = again.success | (again.scores > found.scores[rows])
        late = np.where(again.since < 0, -1, number * plan.steps + again.since)
        for whole, part in zip(found, again._replace(since=late), strict=True):
            whole[rows[better]] = part[better]
        return found

    count = len(request.images)
    none = Found(
        request.images,
        np.full(count, _LOWEST, np.float32),
        np.zeros(count, bool),
        np.full(count, -1, np.int32),
        np.full((count, plan.steps), np.nan, np.float32),
    )
    found = Found(
        *engine.in_stages(
            [partial(attempt, number) for number in range(restarts)],
            none,
            about=(
                (plan.algorithm, plan.problem, plan.starts, plan.steps),
                (request.keys(), request.model.params, request.model.apply),
            ),
            checkpoint=checkpoint,
        )
    )
    images, since = found.images, found.since
    if plan.keep != "last":
        # The image itself is in every ball: what is fooled by it needs nothing else.
        idle = (request.solved & ~found.success)[:, None, None, None]
        images = np.where(idle, request.images, images)
        since = np.where(request.solved, 0, since)
    if quantize:  # to the bits that a file gives back
        images = np.round(255 * images) / np.float32(255)
    return conclude(
        request,
        images,
        method=method,
        iterations=since,
        losses=found.losses,
        eps=request.eps,
        restarts=restarts,
        **{"steps": plan.steps, **options},
    )


def _shown(images: np.ndarray, scores: np.ndarray, best: Best) -> np.ndarray:
    """The better of what earlier attempts found and of what this one has so far."""
    better = best.success | (best.loss > scores)
    return np.where(np.asarray(better)[:, None, None, None], best.image, images)
