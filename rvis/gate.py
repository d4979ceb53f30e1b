"""What the arguments of public functions are, said once: a name means the same in all of them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import numpy as np

from rvis import checks, files
from rvis.types import as_key, check_model

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _marks(argument: str, value: Any) -> None:
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"{argument}: a list of numbers of steps was expected, given {value!r}")
    for mark in value if isinstance(value, (list, tuple, range, np.ndarray)) else ():
        checks.count(argument, mark, low=0)


def _functions(argument: str, value: Any) -> None:
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"{argument}: a list of them was expected, given {value!r}")
    for each in value if isinstance(value, (list, tuple)) else ():
        if each is None or isinstance(each, (str, bytes, int, float, np.ndarray)):
            raise TypeError(f"{argument}: a list of them was expected, given {each!r} in it")


def _dataset(argument: str, value: Any) -> None:
    from rvis.data import Dataset  # Pillow is slow to import

    if not isinstance(value, Dataset):
        raise TypeError(f"{argument}: an rvis.data.Dataset was expected, given {value!r}")


def _real(argument: str, value: Any) -> None:
    if np.iscomplexobj(checks.array(argument, value)):
        raise TypeError(f"{argument}: real numbers were expected, given complex ones")


def _layers(argument: str, value: Any) -> None:
    names = value if isinstance(value, (list, tuple, set, frozenset, Mapping)) else [value]
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"{argument}: names of layers were expected, given {value!r}")


def _folder(argument: str, value: Any) -> None:
    path = files.as_path(argument, value)
    above = next((each for each in (path, *path.parents) if each.exists()), None)
    if above is not None and not above.is_dir():
        raise NotADirectoryError(f"{argument}: a folder was expected, given {value!r}")


def _clip(argument: str, value: Any) -> None:
    for each in value if isinstance(value, (list, tuple)) else [value]:
        if type(each).__name__ != "CLIP":
            raise TypeError(
                f"{argument}: an rvis.clip.CLIP was expected, given {each!r}; rvis.clip.load(NAME) "
                "has those that are shipped"
            )


def _texts(argument: str, value: Any) -> None:
    for each in [value] if isinstance(value, str) or not isinstance(value, Iterable) else value:
        checks.text(argument, each)


def _key(argument: str, value: Any) -> None:
    del argument  # it is always called so
    as_key(value)


_OF: Mapping[Callable[[str, Any], Any], str] = {
    lambda argument, value: check_model(value, argument): "model other",
    checks.flag: "progress histogram flip many rescale_schedule quantize",
    checks.count: "steps samples chunk restarts generations batch_size frames "
    "draws binary_search_steps candidates octaves region directions k",
    _key: "key",
    checks.function: "callback",
    _folder: "checkpoint out folder",
    _marks: "snapshots",
    _functions: "transforms regularizers post_step",
    _dataset: "dataset test",
    _real: "maps mask points values activations vector first second hits",
    _layers: "layer layers content_layers style_layers",
    _clip: "clip",
    _texts: "texts",
}
KINDS: Mapping[str, Callable[[str, Any], Any]] = {
    name: check for check, names in _OF.items() for name in names.split()
}
"""{name of an argument: `check(name, value)`, which raises for what it cannot be}."""


def public(function: _Function) -> _Function:
    """`function`, whose arguments are checked by their names before anything else happens.

    None passes where it is the default, or where a function passes the argument on.

    Example:
      >>> from rvis import gate
      >>> @gate.public
      ... def draw(model, *, steps=4):
      ...     return steps
      >>> draw(steps=0)
      Traceback (most recent call last):
      ValueError: steps: at least 1 was expected, given 0
    """
    signature = inspect.signature(function)
    required = {name for name, p in signature.parameters.items() if p.default is not None}

    @functools.wraps(function)
    def checked(*arguments: Any, **keywords: Any) -> Any:
        # What is missing or surplus the function itself says.
        given = dict(zip(signature.parameters, arguments, strict=False)) | keywords
        for name, value in given.items():
            if name in KINDS and (value is not None or name in required):
                KINDS[name](name, value)
        return function(*arguments, **keywords)

    return checked  # type: ignore[return-value]
