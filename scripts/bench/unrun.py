"""Calls of rvis whose programs are traced and not run: what they would compute, without it."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp

from rvis.engine import programs

_INNER = {"attack", "permutations", "inner", "ascent", "function"}
"""Fields of algorithms that hold another."""


class Program(NamedTuple):
    """A step's program, traced: for so many examples side by side, and so many leaves of state."""

    traced: Any
    width: int
    leaves: int


def chain(algorithm: Any) -> list[str]:
    """The names, as module.Class, of an algorithm and of those inside it."""
    kinds = type(algorithm).__mro__[:-1]
    names = [f"{kind.__module__.split('.')[-1]}.{kind.__name__}" for kind in kinds]
    if isinstance(algorithm, type(chain)):
        names.append(f"{algorithm.__module__.split('.')[-1]}.{algorithm.__name__}")
    for field in _INNER & set(getattr(algorithm, "__dataclass_fields__", ())):
        names += chain(getattr(algorithm, field))
    return names


@contextlib.contextmanager
def unrun() -> Iterator[dict[str, Program]]:
    """Inside, the engine traces its programs and gives blanks in the place of what they compute.

    Yields:
      {name as of `chain`: its program}, filled as calls are made.
    """
    seen: dict[str, Program] = {}
    stand_ins: dict[str, Any] = {
        "advance": _Unrun(programs.advance, seen),
        "begin": _Unrun(programs.begin),
        "finish": _Unrun(programs.finish),
    }
    with mock.patch.multiple(programs, **stand_ins), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of means of nothing
        yield seen


class _Unrun:
    def __init__(self, program: Any, seen: dict[str, Program] | None = None) -> None:
        self.program, self.seen, self.eval_shape = program, seen, program.eval_shape

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        traced = self.program.trace(*arguments, **options)
        out = jax.tree.map(_blank, traced.out_info)
        if self.seen is None:
            return out
        program = Program(traced, options["width"], len(jax.tree.leaves(arguments[3])))
        for name in chain(arguments[0]):
            self.seen.setdefault(name, program)
        # All steps were made.
        return out[0], arguments[2] + arguments[6], *out[2:]


def _blank(leaf: Any) -> jax.Array:
    """Numbers that are no NaN; of logits the first is the largest."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.split(jax.random.key(0), leaf.shape)
    if jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.shape:
        row = jnp.linspace(1, 0, leaf.shape[-1], dtype=jnp.float32).astype(leaf.dtype)
        return jnp.broadcast_to(row, leaf.shape)
    return jnp.zeros(leaf.shape, leaf.dtype)
