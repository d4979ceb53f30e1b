"""What a visualization is asked for, checked before anything compiles."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypedDict

import jax
import jax.numpy as jnp

from rvis import checkpoints, checks, compilation, core, images, transforms
from rvis.images import Parameterization
from rvis.iterates import IterateMap
from rvis.objectives import Objective
from rvis.optimizers import Optimizer, adam, nadam
from rvis.receptive import receptive_field
from rvis.results import describe
from rvis.transforms import Transform
from rvis.types import Array, ArrayLike, KeyLike, Model, as_key


class Options(TypedDict, total=False):
    """The keyword arguments that `visualize` and `sweep` share."""

    key: KeyLike
    size: int | tuple[int, int] | str | None
    steps: int
    image: str | Parameterization
    start: ArrayLike | None
    transforms: Sequence[Transform] | None
    regularizers: Sequence[Callable[[Array], Array]]
    maps: Sequence[IterateMap]
    optimizer: Optimizer | None
    facets: int
    snapshots: Sequence[int]
    chunk: int | None
    best: bool
    progress: bool


@dataclasses.dataclass(frozen=True)
class Plan:
    """The checked options of a visualization."""

    algorithm: core.Ascent
    penalties: tuple[Callable[[Array], Array], ...]
    key: Array
    steps: int
    start: Array | None
    snapshots: tuple[int, ...]

    def fingerprint(self, model: Model, layer: str) -> str:
        """Of all that a unit's picture depends on; neither chunks nor progress are among it."""
        parts = (self.algorithm, self.penalties, self.key, self.steps, self.start, self.snapshots)
        form = (jax.default_backend(), compilation.chosen())
        return checkpoints.fingerprint(
            parts, model.params, checkpoints.stable(model.apply), layer, *form
        )

    def describe(self, model: Model, objective: Objective, *, function: str) -> dict[str, Any]:
        """What a result says of how it was made."""
        return describe(
            function=function,
            model=model.name,
            objective=objective,
            key=self.key,
            size=self.algorithm.image.shape[:2],
            steps=self.steps,
            image=self.algorithm.image,
            start=self.start,
            transforms=self.algorithm.views,
            regularizers=self.penalties,
            maps=self.algorithm.maps,
            optimizer=self.algorithm.optimizer,
            facets=self.algorithm.facets,
            snapshots=self.snapshots,
            best=self.algorithm.best,
        )

    @property
    def shown(self) -> tuple[int, int, int]:
        """(H, W, C) of what the model is shown."""
        return transforms.frame(self.algorithm.views, shown_shape(self.algorithm.image))


def make_plan(
    model: Model,
    layers: Sequence[str],
    *,
    key: KeyLike = 0,
    size: int | tuple[int, int] | str | None = None,
    steps: int = 512,
    image: str | Parameterization = "fourier",
    start: ArrayLike | None = None,
    transforms: Sequence[Transform] | None = None,
    regularizers: Sequence[Callable[[Array], Array]] = (),
    maps: Sequence[IterateMap] = (),
    optimizer: Optimizer | None = None,
    facets: int = 1,
    snapshots: Sequence[int] = (),
    chunk: int | None = None,
    best: bool = False,
    progress: bool = True,
) -> Plan:
    """The options of a visualization of these layers; refuses what cannot be."""
    del progress
    snapshots, regularizers, maps = tuple(snapshots), _listed(regularizers), _listed(maps)
    checks.count("steps", steps)
    checks.count("facets", facets)
    if not isinstance(best, bool):
        raise TypeError(f"best: True or False was expected, given {best!r}")
    if chunk is not None:
        checks.count("chunk", chunk)
    for step in snapshots:
        if checks.count("snapshots", step, low=0) > steps:
            raise ValueError(f"snapshots: 0 to {steps} (steps) were expected, given {step}")
    spec = _image(model, image, _pair(model, layers, size))
    if maps and hasattr(spec, "together"):
        raise ValueError(
            "maps: none were expected for pictures with a common part, which what is done to each "
            f"would undo, given {maps}"
        )
    algorithm = core.Ascent(
        image=spec,
        optimizer=_default(spec) if optimizer is None else _optimizer(optimizer),
        views=_views(transforms, spec),
        facets=facets,
        # A network that applies its own ReLUs keeps them closed.
        woken=16 if getattr(model.apply, "takes_relu", True) else 0,
        maps=_maps(maps),
        attention=isinstance(spec, images.MACO),
        best=best,
    )
    return Plan(
        algorithm,
        _penalties(regularizers),
        as_key(key),
        steps,
        None if start is None else checks.images("start", start, shape=spec.shape),
        tuple(sorted(set(snapshots))),
    )


def _pair(
    model: Model, layers: Sequence[str], size: int | tuple[int, int] | str | None
) -> tuple[int, int] | None:
    """Height and width, where they are not left to the model or the parameterization."""
    if isinstance(size, str):
        checks.choice("size", size, ("receptive_field",))
        if len(layers) != 1:
            raise ValueError(
                "size: the receptive field of one layer was expected, given an objective of "
                f"{', '.join(layers)}"
            )
        return receptive_field(model, layers[0]).size
    if size is None:
        return None
    return checks.size("size", size)


def _image(
    model: Model, image: str | Parameterization, pair: tuple[int, int] | None
) -> Parameterization:
    if isinstance(image, str):
        checks.choice("image", image, images.KINDS)
        height, width = model.input_shape[:2] if pair is None else pair
        return images.named(image, (height, width, model.input_shape[2]))
    if not hasattr(image, "decode"):
        raise TypeError(
            f"image: {', '.join(map(repr, images.KINDS))} or a parameterization was expected, "
            f"given {image!r}"
        )
    shown = shown_shape(image)
    if shown[2] != model.input_shape[2]:
        raise ValueError(
            f"image: {model.input_shape[2]} channels were expected by {model.name}, given "
            f"{shown[2]}"
        )
    if pair is not None and shown[:2] != pair:
        raise ValueError(f"size: {shown[:2]} is the image's own, given {pair}")
    return image


def shown_shape(image: Parameterization) -> tuple[int, int, int]:
    """(H, W, C) of what the model is shown: the picture, or what is composed of it."""
    compose = getattr(image, "composite", None)
    if compose is None:
        return image.shape
    picture = jax.ShapeDtypeStruct(image.shape, jnp.float32)
    return jax.eval_shape(compose, jax.random.key(0), picture).shape


def _views(given: Sequence[Transform] | None, spec: Parameterization) -> tuple[Transform, ...]:
    if given is None:
        # A function of the plane has none of the fine noise that views are to average away.
        return () if isinstance(spec, images.CPPN) else transforms.lucid(min(spec.shape[:2]))
    if isinstance(given, str) or not all(hasattr(view, "__dataclass_fields__") for view in given):
        raise TypeError(f"transforms: a list of rvis.transforms was expected, given {given!r}")
    return tuple(given)


def _default(spec: Parameterization) -> Optimizer:
    """Of lucid's articles and of MACO's: what a position means decides how fast it may move."""
    if isinstance(spec, images.MACO):
        # MACO's own 1 is of phases that are divided by their growing spread after every step.
        return nadam(0.25)
    return adam(0.005 if isinstance(spec, images.CPPN) else 0.05)


def _optimizer(given: Any) -> Optimizer:
    if not isinstance(given, Optimizer):
        raise TypeError(
            "optimizer: one of rvis.optimizers was expected, such as adam(0.05) or "
            f"from_optax(optax.lion, 0.01), given {given!r}"
        )
    return given


def _penalties(given: Sequence[Callable[[Array], Array]]) -> tuple[Callable[[Array], Array], ...]:
    single = callable(given) or not isinstance(given, Iterable)
    # A plain function is a leaf, which no compiled program takes.
    if single or not all(map(dataclasses.is_dataclass, given)):
        raise TypeError(
            "regularizers: a list of rvis.regularizers, or of pytrees like them "
            f"(flax.struct.dataclass) was expected, given {given!r}"
        )
    return tuple(given)


def _listed(given: Any) -> Any:
    """An iterable written out, so that looking at it does not use it up; else as it is."""
    return tuple(given) if isinstance(given, Iterable) else given


def _maps(given: Sequence[IterateMap]) -> tuple[IterateMap, ...]:
    if callable(given) or not all(map(dataclasses.is_dataclass, given)):
        raise TypeError(f"maps: a list of rvis.iterates was expected, given {given!r}")
    return tuple(given)


def encoded(start: Array, spec: Parameterization, count: int, facets: int) -> Any:
    """Positions (count, facets, ...) that decode to `start`, one image or `count` of them."""
    if start.shape[0] not in (1, count):
        raise ValueError(
            f"start: one image, or one for each of {count} objectives was expected, given "
            f"{start.shape[0]}"
        )
    return _encoded(start, spec, count, facets)


@partial(jax.jit, static_argnames=("spec", "count", "facets"))
def _encoded(start: Array, spec: Parameterization, count: int, facets: int) -> Any:
    whole = jnp.broadcast_to(start[:, None], (count, facets, *spec.shape))
    return jax.vmap(jax.vmap(spec.encode))(whole)
