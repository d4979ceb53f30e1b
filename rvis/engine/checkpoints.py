"""Interrupted work goes on where it stopped: a pytree of arrays in one file, without pickle."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rvis import files
from rvis.engine.identity import fingerprint
from rvis.types import PyTree


def is_key(leaf: Any) -> bool:
    """Whether a leaf is an array of typed keys."""
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def plain(leaf: Any) -> np.ndarray:
    """A leaf on the host, keys as their numbers."""
    return np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)


def typed(leaf: Any, like: Any) -> Any:
    """Undoes `plain` of keys."""
    return jax.random.wrap_key_data(leaf, impl=jax.random.key_impl(like)) if is_key(like) else leaf


def save(path: str | Path, tree: PyTree, *, fingerprint: str) -> None:
    """Writes the leaves of `tree` beside `path` and then over it.

    Raises:
      OSError: naming the path, on a full disk or without permission; the old file stays whole.
    """
    leaves = {f"leaf{i}": plain(leaf) for i, leaf in enumerate(jax.tree.leaves(tree))}
    _put(path, {"fingerprint": fingerprint}, leaves)


def load(path: str | Path, like: PyTree, *, fingerprint: str) -> PyTree:
    """The tree that `save` wrote, if it belongs to the work at hand.

    Args:
      path: the file.
      like: a tree of the same structure, shapes and dtypes; None for a tuple of whatever arrays
        there are.
      fingerprint: what it must have been saved with.

    Raises:
      ValueError: naming the file, if it is of other work, truncated, or no checkpoint.
    """
    _, arrays = _get(path, fingerprint)
    leaves = [arrays[f"leaf{i}"] for i in range(len(arrays))]
    if like is None:
        return tuple(leaves)
    templates, structure = jax.tree.flatten(like)
    if [leaf.shape for leaf in leaves] != [plain(template).shape for template in templates]:
        raise ValueError(_OTHER.format(path))
    pairs = zip(leaves, templates, strict=True)
    return jax.tree.unflatten(structure, [typed(jnp.asarray(leaf), like) for leaf, like in pairs])


def _put(path: str | Path, card: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    # Such as bfloat16, which NumPy's files do not know.
    dtypes = {name: str(array.dtype) for name, array in arrays.items() if array.dtype.kind == "V"}
    known = {name: arrays[name].view(f"u{arrays[name].dtype.itemsize}") for name in dtypes}
    stored = arrays | known
    card = {**card, "dtypes": dtypes}
    text = np.asarray(json.dumps({**card, "digest": fingerprint(json.dumps(card), stored)}))
    with files.atomic(path, "checkpoint") as temporary, open(temporary, "wb") as stream:
        np.savez(stream, card=text, **stored)  # type: ignore[arg-type]


def _get(path: str | Path, about: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    try:
        with open(path, "rb") as stream:
            files.check_arrays(path, stream)
            with np.load(stream, allow_pickle=False) as stored:
                card = json.loads(str(stored["card"]))
                arrays = {name: stored[name] for name in stored.files if name != "card"}
        if card.pop("digest") != fingerprint(json.dumps(card), arrays):
            raise ValueError("it is not as it was written")
        for name, dtype in card["dtypes"].items():
            arrays[name] = arrays[name].view(jnp.dtype(dtype))
    except Exception as error:  # a damaged file can raise anything
        raise ValueError(f"checkpoint: {path} cannot be read ({error}); delete it") from error
    if card["fingerprint"] != about:
        raise ValueError(_OTHER.format(path))
    return card, arrays


_OTHER = "checkpoint: {} belongs to work with other arguments; delete it or choose another place"


class Stored(NamedTuple):
    """An example in a folder, as leaves of its trees.

    Attributes:
      example: its number.
      made: how many steps it made.
      leaves: of its state, or of its result.
      info: of what its steps told.
      kept: {step: leaves of the result after that many}.
    """

    example: int
    made: int
    leaves: list[Any]
    info: Any
    kept: Mapping[int, Any]


SECONDS = 10.0
"""Between two savings of a run under way."""


class Folder:
    """The folder of an interrupted run: examples that have left, and those on their way.

    First a file of the examples that left since the last time is written, then one of all that are
    on their way, which tells how many of the former count.
    """

    def __init__(self, place: str | Path, about: Any) -> None:
        """Takes the folder for this process, or refuses: it is in use, or `about` other work."""
        self._folder = files.as_path("checkpoint", place)
        self._lock = files.Lock(self._folder)
        self._about = fingerprint(about)
        self._left: list[Stored] = []
        self._files = 0
        self.waiting: list[Stored] = []
        self._clock = time.monotonic()
        flight = self._folder / "flight.npz"
        self.used = flight.exists()
        if self.used:
            try:
                self.waiting, self._files = _read(flight, self._about)
            except ValueError:
                self.close()
                raise

    def finished(self) -> Iterator[Stored]:
        """The examples that had left; `waiting` are those that were on their way."""
        for number in range(self._files):
            yield from _read(self._finished(number), self._about)[0]

    def _finished(self, number: int) -> Path:
        return self._folder / f"finished{number:06d}.npz"

    def record(self, left: Iterable[Stored], flight: Callable[[], list[Stored]]) -> None:
        """Remembers examples that left, and saves everything now and then."""
        self._left += left
        if time.monotonic() - self._clock >= SECONDS:
            self.save((), flight())

    def save(self, left: Iterable[Stored], flight: list[Stored]) -> None:
        """Saves the examples that left since the last time, and all on their way."""
        self._left += left
        if self._left:
            _write(self._finished(self._files), self._left, self._about, 0)
            self._files, self._left = self._files + 1, []
        _write(self._folder / "flight.npz", flight, self._about, self._files)
        self._clock = time.monotonic()

    def close(self) -> None:
        """Lets other processes have the folder."""
        self._lock.close()

    def remove(self) -> None:
        """Deletes what a run that has ended needs no more."""
        # First what the other files hang on.
        (self._folder / "flight.npz").unlink(missing_ok=True)
        for number in range(self._files):
            self._finished(number).unlink(missing_ok=True)
        self._lock.remove()
        with contextlib.suppress(OSError):
            self._folder.rmdir()


def _write(path: Path, examples: list[Stored], about: str, count: int) -> None:
    arrays: dict[str, np.ndarray] = {}
    described = []
    for i, each in enumerate(examples):
        parts = {"leaves": each.leaves, "info": each.info}
        parts |= {f"kept{mark}": leaves for mark, leaves in each.kept.items()}
        for name, leaves in parts.items():
            arrays |= {f"{i}.{name}.{j}": np.asarray(leaf) for j, leaf in enumerate(leaves)}
        sizes = {name: len(leaves) for name, leaves in parts.items()}
        described.append([each.example, each.made, sizes])
    _put(path, {"fingerprint": about, "files": count, "examples": described}, arrays)


def _read(path: Path, about: str) -> tuple[list[Stored], int]:
    card, arrays = _get(path, about)
    found = []
    for i, (example, made, sizes) in enumerate(card["examples"]):
        parts = {
            name: [arrays[f"{i}.{name}.{j}"] for j in range(size)] for name, size in sizes.items()
        }
        kept = {int(name[4:]): parts[name] for name in parts if name.startswith("kept")}
        found.append(Stored(example, made, parts["leaves"], parts["info"], kept))
    return found, int(card["files"])
