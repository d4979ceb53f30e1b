"""Feature visualization: the picture that raises an objective most."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rvis import checks, engine, gate, images, objectives, projections
from rvis.analysis.receptive import receptive_field
from rvis.ascent import AscentInfo, Problem
from rvis.files import PathLike
from rvis.images import Parameterization
from rvis.objectives import Objective
from rvis.optimizers import Optimizer
from rvis.post_step import PostStep
from rvis.results import Result
from rvis.transforms import Transform
from rvis.types import Array, ArrayLike, KeyLike, Model, fold_each
from rvis.visualization.plan import encoded, make_plan


@gate.public
def visualize(
    model: Model,
    target: Any,
    *,
    size: int | tuple[int, int] | str | None = None,
    image: str | Parameterization = "fourier",
    start: ArrayLike | None = None,
    transforms: Sequence[Transform] | None = None,
    regularizers: Sequence[Callable[[Array], Array]] = (),
    post_step: Sequence[PostStep] = (),
    facets: int = 1,
    best: bool = False,
    every: int = 1,
    key: KeyLike = 0,
    steps: int = 512,
    optimizer: Optimizer | None = None,
    chunk: int | None = None,
    checkpoint: PathLike | None = None,
    snapshots: Sequence[int] = (),
    callback: Callable[[int, np.ndarray, np.ndarray], Any] | None = None,
    progress: bool = True,
) -> Result:
    """Pictures that maximise an objective, by gradient ascent on the input.

    The defaults are lucid's: a Fourier image with decorrelated colours, Adam, random views, and
    ReLUs that let a blocked gradient through for the first 16 steps and whenever a score stands
    still. From 160 pixels on the image's spectrum falls with decay 1.5 instead of 1, which draws
    whole shapes where lucid's draws fine waves; 128 to 256 steps do there. On a robust network none
    of it is needed:
    `image="pixel", transforms=(), optimizer=rvis.optimizers.steepest(0.5), steps=60`.

    Args:
      model: any model.
      target: an objective, of one or many (`channel("layer3", range(64))` is 64), or a class, whose
        logit is raised: its number or name, or a list of them.
      size: height and width of the picture in pixels, or one number for both; the model's own by
        default. "receptive_field" is exactly what a unit of the layer can see
        (`analysis.receptive`); a neuron without a position is then the one whose field is the
        picture.
      image: a name of `rvis.images.KINDS` ("fourier", "pixel" …) or a parameterization. The
        pictures of "rgba" have their opacity as a last channel; those of "maco" come with the
        result's `alpha`, where the objective's gradient was.
      start: an image (H, W, C) to start from instead of noise, or one for each member.
      transforms: random transformations between image and model, none if empty. By default
        `transforms.lucid(size)`, with a vision transformer's patch, and for a CPPN none, as in its
        article.
      regularizers: penalties on the image, each subtracted.
      post_step: what each step does to the image after it has climbed, see `rvis.post_step`.
      facets: pictures for each objective, optimized together from different noise.
      best: whether the pictures are those that scored highest, less penalties, of all before a
        step, as the model saw them in it, instead of the last, which were not scored; snapshots
        then are the best until their step.
      every: steps from one call of `callback` to the next; the last step has its call too.
      key: an int seed or a typed key. Member i uses `fold_in(key, unit)`, or its position where it
        has no unit number, so that a unit's picture is the same alone and in a sweep.
      steps: gradient steps.
      optimizer: of `rvis.optimizers`, `from_optax` for any other; Adam by default, at .05 and
        for a CPPN at .005, with decay 1.5 at 1.28/steps and .05 at most; for MACO NAdam at .25.
      chunk: objectives at once; bounds memory, never changes pictures.
      checkpoint: a folder for the state of an interrupted run; the same call then goes on.
      snapshots: steps after which to keep the pictures, 0 for the start.
      callback: `callback(step, images, scores)` is called between steps, with how many were made
        and, in the shapes of the Result's, the pictures after them and the scores before each.
        Where it returns True the climb ends. All objectives climb side by side then, so that no
        `chunk` bounds memory.
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

    Reference: Olah, Mordvintsev & Schubert 2017, Feature Visualization (distill);
      tensorflow/lucid, `optvis/render.py`; accentuation: serre-lab/Horama.
    """
    objective = target
    if not isinstance(target, Objective):
        objective = objectives.target("target", target, model, model.input_shape)
    checks.count("every", every)
    options: dict[str, Any] = {"key": key, "size": size, "steps": steps, "start": start}
    options |= {"transforms": transforms, "regularizers": regularizers, "post_step": post_step}
    options |= {"optimizer": optimizer, "facets": facets, "snapshots": snapshots}
    plan = make_plan(model, objective.layers, image=image, best=best, chunk=chunk, **options)
    spec = plan.algorithm.image
    if size == "receptive_field":
        objective = _centred(objective, model, plan.shown[:2])
    objectives.check(objective, model, plan.shown)
    batch = objective.batch_shape
    count = batch[0] if batch else 1
    if count == 0:
        raise ValueError("objective: at least one unit was expected, given none")
    position = None if plan.start is None else encoded(plan.start, spec, count, facets)
    constraint = projections.Box() if isinstance(spec, images.Pixel) else None
    problem = Problem(objective, plan.penalties, constraint).broadcast(count)
    identities = objective.identities()
    numbers = np.arange(count) if identities is None else np.broadcast_to(identities, (count,))
    keys = fold_each(plan.key, numbers)
    labels = np.broadcast_to(objective.titles(model.classes), batch)

    def shaped(array: np.ndarray, rest: int) -> np.ndarray:
        """Without the axes of a single objective and a single facet."""
        lead = array.shape[: array.ndim - rest]
        keep = (*batch, *((facets,) if len(lead) > 1 and facets > 1 else ()))
        return array.reshape((*keep, *array.shape[array.ndim - rest :]))

    def watch(step: int, pictures: np.ndarray, info: AscentInfo) -> Any:
        assert callback is not None
        opaque = pictures[..., :-1] if plan.algorithm.saliency else pictures
        return callback(step, shaped(opaque, 3), shaped(np.asarray(info.score), 1))

    found = engine.run(
        plan.algorithm,
        model,
        problem,
        keys,
        steps=steps,
        pixels=plan.algorithm.pixels,
        starts=position,
        snapshots=plan.snapshots,
        callback=None if callback is None else watch,
        every=every,
        chunk=chunk,
        checkpoint=checkpoint,
        progress=progress,
        label=model.name,
    )
    scores, pictures, kept = found.info.score, found.result, dict(found.snapshots)
    alpha = None
    if plan.algorithm.saliency:
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
