"""FMN and DDN: steps along the gradient in a ball whose radius follows the boundary."""

from __future__ import annotations

from typing import Any, Unpack

import jax.numpy as jnp

from rvis import checks, gate, struct
from rvis.ascent import Problem
from rvis.attacks.attack import Keep, Plan, Start, plan, run_attack
from rvis.attacks.attack import starts as begun
from rvis.attacks.geometry import dual_length, into_ball, length
from rvis.attacks.look import Look, loss_gradient, nearest
from rvis.attacks.request import BallOptions, Request, prepare
from rvis.attacks.result import AttackResult
from rvis.types import Array, ArrayLike, KeyLike, Model

_SHORTEST = 0.01
"""The last step's length, of the first one's."""
_SLOWEST = 0.001
"""The last change of FMN's radius."""


@struct.dataclass
class NormState:
    """What the attack carries from step to step.

    Attributes:
      step: how many were taken.
      origin: (1, H, W, C).
      position: likewise, the next iterate.
      radius: of the ball.
      best: the least distance of what fooled, inf before anything did.
    """

    step: Array
    origin: Array
    position: Array
    radius: Array
    best: Array


@struct.dataclass
class MinimumNorm:
    """A step of FMN or DDN, see `rvis.attacks.attack.Pursuit`.

    Attributes:
      norm: "linf", "l2" or "l1".
      decoupled: whether every iterate lies on the sphere, as DDN's.
      steps: how many in all.
      length: of the first step, in L2.
      gamma: by what share the radius changes at first.
      radius: the first, of DDN.
      complete: see `Pursuit`.
    """

    norm: str = struct.static()
    decoupled: bool = struct.static()
    steps: Array
    length: Array
    gamma: Array
    radius: Array
    complete: bool = struct.static(default=True)

    def init(self, key: Array, start: Start) -> NormState:
        """At the image."""
        x = start.given
        return NormState(jnp.int32(0), x, x, self.radius, jnp.float32(jnp.inf))

    def step(
        self, key: Array, state: NormState, model: Model, problem: Problem
    ) -> tuple[NormState, Look]:
        """One step up, and the next radius."""
        origin, x = state.origin, state.position
        gradient, outcome = loss_gradient(x, key, model, problem)
        fooled, distance = outcome.success, length(x - origin, self.norm)
        best = jnp.where(fooled, jnp.minimum(state.best, distance), state.best)
        cooled = (
            1 + jnp.cos(jnp.pi * state.step.astype(jnp.float32) / self.steps.astype(jnp.float32))
        ) / 2
        size = self.length * (_SHORTEST + (1 - _SHORTEST) * cooled)
        moved = x - origin + size * gradient / jnp.maximum(length(gradient, "l2"), 1e-12)
        if self.decoupled:
            radius = state.radius * jnp.where(fooled, 1 - self.gamma, 1 + self.gamma)
        else:
            gamma = _SLOWEST + (self.gamma - _SLOWEST) * cooled
            slope = jnp.maximum(dual_length(gradient, self.norm), 1e-12)
            # As far beyond the boundary as it takes to be on its other side in any program.
            wider = distance + (jnp.abs(outcome.loss) + 4 * outcome.least) / slope
            wider = jnp.where(jnp.isfinite(best), state.radius * (1 + gamma), wider)
            radius = jnp.where(fooled, jnp.minimum(state.radius * (1 - gamma), best), wider)
            # Clipped last, what black and white stop would be missing from every radius.
            moved = jnp.clip(origin + moved, 0, 1) - origin
        radius = jnp.minimum(radius, length(jnp.maximum(origin, 1 - origin), self.norm))
        moved = origin + self._within(moved, radius)
        following = NormState(state.step + 1, origin, jnp.clip(moved, 0, 1), radius, best)
        return following, Look(x, nearest(x, outcome, problem, self.norm))

    def _within(self, delta: Array, radius: Array) -> Array:
        """δ in the ball, or of a decoupled attack on its sphere."""
        if not self.decoupled:
            return into_ball(delta, radius, self.norm)
        return delta * radius / jnp.maximum(length(delta, "l2"), 1e-12)


def plan_fmn(
    request: Request,
    *,
    steps: int,
    step_size: float = 1.0,
    gamma: float = 0.05,
    keep: Keep = "best",
) -> Plan:
    """The plan of `fmn`; see there for the arguments."""
    return _plan(request, False, "margin", steps, step_size, gamma, 0.0, keep)


def plan_ddn(
    request: Request,
    *,
    steps: int,
    initial: float = 1.0,
    gamma: float = 0.05,
    keep: Keep = "best",
) -> Plan:
    """The plan of `ddn`; see there for the arguments."""
    checks.number("initial", initial, above=0)
    return _plan(request, True, "ce", steps, 1.0, gamma, initial, keep)


def _plan(
    request: Request,
    decoupled: bool,
    loss: str,
    steps: int,
    size: float,
    gamma: float,
    radius: float,
    keep: Keep,
) -> Plan:
    numbers = (
        checks.number("step_size", size, above=0),
        checks.number("gamma", gamma, above=0, high=1),
        radius,
    )
    attack = MinimumNorm(request.norm, decoupled, jnp.int32(steps), *map(jnp.float32, numbers))
    start = begun(request, drawn=False)
    return plan(request, attack, start, steps=steps, loss=loss, keep=keep)


@gate.public
def fmn(
    model: Model,
    images: ArrayLike,
    labels: Any,
    *,
    norm: str = "l2",
    step_size: float = 1.0,
    gamma: float = 0.05,
    target: Any = None,
    key: KeyLike = 0,
    steps: int = 100,
    **options: Unpack[BallOptions],
) -> AttackResult:
    """Fast Minimum-Norm: the nearest image that fools, in a ball that closes in on the boundary.

    Every step goes along the gradient of the margin, its L2 length falling from α to α/100 as a
    cosine, and is put into a ball about the image. The ball's radius is that of the linearised
    boundary until something fools; from then on it shrinks by γ where the iterate fools, at least
    to the nearest that did, and grows by γ where it does not, γ falling to .001. A step is put into
    [0, 1] before the ball, not after it as by the authors: else the attack often stalls.

    Args, raises as `pgd`, but for:
      norm: "linf", "l2" or "l1", in which images are near.
      step_size: α; 1 in L2 is for a few pixels of a digit. In Linf 10 is usual.
      gamma: in (0, 1].
      key: of no effect; the attack is deterministic.

    Returns:
      An AttackResult; `losses` are the distances of the iterates, below 0.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attacks
      >>> model = rvis.load("mnist_cnn")
      >>> grey = np.full((28, 28, 1), 0.5, np.float32)
      >>> label = int(model(grey).argmax())
      >>> bool(attacks.fmn(model, grey, label, steps=20).success)
      True

    Reference: Pintor, Roli, Brendel & Biggio 2021, Fast minimum-norm adversarial attacks through
      adaptive norm constraints, algorithm 1.
    """
    return run_attack(
        plan_fmn,
        prepare(model, images, labels, norm=norm, target=target, key=key),
        "fmn",
        steps=steps,
        step_size=step_size,
        gamma=gamma,
        **options,
    )


@gate.public
def ddn(
    model: Model,
    images: ArrayLike,
    labels: Any,
    *,
    initial: float = 1.0,
    gamma: float = 0.05,
    target: Any = None,
    key: KeyLike = 0,
    steps: int = 100,
    **options: Unpack[BallOptions],
) -> AttackResult:
    """Decoupled direction and norm: the nearest image in L2 that fools, by steps on a sphere.

    Every step goes along the gradient of the cross-entropy, its length falling from 1 to .01 as a
    cosine, and is put on a sphere about the image. Its radius shrinks by γ where the iterate fools
    and grows by γ where it does not.

    Args, raises as `pgd`, but for:
      initial: the first radius, above 0.
      gamma: in (0, 1].
      key: of no effect; the attack is deterministic.

    Returns:
      An AttackResult in "l2"; `losses` are the distances of the iterates, below 0.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attacks
      >>> model = rvis.load("mnist_cnn")
      >>> grey = np.full((28, 28, 1), 0.5, np.float32)
      >>> label = int(model(grey).argmax())
      >>> bool(attacks.ddn(model, grey, label, steps=20).success)
      True

    Reference: Rony et al. 2019, Decoupling direction and norm for efficient gradient-based L2
      adversarial attacks and defenses, algorithm 1.
    """
    return run_attack(
        plan_ddn,
        prepare(model, images, labels, norm="l2", target=target, key=key),
        "ddn",
        steps=steps,
        initial=initial,
        gamma=gamma,
        **options,
    )
