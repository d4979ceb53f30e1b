"""The slots of one program, and the examples that they hold."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from rvis.engine import programs
from rvis.engine.algorithm import Finished
from rvis.engine.checkpoints import Stored, plain, typed
from rvis.engine.policy import Policy
from rvis.types import Array, PyTree


class Keys(NamedTuple):
    """Typed keys as numbers on the host, and how to read them."""

    data: np.ndarray
    implementation: str

    @classmethod
    def of(cls, keys: Array) -> Keys:
        return cls(plain(keys), str(jax.random.key_impl(keys)))


@dataclasses.dataclass(frozen=True)
class Work:
    """What a run is asked for; `shared` is the algorithm and the model on every device."""

    algorithm: Any
    model: Any
    shared: tuple[Any, Any]
    problems: Any
    keys: Keys
    starts: PyTree
    steps: int
    marks: tuple[int, ...]
    every: int | None
    policy: Policy
    failure: Callable[[list[int]], str] | None

    @property
    def count(self) -> int:
        return len(self.keys.data)

    def about(self) -> tuple[Any, ...]:
        """All that the results depend on."""
        model = () if self.model is None else (self.model.params, self.model.apply)
        asked = (self.problems, self.keys, self.starts, self.steps, self.marks)
        return (self.algorithm, *asked, *model)

    def ahead(self, made: np.ndarray) -> int:
        """Steps to the next at which one of these examples must be looked at."""
        stops = [self.steps, *self.marks]
        if self.every is not None:
            stops += range(self.every, self.steps, self.every)
        points = np.unique(stops)
        return int((points[np.searchsorted(points, made, side="right")] - made).min())

    def check(self, examples: np.ndarray, *trees: PyTree) -> None:
        """Raises where a number that an example gave is not finite."""
        if self.failure is None:
            return
        bad = np.zeros(len(examples), bool)
        for leaf in jax.tree.leaves(trees):
            if np.issubdtype(leaf.dtype, np.floating) or leaf.dtype.kind == "V":
                finite = np.isfinite(np.asarray(leaf, np.float32))
                bad |= ~finite.reshape(len(examples), -1).all(1)
        if bad.any():
            raise FloatingPointError(self.failure(sorted(examples[bad].tolist())))


class Group:
    """The slots of one program, and the examples in them.

    `whole` tells whether what it holds belongs together: Ctrl-C may come between two lines.
    """

    def __init__(self, work: Work) -> None:
        slots = work.policy.slots
        self.work = work
        self.whole = True
        self.example = np.full(slots, -1)
        self.made = np.zeros(slots, np.int32)
        self.order = work.policy.order()
        self.keys: Array | None = None
        self.problems: Any = None
        self.state: PyTree = None
        self.info: dict[int, list[PyTree]] = {}
        self.kept: dict[int, dict[int, PyTree]] = {}

    @property
    def busy(self) -> np.ndarray:
        """Slots that hold an example."""
        return np.flatnonzero(self.example >= 0)

    def fill(self, waiting: deque[int], share: int, restored: dict[int, Stored]) -> None:
        """Gives at most `share` of the waiting examples to free slots."""
        free = self.order[self.example[self.order] < 0]
        fresh = free[: min(share, len(waiting))]
        if not len(fresh):
            return
        self.whole = False
        self.example[fresh] = [waiting.popleft() for _ in fresh]
        self.made[fresh] = 0
        work = self.work
        # Slots for which no example is left repeat another's.
        rows = np.where(self.example >= 0, self.example, self.example.max())
        self.keys, self.problems, starts = self._placed(
            jax.tree.map(lambda leaf: leaf[rows], (work.keys.data, work.problems, work.starts))
        )
        options: dict[str, Any] = {"implementation": work.keys.implementation}
        options["apart"] = work.policy.apart
        begun = programs.begin(work.shared[0], self.keys, starts, **options)
        if self.state is not None:
            new = self._placed(np.isin(np.arange(len(rows)), fresh))
            begun = programs.refill(new, begun, self.state)
        self.state = self._placed(begun)
        for slot in map(int, fresh):
            self.info[slot], self.kept[slot] = [], {}
        self._restore(fresh, restored)
        if 0 in work.marks:
            self._keep(fresh[self.made[fresh] == 0], 0)
        self.whole = True

    def _restore(self, fresh: np.ndarray, restored: dict[int, Stored]) -> None:
        """Puts examples back to where an interrupted run left them."""
        again = [int(slot) for slot in fresh if int(self.example[slot]) in restored]
        if not again:
            return
        host = jax.tree.map(lambda leaf: np.array(plain(leaf)), self.state)
        for slot in again:
            stored = restored.pop(int(self.example[slot]))
            for leaf, row in zip(jax.tree.leaves(host), stored.leaves, strict=True):
                leaf[slot] = row
            self.made[slot], self.kept[slot] = stored.made, dict(stored.kept)
            self.info[slot] = [stored.info] if stored.made else []
        self.state = self._placed(jax.tree.map(typed, host, self.state))

    def _placed(self, tree: PyTree) -> PyTree:
        mesh = self.work.policy.mesh
        if mesh is None:
            return jax.device_put(tree)
        return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(*mesh.axis_names)))

    def arguments(self, steps: int) -> tuple[Any, ...]:
        """What `programs.advance` takes for so many steps."""
        policy, (algorithm, model) = self.work.policy, self.work.shared
        last = np.flatnonzero(self.example[self.order] >= 0).max(initial=-1)
        groups = last // (policy.width * policy.devices) + 1
        whole = None if policy.mesh is None else NamedSharding(policy.mesh, PartitionSpec())
        counts = jax.device_put((np.int32(steps), np.int32(groups)), whole)
        made = self._placed(self.made)
        return algorithm, self.keys, made, self.state, model, self.problems, *counts

    def options(self) -> dict[str, Any]:
        """What `programs.advance` is compiled for."""
        policy = self.work.policy
        return {
            "implementation": self.work.keys.implementation,
            "width": policy.width,
            "piece": policy.piece,
            "mesh": policy.mesh,
        }

    def advance(self) -> list[Finished]:
        """One piece of steps of all slots; the examples that left."""
        work, busy = self.work, self.busy
        self.whole = False
        steps = min(work.policy.piece, work.ahead(self.made[busy]))
        self.state, *found = programs.advance(*self.arguments(steps), **self.options())
        made, told, stopped = jax.tree.map(np.asarray, tuple(found))
        work.check(self.example[busy], jax.tree.map(lambda leaf: leaf[busy], told))
        for slot in map(int, busy):
            span = made[slot] - self.made[slot]
            self.info[slot].append(jax.tree.map(lambda leaf, s=slot, n=span: leaf[s, :n], told))
        self.made = made.copy()
        for mark in work.marks:
            self._keep(busy[(made[busy] == mark) & ~stopped[busy]], mark)
        left = self.leave(busy[(made[busy] >= work.steps) | stopped[busy]], stopped)
        self.whole = True
        return left

    def leave(self, leaving: np.ndarray, stopped: np.ndarray) -> list[Finished]:
        """Empties slots; what their examples gave."""
        found = []
        for early in (False, True):
            slots = leaving[stopped[leaving] == early]
            for slot, result in zip(slots, self.results(slots, stopped=early), strict=True):
                example, made = int(self.example[slot]), int(self.made[slot])
                kept = self.kept[int(slot)]
                found.append(Finished(example, result, self.told(int(slot)), made, kept))
        self.example[leaving] = -1
        return found

    def _keep(self, slots: np.ndarray, mark: int) -> None:
        for slot, result in zip(slots, self.results(slots), strict=True):
            self.kept.setdefault(int(slot), {})[mark] = result

    def results(self, slots: np.ndarray, *, stopped: bool = False) -> list[PyTree]:
        """What the examples of some slots give, each on the host."""
        work, width = self.work, self.work.policy.width
        found = []
        if not any(hasattr(work.algorithm, name) for name in ("finish", "stopped")):
            host = jax.tree.map(np.asarray, self.state)
            for slot in slots:
                found.append(jax.tree.map(lambda leaf, s=slot: leaf[s].copy(), host))
                work.check(self.example[[slot]], jax.tree.map(lambda leaf: leaf[None], found[-1]))
            return found
        state, problems = self.state, self.problems
        if len(slots) and work.policy.mesh is not None:
            # From one device, whatever number a state lies on, so that the bits are the same.
            state, problems = jax.device_put((state, problems), jax.local_devices()[0])
        for first in range(0, len(slots), width):
            some = slots[first : first + width]
            rows = jax.device_put(np.resize(some, width))
            made = programs.finish(
                work.algorithm, rows, state, work.model, problems, stopped=stopped
            )
            made = jax.tree.map(lambda leaf: np.asarray(leaf)[: len(some)], made)  # noqa: B023
            work.check(self.example[some], made)
            # Copies, so that none keeps the others in memory.
            found += [
                jax.tree.map(lambda leaf, i=i: leaf[i].copy(), made) for i in range(len(some))
            ]
        return found

    def told(self, slot: int) -> PyTree:
        """What the steps so far of a slot's example told."""
        parts = self.info[slot]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts) if parts else ()

    def stored(self) -> list[Stored]:
        """What an interrupted run goes on from."""
        leaves = [plain(leaf) for leaf in jax.tree.leaves(self.state)]
        return [
            Stored(
                int(self.example[slot]),
                int(self.made[slot]),
                [leaf[slot] for leaf in leaves],
                jax.tree.leaves(self.told(int(slot))),
                {mark: jax.tree.leaves(tree) for mark, tree in self.kept[int(slot)].items()},
            )
            for slot in self.busy
        ]
