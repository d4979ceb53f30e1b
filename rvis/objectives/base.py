"""What all objectives share: their algebra, their titles, and whether they fit a model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks, struct
from rvis.types import (
    LOGITS,
    Array,
    ArrayLike,
    Model,
    PyTree,
    Units,
    check_classes,
    check_model,
    layer_shapes,
    on_device,
)

Activations = Mapping[str, Array]
"""{layer: (n, ...)} of a group of n images: what an objective is called with."""


class Objective:
    """The algebra and the bookkeeping that every objective shares.

    An objective is called with `{layer: (n, ...)}` for one group of n images and gives a scalar.
    Leaves may have leading axes: then it stands for that many objectives (`batch_shape`).
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
        return _common(" and ".join(self.event_ranks), shapes)

    def check_count(self, argument: str, count: int) -> None:
        """Raises ValueError, naming the argument, unless there is one, or one for each image."""
        checks.one_or_each(argument, int(np.prod(self.batch_shape)), count)

    def broadcast(self, count: int) -> Objective:
        """The same objectives with every leaf's leading axis written out to `count`."""
        changes = {}
        for name, rank in self.event_ranks.items():
            leaf = getattr(self, name)
            if leaf is not None:
                event = np.shape(leaf)[np.ndim(leaf) - rank :]
                changes[name] = _repeated(leaf, (count, *event))
        return struct.replace(self, **changes)

    def __add__(self, other: Objective) -> Objective:
        if not isinstance(other, Objective):
            return NotImplemented
        return Sum((self, other), (on_device(1, jnp.float32), on_device(1, jnp.float32)))

    def __radd__(self, other: Any) -> Objective:
        # The built-in `sum` starts from 0.
        return self if isinstance(other, int) and other == 0 else NotImplemented

    def __sub__(self, other: Objective) -> Objective:
        if not isinstance(other, Objective):
            return NotImplemented
        return Sum((self, other), (on_device(1, jnp.float32), on_device(-1, jnp.float32)))

    def __mul__(self, scale: ArrayLike | Objective) -> Objective:
        if isinstance(scale, Objective):
            return Product((self, scale))
        return Sum((self,), (as_floats("weight", scale, "()", "(m,)"),))

    def __rmul__(self, scale: ArrayLike) -> Objective:
        return self * scale

    def __truediv__(self, scale: ArrayLike) -> Objective:
        return self * (on_device(1, jnp.float32) / on_device(scale, jnp.float32))

    def __neg__(self) -> Objective:
        return self * -1.0


def _common(names: str, shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise ValueError(
            f"{names}: as many of each (or one) were expected, given batches of "
            + ", ".join(map(str, shapes))
        ) from None


def digests(values: ArrayLike, rank: int) -> np.ndarray:
    """A number for each member's values (the last `rank` axes), which rounding leaves as it is."""
    array = np.abs(np.asarray(values, np.float32))
    return array.reshape(*array.shape[: array.ndim - rank], -1).argmax(-1)


class Combined(Objective):
    """What objectives made of several others share."""

    terms: tuple[Objective, ...]

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(layer for term in self.terms for layer in term.layers))

    def check(self, shapes: Mapping[str, tuple[int, ...]], classes: tuple[str, ...]) -> None:
        for term in self.terms:
            term.check(shapes, classes)
        _ = self.batch_shape

    def identities(self) -> np.ndarray | None:
        numbers = [own for term in self.terms if (own := term.identities()) is not None]
        # Those of a term with a member each tell apart what those of a single one do not.
        return max(numbers, key=np.ndim, default=None)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        shapes = [term.batch_shape for term in self.terms]
        shapes += [np.shape(weight) for weight in getattr(self, "weights", ())]
        return _common("objective", shapes)

    def broadcast(self, count: int) -> Objective:
        return struct.replace(self, terms=tuple(term.broadcast(count) for term in self.terms))


@struct.dataclass
class Sum(Combined):
    """A weighted sum of objectives; the weights are leaves."""

    terms: tuple[Objective, ...]
    weights: tuple[Array, ...]

    def __call__(self, activations: Activations) -> Array:
        pairs = zip(self.terms, self.weights, strict=True)
        return sum((w * term(activations) for term, w in pairs), jnp.float32(0))

    def check(self, shapes: Mapping[str, tuple[int, ...]], classes: tuple[str, ...]) -> None:
        Combined.check(self, shapes, classes)
        for weight in self.weights:
            checks.finite("weight", weight)

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


@struct.dataclass
class Product(Combined):
    """A product of objectives: of the scores that each has for the whole group."""

    terms: tuple[Objective, ...]

    def __call__(self, activations: Activations) -> Array:
        return jnp.stack([term(activations) for term in self.terms]).prod()

    def titles(self, classes: tuple[str, ...]) -> np.ndarray:
        result = np.full(self.batch_shape, "", object)
        for term in self.terms:
            for i, title in np.ndenumerate(np.broadcast_to(term.titles(classes), result.shape)):
                title = f"({title})" if isinstance(term, Sum) and len(term.terms) > 1 else title
                result[i] += f"{' × ' if result[i] else ''}{title}"
        return result


class OfLayer(Objective):
    """What objectives of one layer share."""

    layer: str
    mark: ClassVar[str] = ""

    @property
    def layers(self) -> tuple[str, ...]:
        return (self.layer,)

    def check(self, shapes: Mapping[str, tuple[int, ...]], classes: tuple[str, ...]) -> None:
        checks.choice("layer", self.layer, shapes)

    def titles(self, classes: tuple[str, ...]) -> np.ndarray:
        """`layer·v` for one objective with the mark "·v", `layer·v0` and so on for many."""
        title = f"{self.layer}{self.mark}"
        if not self.batch_shape:
            return np.asarray(title, object)
        return np.asarray([f"{title}{i}" for i in range(self.batch_shape[0])], object)


def written_out(tree: PyTree, count: int) -> PyTree:
    """A pytree of one objective's numbers for each of `count`."""
    return jax.tree.map(lambda leaf: _repeated(leaf, (count, *np.shape(leaf))), tree)


def _repeated(leaf: ArrayLike, shape: tuple[int, ...]) -> Array:
    if isinstance(leaf, jax.core.Tracer):
        return jnp.broadcast_to(leaf, shape)
    # On the host: nothing is compiled before all arguments are checked.
    return jax.device_put(np.broadcast_to(jax.device_get(leaf), shape))


def as_floats(argument: str, value: ArrayLike, *shapes: str) -> Array:
    """`value` as float32, with as many axes as one of `shapes`, such as "(m, C)", has."""
    given = checks.array(argument, value)
    if np.iscomplexobj(given):
        raise TypeError(f"{argument}: real numbers were expected, given complex ones")
    array = on_device(given, jnp.float32)
    if array.ndim not in [len(re.findall(r"\w+", shape)) for shape in shapes]:
        raise ValueError(
            f"{argument}: {' or '.join(shapes)} was expected, given shape {array.shape}"
        )
    return array


def at(x: Array, position: Array) -> Array:
    """(n, C) at one (row, column) of activations (n, h, w, C)."""
    return x[:, position[0], position[1]]


def as_position(given: Units | None) -> Array | None:
    """`given` as (row, column) or (m, 2) of int32; None as it is."""
    if given is None:
        return None
    places = checks.integers("position", given, low=-checks.LARGEST)
    if places.ndim not in (1, 2) or places.shape[-1] != 2:
        raise ValueError(f"position: (row, column) was expected, given {given!r}")
    return on_device(places)


def check_position(position: ArrayLike, layer: str, shape: tuple[int, ...]) -> None:
    """Raises ValueError, naming the axis, where a position lies outside a layer of `shape`."""
    if len(shape) != 3:
        raise ValueError(f"position: layer {layer!r} has shape {shape}, without places")
    for axis, name in enumerate(("position[0] (row)", "position[1] (column)")):
        places = np.asarray(position)[..., axis]
        checks.integers(name, places, high=shape[axis], what=repr(layer))


def check(objective: Any, model: Model, shape: tuple[int, int, int]) -> Objective:
    """`objective` if it fits `model` on images of `shape`: its layers, units, places, vectors."""
    if not isinstance(objective, Objective):
        raise TypeError(
            f"objective: one of rvis.objectives was expected, such as channel('…', 0), given "
            f"{objective!r}"
        )
    reached = layer_shapes(check_model(model), shape)
    for name in objective.layers:
        checks.choice("layer", name, (*model.layers, LOGITS))
        if name not in reached:
            raise ValueError(
                f"size: {model.name} reaches {name!r} only from images of {model.input_shape}, "
                f"given {shape}"
            )
    objective.check(reached, model.classes)
    if any(map(_of_classes, jax.tree.leaves(objective, is_leaf=_of_classes))):
        check_classes(model)
    return objective


def _of_classes(node: Any) -> bool:
    return getattr(node, "of_classes", False)
