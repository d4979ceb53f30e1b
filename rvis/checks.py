"""Refusals before anything compiles: the argument, what was given, what would be right.

Each function raises TypeError for a value of another kind and ValueError for one out of range, with
a message that begins with the caller's name for it, `argument`.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

LARGEST = 2**31
"""What counts and numbers of units stay below: they are int32 in a compiled program."""


def choice(argument: str, given: Any, options: Iterable[str]) -> str:
    """`given` if it is one of `options`."""
    names = list(options)
    if isinstance(given, str) and given in names:
        return given
    near = difflib.get_close_matches(str(given), names, n=5, cutoff=0.5)
    if not near:
        lowered = {name.lower(): name for name in names}
        near = [lowered[n] for n in difflib.get_close_matches(str(given).lower(), lowered, n=5)]
    if near:
        hint = f"did you mean {' or '.join(map(repr, near))}?"
    else:
        shown = ", ".join(map(repr, names[:40])) + (", …" if len(names) > 40 else "")
        hint = f"it can be one of {shown}"
    raise ValueError(f"{argument}: unknown {given!r}; {hint}")


@functools.cache
def _home() -> int:
    return os.getpid()


def process() -> None:
    """Refuses a fork of a process in which JAX ran: JAX's threads stayed behind, and it would hang.

    Raises:
      RuntimeError: naming the remedy.
    """
    if os.getpid() != _home():
        raise RuntimeError(
            f"process: {os.getpid()} was forked from {_home()}, in which JAX had run, and would "
            "hang; start it by multiprocessing.get_context('spawn'), or fork before the first model"
        )


def package(name: str, extra: str, what: str) -> Any:
    """An optional package, imported now.

    Args:
      name: of the module.
      extra: the extra of rvis that installs it.
      what: what it is needed for.

    Raises:
      ImportError: naming the extra, where the package is not installed.

    Example:
      >>> from rvis import checks
      >>> checks.package("no_such_package", "plot", "a plot")
      Traceback (most recent call last):
      ImportError: a plot needs no_such_package: pip install "rvis[plot]"
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        top = name.partition(".")[0]
        raise ImportError(f'{what} needs {top}: pip install "rvis[{extra}]"') from error


def array(argument: str, value: Any) -> Any:
    """`value` as a NumPy array of numbers; a JAX array, traced or not, as it is."""
    if isinstance(value, jax.Array) and not jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return value
    try:
        result = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{argument}: an array was expected, given {type(value).__name__} ({error})"
        ) from error
    if not (jnp.issubdtype(result.dtype, np.number) or result.dtype == bool):
        raise TypeError(f"{argument}: an array of numbers was expected, given {value!r}")
    return result


def finite(argument: str, value: Any) -> None:
    """Refuses NaN and infinity, on the host; a traced array has no values to look at.

    XLA:CPU drops NaN in `min` and `max` of more than some thousand elements.
    """
    if not isinstance(value, jax.core.Tracer) and not np.isfinite(jax.device_get(value)).all():
        raise ValueError(f"{argument}: finite numbers were expected, given NaN or infinity")


def images(
    argument: str,
    value: Any,
    *,
    channels: int | None = None,
    shape: tuple[int, int, int] | None = None,
) -> jax.Array:
    """A batch (n, H, W, C) of float32 images in [0, 1] from a batch or a single image.

    Args:
      argument: the caller's name for it.
      value: (n, H, W, C) or (H, W, C), floating point in [0, 1].
      channels: how many channels it must have, where that is known.
      shape: (H, W, C) it must have, where that is known.
    """
    process()
    batch = array(argument, value)
    if batch.dtype == np.uint8:
        raise TypeError(f"{argument}: float32 in [0, 1] was expected, given uint8; divide by 255")
    if not jnp.issubdtype(batch.dtype, jnp.floating):
        raise TypeError(f"{argument}: float32 in [0, 1] was expected, given dtype {batch.dtype}")
    given = batch.shape
    if batch.ndim not in (3, 4) or 0 in given:
        raise ValueError(f"{argument}: (n, H, W, C) or (H, W, C) was expected, given shape {given}")
    if channels is not None and given[-1] != channels:
        raise ValueError(f"{argument}: {channels} channels last were expected, given shape {given}")
    if shape is not None and given[-3:] != tuple(shape):
        raise ValueError(f"{argument}: {tuple(shape)} an image was expected, given {given[-3:]}")
    if not isinstance(batch, jax.core.Tracer):
        # On the host: inside somebody's `jit` a comparison of JAX arrays would be traced.
        held = jax.device_get(batch)
        if not np.isfinite(held).all():
            raise ValueError(f"{argument}: values in [0, 1] were expected, given NaN or infinity")
        low, high = float(held.min()), float(held.max())
        if low < -1e-6 or high > 1 + 1e-6:
            hint = "; divide by 255" if high > 2 and low >= 0 and high <= 255 else ""
            raise ValueError(
                f"{argument}: values in [0, 1] were expected, given [{low:.4g}, {high:.4g}]{hint}"
            )
    if batch.ndim == 3:
        batch = batch[None]
    if isinstance(batch, np.ndarray):  # `jnp.asarray` would compile a program for every shape
        return jax.device_put(np.array(batch, np.float32))
    return jnp.asarray(batch, jnp.float32)


def integers(
    argument: str, value: Any, *, low: int = 0, high: int = LARGEST, what: str = ""
) -> np.ndarray:
    """`value` as int32, every entry of which lies in [low, high)."""
    try:
        numbers = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{argument}: integers were expected, given {value!r}") from error
    huge = numbers.dtype == object and all(type(number) is int for number in numbers.flat)
    if not huge and (numbers.dtype == bool or not np.issubdtype(numbers.dtype, np.integer)):
        raise TypeError(f"{argument}: integers were expected, given {value!r}")
    high = min(high, LARGEST)
    wrong = numbers[(numbers < low) | (numbers >= high)]
    if wrong.size:
        where = f" of {what}" if what else ""
        raise ValueError(
            f"{argument}: {low} to {high - 1}{where} were expected, given {int(wrong.flat[0])}"
        )
    return numbers.astype(np.int32)


def classes(argument: str, value: Any, names: Sequence[str], *, count: int) -> np.ndarray:
    """Numbers of classes, int32, from a number, a name, or a list of either.

    `names` are those of the `count` classes, perhaps none; ImageNet's have WordNet ids as well.

    Example:
      >>> from rvis import checks
      >>> checks.classes("labels", ["bee", 0], ("ant", "bee"), count=2).tolist()
      [1, 0]
    """

    def wrong() -> TypeError:
        return TypeError(
            f"{argument}: a class number or name, or a list of them, was expected, given {value!r}"
        )

    def number(entry: Any) -> Any:
        if isinstance(entry, (bool, np.bool_)) or not isinstance(entry, (str, int, np.integer)):
            raise wrong()
        if not isinstance(entry, str):
            return entry
        if not names:
            raise ValueError(
                f"{argument}: a class number was expected of a model whose classes have no names, "
                f"given {entry!r}"
            )
        if len(names) == 1000 and re.fullmatch(r"n\d{8}", entry):
            from rvis.data import imagenet  # which is above this room

            if tuple(names) == imagenet.classes():
                return imagenet.index(entry)
        choice(argument, entry, names)
        places = [i for i, name in enumerate(names) if name == entry]
        if len(places) > 1:
            raise ValueError(
                f"{argument}: {entry!r} is ambiguous, the name of classes "
                f"{' and '.join(map(str, places))}; give the number"
            )
        return places[0]

    given = value
    if not hasattr(value, "dtype") or value.dtype.kind in "UO":
        held = np.asarray(value, object)
        # A list of nothing is of integers too.
        entries = [number(entry) for entry in held.ravel().tolist()]
        given = np.asarray(entries or np.zeros(0, int)).reshape(held.shape)
    elif not np.issubdtype(value.dtype, np.integer):
        raise wrong()
    return integers(argument, given, high=count, what="the logits")


def number(
    argument: str,
    value: Any,
    *,
    low: float = -np.inf,
    high: float = np.inf,
    above: float | None = None,
) -> float:
    """`value` as a finite float in [low, high] (and > `above`)."""
    try:
        if isinstance(value, (bool, np.bool_, str, bytes)) or value is None or np.ndim(value):
            raise TypeError
        result = float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{argument}: a number was expected, given {value!r}") from error
    except OverflowError:
        result = np.inf
    if not low <= result <= high or (above is not None and not result > above):
        bound = f"above {above:g}" if above is not None else f"in [{low:g}, {high:g}]"
        raise ValueError(f"{argument}: a number {bound} was expected, given {value!r}")
    if np.isinf(result):
        raise ValueError(f"{argument}: a finite number was expected, given {value!r}")
    return result


def count(argument: str, value: Any, *, low: int = 1) -> int:
    """`value` as an int of at least `low`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{argument}: an int was expected, given {value!r}")
    if value < low:
        raise ValueError(f"{argument}: at least {low} was expected, given {value}")
    if value >= LARGEST:
        raise ValueError(f"{argument}: less than 2^31 was expected, given {value}")
    return int(value)


def text(argument: str, value: Any) -> str:
    """`value`, if it is a str that can be written to a file."""
    if not isinstance(value, str):
        raise TypeError(f"{argument}: a str was expected, given {value!r}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{argument}: text was expected, given {value!r} ({error})") from error
    return value


def flag(argument: str, value: Any) -> bool:
    """`value`, if it is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{argument}: True or False was expected, given {value!r}")
    return value


def all_finite(tree: Any) -> bool:
    """Whether all numbers of a pytree are finite, on the host: XLA on a CPU may lose a NaN."""
    return all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(tree))


def function(argument: str, value: Any) -> Any:
    """`value` if it is None or can be called."""
    if value is not None and not callable(value):
        raise TypeError(f"{argument}: a function was expected, given {value!r}")
    return value


def size(argument: str, value: Any) -> tuple[int, int]:
    """`value` as (height, width) of at least one pixel; one number stands for a square."""
    pair = (value, value) if isinstance(value, (int, np.integer)) else value
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise ValueError(f"{argument}: (height, width) or one number was expected, given {value!r}")
    return count(argument, pair[0]), count(argument, pair[1])


def one_or_each(argument: str, given: int, count: int, what: str = "images") -> None:
    """Raises ValueError unless there is one of something, or one for each of `count`."""
    if given not in (1, count):
        raise ValueError(
            f"{argument}: one, or one for each of {count} {what}, was expected, given {given}"
        )
