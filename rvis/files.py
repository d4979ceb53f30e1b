"""Files that are whole or absent: each is written beside its place and then renamed into it."""

from __future__ import annotations

import contextlib
import json
import math
import os
import pathlib
import uuid
import zipfile
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

PathLike = str | os.PathLike[str]


def as_path(argument: str, value: PathLike) -> pathlib.Path:
    """`value` as a path; `argument` is the caller's name for it, to be named in errors.

    Example:
      >>> from rvis import files
      >>> files.as_path("path", "runs/card.json").name
      'card.json'
    """
    try:
        path = pathlib.Path(value)
    except TypeError as error:
        raise TypeError(f"{argument}: a path was expected, given {value!r}") from error
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except ValueError as error:
        raise ValueError(f"{argument}: a path was expected, given {value!r} ({error})") from error
    except OSError as error:
        message = f"{argument}: {str(path)[:200]!r} cannot be reached: {error.strerror}"
        raise OSError(error.errno, message) from error
    return path


def cache() -> pathlib.Path:
    """Where fetched and compiled files are kept: $RVIS_CACHE, $XDG_CACHE_HOME/rvis, ~/.cache/rvis.

    Example:
      >>> from rvis import files
      >>> len(files.cache().parts) > 1
      True
    """
    own = os.environ.get("RVIS_CACHE")
    if own:
        return pathlib.Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (pathlib.Path(shared) if shared else pathlib.Path.home() / ".cache") / "rvis"


SAFE, RATIO, MOST = 2**26, 200, 2**36
"""Bytes that may always be unpacked; how often its own size a file may be; and what none may be."""


def check_unpacked(where: object, packed: int, unpacked: int) -> None:
    """Refuses what a header says would be unpacked of the file `where`, before it is.

    Raises:
      ValueError: naming `path`, for more than 64 MiB that are more than 200 times what is packed,
        and for more than 64 GiB.

    Example:
      >>> from rvis import files
      >>> files.check_unpacked("bomb.zip", 10_000, 10**12)
      Traceback (most recent call last):
      ValueError: path: bomb.zip would unpack to 1000000000000 bytes from 10000; ...
    """
    limit = min(max(SAFE, RATIO * packed), MOST)
    if unpacked > limit:
        raise ValueError(
            f"path: {where} would unpack to {unpacked} bytes from {packed}; at most {limit} were "
            f"expected ({RATIO} times as many, or {SAFE}, and never more than {MOST})"
        )


def check_arrays(where: object, stream: IO[bytes]) -> None:
    """Refuses, as `check_unpacked`, an .npz whose entries, or shapes in headers, are too large."""
    with zipfile.ZipFile(stream) as archive:
        for entry in archive.infolist():
            name = f"{entry.filename} in {where}"
            check_unpacked(name, entry.compress_size, entry.file_size)
            with archive.open(entry) as opened:
                version, _ = np.lib.format.read_magic(opened)
                read = getattr(np.lib.format, f"read_array_header_{min(version, 2)}_0")
                shape, _, dtype = read(opened)
                if math.prod(shape) * dtype.itemsize > entry.file_size:
                    raise ValueError(f"path: {name} is smaller than its shape {shape} takes")
    stream.seek(0)


@contextlib.contextmanager
def atomic(path: PathLike, argument: str = "path") -> Iterator[pathlib.Path]:
    """A path beside `path` to write to, which takes its place when the block ends well.

    Whoever reads `path` finds the old file or the whole new one, never a part. If the block fails,
    `path` is as it was and nothing is left behind. Missing parent folders are made.

    Raises:
      TypeError: naming `argument`, where the path is none.
      OSError: naming `argument` and the reason, such as a full disk; it keeps its `errno` and
        subclass. One about some other file passes as it is.

    Example:
      >>> import pathlib, tempfile
      >>> from rvis import files
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     target = pathlib.Path(folder, "new", "numbers.txt")
      ...     with files.atomic(target) as beside:
      ...         _ = beside.write_text("1 2 3")
      ...     target.read_text()
      '1 2 3'
    """
    target = as_path(argument, path)
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
        message = f"{argument}: {target} could not be written: {reason}"
        raise (OSError(error.errno, message) if error.errno else OSError(message)) from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def write_text(path: PathLike, text: str) -> None:
    """Writes `text` to `path` as UTF-8, whole or not at all; errors as `atomic`.

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
      value: what JSON can hold, with arrays and scalars of NumPy and JAX, which become lists and
        numbers. NaN and infinities are written as Python's `json` does.

    Raises:
      TypeError, ValueError: naming `value`, for what JSON cannot hold or what holds itself.
      OSError: as `atomic`.

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


def opened(path: PathLike) -> IO[bytes]:
    """The file, to be read; an OSError names `path`."""
    try:
        return open(as_path("path", path), "rb")
    except OSError as error:
        raise OSError(error.errno, f"path: {path} cannot be read: {error.strerror}") from error


LOCK = "lock"
"""The name of the file by which a folder is held."""


class Lock:
    """A folder for one run alone, until it is closed or its process ends, were it by a kill."""

    def __init__(self, folder: pathlib.Path) -> None:
        """Takes the folder, made where it is not there, or refuses it by name."""
        self._path = folder / LOCK
        try:
            folder.mkdir(parents=True, exist_ok=True)
            while not self._taken():
                self.close()
            for left in folder.glob(f".{'?' * 32}.npz"):  # by a kill in the midst of a write
                left.unlink()
        except BlockingIOError:
            self.close()
            raise ValueError(
                f"checkpoint: {folder} is in use by another run; wait for it or choose another "
                "place"
            ) from None
        except OSError as error:
            message = f"checkpoint: {folder} cannot be written: {error.strerror}"
            raise OSError(error.errno, message) from error

    def _taken(self) -> bool:
        self._stream = open(self._path, "w")
        if fcntl is None:
            return True
        fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Who had it until now may have removed the file that was opened here.
        return self._path.exists() and os.path.samestat(
            os.fstat(self._stream.fileno()), self._path.stat()
        )

    def close(self) -> None:
        """Lets others have the folder."""
        self._stream.close()

    def remove(self) -> None:
        """Leaves nothing of itself."""
        with contextlib.suppress(OSError):  # Windows removes no file that is open
            self._path.unlink()
        self.close()


@contextlib.contextmanager
def alone(folder: pathlib.Path | None) -> Iterator[None]:
    """Keeps other runs out of a folder, if there is one, while the block runs."""
    lock = None if folder is None else Lock(folder)
    try:
        yield
    finally:
        if lock is not None:
            lock.remove()
