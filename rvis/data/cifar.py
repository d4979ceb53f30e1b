"""CIFAR's Python batches."""

from __future__ import annotations

import io
import pathlib
import tarfile
from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from rvis import files
from rvis.data import pickles
from rvis.data.dataset import Dataset, choose, title
from rvis.data.pictures import resized

_CIFAR10 = {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)}
_CIFAR100 = {"train": ("train",), "test": ("test",)}


def is_cifar(found: Collection[str]) -> bool:
    """Whether there is one of CIFAR's batches among those names."""
    ten = {"batches.meta", *_CIFAR10["train"], *_CIFAR10["test"]}
    return bool(ten & set(found)) or ("meta" in found and ("train" in found or "test" in found))


def tar_members(source: pathlib.Path) -> dict[str, bytes]:
    """CIFAR's files by their last name, read in one pass, since a .gz cannot be sought in."""
    wanted = {"batches.meta", "meta"}.union(*_CIFAR10.values(), *_CIFAR100.values())
    held: dict[str, bytes] = {}
    size, total = source.stat().st_size, 0
    with tarfile.open(source) as archive:
        for member in archive:
            # What is passed over is unpacked all the same.
            total += max(member.size, 0)
            files.check_unpacked(source, size, total)
            name = member.name.rsplit("/", 1)[-1]
            if member.isfile() and name in wanted:
                handle = archive.extractfile(member)
                assert handle is not None  # a regular file always has one
                held[name] = handle.read()
    return held


def load_cifar(
    source: pathlib.Path,
    found: Collection[str],
    read: Callable[[str], bytes],
    split: str,
    size: tuple[int, int] | None,
) -> Dataset:
    """A split of CIFAR-10 or CIFAR-100, whose files `read` gives by name."""
    hundred = "meta" in found
    layout, meta = (_CIFAR100, "meta") if hundred else (_CIFAR10, "batches.meta")
    key = "fine_label" if hundred else "label"
    there = [name for name, batches in layout.items() if set(batches) & set(found)]
    names = layout[choose(split, there, source)]
    missing = [name for name in (*names, meta) if name not in found]
    if missing:
        raise ValueError(f"path: {', '.join(missing)} missing in {source}")
    held = {name: _unpickled(read(name), f"{name} in {source}") for name in (*names, meta)}
    classes = held[meta].get(f"{key}_names")
    if not isinstance(classes, list) or not all(isinstance(c, str) for c in classes):
        raise ValueError(f"path: {meta} in {source} holds no list {key}_names")
    parts = [
        _cifar_batch(held[name], f"{key}s", len(classes), f"{name} in {source}") for name in names
    ]
    images = np.concatenate([images for images, _ in parts])
    labels = np.concatenate([labels for _, labels in parts])
    return Dataset(resized(images, str(source), size), labels, tuple(classes), title(source))


def _unpickled(content: bytes, where: str) -> dict[str, Any]:
    try:
        value = pickles.read(io.BytesIO(content), pickles.ARRAYS)
    except ValueError as error:
        raise ValueError(
            f"path: {where} is no batch of plain data, or damaged ({error}); none of it was run"
        ) from error
    if not isinstance(value, dict):
        raise ValueError(f"path: {where} holds a {type(value).__name__} where a dict was expected")
    return {
        key: entry.array if isinstance(entry, pickles.ArrayInPickle) else entry
        for key, entry in value.items()
    }


def _cifar_batch(
    batch: dict[str, Any], key: str, classes: int, where: str
) -> tuple[np.ndarray, np.ndarray]:
    pixels, labels = batch.get("data"), batch.get(key)
    if (
        not isinstance(pixels, np.ndarray)
        or pixels.dtype != np.uint8
        or pixels.shape[1:] != (3 * 32 * 32,)
    ):
        raise ValueError(f"path: 'data' in {where} is no (n, 3072) array of uint8")
    if isinstance(labels, list) and all(type(label) is int for label in labels):
        labels = np.array(labels, object)
    elif not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu":
        raise ValueError(f"path: {key!r} in {where} is no list of integers")
    if labels.shape != pixels.shape[:1] or ((labels < 0) | (labels >= classes)).any():
        raise ValueError(
            f"path: {key!r} in {where} are not {len(pixels)} numbers from 0 to {classes - 1}"
        )
    images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), labels.astype(np.int32)
