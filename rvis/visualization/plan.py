"""What a visualization is asked for, checked before anything compiles."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypedDict

import jax
import jax.numpy as jnp

from rvis import checks, images, transforms
from rvis.analysis.receptive import receptive_field
from rvis.ascent import Ascent
from rvis.engine import checkpoints
from rvis.images import Parameterization
from rvis.objectives import Objective
from rvis.optimizers import Optimizer, adam, nadam
from rvis.post_step import PostStep
from rvis.results import describe
from rvis.transforms import Transform
from rvis.types import Array, ArrayLike, KeyLike, Model, as_key

LARGE, STEEP = 160, 1.5
"""From how many pixels a side on Fourier pictures have that decay. With 1, Lite0's and AlexNet's
are fine waves before there is a shape; with 1.5 there are heads and eyes (`scripts/recipes.py`)."""


class Options(TypedDict, total=False):
    """The keyword arguments that `visualize` and `sweep` share."""

    key: KeyLike
    size: int | tuple[int, int] | str | None
    steps: int
    image: str | Parameterization
    start: ArrayLike | None
    transforms: Sequence[Transform] | None
    regularizers: Sequence[Callable[[Array], Array]]
    post_step: Sequence[PostStep]
    optimizer: Optimizer | None
    facets: int
    snapshots: Sequence[int]
    chunk: int | None
    best: bool
    progress: bool


@dataclasses.dataclass(frozen=True)
class Plan:
    """The checked options of a visualization."""

    algorithm: Ascent
    penalties: tuple[Callable[[Array], Array], ...]
    key: Array
    steps: int
    start: Array | None
    snapshots: tuple[int, ...]

    def fingerprint(self, model: Model, layer: str) -> str:
        """Of all that a unit's picture depends on; neither chunks nor progress are among it."""
        parts = (self.algorithm, self.penalties, self.key, self.steps, self.start, self.snapshots)
        return checkpoints.fingerprint(parts, model.params, model.apply, layer)

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
            post_step=self.algorithm.post_step,
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
    post_step: Sequence[PostStep] = (),
    optimizer: Optimizer | None = None,
    facets: int = 1,
    snapshots: Sequence[int] = (),
    chunk: int | None = None,
    best: bool = False,
    progress: bool = True,
) -> Plan:
    """The options of a visualization of these layers; refuses what cannot be."""
    del progress
    snapshots = tuple(snapshots)
    for step in snapshots:
        if checks.count("snapshots", step, low=0) > steps:
            raise ValueError(f"snapshots: 0 to {steps} (steps) were expected, given {step}")
    spec = _image(model, image, _pair(model, layers, size))
    algorithm = Ascent(
        image=spec,
        optimizer=_optimizer(optimizer, spec, steps),
        views=_views(transforms, spec, model),
        facets=facets,
        # A network without ReLUs has no dead units.
        redirect_relu=16 if getattr(model.apply, "takes_relu", True) else 0,
        post_step=_listed("post_step", post_step, "rvis.post_step"),
        saliency=isinstance(spec, images.MACO),
        best=best,
    )
    return Plan(
        algorithm,
        _listed("regularizers", regularizers, "rvis.regularizers, or of pytrees like them,"),
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
        shape = height, width, model.input_shape[2]
        if image == "fourier" and min(height, width) >= LARGE:
            return images.Fourier(shape, decay=STEEP)
        return images.named(image, shape)
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


def _views(
    given: Sequence[Transform] | None, spec: Parameterization, model: Model
) -> tuple[Transform, ...]:
    if given is None:
        # A function of the plane has none of the fine noise that views are to average away.
        if isinstance(spec, images.CPPN):
            return ()
        patch = getattr(getattr(model.apply, "module", None), "patch", 1)
        return transforms.lucid(min(spec.shape[:2]), patch=patch)
    return _listed("transforms", given, "rvis.transforms")


def _optimizer(given: Any, spec: Parameterization, steps: int) -> Optimizer:
    """Of lucid's articles and of MACO's by default."""
    if given is None and isinstance(spec, images.MACO):
        return nadam(0.25)
    if given is None and isinstance(spec, images.Fourier) and spec.decay == STEEP:
        # The same way in any number of steps, so that contrast does not grow with them.
        return adam(min(0.05, 1.28 / steps))
    if given is None:
        return adam(0.005 if isinstance(spec, images.CPPN) else 0.05)
    return given


def _listed(argument: str, given: Any, what: str) -> tuple[Any, ...]:
    """Checked; a plain function is a leaf, which no compiled program takes."""
    several = isinstance(given, Iterable) and not callable(given) and not isinstance(given, str)
    some = tuple(given) if several else (given,)
    if not several or not all(map(dataclasses.is_dataclass, some)):
        raise TypeError(f"{argument}: a list of {what} was expected, given {given!r}")
    return some


def encoded(start: Array, spec: Parameterization, count: int, facets: int) -> Any:
    """Positions (count, facets, ...) that decode to `start`, one image or `count` of them."""
    checks.one_or_each("start", len(start), count, "objectives")
    whole = jnp.broadcast_to(start[:, None], (count, facets, *spec.shape))
    return _encode(spec, whole)


@partial(jax.jit, static_argnames="spec")
def _encode(spec: Parameterization, whole: Array) -> Any:
    return jax.vmap(jax.vmap(spec.encode))(whole)
