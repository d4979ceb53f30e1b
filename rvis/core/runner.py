"""The one runner: `jit` of `scan` of a step vmapped over examples, and long runs in pieces."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tqdm import tqdm

from rvis import checkpoints
from rvis.compilation import abreast, hands, jit
from rvis.core.ascent import Algorithm, Problem
from rvis.types import Array, Model, PyTree


@partial(jit, static_argnames=("steps", "width", "mesh", "piece"), donate_argnames="state")
def run(
    algorithm: Algorithm,
    keys: Array,
    state: PyTree,
    model: Model,
    problem: Problem,
    *,
    steps: int,
    width: int | None = None,
    mesh: Mesh | None = None,
    piece: bool = False,
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
      mesh: devices with one axis, over which m, a multiple of their number, is dealt out; None for
        one device.
      piece: whether this is a part of a longer run, whose bits must not depend on how it was cut: a
        single step then stays a loop, through which there is no reverse differentiation.

    Returns:
      The m states, and what every step told: leaves of shape (m, steps, ...).
    """

    def rows(
        keys: Array, state: PyTree, problem: Problem, algorithm: Algorithm, model: Model
    ) -> tuple[PyTree, PyTree]:
        def example(key: Array, state: PyTree, problem: Problem) -> tuple[PyTree, PyTree]:
            def body(state: PyTree, _: None) -> tuple[PyTree, PyTree]:
                return algorithm.step(jax.random.fold_in(key, state.step), state, model, problem)

            if piece and steps == 1:
                return _single(body, state)
            return lax.scan(body, state, length=steps)

        if width is None or keys.shape[0] <= width:
            return jax.vmap(example)(keys, state, problem)
        return lax.map(lambda xs: example(*xs), (keys, state, problem), batch_size=width)

    if mesh is None:
        return rows(keys, state, problem, algorithm, model)
    dealt, whole = PartitionSpec(*mesh.axis_names), PartitionSpec()
    # Examples never talk to one another: each device runs the program that one would run alone.
    specs = (dealt, dealt, dealt, whole, whole)
    spread = jax.shard_map(rows, mesh=mesh, in_specs=specs, out_specs=dealt, check_vma=False)
    return spread(keys, state, problem, algorithm, model)


def _single(
    body: Callable[[PyTree, None], tuple[PyTree, PyTree]], state: PyTree
) -> tuple[PyTree, PyTree]:
    """One step with the bits that it has in a longer loop.

    XLA takes a loop that it knows to turn once apart, and the step then rounds differently.
    """
    told = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(body, state, None)[1]
    )
    turns = lax.optimization_barrier(jnp.int32(1))
    state, told = lax.fori_loop(0, turns, lambda _, carried: body(carried[0], None), (state, told))
    return state, jax.tree.map(lambda leaf: leaf[None], told)


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


def at_once(width: int | None) -> int:
    """How many examples `drive` takes at once on each device, if there are as many.

    On a CPU as many as `run` computes side by side for every core; 64 elsewhere.

    Example:
      >>> from rvis.core import at_once
      >>> at_once(None), at_once(4) % 4
      (64, 0)
    """
    if width is None:
        return 64
    return width * hands()


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


Watch = Callable[[int, np.ndarray, PyTree], Any]
"""Called with the steps made, the pictures and what the steps told; True ends the climb."""


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
    watch: Watch | None = None,
    every: int = 1,
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
      chunk: examples at once on each device, rounded up to a multiple of the width; by default the
        width for every core of a CPU, 64 elsewhere.
      checkpoint: a folder in which an interrupted run leaves its state, and from which the same
        call goes on. It is removed when the run has ended.
      progress: a bar on a terminal.
      label: the bar's title.
      watch: called for each chunk after every so many steps and after the last, with the number of
        steps made, the pictures (n, facets, H, W, C) and what those steps told, leaves of shape
        (n, steps made, ...). The chunk ends where it returns True: its infos are as long as the
        steps it made, and it has the snapshots that it reached.
      every: steps between two calls of `watch`; a divisor of `steps` makes for the longest pieces.

    Raises:
      ValueError: naming `checkpoint`, if the folder holds another run's state.
      FloatingPointError: if the score becomes NaN or infinite.
    """
    total = keys.shape[0]
    width = width or None
    if chunk is None:
        chunk = min(at_once(width), total)
    chunk = -(-chunk // (width or 1)) * (width or 1)
    devices = jax.local_devices()[: -(-total // chunk)]
    mesh = Mesh(np.asarray(devices), ("examples",)) if len(devices) > 1 else None
    chunk *= len(devices)
    marks = sorted(set(snapshots))
    length = segment_length(steps, marks if watch is None else (*marks, min(every, steps)))
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
            some_keys, some_problem = keys, problem
            if not np.array_equal(filled, np.arange(total)):
                some_keys, some_problem = _examples((keys, problem), filled)
            # Always a copy: it becomes part of the state, which is donated.
            some_position = None if position is None else _examples(position, filled)
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
                mesh=mesh,
                length=length,
                file=file,
                weights=weights,
                rows=rows,
                bar=bar,
                watch=watch,
                every=every,
            )
            own = slice(len(rows))
            pictures = _pictures(algorithm, state)
            # The scores are those before each step: they cannot tell of the last one.
            _refuse_nan((pictures, *kept), rows, f"up to {steps}")
            yield Outcome(
                rows,
                pictures[own],
                _rows(info, own),
                {step: images[own] for step, images in zip(marks, kept, strict=False)},
            )
            finished.append(file)
    for file in finished:
        if file is not None:
            file.unlink(missing_ok=True)
    if folder is not None and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _rows(tree: PyTree, rows: slice) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[rows], tree)


def _examples(tree: PyTree, rows: np.ndarray) -> PyTree:
    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, _gather(leaves, rows))


@jax.jit
def _gather(leaves: list[Array], rows: Array) -> list[Array]:
    # One program, where leaf by leaf it would be several for each.
    return [leaf[rows] for leaf in leaves]


@partial(jax.jit, static_argnames="size")
def _cut(tree: PyTree, size: int) -> list[PyTree]:
    count = jax.tree.leaves(tree)[0].shape[0]
    return [_rows(tree, slice(i, i + size)) for i in range(0, count, size)]


def _parts(tree: PyTree, size: int) -> list[PyTree]:
    """Groups of `size` examples; the tree itself, where it is one group."""
    return [tree] if jax.tree.leaves(tree)[0].shape[0] == size else _cut(tree, size)


@jax.jit
def _put_together(parts: Sequence[PyTree]) -> PyTree:
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)


def _joined(parts: Sequence[PyTree]) -> PyTree:
    return parts[0] if len(parts) == 1 else _put_together(parts)


def _until(info: PyTree, steps: int) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[:, :steps], info)


@jax.jit
def _images(algorithm: Algorithm, state: PyTree) -> Array:
    return jax.vmap(algorithm.images)(state)


def _pictures(algorithm: Algorithm, state: PyTree) -> np.ndarray:
    # From one device, whatever number the state lies on, so that the bits are the same.
    if len(jax.tree.leaves(state)[0].devices()) > 1:
        state = jax.device_put(state, jax.local_devices()[0])
    return np.asarray(_images(algorithm, state))


def _dealt(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec(*mesh.axis_names))


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
    mesh: Mesh | None,
    length: int,
    file: Path | None,
    weights: str,
    rows: range,
    bar: tqdm,
    watch: Watch | None,
    every: int,
) -> tuple[PyTree, PyTree, np.ndarray]:
    """One chunk through all steps: its state, infos and snapshots, saved whenever interrupted.

    Where `watch` ends it, the infos and snapshots of the steps that it made.
    """
    state = init(algorithm, keys, position)
    if mesh is not None:
        # Weights go where they are needed once, not at every call.
        model, algorithm = jax.device_put((model, algorithm), NamedSharding(mesh, PartitionSpec()))
        keys, problem, state = jax.device_put((keys, problem, state), _dealt(mesh))
    options = {"steps": length, "width": width, "mesh": mesh, "piece": True}
    many = keys.shape[0]
    size = width if width and mesh is None else many
    own = _parts((keys, problem), size)

    def piece(group: tuple[int, PyTree]) -> tuple[PyTree, PyTree]:
        number, state = group
        some_keys, some_problem = own[number]
        done = run(algorithm, some_keys, state, model, some_problem, **options)
        return jax.block_until_ready(done)

    # The same arguments as the calls to come, so that nothing is traced for the shapes alone.
    first = jax.eval_shape(partial(_parts, size=size), state)[0]
    _, told = run.eval_shape(algorithm, own[0][0], first, model, own[0][1], **options)
    info = jax.tree.map(lambda leaf: np.zeros((many, steps, *leaf.shape[2:]), leaf.dtype), told)
    shape = jax.eval_shape(_images, algorithm, state).shape
    kept = np.zeros((len(marks), *shape), np.float32)
    about = {"fingerprint": ""}
    if file is not None:
        # Where `watch` is called is where the pieces end, and so where a run can go on.
        pieces = () if watch is None else (length,)
        parts = (algorithm, keys, problem, position, steps, marks, width, weights, *pieces)
        about = {"fingerprint": checkpoints.fingerprint(*parts)}
        if file.exists():
            (state, info, kept), stored = checkpoints.load(
                file, (state, info, kept), expect=about["fingerprint"]
            )
            info, kept = jax.tree.map(np.array, (info, kept))
            state = state if mesh is None else jax.device_put(state, _dealt(mesh))
            about = stored
    done = int(about.get("done", 0))
    count = len(rows)
    bar.update(done * count)
    if done == 0 and 0 in marks:
        kept[marks.index(0)] = _pictures(algorithm, state)
    clock = time.monotonic()
    whole = None if file is None else (jax.device_get(state), done)
    try:
        while done < steps:
            states, told = zip(
                *abreast(piece, enumerate(_parts(state, size)), single=False), strict=True
            )
            state = _joined(states)
            told = jax.tree.map(lambda *leaves: np.concatenate(leaves), *told)
            _refuse_nan(told, rows, f"{done} to {done + length}")
            for whole_run, part in zip(jax.tree.leaves(info), jax.tree.leaves(told), strict=True):
                whole_run[:, done : done + length] = part
            done += length
            if done in marks:
                kept[marks.index(done)] = _pictures(algorithm, state)
            bar.update(length * count)
            if file is not None:
                # The device's copy is donated to the next piece, which Ctrl-C may cut short.
                whole = (jax.device_get(state), done)
                if time.monotonic() - clock > 10 or done == steps:
                    _save(file, whole, info, kept, about)
                    clock = time.monotonic()
            if watch is not None and (done % every == 0 or done == steps):
                made = _until(info, done)
                pictures = _pictures(algorithm, state)
                if watch(done, pictures[:count], _rows(made, slice(count))):
                    return state, made, kept[[mark <= done for mark in marks]]
    except KeyboardInterrupt:
        if file is not None and whole is not None:
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
