"""Auto-PGD: projected gradient ascent whose step size follows from its own progress."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks, core
from rvis.attacks.gradient import starts, steepest
from rvis.attacks.losses import aim
from rvis.attacks.pursuit import Best, Keep, Plan, attacked, look
from rvis.attacks.result import AttackResult, Request, prepare
from rvis.types import Array, ArrayLike, KeyLike, Model


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


@flax.struct.dataclass
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
      best: see `Best`.
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
    best: Best


@flax.struct.dataclass
class APGD:
    """The step of Auto-PGD, for groups of one image.

    Attributes:
      norm: "linf" or "l2".
      marks: the checkpoints (k,), a leaf.
      keep: which iterate to give back, see `Best.after`.
      momentum: α, how much of a step is the gradient's; 1 at the first.
      rho: the share of steps that must raise f between two checkpoints.
    """

    norm: str = flax.struct.field(pytree_node=False)
    marks: Array
    keep: Keep = flax.struct.field(pytree_node=False, default="best")
    momentum: float = flax.struct.field(pytree_node=False, default=0.75)
    rho: float = flax.struct.field(pytree_node=False, default=0.75)

    def init(self, key: Array, position: Any = None) -> APGDState:
        """The state before the first step, from a `Start`."""
        x = position.point(key)
        low = jnp.float32(-jnp.inf)
        return APGDState(
            jnp.int32(0),
            x,
            x,
            2 * jnp.asarray(position.ball.radius, jnp.float32),
            low,
            jnp.int32(0),
            x,
            jnp.zeros_like(x),
            low,
            low,
            jnp.bool_(False),
            Best.none(x[0]),
        )

    def step(
        self, key: Array, state: APGDState, model: Model, problem: core.Problem
    ) -> tuple[APGDState, Array]:
        """One step up; tells the loss before it."""

        def climb(x: Array) -> tuple[Array, Any]:
            return core.energy(x, key, model, problem)

        gradient, verdict = jax.grad(climb, has_aux=True)(state.position)
        score = verdict.score
        rises = state.rises + ((state.step > 0) & (score > state.score))
        higher = score > state.top_score
        top = jnp.where(higher, state.position, state.top)
        top_gradient = jnp.where(higher, gradient, state.top_gradient)
        top_score = jnp.maximum(score, state.top_score)

        # Algorithm 1, lines 12 to 16.
        asked = (state.step == self.marks).any()
        since = state.step - jnp.where(self.marks < state.step, self.marks, 0).max()
        few = rises < self.rho * since
        stuck = ~state.halved & (top_score == state.last_top)
        halve = asked & (few | stuck)
        size = jnp.where(halve, state.size / 2, state.size)
        x = jnp.where(halve, top, state.position)
        gradient = jnp.where(halve, top_gradient, gradient)

        # Lines 7 and 8.
        ball = problem.constraint
        optimizer = steepest(size, self.norm)
        moved, _ = optimizer.update(gradient, optimizer.init(x), x)
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
            state.best.after(state.position[0], verdict, state.step, self.keep),
        )
        return following, score

    def settle(self, state: APGDState, model: Model, problem: core.Problem) -> APGDState:
        """The state with its last iterate looked at."""
        verdict = look(state.position, model, problem)
        best = state.best.after(state.position[0], verdict, state.step, self.keep)
        return state.replace(best=best)  # type: ignore[attr-defined]

    def images(self, state: APGDState) -> Array:
        """The best iterate, as a group of one."""
        return state.best.image[None]


def plan_apgd(
    request: Request,
    *,
    steps: int,
    loss: str = "ce",
    given: np.ndarray | None = None,
    drawn: Any = True,
) -> Plan:
    """The plan of `apgd`; see there and `starts` for the arguments."""
    checks.count("steps", steps)
    start = starts(request, given, drawn)
    problem = core.Problem(aim(request, loss), (), start.ball)
    return Plan(APGD(request.norm, jnp.asarray(_marks(steps))), problem, start, steps)


def apgd(
    model: Model,
    images: ArrayLike,
    labels: Any,
    *,
    norm: str = "linf",
    eps: Any,
    steps: int = 100,
    restarts: int = 1,
    loss: str = "ce",
    targeted: bool = False,
    key: KeyLike = 0,
    progress: bool = True,
) -> AttackResult:
    """Auto-PGD: no step size to choose.

        z = Π(x_k + η·d(∇_x L)),    x_{k+1} = Π(x_k + .75·(z − x_k) + .25·(x_k − x_{k−1}))

    η is 2ε at first. At each of `checkpoints` it is halved, and the ascent goes on from the best
    point so far, where fewer than .75 of the steps since the last raised the loss, or where the
    highest loss has not changed since and η was not halved then. Of all iterates, the last
    included, the one with the highest loss is given back; one that fools comes before all that do
    not.

    Args:
      model: any model.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      labels: (n,) or one class: the true ones, or targets.
      norm: "linf" or "l2".
      eps: the ball's radius, in units of the [0, 1] image: a number, or (n,); inf for all of
        [0, 1].
      steps: gradient steps.
      restarts: attempts from other random starts; each goes on with the images that still hold.
      loss: "ce", "dlr" or "margin", see `rvis.attacks.losses.aim`.
      targeted: whether to go towards `labels` instead of away from them.
      key: an int seed or a typed key, for the random starts. An image's is folded from its bits.
      progress: a bar on a terminal.

    Returns:
      An `AttackResult`; on a CPU an image's is the same to the bit alone and in any batch.

    Raises:
      TypeError, ValueError: naming the argument, before anything is compiled.
      FloatingPointError: naming the images whose loss became NaN.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attacks
      >>> model = rvis.load("mnist_cnn")
      >>> digit = np.full((28, 28, 1), 0.5, np.float32)
      >>> attacks.apgd(model, digit, 3, eps=0.1, steps=5, loss="dlr").losses.shape
      (1, 5)

    Reference: Croce & Hein 2020, Reliable evaluation of adversarial robustness with an ensemble of
      diverse parameter-free attacks, algorithm 1.
    """
    request = prepare(
        model, images, labels, norm=norm, eps=eps, targeted=targeted, key=key, norms=("linf", "l2")
    )
    return attacked(
        plan_apgd, request, "apgd", restarts=restarts, progress=progress, steps=steps, loss=loss
    )
