"""Feature visualization: the picture that raises an objective most."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rvis import checks, core, images, objectives, projections
from rvis.images import Parameterization
from rvis.iterates import IterateMap
from rvis.objectives import Objective
from rvis.optimizers import Optimizer
from rvis.receptive import receptive_field
from rvis.results import Result
from rvis.transforms import Transform
from rvis.types import Array, ArrayLike, KeyLike, Model, fold_each
from rvis.visualize.plan import encoded, make_plan


def visualize(
    model: Model,
    objective: Objective,
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
    checkpoint: str | Path | None = None,
    callback: Callable[[int, np.ndarray, np.ndarray], bool | None] | None = None,
    every: int = 1,
    progress: bool = True,
) -> Result:
    """Pictures that maximise an objective, by gradient ascent on the input.

    The defaults are lucid's: a Fourier image with decorrelated colours, Adam at .05, 512 steps,
    random padding, jitter, scaling and rotation, and ReLUs that let a blocked gradient through for
    the first 16 steps, and whenever an objective's score, of all its facets, stands still. On a
    robust network none of it is needed:
    `image="pixel", transforms=(), optimizer=rvis.optimizers.steepest(0.5), steps=60`.

    Args:
      model: any model.
      objective: one or many (`channel("layer3", range(64))` is 64).
      key: an int seed or a typed key. Member i uses `fold_in(key, unit)`, or its position where it
        has no unit number, so that a unit's picture is the same alone and in a sweep.
      size: height and width of the picture in pixels, or one number for both; the model's own by
        default.
        "receptive_field" is exactly what a unit of the layer can see (`rvis.receptive`); a neuron
        without a position is then the one whose field is the picture.
      steps: gradient steps.
      image: a name of `rvis.images.KINDS` ("fourier", "pixel" …) or a parameterization. The
        pictures of "rgba" have their opacity as a last channel; those of "maco" come with the
        result's `alpha`, where the objective's gradient was.
      start: an image (H, W, C) to start from instead of noise, or one for each member.
      transforms: random transformations between image and model, none if empty. By default
        `transforms.lucid(size)`, and for a CPPN none, as in its article.
      regularizers: penalties on the image, each subtracted.
      maps: what each step does to the image after it has climbed, see `rvis.iterates`.
      optimizer: of `rvis.optimizers`, `from_optax` for any other; Adam by default, at .05 and
        for a CPPN at .005, and for MACO NAdam at .25.
      facets: pictures for each objective, optimized together from different noise.
      snapshots: steps after which to keep the pictures, 0 for the start.
      chunk: objectives at once; bounds memory, never changes pictures.
      best: whether the pictures are those that scored highest, less penalties, of all before a
        step, as the model saw them in it, instead of the last, which were not scored; snapshots
        then are the best until their step.
      checkpoint: a folder for the state of an interrupted run; the same call then goes on.
      callback: `callback(step, images, scores)` is called between steps, with how many were made
        and, in the shapes of the Result's, the pictures after them and the scores before each.
        Where it returns True the climb ends there: the result has these pictures, scores for the
        steps that were made and the snapshots that were reached. Otherwise it changes no picture.
        All objectives climb side by side then, so that no `chunk` bounds memory. After an
        interruption (`checkpoint`) it is called for the steps that were left.
      every: steps from one call of `callback` to the next; the last step has its call too. Each
        call waits for its pictures, and the steps between are made in one piece where `every`
        divides `steps` (and `snapshots`), in their greatest common divisor where not.
      progress: a bar on a terminal.

    Returns:
      A Result whose `images` are (m, facets, H, W, C), without the first axis for a single
      objective and without the second for a single facet.

    Raises:
      ValueError, TypeError: naming the argument: a misspelt layer, a unit out of range, a size the
        model cannot take, images outside [0, 1]; before anything is compiled.
      FloatingPointError: if a score becomes NaN.

    Example:
      >>> import rvis
      >>> model = rvis.load("mnist_cnn")
      >>> result = rvis.visualize(model, rvis.objectives.logit([3, 8]), steps=8)
      >>> result.images.shape
      (2, 28, 28, 1)

      What a network sees in an image, exaggerated (accentuation): start there, and pay for the
      distance.

      >>> photo = result.images[0]
      >>> near = rvis.regularizers.distance(1.0 / photo.size, photo)
      >>> three = rvis.objectives.logit(3)
      >>> rvis.visualize(model, three, start=photo, regularizers=[near], steps=8).images.shape
      (28, 28, 1)

      A climb that ends where it has come high enough.

      >>> def high(step, images, scores):
      ...     return scores[-1] > 5
      >>> short = rvis.visualize(model, three, steps=80, callback=high, every=8)
      >>> short.scores.shape < (80,), bool(short.scores[-1] > 5)
      (True, True)

    Reference: Olah, Mordvintsev & Schubert 2017, Feature Visualization (distill);
      tensorflow/lucid, `optvis/render.py`; accentuation: serre-lab/Horama.
    """
    if not isinstance(objective, Objective):
        objectives.check(objective, model, model.input_shape)
    checks.count("every", every)
    if callback is not None and not callable(callback):
        raise TypeError(f"callback: a function was expected, given {callback!r}")
    plan = make_plan(
        model,
        objective.layers,
        key=key,
        size=size,
        steps=steps,
        image=image,
        start=start,
        transforms=transforms,
        regularizers=regularizers,
        maps=maps,
        optimizer=optimizer,
        facets=facets,
        snapshots=snapshots,
        chunk=chunk,
        best=best,
    )
    spec = plan.algorithm.image
    if size == "receptive_field":
        objective = _centred(objective, model, plan.shown[:2])
    objectives.check(objective, model, plan.shown)
    batch = objective.batch_shape
    count = batch[0] if batch else 1
    if count == 0:
        raise ValueError("objective: at least one unit was expected, given none")
    if callback is not None:
        if chunk is not None and chunk < count:
            raise ValueError(
                f"chunk: at least {count} was expected beside a callback, to which all objectives "
                f"are shown at once, given {chunk}"
            )
        chunk = -(-count // jax.local_device_count())
    position = None if plan.start is None else encoded(plan.start, spec, count, facets)
    constraint = projections.Box() if isinstance(spec, images.Pixel) else None
    problem = core.Problem(objective, plan.penalties, constraint).broadcast(count)
    identities = objective.identities()
    numbers = np.arange(count) if identities is None else np.broadcast_to(identities, (count,))
    keys = fold_each(plan.key, numbers)
    labels = np.broadcast_to(objective.titles(model.classes), batch)

    def shaped(array: np.ndarray, rest: int) -> np.ndarray:
        """Without the axes of a single objective and a single facet."""
        lead = array.shape[: array.ndim - rest]
        keep = (*batch, *((facets,) if len(lead) > 1 and facets > 1 else ()))
        return array.reshape((*keep, *array.shape[array.ndim - rest :]))

    def watch(step: int, pictures: np.ndarray, info: core.AscentInfo) -> Any:
        assert callback is not None
        opaque = pictures[..., :-1] if plan.algorithm.attention else pictures
        # Copies, which the user may write to.
        return callback(step, shaped(np.array(opaque), 3), shaped(np.array(info.score), 1))

    parts = list(
        core.drive(
            plan.algorithm,
            keys,
            model,
            problem,
            steps=steps,
            position=position,
            snapshots=plan.snapshots,
            width=core.width_for(spec.shape, facets),
            chunk=chunk,
            checkpoint=checkpoint,
            progress=progress,
            label=model.name,
            watch=None if callback is None else watch,
            every=every,
        )
    )
    scores = np.concatenate([part.info.score for part in parts])
    pictures = np.concatenate([part.images for part in parts])
    kept = {
        step: np.concatenate([part.snapshots[step] for part in parts])
        for step in parts[0].snapshots
    }
    alpha = None
    if plan.algorithm.attention:
        alpha = pictures[..., -1]
        pictures, kept = pictures[..., :-1], {s: stage[..., :-1] for s, stage in kept.items()}
    dead = (scores.max(1) == scores.min(1)) & (scores.shape[1] > 1)

    return Result(
        shaped(pictures, 3),
        shaped(scores, 1),
        labels[..., None] if facets > 1 else labels,
        {step: shaped(stage, 3) for step, stage in kept.items()},
        shaped(dead, 0),
        plan.describe(model, objective, function="visualize"),
        None if alpha is None else shaped(alpha, 2),
    )


def _centred(objective: Objective, model: Model, size: tuple[int, int]) -> Objective:
    """A neuron without a position put where its field is a picture of its field's size."""
    if not isinstance(objective, objectives.Neuron) or objective.position is not None:
        return objective
    field = receptive_field(model, objective.layer, size=size)
    if not any(field.stride):
        return objective
    place = [
        min(range(len(spans)), key=lambda i: (abs(spans[i][0] + spans[i][1] - length), i))
        for spans, length in zip((field.rows, field.columns), size, strict=True)
    ]
    return objectives.neuron(objective.layer, objective.unit, place)
