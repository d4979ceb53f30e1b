"""How programs that call a network over and over are compiled for a CPU, and share its cores."""

from __future__ import annotations

import contextlib
import functools
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar, cast

import jax
import jaxlib
from flax.core.tracers import current_trace

_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}
"""Of XLA's fusions into its small-kernel library only matrix products: convolutions then run on all
cores inside a loop too, where that library takes one. Measured with jaxlib 0.10 on two cores, on a
32-pixel network: forward 1.4 to 1.7 times, ascent 1.3 times as fast; equal on 224 pixels. On one
core that library is the faster, by a tenth there and by a third on 28-pixel digits."""


_Item = TypeVar("_Item")
_Made = TypeVar("_Made")

# A thread of its own has no transformation under way, wherever this room is first imported.
with ThreadPoolExecutor(1) as _pool:
    _CLEAN = _pool.submit(current_trace).result()


_HERE = threading.local()
"""Of each thread: whether its programs are to run on one core."""


class Jitted(Protocol):
    """What `jit` gives."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

    def eval_shape(self, *args: Any, **kwargs: Any) -> Any:
        """As `jax.eval_shape`, keeping the trace for calls to come."""

    def clear_cache(self) -> None:
        """Forgets the compiled programs."""


class _Choosing:
    """A jitted function in two forms; that of the outermost program answers for both."""

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        self._outermost: Any = jax.jit(function, compiler_options=_OPTIONS, **options)
        self._plain: Any = jax.jit(function, **options)
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # A closure may hold what is traced, and arguments may be traced where the trace is done.
        inside = current_trace() != _CLEAN or any(
            isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((args, kwargs))
        )
        return (self._plain if inside else self._top())(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._top(), name)

    def __reduce__(self) -> str:
        return self.__qualname__  # by name, as functions are pickled

    def _cache_size(self) -> int:
        return self._outermost._cache_size() + self._plain._cache_size()

    def clear_cache(self) -> None:
        self._outermost.clear_cache()
        self._plain.clear_cache()

    def _top(self) -> Any:
        alone = getattr(_HERE, "alone", False)
        return self._outermost if chosen() and not alone else self._plain


def chosen() -> bool:
    """Whether `jit` gives its own form, whose last bits differ from those of `jax.jit`.

    On a CPU with more than one core, or more than one process, so that a core each makes what one
    process makes on all of them. Inside `abreast` it does so only if told.
    """
    return jax.default_backend() == "cpu" and (cores() > 1 or jax.process_count() > 1)


def cores() -> int:
    """How many cores this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed is not None else os.cpu_count() or 1


def jit(function: Callable[..., Any], **options: Any) -> Jitted:
    """`jax.jit` with the options that make networks fast on a CPU.

    Where a user's own transformation is under way it is plain `jax.jit`, since JAX takes compiler
    options for the outermost program alone; so it is on a single core, on other devices, and with
    releases of jaxlib that the options were not measured with.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis.compilation import jit
      >>> float(jit(lambda x: 2 * x)(jnp.float32(3)))
      6.0
    """
    if jaxlib.__version__.split(".")[:2] != ["0", "10"]:
        return cast(Jitted, jax.jit(function, **options))
    return cast(Jitted, _Choosing(function, options))


def _settings() -> tuple[Any, ...]:
    """All that a context manager of JAX can have set in this thread alone."""
    mesh = jax.sharding.get_abstract_mesh()
    return *(getattr(jax.config, name, None) for name in jax.config.values), mesh


def hands() -> int:
    """How many items `abreast` works on at once: one a core, where a CPU is the only device.

    Eight at most, since each takes memory of its own.

    Example:
      >>> from rvis.compilation import hands
      >>> hands() >= 1
      True
    """
    alone = jax.default_backend() == "cpu" and jax.local_device_count() == 1
    return min(8, cores()) if alone else 1


@contextlib.contextmanager
def _form(single: bool) -> Iterator[None]:
    before = getattr(_HERE, "alone", False)
    _HERE.alone = single
    try:
        yield
    finally:
        _HERE.alone = before


@contextlib.contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor | None]:
    """Threads for so many pieces of work; None where they are better done in turn."""
    if min(count, hands()) < 2 or current_trace() != _CLEAN:
        yield None
        return
    with ThreadPoolExecutor(min(count, hands())) as pool:
        yield pool if pool.submit(_settings).result() == _settings() else None


def abreast(
    work: Callable[[_Item], _Made], items: Iterable[_Item], *, single: bool = True
) -> list[_Made]:
    """What `work` makes of every item, in their order; on a CPU each core takes one at a time.

    A loop over a small network keeps little more than one core busy, however many there are.
    Measured on two, with a 28-pixel network: two such loops at once take the time of one, in turn
    1.9 times that. Items are worked on in turn on other devices and under JAX's context managers,
    which other threads do not see. Ctrl-C waits for the items begun.

    Args:
      work: pure, and mostly compiled programs, to whose end it waits.
      items: what to work on.
      single: whether programs of `jit` take the form that is the faster on one core, however many
        items and cores there are, so that neither changes their bits. Else they take the form that
        they have elsewhere, so that the bits are those of a call alone; with 32-pixel networks that
        saves a fifth of the time, and the other form a third.

    Raises:
      Whatever the first item raises of those that fail.

    Example:
      >>> from rvis.compilation import abreast
      >>> abreast(lambda x: 2 * x, (1, 2))
      [2, 4]
    """

    def formed(item: _Item) -> _Made:
        with _form(single):
            return work(item)

    items = list(items)
    with _threads(len(items)) as pool:
        return list(map(formed, items) if pool is None else pool.map(formed, items))


def merged(sources: Iterable[Iterator[_Item]]) -> Iterator[_Item]:
    """What several iterators give, as soon as they do; on a CPU each has a core of its own.

    As `abreast` with `single`, where no piece of work need wait for another. Iterators must be no
    more than `hands()`, and do without one another.

    Raises:
      Whatever an iterator raises, once the others have given their next.

    Example:
      >>> from rvis.compilation import merged
      >>> sorted(merged([iter((1, 2)), iter((3,))]))
      [1, 2, 3]
    """
    sources = list(sources)
    given: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
    stop = threading.Event()

    def drive(source: Iterator[_Item]) -> None:
        try:
            with _form(True):
                for item in source:
                    given.put(("item", item))
                    if stop.is_set():
                        break
            given.put(("end", None))
        except BaseException as error:  # raised where the items go
            given.put(("error", error))

    with _threads(len(sources)) as pool:
        if pool is None:
            for source in sources:
                while True:
                    with _form(True):
                        item = next(source, _END)
                    if item is _END:
                        break
                    yield cast(_Item, item)
            return
        for source in sources:
            pool.submit(drive, source)
        running = len(sources)
        try:
            while running:
                kind, value = given.get()
                if kind == "error":
                    raise value
                if kind == "item":
                    yield value
                running -= kind == "end"
        finally:
            stop.set()


_END = object()
