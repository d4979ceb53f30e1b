"""DeepDream: what a layer sees in a photograph, exaggerated octave by octave."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks, engine, files, gate, objectives, optimizers, projections, struct
from rvis.ascent import Ascent, Problem, watcher
from rvis.ascent.tiles import Tiles
from rvis.images import Pixel
from rvis.models.taps import record
from rvis.objectives import Objective
from rvis.results import Result, describe
from rvis.transforms import Roll
from rvis.types import Array, ArrayLike, KeyLike, Model, as_key, fold_each, on_device

Size = tuple[int, int]


@gate.public
def deepdream(
    model: Model,
    images: ArrayLike,
    target: Any,
    *,
    octaves: int = 4,
    scale: float = 1.4,
    step_size: float = 1.5 / 255,
    jitter: int | None = None,
    guide: ArrayLike | None = None,
    tile: int = 512,
    key: KeyLike = 0,
    steps: int = 10,
    chunk: int | None = None,
    checkpoint: files.PathLike | None = None,
    callback: Callable[[int, np.ndarray, np.ndarray], Any] | None = None,
    progress: bool = True,
) -> Result:
    """Raises what a layer or an objective sees in an image, from coarse to fine.

    At each octave, from the smallest, the image is resized, the detail dreamt so far is added, and
    steps of `step_size`·g/mean|g| follow, each on the image rolled by a random shift.

    Args:
      model: any model.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1], of any size.
      target: a layer's name, whose mean squared activation is raised; a class's number or name; or
        an objective. Several targets must be as many as images.
      octaves: how many sizes.
      scale: the ratio between two of them, above 1.
      step_size: the mean change of a pixel in one step, in units of the [0, 1] image.
      jitter: the largest shift in pixels; a seventh of the shorter side, at most 32, by default.
      guide: another image (H', W', C): instead of its energy, each place of the layer climbs
        towards the feature of the guide that it likes best.
      tile: larger images are seen in tiles of at most so many pixels a side, so that memory does
        not grow with the network's activations; shifts then reach half a tile, and no seam stays.
        All octaves no smaller than the network's input have tiles of one shape, that of the
        smallest, and one compiled program.
      key: an int seed or a typed key.
      steps: gradient steps an octave.
      chunk: images at once, for memory's sake; by default as many as pay.
      checkpoint: a folder for the state of an interrupted dream; the same call then goes on.
      callback: called as `callback(step, images, scores)` after each step, with the images at the
        octave's size and all scores so far; True ends the dream.
      progress: a bar on a terminal.

    Returns:
      A Result whose `images` have the shape of those given and whose `scores` run over all octaves.

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
    pictures = checks.images("images", images, channels=model.input_shape[2])
    single = np.ndim(images) == 3
    count, height, width, channels = pictures.shape
    for name, value in (("octaves", octaves), ("steps", steps), ("tile", tile)):
        checks.count(name, value)
    checks.number("scale", scale, above=1)
    checks.number("step_size", step_size, low=0)
    objective = _objective(model, target, guide, (height, width, channels))
    objective.check_count("target", count)
    sizes = [(round(height / scale**k), round(width / scale**k)) for k in reversed(range(octaves))]
    if min(sizes[0]) < 1:
        raise ValueError(f"octaves: fewer were expected for {height}×{width}, given {octaves}")
    tiled = _tiled(model, sizes, tile)
    side = (min([tile, *(rows for rows, _ in tiled)]), min([tile, *(c for _, c in tiled)]))
    for size in sizes:
        objectives.check(objective, model, (*(side if size in tiled else size), channels))
    root = as_key(key)
    problem = Problem(objective, (), projections.Box()).broadcast(count)

    def shaped(array: np.ndarray) -> np.ndarray:
        return array[0] if single else array

    def dream(carry: engine.Carry, folder: Path | None, *, octave: int) -> engine.Carry:
        """One octave: (detail, scores so far)."""
        detail, scores = carry
        size, before = sizes[octave], sizes[max(0, octave - 1)]
        # Those in tiles lie in the corner of a canvas of one size, so that they share all programs.
        canvas = sizes[-1] if size in tiled else size
        whole, old, new = (on_device(each, jnp.int32) for each in (sizes[-1], before, size))
        base = _resized(pictures, whole, new, canvas)
        detail = _resized(on_device(detail), old, new, canvas)
        if scores.shape[1] < octave * steps:  # the callback has ended the run
            return detail, scores
        reach = min(32, min(size) // 7) if jitter is None else jitter
        share = size[0] * size[1] / (canvas[0] * canvas[1])
        algorithm = Ascent(
            Pixel((*canvas, channels)), optimizers.steepest(step_size * share, norm="mean_abs")
        )
        if size in tiled:
            far = on_device(max(reach, max(side) // 2), jnp.int32)
            tiles = Tiles(side, new, far)
            algorithm = struct.replace(algorithm, tiles=tiles)
        else:
            algorithm = struct.replace(algorithm, views=(Roll(reach),))

        def crop(array: np.ndarray) -> np.ndarray:
            return shaped(array[:, : size[0], : size[1]] if array.ndim == 4 else array)

        run = engine.run(
            algorithm,
            model,
            problem,
            fold_each(jax.random.fold_in(root, on_device(octave)), np.arange(count)),
            steps=steps,
            pixels=algorithm.pixels,
            starts=np.clip(np.asarray(base + detail), 0, 1)[:, None],
            callback=watcher(callback, crop, scores),
            # As large as these are, one at a time: a tile bounds the memory, not their number.
            chunk=1 if size in tiled else chunk,
            checkpoint=folder,
            progress=progress,
            label=f"octave {octave + 1}/{octaves}",
        )
        return run.result[:, 0] - np.asarray(base), np.concatenate([scores, run.info.score], 1)

    blank = np.zeros((count, *(sizes[-1] if sizes[0] in tiled else sizes[0]), channels), np.float32)
    detail, scores = engine.in_stages(
        [partial(dream, octave=octave) for octave in range(octaves)],
        (blank, np.zeros((count, 0), np.float32)),
        about=(pictures, problem, step_size, sizes, steps, jitter, tile, root, model.unnamed()),
        checkpoint=checkpoint,
    )
    label = np.asarray(objective.titles(model.classes))
    about: dict[str, Any] = {"octaves": octaves, "scale": scale, "steps": steps, "key": root}
    about |= {"step_size": step_size, "jitter": jitter, "tile": tile, "objective": objective}
    config = describe(function="deepdream", model=model.name, **about)
    # Image plus detail errs by a rounding at the ends of the box.
    dreamt = np.clip(np.asarray(pictures + on_device(detail)), 0, 1)
    labels = label if single else np.broadcast_to(label, (count,))
    return Result(shaped(dreamt), shaped(scores), labels, config=config)


@gate.public
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
      A Result with `images` (frames, H, W, C), for `rvis.plotting.films.film`.

    Raises:
      ValueError, TypeError: naming the argument.

    Example:
      >>> import numpy as np, rvis
      >>> model = rvis.load("mnist_cnn")
      >>> grey = np.full((28, 28, 1), 0.5, np.float32)
      >>> from rvis.visualization import zoom
      >>> zoom(model, grey, "conv1", frames=3, octaves=1, steps=1).images.shape
      (3, 28, 28, 1)

    Reference: google/deepdream, `dream.ipynb`, where a frame zooms by 5 %.
    """
    if np.ndim(image) != 3:
        raise ValueError(f"image: (H, W, C) was expected, given shape {np.shape(image)}")
    given = checks.images("image", image, channels=model.input_shape[2])
    checks.number("factor", factor, low=1)
    _objective(model, target, options.get("guide"), np.shape(image))  # type: ignore[arg-type]
    picture = on_device(np.asarray(given)[0])
    root = as_key(key)
    shown, scores = [], []
    for frame in range(frames):
        arguments = dict(options)
        if options.get("checkpoint") is not None:
            arguments["checkpoint"] = Path(options["checkpoint"]) / f"frame{frame:05d}"
        result = deepdream(
            model, picture, target, key=jax.random.fold_in(root, on_device(frame)), **arguments
        )
        shown.append(result.images)
        scores.append(result.scores)
        picture = _enlarged(on_device(result.images), on_device(factor, jnp.float32))
    labels = np.asarray([f"frame {frame}" for frame in range(frames)], object)
    config = {**result.config, "function": "zoom", "frames": frames, "factor": factor}
    return Result(np.stack(shown), np.stack(scores), labels, config=config)


def _objective(
    model: Model, target: Any, guide: ArrayLike | None, shape: tuple[int, int, int]
) -> Objective:
    named = isinstance(target, str) and (target in model.layers or target not in model.classes)
    if not named and guide is None:
        return objectives.target("target", target, model, shape)
    if not named:
        raise ValueError(f"guide: it was expected beside a layer's name, given {target!r}")
    checks.choice("target", target, model.layers)
    if guide is None:
        return objectives.layer(target)
    seen = checks.images("guide", guide, channels=model.input_shape[2])
    features = record(model, seen, target)[target]
    return objectives.guide(target, features.reshape(-1, features.shape[-1]))


def _tiled(model: Model, sizes: list[Size], tile: int) -> list[Size]:
    """The octaves that are seen in tiles, each no smaller than what the network was made for.

    Of a picture that fits into a tile there are none.
    """
    least = min(model.input_shape[:2])
    if max(sizes[-1]) <= tile:
        return []
    return [size for size in sizes if max(size) > tile or min(size) >= least]


@partial(jax.jit, static_argnames="canvas")
def _resized(pictures: Array, old: Array, new: Array, canvas: Size) -> Array:
    """Pictures of size `old`, resized to `new`, each in the corner of a canvas of zeros.

    Both sizes are traced.
    """
    scale = new.astype(jnp.float32) / old.astype(jnp.float32)

    def one(picture: Array) -> Array:
        for axis in (0, 1):
            # The edge goes on into what does not count.
            places = jnp.minimum(jnp.arange(picture.shape[axis], dtype=old.dtype), old[axis] - 1)
            picture = jnp.take(picture, places, axis)
        shape, still = (*canvas, picture.shape[2]), jnp.zeros(2, jnp.float32)
        moved = jax.image.scale_and_translate(picture, shape, (0, 1), scale, still, "linear")
        rows, columns = (
            jnp.arange(n, dtype=new.dtype) < m for n, m in zip(canvas, new, strict=True)
        )
        return jnp.where((rows[:, None] & columns[None])[..., None], moved, 0)

    # One by one, so that an image's bits do not depend on its company.
    return jax.lax.map(one, pictures)


@jax.jit
def _enlarged(picture: Array, factor: Array) -> Array:
    """The centre of (H, W, C), enlarged to the whole."""
    start = (1 - factor) * jnp.asarray(picture.shape[:2], jnp.float32) / 2
    scale, shape = jnp.full(2, factor), picture.shape
    options: dict[str, Any] = {"method": "linear", "antialias": False}
    moved = jax.image.scale_and_translate(picture, shape, (0, 1), scale, start, **options)
    return jnp.clip(moved, 0, 1)
