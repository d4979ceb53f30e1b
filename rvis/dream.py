"""DeepDream: what a layer sees in a photograph, exaggerated octave by octave."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rvis import checkpoints, checks, core, images, objectives, optimizers, projections
from rvis.objectives import Objective
from rvis.results import Result, describe
from rvis.taps import record
from rvis.transforms import Roll
from rvis.types import Array, ArrayLike, KeyLike, Model, as_key, fold_each


def deepdream(
    model: Model,
    image: ArrayLike,
    target: str | Objective,
    *,
    octaves: int = 4,
    scale: float = 1.4,
    steps: int = 10,
    step_size: float = 1.5 / 255,
    jitter: int | None = None,
    guide: ArrayLike | None = None,
    tile: int = 512,
    key: KeyLike = 0,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> Result:
    """Raises what a layer or an objective sees in an image, from coarse to fine.

    At each octave, from the smallest, the image is resized, the detail dreamt so far is added, and
    steps of `step_size`·g/mean|g| follow, each on the image rolled by a random shift. What they
    changed is the detail that the next octave begins with.

    Args:
      model: any model.
      image: (H, W, C) or (n, H, W, C), float32 in [0, 1], of any size.
      target: a layer's name, whose mean squared activation is raised, or one objective.
      octaves: how many sizes.
      scale: the ratio between two of them, above 1.
      steps: gradient steps an octave.
      step_size: the mean change of a pixel in one step, in units of the [0, 1] image.
      jitter: the largest shift in pixels; a seventh of the shorter side, at most 32, by default.
      guide: another image (H', W', C): instead of its energy, each place of the layer climbs
        towards the feature of the guide that it likes best.
      tile: larger images are seen in tiles of at most so many pixels a side, so that memory does
        not grow with the network's activations; shifts then reach half a tile, and no seam stays.
      key: an int seed or a typed key.
      checkpoint: a folder for the state of an interrupted dream; the same call then goes on.
      progress: a bar on a terminal.

    Returns:
      A Result whose `images` have the shape of `image` and whose `scores` run over all octaves.

    Raises:
      ValueError, TypeError: naming the argument: a misspelt layer, an octave too small for the
        layer, a guide beside an objective; before anything is compiled.

    Example:
      >>> import numpy as np, rvis
      >>> model = rvis.load("mnist_cnn")
      >>> grey = np.full((40, 60, 1), 0.5, np.float32)
      >>> rvis.deepdream(model, grey, "conv2", octaves=2, steps=2).images.shape
      (40, 60, 1)

    Reference: Mordvintsev, Olah & Tyka 2015, Inceptionism; google/deepdream, `dream.ipynb`.
    """
    pictures = checks.images("image", image, channels=model.input_shape[2])
    single = np.ndim(image) == 3
    count, height, width, channels = pictures.shape
    for name, value in (("octaves", octaves), ("steps", steps), ("tile", tile)):
        checks.count(name, value)
    checks.number("scale", scale, above=1)
    if jitter is not None:
        checks.count("jitter", jitter, low=0)
    objective = _objective(model, target, guide)
    sizes = [(round(height / scale**k), round(width / scale**k)) for k in reversed(range(octaves))]
    for rows, columns in sizes:
        if min(rows, columns) < 1:
            raise ValueError(f"octaves: fewer were expected for {height}×{width}, given {octaves}")
        objectives.check(objective, model, (min(rows, tile), min(columns, tile), channels))
    root = as_key(key)
    optimizer = optimizers.steepest(step_size, norm="mean_abs")
    folder = None if checkpoint is None else Path(checkpoint)
    about = checkpoints.fingerprint(
        (pictures, objective, optimizer, sizes, steps, jitter, tile, root),
        model.params,
        checkpoints.stable(model.apply),
    )
    detail, scores = jnp.zeros((count, *sizes[0], channels)), []
    for octave, size in enumerate(sizes):
        base = _resized(pictures, size)
        detail = _resized(detail, size)
        stored = None if folder is None else folder / f"octave{octave}.npz"
        if stored is not None and stored.exists():
            (detail, told), _ = checkpoints.load(
                stored, (detail, np.zeros((count, steps), np.float32)), expect=about
            )
            scores.append(np.asarray(told))
            continue
        reach = min(32, min(size) // 7) if jitter is None else jitter
        tiled = max(size) > tile
        algorithm = core.Ascent(
            images.Pixel((*size, channels)),
            optimizer,
            views=(Roll(max(reach, tile // 2) if tiled else reach),),
            tile=tile if tiled else None,
        )
        ours = jax.random.fold_in(root, octave)
        keys = fold_each(ours, np.arange(count))
        problem = core.Problem(objective, (), projections.Box()).broadcast(count)
        told = np.empty((count, steps), np.float32)
        parts = []
        for outcome in core.drive(
            algorithm,
            keys,
            model,
            problem,
            steps=steps,
            position=jnp.clip(base + detail, 0, 1)[:, None],
            width=core.width_for((*size, channels)),
            # As large as these are, one at a time: a tile bounds the memory, not their number.
            chunk=1 if tiled else None,
            checkpoint=None if folder is None else folder / f"octave{octave}",
            progress=progress,
            label=f"octave {octave + 1}/{octaves}",
        ):
            told[outcome.rows.start : outcome.rows.stop] = outcome.info.score
            parts.append(outcome.images[:, 0])
        detail = jnp.asarray(np.concatenate(parts)) - base
        scores.append(told)
        if stored is not None and octave < octaves - 1:
            checkpoints.save(stored, (detail, told), about={"fingerprint": about})
    if folder is not None:
        for octave in range(octaves):
            (folder / f"octave{octave}.npz").unlink(missing_ok=True)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    dreamt, told = np.asarray(pictures + detail), np.concatenate(scores, 1)
    label = np.asarray(objective.titles(model.classes))
    config = describe(
        function="deepdream",
        model=model.name,
        objective=objective,
        octaves=octaves,
        scale=scale,
        steps=steps,
        step_size=step_size,
        jitter=jitter,
        tile=tile,
        key=root,
    )
    # Image plus detail errs by a rounding at the ends of the box.
    dreamt = np.clip(dreamt, 0, 1)
    if single:
        return Result(dreamt[0], told[0], label, config=config)
    return Result(dreamt, told, np.broadcast_to(label, (count,)), config=config)


def zoom(
    model: Model,
    image: ArrayLike,
    target: str | Objective,
    *,
    frames: int,
    factor: float = 1.05,
    key: KeyLike = 0,
    **options: Any,
) -> Result:
    """The frames of a flight into a dream: each is the one before, enlarged and dreamt again.

    Args:
      model: any model.
      image: (H, W, C), float32 in [0, 1].
      target: as for `deepdream`.
      frames: how many; the first is the image dreamt once.
      factor: how much larger each frame shows the one before.
      key: an int seed or a typed key; frame i uses `fold_in(key, i)`.
      **options: of `deepdream`. A `checkpoint` holds the frame that was interrupted.

    Returns:
      A Result with `images` (frames, H, W, C), for `rvis.films.film`.

    Raises:
      ValueError, TypeError: naming the argument.

    Example:
      >>> import numpy as np, rvis
      >>> model = rvis.load("mnist_cnn")
      >>> grey = np.full((28, 28, 1), 0.5, np.float32)
      >>> rvis.dream.zoom(model, grey, "conv1", frames=3, octaves=1, steps=1).images.shape
      (3, 28, 28, 1)

    Reference: google/deepdream, `dream.ipynb`, where a frame zooms by 5 %.
    """
    if np.ndim(image) != 3:
        raise ValueError(f"image: (H, W, C) was expected, given shape {np.shape(image)}")
    picture = checks.images("image", image, channels=model.input_shape[2])[0]
    checks.count("frames", frames)
    checks.number("factor", factor, low=1)
    root = as_key(key)
    shown, scores = [], []
    for frame in range(frames):
        own = dict(options)
        if options.get("checkpoint") is not None:
            own["checkpoint"] = Path(options["checkpoint"]) / f"frame{frame:05d}"
        result = deepdream(model, picture, target, key=jax.random.fold_in(root, frame), **own)
        shown.append(result.images)
        scores.append(result.scores)
        picture = _enlarged(jnp.asarray(result.images), jnp.float32(factor))
    labels = np.asarray([f"frame {frame}" for frame in range(frames)], object)
    config = {**result.config, "function": "zoom", "frames": frames, "factor": factor}
    return Result(np.stack(shown), np.stack(scores), labels, config=config)


def _objective(model: Model, target: str | Objective, guide: ArrayLike | None) -> Objective:
    if guide is None:
        if not isinstance(target, str):
            if isinstance(target, Objective) and target.batch_shape:
                raise ValueError(
                    f"target: a single objective was expected, given {target.batch_shape}"
                )
            return target
        checks.choice("target", target, model.layers)
        return objectives.layer(target)
    if not isinstance(target, str):
        raise ValueError(f"guide: it was expected beside a layer's name, given {target!r}")
    checks.choice("target", target, model.layers)
    seen = checks.images("guide", guide, channels=model.input_shape[2])
    features = record(model, seen, target)[target]
    return objectives.guide(target, features.reshape(-1, features.shape[-1]))


def _resized(pictures: Array, size: tuple[int, int]) -> Array:
    if pictures.shape[1:3] == size:
        return pictures
    return _resized_each(pictures, size)


@partial(jax.jit, static_argnames="size")
def _resized_each(pictures: Array, size: tuple[int, int]) -> Array:
    # One by one, so that an image's bits do not depend on its company.
    shape = (*size, pictures.shape[3])
    return jax.lax.map(lambda picture: jax.image.resize(picture, shape, "linear"), pictures)


@jax.jit
def _enlarged(picture: Array, factor: Array) -> Array:
    """The centre of (H, W, C), enlarged to the whole."""
    size = jnp.asarray(picture.shape[:2], jnp.float32)
    moved = jax.image.scale_and_translate(
        picture,
        picture.shape,
        (0, 1),
        jnp.full(2, factor),
        (1 - factor) * size / 2,
        "linear",
        antialias=False,
    )
    return jnp.clip(moved, 0, 1)
