"""Work on several items at once, on the cores of a CPU."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import jax
from flax.core.tracers import current_trace

from rvis.kernels.switch import enabled, stock

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")

# A thread of its own has no transformation under way, wherever this room is first imported.
with ThreadPoolExecutor(1) as _pool:
    _CLEAN = _pool.submit(current_trace).result()


def cores() -> int:
    """How many cores this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed is not None else os.cpu_count() or 1


def _settings() -> tuple[Any, ...]:
    """All that a context manager of JAX can have set in this thread alone."""
    mesh = jax.sharding.get_abstract_mesh()
    return *(getattr(jax.config, name, None) for name in jax.config.values), mesh


def num_workers() -> int:
    """Items that `parallel_map` works on at once: a lone CPU's cores, eight at most; else two."""
    alone = jax.default_backend() == "cpu" and jax.local_device_count() == 1
    return min(8, cores()) if alone else 2


@contextlib.contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor | None]:
    """Threads for so many pieces of work; None where they are better done in turn."""
    if min(count, num_workers()) < 2 or current_trace() != _CLEAN:
        yield None
        return
    with ThreadPoolExecutor(min(count, num_workers())) as pool:
        yield pool if pool.submit(_settings).result() == _settings() else None


def parallel_map(work: Callable[[_Item], _Made], items: Iterable[_Item]) -> list[_Made]:
    """What `work` makes of every item, in their order; on a CPU each core takes one at a time.

    A loop over a small network keeps little more than one core busy: two at once on two cores take
    the time of one. Items are worked on in turn on other devices and under JAX's context managers,
    which other threads do not see. Ctrl-C waits for the items begun.
    """
    on = enabled()

    def switched(item: _Item) -> _Made:
        with stock(not on):
            return work(item)

    items = list(items)
    with _threads(len(items)) as pool:
        return list(map(work, items) if pool is None else pool.map(switched, items))
