"""Feature visualization: the picture that raises an objective most, and whole layers of them."""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from rvis import (
    checkpoints,
    checks,
    core,
    files,
    images,
    objectives,
    plots,
    projections,
    transforms,
)
from rvis.images import Parameterization
from rvis.objectives import Objective
from rvis.optimizers import Optimizer, adam
from rvis.results import Result, describe
from rvis.taps import record
from rvis.transforms import Transform
from rvis.types import LOGITS, Array, ArrayLike, KeyLike, Model, as_key, layer_shapes


class Options(TypedDict, total=False):
    """The keyword arguments that `visualize` and `sweep` share."""

    key: KeyLike
    size: int | tuple[int, int] | None
    steps: int
    image: str | Parameterization
    start: ArrayLike | None
    transforms: Sequence[Transform] | None
    regularizers: Sequence[Callable[[Array], Array]]
    optimizer: Optimizer | None
    facets: int
    snapshots: Sequence[int]
    chunk: int | None
    progress: bool


def visualize(
    model: Model,
    objective: Objective,
    *,
    key: KeyLike = 0,
    size: int | tuple[int, int] | None = None,
    steps: int = 512,
    image: str | Parameterization = "fourier",
    start: ArrayLike | None = None,
    transforms: Sequence[Transform] | None = None,
    regularizers: Sequence[Callable[[Array], Array]] = (),
    optimizer: Optimizer | None = None,
    facets: int = 1,
    snapshots: Sequence[int] = (),
    chunk: int | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> Result:
    """Pictures that maximise an objective, by gradient ascent on the input.

    The defaults are lucid's: a Fourier image with decorrelated colours, Adam at .05, 512 steps,
    random padding, jitter, scaling and rotation, and ReLUs that let a blocked gradient through for
    the first 16 steps. On a robust network none of it is needed:
    `image="pixel", transforms=(), optimizer=rvis.optimizers.steepest(0.5), steps=60`.

    Args:
      model: any model.
      objective: one or many (`channel("layer3", range(64))` is 64).
      key: an int seed or a typed key. Member i uses `fold_in(key, unit)`, or its position where it
        has no unit number, so that a unit's picture is the same alone and in a sweep.
      size: height and width in pixels, or one number for both; the model's own by default.
      steps: gradient steps.
      image: "fourier", "pixel" or a parameterization of `rvis.images`.
      start: an image (H, W, C) to start from instead of noise, or one for each member.
      transforms: random transformations between image and model; `transforms.lucid(size)` by
        default, none if empty.
      regularizers: penalties on the image, each subtracted.
      optimizer: of `rvis.optimizers`; `adam(0.05)` by default.
      facets: pictures for each objective, optimized together from different noise.
      snapshots: steps after which to keep the pictures, 0 for the start.
      chunk: objectives at once; bounds memory, never changes pictures.
      checkpoint: a folder for the state of an interrupted run; the same call then goes on.
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
      tensorflow/lucid, `optvis/render.py`.
    """
    plan = _plan(
        model,
        key=key,
        size=size,
        steps=steps,
        image=image,
        start=start,
        transforms=transforms,
        regularizers=regularizers,
        optimizer=optimizer,
        facets=facets,
        snapshots=snapshots,
        chunk=chunk,
    )
    spec = plan.algorithm.image
    objectives.check(objective, model, spec.shape)
    batch = objective.batch_shape
    count = batch[0] if batch else 1
    if count == 0:
        raise ValueError("objective: at least one unit was expected, given none")
    position = None if plan.start is None else _encoded(plan.start, spec, count, facets)
    constraint = projections.Box() if isinstance(spec, images.Pixel) else None
    problem = core.Problem(objective, plan.penalties, constraint).broadcast(count)
    identities = objective.identities()
    numbers = np.arange(count) if identities is None else np.broadcast_to(identities, (count,))
    keys = jax.vmap(lambda number: jax.random.fold_in(plan.key, number))(jnp.asarray(numbers))
    labels = np.broadcast_to(objective.titles(model.classes), batch)
    pictures = np.empty((count, facets, *spec.shape), np.float32)
    scores = np.empty((count, steps), np.float32)
    kept = {step: np.empty_like(pictures) for step in plan.snapshots}
    for outcome in core.drive(
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
    ):
        rows = slice(outcome.rows.start, outcome.rows.stop)
        pictures[rows] = outcome.images
        scores[rows] = outcome.info.score
        for step, stage in outcome.snapshots.items():
            kept[step][rows] = stage
    dead = (scores.max(1) == scores.min(1)) & (steps > 1)

    def shaped(array: np.ndarray, rest: int) -> np.ndarray:
        """Without the axes of a single objective and a single facet."""
        lead = array.shape[: array.ndim - rest]
        keep = (*batch, *((facets,) if len(lead) > 1 and facets > 1 else ()))
        return array.reshape((*keep, *array.shape[array.ndim - rest :]))

    return Result(
        shaped(pictures, 3),
        shaped(scores, 1),
        labels[..., None] if facets > 1 else labels,
        {step: shaped(stage, 3) for step, stage in kept.items()},
        shaped(dead, 0),
        plan.describe(model, objective, function="visualize"),
    )


def sweep(
    model: Model,
    layer: str,
    units: Iterable[int] | None = None,
    *,
    out: str | Path | None = None,
    **options: Unpack[Options],
) -> Result:
    """Pictures of a whole layer's channels (or of some), each the same as it would be alone.

    Args:
      model: any model.
      layer: a name of `model.layers`, or "logits" for the classes.
      units: channel numbers; all by default.
      out: a folder that receives each unit's picture as soon as it is finished. An interrupted
        sweep into the same folder with the same arguments goes on with the units that are missing;
        in the end a spritemap and a card join them.
      **options: of `visualize`.

    Returns:
      A Result with one member a unit.

    Raises:
      ValueError: naming `out`, if the folder holds a sweep with other arguments; otherwise as
        `visualize`.

    Example:
      >>> import rvis
      >>> model = rvis.load("mnist_cnn")
      >>> rvis.sweep(model, "conv1", range(3), steps=4, transforms=()).images.shape
      (3, 28, 28, 1)
    """
    plan = _plan(model, **options)
    shapes = layer_shapes(model, plan.algorithm.image.shape)
    checks.choice("layer", layer, (*model.layers, LOGITS))
    width = shapes[layer][-1] if layer in shapes else 1
    given = range(width) if units is None else list(units)
    checks.integers("units", np.asarray(given), high=width, what=f"layer {layer!r}")
    objective = objectives.channel(layer, given)
    objectives.check(objective, model, plan.algorithm.image.shape)
    if out is None:
        return visualize(model, objective, **options)
    folder = Path(out)
    about = plan.fingerprint(model, layer)
    numbers = [int(number) for number in given]
    done = {number: _stored(folder / f"unit{number:05d}.npz", about) for number in numbers}
    missing = [number for number in numbers if done[number] is None]
    shape, facets = plan.algorithm.image.shape, plan.algorithm.facets
    step = options.get("chunk") or core.width_for(shape, facets) or 64
    for first in range(0, len(missing), step):
        some = missing[first : first + step]
        result = visualize(model, objectives.channel(layer, some), **options)
        stages = [result.snapshots[mark] for mark in plan.snapshots]
        for i, number in enumerate(some):
            unit = _Unit(
                result.images[i],
                result.scores[i],
                np.stack([stage[i] for stage in stages]) if stages else np.zeros(0),
            )
            file = folder / f"unit{number:05d}.npz"
            with files.atomic(file) as temporary, open(temporary, "wb") as stream:
                np.savez(stream, about=np.asarray(about), **unit._asdict())  # type: ignore[arg-type]
            done[number] = unit
    found = [kept for number in numbers if (kept := done[number]) is not None]
    scores = np.stack([unit.scores for unit in found])
    labels = objective.titles(model.classes)
    result = Result(
        np.stack([unit.images for unit in found]),
        scores,
        labels[:, None] if facets > 1 else labels,
        {
            mark: np.stack([unit.snapshots[i] for unit in found])
            for i, mark in enumerate(plan.snapshots)
        },
        (scores.max(1) == scores.min(1)) & (scores.shape[1] > 1),
        plan.describe(model, objective, function="sweep"),
    )
    sheet = result.images.reshape(-1, *result.images.shape[-3:])
    plots.save(plots.spritemap(sheet), folder / "spritemap.png")
    files.write_json(folder / "sweep.json", {**result.config, "dead": result.dead.tolist()})
    return result


class _Unit(NamedTuple):
    """What a sweep keeps of a unit."""

    images: np.ndarray
    scores: np.ndarray
    snapshots: np.ndarray


def _stored(file: Path, about: str) -> _Unit | None:
    if not file.exists():
        return None
    try:
        with np.load(file, allow_pickle=False) as stored:
            same = str(stored["about"]) == about
            unit = _Unit(*(stored[field] for field in _Unit._fields))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"out: {file} cannot be read ({error}); delete it") from error
    if not same:
        raise ValueError(
            f"out: {file.parent} holds a sweep with other arguments; choose another folder or "
            "delete it"
        )
    return unit


def faithfulness(
    model: Model, objective: Objective, pictures: ArrayLike, real: ArrayLike, *, batch: int = 100
) -> np.ndarray:
    """How a picture's clean activation ranks among those of real images.

    Args:
      model: any model.
      objective: m objectives of one layer each.
      pictures: (m, H, W, C), one for each objective.
      real: (n, H, W, C) images to compare with.
      batch: real images at once.

    Returns:
      (m,) percentiles in [0, 100]: the share of real images that raise the objective less.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis.visualize import faithfulness
      >>> model = rvis.load("mnist_cnn")
      >>> digits = np.zeros((4, 28, 28, 1), np.float32)
      >>> faithfulness(model, rvis.objectives.logit([1]), digits[:1], digits).tolist()
      [0.0]
    """
    shown = checks.images("pictures", pictures, channels=model.input_shape[2])
    others = checks.images("real", real, channels=model.input_shape[2])
    count, height, width, channels = shown.shape
    objectives.check(objective, model, (height, width, channels))
    if objective.batch_shape not in ((count,), ()):
        raise ValueError(
            f"pictures: one for each of {objective.batch_shape} objectives was expected, given "
            f"{count}"
        )
    many = objective.broadcast(count)

    @jax.jit
    def score(activations: dict[str, Array], many: Objective) -> Array:
        """(m, n) scores, each objective on each image by itself."""

        def one(member: Objective, image: dict[str, Array]) -> Array:
            return member(jax.tree.map(lambda leaf: leaf[None], image))

        return jax.vmap(lambda member: jax.vmap(lambda image: one(member, image))(activations))(
            many
        )

    own = np.diagonal(np.asarray(score(record(model, shown, many.layers), many)))
    below = np.zeros(count)
    for first in range(0, len(others), batch):
        part = record(model, others[first : first + batch], many.layers)
        below += (np.asarray(score(part, many)) < own[:, None]).sum(1)
    return 100 * below / len(others)


@dataclasses.dataclass(frozen=True)
class _Plan:
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
        return checkpoints.fingerprint(
            parts, model.params, checkpoints.stable(model.apply), layer, jax.default_backend()
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
            optimizer=self.algorithm.optimizer,
            facets=self.algorithm.facets,
            snapshots=self.snapshots,
        )


def _plan(
    model: Model,
    *,
    key: KeyLike = 0,
    size: int | tuple[int, int] | None = None,
    steps: int = 512,
    image: str | Parameterization = "fourier",
    start: ArrayLike | None = None,
    transforms: Sequence[Transform] | None = None,
    regularizers: Sequence[Callable[[Array], Array]] = (),
    optimizer: Optimizer | None = None,
    facets: int = 1,
    snapshots: Sequence[int] = (),
    chunk: int | None = None,
    progress: bool = True,
) -> _Plan:
    """Refuses what cannot be, before anything compiles."""
    del progress
    checks.count("steps", steps)
    checks.count("facets", facets)
    if chunk is not None:
        checks.count("chunk", chunk)
    for step in snapshots:
        if checks.count("snapshots", step, low=0) > steps:
            raise ValueError(f"snapshots: 0 to {steps} (steps) were expected, given {step}")
    spec = _image(model, image, size)
    algorithm = core.Ascent(
        image=spec,
        optimizer=adam(0.05) if optimizer is None else _optimizer(optimizer),
        views=_views(transforms, spec.shape),
        facets=facets,
        # A network that applies its own ReLUs keeps them closed.
        woken=16 if getattr(model.apply, "takes_relu", True) else 0,
    )
    return _Plan(
        algorithm,
        _penalties(regularizers),
        as_key(key),
        steps,
        None if start is None else checks.images("start", start, shape=spec.shape),
        tuple(sorted(set(snapshots))),
    )


def _image(
    model: Model, image: str | Parameterization, size: int | tuple[int, int] | None
) -> Parameterization:
    pair = (size, size) if isinstance(size, (int, np.integer)) else size
    if pair is not None and len(tuple(pair)) != 2:
        raise ValueError(f"size: (height, width) or one number was expected, given {size!r}")
    if isinstance(image, str):
        checks.choice("image", image, ("fourier", "pixel"))
        height, width = model.input_shape[:2] if pair is None else pair
        shape = (checks.count("size", height), checks.count("size", width), model.input_shape[2])
        return images.named(image, shape)
    if not hasattr(image, "decode"):
        raise TypeError(
            f"image: 'fourier', 'pixel' or a parameterization was expected, given {image!r}"
        )
    if image.shape[2] != model.input_shape[2]:
        raise ValueError(
            f"image: {model.input_shape[2]} channels were expected by {model.name}, given "
            f"{image.shape[2]}"
        )
    if pair is not None and image.shape[:2] != tuple(pair):
        raise ValueError(f"size: {image.shape[:2]} is the image's own, given {size!r}")
    return image


def _views(given: Sequence[Transform] | None, shape: tuple[int, int, int]) -> tuple[Transform, ...]:
    if given is None:
        return transforms.lucid(min(shape[:2]))
    if isinstance(given, str) or not all(hasattr(view, "__dataclass_fields__") for view in given):
        raise TypeError(f"transforms: a list of rvis.transforms was expected, given {given!r}")
    return tuple(given)


def _optimizer(given: Any) -> Optimizer:
    if not isinstance(given, Optimizer):
        raise TypeError(
            f"optimizer: one of rvis.optimizers, such as adam(0.05), was expected, given {given!r}"
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


def _encoded(start: Array, spec: Parameterization, count: int, facets: int) -> Any:
    if start.shape[0] not in (1, count):
        raise ValueError(
            f"start: one image, or one for each of {count} objectives was expected, given "
            f"{start.shape[0]}"
        )
    whole = jnp.broadcast_to(start[:, None], (count, facets, *spec.shape))
    return jax.vmap(jax.vmap(spec.encode))(whole)
