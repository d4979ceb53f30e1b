"""HopSkipJump: an attack that sees the model's class alone, walking along the boundary."""

from __future__ import annotations

from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks, gate, struct
from rvis.ascent import Problem
from rvis.attacks.attack import Keep, Plan, Start, plan, run_attack, starts
from rvis.attacks.geometry import length
from rvis.attacks.look import Look, look, nearest
from rvis.attacks.request import BallOptions, Request, prepare
from rvis.attacks.result import AttackResult
from rvis.types import Array, ArrayLike, KeyLike, Model

_BEGIN, _HALVE, _PROBE, _JUMP = range(4)
_PROBES, _MOST = 100, 10_000
"""Queries for the first estimate of a direction, and for any."""
_TRIES = 30


@struct.dataclass
class HopState:
    """What the attack carries from query to query.

    Attributes:
      phase: looking for a first image that fools; halving the way to one; probing about the
        boundary; or jumping along the direction that the probes tell.
      count: queries of this phase so far.
      round: how many jumps there were.
      origin: (1, H, W, C); so the next three.
      far: what fools, from where the boundary is looked for.
      edge: what fools next to the boundary.
      position: the last image that was asked about.
      low: a share of the way (in Linf a distance) that does not fool.
      high: one that does.
      distance: of `edge`.
      votes: Σφ of the probes, each ±1.
      seen: Σu of their directions, (1, H, W, C).
      voted: Σφu.
      jump: the direction, (1, H, W, C).
      size: of the next jump.
    """

    phase: Array
    count: Array
    round: Array
    origin: Array
    far: Array
    edge: Array
    position: Array
    low: Array
    high: Array
    distance: Array
    votes: Array
    seen: Array
    voted: Array
    jump: Array
    size: Array


@struct.dataclass
class HopSkipJump:
    """A query, see `rvis.attacks.attack.Pursuit`.

    Attributes:
      norm: "l2" or "linf".
      complete: see `Pursuit`.
    """

    norm: str = struct.static()
    complete: bool = struct.static(default=True)

    def init(self, key: Array, start: Start) -> HopState:
        """Before the first query, which is the given image, or a draw in its place."""
        origin = start.ball.centre
        draw = jax.random.uniform(key, origin.shape, jnp.float32)
        first = jnp.where(start.drawn, draw, start.given)
        zero, none, one = jnp.float32(0), jnp.zeros_like(origin), jnp.float32(1)
        images = (origin, first, first, first)
        numbers = (zero, one, one, zero)
        count = jnp.int32(0)
        return HopState(jnp.int32(_BEGIN), count, count, *images, *numbers, none, none, none, one)

    def step(
        self, key: Array, state: HopState, model: Model, problem: Problem
    ) -> tuple[HopState, Look]:
        """One query; tells less the distance of what it asked about."""
        origin, phase = state.origin, state.phase
        draw = jax.random.uniform(key, origin.shape, jnp.float32)
        middle = (state.low + state.high) / 2
        noise = (
            draw * 2 - 1
            if self.norm == "linf"
            else jax.random.normal(key, origin.shape, jnp.float32)
        )
        radius = jnp.where(state.round == 0, 0.1, state.distance / origin.size)
        probe = jnp.clip(state.edge + radius * noise / length(noise, "l2"), 0, 1)
        fresh = (state.count == 0) & (state.round == 0)
        asked = jnp.stack(
            [
                jnp.where(fresh, state.far, draw),
                self._between(origin, state.far, middle),
                probe,
                jnp.clip(state.edge + state.size * state.jump, 0, 1),
            ]
        )[phase]
        _, outcome = look(asked, key, model, problem)
        fooled = outcome.success
        halving, probing, jumping = (phase == p for p in (_HALVE, _PROBE, _JUMP))
        count = state.count + 1

        # The way to the boundary, halved until it is as short as the authors ask for.
        high = jnp.where(halving & fooled, middle, state.high)
        low = jnp.where(halving & ~fooled, middle, state.low)
        size = origin.size
        whole = self._whole(origin, state.far)
        least = whole / size ** (1.5 if self.norm == "l2" else 2.0)
        arrived = halving & ((high - low <= least) | (count >= _TRIES))
        edge = jnp.where(arrived, self._between(origin, state.far, high), state.edge)
        distance = jnp.where(arrived, length(edge - origin, self.norm), state.distance)

        # Probes: which side of the boundary they lie on, less the mean.
        way = (asked - state.edge) / (radius + 1e-8)
        vote = jnp.where(fooled, 1.0, -1.0)
        votes = jnp.where(probing, state.votes + vote, state.votes)
        seen = jnp.where(probing, state.seen + way, state.seen)
        voted = jnp.where(probing, state.voted + vote * way, state.voted)
        root = jnp.sqrt(state.round.astype(jnp.float32) + 1.0)
        wanted = jnp.minimum(_PROBES * root, _MOST).astype(jnp.int32)
        told = probing & (count >= wanted)
        mean = votes / wanted.astype(jnp.float32)
        total = voted - jnp.where(jnp.abs(mean) == 1, 0, mean) * seen
        unit = total / (length(total, "l2") + 1e-12)
        jump = jnp.where(told, jnp.sign(unit) if self.norm == "linf" else unit, state.jump)
        step = jnp.where(jumping & ~fooled, state.size / 2, state.size)
        step = jnp.where(told, distance / root, step)

        landed, lost = jumping & fooled, jumping & ~fooled & (count >= _TRIES)
        begun = ((phase == _BEGIN) & fooled) | landed
        far = jnp.where(begun, asked, state.far)
        following = jnp.where(begun, _HALVE, phase)
        following = jnp.where(arrived | lost, _PROBE, jnp.where(told, _JUMP, following))
        anew = arrived | lost
        state = HopState(
            following.astype(jnp.int32),
            jnp.where(following == phase, count, 0),
            state.round + (landed | lost).astype(jnp.int32),
            origin,
            far,
            edge,
            asked,
            jnp.where(begun, 0, low),
            jnp.where(begun, self._whole(origin, far), high),
            distance,
            jnp.where(anew, 0, votes),
            jnp.where(anew, 0, seen),
            jnp.where(anew, 0, voted),
            jump,
            step,
        )
        return state, Look(asked, nearest(asked, outcome, problem, self.norm))

    def _whole(self, origin: Array, far: Array) -> Array:
        return length(far - origin, "linf") if self.norm == "linf" else jnp.float32(1)

    def _between(self, origin: Array, far: Array, share: Array) -> Array:
        """A point on the way from the image to one that fools."""
        if self.norm == "linf":
            return jnp.clip(far, origin - share, origin + share)
        return origin + share * (far - origin)


def plan_hop_skip_jump(
    request: Request, *, steps: int, start: np.ndarray | None = None, keep: Keep = "best"
) -> Plan:
    """The plan of `hop_skip_jump`; see there for the arguments."""
    begun = starts(request, start, drawn=start is None)
    attack = HopSkipJump(request.norm)
    return plan(request, attack, begun, steps=steps, loss="margin", keep=keep, piece=50)


@gate.public
def hop_skip_jump(
    model: Model,
    images: ArrayLike,
    labels: Any,
    *,
    norm: str = "l2",
    start: ArrayLike | None = None,
    target: Any = None,
    key: KeyLike = 0,
    steps: int = 5000,
    **options: Unpack[BallOptions],
) -> AttackResult:
    """HopSkipJump: the nearest image that fools, found by the model's class alone.

    From an image that fools the way to the original is halved until the boundary is met. There, by
    which of 100·√t random directions fool, the boundary's normal is estimated; a jump along it, as
    long as the distance over √t and halved until it fools, is the next image to start from.

    Args, raises as `pgd`, but for:
      norm: "l2" or "linf", in which images are near.
      start: images that fool, as `images`; without them, random ones until one does. A target is
        seldom met by chance: give images of its class.
      steps: queries of the model for each image.

    Returns:
      An AttackResult with the nearest of all images asked about that fool; `losses` are the
      distances of the queries, below 0.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attacks
      >>> model = rvis.load("mnist_cnn")
      >>> grey = np.full((28, 28, 1), 0.5, np.float32)
      >>> label = int(model(grey).argmax())
      >>> found = attacks.hop_skip_jump(model, grey, label, start=np.zeros_like(grey), steps=60)
      >>> found.losses.shape
      (60,)

    Reference: Chen, Jordan & Wainwright 2020, HopSkipJumpAttack: a query-efficient decision-based
      attack, algorithm 2; without the batches of probes, so that a step is a query.
    """
    request = prepare(
        model, images, labels, norm=norm, target=target, key=key, norms=("l2", "linf")
    )
    given = None
    if start is not None:
        given = np.asarray(checks.images("start", start, shape=request.shape))
        checks.one_or_each("start", len(given), len(request.images))
        given = np.broadcast_to(given, request.images.shape)
    elif request.targeted:
        raise ValueError("start: images of the target were expected beside a target, given none")
    return run_attack(
        lambda request, steps: plan_hop_skip_jump(request, steps=steps, start=given),
        request,
        "hop_skip_jump",
        steps=steps,
        **options,
    )
