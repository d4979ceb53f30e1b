"""MNIST's IDX files."""

from __future__ import annotations

import gzip
import math
import pathlib
import re
import struct
from collections.abc import Collection

import numpy as np

from rvis import files
from rvis.data.dataset import Dataset, choose, title
from rvis.data.pictures import BROKEN, resized

_IDX = re.compile(r"(train|t10k)-(images-idx3|labels-idx1)-ubyte(\.gz)?")
_IDX_PREFIX = {"train": "train", "test": "t10k"}


def is_idx(found: Collection[str]) -> bool:
    """Whether there is one of MNIST's files among those of a folder."""
    return any(_IDX.fullmatch(name) for name in found)


def load_idx(
    source: pathlib.Path, found: Collection[str], split: str, size: tuple[int, int] | None
) -> Dataset:
    """A split of a folder of MNIST's files."""
    there = [
        name
        for name, prefix in _IDX_PREFIX.items()
        if any(file.startswith(f"{prefix}-images") for file in found)
    ]
    prefix = _IDX_PREFIX[choose(split, there, source)]
    arrays = []
    for kind, rank in (("images-idx3", 3), ("labels-idx1", 1)):
        name = f"{prefix}-{kind}-ubyte"
        held = [file for file in (name, f"{name}.gz") if file in found]
        if not held:
            raise ValueError(f"path: {name} (or {name}.gz) is missing in {source}")
        arrays.append(_idx(source / held[0], rank))
    images, labels = arrays
    if len(images) != len(labels):
        raise ValueError(
            f"path: {source} holds {len(images)} {prefix} images but {len(labels)} labels"
        )
    classes = tuple(map(str, range(max(10, int(labels.max(initial=0)) + 1))))
    images = resized(images[..., None], str(source), size)
    return Dataset(images, labels.astype(np.int32), classes, title(source))


def _idx(file: pathlib.Path, rank: int) -> np.ndarray:
    with open(file, "rb") as begun:
        packed = begun.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(file) if packed else open(file, "rb") as opened:
            header = opened.read(4 + 4 * rank)
            if len(header) < 4 + 4 * rank or header[:4] != bytes((0, 0, 8, rank)):
                raise ValueError(
                    f"path: an IDX file of bytes with {rank} dimensions was expected, given {file} "
                    f"({header[:4].hex()})"
                )
            shape = struct.unpack(f">{rank}I", header[4:])
            files.check_unpacked(file, file.stat().st_size, math.prod(shape))
            content = opened.read(math.prod(shape) + 1)
    except BROKEN as error:
        raise ValueError(f"path: {file} is a damaged or cut short .gz ({error})") from error
    if len(content) != math.prod(shape):
        given = "more" if len(content) > math.prod(shape) else len(content)
        raise ValueError(
            f"path: {file} should have {math.prod(shape)} bytes behind its header for its shape "
            f"{shape}, given {given}"
        )
    return np.frombuffer(content, np.uint8).reshape(shape)
