"""Files that are whole or absent: each is written beside its place and then renamed into it."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import uuid
from collections.abc import Iterator
from typing import Any

PathLike = str | os.PathLike[str]


def as_path(argument: str, value: PathLike) -> pathlib.Path:
    """`value` as a path.

    Args:
      argument: the caller's name for it, to be named in the error.
      value: a str or anything path-like.

    Raises:
      TypeError: naming the argument, for anything else.

    Example:
      >>> from rvis import files
      >>> files.as_path("path", "runs/card.json").name
      'card.json'
    """
    try:
        return pathlib.Path(value)
    except TypeError as error:
        raise TypeError(f"{argument}: a path was expected, given {value!r}") from error


@contextlib.contextmanager
def atomic(path: PathLike) -> Iterator[pathlib.Path]:
    """A path beside `path` to write to, which takes its place when the block ends well.

    Whoever reads `path` finds the old file or the whole new one, never a part. If the block fails,
    `path` is as it was and nothing is left behind. Missing parent folders are made.

    Args:
      path: where the file shall be.

    Yields:
      A path in the same folder with the same suffix; the block must create a file there.

    Raises:
      TypeError: naming `path`, where it is none.
      OSError: naming `path` and the reason: a full disk, no permission, a parent that is a file, a
        folder at `path`, a block that wrote nothing. The `errno` is kept, and with it the subclass.
        An OSError about some other file passes as it is.

    Example:
      >>> import pathlib, tempfile
      >>> from rvis import files
      >>> folder = tempfile.TemporaryDirectory()
      >>> target = pathlib.Path(folder.name) / "new" / "numbers.txt"
      >>> with files.atomic(target) as beside:
      ...     _ = beside.write_text("1 2 3")
      ...     print(beside.suffix, target.exists())
      .txt False
      >>> target.read_text()
      '1 2 3'
      >>> folder.cleanup()
    """
    target = as_path("path", path)
    beside = target.parent / f".{uuid.uuid4().hex}{target.suffix}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        # A rename can reach the disk before the bytes do; a crash then leaves an empty file.
        with open(beside, "r+b") as handle:
            os.fsync(handle.fileno())
        os.replace(beside, target)
    except OSError as error:
        ours = map(str, (beside, target, *target.parents))
        if error.filename is not None and str(error.filename) not in ours:
            raise
        reason = error.strerror or str(error)
        if isinstance(error, FileNotFoundError) and target.parent.is_dir():
            reason = "nothing was written"
        message = f"path: {target} could not be written: {reason}"
        raise (OSError(error.errno, message) if error.errno else OSError(message)) from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def write_text(path: PathLike, text: str) -> None:
    """Writes `text` to `path` as UTF-8, whole or not at all.

    Raises:
      TypeError: naming `path` or `text`, for anything but a path and a str.
      OSError: naming `path` and the reason, as in `atomic`.

    Example:
      >>> import pathlib, tempfile
      >>> from rvis import files
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     files.write_text(f"{folder}/note.txt", "ε = 8/255")
      ...     pathlib.Path(folder, "note.txt").read_text(encoding="utf-8")
      'ε = 8/255'
    """
    if not isinstance(text, str):
        raise TypeError(f"text: a str was expected, given {type(text).__name__}")
    with atomic(path) as beside:
        beside.write_bytes(text.encode())


def write_json(path: PathLike, value: Any) -> None:
    """Writes `value` to `path` as JSON, whole or not at all, its keys in their own order.

    Args:
      path: where the file shall be.
      value: dicts, lists, tuples, strings, numbers, None, and arrays and scalars of NumPy and JAX,
        which become nested lists and numbers. NaN and infinities are written as Python's `json`
        writes and reads them.

    Raises:
      TypeError: naming `value`, for what JSON cannot hold, or `path`, for what is no path.
      ValueError: naming `value`, where it holds itself.
      OSError: naming `path` and the reason, as in `atomic`.

    Example:
      >>> import json, pathlib, tempfile
      >>> import numpy as np
      >>> from rvis import files
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     files.write_json(f"{folder}/card.json", {"steps": np.int32(64), "eps": np.ones(2)})
      ...     json.loads(pathlib.Path(folder, "card.json").read_text(encoding="utf-8"))
      {'steps': 64, 'eps': [1.0, 1.0]}
    """
    try:
        text = json.dumps(value, indent=1, ensure_ascii=False, default=_plain)
    except TypeError as error:
        raise TypeError(f"value: what JSON can hold was expected ({error})") from error
    except ValueError as error:
        raise ValueError(f"value: it must not hold itself ({error})") from error
    write_text(path, text + "\n")


def _plain(value: Any) -> Any:
    # By the protocol, not by type: it serves NumPy and JAX, arrays and scalars, without importing
    # either.
    if hasattr(value, "__array__"):
        return value.__array__().tolist()
    raise TypeError(f"given {type(value).__name__}")
