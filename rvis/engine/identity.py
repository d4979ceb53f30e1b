"""What a piece of work is, written out: values, structure, and the code of the functions in it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import re
import types
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def fingerprint(*parts: Any) -> str:
    """A short digest of all that the parts hold: the same in another process, other for other work.

    Functions count by their code, their defaults and what they close over, not by their names.

    Example:
      >>> from rvis.engine.identity import fingerprint
      >>> fingerprint({"a": 1.0}) == fingerprint({"a": 1.0}) != fingerprint({"a": 2.0})
      True
      >>> fingerprint(lambda x: x + 1) == fingerprint(lambda x: x + 2)
      False
    """
    digest = hashlib.sha256()
    for chunk in _written(parts, ()):
        digest.update(chunk)
    return digest.hexdigest()[:16]


def _written(value: Any, within: tuple[int, ...]) -> Iterator[bytes]:
    """The bytes that stand for a value; `within` are the values that it is inside of."""
    if id(value) in within:
        yield b"again"
        return
    inner = (*within, id(value))
    yield f"{type(value).__module__}.{type(value).__qualname__}(".encode()
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        is_key = jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
        array = np.asarray(jax.random.key_data(jnp.asarray(value)) if is_key else value)
        yield f"{array.dtype}{array.shape}".encode()
        yield np.ascontiguousarray(array).tobytes()
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _written(key, inner)
            yield from _written(item, inner)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _written(item, inner)
    elif isinstance(value, functools.partial):
        yield from _written((value.func, value.args, value.keywords), inner)
    elif isinstance(value, types.MethodType):
        yield from _written((value.__func__, value.__self__), inner)
    elif isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        yield from _written(
            (value.__code__, value.__defaults__, value.__kwdefaults__, cells), inner
        )
    elif isinstance(value, types.CodeType):
        yield value.co_code
        yield from _written((value.co_names, value.co_consts), inner)
    elif hasattr(value, "__wrapped__"):  # such as a function under jit
        yield from _written(value.__wrapped__, inner)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _written(getattr(value, field.name, None), inner)
    else:
        # Without the addresses of objects, which another process does not share.
        yield re.sub(r" at 0x[0-9a-f]+", "", repr(value)).encode()
    yield b")"
