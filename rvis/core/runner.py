"""The one runner: `jit` of `scan` of a step vmapped over examples, and long runs in pieces."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from rvis.compilation import abreast, jit
from rvis.core.ascent import Algorithm, Problem
from rvis.models.layers import side_by_side
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

        with side_by_side(width or keys.shape[0]):
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

    On a CPU four groups of the width, which its cores share out. Their number does not depend on
    that of the cores, so that an interrupted run goes on where there are more or fewer of them.
    64 where no width is given.

    Example:
      >>> from rvis.core import at_once
      >>> at_once(None)
      64
    """
    if width is None:
        return 64
    return 4 * width if jax.default_backend() == "cpu" else width


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

    Memory is bounded by the chunk. Every group of examples that a core of a CPU works on, and
    elsewhere every chunk, is filled up to the same size with copies of its last example, so that
    any number of examples runs in one compiled program.

    Args:
      algorithm: see `Algorithm`; it must also have `images(state)`.
      keys: (m,) typed keys.
      model: any model.
      problem: of m examples (`Problem.broadcast`).
      steps: how many.
      position: m starting positions; noise by default.
      snapshots: steps after which to keep the images.
      width: see `run`.
      chunk: examples at once on each device, rounded up to a multiple of the width; see `at_once`.
        The cores of a CPU share them out in groups of the width.
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
        chunk = min(at_once(width), -(-total // jax.local_device_count()))
    chunk = -(-chunk // (width or 1)) * (width or 1)
    devices = jax.local_devices()[: -(-total // chunk)]
    mesh = Mesh(np.asarray(devices), ("examples",)) if len(devices) > 1 else None
    chunk *= len(devices)
    size = width if width and mesh is None else chunk
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
            filled = np.minimum(np.arange(first, first + -(-len(rows) // size) * size), total - 1)
            groups = np.split(filled, len(filled) // size)
            given = [(keys, problem)]
            if not np.array_equal(groups[0], np.arange(total)):
                given = [_examples((keys, problem), group) for group in groups]
            # Always copies: they become part of the states, which are donated.
            positions = [
                None if position is None else _examples(position, group) for group in groups
            ]
            file = None if folder is None else folder / f"chunk{first:06d}.npz"
            pictures, info, kept = _chunk(
                algorithm,
                model,
                given,
                positions,
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


def _joined(trees: Iterable[PyTree]) -> PyTree:
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *trees)


def _until(info: PyTree, steps: int) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[:, :steps], info)


@jax.jit
def _images(algorithm: Algorithm, state: PyTree) -> Array:
    return jax.vmap(algorithm.images)(state)


def _pictures(algorithm: Algorithm, states: list[PyTree]) -> np.ndarray:
    # From one device, whatever number a state lies on, so that the bits are the same.
    if len(jax.tree.leaves(states)[0].devices()) > 1:
        states = jax.device_put(states, jax.local_devices()[0])
    return np.concatenate([np.asarray(_images(algorithm, state)) for state in states])


def _dealt(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec(*mesh.axis_names))


def _chunk(
    algorithm: Algorithm,
    model: Model,
    given: list[tuple[Array, Problem]],
    positions: list[PyTree],
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
) -> tuple[np.ndarray, PyTree, np.ndarray]:
    """One chunk through all steps: its pictures, infos and snapshots, saved whenever interrupted.

    Where `watch` ends it, those of the steps that it made. Keys, problems and positions come in
    groups of equal size, which the cores of a CPU share out.
    """
    states = [
        init(algorithm, keys, position)
        for (keys, _), position in zip(given, positions, strict=True)
    ]
    if mesh is not None:
        # Weights go where they are needed once, not at every call.
        model, algorithm = jax.device_put((model, algorithm), NamedSharding(mesh, PartitionSpec()))
        given, states = jax.device_put((given, states), _dealt(mesh))
    # The same arguments as the calls below, so that nothing is traced for the shapes alone.
    options = {"steps": length, "width": width, "mesh": mesh, "piece": True}
    _, told = run.eval_shape(algorithm, given[0][0], states[0], model, given[0][1], **options)
    many = len(given) * given[0][0].shape[0]
    info = jax.tree.map(lambda leaf: np.zeros((many, steps, *leaf.shape[2:]), leaf.dtype), told)
    shape = jax.eval_shape(_images, algorithm, states[0]).shape
    kept = np.zeros((len(marks), many, *shape[1:]), np.float32)
    about = {"fingerprint": ""}
    if file is not None:
        # Where `watch` is called is where the pieces end, and so where a run can go on.
        pieces = () if watch is None else (length,)
        parts = (algorithm, given, positions, steps, marks, width, weights, *pieces)
        about = {"fingerprint": checkpoints.fingerprint(*parts)}
        if file.exists():
            (states, info, kept), stored = checkpoints.load(
                file, (states, info, kept), expect=about["fingerprint"]
            )
            info, kept = jax.tree.map(np.array, (info, kept))
            states = states if mesh is None else jax.device_put(states, _dealt(mesh))
            about = stored
    done = int(about.get("done", 0))
    count = len(rows)
    bar.update(done * count)
    if done == 0 and 0 in marks:
        kept[marks.index(0)] = _pictures(algorithm, states)
    clock = time.monotonic()
    whole = None if file is None else (jax.device_get(states), done)

    def piece(group: tuple[tuple[Array, Problem], PyTree]) -> tuple[PyTree, PyTree]:
        (keys, problem), state = group
        return jax.block_until_ready(run(algorithm, keys, state, model, problem, **options))

    try:
        while done < steps:
            made = abreast(piece, zip(given, states, strict=True), single=False)
            states = [state for state, _ in made]
            told = _joined(told for _, told in made)
            _refuse_nan(told, rows, f"{done} to {done + length}")
            for whole_run, part in zip(jax.tree.leaves(info), jax.tree.leaves(told), strict=True):
                whole_run[:, done : done + length] = part
            done += length
            if done in marks:
                kept[marks.index(done)] = _pictures(algorithm, states)
            bar.update(length * count)
            if file is not None:
                # The device's copy is donated to the next piece, which Ctrl-C may cut short.
                whole = (jax.device_get(states), done)
                if time.monotonic() - clock > 10 or done == steps:
                    _save(file, whole, info, kept, about)
                    clock = time.monotonic()
            if watch is not None and (done % every == 0 or done == steps):
                so_far = _until(info, done)
                pictures = _pictures(algorithm, states)
                if watch(done, pictures[:count], _rows(so_far, slice(count))):
                    return pictures, so_far, kept[[mark <= done for mark in marks]]
    except KeyboardInterrupt:
        if file is not None and whole is not None:
            _save(file, whole, info, kept, about)
        raise
    return _pictures(algorithm, states), info, kept


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
    states, done = whole
    checkpoints.save(file, (states, info, kept), about={**about, "done": done})
