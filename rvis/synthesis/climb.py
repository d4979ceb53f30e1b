"""What every synthesis shares: projected steps up the probability of a class, from an image."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, TypedDict

import numpy as np
import PIL.Image

from rvis import checks, engine, files, objectives, optimizers, projections
from rvis.ascent import Ascent, Problem, watcher
from rvis.images import Pixel
from rvis.objectives import Objective
from rvis.plotting import grids
from rvis.regularizers import Regularizer, squared_distance
from rvis.results import Result, describe
from rvis.types import Array, ArrayLike, Model, as_key, fold_each, on_device


@dataclasses.dataclass(frozen=True, eq=False)
class Synthesis(Result):
    """Pictures made by climbing from others, with where they came from.

    Attributes:
      starts: (…, H, W, C) where each began.
      distances: (…) the L2 distance between start and picture, in units of the [0, 1] image.
    """

    starts: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 1, 1, 1)))
    distances: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))

    def show(self) -> PIL.Image.Image:
        """A row of starts, a row for each snapshot, and a row of pictures under their titles."""
        rows = {"start": self.starts}
        rows |= {f"step {step}": images for step, images in self.snapshots.items()}
        rows["picture"] = self.images
        shape = self.images.shape[-3:]
        return grids.grid(
            np.stack([images.reshape(-1, *shape) for images in rows.values()]),
            titles=[str(label) for label in self._flat_labels()],
            row_titles=list(rows),
        )


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A published radius, step and number of steps, at the image side it was published for."""

    side: int
    eps: float
    step_size: float
    steps: int


SCHEDULES = {
    "generate": (Schedule(32, 30.0, 0.5, 60), Schedule(224, 40.0, 1.0, 60)),
    "inpaint": (Schedule(224, 21.6, 0.1, 720),),
    "translate": (Schedule(224, 80.0, 0.5, 200),),
    "super_resolve": (Schedule(224, 8.0, 1.0, 40),),
    "sketch": (Schedule(224, 40.0, 1.0, 60),),
    "paint": (Schedule(224, 70.0, 1.0, 140),),
}
"""Santurkar et al. 2019, appendix, and MadryLab/robustness_applications; for images in [0, 1]."""


def schedule(
    task: str,
    size: tuple[int, int],
    eps: float | None,
    step_size: float | None,
    steps: int | None,
) -> Schedule:
    """What was published for the nearest size, with lengths scaled by √pixels, or what is given."""
    side = math.sqrt(size[0] * size[1])
    near = min(SCHEDULES[task], key=lambda known: abs(math.log(known.side / side)))
    scale = side / near.side
    return Schedule(
        round(side),
        near.eps * scale if eps is None else checks.number("eps", eps, low=0),
        near.step_size * scale
        if step_size is None
        else checks.number("step_size", step_size, above=0),
        near.steps if steps is None else checks.count("steps", steps),
    )


class Options(TypedDict, total=False):
    """What every synthesis takes besides its subject.

    Attributes:
      eps: radius of the L2 ball about the start, in units of the [0, 1] image.
      step_size: L2 length of a step.
      steps: how many. Each of the three is what was published for the task at the nearest image
        size, with lengths scaled by √(pixels), unless it is given.
      chunk: images at once, for memory's sake.
      checkpoint: a folder for the state of an interrupted run; the same call then goes on.
      snapshots: steps after which to keep the pictures, 0 for the start.
      callback: called as `callback(step, images, scores)` after each step; True ends the run.
      progress: a bar on a terminal.
    """

    eps: float | None
    step_size: float | None
    steps: int | None
    chunk: int | None
    checkpoint: files.PathLike | None
    snapshots: Sequence[int]
    callback: Callable[[int, np.ndarray, np.ndarray], Any] | None
    progress: bool


def planned(task: str, size: tuple[int, int], options: Options) -> Schedule:
    """The schedule for images of a size, once all options are checked."""
    lengths = (options.get("eps"), options.get("step_size"), options.get("steps"))
    plan = schedule(task, size, *lengths)
    for step in options.get("snapshots", ()):
        checks.integers("snapshots", step, high=plan.steps + 1, what="the steps")
    return plan


def climb(
    task: str,
    plan: Schedule,
    model: Model,
    starts: ArrayLike,
    objective: Objective,
    options: Options,
    *,
    single: bool,
    kept: tuple[float, np.ndarray, np.ndarray] | None = None,
    **about: Any,
) -> Synthesis:
    """L2-normalised steps up `objective` from `starts` (m, H, W, C), in a ball about them.

    Args:
      task: a name of `SCHEDULES`.
      plan: of `planned`.
      model: any model.
      starts: (m, H, W, C) in [0, 1].
      objective: checked; of m, one or no members.
      options: see `Options`.
      single: whether the result shall be without the leading axis.
      kept: (weight, reference, where): a penalty on the mean squared distance from (m, H, W, C)
        references, where a mask (m, H, W, 1) says so.
      about: arguments of the caller, for the card.
    """
    starts = np.asarray(starts)
    count, shape = len(starts), starts.shape[1:]
    snapshots, callback = tuple(options.get("snapshots", ())), options.get("callback")
    objective.check_count("target", count)
    labels = np.broadcast_to(objective.titles(model.classes), (count,))
    ball = projections.L2Ball(starts[:, None], np.full(count, plan.eps, np.float32))
    penalties: tuple[Any, ...] = ()
    if kept is not None:
        weight, reference, where = kept
        per_value = np.full(count, weight / math.prod(shape), np.float32)
        held = on_device(reference), on_device(where)
        penalties = (Regularizer(on_device(per_value), held, squared_distance),)
    ascent = Ascent(Pixel(shape), optimizers.steepest(plan.step_size, norm="l2"))

    def shaped(array: np.ndarray) -> np.ndarray:
        return array[0] if single else array

    run = engine.run(
        ascent,
        model,
        Problem(objective.broadcast(count), penalties, ball),
        fold_each(as_key(0), np.arange(count)),  # no step draws anything
        steps=plan.steps,
        pixels=ascent.pixels,
        starts=starts[:, None],
        snapshots=snapshots,
        callback=watcher(callback, shaped),
        chunk=options.get("chunk"),
        checkpoint=options.get("checkpoint"),
        progress=options.get("progress", True),
        label=task,
    )
    images, begun = run.result[:, 0], starts
    return Synthesis(
        shaped(images),
        shaped(run.info.score),
        labels[0] if single else labels,
        {step: shaped(stage[:, 0]) for step, stage in run.snapshots.items()},
        config=describe(
            function=f"synthesis.{task}",
            model=model.name,
            objective=objective,
            starts=begun,
            eps=plan.eps,
            step_size=plan.step_size,
            steps=plan.steps,
            snapshots=snapshots,
            **about,
        ),
        starts=shaped(begun),
        distances=shaped(np.sqrt(np.square(images - begun, dtype=np.float64).sum((1, 2, 3)))),
    )


def aim(model: Model, images: ArrayLike, target: Any) -> Objective:
    """The log-probability of classes by number or name, or an objective, checked for `images`.

    None stands for the class that the model itself gives each image.
    """
    _, height, width, channels = np.shape(images)
    shape = (height, width, channels)
    if target is None:
        objectives.check(objectives.logit(0), model, shape)
        target = engine.apply(_class, model, np.asarray(images), pixels=height * width)
    return objectives.target("target", target, model, shape, kind=objectives.probability)


def _class(model: Model, image: Array) -> Array:
    return model.apply(model.params, image[None])[0].argmax()
