"""The long run of an attack: a fixed number of lanes, each given another image when one is done."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, cast

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from rvis import checkpoints, checks, core
from rvis.attacks.losses import Verdict
from rvis.attacks.result import AttackResult, Request, conclude, lanes, own_keys
from rvis.compilation import hands, merged
from rvis.types import Array, ArrayLike, Model, PyTree

Keep = Literal["best", "first", "last"]


@flax.struct.dataclass
class Best:
    """Of the iterates seen so far, the one to give back.

    Attributes:
      image: (H, W, C).
      score: the maximised loss there.
      fooled: whether the model is.
      since: the step at which it first was, −1 if it never was.
    """

    image: Array
    score: Array
    fooled: Array
    since: Array

    @classmethod
    def none(cls, image: Array) -> Best:
        """Before any was seen."""
        return cls(image, jnp.float32(-jnp.inf), jnp.bool_(False), jnp.int32(-1))

    def after(self, image: Array, verdict: Verdict, step: Array, keep: Keep) -> Best:
        """With one more iterate seen.

        Args:
          image: the iterate.
          verdict: its loss, and whether it fools.
          step: its number.
          keep: "best", one that fools and has the highest loss; "first", the first that fools,
            and until then the highest loss; "last", whatever came last.
        """
        score, fooled = verdict.score, verdict.fooled
        higher = (fooled & ~self.fooled) | ((fooled == self.fooled) & (score > self.score))
        taken = {"best": higher, "first": higher & ~self.fooled, "last": jnp.bool_(True)}[keep]
        return Best(
            jnp.where(taken, image, self.image),
            jnp.where(taken, score, self.score),
            jnp.where(taken, fooled, self.fooled),
            jnp.where((self.since < 0) & fooled, step, self.since),
        )


class Attack(core.Algorithm, Protocol):
    """An algorithm whose states have a `best`, and whose steps tell the loss before them."""

    def settle(self, state: PyTree, model: Model, problem: core.Problem) -> PyTree:
        """The state with its last iterate looked at too, of which no gradient is wanted."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """An attack on the n images of a request, as the runner takes it.

    Attributes:
      attack: a pytree with a static field `keep`.
      problem: n problems, whose objectives are `Aim`s.
      position: what `attack.init` takes for each, leaves of shape (n, …).
      steps: how many.
      piece: the most steps between two looks at which images are done; twice that where all go on
        to the end. Steps that it divides share one compiled program, however many they are.
    """

    attack: Any
    problem: core.Problem
    position: PyTree
    steps: int
    piece: int = 5

    def rows(self, rows: np.ndarray) -> Plan:
        """The same for some of the images."""
        whole = jax.tree.map(np.asarray, (self.problem, self.position))
        problem, position = _rows(whole, rows)
        return dataclasses.replace(self, problem=problem, position=position)

    def stopping(self) -> Plan:
        """The same attack, content with the first image that fools."""
        return dataclasses.replace(self, attack=self.attack.replace(keep="first"))


class Found(NamedTuple):
    """What an attack found for each of n images; see `Best` and `AttackResult`."""

    images: np.ndarray
    scores: np.ndarray
    fooled: np.ndarray
    since: np.ndarray
    losses: np.ndarray


def look(group: Array, model: Model, problem: core.Problem) -> Verdict:
    """The verdict on a group of one image (1, H, W, C), of which no gradient is wanted."""
    still = jax.random.key(0)  # without views nothing is random
    return cast(Verdict, core.energy(group, still, model, problem)[1])


def pursue(
    plan: Plan,
    request: Request,
    *,
    attempt: int = 0,
    checkpoint: Path | None = None,
    progress: bool = True,
    label: str = "attack",
) -> Found:
    """Runs a plan; where it is content with the first success, images leave when they are fooled.

    As many images as there are lanes run side by side, on a CPU in a group for each core, a piece
    of the steps at a time; a lane whose image is done takes the next one from its start. So one
    program of fixed width serves any number of images, and what an image meets depends neither on
    the others nor on its lane.

    Args:
      plan: of the request's images.
      request: checked arguments.
      attempt: folded into the keys, for other chances.
      checkpoint: a file to which finished images are saved, and from which the same call goes on.
        The caller removes it.
      progress: a bar on a terminal.
      label: the bar's title.

    Raises:
      ValueError: naming `checkpoint`, if the file is of other work.
      FloatingPointError: naming the images whose loss became NaN.
    """
    count, width = len(request.images), lanes(request.shape)
    stopping = plan.attack.keep == "first"
    piece = _piece(plan.steps, plan.piece if stopping else 2 * plan.piece)
    found = Found(
        np.array(request.images),
        np.full(count, -np.inf, np.float32),
        np.zeros(count, bool),
        np.full(count, -1, np.int32),
        np.full((count, plan.steps), np.nan, np.float32),
    )
    finished = np.zeros(count, bool)
    about: dict[str, Any] = {}
    if checkpoint is not None:
        about["fingerprint"] = checkpoints.fingerprint(
            (plan.attack, plan.problem, plan.position, plan.steps),
            (request.key, request.numbers, attempt),
            (request.model.params, checkpoints.stable(request.model.apply)),
        )
        if checkpoint.exists():
            loaded, _ = checkpoints.load(checkpoint, (found, finished), expect=about["fingerprint"])
            found, finished = jax.tree.map(np.array, loaded)
    clock = time.monotonic()
    bar = tqdm(
        total=count, desc=label, unit="image", disable=None if progress else True, leave=False
    )
    try:
        rounds = _rounds(plan, request, attempt, found, ~finished, width, piece, stopping)
        # Closed before anything is saved: no other thread goes on then.
        with bar, contextlib.closing(rounds):
            bar.update(int(finished.sum()))
            for some in rounds:
                finished[some] = True
                bar.update(len(some))
                if checkpoint is not None and time.monotonic() - clock > 10:
                    checkpoints.save(checkpoint, (found, finished), about=about)
                    clock = time.monotonic()
    except KeyboardInterrupt:
        if checkpoint is not None:
            checkpoints.save(checkpoint, (found, finished), about=about)
        raise
    if checkpoint is not None:
        checkpoints.save(checkpoint, (found, finished), about=about)
    return found


@dataclasses.dataclass
class _Lanes:
    """Lanes that one program computes, and what is in them.

    Attributes:
      image: which each holds, −1 for none.
      done: how many steps of it.
      fresh: which begin with the next piece.
      keys: of the images.
      problem: theirs.
      state: of the attack, once there is one.
    """

    image: np.ndarray
    done: np.ndarray
    fresh: np.ndarray
    keys: Array | None = None
    problem: core.Problem | None = None
    state: PyTree = None

    @classmethod
    def empty(cls, width: int) -> _Lanes:
        return cls(np.full(width, -1), np.zeros(width, np.int32), np.zeros(width, bool))

    def fill(self, queue: list[int]) -> None:
        """Gives the next images to lanes that hold none."""
        free = self.image < 0
        self.fresh = free & (np.cumsum(free) <= len(queue))
        self.image[self.fresh] = [queue.pop() for _ in range(self.fresh.sum())]
        self.done[self.fresh] = 0

    @property
    def busy(self) -> np.ndarray:
        """Lanes that hold an image."""
        return np.flatnonzero(self.image >= 0)


def _rounds(
    plan: Plan,
    request: Request,
    attempt: int,
    found: Found,
    waiting: np.ndarray,
    width: int,
    piece: int,
    stopping: bool,
) -> Generator[np.ndarray, None, None]:
    """Runs piece after piece, writes what ends into `found`, and yields those images' numbers.

    Each group of lanes goes on by itself, with images that all take from one queue.
    """
    queue = list(np.flatnonzero(waiting)[::-1])
    problem, position = jax.tree.map(np.asarray, (plan.problem, plan.position))
    groups = [_Lanes.empty(width) for _ in range(min(hands(), -(-len(queue) // width)))]

    turn = threading.Lock()

    def work(group: _Lanes) -> Iterator[np.ndarray]:
        while True:
            with turn:
                group.fill(queue)
            busy = group.busy
            if not busy.size:
                return
            if group.fresh.any():
                # Lanes for which no image is left repeat another's.
                rows = np.where(group.image >= 0, group.image, group.image.max())
                group.keys = _keys(request.key, request.numbers[rows], attempt)
                group.problem, own_position = _rows((problem, position), rows)
                started = core.init(plan.attack, group.keys, own_position)
                old = group.state
                group.state = started if old is None else _refreshed(group.fresh, started, old)
            group.state, losses = core.run(
                plan.attack,
                group.keys,
                group.state,
                request.model,
                group.problem,
                steps=piece,
                piece=True,
            )
            told = np.asarray(losses)
            _refuse_nan(told[busy], group.image[busy])
            for i in busy:
                found.losses[group.image[i], group.done[i] : group.done[i] + piece] = told[i]
            group.done += piece
            out = group.done[busy] >= plan.steps
            best = group.state.best
            if out.any():
                best = _settled(plan.attack, group.state, request.model, group.problem).best
            if stopping:
                # Not the settled one: whether there is one depends on the other lanes.
                out |= np.asarray(group.state.best.fooled)[busy]
            leaving = busy[out]
            some = group.image[leaving]
            if leaving.size:
                best = jax.tree.map(np.asarray, best)
                found.images[some] = best.image[leaving]
                found.scores[some] = best.score[leaving]
                found.fooled[some] = best.fooled[leaving]
                found.since[some] = best.since[leaving]
                if stopping:
                    # What lanes computed after the first success depends on the piece.
                    ends = np.where(best.fooled, best.since, plan.steps)
                    late = np.arange(plan.steps) > ends[:, None]
                    found.losses[some] = np.where(late[leaving], np.nan, found.losses[some])
                group.image[leaving] = -1
            yield some

    yield from merged(work(group) for group in groups)


def _piece(steps: int, most: int) -> int:
    return max(d for d in range(1, min(steps, most) + 1) if steps % d == 0)


def _rows(tree: PyTree, rows: np.ndarray) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[rows], tree)


@jax.jit
def _keys(key: Array, numbers: ArrayLike, attempt: int) -> Array:
    """Those of an attempt at some images."""
    return jax.vmap(jax.random.fold_in, (0, None))(own_keys(key, numbers), attempt)


@jax.jit
def _refreshed(fresh: Array, new: PyTree, old: PyTree) -> PyTree:
    """Rows of `new` where fresh, else those of `old`."""

    def rows(a: Array, b: Array) -> Array:
        return jnp.where(fresh.reshape(-1, *(1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(rows, new, old)


@jax.jit
def _settled(attack: Attack, state: PyTree, model: Model, problem: core.Problem) -> PyTree:
    return jax.vmap(attack.settle, (0, None, 0))(state, model, problem)


def _refuse_nan(told: np.ndarray, rows: np.ndarray) -> None:
    bad = ~np.isfinite(told).all(1)
    if bad.any():
        raise FloatingPointError(
            f"loss: became NaN or infinite for images {sorted(rows[bad].tolist())}; a model with "
            "finite logits and gradients there would be right"
        )


def attacked(
    planned: Callable[..., Plan],
    request: Request,
    method: str,
    *,
    restarts: int = 1,
    progress: bool = True,
    **options: Any,
) -> AttackResult:
    """Runs an attack, again from other starts for the images that still hold, and gives the result.

    Args:
      planned: `planned(request, **options)` is its plan.
      request: checked arguments.
      method: the attack's name.
      restarts: how many attempts in all.
      progress: a bar on a terminal.
      **options: the attack's own.
    """
    checks.count("restarts", restarts)
    plan = planned(request, **options)
    found = pursue(plan, request, progress=progress, label=method)
    for attempt in range(1, restarts):
        rows = np.flatnonzero(~found.fooled)
        if not rows.size:
            break
        again = pursue(
            plan.rows(rows), request.rows(rows), attempt=attempt, progress=progress, label=method
        )
        better = again.fooled | (again.scores > found.scores[rows])
        late = np.where(again.since < 0, -1, attempt * plan.steps + again.since)
        for whole, part in zip(found, again._replace(since=late), strict=True):
            whole[rows[better]] = part[better]
    made, since = found.images, found.since
    if plan.attack.keep != "last":
        # The image itself is in every ball: what is fooled by it needs nothing else.
        idle = request.solved & ~found.fooled
        made, since = made.copy(), np.where(request.solved, 0, since)
        made[idle] = request.images[idle]
    return conclude(
        request,
        made,
        method=method,
        iterations=since,
        losses=found.losses,
        eps=request.eps,
        restarts=restarts,
        **{"steps": plan.steps, **options},
    )
