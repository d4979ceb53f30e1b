"""Runs an algorithm over a queue of examples.

A program of fixed width holds some examples in slots and takes all of them a piece of their steps
further. Those that are done then leave, and the next of the queue take their slots.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from tqdm import tqdm

from rvis import checks, struct
from rvis.engine import memory, programs
from rvis.engine import policy as policies
from rvis.engine.algorithm import Algorithm, Callback, Finished, Run
from rvis.engine.checkpoints import Folder, Stored
from rvis.engine.slots import Group, Keys, Work
from rvis.kernels.threads import parallel_map
from rvis.types import Array, Model, PyTree

_Item = TypeVar("_Item")


def nonfinite(examples: list[int]) -> str:
    """What is said of ascents that became NaN or infinite."""
    return (
        f"score: became NaN or infinite for objectives {examples}; a lower learning rate or weaker "
        "penalties would be right"
    )


def no_number(examples: list[int]) -> str:
    """What is said of a function whose numbers are NaN or infinite."""
    return f"model: finite numbers were expected of it, given NaN or infinity for images {examples}"


def run(
    algorithm: Algorithm, model: Model | None, problems: Any, keys: Array, **options: Any
) -> Run:
    """All examples of an algorithm, to their ends; arguments as `stream`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from rvis import engine, struct
      >>> @struct.dataclass
      ... class Doubling:
      ...     def init(self, key, start):
      ...         return start
      ...     def step(self, key, state, model, problem):
      ...         return state * problem, state
      >>> done = engine.run(
      ...     Doubling(), None, jnp.full(3, 2.0), jax.random.split(jax.random.key(0), 3),
      ...     steps=4, pixels=1, starts=jnp.arange(3.0), progress=False)
      >>> done.result.tolist(), done.info[1].tolist()
      ([0.0, 16.0, 32.0], [1.0, 2.0, 4.0, 8.0])
    """
    found = sorted(stream(algorithm, model, problems, keys, **options), key=lambda f: f.example)
    shared = set.intersection(*(set(each.snapshots) for each in found))
    return Run(
        _stacked(each.result for each in found),
        _stacked(_padded(each.info for each in found)),
        np.asarray([each.made for each in found], np.int32),
        {mark: _stacked(each.snapshots[mark] for each in found) for mark in sorted(shared)},
    )


def stream(
    algorithm: Algorithm,
    model: Model | None,
    problems: Any,
    keys: Array,
    *,
    steps: int,
    pixels: int,
    starts: PyTree = None,
    snapshots: Iterable[int] = (),
    callback: Callback | None = None,
    every: int = 1,
    widest: int = 4,
    piece: int | None = None,
    chunk: int | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
    label: str = "rvis",
    failure: Callable[[list[int]], str] | None = nonfinite,
) -> Iterator[Finished]:
    """Runs examples and yields each as soon as it has left its slot.

    Args:
      algorithm: see `Algorithm`.
      model: shared by all.
      problems: one of each example, leaves of shape (n, …).
      keys: (n,) typed keys.
      steps: how many an example makes at most.
      pixels: places of the images that one step of one example holds; by it the policy chooses.
      starts: what `init` takes, leaves of shape (n, …).
      snapshots: steps after which to keep the results too.
      callback: called every so many steps, and after the last, with all examples in order.
      every: steps between two calls of `callback`.
      widest: examples side by side on a CPU at most, however small they are.
      piece: steps between two looks at which examples are done; by default the policy's.
      chunk: examples on each device at once; by default the policy's choice.
      checkpoint: a folder in which an interrupted run leaves its state, for the same call to go on.
      progress: a bar on a terminal.
      label: the bar's title.
      failure: the message for examples whose numbers became NaN or infinite; None to let them be.

    Raises:
      ValueError: naming `checkpoint`, if the folder holds another run's state or is in use, or
        `chunk`, where it is too small for a callback.
      FloatingPointError: naming the examples that became NaN or infinite.
    """
    checks.process()
    if callback is not None and chunk is not None and chunk < keys.shape[0]:
        raise ValueError(
            f"chunk: at least {keys.shape[0]} was expected beside a callback, to which all "
            f"examples are shown at once, given {chunk}"
        )
    layout = policies.plan(
        pixels,
        keys.shape[0],
        steps,
        widest=widest,
        piece=piece,
        stops=hasattr(algorithm, "done"),
        chunk=chunk,
        together=callback is not None,
    )
    model = None if model is None else model.unnamed()
    # Said aloud, so that calls transfer nothing by themselves, which a guard may forbid.
    algorithm, model = shared = jax.device_put((algorithm, model))
    if layout.mesh is not None:
        # Weights go where they are needed once, not at every call.
        shared = jax.device_put(shared, NamedSharding(layout.mesh, PartitionSpec()))
    work = Work(
        algorithm,
        model,
        shared,
        jax.tree.map(np.asarray, problems),
        Keys.of(keys),
        jax.tree.map(np.asarray, starts),
        steps,
        tuple(sorted(set(snapshots))),
        every if callback is not None else None,
        layout,
        failure,
    )
    if chunk is None and callback is None:
        work = memory.fitted(work)
    folder = None if checkpoint is None else Folder(checkpoint, work.about())
    total, disable = work.count * steps, None if progress else True
    bar = tqdm(total=total, desc=label, unit="step", disable=disable, leave=False)
    with contextlib.closing(bar):
        try:
            yield from _rounds(work, bar, folder, callback)
        finally:
            if folder is not None:
                folder.close()


def apply(
    function: Callable[[Any, Any], PyTree],
    model: Model | None,
    problems: Any,
    *,
    widest: int = 16,
    progress: bool = False,
    failure: Callable[[list[int]], str] | None = no_number,
    **options: Any,
) -> PyTree:
    """`function(model, problem)` of n problems, in batches of one compiled program.

    Args:
      function: of one example; it must hash by value, as functions of a module do.
      model: any model.
      problems: leaves of shape (n, …), as what it gives.
      widest, progress, failure, options: see `stream`; `pixels` must be among them.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import engine
      >>> def logits(model, image):
      ...     return model.apply(model.params, image[None])[0]
      >>> model = rvis.load("mnist_cnn")
      >>> engine.apply(logits, model, np.zeros((3, 28, 28, 1), np.float32), pixels=784).shape
      (3, 10)
    """
    numbers = np.zeros((len(jax.tree.leaves(problems)[0]), 2), np.uint32)
    keys = jax.random.wrap_key_data(jax.device_put(numbers), impl="threefry2x32")
    options |= {"widest": widest, "progress": progress, "failure": failure}
    found = run(_Once(function), model, problems, keys, steps=1, **options)
    return jax.tree.map(lambda leaf: leaf[:, 0], found.info)


@struct.dataclass
class _Once:
    """A function as an algorithm of one step."""

    function: Callable[[Any, Any], PyTree] = struct.static()

    def init(self, key: Array, start: PyTree) -> tuple[()]:
        return ()

    def step(self, key: Array, state: tuple[()], model: Model, problem: Any) -> tuple[Any, Any]:
        return (), self.function(model, problem)


def counted(items: Iterable[_Item], label: str, *, progress: bool = True) -> Iterator[_Item]:
    """The items one after another, with a bar on a terminal: for loops that are no run.

    Example:
      >>> from rvis import engine
      >>> list(engine.counted(range(3), "counting", progress=False))
      [0, 1, 2]
    """
    return iter(tqdm(items, label, disable=None if progress else True, leave=False))


_TURN = 0.2
"""Seconds that a program runs before the others are waited for."""


def _rounds(
    work: Work, bar: tqdm, folder: Folder | None, callback: Callback | None
) -> Iterator[Finished]:
    """Piece after piece of all programs, each with slots that take from one queue."""
    restored: dict[int, Stored] = {}
    finished: set[int] = set()
    if folder is not None and folder.used:
        structures = _structures(work)
        restored = {each.example: _trees(each, *structures) for each in folder.waiting}
        for each in folder.finished():
            finished.add(each.example)
            whole = _trees(each, *structures)
            result = structures[0].unflatten(each.leaves)
            yield Finished(each.example, result, whole.info, each.made, whole.kept)
    ahead = [i for i in range(work.count) if i in restored]
    rest = [i for i in range(work.count) if i not in restored and i not in finished]
    waiting = deque(ahead + rest)
    groups = [Group(work) for _ in range(work.policy.programs)]
    lock = threading.Lock()
    left: list[Finished] = []
    shown: list[Finished] = []

    def turn(group: Group) -> None:
        begun = time.monotonic()
        while True:
            with lock:
                idle = sum(not len(other.busy) for other in groups if other is not group) + 1
                share, width = -(-len(waiting) // idle), group.work.policy.width
                group.fill(waiting, -(-share // width) * width, restored)
            if not len(group.busy):
                return
            try:
                left.extend(group.advance())
            except Exception as error:
                layout = memory.narrower(group.work.policy)
                if layout is None or callback is not None or not memory.exhausted(error):
                    raise
                # What was on its way was lost with its buffers, and begins again.
                with lock:
                    waiting.extendleft(map(int, group.example[group.busy][::-1]))
                    narrow = dataclasses.replace(work, policy=layout)
                    groups[groups.index(group)] = group = Group(narrow)
                continue
            if callback is not None or time.monotonic() - begun > _TURN:
                return

    try:
        while waiting or any(len(group.busy) for group in groups):
            parallel_map(turn, groups)
            if callback is not None:
                _show(work, groups, shown, left, callback)
                shown += left
            found, left[:] = list(left), ()
            finished |= {each.example for each in found}
            if folder is not None:
                folder.record(map(_stored, found), partial(_flight, groups))
            made = sum(int(group.made[group.busy].sum()) for group in groups)
            bar.update(len(finished) * work.steps + made - bar.n)
            yield from found
    except KeyboardInterrupt:
        # The programs' threads have ended their pieces.
        if folder is not None and all(group.whole for group in groups):
            folder.save(map(_stored, left), _flight(groups))
        raise
    if folder is not None:
        folder.remove()


def _show(
    work: Work,
    groups: list[Group],
    shown: list[Finished],
    left: list[Finished],
    callback: Callback,
) -> None:
    """Calls back with all examples, those that left before and now too; they may have to leave."""
    assert work.every is not None
    running = [group for group in groups if len(group.busy)]
    made = max([*(int(g.made[g.busy].max()) for g in running), *(each.made for each in left)])
    if made % work.every and made != work.steps:
        return
    here = {each.example: (each.result, each.info) for each in (*shown, *left)}
    for group in running:
        for slot, result in zip(group.busy, group.results(group.busy), strict=True):
            here[int(group.example[slot])] = (result, group.told(int(slot)))
    results, infos = zip(*(here[i] for i in sorted(here)), strict=True)
    if callback(made, _stacked(results), _stacked(_padded(infos))):
        for group in running:
            left += group.leave(group.busy, np.zeros(len(group.example), bool))


def _flight(groups: Iterable[Group]) -> list[Stored]:
    return [each for group in groups if len(group.busy) for each in group.stored()]


def _stored(each: Finished) -> Stored:
    leaves = jax.tree.leaves
    kept = {mark: leaves(result) for mark, result in each.snapshots.items()}
    return Stored(each.example, each.made, leaves(each.result), leaves(each.info), kept)


def _trees(each: Stored, result: Any, info: Any) -> Stored:
    """With what was told and kept as trees again; what a state is, its slot knows."""
    kept = {mark: result.unflatten(leaves) for mark, leaves in each.kept.items()}
    # Of an example that has made no step nothing was told.
    return each._replace(info=info.unflatten(each.info) if each.made else (), kept=kept)


def _structures(work: Work) -> tuple[Any, Any]:
    """Those of results and of what steps tell."""
    group = Group(work)
    group.fill(deque([0]), 1, {})
    width = work.policy.width
    result = programs.finish.eval_shape(
        work.algorithm, np.zeros(width, int), group.state, work.model, group.problems, stopped=False
    )
    _, _, info, _ = programs.advance.eval_shape(*group.arguments(1), **group.options())
    return jax.tree.structure(result), jax.tree.structure(info)


def _stacked(trees: Iterable[PyTree]) -> PyTree:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def _padded(infos: Iterable[PyTree]) -> list[PyTree]:
    """What steps told, filled up with zeros to the same length."""
    infos = list(infos)
    most = max((len(leaf) for info in infos for leaf in jax.tree.leaves(info)), default=0)

    def padded(leaf: np.ndarray) -> np.ndarray:
        room = most - len(leaf)
        return np.pad(leaf, ((0, room), *((0, 0),) * (leaf.ndim - 1))) if room else leaf

    return [jax.tree.map(padded, info) for info in infos]
