"""Fooling images: what a network is sure of, whatever it looks like to us."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
from jax import lax

from rvis import checks, engine, gate, images, objectives, optimizers, projections, struct
from rvis.ascent import Ascent, AscentState, Problem
from rvis.attacks.attack import BALLS
from rvis.attacks.request import Callback
from rvis.attacks.result import distances
from rvis.images import Parameterization
from rvis.objectives import Objective
from rvis.optimizers import Optimizer
from rvis.plotting import grids
from rvis.results import Result, describe
from rvis.transforms import Transform
from rvis.types import (
    LOGITS,
    Array,
    ArrayLike,
    KeyLike,
    Model,
    as_key,
    check_classes,
    fold_each,
    layer_shapes,
    on_device,
)

_KINDS = ("pixel", "fourier", "pyramid", "cppn")
_OBJECTIVES = {"probability": objectives.probability, "logit": objectives.logit}


@dataclasses.dataclass(frozen=True, eq=False)
class Fooling(Result):
    """Pictures that a network takes for a class, with how it came to.

    Attributes:
      starts: (..., H, W, C) the pictures that the ascents began with.
      probabilities: (..., steps + 1) of the class, of the picture itself before each step and after
        the last.
      since: (...) the steps after which the class first led, 0 where it did at the start, −1 where
        it never did.
    """

    starts: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0, 0)))
    probabilities: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    since: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((), int))

    def distance(self, norm: str = "l2") -> np.ndarray:
        """‖image − start‖, (...); "linf", "l2", "l1", or "rms" for √(Σδ²/n)."""
        found = distances(self._flat(self.starts), self._flat(self.images), norm)
        return found.reshape(self.images.shape[:-3])

    def show(self) -> PIL.Image.Image:
        """Start, what was added (grey is nothing, a row's largest black or white), and picture."""
        starts, ends = self._flat(self.starts), self._flat(self.images)
        delta = ends - starts
        most = np.abs(delta).max((1, 2, 3), keepdims=True)
        added = 0.5 + delta / np.where(most > 0, 2 * most, 1)
        final = self.probabilities[..., -1].reshape(-1)
        titles = [
            f"{label} {chance:.1%}"
            for label, chance in zip(self._flat_labels(), final, strict=True)
        ]
        return grids.grid(
            np.clip(np.stack([starts, added, ends], 1), 0, 1),
            titles=["start", "added", "picture"],
            row_titles=titles,
        )


@struct.dataclass
class FoolInfo:
    """Of a step, before it: the score, the probability of the class, and whether it leads."""

    score: Array
    probability: Array
    leads: Array


@struct.dataclass
class FoolState:
    """Where the ascent stands, and whether the network is sure enough of that picture."""

    ascent: AscentState
    sure: Array


@struct.dataclass
class UntilSure:
    """An ascent that ends where the network is sure of the picture itself.

    Attributes:
      ascent: whose transformations may show the model something else.
      enough: the probability at which a picture is done.
    """

    ascent: Ascent
    enough: Array

    def init(self, key: Array, start: Any) -> FoolState:
        """As the ascent's."""
        return FoolState(self.ascent.init(key, start), jnp.bool_(False))

    def step(
        self, key: Array, state: FoolState, model: Model, problem: Problem
    ) -> tuple[FoolState, FoolInfo]:
        """A look at the picture, and one step up unless it is done."""
        unit = problem.objective.unit  # type: ignore[attr-defined]
        logits = model.apply(model.params, self.finish(state, model, problem)[None])[0]
        chance = jax.nn.softmax(logits)[unit]
        sure = chance >= self.enough
        after, told = self.ascent.step(key, state.ascent, model, problem)
        after = jax.tree.map(lambda new, old: jnp.where(sure, old, new), after, state.ascent)
        leads = lax.argmax(logits, 0, unit.dtype) == unit
        return FoolState(after, sure), FoolInfo(told.score, chance, leads)

    def done(self, state: FoolState) -> Array:
        """Whether the network is sure enough."""
        return state.sure

    def finish(self, state: FoolState, model: Model, problem: Problem) -> Array:
        """The picture, (H, W, C)."""
        return jnp.clip(self.ascent.images(state.ascent)[0], 0, 1)


@gate.public
def fool(
    model: Model,
    target: Any,
    *,
    start: str | ArrayLike = "noise",
    objective: str = "probability",
    eps: float | None = None,
    norm: str = "l2",
    confidence: float | None = None,
    image: str | Parameterization = "pixel",
    transforms: Sequence[Transform] = (),
    regularizers: Sequence[Callable[[Array], Array]] = (),
    key: KeyLike = 0,
    steps: int = 200,
    optimizer: Optimizer | None = None,
    chunk: int | None = None,
    checkpoint: str | Path | None = None,
    snapshots: Sequence[int] = (),
    callback: Callback | None = None,
    progress: bool = True,
) -> Fooling:
    """Pictures that the model takes for a class, by ascent from noise, grey or a photograph.

    With none of `transforms` and `regularizers` a standard network is soon sure of a picture that
    looks like its start; a robust one has to be shown the class.

    Args:
      model: any model.
      target: a class's number or name, or a list of them for as many pictures in one run.
      start: "noise", "grey", or images in [0, 1], one (H, W, C) or one for each class.
      objective: "probability", its logarithm, or "logit".
      eps: stay within this distance of the start; free by default.
      norm: that of `eps`: "linf", "l2" or "l1".
      confidence: the probability, in (0, 1], at which a picture is done, so that it is one of the
        first that convince; by default all steps are taken.
      image: "pixel", "fourier", "pyramid", "cppn", or a parameterization whose pictures are images.
      transforms: random transformations between picture and model.
      regularizers: penalties on the picture, each subtracted.
      key: an int seed or a typed key; a class's noise is the same alone and in any list.
      steps: gradient steps.
      optimizer: of `rvis.optimizers`; by default, for pixels, steps along the gradient by which the
        mean pixel changes by .002, and Adam at .05 (for a CPPN .005) for all else.
      chunk: pictures at once; bounds memory, never changes pictures.
      checkpoint: a folder for the state of an interrupted run; the same call then goes on.
      snapshots: steps after which to keep the pictures, 0 for the start.
      callback: `callback(step, images, scores)` is called between steps; True ends the run there.
      progress: a bar on a terminal.

    Returns:
      A `Fooling` with `images` (m, H, W, C), without the first axis for a single class: a Result
      with the probability before each step, the step at which the class first led, and the
      distance from the start. What is told of a picture that is done stays what it was.

    Raises:
      ValueError, TypeError: naming the argument, before anything is compiled.
      FloatingPointError: if a score becomes NaN.

    Example:
      >>> import rvis
      >>> model = rvis.load("mnist_cnn")
      >>> result = rvis.attacks.fool(model, [3, 8], start="grey", steps=30)
      >>> bool((result.probabilities[:, -1] > 0.9).all())
      True

    Reference: Nguyen, Yosinski & Clune 2015, Deep Neural Networks are Easily Fooled, section 3.5;
      Szegedy et al. 2013, Intriguing properties of neural networks.
    """
    check_classes(model, least=2)
    units = checks.classes("target", target, model.classes, count=layer_shapes(model)[LOGITS][-1])
    if units.ndim > 1 or not units.size:
        raise ValueError(f"target: one class or a list was expected, given {target!r}")
    flat = np.atleast_1d(units)
    count = len(flat)
    checks.choice("objective", objective, _OBJECTIVES)
    if confidence is not None:
        checks.number("confidence", confidence, above=0, high=1)
    for step in snapshots:
        if checks.count("snapshots", step, low=0) > steps:
            raise ValueError(f"snapshots: 0 to {steps} (steps) were expected, given {step}")
    views, penalties = _listed("transforms", transforms), _listed("regularizers", regularizers)
    spec = _parameterization(model, image)
    if LOGITS not in layer_shapes(model, spec.shape):
        raise ValueError(
            f"image: {model.name} takes images of {model.input_shape}, given {spec.shape}"
        )
    if optimizer is None:
        rate = 0.005 if isinstance(spec, images.CPPN) else 0.05
        optimizer = optimizers.adam(rate)
        if isinstance(spec, images.Pixel):
            optimizer = optimizers.steepest(0.002, norm="mean_abs")
    root = as_key(key)
    radius = _radius(spec, eps, norm)
    begun = _start(start, spec, root, flat)
    keys = fold_each(root, flat)
    position = None if begun is None else jax.vmap(jax.vmap(spec.encode))(begun)
    ascent = Ascent(spec, optimizer, views=views)
    goal: Objective = _OBJECTIVES[objective](flat)
    problem = Problem(goal, penalties).broadcast(count)
    problem = struct.replace(problem, constraint=_constraint(spec, begun, radius, norm))

    def shaped(array: np.ndarray) -> np.ndarray:
        return array.reshape((*units.shape, *array.shape[1:]))

    def watched(step: int, pictures: np.ndarray, info: FoolInfo) -> Any:
        assert callback is not None
        return callback(step, shaped(pictures), shaped(np.asarray(info.score)))

    found = sorted(
        engine.stream(
            UntilSure(
                ascent, on_device(jnp.inf if confidence is None else confidence, jnp.float32)
            ),
            model,
            problem,
            keys,
            steps=steps,
            pixels=ascent.pixels,
            starts=position,
            snapshots=(0, *snapshots),
            callback=None if callback is None else watched,
            chunk=chunk,
            checkpoint=checkpoint,
            progress=progress,
            label=f"fool {model.name}",
        ),
        key=lambda each: each.example,
    )
    pictures = np.stack([each.result for each in found])
    taken = max(each.made for each in found)
    # A picture that is done stays as it is.
    kept = {
        step: np.stack([each.snapshots.get(step, each.result) for each in found])
        for step in sorted({0, *snapshots})
        if step <= taken
    }
    info = jax.tree.map(
        lambda *leaves: np.stack(
            [leaf[np.minimum(np.arange(taken), len(leaf) - 1)] for leaf in leaves]
        ),
        *(each.info for each in found),
    )
    logits = np.asarray(model(pictures))
    last = np.asarray(jax.jit(jax.nn.softmax)(on_device(logits)))[np.arange(count), flat]
    leads = np.concatenate([info.leads, (logits.argmax(1) == flat)[:, None]], 1)
    scores = info.score
    starts = kept[0] if 0 in snapshots else kept.pop(0)
    config = describe(
        function="fool",
        model=model.name,
        target=flat,
        start=start if isinstance(start, str) else starts,
        objective=objective,
        eps=eps,
        norm=norm,
        confidence=confidence,
        steps=steps,
        image=spec,
        transforms=views,
        regularizers=penalties,
        optimizer=optimizer,
        snapshots=tuple(snapshots),
        key=root,
    )
    return Fooling(
        shaped(pictures),
        shaped(scores),
        shaped(np.asarray(goal.titles(model.classes))),
        {step: shaped(stage) for step, stage in kept.items()},
        shaped((scores.max(1) == scores.min(1)) & (steps > 1)),
        config,
        starts=shaped(starts),
        probabilities=shaped(np.concatenate([info.probability, last[:, None]], 1)),
        since=shaped(np.where(leads.any(1), leads.argmax(1), -1)),
    )


def _listed(argument: str, given: Any) -> tuple[Any, ...]:
    if callable(given) or isinstance(given, str) or not all(map(dataclasses.is_dataclass, given)):
        raise TypeError(f"{argument}: a list of rvis.{argument} was expected, given {given!r}")
    return tuple(given)


def _parameterization(model: Model, image: str | Parameterization) -> Parameterization:
    if isinstance(image, str):
        return images.named(checks.choice("image", image, _KINDS), model.input_shape)
    if not hasattr(image, "decode") or isinstance(image, (images.RGBA, images.MACO)):
        raise TypeError(
            f"image: {', '.join(map(repr, _KINDS))} or such a parameterization was expected, given "
            f"{image!r}"
        )
    if image.shape[2] != model.input_shape[2]:
        raise ValueError(
            f"image: {model.input_shape[2]} channels were expected by {model.name}, given "
            f"{image.shape[2]}"
        )
    return image


def _start(start: Any, spec: Parameterization, root: Array, flat: np.ndarray) -> Array | None:
    """(m, 1, H, W, C) to start from, or None for the parameterization's own noise."""
    count = len(flat)
    if isinstance(start, str):
        if checks.choice("start", start, ("noise", "grey")) == "grey":
            return on_device(np.full((count, 1, *spec.shape), 0.5, np.float32))
        if not isinstance(spec, images.Pixel):
            return None
        draw = jax.jit(jax.vmap(lambda key: jax.random.uniform(key, spec.shape, jnp.float32)))
        return draw(fold_each(root, flat))[:, None]
    given = checks.images("start", start, shape=spec.shape)
    checks.one_or_each("start", len(given), count, "classes")
    return jnp.broadcast_to(given, (count, *spec.shape))[:, None]


def _radius(spec: Parameterization, eps: Any, norm: str) -> float | None:
    """How far pictures may go, checked."""
    checks.choice("norm", norm, BALLS)
    if eps is not None:
        checks.number("eps", eps, low=0)
        if not isinstance(spec, images.Pixel):
            raise ValueError(f"eps: pixels were expected with it, given image {spec}")
    return eps


def _constraint(spec: Parameterization, begun: Array | None, eps: Any, norm: str) -> Any:
    """Where the m positions may be."""
    if not isinstance(spec, images.Pixel):
        return None
    assert begun is not None  # pixels always start somewhere
    radius = np.full(len(begun), 0 if eps is None else eps, np.float32)
    if eps is None:
        return projections.Box(radius, radius + 1)
    return BALLS[norm](begun, radius)
