"""Refusals before anything compiles: the argument, what was given, what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def choice(argument: str, given: Any, options: Iterable[str]) -> str:
    """`given` if it is one of `options`.

    Raises:
      ValueError: naming the argument, what was given and the nearest options.
    """
    names = list(options)
    if given in names:
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


def images(
    argument: str,
    value: Any,
    *,
    channels: int | None = None,
    shape: tuple[int, int, int] | None = None,
) -> jax.Array:
    """A batch (n, H, W, C) of float32 images in [0, 1] from a batch or a single image.

    Args:
      argument: the caller's name for it, to be named in errors.
      value: (n, H, W, C) or (H, W, C), floating point in [0, 1].
      channels: how many channels it must have, where that is known.
      shape: (H, W, C) it must have, where that is known.

    Raises:
      TypeError: for anything but a floating-point array (divide uint8 images by 255).
      ValueError: for a wrong rank, size or channel count, NaN, or values outside [0, 1] (a traced
        array has no values to look at).
    """
    try:
        array = value if isinstance(value, jax.Array) else np.asarray(value)
    except ValueError as error:
        raise TypeError(
            f"{argument}: an array was expected, given {type(value).__name__}"
        ) from error
    if array.dtype == np.uint8:
        raise TypeError(f"{argument}: float32 in [0, 1] was expected, given uint8; divide by 255")
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{argument}: float32 in [0, 1] was expected, given dtype {array.dtype}")
    if array.ndim == 3:
        array = array[None]
    if array.ndim != 4 or 0 in array.shape:
        raise ValueError(
            f"{argument}: (n, H, W, C) or (H, W, C) was expected, given shape {np.shape(value)}"
        )
    if channels is not None and array.shape[-1] != channels:
        raise ValueError(
            f"{argument}: {channels} channels last were expected, given shape {np.shape(value)}"
        )
    if shape is not None and array.shape[1:] != tuple(shape):
        raise ValueError(
            f"{argument}: {tuple(shape)} an image was expected, given {array.shape[1:]}"
        )
    if isinstance(array, jax.core.Tracer):  # it has no values yet
        return jnp.asarray(array, jnp.float32)
    low, high = float(array.min()), float(array.max())
    if np.isnan(low) or np.isnan(high):
        raise ValueError(f"{argument}: values in [0, 1] were expected, given NaN")
    if low < -1e-6 or high > 1 + 1e-6:
        hint = "; divide by 255" if high > 2 and low >= 0 and high <= 255 else ""
        raise ValueError(
            f"{argument}: values in [0, 1] were expected, given [{low:.4g}, {high:.4g}]{hint}"
        )
    if isinstance(array, np.ndarray):  # `jnp.asarray` would compile a program for every shape
        return jax.device_put(np.array(array, np.float32))
    return jnp.asarray(array, jnp.float32)


def integers(argument: str, value: Any, *, low: int = 0, high: int, what: str = "") -> np.ndarray:
    """`value` as int32, every entry of which lies in [low, high).

    Raises:
      TypeError: for anything but integers.
      ValueError: for an entry out of range, naming it.
    """
    array = np.asarray(value)
    if array.dtype == bool or not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"{argument}: integers were expected, given {value!r}")
    wrong = array[(array < low) | (array >= high)]
    if wrong.size:
        where = f" of {what}" if what else ""
        raise ValueError(
            f"{argument}: {low} to {high - 1}{where} were expected, given {int(wrong.flat[0])}"
        )
    return array.astype(np.int32)


def number(
    argument: str,
    value: Any,
    *,
    low: float = -np.inf,
    high: float = np.inf,
    above: float | None = None,
) -> float:
    """`value` as a finite float in [low, high] (and > `above`).

    Raises:
      TypeError: for anything that is no real number.
      ValueError: out of range, or NaN.
    """
    if isinstance(value, (bool, str)) or value is None:
        raise TypeError(f"{argument}: a number was expected, given {value!r}")
    try:
        result = float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{argument}: a number was expected, given {value!r}") from error
    if not low <= result <= high or (above is not None and not result > above):
        bound = f"above {above:g}" if above is not None else f"in [{low:g}, {high:g}]"
        raise ValueError(f"{argument}: a number {bound} was expected, given {value!r}")
    if np.isinf(result):
        raise ValueError(f"{argument}: a finite number was expected, given {value!r}")
    return result


def count(argument: str, value: Any, *, low: int = 1) -> int:
    """`value` as an int of at least `low`.

    Raises:
      TypeError: for anything but an int.
      ValueError: below `low`.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{argument}: an int was expected, given {value!r}")
    if value < low:
        raise ValueError(f"{argument}: at least {low} was expected, given {value}")
    return int(value)


def size(argument: str, value: Any) -> tuple[int, int]:
    """`value` as (height, width) of at least one pixel; one number stands for a square.

    Raises:
      TypeError, ValueError: naming the argument, for anything else.
    """
    pair = (value, value) if isinstance(value, (int, np.integer)) else value
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise ValueError(f"{argument}: (height, width) or one number was expected, given {value!r}")
    return count(argument, pair[0]), count(argument, pair[1])
