"""The Square attack: random squares, kept where they help, without a gradient."""

from __future__ import annotations

from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks, gate, struct
from rvis.ascent import Problem
from rvis.attacks.attack import Keep, Plan, plan, run_attack
from rvis.attacks.geometry import into_l1, length
from rvis.attacks.look import Look, look
from rvis.attacks.losses import Outcome
from rvis.attacks.request import BallOptions, Request, prepare
from rvis.attacks.result import AttackResult
from rvis.types import Array, ArrayLike, KeyLike, Model, on_device

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Of 10,000 queries, those after which the share of pixels in a square is halved."""


def halvings(queries: int, *, rescale: bool = True) -> np.ndarray:
    """The queries, counted from 0, from which on a square covers half as much as before.

    Args:
      queries: how many in all.
      rescale: whether the schedule of 10,000 is stretched to them, as in the paper.

    Example:
      >>> from rvis.attacks.square import halvings
      >>> halvings(5000)[:3].tolist(), halvings(5000, rescale=False)[:3].tolist()
      ([6, 26, 101], [11, 51, 201])

    Reference: Andriushchenko et al. 2020, section 5 and the authors' code (`p_selection`).
    """
    marks = [mark + 1 for mark in _HALVINGS]
    if rescale:  # in Python's integers, which do not overflow
        marks = [-(-mark * queries // 10000) for mark in marks]
    return np.minimum(marks, np.iinfo(np.int32).max).astype(np.int32)


@struct.dataclass
class SquareState:
    """How many queries were made, the best image (1, H, W, C), and its outcome."""

    step: Array
    position: Array
    outcome: Outcome


@struct.dataclass
class Square:
    """A query of the Square attack, see `rvis.attacks.attack.Pursuit`.

    Attributes:
      norm: "linf", "l2" or "l1".
      marks: see `halvings`, a leaf.
      p: the share of an image's pixels that a square covers at first.
    """

    norm: str = struct.static()
    marks: Array
    p: Array

    def init(self, key: Array, start: Array) -> SquareState:
        """Before the first query, from the image (1, H, W, C)."""
        low = jnp.float32(-jnp.inf)
        return SquareState(jnp.int32(0), start, Outcome(low, low, jnp.float32(0)))

    def step(
        self, key: Array, state: SquareState, model: Model, problem: Problem
    ) -> tuple[SquareState, Look]:
        """One query, kept where it raises the loss; tells the highest loss after it."""
        ball = problem.constraint
        image = ball.centre[0]
        radius = jnp.asarray(ball.radius, jnp.float32)
        covered = self.p / 2.0 ** (state.step >= self.marks).sum(dtype=jnp.float32)
        delta = state.position[0] - image
        if self.norm == "linf":
            begun = _stripes(key, image.shape) * radius
            proposed = _flat(key, delta, radius, covered)
        else:
            begun = _tiles(key, image.shape, self.norm)
            begun = begun * radius if self.norm == "l2" else begun
            proposed = _shift(key, delta, radius, covered, self.norm)
        candidate = (image + jnp.where(state.step == 0, begun, proposed))[None]
        if self.norm == "l1":
            candidate = into_l1(candidate, image[None], radius)
        candidate = ball.project(candidate)
        _, outcome = look(candidate, key, model, problem)
        better = outcome.success | (outcome.loss > state.outcome.loss)
        position, outcome = jax.tree.map(
            lambda new, old: jnp.where(better, new, old),
            (candidate, outcome),
            (state.position, state.outcome),
        )
        return SquareState(state.step + 1, position, outcome), Look(position, outcome)


def _signs(key: Array, shape: tuple[int, ...]) -> Array:
    # JAX's own `rademacher` draws other signs where 64 bits are allowed.
    return 2 * jax.random.bernoulli(key, jnp.float32(0.5), shape).astype(jnp.float32) - 1


def _window(key: Array, shape: tuple[int, ...], side: Array) -> tuple[Array, Array]:
    """The rows (H,) and columns (W,) of an image, counted from the corner of a random square."""
    room = jnp.asarray(shape[:2], jnp.int32) - side + 1
    corner = jax.random.randint(key, (2,), 0, room, jnp.int32)
    rows, columns = (jnp.arange(side, dtype=jnp.int32) for side in shape[:2])
    return rows - corner[0], columns - corner[1]


def _inside(rows: Array, columns: Array, side: Array) -> Array:
    """(H, W, 1), where the square is."""
    tall, wide = ((at >= 0) & (at < side) for at in (rows, columns))
    return (tall[:, None] & wide[None])[..., None]


def _stripes(key: Array, shape: tuple[int, ...]) -> Array:
    """±1 in vertical stripes of one pixel, each channel by itself."""
    return jnp.broadcast_to(_signs(key, (1, *shape[1:])), shape)


def _flat(key: Array, delta: Array, radius: Array, covered: Array) -> Array:
    """A square of ±ε, one sign a channel (algorithm 2)."""
    place, sign = jax.random.split(key)
    height, width, channels = delta.shape
    side = jnp.round(jnp.sqrt(covered * height * width)).astype(jnp.int32)
    side = jnp.clip(side, 1, max(1, min(height, width) - 1))
    inside = _inside(*_window(place, delta.shape, side), side)
    return jnp.where(inside, radius * _signs(sign, (1, 1, channels)), delta)


def _tiles(key: Array, shape: tuple[int, ...], norm: str = "l2") -> Array:
    """Five by five tiles of the pattern η, each with a random sign a channel.

    In L2 they have a norm of 1 together, in L1 each in each channel, as in the authors' code.
    """
    height, width, channels = shape
    side = max(1, min(height, width) // 5)
    down, across = height // side, width // side
    top, left = (height - down * side) // 2, (width - across * side) // 2
    flip, sign = jax.random.split(key)
    within = jnp.arange(side, dtype=jnp.int32)
    upright = _pattern(within, within, jnp.int32(side), norm)
    turned = jax.random.bernoulli(flip, jnp.float32(0.5), (down, across, 1, 1))
    tiles = jnp.where(turned, upright.T, upright)[..., None]
    tiles = tiles * _signs(sign, (down, across, 1, 1, channels))
    whole = tiles.swapaxes(1, 2).reshape(down * side, across * side, channels)
    whole = whole / length(whole, norm) if norm == "l2" else whole
    return (
        jnp.zeros(shape, jnp.float32)
        .at[top : top + down * side, left : left + across * side]
        .set(whole)
    )


def _shift(key: Array, delta: Array, radius: Array, covered: Array, norm: str = "l2") -> Array:
    """A square takes on the pattern η, with the norm of another that is wiped out (algorithm 3)."""
    to, source, flip, sign = jax.random.split(key, 4)
    height, width, channels = delta.shape
    side = jnp.maximum(jnp.round(jnp.sqrt(covered * height * width)), 3).astype(jnp.int32)
    most = min(height, width)
    side = jnp.minimum(side + 1 - side % 2, most - 1 + most % 2)
    rows, columns = _window(to, delta.shape, side)
    filled = _inside(rows, columns, side)
    wiped = _inside(*_window(source, delta.shape, side), side)

    upright = _pattern(rows, columns, side, norm)
    turned = _pattern(columns, rows, side, norm).T
    pattern = jnp.where(jax.random.bernoulli(flip, jnp.float32(0.5)), turned, upright)[..., None]
    new = pattern * _signs(sign, (1, 1, channels)) + jnp.where(filled, delta, 0) / (
        1e-10 + _norms(jnp.where(filled, delta, 0), norm)
    )
    new = jnp.where(filled, new, 0)
    before = _norms(jnp.where(filled | wiped, delta, 0), norm)
    if norm == "l2":
        spare = jnp.maximum(radius**2 - jnp.square(delta).sum(), 0) / channels
        long = jnp.sqrt(spare + jnp.square(before))
    else:
        long = jnp.maximum(radius - jnp.abs(delta).sum(), 0) + channels * before
    new = new / jnp.maximum(_norms(new, norm), 1e-10) * long
    whole = jnp.where(filled, new, jnp.where(wiped, 0, delta))
    return whole * radius / jnp.maximum(length(whole, norm), 1e-10) if norm == "l2" else whole


def _norms(delta: Array, norm: str) -> Array:
    """The norm of each channel, (1, 1, C)."""
    if norm == "l1":
        return jnp.abs(delta).sum((0, 1), keepdims=True)
    return jnp.sqrt(jnp.square(delta).sum((0, 1), keepdims=True))


def _pattern(rows: Array, columns: Array, side: Array, norm: str = "l2") -> Array:
    """η, (H, W): two pseudo-Gaussians one above the other, of opposite signs, of norm 1.

    Each is a pile of concentric squares, the k-th of height 1/k², in L1 1/k⁴ (figure 3 of the paper
    and `eta_rectangles` of fra31/auto-attack).
    """
    inside = _inside(rows, columns, side)[..., 0]
    half = side // 2
    squares = 1 / np.arange(1.0, max(len(rows), len(columns)) + 2) ** (2 if norm == "l2" else 4)
    heights = jnp.asarray(np.concatenate([[0], np.cumsum(squares)]), jnp.float32)

    def pile(rows: Array, tall: Array) -> Array:
        centre = tall // 2, side // 2
        ring = jnp.maximum(jnp.abs(rows - centre[0])[:, None], jnp.abs(columns - centre[1])[None])
        value = heights[jnp.maximum(*centre) + 1] - heights[jnp.minimum(ring, len(heights) - 1)]
        own = inside & ((rows >= 0) & (rows < tall))[:, None]
        value = jnp.where(own, value, 0)
        return value / jnp.maximum(length(value, norm), 1e-10)

    pattern = pile(rows, half) - pile(rows - half, side - half)
    return pattern / jnp.maximum(length(pattern, norm), 1e-10)


def plan_square(
    request: Request,
    *,
    steps: int,
    p: float = 0.8,
    loss: str | None = None,
    rescale_schedule: bool = True,
    keep: Keep = "first",
) -> Plan:
    """The plan of `square`; see there for the arguments."""
    checks.number("p", p, above=0, high=1)
    if loss is None:
        loss = "ce" if request.targeted else "margin"
    marks = halvings(steps, rescale=rescale_schedule)
    attack = Square(request.norm, on_device(marks), on_device(p, jnp.float32))
    start = request.images[:, None]
    return plan(request, attack, start, steps=steps, loss=loss, keep=keep, piece=50, held=1)


@gate.public
def square(
    model: Model,
    images: ArrayLike,
    labels: Any,
    *,
    norm: str = "linf",
    eps: Any,
    p: float = 0.8,
    rescale_schedule: bool = True,
    restarts: int = 1,
    loss: str | None = None,
    target: Any = None,
    key: KeyLike = 0,
    steps: int = 5000,
    **options: Unpack[BallOptions],
) -> AttackResult:
    """The Square attack: a random search that sees the logits alone.

    It starts from random stripes (Linf) or tiles (L2, L1) on the surface of the ball. Each query
    changes a square of shrinking size at a random place, and is kept where the loss rises. An image
    is done with its first success.

    Args, returns and raises as `pgd`, but for:
      norm: "linf", "l2" or "l1".
      p: share of the image in a square at first, in (0, 1].
      rescale_schedule: whether squares shrink in the course of all queries, as in the paper, or as
        in its 10,000 however many there are, as AutoAttack's do.
      loss: "margin", "ce" or "dlr"; by default the margin, or the cross-entropy towards targets.
      steps: queries of the model for each image; `iterations` of the result is how many were made
        before the one that fooled, and `losses` are the highest after each.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attacks
      >>> model = rvis.load("mnist_cnn")
      >>> digit = np.full((28, 28, 1), 0.5, np.float32)
      >>> attacks.square(model, digit, 3, eps=0.3, steps=10).losses.shape
      (10,)

    Reference: Andriushchenko et al. 2020, Square Attack: a query-efficient black-box adversarial
      attack via random search, algorithms 1 to 3; for L1, fra31/auto-attack.
    """
    return run_attack(
        plan_square,
        prepare(
            model,
            images,
            labels,
            norm=norm,
            eps=eps,
            target=target,
            key=key,
        ),
        "square",
        restarts=restarts,
        steps=steps,
        p=p,
        loss=loss,
        rescale_schedule=rescale_schedule,
        **options,
    )
