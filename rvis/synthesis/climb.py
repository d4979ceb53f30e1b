"""What every synthesis shares: projected steps up the probability of a class, from an image."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image

from rvis import checks, core, objectives, optimizers, plots, projections
from rvis.images import Pixel
from rvis.objectives import Objective
from rvis.regularizers import Distance
from rvis.results import Result, describe
from rvis.types import Array, ArrayLike, Model


@dataclasses.dataclass(frozen=True, eq=False)
class Synthesis(Result):
    """Pictures made by climbing from others, with where they came from.

    Attributes:
      starts: (m, H, W, C) where each began.
      distances: (m,) the L2 distance between start and picture, in units of the [0, 1] image.
    """

    starts: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 1, 1, 1)))
    distances: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))

    def show(self) -> PIL.Image.Image:
        """A row of starts, a row for each snapshot, and a row of pictures under their titles."""
        rows = {"start": self.starts}
        rows |= {f"step {step}": images for step, images in self.snapshots.items()}
        rows["picture"] = self.images
        return plots.grid(
            np.stack(list(rows.values())),
            titles=[str(label) for label in self.labels],
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


def climb(
    model: Model,
    starts: Array,
    objective: Objective,
    plan: Schedule,
    *,
    function: str,
    kept: tuple[float, Array, Array] | None = None,
    snapshots: Sequence[int] = (),
    chunk: int | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
    **about: Any,
) -> Synthesis:
    """L2-normalised steps up `objective` from `starts` (m, H, W, C), in a ball about them.

    Args:
      model: any model.
      starts: (m, H, W, C) in [0, 1].
      objective: checked; of m, one or no members.
      plan: radius, step and steps.
      function: the public name, for the card.
      kept: (weight, reference, where): a penalty on the mean squared distance from (m, H, W, C)
        references, where a mask (m, H, W, 1) says so.
      snapshots, chunk, checkpoint, progress: as in `rvis.visualize`.
      about: arguments of the caller, for the card.
    """
    count, *shape = starts.shape
    for step in snapshots:
        checks.integers("snapshots", step, high=plan.steps + 1, what="the steps")
    if chunk is not None:
        checks.count("chunk", chunk)
    if objective.batch_shape not in ((), (1,), (count,)):
        raise ValueError(
            f"classes: one, or one for each of {count} images, was expected, given "
            f"{objective.batch_shape[0]}"
        )
    labels = np.broadcast_to(objective.titles(model.classes), (count,))
    ball = projections.L2Ball(starts[:, None], jnp.full(count, plan.eps, jnp.float32))
    penalties: tuple[Any, ...] = ()
    if kept is not None:
        weight, reference, where = kept
        per_value = jnp.full(count, weight / math.prod(shape), jnp.float32)
        penalties = (Distance(per_value, reference, where),)
    algorithm = core.Ascent(
        Pixel(tuple(shape)),  # type: ignore[arg-type]
        optimizers.steepest(plan.step_size, norm="l2"),
    )
    numbers = jnp.arange(count)
    outcomes = list(
        core.drive(
            algorithm,
            jax.vmap(lambda i: jax.random.fold_in(jax.random.key(0), i))(numbers),
            model,
            core.Problem(objective.broadcast(count), penalties, ball),
            steps=plan.steps,
            position=starts[:, None],
            snapshots=tuple(snapshots),
            width=core.width_for(tuple(shape)),  # type: ignore[arg-type]
            chunk=chunk,
            checkpoint=checkpoint,
            progress=progress,
            label=function,
        )
    )
    images = np.concatenate([outcome.images[:, 0] for outcome in outcomes])
    begun = np.asarray(starts)
    return Synthesis(
        images,
        np.concatenate([np.asarray(outcome.info.score) for outcome in outcomes]),
        labels,
        {
            step: np.concatenate([outcome.snapshots[step][:, 0] for outcome in outcomes])
            for step in sorted(set(snapshots))
        },
        config=describe(
            function=function,
            model=model.name,
            objective=objective,
            starts=begun,
            eps=plan.eps,
            step_size=plan.step_size,
            steps=plan.steps,
            snapshots=tuple(snapshots),
            **about,
        ),
        starts=begun,
        distances=np.sqrt(np.square(images - begun, dtype=np.float64).sum((1, 2, 3))),
    )


def aim(model: Model, images: Array, classes: Any) -> Objective:
    """The log-probability of classes by number or name, or an objective, checked for `images`.

    None stands for the class that the model itself gives each image.
    """
    shape = images.shape[1:]
    if classes is None:
        objectives.check(objectives.logit(0), model, shape)  # type: ignore[arg-type]
        classes = predictions(model, images)
    return objectives.target(
        "classes",
        classes,
        model,
        shape,  # type: ignore[arg-type]
        kind=objectives.probability,
    )


def predictions(model: Model, images: ArrayLike) -> np.ndarray:
    """The class that the model gives each image, a few at a time."""
    width = core.width_for(np.shape(images)[1:]) or 64  # type: ignore[arg-type]
    given = np.asarray(images)
    bare = model.unnamed()
    found = []
    for first in range(0, len(given), width):
        rows = np.minimum(np.arange(first, first + width), len(given) - 1)
        found.append(np.asarray(_classes(bare, given[rows]))[: len(given) - first])
    return np.concatenate(found)


@jax.jit
def _classes(model: Model, images: Array) -> Array:
    return model(images).argmax(-1)
