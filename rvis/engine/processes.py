"""Work beside the engine's: files written by a thread, and processes that share a folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax

_BEAT = 1.0
"""Seconds between two signs of life."""
SILENT = 30.0
"""Seconds without one after which a process is taken for ended."""


@contextlib.contextmanager
def behind(most: int) -> Iterator[Callable[..., None]]:
    """A thread that does one thing after another while the caller goes on.

    Args:
      most: how many may wait; the next waits for the first of them.

    Yields:
      `later(function, *arguments)`. What was begun is ended, even where the caller fails.

    Example:
      >>> from rvis.engine import processes
      >>> done = []
      >>> with processes.behind(2) as later:
      ...     for number in range(3):
      ...         later(done.append, number)
      >>> done
      [0, 1, 2]
    """
    waiting: deque[Future[Any]] = deque()

    def later(function: Callable[..., Any], *arguments: Any) -> None:
        while len(waiting) >= most:
            waiting.popleft().result()
        waiting.append(pool.submit(function, *arguments))

    with ThreadPoolExecutor(1) as pool:
        yield later
        while waiting:
            waiting.popleft().result()


@contextlib.contextmanager
def together(folder: Path) -> Iterator[Callable[[Callable[[], bool], str], None]]:
    """Shows the others that this process lives, by a file in `folder`; a lone process needs none.

    Nothing is sent between devices: their collectives give up where one process has more to do than
    another.

    Yields:
      `wait(done, what)`, which returns once `done()` is true.

    Raises:
      RuntimeError: naming `out`, where another process has shown no life for half a minute.
    """
    if jax.process_count() == 1:
        yield lambda done, what: None
        shutil.rmtree(folder, ignore_errors=True)
        return
    own, ended, count = jax.process_index(), threading.Event(), jax.process_count()
    files, left = ([folder / f"{name}{i}" for i in range(count)] for name in ("process", "left"))
    left[own].unlink(missing_ok=True)

    def beat() -> None:
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            files[own].touch()
            os.utime(files[own])
            if ended.wait(_BEAT):
                return

    def wait(done: Callable[[], bool], what: str) -> None:
        begun = time.monotonic()
        while not done():
            time.sleep(_BEAT / 4)
            if time.monotonic() - begun < SILENT:
                continue
            # By the clock of the disk, which all share.
            seen = [file.stat().st_mtime if file.exists() else 0.0 for file in files]
            silent = [i for i, when in enumerate(seen) if seen[own] - when > SILENT]
            if silent:
                raise RuntimeError(
                    f"out: process {silent[0]} of {len(files)} has ended before {what}; the same "
                    "call, of any number of processes, goes on from what the folder holds"
                )

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield wait
        if own == 0:
            with contextlib.suppress(RuntimeError):  # others may only begin, or never
                wait(lambda: all(file.exists() for file in left[1:]), "it has left")
    finally:
        ended.set()
        thread.join()
    if own == 0:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        with contextlib.suppress(FileNotFoundError):
            files[own].rename(left[own])
