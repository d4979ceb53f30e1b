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
from typing import Any, NamedTuple

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


class Others(NamedTuple):
    """What one tells the others, whether one of them last told a word, a wait for what is done."""

    tell: Callable[[str], None]
    told: Callable[[int, str], bool]
    wait: Callable[[Callable[[], bool], str], None]


@contextlib.contextmanager
def together(folder: Path) -> Iterator[Others]:
    """Shows the others that this process lives, by a file in `folder`; a lone process needs none.

    Nothing is sent between devices: their collectives give up where one process has more to do than
    another. What a file says counts only while it is newer than the process that reads it: that of
    a process that was killed says nothing to a later run.

    Raises:
      RuntimeError: naming `out`, where another process has shown no life for half a minute.
    """
    if jax.process_count() == 1:
        yield Others(lambda word: None, lambda number, word: True, lambda done, what: None)
        shutil.rmtree(folder, ignore_errors=True)
        return
    own, ended, count = jax.process_index(), threading.Event(), jax.process_count()
    files, begun = [folder / f"process{i}" for i in range(count)], 0.0

    def last(number: int) -> tuple[float, str]:  # by the clock of the disk, which all share
        with contextlib.suppress(FileNotFoundError):
            return files[number].stat().st_mtime, files[number].read_text()
        return 0.0, ""

    def tell(word: str | None) -> None:
        with contextlib.suppress(FileNotFoundError):  # where an earlier run just tidies up
            folder.mkdir(parents=True, exist_ok=True)
            files[own].touch() if word is None else files[own].write_text(word)

    def told(number: int, word: str) -> bool:
        when, said = last(number)
        return when > begun and said == word

    def beat() -> None:
        while not ended.wait(_BEAT):
            tell(None)

    def wait(done: Callable[[], bool], what: str) -> None:
        since = time.monotonic()
        while not done():
            time.sleep(_BEAT / 4)
            if time.monotonic() - since < SILENT:
                continue
            silent = [i for i in range(count) if last(own)[0] - last(i)[0] > SILENT]
            if silent:
                raise RuntimeError(
                    f"out: process {silent[0]} of {count} has ended before {what}; the same "
                    "call, of any number of processes, goes on from what the folder holds"
                )

    while not begun:
        tell("")
        begun = last(own)[0]
    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield Others(tell, told, wait)
        if own == 0:
            with contextlib.suppress(RuntimeError):  # others may only begin, or never
                wait(lambda: all(told(i, "left") for i in range(1, count)), "it has left")
    finally:
        ended.set()
        thread.join()
    if own == 0:
        shutil.rmtree(folder, ignore_errors=True)
    elif folder.exists():
        tell("left")
        # Until process 0 has read it and tidied up: a next call's word would take its place.
        with contextlib.suppress(FileNotFoundError):
            while last(own)[0] - last(0)[0] <= SILENT:
                time.sleep(_BEAT / 4)
                os.utime(files[own])
