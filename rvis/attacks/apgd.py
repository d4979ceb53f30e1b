"""Auto-PGD: projected gradient ascent whose step size follows from its own progress."""

from __future__ import annotations

from typing import Any, Unpack

import jax.numpy as jnp
import numpy as np

from rvis import checks, gate, struct
from rvis.ascent import Problem
from rvis.attacks.attack import Keep, Plan, plan, run_attack, starts
from rvis.attacks.geometry import surface
from rvis.attacks.gradient import steepest
from rvis.attacks.look import Look, loss_gradient
from rvis.attacks.request import BallOptions, Request, prepare
from rvis.attacks.result import AttackResult
from rvis.attacks.sparse_apgd import SparseAPGD, stages
from rvis.objectives import Objective
from rvis.types import Array, ArrayLike, KeyLike, Model, on_device


def checkpoints(steps: int) -> tuple[int, ...]:
    """The steps at which APGD asks whether to halve its step size.

        w_j = ⌈p_j·steps⌉,    p_0 = 0, p_1 = .22, p_{j+1} = p_j + max(p_j − p_{j−1} − .03, .06)

    Raises:
      TypeError, ValueError: naming `steps`.

    Example:
      >>> from rvis.attacks.apgd import checkpoints
      >>> checkpoints(100)
      (22, 41, 57, 70, 80, 87, 93, 99)

    Reference: Croce & Hein 2020, section 3.2.
    """
    checks.count("steps", steps)
    return tuple(sorted({int(mark) for mark in _marks(steps) if 0 < mark < steps}))


def _marks(steps: int) -> np.ndarray:
    """The eight checkpoints, of which a short run has some twice and some after its end."""
    percents, gap = [22], 22  # in whole hundredths, whose ceilings are exact
    while percents[-1] < 99:
        gap = max(gap - 3, 6)
        percents.append(percents[-1] + gap)
    return -(-np.asarray(percents, np.int32) * steps // 100)


@struct.dataclass
class APGDState:
    """What APGD carries from step to step.

    Attributes:
      step: how many were taken.
      position: (1, H, W, C) x(k).
      before: x(k − 1).
      size: η, the step size.
      score: f(x(k − 1)).
      rises: how many steps since the last checkpoint raised f.
      top: where f was highest.
      top_gradient: there.
      top_score: there.
      last_top: f's highest value at the last checkpoint.
      halved: whether η was halved there.
    """

    step: Array
    position: Array
    before: Array
    size: Array
    score: Array
    rises: Array
    top: Array
    top_gradient: Array
    top_score: Array
    last_top: Array
    halved: Array


@struct.dataclass
class APGD:
    """The step of Auto-PGD, see `rvis.attacks.attack.Pursuit`.

    Attributes:
      norm: "linf" or "l2".
      marks: the checkpoints (k,), a leaf.
      momentum: α, how much of a step is the gradient's; 1 at the first.
      rho: the share of steps that must raise f between two checkpoints.
    """

    norm: str = struct.static()
    marks: Array
    momentum: float = struct.static(default=0.75)
    rho: float = struct.static(default=0.75)

    def init(self, key: Array, start: Any) -> APGDState:
        """From a `Start`; a draw lies on the surface of the ball, as in fra31/auto-attack."""
        ball = start.ball
        unit = surface(key, ball.centre.shape, self.norm)
        x = start.point(ball.project(ball.centre + ball.radius * unit))
        low = jnp.float32(-jnp.inf)
        return APGDState(
            jnp.int32(0),
            x,
            x,
            2 * jnp.asarray(start.ball.radius, jnp.float32),
            low,
            jnp.int32(0),
            x,
            jnp.zeros_like(x),
            low,
            low,
            jnp.bool_(False),
        )

    def step(
        self, key: Array, state: APGDState, model: Model, problem: Problem
    ) -> tuple[APGDState, Look]:
        """One step up."""
        gradient, outcome = loss_gradient(state.position, key, model, problem)
        score = outcome.loss
        rises = state.rises + ((state.step > 0) & (score > state.score)).astype(jnp.int32)
        higher = score > state.top_score
        top = jnp.where(higher, state.position, state.top)
        top_gradient = jnp.where(higher, gradient, state.top_gradient)
        top_score = jnp.maximum(score, state.top_score)

        # Algorithm 1, lines 12 to 16.
        asked = (state.step == self.marks).any()
        since = state.step - jnp.where(self.marks < state.step, self.marks, 0).max()
        few = rises.astype(jnp.float32) < self.rho * since.astype(jnp.float32)
        stuck = ~state.halved & (top_score == state.last_top)
        halve = asked & (few | stuck)
        size = jnp.where(halve, state.size / 2, state.size)
        x = jnp.where(halve, top, state.position)
        gradient = jnp.where(halve, top_gradient, gradient)

        # Lines 7 and 8.
        ball = problem.constraint
        moved = steepest(x, gradient, size, self.norm)
        share = jnp.where(state.step > 0, self.momentum, 1.0)
        step = share * (ball.project(moved) - x) + (1 - share) * (x - state.before)
        following = APGDState(
            state.step + 1,
            ball.project(x + step),
            x,
            size,
            jnp.where(halve, top_score, score),
            jnp.where(asked, 0, rises),
            top,
            top_gradient,
            top_score,
            jnp.where(asked | (state.step == 0), top_score, state.last_top),
            jnp.where(asked, halve, state.halved),
        )
        return following, Look(state.position, outcome)


def plan_apgd(
    request: Request,
    *,
    steps: int,
    loss: str | Objective = "ce",
    given: np.ndarray | None = None,
    drawn: Any = True,
    keep: Keep = "best",
) -> Plan:
    """The plan of `apgd`; see there and `starts` for the arguments."""
    attack: Any = APGD(request.norm, on_device(_marks(steps)))
    if request.norm == "l1":
        attack = SparseAPGD(
            on_device(stages(steps)), on_device(max(1, int(0.012 * steps)), jnp.int32)
        )
    return plan(request, attack, starts(request, given, drawn), steps=steps, loss=loss, keep=keep)


@gate.public
def apgd(
    model: Model,
    images: ArrayLike,
    labels: Any,
    *,
    norm: str = "linf",
    eps: Any,
    restarts: int = 1,
    loss: str | Objective = "ce",
    target: Any = None,
    key: KeyLike = 0,
    steps: int = 100,
    **options: Unpack[BallOptions],
) -> AttackResult:
    """Auto-PGD: no step size to choose.

        z = Π(x_k + η·d(∇_x L)),    x_{k+1} = Π(x_k + .75·(z − x_k) + .25·(x_k − x_{k−1}))

    It starts from a random point of the ball's surface. η is 2ε at first. At each of `checkpoints`
    it is halved, and the ascent goes on from the best point so far, where fewer than .75 of the
    steps since the last raised the loss, or where the highest loss has not changed since and η was
    not halved then. Of all iterates, the last included, the one with the highest loss is given
    back; one that fools comes before all that do not.

    In L1 the steps are sparse: along the signs of the largest entries of the gradient, of which
    there are fewer as the best image is sparser, their length shrinking where it is not. The ball
    has three times its radius for three tenths of the steps, and twice that for three more; only
    the rest counts.

    Args, returns and raises as `pgd`.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attacks
      >>> model = rvis.load("mnist_cnn")
      >>> digit = np.full((28, 28, 1), 0.5, np.float32)
      >>> attacks.apgd(model, digit, 3, eps=0.1, steps=5, loss="dlr").losses.shape
      (5,)

    Reference: Croce & Hein 2020, Reliable evaluation of adversarial robustness with an ensemble of
      diverse parameter-free attacks, algorithm 1. Croce & Hein 2021, Mind the box: l1-APGD for
      sparse adversarial attacks on image classifiers, algorithm 1 and section 3.4.
    """
    return run_attack(
        plan_apgd,
        prepare(
            model,
            images,
            labels,
            norm=norm,
            eps=eps,
            target=target,
            key=key,
        ),
        "apgd",
        restarts=restarts,
        steps=steps,
        loss=loss,
        **options,
    )
