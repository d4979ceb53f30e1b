"""The algebra and the bookkeeping that every objective shares."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.struct
import jax.numpy as jnp
import numpy as np

from rvis import checks
from rvis.types import LOGITS, Array, ArrayLike, Model, Units, layer_shapes

Activations = Mapping[str, Array]
"""{layer: (n, ...)} of a group of n images: what an objective is called with."""


class Objective:
    """The algebra and the bookkeeping that every objective shares.

    An objective is called with `{layer: (n, ...)}` for one group of n images and gives a scalar,
    the mean over the group. Leaves may have leading axes: then it stands for that many objectives
    (`batch_shape`), and `rvis.core` maps over them.
    """

    event_ranks: ClassVar[Mapping[str, int]] = {}
    __array_ufunc__ = None  # so that `np.float32(2) * objective` reaches `__rmul__`

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers whose activations it reads."""
        raise TypeError(f"{type(self).__name__} does not say which layers it reads")

    def __call__(self, activations: Activations) -> Array:
        """The score of one group of images, from {layer: (n, ...)}."""
        raise TypeError(f"{type(self).__name__} cannot be evaluated")

    def at_step(self, step: Array) -> Objective:
        """What it asks for in one step of an ascent: itself, unless its weights change."""
        del step
        return self

    def check(self, shapes: Mapping[str, tuple[int, ...]], classes: tuple[str, ...]) -> None:
        """Raises ValueError where it does not fit a model with these layer shapes."""

    def titles(self, classes: tuple[str, ...]) -> np.ndarray:
        """One short title an objective, of shape `batch_shape`."""
        return np.full(self.batch_shape, type(self).__name__.lower(), object)

    def identities(self) -> np.ndarray | None:
        """What `fold_in` tells its members apart by, or None where position must serve."""
        return None

    def siblings(self, shapes: Mapping[str, tuple[int, ...]]) -> Objective | None:
        """The same question of every unit of the layer; None where it is of no single unit."""
        return None

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """() for one objective, (m,) for m of them."""
        shapes = [
            np.shape(leaf)[: np.ndim(leaf) - rank]
            for name, rank in self.event_ranks.items()
            if (leaf := getattr(self, name)) is not None
        ]
        try:
            return np.broadcast_shapes(*shapes)
        except ValueError:
            names = " and ".join(self.event_ranks)
            raise ValueError(
                f"{names}: as many of each (or one) were expected, given batches of "
                + ", ".join(map(str, shapes))
            ) from None

    def broadcast(self, count: int) -> Objective:
        """The same objectives with every leaf's leading axis written out to `count`."""
        changes = {}
        for name, rank in self.event_ranks.items():
            leaf = getattr(self, name)
            if leaf is not None:
                event = np.shape(leaf)[np.ndim(leaf) - rank :]
                changes[name] = jnp.broadcast_to(leaf, (count, *event))
        return self.replace(**changes)  # type: ignore[attr-defined]

    def __add__(self, other: Objective) -> Objective:
        if not isinstance(other, Objective):
            return NotImplemented
        return Sum((self, other), (jnp.float32(1), jnp.float32(1)))

    def __radd__(self, other: Any) -> Objective:
        # The built-in `sum` starts from 0.
        return self if isinstance(other, int) and other == 0 else NotImplemented

    def __sub__(self, other: Objective) -> Objective:
        if not isinstance(other, Objective):
            return NotImplemented
        return Sum((self, other), (jnp.float32(1), jnp.float32(-1)))

    def __mul__(self, scale: ArrayLike | Objective) -> Objective:
        if isinstance(scale, Objective):
            return Product((self, scale))
        weight = jnp.asarray(scale, jnp.float32)
        if weight.ndim > 1:
            raise ValueError(
                f"weight: one number, or one a member, was expected, given shape {weight.shape}"
            )
        return Sum((self,), (weight,))

    def __rmul__(self, scale: ArrayLike) -> Objective:
        return self * scale

    def __truediv__(self, scale: ArrayLike) -> Objective:
        return self * (1 / jnp.asarray(scale, jnp.float32))

    def __neg__(self) -> Objective:
        return self * -1.0


def digests(values: ArrayLike, rank: int) -> np.ndarray:
    """A number for each member's values (the last `rank` axes): equal values have equal numbers."""
    array = np.asarray(values, np.float32)
    batch = array.shape[: array.ndim - rank]
    found = [
        zlib.crc32(member.tobytes()) for member in array.reshape(-1, *array.shape[len(batch) :])
    ]
    return np.asarray(found, np.uint32).reshape(batch)


def kind_field(name: str) -> Any:
    """A static field that tells classes apart.

    jaxlib 0.10 compares the tree structures of two dataclasses by their static fields alone, so
    that without it a compiled `Channel` of the logits could serve for a `Probability`.
    """
    return flax.struct.field(pytree_node=False, default=name, repr=False, kw_only=True)


class Combined(Objective):
    """What objectives made of several others share."""

    terms: tuple[Objective, ...]

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(layer for term in self.terms for layer in term.layers))

    def at_step(self, step: Array) -> Objective:
        return self.replace(terms=tuple(term.at_step(step) for term in self.terms))  # type: ignore[attr-defined]

    def check(self, shapes: Mapping[str, tuple[int, ...]], classes: tuple[str, ...]) -> None:
        for term in self.terms:
            term.check(shapes, classes)
        _ = self.batch_shape

    def identities(self) -> np.ndarray | None:
        found = [numbers for term in self.terms if (numbers := term.identities()) is not None]
        # Those of a term with a member each tell apart what those of a single one do not.
        return max(found, key=np.ndim, default=None)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        shapes = [term.batch_shape for term in self.terms]
        shapes += [np.shape(weight) for weight in getattr(self, "weights", ())]
        try:
            return np.broadcast_shapes(*shapes)
        except ValueError:
            raise ValueError(
                "objective: as many members in every term (or one) were expected, given batches of "
                + ", ".join(map(str, shapes))
            ) from None

    def broadcast(self, count: int) -> Objective:
        return self.replace(terms=tuple(term.broadcast(count) for term in self.terms))  # type: ignore[attr-defined]


@flax.struct.dataclass
class Sum(Combined):
    """A weighted sum of objectives; the weights are leaves."""

    terms: tuple[Objective, ...]
    weights: tuple[Array, ...]
    kind: str = kind_field("Sum")

    def __call__(self, activations: Activations) -> Array:
        pairs = zip(self.terms, self.weights, strict=True)
        return sum((w * term(activations) for term, w in pairs), jnp.float32(0))

    def check(self, shapes: Mapping[str, tuple[int, ...]], classes: tuple[str, ...]) -> None:
        Combined.check(self, shapes, classes)
        for weight in self.weights:
            if not np.all(np.isfinite(weight)):
                raise ValueError(f"weight: finite numbers were expected, given {weight}")

    def titles(self, classes: tuple[str, ...]) -> np.ndarray:
        result = np.full(self.batch_shape, "", object)
        for term, weight in zip(self.terms, self.weights, strict=True):
            for i, title in np.ndenumerate(np.broadcast_to(term.titles(classes), result.shape)):
                w = float(np.broadcast_to(weight, result.shape)[i])
                sign = (" + " if w >= 0 else " − ") if result[i] else ("" if w >= 0 else "−")
                result[i] += f"{sign}{'' if abs(w) == 1 else f'{abs(w):g} × '}{title}"
        return result

    def broadcast(self, count: int) -> Objective:
        return Sum(
            tuple(term.broadcast(count) for term in self.terms),
            tuple(jnp.broadcast_to(w, (count,)) for w in self.weights),
        )


@flax.struct.dataclass
class Product(Combined):
    """A product of objectives: of the scores that each has for the whole group."""

    terms: tuple[Objective, ...]
    kind: str = kind_field("Product")

    def __call__(self, activations: Activations) -> Array:
        return jnp.stack([term(activations) for term in self.terms]).prod()

    def titles(self, classes: tuple[str, ...]) -> np.ndarray:
        result = np.full(self.batch_shape, "", object)
        for term in self.terms:
            for i, title in np.ndenumerate(np.broadcast_to(term.titles(classes), result.shape)):
                title = f"({title})" if isinstance(term, Sum) and len(term.terms) > 1 else title
                result[i] += f"{' × ' if result[i] else ''}{title}"
        return result


def at(x: Array, position: Array) -> Array:
    """(n, C) at one (row, column) of activations (n, h, w, C)."""
    return x[:, position[0], position[1]]


def as_position(given: Units) -> Array:
    """`given` as (row, column) or (m, 2) of int32.

    Raises:
      TypeError, ValueError: naming `position`, for anything else.
    """
    places = np.asarray(given)
    if places.ndim not in (1, 2) or places.shape[-1] != 2:
        raise ValueError(f"position: (row, column) was expected, given {given!r}")
    if not np.issubdtype(places.dtype, np.integer):
        raise TypeError(f"position: integers were expected, given {given!r}")
    return jnp.asarray(places, jnp.int32)


def check_position(position: ArrayLike, layer: str, shape: tuple[int, ...]) -> None:
    """Raises ValueError, naming the axis, where a position lies outside a layer of `shape`."""
    if len(shape) != 3:
        raise ValueError(
            f"position: layer {layer!r} has shape {shape}, without places to choose from"
        )
    for axis, name in enumerate(("position[0] (row)", "position[1] (column)")):
        places = np.asarray(position)[..., axis]
        checks.integers(name, places, high=shape[axis], what=repr(layer))


def check(objective: Any, model: Model, shape: tuple[int, int, int]) -> Objective:
    """`objective` if it fits `model` on images of `shape`.

    Raises:
      TypeError: naming `objective`, if it is none.
      ValueError: a misspelt layer (with the nearest names), a unit, position or vector that does
        not fit.
    """
    if not isinstance(objective, Objective):
        raise TypeError(
            f"objective: one of rvis.objectives was expected, such as channel('…', 0), given "
            f"{objective!r}"
        )
    reached = layer_shapes(model, shape)
    for name in objective.layers:
        checks.choice("layer", name, (*model.layers, LOGITS))
        if name not in reached:
            raise ValueError(
                f"size: {model.name} reaches {name!r} only from images of {model.input_shape}, "
                f"given {shape}"
            )
    objective.check(reached, model.classes)
    return objective
