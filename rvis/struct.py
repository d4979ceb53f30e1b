"""The one decorator of pytrees: numbers are leaves, names are structure, and classes differ."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, dataclass_transform

import jax

T = TypeVar("T")


def static(*, default: Any = dataclasses.MISSING, repr: bool = True, kw_only: bool = False) -> Any:
    """A field of a pytree that is structure: hashed by value, compiled for, never traced.

    Example:
      >>> from rvis import struct
      >>> @struct.dataclass
      ... class Scaled:
      ...     factor: float
      ...     name: str = struct.static(default="scaled")
      >>> import jax
      >>> jax.tree.leaves(Scaled(2.0))
      [2.0]
    """
    given = {} if default is dataclasses.MISSING else {"default": default}
    return dataclasses.field(**given, repr=repr, kw_only=kw_only, metadata={"static": True})


@dataclass_transform(frozen_default=True, field_specifiers=(static, dataclasses.field))
def dataclass(cls: type[T]) -> type[T]:
    """A frozen dataclass that is a pytree, with `replace`.

    jaxlib 0.10 takes two classes with equal static fields for one structure, so that a program
    compiled for one could run for the other; a hidden static field tells them apart.

    Example:
      >>> import jax
      >>> from rvis import struct
      >>> @struct.dataclass
      ... class One:
      ...     x: float
      >>> @struct.dataclass
      ... class Other:
      ...     x: float
      >>> jax.tree.structure(One(1.0)) == jax.tree.structure(Other(1.0))
      False
      >>> One(1.0).replace(x=2.0).x
      2.0
    """
    cls.__annotations__ = {**inspect.get_annotations(cls), "_class": str}
    tag = dataclasses.field(
        default=f"{cls.__module__}.{cls.__qualname__}",
        repr=False,
        kw_only=True,
        metadata={"static": True},
    )
    setattr(cls, "_class", tag)  # noqa: B010
    made = dataclasses.dataclass(frozen=True)(cls)
    fields = dataclasses.fields(made)  # type: ignore[arg-type]
    names: dict[bool, list[str]] = {False: [], True: []}
    for field in fields:
        names[bool(field.metadata.get("static"))].append(field.name)
    jax.tree_util.register_dataclass(made, data_fields=names[False], meta_fields=names[True])
    setattr(made, "replace", replace)  # noqa: B010
    return made


def replace(instance: T, /, **changes: Any) -> T:
    """The same with some fields changed; `instance.replace(…)` with a type."""
    make: Callable[..., T] = dataclasses.replace  # type: ignore[assignment]
    return make(instance, **changes)


def settle(instance: Any, **values: Any) -> None:
    """Sets fields of a frozen dataclass in its `__post_init__`, so that equal ones hash alike."""
    for name, value in values.items():
        object.__setattr__(instance, name, value)
