"""What the arguments of public functions are, said once: a name means the same in all of them."""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np

from rvis import checks, files
from rvis.types import as_key, check_model

_Function = TypeVar("_Function", bound=Callable[..., Any])
_Check = Callable[[str, Any], Any]


def _listed(argument: str, value: Any, what: str) -> Iterable[Any]:
    """The entries, where they can be looked at without using them up."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"{argument}: a list of {what} was expected, given {value!r}")
    return value if isinstance(value, (list, tuple, range, np.ndarray)) else ()


def _marks(argument: str, value: Any) -> None:
    for mark in _listed(argument, value, "numbers of steps"):
        checks.count(argument, mark, low=0)


def _names(argument: str, value: Any) -> None:
    for each in _listed(argument, value, "names"):
        checks.text(argument, each)


def _models(argument: str, value: Any) -> None:
    for each in _listed(argument, value, "models"):
        check_model(each, argument)


def _functions(argument: str, value: Any) -> None:
    for each in _listed(argument, value, "them"):
        if each is None or isinstance(each, (str, bytes, int, float, np.ndarray)):
            raise TypeError(f"{argument}: a list of them was expected, given {each!r} in it")


def _array(argument: str, value: Any) -> None:
    if not type(value).__module__.startswith("rvis."):  # such as a question that was asked before
        checks.array(argument, value)


def _real(argument: str, value: Any) -> None:
    """Numbers that are finite as float32, in which everything is computed."""
    given = checks.array(argument, value)
    if np.iscomplexobj(given):
        raise TypeError(f"{argument}: real numbers were expected, given complex ones")
    if 0 in given.shape:
        raise ValueError(f"{argument}: some numbers were expected, given shape {given.shape}")
    if not isinstance(given, jax.core.Tracer):
        with np.errstate(over="ignore"):
            checks.finite(argument, np.asarray(jax.device_get(given), np.float32))


def _numbers(argument: str, value: Any) -> None:
    """Real numbers, one or many; what range they may have the function says."""
    if isinstance(value, jax.core.Tracer):
        return
    if isinstance(value, (str, bytes)):
        raise TypeError(f"{argument}: a number was expected, given {value!r}")
    given = np.asarray(jax.device_get(checks.array(argument, value)))
    if given.dtype == bool or np.iscomplexobj(given):
        raise TypeError(f"{argument}: a real number was expected, given {value!r}")
    if np.isnan(given).any():
        raise ValueError(f"{argument}: a number was expected, given {value!r}")


def _number(argument: str, value: Any) -> None:
    if np.ndim(value):
        raise TypeError(f"{argument}: one number was expected, given {value!r}")
    _numbers(argument, value)


def _of(kind: Any, what: str) -> _Check:
    def check(argument: str, value: Any) -> None:
        if not isinstance(value, kind):
            raise TypeError(f"{argument}: {what} was expected, given {value!r}")

    return check


_callable = _of(Callable, "a function")


def _layers(argument: str, value: Any) -> None:
    names = value if isinstance(value, (list, tuple, set, frozenset, Mapping)) else [value]
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"{argument}: names of layers were expected, given {value!r}")


def _folder(argument: str, value: Any) -> None:
    path = files.as_path(argument, value)
    above = next((each for each in (path, *path.parents) if each.exists()), None)
    if above is not None and not above.is_dir():
        raise NotADirectoryError(f"{argument}: a folder was expected, given {value!r}")
    # By the rights that count when it is written.
    rights = {"effective_ids": True} if os.access in os.supports_effective_ids else {}
    if not os.access(above or ".", os.W_OK, **rights):
        raise PermissionError(
            f"{argument}: a folder that can be written was expected, given {value!r}"
        )
    if argument == "checkpoint" and (path / files.LOCK).exists():
        files.Lock(path).close()


def _clip(argument: str, value: Any) -> None:
    for each in value if isinstance(value, (list, tuple)) else [value]:
        if type(each).__name__ != "CLIP":
            raise TypeError(
                f"{argument}: an rvis.clip.CLIP was expected, given {each!r}; rvis.clip.load(NAME) "
                "has those that are shipped"
            )


def _optimizer(argument: str, value: Any) -> None:
    if not any(kind.__name__ == "Optimizer" for kind in type(value).__mro__):
        raise TypeError(
            f"{argument}: one of rvis.optimizers was expected, such as adam(0.05) or "
            f"from_optax(optax.lion, 0.01), given {value!r}"
        )


def _texts(argument: str, value: Any) -> None:
    for each in [value] if isinstance(value, str) or not isinstance(value, Iterable) else value:
        checks.text(argument, each)


_NAMED: Mapping[_Check, str] = {
    lambda argument, value: check_model(value, argument): "model other",
    checks.flag: "progress",
    checks.count: "steps samples chunk restarts generations batch_size frames "
    "draws binary_search_steps candidates octaves region directions k facets tile",
    lambda argument, value: as_key(value): "key",
    checks.function: "callback",
    _callable: "attribute encode_image encode_text of draw",
    _folder: "checkpoint out folder",
    files.as_path: "path store",
    _marks: "snapshots",
    _functions: "transforms regularizers post_step",
    _real: "maps mask masks points data reference values activations vector tensor features "
    "layout first second hits found signed "
    "references pictures",
    _numbers: "eps step_size learning_rate ratio cosine_power epsilons",
    _layers: "layer layers content_layers style_layers",
    _models: "models",
    _optimizer: "optimizer",
    _clip: "clip clips",
    _texts: "texts templates negative",
    _names: "names words classes primitives",
    functools.partial(_listed, what="them"): "shares scales titles row_titles merges",
    _of(Mapping, "a mapping"): "variables about vocabulary",
}
KINDS: Mapping[str, _Check] = {
    name: check for check, names in _NAMED.items() for name in names.split()
}
"""{name of an argument: `check(name, value)`, which raises for what it cannot be}."""
TYPES: Mapping[str, _Check] = {
    "bool": checks.flag,
    "float": _number,
    "int": functools.partial(checks.count, low=0),
    "str": checks.text,
    "ArrayLike": _array,
    "Callable": _callable,
    "np.ndarray": checks.array,
}
"""{what an argument is annotated with, perhaps beside None: its check}."""


_STRICTER = {
    "int": (checks.count,),
    "Callable": (checks.function,),
    **dict.fromkeys(("ArrayLike", "np.ndarray"), (_real, _numbers)),
}


def kinds(function: Callable[..., Any]) -> dict[str, _Check]:
    """{argument: its check} of a function, and of the options it shares with others.

    What it is annotated with decides, where that says all: a type of `TYPES`, or a class of ours.
    Otherwise the name does, and where it says more.
    """
    found: dict[str, _Check] = {}
    known = dict(vars(sys.modules[_options(function).__module__]))
    known |= inspect.unwrap(function).__globals__
    for name, said in said_of(function).items():
        plain = said.removesuffix(" | None")
        plain = "Callable" if plain.startswith("Callable[") else plain
        named = KINDS.get(name)
        if name == "model" and said != "Model":  # such as a game
            continue
        frames = named is checks.count and plain not in ("int", "_empty")  # such as those of a film
        if frames or (named is _names and said == "Any"):  # such as classes by number or name
            continue
        if plain in TYPES and named not in _STRICTER.get(plain, ()):
            found[name] = TYPES[plain]
        elif _is_class(known.get(plain)) and name not in ("model", "other", "clip", "optimizer"):
            kind = known[plain]
            found[name] = _of(kind, f"{kind.__module__}.{kind.__qualname__}")
        elif named is not None:
            found[name] = named
    return found


def _is_class(thing: Any) -> bool:
    ours = isinstance(thing, type) and thing.__module__.startswith("rvis.")
    return ours and not getattr(thing, "_is_protocol", False)


def said_of(function: Callable[..., Any]) -> dict[str, str]:
    """{argument: what it is annotated with}, those of options that it shares with others too."""
    found: dict[str, str] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        given = parameter.annotation
        said = given.__name__ if isinstance(given, type) else str(given)
        if said.startswith("Unpack["):
            shared = _options(function).__annotations__.items()
            found |= {word: getattr(each, "__forward_arg__", str(each)) for word, each in shared}
        else:
            found[name] = said
    return found


def _options(function: Callable[..., Any]) -> Any:
    """The TypedDict of the options that a function shares with others; itself where it has none."""
    for parameter in inspect.signature(function).parameters.values():
        said = str(parameter.annotation)
        if said.startswith("Unpack["):
            return inspect.unwrap(function).__globals__[said[len("Unpack[") : -1]]
    return function


def public(function: _Function) -> _Function:
    """`function`, whose arguments are checked by type and name before anything else happens.

    Options that are no public ones are refused, though what the function calls might take them.
    None passes where it is the default or among the types, or where it is passed on. A result's
    `config` says how many programs the call compiled, and how many seconds that took.

    Example:
      >>> from rvis import gate
      >>> @gate.public
      ... def draw(model, *, steps=4):
      ...     return steps
      >>> draw(steps=0)
      Traceback (most recent call last):
      ValueError: steps: at least 1 was expected, given 0
    """
    parameters, checked_by = inspect.signature(function).parameters, kinds(function)
    said_by, shares = said_of(function), _options(function) is not function
    needed = {
        name
        for name, said in said_by.items()
        if "None" not in said and (name not in parameters or parameters[name].default is not None)
    }

    @functools.wraps(function)
    def checked(*arguments: Any, **keywords: Any) -> Any:
        # What is missing the function itself says, and what is surplus where it shares no options.
        surplus = [name for name in keywords if shares and name not in said_by]
        if surplus:
            title = function.__name__
            raise TypeError(f"{title}() got an unexpected keyword argument {surplus[0]!r}")
        given = dict(zip(parameters, arguments, strict=False)) | keywords
        for name, value in given.items():
            if name in checked_by and (value is not None or name in needed):
                checked_by[name](name, value)
        from rvis import engine  # which is above this room

        before = engine.compiled()
        result = function(*arguments, **keywords)
        if isinstance(config := getattr(result, "config", None), dict):
            config["compiled"] = engine.compiled(before)._asdict()
        return result

    return checked  # type: ignore[return-value]
