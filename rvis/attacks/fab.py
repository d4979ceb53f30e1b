"""FAB: steps to the linearised boundary, pulled towards the image, to find its nearest point."""

from __future__ import annotations

from functools import partial
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks, gate, struct
from rvis.ascent import Problem
from rvis.attacks.attack import Keep, Plan, Start, plan, run_attack, starts
from rvis.attacks.deepfool import boundaries, pulled, strongest
from rvis.attacks.geometry import dual_length, length, surface, to_plane
from rvis.attacks.look import Look, look, nearest, shown
from rvis.attacks.losses import Difference, least_margin, margin
from rvis.attacks.request import BallOptions, Request, prepare
from rvis.attacks.result import AttackResult
from rvis.attacks.rounds import repeated
from rvis.objectives import Objective
from rvis.types import Array, ArrayLike, KeyLike, Model, on_device

_OVERSHOOT, _BACK, _PULL = 1.05, 0.9, 0.1
"""η, β and α_max of fra31/auto-attack."""


@struct.dataclass
class FABState:
    """The image, and the next iterate, (1, H, W, C)."""

    origin: Array
    position: Array


@struct.dataclass
class FAB:
    """A step of FAB, see `rvis.attacks.attack.Pursuit`.

    Attributes:
      norm: "linf", "l2" or "l1".
      candidates: how many boundaries are looked at, those of the strongest other classes, where
        the loss is an untargeted `Margin`. Towards a target there is one: of a `Difference` that
        with its class, of a `Margin` that with the strongest class.
      complete: see `Pursuit`.
    """

    norm: str = struct.static()
    candidates: int = struct.static()
    complete: bool = struct.static(default=True)

    def init(self, key: Array, start: Start) -> FABState:
        """At the image, or at a draw half a radius away, as in fra31/auto-attack."""
        origin = start.ball.centre
        draw = surface(key, origin.shape, self.norm)
        drawn = jnp.clip(origin + start.ball.radius / 2 * draw, 0, 1)
        return FABState(origin, jnp.where(start.drawn, drawn, start.given))

    def step(
        self, key: Array, state: FABState, model: Model, problem: Problem
    ) -> tuple[FABState, Look]:
        """To the boundary, and if that fools, a tenth of the way back."""
        loss: Any = problem.objective.loss  # type: ignore[attr-defined]
        origin, x = state.origin, state.position
        logits, pull = pulled(model, shown(x, problem))
        if isinstance(loss, Difference):
            label, others = loss.unit, loss.target[None]
        elif loss.targeted:
            label, others = strongest(logits, loss.unit, 1)[0], loss.unit[None]
        else:
            label, others = loss.unit, strongest(logits, loss.unit, self.candidates)
        gaps, slopes = boundaries(logits, pull, label, others)
        duals = jax.vmap(partial(dual_length, norm=self.norm))(slopes)
        best = (jnp.abs(gaps) / (1e-12 + duals)).argmin()
        # As far beyond a boundary as it takes to be on its other side in any program.
        gap, slope = gaps[best] - 2 * least_margin(logits), slopes[best]

        def way(start: Array) -> Array:
            return to_plane(start, slope, -gap - (slope * (start - x)).sum(), self.norm)

        here, there = way(x), way(origin)
        near, far = (jnp.maximum(length(d, self.norm), 1e-8) for d in (here, there))
        share = jnp.minimum(near / (near + far), _PULL)
        moved = (1 - share) * (x + _OVERSHOOT * here) + share * (origin + _OVERSHOOT * there)
        moved = jnp.clip(moved, 0, 1)
        _, outcome = look(moved, key, model, problem)
        back = origin + _BACK * (moved - origin)
        following = FABState(origin, jnp.where(outcome.success, back, moved))
        return following, Look(moved, nearest(moved, outcome, problem, self.norm))


def plan_fab(
    request: Request,
    *,
    steps: int,
    restarts: int = 1,
    targets: np.ndarray | None = None,
    keep: Keep = "best",
) -> Plan:
    """The plan of `fab`; see there for the arguments.

    Args:
      targets: (k, n) classes; there is a round from the label towards each.
    """
    checks.count("restarts", restarts)
    losses: list[Objective] = [margin(request)]
    if targets is not None:
        labels = on_device(request.labels)
        losses = [Difference(labels, on_device(target)) for target in targets]
    attack = FAB(request.norm, min(9, request.outputs - 1))
    start = starts(request, drawn=False)
    one = plan(request, attack, start, steps=steps, loss=losses[0], keep=keep)
    rounds = losses * restarts
    return one if len(rounds) == 1 else repeated(one, rounds)


@gate.public
def fab(
    model: Model,
    images: ArrayLike,
    labels: Any,
    *,
    norm: str = "linf",
    eps: Any = np.inf,
    restarts: int = 1,
    target: Any = None,
    key: KeyLike = 0,
    steps: int = 100,
    **options: Unpack[BallOptions],
) -> AttackResult:
    """The Fast Adaptive Boundary attack: the nearest image that fools, without a step size.

        x ← (1 − α)·(x + 1.05·d(x)) + α·(x₀ + 1.05·d(x₀)),    α = min(‖d(x)‖/(‖d(x)‖ + ‖d(x₀)‖), .1)

    where d(z) is the shortest way from z, within [0, 1], to the nearest of the network's boundaries
    linearised at x. Where that fools, the attack goes on from a tenth of the way back to x₀. Of all
    that fool within `eps` the nearest is given back.

    Args, returns and raises as `pgd`, but for:
      eps: farther than this nothing counts; anything does by default. Restarts begin half of it
        away, and need it.
      target: the class whose boundary with the strongest other one is approached. Without one it
        is the nearest of the label's boundaries with the nine strongest other classes.
      steps: of each restart. `losses` are the distances after each, below 0.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attacks
      >>> model = rvis.load("mnist_cnn")
      >>> grey = np.full((28, 28, 1), 0.5, np.float32)
      >>> label = int(model(grey).argmax())
      >>> bool(attacks.fab(model, grey, label, norm="l2", steps=10).success)
      True

    Reference: Croce & Hein 2020, Minimally distorted adversarial examples with a fast adaptive
      boundary attack, algorithm 1; fra31/auto-attack, `fab_base.py`.
    """
    request = prepare(model, images, labels, norm=norm, eps=eps, target=target, key=key)
    return run_attack(
        partial(plan_fab, restarts=checks.count("restarts", restarts)),
        request,
        "fab",
        steps=steps,
        **options,
    )
