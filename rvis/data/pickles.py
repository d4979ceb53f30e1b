"""Pickles of plain data, arrays and tensors, read without unpickling: nothing in them is called."""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from typing import IO, Any, Protocol

import numpy as np

Call = Callable[[tuple], Any]
"""What a known function or class makes of the arguments that a pickle calls it with."""


class Built(Protocol):
    """What a known call gives, where the pickle sets its state afterwards."""

    def build(self, state: Any) -> None:
        """Takes the state."""


class Name:
    """A name in a pickle, such as `torch.FloatStorage`, that stands for itself."""

    def __init__(self, name: str, call: Call | None):
        self.name, self.call = name, call


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = frozenset(
    "INT LONG LONG1 LONG4 BININT BININT1 BININT2 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING "
    "UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 "
    "BYTEARRAY8".split()
)
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


def read(
    file: IO[bytes],
    names: Mapping[str, Call | None],
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """What the pickle at a file's position holds; the position is past its end then.

    A pickle is a program that puts values on a stack. Here numbers, strings, lists, tuples, sets
    and dictionaries are put there as they are. A name that is not among `names` ends the reading.

    Args:
      file: opened for bytes.
      names: what is known: {"module.name": a function of the tuple of arguments; None where the
        name may only stand for itself, as a `Name`}.
      persistent: what stands for an object outside the pickle, given its id.

    Raises:
      ValueError: where it is damaged, or naming what is not known.

    Example:
      >>> import collections, io, pickle
      >>> from rvis.data import pickles
      >>> pickles.read(io.BytesIO(pickle.dumps({"a": [1, 2.5]})), {})
      {'a': [1, 2.5]}
      >>> data = pickle.dumps(collections.Counter("aab"))
      >>> pickles.read(io.BytesIO(data), {})
      Traceback (most recent call last):
      ValueError: it holds collections.Counter, which is not plain data
    """
    try:
        return _Reader(names, persistent).read(file)
    except (
        IndexError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
        OverflowError,
    ) as error:
        raise ValueError(f"a pickle that does not hold together ({error!r})") from error


class _Reader:
    def __init__(self, names: Mapping[str, Call | None], persistent: Callable[[Any], Any] | None):
        self.names, self.persistent = names, persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def read(self, file: IO[bytes]) -> Any:
        for opcode, arg, _ in pickletools.genops(file):
            kind = opcode.name
            if kind in _VALUES:
                self.stack.append(arg)
            elif kind in _CONSTANTS:
                self.stack.append(_CONSTANTS[kind])
            elif kind in _TUPLES:
                self.stack.append(tuple(self._last(_TUPLES[kind])))
            elif kind in _STEPS:
                _STEPS[kind](self, arg)
            elif kind not in ("PROTO", "FRAME", "STOP"):
                raise ValueError(f"it holds the instruction {kind}, which no plain data needs")
        (value,) = self.stack
        return value

    def _last(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise ValueError("a pickle that takes more than it has put down")
        values = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return values

    def _marked(self) -> list[Any]:
        start = next(i for i in range(len(self.stack) - 1, -1, -1) if self.stack[i] is _MARK)
        values = self.stack[start + 1 :]
        del self.stack[start:]
        return values

    def _global(self, name: str) -> None:
        if name not in self.names:
            raise ValueError(f"it holds {name}, which is not plain data")
        self.stack.append(Name(name, self.names[name]))

    def _stack_global(self, _: Any) -> None:
        module, name = self._last(2)
        self._global(f"{module}.{name}")

    def _call(self, _: Any) -> None:
        function, arguments = self._last(2)
        if not isinstance(function, Name) or function.call is None:
            shown = function.name if isinstance(function, Name) else type(function).__name__
            raise ValueError(f"it calls {shown}, which is no function of plain data")
        self.stack.append(function.call(arguments))

    def _build(self, _: Any) -> None:
        (state,) = self._last(1)
        build = getattr(type(self.stack[-1]), "build", None)
        if build is not None:
            build(self.stack[-1], state)
        # What PyTorch hangs on a state-dict tells versions of its layers.
        elif not isinstance(self.stack[-1], dict):
            raise ValueError(f"it sets the state of a {type(self.stack[-1]).__name__}")

    def _set_items(self, pairs: list[Any]) -> None:
        held = self.stack[-1]
        if not isinstance(held, dict):
            raise ValueError(f"it sets items of a {type(held).__name__}")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            held[_hashable(key)] = value

    def _extend(self, values: list[Any]) -> None:
        held = self.stack[-1]
        if not isinstance(held, list):
            raise ValueError(f"it appends to a {type(held).__name__}")
        held.extend(values)

    def _dict(self, _: Any) -> None:
        pairs = self._marked()
        self.stack.append({})
        self._set_items(pairs)

    def _add_items(self, _: Any) -> None:
        values = self._marked()
        self.stack[-1].update(map(_hashable, values))

    def _persistent(self, _: Any) -> None:
        if self.persistent is None:
            raise ValueError("it leads to something outside the pickle")
        self.stack.append(self.persistent(self.stack.pop()))


def _hashable(key: Any) -> Any:
    # The hash of tuples within tuples can take for ever.
    if not isinstance(key, (str, int, float, bytes, type(None))):
        raise ValueError(f"it has a {type(key).__name__} as a key")
    return key


_STEPS: dict[str, Callable[[_Reader, Any], Any]] = {
    "MARK": lambda it, _: it.stack.append(_MARK),
    "POP": lambda it, _: it.stack.pop(),
    "POP_MARK": lambda it, _: it._marked(),
    "DUP": lambda it, _: it.stack.append(it.stack[-1]),
    "EMPTY_LIST": lambda it, _: it.stack.append([]),
    "EMPTY_TUPLE": lambda it, _: it.stack.append(()),
    "EMPTY_DICT": lambda it, _: it.stack.append({}),
    "EMPTY_SET": lambda it, _: it.stack.append(set()),
    "LIST": lambda it, _: it.stack.append(it._marked()),
    "TUPLE": lambda it, _: it.stack.append(tuple(it._marked())),
    "FROZENSET": lambda it, _: it.stack.append(frozenset(map(_hashable, it._marked()))),
    "DICT": _Reader._dict,
    "APPEND": lambda it, _: it._extend(it._last(1)),
    "APPENDS": lambda it, _: it._extend(it._marked()),
    "SETITEM": lambda it, _: it._set_items(it._last(2)),
    "SETITEMS": lambda it, _: it._set_items(it._marked()),
    "ADDITEMS": _Reader._add_items,
    **dict.fromkeys(
        ("PUT", "BINPUT", "LONG_BINPUT"), lambda it, at: it.memo.update({at: it.stack[-1]})
    ),
    "MEMOIZE": lambda it, _: it.memo.update({len(it.memo): it.stack[-1]}),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda it, at: it.stack.append(it.memo[at])),
    "GLOBAL": lambda it, name: it._global(name.replace(" ", ".", 1)),
    "STACK_GLOBAL": _Reader._stack_global,
    "REDUCE": _Reader._call,
    "BUILD": _Reader._build,
    "BINPERSID": _Reader._persistent,
}


def ordered_dict(given: tuple) -> dict[Any, Any]:
    """What `OrderedDict()` and `OrderedDict([(key, value), …])` stand for."""
    return {_hashable(key): value for key, value in (given[0] if given else ())}


class _Dtype:
    """NumPy's dtype in a pickle: of numbers, not of objects."""

    def __init__(self, name: Any):
        self.dtype = np.dtype(str(name))
        if self.dtype.kind not in "biuf" or self.dtype.itemsize > 8:
            raise ValueError(f"it holds an array of {name!r}, where real numbers were expected")

    def build(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder(">" if state[1] == ">" else "<")


class ArrayInPickle:
    """NumPy's array in a pickle, whose own state could be forged to point anywhere.

    Attributes:
      array: the numbers.
    """

    def __init__(self) -> None:
        self.array = np.empty(0, np.uint8)

    def build(self, state: tuple) -> None:
        """Takes (version, shape, dtype, whether columns come first, bytes)."""
        _, shape, dtype, by_columns, content = state
        self.fill(content, dtype, shape, "F" if by_columns else "C")

    def fill(self, content: Any, dtype: _Dtype, shape: Any, order: str) -> ArrayInPickle:
        """Takes the bytes and what they are."""
        # Python 2 pickled bytes as a str, which is read as Latin-1.
        raw = content.encode("latin1") if isinstance(content, str) else bytes(content)
        order = "F" if order == "F" else "C"
        self.array = np.frombuffer(raw, dtype.dtype).reshape(shape, order=order)  # type: ignore[call-overload]
        return self


ARRAYS: dict[str, Call | None] = {
    "numpy.ndarray": None,
    "numpy.dtype": lambda given: _Dtype(given[0]),
    # NumPy 1 and 2 have other names for the same.
    **{
        f"numpy.{core}.multiarray._reconstruct": lambda _: ArrayInPickle()
        for core in ("core", "_core")
    },
    **{
        f"numpy.{core}.numeric._frombuffer": lambda given: ArrayInPickle().fill(*given)
        for core in ("core", "_core")
    },
    # How pickle protocol 2 spells bytes.
    "_codecs.encode": lambda given: given[0].encode("latin1"),
}
"""The names of NumPy's arrays; each comes as an `ArrayInPickle`."""
