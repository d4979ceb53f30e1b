"""The one ascent step and the one runner: `jit` of `scan` of a step vmapped over objectives."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from tqdm import tqdm

from rvis import checkpoints, taps, transforms
from rvis.images import Parameterization
from rvis.objectives import Objective
from rvis.optimizers import Optimizer
from rvis.transforms import Transform
from rvis.types import Array, Model, PyTree


@flax.struct.dataclass
class Problem:
    """What one example asks for: maximise `objective` − Σ `penalties`, inside `constraint`.

    Every leaf is traced, so that units, weights and radii sweep in one compiled program. In a batch
    every leaf has a leading axis.

    Attributes:
      objective: see `rvis.objectives`.
      penalties: see `rvis.regularizers`; each is subtracted.
      constraint: see `rvis.projections`; None for positions that need none.
    """

    objective: Objective
    penalties: tuple[Callable[[Array], Array], ...] = ()
    constraint: Any = None

    def broadcast(self, count: int) -> Problem:
        """The problem with every leaf's leading axis written out to `count` examples.

        Penalties are the same for all; so is a constraint.
        """
        penalties, constraint = jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (count, *np.shape(leaf))),
            (self.penalties, self.constraint),
        )
        return Problem(self.objective.broadcast(count), penalties, constraint)


class Algorithm(Protocol):
    """`init` and `step` as pure functions of one example; `run` maps them over many."""

    def init(self, key: Array, position: PyTree | None = None) -> PyTree:
        """The first state, from noise or from a given position."""

    def step(
        self, key: Array, state: PyTree, model: Model, problem: Problem
    ) -> tuple[PyTree, PyTree]:
        """The next state, and what is worth knowing of this step."""

    def images(self, state: PyTree) -> Array:
        """The pictures (facets, H, W, C) that a state stands for."""


@flax.struct.dataclass
class AscentState:
    """What an ascent carries from step to step."""

    step: Array
    position: PyTree
    optimizer: PyTree


@flax.struct.dataclass
class AscentInfo:
    """What an ascent tells of a step: the objective, and that less the penalties, before it."""

    score: Array
    energy: Array


def energy(
    position: PyTree,
    key: Array,
    model: Model,
    problem: Problem,
    *,
    image: Parameterization,
    views: tuple[Transform, ...] = (),
    opened: Array | None = None,
) -> tuple[Array, Array]:
    """(objective − penalties, objective) of one group of images.

    Args:
      position: what `image.decode` takes, with a leading axis over the group.
      key: for the random transformations.
      model: any model.
      problem: the objective and penalties.
      image: how positions become images.
      views: random transformations between image and model.
      opened: where true, blocked ReLU gradients are let through; None for plain ReLUs.
    """
    images = jax.vmap(image.decode)(position)
    seen = transforms.apply(views, key, images)
    relu = jax.nn.relu if opened is None else partial(_opened_relu, opened)
    activations = taps.activations(model, seen, problem.objective.layers, relu=relu)
    score = problem.objective(activations)
    return score - sum(penalty(images) for penalty in problem.penalties), score


def _opened_relu(opened: Array, x: Array) -> Array:
    return taps.let_through_relu(x, opened)


@flax.struct.dataclass
class Ascent:
    """Gradient ascent on a group of images: the step that serves every task.

    decode, transform, model with taps, objective − penalties, gradient, optimizer, projection.

    Attributes:
      image: the parameterization (structure).
      optimizer: gradient maps and learning rate (a leaf).
      views: random transformations (structure).
      facets: images in a group; more than one only where an objective couples them.
      woken: for this many first steps a ReLU that blocks all of an example's gradient lets its
        upward part through (tensorflow/lucid does so for 16), so that dead units can wake.
    """

    image: Parameterization = flax.struct.field(pytree_node=False)
    optimizer: Optimizer
    views: tuple[Transform, ...] = flax.struct.field(pytree_node=False, default=())
    facets: int = flax.struct.field(pytree_node=False, default=1)
    woken: int = flax.struct.field(pytree_node=False, default=0)

    def init(self, key: Array, position: PyTree | None = None) -> AscentState:
        """The state before the first step.

        Args:
          key: the example's key; facet i starts from `fold_in(key, i)`.
          position: where to start instead, with a leading axis of `facets`.
        """
        if position is None:
            keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(self.facets))
            position = jax.vmap(self.image.init)(keys)
        return AscentState(jnp.int32(0), position, self.optimizer.init(position))

    def step(
        self, key: Array, state: AscentState, model: Model, problem: Problem
    ) -> tuple[AscentState, AscentInfo]:
        """One step up; see `Algorithm`."""
        opened = state.step < self.woken if self.woken else None
        gradient, score = jax.grad(
            lambda position: _pair(
                energy(
                    position,
                    key,
                    model,
                    problem,
                    image=self.image,
                    views=self.views,
                    opened=opened,
                )
            ),
            has_aux=True,
        )(state.position)
        position, optimizer = self.optimizer.update(gradient, state.optimizer, state.position)
        if problem.constraint is not None:
            position = problem.constraint.project(position)
        return AscentState(state.step + 1, position, optimizer), AscentInfo(*score)

    def images(self, state: AscentState) -> Array:
        """The group's pictures, (facets, H, W, C)."""
        return jax.vmap(self.image.decode)(state.position)


def _pair(values: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
    total, score = values
    return total, (score, total)


@partial(jax.jit, static_argnames=("steps", "width"), donate_argnames="state")
def run(
    algorithm: Algorithm,
    keys: Array,
    state: PyTree,
    model: Model,
    problem: Problem,
    *,
    steps: int,
    width: int | None = None,
) -> tuple[PyTree, PyTree]:
    """`steps` steps of m examples, in one compiled program.

    Args:
      algorithm: a pytree; its numbers are traced.
      keys: (m,) typed keys, one an example; step t uses `fold_in(key, t)`.
      state: m states; donated.
      model: shared by all.
      problem: m problems.
      steps: how many.
      width: how many examples are computed side by side; all by default. On a CPU a few fit the
        cache and run faster, and a fixed width makes an example's bits independent of m.

    Returns:
      The m states, and what every step told: leaves of shape (m, steps, ...).
    """

    def example(key: Array, state: PyTree, problem: Problem) -> tuple[PyTree, PyTree]:
        def body(state: PyTree, _: None) -> tuple[PyTree, PyTree]:
            return algorithm.step(jax.random.fold_in(key, state.step), state, model, problem)

        return lax.scan(body, state, length=steps)

    if width is None or keys.shape[0] <= width:
        return jax.vmap(example)(keys, state, problem)
    return lax.map(lambda xs: example(*xs), (keys, state, problem), batch_size=width)


@jax.jit
def init(algorithm: Algorithm, keys: Array, position: PyTree | None = None) -> PyTree:
    """The m first states, from m keys and perhaps m positions."""
    if position is None:
        return jax.vmap(lambda key: algorithm.init(key))(keys)
    return jax.vmap(algorithm.init)(keys, position)


def width_for(shape: tuple[int, int, int], facets: int = 1) -> int | None:
    """How many examples `run` computes side by side; a function of the image's size alone.

    On a CPU up to four small images fit the cache and gain over one; the fixed number is what makes
    a unit's picture the same to the bit alone, in a sweep and in any chunk. Accelerators take whole
    chunks, where pictures agree to rounding.

    Example:
      >>> from rvis.core import width_for
      >>> width_for((224, 224, 3))
      1
    """
    if jax.default_backend() != "cpu":
        return None
    return max(1, min(4, 8192 // (shape[0] * shape[1] * facets)))


def segment_length(steps: int, stops: Iterable[int]) -> int:
    """The longest equal piece, of at most 64 steps, whose multiples reach every stop and the end.

    Equal pieces share one compiled program. Stops that have no large divisor in common with the
    number of steps make for short pieces, and so for more calls from Python.

    Example:
      >>> from rvis.core import segment_length
      >>> segment_length(512, (32, 128)), segment_length(90, ())
      (32, 45)
    """
    common = math.gcd(steps, *stops)
    return max(d for d in range(1, min(common, 64) + 1) if common % d == 0)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What some rows of a long run gave, on the host.

    Attributes:
      rows: their numbers among all examples.
      images: (n, facets, H, W, C).
      info: what every step told, leaves of shape (n, steps, ...).
      snapshots: {step: images after that many steps}.
    """

    rows: range
    images: np.ndarray
    info: PyTree
    snapshots: Mapping[int, np.ndarray]


def drive(
    algorithm: Algorithm,
    keys: Array,
    model: Model,
    problem: Problem,
    *,
    steps: int,
    position: PyTree | None = None,
    snapshots: Iterable[int] = (),
    width: int | None = None,
    chunk: int | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
    label: str = "ascent",
) -> Iterator[Outcome]:
    """A long run in equal chunks of examples and equal pieces of steps, yielding chunk by chunk.

    Memory is bounded by the chunk. Every chunk is filled up to the same size with copies of its
    last example, so that any number of examples runs in one compiled program.

    Args:
      algorithm: see `Algorithm`; it must also have `images(state)`.
      keys: (m,) typed keys.
      model: any model.
      problem: of m examples (`Problem.broadcast`).
      steps: how many.
      position: m starting positions; noise by default.
      snapshots: steps after which to keep the images.
      width: see `run`.
      chunk: examples at once, rounded up to a multiple of the width; the width by default on a CPU,
        64 elsewhere.
      checkpoint: a folder in which an interrupted run leaves its state, and from which the same
        call goes on. It is removed when the run has ended.
      progress: a bar on a terminal.
      label: the bar's title.

    Raises:
      ValueError: naming `checkpoint`, if the folder holds another run's state.
      FloatingPointError: if the score becomes NaN or infinite.
    """
    total = keys.shape[0]
    width = width or None
    if chunk is None:
        chunk = width or min(64, total)
    chunk = -(-chunk // (width or 1)) * (width or 1)
    marks = sorted(set(snapshots))
    length = segment_length(steps, marks)
    folder = None if checkpoint is None else Path(checkpoint)
    finished = []
    model = model.unnamed()
    weights = ""
    if folder is not None:
        weights = checkpoints.fingerprint(model.params, checkpoints.stable(model.apply))
    disable = None if progress else True
    bar = tqdm(total=total * steps, desc=label, unit="step", disable=disable, leave=False)
    with bar:
        for first in range(0, total, chunk):
            rows = range(first, min(first + chunk, total))
            filled = np.minimum(np.arange(first, first + chunk), total - 1)
            some_keys, some_problem, some_position = _rows((keys, problem, position), filled)
            file = None if folder is None else folder / f"chunk{first:06d}.npz"
            state, info, kept = _chunk(
                algorithm,
                some_keys,
                model,
                some_problem,
                some_position,
                steps,
                marks,
                width=width,
                length=length,
                file=file,
                weights=weights,
                rows=rows,
                bar=bar,
            )
            own = slice(len(rows))
            pictures = np.asarray(_images(algorithm, state))
            # The scores are those before each step: they cannot tell of the last one.
            _refuse_nan((pictures, *kept), rows, f"up to {steps}")
            yield Outcome(
                rows,
                pictures[own],
                _rows(info, own),
                {step: images[own] for step, images in zip(marks, kept, strict=True)},
            )
            finished.append(file)
    for file in finished:
        if file is not None:
            file.unlink(missing_ok=True)
    if folder is not None and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _rows(tree: PyTree, rows: np.ndarray | slice) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[rows], tree)


@jax.jit
def _images(algorithm: Algorithm, state: PyTree) -> Array:
    return jax.vmap(algorithm.images)(state)


def _chunk(
    algorithm: Algorithm,
    keys: Array,
    model: Model,
    problem: Problem,
    position: PyTree,
    steps: int,
    marks: list[int],
    *,
    width: int | None,
    length: int,
    file: Path | None,
    weights: str,
    rows: range,
    bar: tqdm,
) -> tuple[PyTree, PyTree, np.ndarray]:
    """One chunk through all steps: its state, infos and snapshots, saved whenever interrupted."""
    state = init(algorithm, keys, position)
    # The same arguments as the calls below, so that nothing is traced for the shapes alone.
    _, told = run.eval_shape(algorithm, keys, state, model, problem, steps=length, width=width)
    info = jax.tree.map(
        lambda leaf: np.zeros((leaf.shape[0], steps, *leaf.shape[2:]), leaf.dtype), told
    )
    shape = jax.eval_shape(_images, algorithm, state).shape
    kept = np.zeros((len(marks), *shape), np.float32)
    about = {"fingerprint": ""}
    if file is not None:
        parts = (algorithm, keys, problem, position, steps, marks, width, weights)
        about = {"fingerprint": checkpoints.fingerprint(*parts)}
        if file.exists():
            (state, info, kept), stored = checkpoints.load(
                file, (state, info, kept), expect=about["fingerprint"]
            )
            info, kept = jax.tree.map(np.array, (info, kept))
            about = stored
    done = int(about.get("done", 0))
    count = len(rows)
    bar.update(done * count)
    if done == 0 and 0 in marks:
        kept[marks.index(0)] = _images(algorithm, state)
    clock = time.monotonic()
    whole = (jax.device_get(state), done)
    try:
        while done < steps:
            state, told = run(algorithm, keys, state, model, problem, steps=length, width=width)
            told = jax.tree.map(np.asarray, told)
            _refuse_nan(told, rows, f"{done} to {done + length}")
            for whole_run, part in zip(jax.tree.leaves(info), jax.tree.leaves(told), strict=True):
                whole_run[:, done : done + length] = part
            done += length
            if done in marks:
                kept[marks.index(done)] = _images(algorithm, state)
            bar.update(length * count)
            if file is not None:
                # The device's copy is donated to the next piece, which Ctrl-C may cut short.
                whole = (jax.device_get(state), done)
                if time.monotonic() - clock > 10 or done == steps:
                    _save(file, whole, info, kept, about)
                    clock = time.monotonic()
    except KeyboardInterrupt:
        if file is not None:
            _save(file, whole, info, kept, about)
        raise
    return state, info, kept


def _refuse_nan(tree: PyTree, rows: range, when: str) -> None:
    bad = np.zeros(len(rows), bool)
    for leaf in jax.tree.leaves(tree):
        bad |= ~np.isfinite(np.asarray(leaf)[: len(rows)]).reshape(len(rows), -1).all(1)
    if bad.any():
        raise FloatingPointError(
            f"score: became NaN or infinite in steps {when} for objectives "
            f"{np.asarray(rows)[bad].tolist()}; a lower learning rate or weaker penalties would be "
            "right"
        )


def _save(
    file: Path, whole: tuple[PyTree, int], info: PyTree, kept: np.ndarray, about: dict[str, Any]
) -> None:
    state, done = whole
    checkpoints.save(file, (state, info, kept), about={**about, "done": done})
