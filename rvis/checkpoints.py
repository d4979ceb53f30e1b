"""Interrupted work goes on where it stopped: a pytree of arrays in one file, without pickle."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rvis import files
from rvis.types import PyTree


def fingerprint(*parts: Any) -> str:
    """A short digest of pytrees: their structure and the bits of their leaves.

    Two runs with one fingerprint are the same work, so that one may go on from the other's
    checkpoint.

    Example:
      >>> from rvis.checkpoints import fingerprint
      >>> fingerprint({"a": 1.0}) == fingerprint({"a": 1.0}) != fingerprint({"a": 2.0})
      True
    """
    digest = hashlib.sha256()
    leaves, structure = jax.tree.flatten(parts)
    digest.update(stable(structure).encode())
    for leaf in leaves:
        if isinstance(leaf, str):
            digest.update(leaf.encode())
            continue
        array = _plain(leaf)
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def stable(value: Any) -> str:
    """`str(value)` without memory addresses, so that another process writes the same.

    Example:
      >>> from rvis.checkpoints import stable
      >>> stable(object())
      '<object object>'
    """
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))


def _plain(leaf: Any) -> np.ndarray:
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)


def save(path: str | Path, tree: PyTree, *, about: dict[str, Any]) -> None:
    """Writes the leaves of `tree` and a JSON-able `about`, beside `path` and then over it.

    Raises:
      OSError: naming the path, on a full disk or without permission; the old file stays whole.
    """
    leaves = {f"leaf{i}": _plain(leaf) for i, leaf in enumerate(jax.tree.leaves(tree))}
    with files.atomic(path) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, about=np.asarray(json.dumps(about)), **leaves)  # type: ignore[arg-type]


def load(path: str | Path, like: PyTree, *, expect: str) -> tuple[PyTree, dict[str, Any]]:
    """The tree and `about` that `save` wrote, if they belong to the work at hand.

    Args:
      path: the file.
      like: a tree of the same structure, shapes and dtypes.
      expect: the fingerprint that `about["fingerprint"]` must equal.

    Raises:
      ValueError: naming the file, if it is of other work, truncated, or no checkpoint.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            about = json.loads(str(stored["about"]))
            leaves = [stored[f"leaf{i}"] for i in range(len(stored.files) - 1)]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"checkpoint: {path} cannot be read ({error}); delete it") from error
    templates, structure = jax.tree.flatten(like)
    same = about.get("fingerprint") == expect and len(leaves) == len(templates)
    if not same or any(
        stored.shape != _plain(t).shape for stored, t in zip(leaves, templates, strict=True)
    ):
        raise ValueError(
            f"checkpoint: {path} belongs to work with other arguments; delete it or choose another "
            "place"
        )
    restored = [
        jax.random.wrap_key_data(jnp.asarray(leaf))
        if isinstance(t, jax.Array) and jnp.issubdtype(t.dtype, jax.dtypes.prng_key)
        else jnp.asarray(leaf, t.dtype)
        for leaf, t in zip(leaves, templates, strict=True)
    ]
    return jax.tree.unflatten(structure, restored), about
