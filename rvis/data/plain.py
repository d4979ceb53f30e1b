"""Pickles of plain data and arrays of integers, of which nothing is run."""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np


class _Dtype:
    """Stands in for numpy.dtype in a pickle; takes integers alone."""

    def __init__(self, name: str, *_: object) -> None:
        if not re.fullmatch(r"[<>|]?[iu][1248]", name):
            raise pickle.UnpicklingError(f"an array of {name!r} is not admitted")
        self.numpy = np.dtype(name)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.numpy = self.numpy.newbyteorder(state[1])


class _Array:
    """Stands in for NumPy's array in a pickle, whose own state can be forged to point anywhere."""

    def __init__(self, *_: object) -> None:
        self.numpy = np.empty(0, np.uint8)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, by_columns, content = state
        self._fill(content, dtype, shape, "F" if by_columns else "C")

    def _fill(self, content: str | bytes, dtype: _Dtype, shape: Any, order: Any) -> None:
        # Python 2 pickled the bytes as a str, which is read as Latin-1.
        raw = content.encode("latin1") if isinstance(content, str) else content
        self.numpy = np.frombuffer(raw, dtype.numpy).reshape(shape, order=order)


class _Buffer(_Array):
    """The same for an array of pickle protocol 5."""

    def __init__(self, content: bytes, dtype: _Dtype, shape: Any, order: Any) -> None:
        self._fill(content, dtype, shape, order)


_PLAIN = (bytes, bytearray, set, frozenset, complex)
_ADMITTED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    # NumPy 1 and 2, Python 2 and 3 have other names for the same.
    **{(f"{core}.multiarray", "_reconstruct"): _Array for core in ("numpy.core", "numpy._core")},
    **{(f"{core}.numeric", "_frombuffer"): _Buffer for core in ("numpy.core", "numpy._core")},
    **{(home, kind.__name__): kind for home in ("builtins", "__builtin__") for kind in _PLAIN},
}


class _PlainUnpickler(pickle.Unpickler):
    """An unpickler that knows arrays of integers and plain data, and nothing that could be run."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            # How protocol 2 spells bytes. A function of this call alone, so that no pickle can
            # change another's.
            return lambda text, encoding: text.encode("latin1")
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"{module}.{name} is not admitted")
        return _ADMITTED[module, name]


def unpickle(content: bytes, where: str) -> dict[str, Any]:
    """The dictionary in a pickle, with NumPy's arrays in it."""
    try:
        value = _PlainUnpickler(io.BytesIO(content), encoding="latin1").load()
    # A damaged pickle can raise anything at all.
    except Exception as error:
        raise ValueError(
            f"path: {where} is no batch of plain data, or damaged ({type(error).__name__}: "
            f"{error}); none of it was run"
        ) from error
    if not isinstance(value, dict):
        raise ValueError(f"path: {where} holds a {type(value).__name__} where a dict was expected")
    return {
        key: entry.numpy if isinstance(entry, _Array) else entry for key, entry in value.items()
    }
