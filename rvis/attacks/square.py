"""The Square attack: random squares, kept where they help, without a gradient."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks, core
from rvis.attacks.gradient import balls
from rvis.attacks.losses import aim
from rvis.attacks.pursuit import Best, Keep, Plan, attacked, look
from rvis.attacks.result import AttackResult, Request, prepare
from rvis.types import Array, ArrayLike, KeyLike, Model

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Of 10,000 queries, those after which the share of pixels in a square is halved."""


def share(query: ArrayLike, queries: ArrayLike, p: ArrayLike) -> Array:
    """The share of an image's pixels that a square covers at a query.

    Args:
      query: its number, from 0.
      queries: how many in all; the schedule of 10,000 is stretched to them.
      p: the share at first.

    Example:
      >>> from rvis.attacks.square import share
      >>> [round(float(share(query, 5000, 0.8)), 3) for query in (5, 6, 30)]
      [0.8, 0.4, 0.2]

    Reference: Andriushchenko et al. 2020, section 5 and the authors' code (`p_selection`).
    """
    place = jnp.asarray(query) * 10000 // queries
    return jnp.asarray(p) / 2.0 ** (place > jnp.asarray(_HALVINGS)).sum()


@flax.struct.dataclass
class SquareState:
    """How many queries were made, and the best image."""

    step: Array
    best: Best


@flax.struct.dataclass
class Square:
    """A query of the Square attack, for groups of one image.

    Attributes:
      norm: "linf" or "l2".
      queries: how many in all.
      p: see `share`.
      keep: "first"; queries after a success change nothing.
    """

    norm: str = flax.struct.field(pytree_node=False)
    queries: Array
    p: Array
    keep: Keep = flax.struct.field(pytree_node=False, default="first")

    def init(self, key: Array, position: Any = None) -> SquareState:
        """The state before the first query, from the image (1, H, W, C)."""
        return SquareState(jnp.int32(0), Best.none(position[0]))

    def step(
        self, key: Array, state: SquareState, model: Model, problem: core.Problem
    ) -> tuple[SquareState, Array]:
        """One query, kept where it raises the loss; tells the highest loss after it."""
        ball = problem.constraint
        image = ball.centre[0]
        radius = jnp.asarray(ball.radius, jnp.float32)
        covered = share(state.step, self.queries, self.p)
        start, propose = {"linf": (_stripes, _flat), "l2": (_tiles, _shift)}[self.norm]
        begun = start(key, image.shape) * radius
        proposed = propose(key, state.best.image - image, radius, covered)
        delta = jnp.where(state.step == 0, begun, proposed)
        candidate = ball.project((image + delta)[None])
        verdict = look(candidate, model, problem)
        best = state.best.after(candidate[0], verdict, state.step, self.keep)
        return SquareState(state.step + 1, best), best.score

    def settle(self, state: SquareState, model: Model, problem: core.Problem) -> SquareState:
        """The state as it is: every query was looked at."""
        del model, problem
        return state

    def images(self, state: SquareState) -> Array:
        """The best image, as a group of one."""
        return state.best.image[None]


def _signs(key: Array, shape: tuple[int, ...]) -> Array:
    return jax.random.rademacher(key, shape, jnp.float32)


def _window(key: Array, shape: tuple[int, ...], side: Array) -> tuple[Array, Array]:
    """The rows (H,) and columns (W,) of an image, counted from the corner of a random square."""
    room = jnp.asarray(shape[:2]) - side + 1
    corner = jax.random.randint(key, (2,), 0, room)
    return jnp.arange(shape[0]) - corner[0], jnp.arange(shape[1]) - corner[1]


def _inside(rows: Array, columns: Array, side: Array) -> Array:
    """(H, W, 1), where the square is."""
    tall, wide = ((at >= 0) & (at < side) for at in (rows, columns))
    return (tall[:, None] & wide)[..., None]


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


def _tiles(key: Array, shape: tuple[int, ...]) -> Array:
    """Five by five tiles of the pattern η, each with a random sign a channel, of L2 norm 1."""
    height, width, channels = shape
    side = max(1, min(height, width) // 5)
    down, across = height // side, width // side
    top, left = (height - down * side) // 2, (width - across * side) // 2
    flip, sign = jax.random.split(key)
    within = jnp.arange(side)
    upright = _pattern(within, within, jnp.int32(side))
    turned = jax.random.bernoulli(flip, shape=(down, across, 1, 1))
    tiles = jnp.where(turned, upright.T, upright)[..., None]
    tiles = tiles * _signs(sign, (down, across, 1, 1, channels))
    whole = tiles.swapaxes(1, 2).reshape(down * side, across * side, channels)
    whole = whole / jnp.sqrt(jnp.square(whole).sum())
    return jnp.zeros(shape).at[top : top + down * side, left : left + across * side].set(whole)


def _shift(key: Array, delta: Array, radius: Array, covered: Array) -> Array:
    """A square takes on the pattern η, with the norm of another that is wiped out (algorithm 3)."""
    to, source, flip, sign = jax.random.split(key, 4)
    height, width, channels = delta.shape
    side = jnp.maximum(jnp.round(jnp.sqrt(covered * height * width)), 3).astype(jnp.int32)
    most = min(height, width)
    side = jnp.minimum(side + (side % 2 == 0), most - (most % 2 == 0))
    rows, columns = _window(to, delta.shape, side)
    filled = _inside(rows, columns, side)
    wiped = _inside(*_window(source, delta.shape, side), side)

    upright = _pattern(rows, columns, side)
    turned = _pattern(columns, rows, side).T
    pattern = jnp.where(jax.random.bernoulli(flip), turned, upright)[..., None]
    new = pattern * _signs(sign, (1, 1, channels)) + jnp.where(filled, delta, 0) / (
        1e-10 + _norms(jnp.where(filled, delta, 0))
    )
    new = jnp.where(filled, new, 0)
    spare = jnp.maximum(radius**2 - jnp.square(delta).sum(), 0) / channels
    length = jnp.sqrt(spare + jnp.square(_norms(jnp.where(filled | wiped, delta, 0))))
    new = new / jnp.maximum(_norms(new), 1e-10) * length
    whole = jnp.where(filled, new, jnp.where(wiped, 0, delta))
    return whole * radius / jnp.maximum(jnp.sqrt(jnp.square(whole).sum()), 1e-10)


def _norms(delta: Array) -> Array:
    """The L2 norm of each channel, (1, 1, C)."""
    return jnp.sqrt(jnp.square(delta).sum((0, 1), keepdims=True))


def _pattern(rows: Array, columns: Array, side: Array) -> Array:
    """η, (H, W): two pseudo-Gaussians one above the other, of opposite signs, of L2 norm 1.

    Each is a pile of concentric squares, the k-th of height 1/k² (figure 3 of the paper and
    `pseudo_gaussian_pert_rectangles` of the authors' code).
    """
    inside = _inside(rows, columns, side)[..., 0]
    half = side // 2
    squares = 1 / np.arange(1, max(len(rows), len(columns)) + 2) ** 2
    heights = jnp.asarray(np.concatenate([[0], np.cumsum(squares)]), jnp.float32)

    def pile(rows: Array, tall: Array) -> Array:
        centre = tall // 2, side // 2
        ring = jnp.maximum(jnp.abs(rows - centre[0])[:, None], jnp.abs(columns - centre[1]))
        value = heights[jnp.maximum(*centre) + 1] - heights[jnp.minimum(ring, len(heights) - 1)]
        own = inside & ((rows >= 0) & (rows < tall))[:, None]
        value = jnp.where(own, value, 0)
        return value / jnp.maximum(jnp.sqrt(jnp.square(value).sum()), 1e-10)

    pattern = pile(rows, half) - pile(rows - half, side - half)
    return pattern / jnp.maximum(jnp.sqrt(jnp.square(pattern).sum()), 1e-10)


def plan_square(request: Request, *, steps: int, p: float = 0.8, loss: str | None = None) -> Plan:
    """The plan of `square`; see there for the arguments."""
    checks.count("steps", steps)
    checks.number("p", p, above=0, high=1)
    if loss is None:
        loss = "ce" if request.targeted else "margin"
    ball = balls(request)
    problem = core.Problem(aim(request, loss), (), ball)
    attack = Square(request.norm, jnp.int32(steps), jnp.float32(p))
    return Plan(attack, problem, request.images[:, None], steps, piece=50)


def square(
    model: Model,
    images: ArrayLike,
    labels: Any,
    *,
    norm: str = "linf",
    eps: Any,
    steps: int = 5000,
    p: float = 0.8,
    restarts: int = 1,
    loss: str | None = None,
    targeted: bool = False,
    key: KeyLike = 0,
    progress: bool = True,
) -> AttackResult:
    """The Square attack: a random search that sees the logits alone.

    It starts from random stripes (Linf) or tiles (L2) on the surface of the ball. Each query
    changes a square of shrinking size at a random place, and is kept where the loss rises. An image
    is done with its first success.

    Args:
      model: any model.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      labels: (n,) or one class: the true ones, or targets.
      norm: "linf" or "l2".
      eps: the ball's radius, in units of the [0, 1] image: a number, or (n,); inf for all of
        [0, 1].
      steps: queries of the model for each image; `iterations` of the result is how many were made
        before the one that fooled.
      p: share of the image in a square at first, in (0, 1].
      restarts: attempts with other chances; each goes on with the images that still hold.
      loss: "margin", "ce" or "dlr"; by default the margin, or the cross-entropy towards targets.
      targeted: whether to go towards `labels` instead of away from them.
      key: an int seed or a typed key. An image's is folded from its bits.
      progress: a bar on a terminal.

    Returns:
      An `AttackResult`; `losses` is the highest loss after each query.

    Raises:
      TypeError, ValueError: naming the argument, before anything is compiled.
      FloatingPointError: naming the images whose loss became NaN.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attacks
      >>> model = rvis.load("mnist_cnn")
      >>> digit = np.full((28, 28, 1), 0.5, np.float32)
      >>> attacks.square(model, digit, 3, eps=0.3, steps=10).iterations.shape
      (1,)

    Reference: Andriushchenko et al. 2020, Square Attack: a query-efficient black-box adversarial
      attack via random search, algorithms 1 to 3.
    """
    request = prepare(
        model, images, labels, norm=norm, eps=eps, targeted=targeted, key=key, norms=("linf", "l2")
    )
    options: dict[str, Any] = {"steps": steps, "p": p, "loss": loss}
    return attacked(plan_square, request, "square", restarts=restarts, progress=progress, **options)
