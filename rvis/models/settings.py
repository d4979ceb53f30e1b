"""What networks are made with: their fields, and the numbers that images are normalised by."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks
from rvis.models.apply import Floats
from rvis.types import Array


def fields(module: nn.Module) -> dict[str, Any]:
    """What a module was made with, by name."""
    names = [field.name for field in dataclasses.fields(module)]
    return {name: getattr(module, name) for name in names if name not in ("parent", "name")}


def tuples(value: Any) -> Any:
    """Lists as tuples, which hash, at any depth."""
    return tuple(map(tuples, value)) if isinstance(value, (list, tuple)) else value


def checked_shape(value: Any) -> tuple[int, int, int]:
    """(H, W, C), checked."""
    try:
        height, width, channels = (checks.count("input_shape", n) for n in value)
        if max(height, width, channels) > _LONGEST:
            raise ValueError
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"input_shape: (H, W, C) of at most {_LONGEST} was expected, given {value!r}"
        ) from error
    return height, width, channels


_LONGEST = 2**15
"""Of an image's sides; a header that says more is damaged, or forged."""


def copied(leaf: Any, dtype: Any = None) -> Array:
    """A leaf on the device, by way of the host: nothing is compiled before all is checked."""
    if jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key):
        return jnp.array(leaf)
    return jax.device_put(np.array(jax.device_get(leaf), dtype))


def floats(argument: str, value: Any, channels: int) -> Floats:
    """One number or one a channel, checked."""
    try:
        numbers = tuple(checks.number(argument, number) for number in value)
    except TypeError as error:
        raise ValueError(f"{argument}: a tuple of numbers was expected, given {value!r}") from error
    if len(numbers) not in (1, channels):
        raise ValueError(
            f"{argument}: one number or {channels}, one a channel, were expected, given {value!r}"
        )
    if argument == "std" and min(numbers) <= 0:
        raise ValueError(f"std: numbers above 0 were expected, given {value!r}")
    return numbers
