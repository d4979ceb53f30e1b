"""Objectives that couple the pictures of a group: diversity, alignment, interpolation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks, gate, struct
from rvis.objectives.base import Activations, Combined, Objective, OfLayer, written_out
from rvis.objectives.texture import feature_products
from rvis.types import Array, ArrayLike, PyTree, on_device


@struct.dataclass
class Diversity(OfLayer):
    """See `diversity`."""

    layer: str = struct.static()

    def __call__(self, activations: Activations) -> Array:
        return -(_cosines(activations[self.layer])).sum() / activations[self.layer].shape[0]

    def titles(self, classes: tuple[str, ...]) -> np.ndarray:
        return np.asarray(f"diversity of {self.layer}", object)


def _cosines(x: Array) -> Array:
    """(n, n) cosines between the Gram matrices of n pictures' activations, 0 on the diagonal.

    vec G_a · vec G_b = Σ (X_a X_bᵀ)², which is cheaper where positions are fewer than channels.
    """
    x = x.reshape(x.shape[0], -1, x.shape[-1])
    if x.shape[1] < x.shape[2]:
        products = jnp.square(jnp.einsum("apc,bqc->abpq", x, x)).sum((2, 3))
    else:
        grams = feature_products(x)
        products = jnp.einsum("aij,bij->ab", grams, grams)
    squares = jnp.diagonal(products)
    scale = jax.lax.rsqrt(jnp.maximum(squares, _TINY))
    off = 1 - jnp.eye(x.shape[0], dtype=x.dtype)
    return products * scale[:, None] * scale[None] * off


_TINY = 1e-20


@gate.public
def diversity(layer: str) -> Diversity:
    """How unlike one another the pictures of a group are, for use with `facets` of 2 and more.

    −(1/n) Σ_a Σ_{b≠a} cos(vec G_a, vec G_b) with the Gram matrices G of the layer's activations: at
    most 0, and 1 − n where all are alike; `channel("layer3", 7) + 10 * diversity("layer3")`.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis.objectives import diversity
      >>> alike, unlike = jnp.ones((2, 4, 4, 3)), jnp.eye(2)[:, None, None, :]
      >>> round(float(diversity("a")({"a": alike})), 4), float(diversity("a")({"a": unlike}))
      (-1.0, -0.0)

    Reference: Olah et al. 2017, Feature Visualization (distill), appendix.
    """
    return Diversity(layer)


@struct.dataclass
class Alignment(OfLayer):
    """See `alignment`."""

    layer: str = struct.static()
    decay: Array

    event_ranks: ClassVar[Mapping[str, int]] = {"decay": 0}

    def __call__(self, activations: Activations) -> Array:
        x = activations[self.layer]
        total = jnp.float32(0)
        for d in range(1, min(_FARTHEST, x.shape[0] - 1) + 1):
            differences = jnp.square(x[d:] - x[:-d]).mean(tuple(range(1, x.ndim)))
            total = total + differences.sum() / self.decay**d
        return -total

    def titles(self, classes: tuple[str, ...]) -> np.ndarray:
        return np.full(self.batch_shape, f"alignment of {self.layer}", object)


_FARTHEST = 4


@gate.public
def alignment(layer: str, *, decay: float = 2.0) -> Alignment:
    """How alike the neighbours of a group are, for pictures that change into one another.

    −Σ_d Σ_i mean((x_{i+d} − x_i)²) / decay^d over distances d of 1 to 4 in the group; at most 0.

    Args:
      layer: a name of `model.layers`.
      decay: how much less farther neighbours count, above 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis.objectives import alignment
      >>> float(alignment("a")({"a": jnp.array([[0.0], [2.0]])}))
      -2.0

    Reference: tensorflow/lucid, `optvis/objectives.py` (`alignment`).
    """
    return Alignment(layer, on_device(checks.number("decay", decay, above=0), jnp.float32))


@struct.dataclass
class Interpolation(Combined):
    """See `interpolate`."""

    terms: tuple[Objective, ...]

    def __call__(self, activations: Activations) -> Array:
        count = next(iter(activations.values())).shape[0]
        places = jnp.linspace(0, len(self.terms) - 1, count, dtype=jnp.float32)
        own = jnp.arange(len(self.terms), dtype=jnp.float32)
        shares = jnp.maximum(1 - jnp.abs(places[:, None] - own[None]), 0)

        def one(shares: Array, image: Activations) -> Array:
            alone = jax.tree.map(lambda leaf: leaf[None], image)
            return jnp.dot(shares, jnp.stack([term(alone) for term in self.terms]))

        return jax.vmap(one)(shares, dict(activations)).mean()

    def titles(self, classes: tuple[str, ...]) -> np.ndarray:
        first, *others = (term.titles(classes) for term in self.terms)
        return np.asarray(sum((" to " + other for other in others), first), object)


@gate.public
def interpolate(start: Objective, end: Objective, *others: Objective) -> Interpolation:
    """From one objective to another, and on to others, over the pictures of a group (`facets`).

    Of k objectives, picture i of n climbs those nearest to place p = i·(k − 1)/(n − 1) on the way,
    objective j with the weight max(0, 1 − |p − j|): between two, (1 − t)·start + t·end. With as
    many pictures as objectives each has its own. Add an `alignment` to make neighbours alike.

    Example:
      >>> from rvis.objectives import alignment, channel, interpolate
      >>> both = interpolate(channel("layer3", 1), channel("layer3", 2)) + alignment("layer2")
      >>> both.layers
      ('layer3', 'layer2')

    Reference: Olah et al. 2017, Feature Visualization (distill), "Interaction between neurons".
    """
    if not all(isinstance(other, Objective) for other in others):
        raise TypeError(f"others: rvis.objectives.base.Objective was expected, given {others!r}")
    return Interpolation((start, end, *others))


@struct.dataclass
class Function(Objective):
    """See `function`."""

    call: Callable[..., Array] = struct.static()
    names: tuple[str, ...] = struct.static()
    arguments: tuple[PyTree, ...]

    @property
    def layers(self) -> tuple[str, ...]:
        return self.names

    def __call__(self, activations: Activations) -> Array:
        return self.call({name: activations[name] for name in self.names}, *self.arguments)

    def check(self, shapes: Mapping[str, tuple[int, ...]], classes: tuple[str, ...]) -> None:
        for name in self.names:
            checks.choice("layers", name, shapes)
        group = {name: jax.ShapeDtypeStruct((1, *shapes[name]), jnp.float32) for name in self.names}
        score = jax.eval_shape(lambda seen: self.call(seen, *self.arguments), group)
        if getattr(score, "shape", None) != () or not jnp.issubdtype(score.dtype, jnp.floating):
            raise ValueError(
                f"call: a floating-point scalar was expected of {self._name()}, given {score}"
            )

    def titles(self, classes: tuple[str, ...]) -> np.ndarray:
        return np.asarray(self._name(), object)

    def broadcast(self, count: int) -> Objective:
        return Function(self.call, self.names, written_out(self.arguments, count))

    def _name(self) -> str:
        return getattr(self.call, "__name__", repr(self.call))


@gate.public
def function(
    call: Callable[..., Array], layers: str | Iterable[str], *arguments: PyTree
) -> Function:
    """Any function of activations as an objective.

    Args:
      call: `call({layer: (n, ...)}, *arguments) -> scalar`, to be maximised; traceable. Programs
        are shared by the function object, so define it once, at module level.
      layers: the layers it reads.
      *arguments: pytrees of numbers that are traced, so that changing them compiles nothing.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis.objectives import function
      >>> def contrast(seen, strength):
      ...     return strength * seen["conv1"].std()
      >>> float(function(contrast, "conv1", 2.0)({"conv1": jnp.array([0.0, 1.0])}))
      1.0
    """
    names = (layers,) if isinstance(layers, str) else tuple(layers)
    return Function(call, names, jax.tree.map(_traced, arguments))


def _traced(leaf: ArrayLike) -> Array:
    exact = not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
    return on_device(leaf, jnp.result_type(leaf if exact else float))


@gate.public
def gram_cosine(activations: ArrayLike) -> Array:
    """The mean cosine between the Gram matrices of n pictures (n, h, w, C): 1 where all are alike.

    Example:
      >>> import numpy as np
      >>> from rvis.objectives import gram_cosine
      >>> float(gram_cosine(np.eye(2)[:, None, None, :]))
      0.0
    """
    shape = np.shape(activations)
    if len(shape) < 2 or shape[0] < 2:
        raise ValueError(
            f"activations: (n, h, w, C) of two or more pictures were expected, given {shape}"
        )
    x = on_device(activations, jnp.float32)
    return _cosines(x).sum() / (x.shape[0] * (x.shape[0] - 1))
