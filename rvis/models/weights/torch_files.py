"""Checkpoints of PyTorch, and pickles of NumPy's arrays, read without PyTorch."""

from __future__ import annotations

import dataclasses
import io
import math
import pathlib
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import IO, Any

import ml_dtypes
import numpy as np

from rvis.data import pickles

_DTYPES: dict[str, np.dtype] = {
    name: np.dtype(kind)
    for name, kind in {
        "float64": np.float64,
        "float32": np.float32,
        "float16": np.float16,
        "bfloat16": ml_dtypes.bfloat16,
        "int64": np.int64,
        "int32": np.int32,
        "int16": np.int16,
        "int8": np.int8,
        "uint8": np.uint8,
        "bool": np.bool_,
    }.items()
}
_STORAGES = {
    "Double": "float64",
    "Float": "float32",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
}
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
"""What a file of PyTorch before 1.6 (2020) begins with, after which the pickles follow."""


@dataclasses.dataclass(frozen=True)
class _Storage:
    """The numbers of one or several tensors, somewhere in the file."""

    key: str
    dtype: np.dtype | None
    """None for bytes without a type."""
    start: int
    length: int
    whole: int
    """How many numbers the storage has of which this is a part."""


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A view of a storage, in numbers."""

    storage: _Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read(path: pathlib.Path, wrappers: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The state-dict in a PyTorch checkpoint, old or new, as NumPy's arrays of their own dtypes.

    Known are tensors, storages, dtypes, `OrderedDict` and plain data; all else is refused by its
    name. Only what the state-dict needs is read.

    Args:
      path: a file that `torch.save` wrote.
      wrappers: under which of these keys the state-dict may sit, at any depth.

    Raises:
      ValueError: saying what is wrong with the file, without naming it.
      OSError: where it cannot be read.
    """
    with open(path, "rb") as file:
        start = file.read(2)
        file.seek(0)
        if start == b"PK":
            try:
                with zipfile.ZipFile(file) as archive:
                    return _from_zip(archive, path.stat().st_size, wrappers)
            except (zipfile.BadZipFile, NotImplementedError, zlib.error, EOFError) as error:
                raise ValueError(f"a damaged or cut short zip: {error}") from error
        if start == b"\x80\x02":
            return _from_pickles(file, path.stat().st_size, wrappers)
    raise ValueError(
        "neither a zip nor a pickle of PyTorch; save its state_dict() with torch.save or as "
        ".safetensors"
    )


def _from_zip(
    archive: zipfile.ZipFile, size: int, wrappers: tuple[str, ...]
) -> dict[str, np.ndarray]:
    entries = {entry.filename: entry for entry in archive.infolist()}
    top = [name.removesuffix("data.pkl") for name in entries if name.endswith("/data.pkl")]
    if len(top) != 1:
        raise ValueError("no checkpoint of PyTorch: it has no data.pkl (TorchScript is not read)")

    def content(name: str) -> bytes:
        entry = entries.get(top[0] + name)
        if entry is None:
            raise ValueError(f"it has no {top[0]}{name}")
        # PyTorch compresses nothing; a few bytes could claim to be gigabytes.
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > size:
            raise ValueError(f"{entry.filename} is compressed, which PyTorch's files are not")
        return archive.read(entry)

    order = content("byteorder") if f"{top[0]}byteorder" in entries else b"little"

    def numbers(storage: _Storage) -> bytes:
        raw = content(f"data/{storage.key}")
        return _swapped(raw, storage) if order == b"big" else raw

    held = pickles.read(io.BytesIO(content("data.pkl")), _NAMES, _storage)
    return _arrays(_state(held, wrappers), numbers, size)


def _swapped(raw: bytes, storage: _Storage) -> bytes:
    if storage.dtype is None:
        raise ValueError("untyped storages of a big-endian machine are not read")
    return np.frombuffer(raw, storage.dtype).byteswap().tobytes()


def _from_pickles(file: IO[bytes], size: int, wrappers: tuple[str, ...]) -> dict[str, np.ndarray]:
    if pickles.read(file, {}) != _MAGIC or pickles.read(file, {}) != _PROTOCOL:
        raise ValueError(
            "a pickle that torch.save did not write; save its state_dict() with torch.save"
        )
    about = pickles.read(file, {})
    if not isinstance(about, dict) or about.get("little_endian") is not True:
        raise ValueError("it was written on a big-endian machine")
    found: dict[str, _Storage] = {}

    def persistent(given: Any) -> _Storage:
        storage = _storage(given)
        found.setdefault(storage.key, storage)
        return storage

    state = _state(pickles.read(file, _NAMES, persistent), wrappers)
    places = {}
    for key in pickles.read(file, {}):
        if key not in found:
            raise ValueError(f"it has numbers of {key!r}, which belong to no tensor")
        (count,) = struct.unpack("<q", _exactly(file, 8))
        storage = found[key]
        bytes_each = 1 if storage.dtype is None else storage.dtype.itemsize
        if count != storage.whole:
            raise ValueError(f"{storage.whole} numbers were expected of {key!r}, it has {count}")
        places[key] = (file.tell(), count * bytes_each)
        if sum(places[key]) > size:
            raise ValueError(f"it is cut short: it ends within the numbers of {key!r}")
        file.seek(count * bytes_each, io.SEEK_CUR)

    def numbers(storage: _Storage) -> bytes:
        start, length = places[storage.key]
        file.seek(start)
        return _exactly(file, length)

    return _arrays(state, numbers, size)


def _exactly(file: IO[bytes], count: int) -> bytes:
    content = file.read(count)
    if len(content) != count:
        raise ValueError("it is cut short")
    return content


def _state(held: Any, wrappers: tuple[str, ...]) -> dict[str, _Tensor]:
    """The tensors of a checkpoint by name, past what they are wrapped in."""
    seen: list[Any] = []
    while isinstance(held, Mapping) and not any(held is earlier for earlier in seen):
        seen.append(held)
        inside = (held[key] for key in wrappers if isinstance(held.get(key), Mapping))
        held = next(inside, held)
    entries = held if isinstance(held, Mapping) else {}
    state = {str(name): value for name, value in entries.items() if isinstance(value, _Tensor)}
    if not state:
        keys = f"the keys {list(map(str, entries))[:20]}" if entries else type(held).__name__
        raise ValueError(f"a state-dict of tensors was expected in it, found {keys}")
    return state


def _arrays(
    state: dict[str, _Tensor], numbers: Callable[[_Storage], bytes], size: int
) -> dict[str, np.ndarray]:
    """The tensors' numbers; none reaches outside its storage, or is larger than the whole file."""
    held: dict[str, bytes] = {}
    arrays = {}
    for name, tensor in state.items():
        storage = tensor.storage
        if storage.key not in held:
            held[storage.key] = numbers(storage)
        raw = held[storage.key]
        each = 1 if storage.dtype is None else storage.dtype.itemsize
        if len(raw) != storage.whole * each:
            raise ValueError(
                f"{storage.whole * each} bytes were expected for {name!r}, it has {len(raw)}"
            )
        part = memoryview(raw)[storage.start * each : (storage.start + storage.length) * each]
        bytes_each = tensor.dtype.itemsize
        inside = len(part) // bytes_each
        last = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True))
        count = math.prod(tensor.shape)
        if count and tensor.offset + last >= inside:
            raise ValueError(
                f"{name!r} of shape {tensor.shape} reaches outside its {inside} numbers"
            )
        if count * bytes_each > size:
            raise ValueError(f"{name!r} of shape {tensor.shape} is larger than the whole file")
        flat = np.frombuffer(part[: inside * bytes_each], tensor.dtype)[tensor.offset :]
        strides = tuple(bytes_each * step for step in tensor.strides)
        array = np.lib.stride_tricks.as_strided(
            flat, tensor.shape, strides if count else None, writeable=False
        )
        arrays[name] = np.array(array, order="C")
    return arrays


def _counts(values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple) or len(values) > 32:
        raise ValueError(f"a tuple of sizes was expected, it holds {str(values)[:100]}")
    return tuple(map(_count, values))


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**48:
        raise ValueError(f"a size was expected, it holds {str(value)[:100]}")
    return value


def _storage(given: Any) -> _Storage:
    kind, name, key, _, count, *views = given
    if kind != "storage" or not isinstance(name, pickles.Name):
        raise ValueError(f"a storage was expected, it holds {str(given)[:100]}")
    known = name.name.rsplit(".", 1)[-1].removesuffix("Storage")
    dtype = None if known == "Untyped" else _DTYPES[_STORAGES[known]]
    whole = _count(count)
    start, length = 0, whole
    if views and views[0] is not None:
        _, start, length = views[0]
        start, length = _count(start), _count(length)
        # The first of a storage's views may come before the storage is known as a whole.
        if start + length > whole:
            raise ValueError(f"a view reaches outside the {whole} numbers of {key!r}")
    return _Storage(str(key), dtype, start, length, whole)


def _tensor(given: tuple) -> _Tensor:
    storage, offset, shape, strides = given[:4]
    if not isinstance(storage, _Storage) or storage.dtype is None:
        raise ValueError("a tensor of a typed storage was expected")
    return _view(storage, storage.dtype, offset, shape, strides)


def _typed_tensor(given: tuple) -> _Tensor:
    storage, offset, shape, strides, _, _, dtype = given[:7]
    if not isinstance(storage, _Storage) or not isinstance(dtype, pickles.Name):
        raise ValueError("a tensor of a storage and a dtype was expected")
    return _view(storage, _DTYPES[dtype.name.removeprefix("torch.")], offset, shape, strides)


def _view(storage: _Storage, dtype: np.dtype, offset: Any, shape: Any, strides: Any) -> _Tensor:
    shape, strides = _counts(shape), _counts(strides)
    if len(shape) != len(strides):
        raise ValueError(f"one stride an axis was expected, it holds {shape} and {strides}")
    return _Tensor(storage, dtype, _count(offset), shape, strides)


def _parameter(given: tuple) -> _Tensor:
    if not isinstance(given[0], _Tensor):
        raise ValueError("a tensor was expected as a parameter")
    return given[0]


_NAMES: dict[str, pickles.Call | None] = {
    "collections.OrderedDict": pickles.ordered_dict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": lambda given: tuple(*given),
    **{f"torch.{kind}Storage": None for kind in _STORAGES},
    "torch.storage.UntypedStorage": None,
    **{f"torch.{dtype}": None for dtype in _DTYPES},
}


def read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays in a pickle of nested dictionaries, under their keys joined by "/".

    Args:
      path: a file that `pickle.dump` wrote of NumPy's arrays.

    Raises:
      ValueError: saying what is wrong with the file, without naming it.
      OSError: where it cannot be read.
    """
    with open(path, "rb") as file:
        held = pickles.read(file, pickles.ARRAYS)
    arrays: dict[str, np.ndarray] = {}
    waiting, seen = [("", held)], set()
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, pickles.ArrayInPickle):
            arrays[name] = value.array
        elif isinstance(value, Mapping) and id(value) not in seen:
            seen.add(id(value))
            waiting += [(f"{name}/{key}".lstrip("/"), inner) for key, inner in value.items()]
        else:
            raise ValueError(f"arrays in dictionaries were expected, it holds {name!r} beside them")
    return arrays
