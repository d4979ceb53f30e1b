"""What texture and transfer share: pictures that climb from scale to scale."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks, engine, files, objectives, projections, regularizers, struct
from rvis.ascent import Ascent, BoxLBFGS, BoxState, Problem, watcher
from rvis.images import Pixel
from rvis.models import taps
from rvis.objectives import Objective
from rvis.optimizers import Optimizer
from rvis.results import Result, describe
from rvis.types import Array, KeyLike, Model, as_key, fold_each, on_device

MEMORY = 20
"""Pairs that L-BFGS remembers, as Gatys et al. 2015 have it."""


@dataclasses.dataclass(frozen=True, eq=False)
class StyleResult(Result):
    """Pictures with a style, and how near they came.

    `scores` is the total (objective less penalties) of the last accepted picture after each
    evaluation under L-BFGS, which never falls, and that before each step under another optimizer;
    with several scales one after another.

    Attributes:
      style_loss: (m,) of `images`, after any histogram matching (of their luminance, where that
        alone was transferred); 0 where every Gram matrix is matched.
      content_loss: (m,) likewise, without the ratio; NaN where there is no content.
    """

    style_loss: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    content_loss: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))


class Options(TypedDict, total=False):
    """What `transfer` and `texture` take besides their pictures.

    Attributes:
      tv: weight of the total variation; 0 by default.
      scales: sizes as shares of the result's, rising and ending with 1, which is the default; each
        starts from the one before, enlarged.
      tile: larger pictures are seen in windows of at most so many pixels a side, so that memory
        does not grow with the network's activations, but for those of the content layers. They
        overlap by the layers' receptive fields, and loss and gradient are those of the whole but
        for rounding, for networks that do the same at every place (not with coordinates or sizes
        for inputs). On VGG-16 at 1024×768 an evaluation takes 2.6 times as long in windows of 512,
        3.1 times in windows of 384. None for the whole at once.
      key: an int seed or a typed key, for noise.
      steps: evaluations of the network and its gradient at each scale; 500 by default.
      optimizer: L-BFGS in the box by default; or one of `rvis.optimizers`, such as adam(0.02).
      chunk: pictures at once, for memory's sake.
      checkpoint: a folder for the state of an interrupted run; the same call then goes on.
      snapshots: evaluations of the last scale after which to keep the pictures.
      callback: called as `callback(step, images, scores)` after each evaluation, with the images at
        the scale's size and all scores so far; True ends the run.
      progress: a bar on a terminal.
    """

    tv: float
    scales: Sequence[float]
    tile: int | None
    key: KeyLike
    steps: int
    optimizer: Optimizer | None
    chunk: int | None
    checkpoint: files.PathLike | None
    snapshots: Sequence[int]
    callback: Callable[[int, np.ndarray, np.ndarray], Any] | None
    progress: bool


@struct.dataclass
class _Accepted(BoxLBFGS):
    """L-BFGS that shows the last point it accepted, and not the next that it tries."""

    def images(self, state: BoxState) -> Array:
        return state.point


class Goal(NamedTuple):
    """What is asked at one size: of which network, in all, and the two parts by themselves."""

    model: Model
    total: Objective
    style: Objective
    content: Objective | None


def climb(
    model: Model,
    goal_at: Callable[[tuple[int, int]], Goal],
    size: tuple[int, ...],
    begin: Array | None,
    options: Options,
    *,
    titles: Sequence[str],
    single: bool,
    finish: Callable[[np.ndarray], np.ndarray],
    config: dict[str, Any],
) -> StyleResult:
    """From coarse to fine, a picture for each title."""
    sizes = _sizes(options.get("scales", (1.0,)), size)
    steps = checks.count("steps", options.get("steps", 500))
    marks = sorted(set(options.get("snapshots", ())))
    for mark in marks:
        checks.integers("snapshots", mark, high=steps + 1, what="the steps")
    optimizer, chunk = options.get("optimizer"), options.get("chunk")
    callback = options.get("callback")
    tv = checks.number("tv", options.get("tv", 0.0), low=0)
    penalties = (regularizers.total_variation(tv),) if tv else ()
    channels, count = model.input_shape[2], len(titles)
    goals = [goal_at(size) for size in sizes]
    for size, goal in zip(sizes, goals, strict=True):
        objectives.check(goal.total, goal.model, (*size, channels))
    key = as_key(options.get("key", 0))
    keys = fold_each(key, np.arange(count))

    def shaped(array: np.ndarray) -> np.ndarray:
        return array[0] if single else array

    def rise(carry: engine.Carry, folder: Path | None, *, scale: int) -> engine.Carry:
        """One scale: (pictures, scores so far), in the end with the snapshots."""
        pictures, scores = carry
        image = Pixel((*sizes[scale], channels), sd=0.1)
        if scale:
            pictures = resized(on_device(pictures), sizes[scale])
        elif begin is None:
            pictures = jnp.clip(jax.vmap(image.init)(keys), 0, 1)
        else:
            pictures = jnp.broadcast_to(resized(begin, sizes[0]), (count, *image.shape))
        if scores.shape[1] < scale * steps:  # the callback has ended the run
            return pictures, scores
        algorithm: Ascent | BoxLBFGS = _Accepted(image, MEMORY)
        constraint = None
        if optimizer is not None:
            algorithm, constraint = Ascent(image, optimizer), projections.Box()
        goal = goals[scale]
        run = engine.run(
            algorithm,
            goal.model,
            Problem(goal.total, penalties, constraint).broadcast(count),
            keys,
            steps=steps,
            pixels=algorithm.pixels,
            starts=pictures[:, None],
            snapshots=marks if scale == len(sizes) - 1 else (),
            callback=watcher(callback, shaped, scores),
            chunk=chunk,
            checkpoint=folder,
            progress=options.get("progress", True),
            label=f"{model.name} {sizes[scale][0]}×{sizes[scale][1]}",
        )
        scores = np.concatenate([scores, run.info.energy], 1)
        return run.result[:, 0], scores, *(run.snapshots[m][:, 0] for m in run.snapshots)

    parts = (config, sizes, begin, penalties, optimizer, steps, marks, options.get("tile"), key)
    climbed, scores, *kept = engine.in_stages(
        [functools.partial(rise, scale=scale) for scale in range(len(sizes))],
        (np.zeros((count, 0)), np.zeros((count, 0), np.float32)),
        about=(*parts, model.unnamed()),
        checkpoint=options.get("checkpoint"),
    )
    climbed = np.asarray(climbed)
    images = finish(climbed)
    # Luminance was climbed alone, so that it alone can be judged.
    judged = climbed if config.get("colour") == "luminance" else images
    goal = goals[-1]
    content_loss = np.full(count, np.nan)
    if goal.content is not None:
        content_loss = _losses(goal.model, goal.content, judged)
    return StyleResult(
        shaped(images),
        shaped(scores),
        shaped(np.asarray(titles, object)),
        {mark: shaped(finish(pictures)) for mark, pictures in zip(marks, kept, strict=False)},
        config=describe(
            **config,
            sizes=sizes,
            tv=tv,
            tile=options.get("tile"),
            optimizer=optimizer or "L-BFGS",
            steps=steps,
            key=key,
        ),
        style_loss=shaped(_losses(goal.model, goal.style, judged)),
        content_loss=shaped(content_loss),
    )


def _losses(model: Model, objective: Objective, images: np.ndarray) -> np.ndarray:
    """(n,) of pictures (n, H, W, C)."""
    count, height, width, _ = images.shape
    problems = (objective.broadcast(count), images)
    return engine.apply(_loss, model, problems, pixels=height * width).astype(np.float64)


def _loss(model: Model, problem: tuple[Objective, Array]) -> Array:
    objective, image = problem
    return -objective(taps.activations(model, image[None], objective.layers))


def _sizes(scales: Sequence[float], size: tuple[int, ...]) -> list[tuple[int, int]]:
    values = [checks.number("scales", scale, above=0) for scale in scales]
    if not values or values[-1] != 1 or values != sorted(set(values)):
        raise ValueError(f"scales: rising numbers that end with 1 were expected, given {scales!r}")
    return [scaled(size, value) for value in values]


def scaled(shape: Sequence[int], factor: float) -> tuple[int, int]:
    """Height and width, times a factor."""
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def resized(images: Array | None, size: Sequence[int]) -> Any:
    """(..., H, W, C) at another size, bicubic with antialiasing, in [0, 1]."""
    if images is None or images.shape[-3:-1] == tuple(size):
        return images
    shape = (*images.shape[:-3], *size, images.shape[-1])
    return jnp.clip(jax.image.resize(images, shape, "cubic"), 0, 1)
