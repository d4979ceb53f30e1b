"""Images made and changed with one classifier: six tasks, each the same climb from another start.

On a robust network a class's probability rises through changes that people see; on a standard one
the same call gives the same picture with a different label (`rvis.attacks`).
"""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np

from rvis import checks, gate, objectives, regularizers
from rvis.synthesis import seeds as seeding
from rvis.synthesis.climb import Options, Synthesis, aim, climb, planned
from rvis.synthesis.seeds import Seeds
from rvis.types import ArrayLike, KeyLike, Model, as_key


@gate.public
def generate(
    model: Model,
    target: Any,
    *,
    seeds: Seeds | None = None,
    size: int | tuple[int, int] | None = None,
    key: KeyLike = 0,
    **options: Unpack[Options],
) -> Synthesis:
    """Pictures of classes, each from a draw of a Gaussian fitted to downsampled images of its own.

    Args:
      model: a classifier; a robust one for pictures that people recognise.
      target: a class's number or name, or a list of them, one for each picture.
      seeds: from `fit`; those shipped for the model's classes by default.
      size: height and width in pixels, or one number for both; the model's own by default.
      key: an int seed or a typed key; picture i uses `fold_in(key, i)`.
      **options: see `Options`.

    Returns:
      A `Synthesis` of (m, H, W, C) pictures, or (H, W, C) for a single class, whose `scores`
      are log-probabilities of the class before each step.

    Raises:
      ValueError, TypeError: naming the argument, before anything is compiled.
      FloatingPointError: if a score becomes NaN.

    Example:
      >>> import rvis
      >>> model = rvis.load("mnist_cnn_robust")
      >>> rvis.synthesis.generate(model, ["3", "8"], steps=2).images.shape
      (2, 28, 28, 1)

    Reference: Santurkar et al. 2019, "Image synthesis with a single (robust) classifier",
      section 3.1.
    """
    height, width = model.input_shape[:2] if size is None else checks.size("size", size)
    shape = (height, width, model.input_shape[2])
    objective = objectives.target("target", target, model, shape, kind=objectives.probability)
    if not isinstance(objective, objectives.Probability):
        raise TypeError(f"target: numbers or names of classes were expected, given {target!r}")
    numbers = np.atleast_1d(np.asarray(objective.unit))
    chosen, plan = seeding.get(model, seeds), planned("generate", (height, width), options)
    starts = seeding.draws(chosen, key, numbers, (height, width))
    single, root = np.ndim(objective.unit) == 0, as_key(key)
    return climb("generate", plan, model, starts, objective, options, single=single, key=root)


@gate.public
def inpaint(
    model: Model,
    images: ArrayLike,
    mask: ArrayLike,
    target: Any = None,
    *,
    weight: float = 10.0,
    **options: Unpack[Options],
) -> Synthesis:
    """Fills in what a mask hides, with what makes the class likely.

    Maximises log p(class) − weight·mean(((x − image) ⊙ (1 − mask))²) from the image with the mean
    colour of its visible part under the mask (grey, where nothing is visible).

    Args:
      model: a classifier.
      images: (n, H, W, C) or (H, W, C) in [0, 1], of any size the model takes.
      mask: (H, W) or (H, W, 1), or one an image (n, H, W) or (n, H, W, 1): 1 where to fill in.
      target: the class of each image by number or name; None for what the model
        itself sees in the start.
      weight: of keeping to what is visible.
      **options: see `Options`.

    Returns:
      A `Synthesis` of (n, H, W, C) pictures, or (H, W, C) for a single image.

    Raises:
      ValueError, TypeError: naming the argument, before anything is compiled.
      FloatingPointError: if a score becomes NaN.

    Example:
      >>> import numpy as np, rvis
      >>> model = rvis.load("mnist_cnn_robust")
      >>> hole = np.zeros((28, 28))
      >>> hole[10:18, 10:18] = 1
      >>> image = np.full((28, 28, 1), 0.2, np.float32)
      >>> rvis.synthesis.inpaint(model, image, hole, "8", steps=2).images.shape
      (28, 28, 1)

    Reference: Santurkar et al. 2019, section 3.2; MadryLab/robustness_applications,
      `inpainting.ipynb`.
    """
    batch = _images(model, images)
    hidden = _masks(mask, batch)
    visible = 1 - hidden
    total = visible.sum((1, 2), keepdims=True)
    sums = (batch * visible).sum((1, 2), keepdims=True)
    mean = np.where(total > 0, sums / np.where(total > 0, total, 1), np.float32(0.5))
    starts = batch * visible + mean * hidden
    kept = (checks.number("weight", weight, low=0), batch, visible)
    return _climbed("inpaint", model, images, starts, target, options, kept=kept, weight=weight)


@gate.public
def translate(
    model: Model, images: ArrayLike, target: Any, **options: Unpack[Options]
) -> Synthesis:
    """Turns pictures of one class into another: horses into zebras, cats into dogs.

    Args:
      model: a classifier.
      images: (n, H, W, C) or (H, W, C) in [0, 1], of any size the model takes.
      target: the class to turn each into, by number or name.
      **options: see `Options`.

    Returns:
      A `Synthesis` of (n, H, W, C) pictures, or (H, W, C) for a single image.

    Raises:
      ValueError, TypeError: naming the argument, before anything is compiled.
      FloatingPointError: if a score becomes NaN.

    Example:
      >>> import numpy as np, rvis
      >>> model = rvis.load("mnist_cnn_robust")
      >>> image = np.full((28, 28, 1), 0.2, np.float32)
      >>> rvis.synthesis.translate(model, image, "7", steps=2).labels
      '7'

    Reference: Santurkar et al. 2019, section 3.3.
    """
    return _from_images("translate", model, images, target, options)


@gate.public
def sketch(model: Model, images: ArrayLike, target: Any, **options: Unpack[Options]) -> Synthesis:
    """Turns drawings into pictures of a class.

    Args:
      model: a classifier.
      images: drawings, (n, H, W, C) or (H, W, C) in [0, 1], of any size the model takes.
      target: what each is a drawing of, by number or name.
      **options: see `Options`.

    Returns:
      A `Synthesis` of (n, H, W, C) pictures, or (H, W, C) for a single image.

    Raises:
      ValueError, TypeError: naming the argument, before anything is compiled.
      FloatingPointError: if a score becomes NaN.

    Example:
      >>> import numpy as np, rvis
      >>> model = rvis.load("mnist_cnn_robust")
      >>> drawing = np.zeros((28, 28, 1), np.float32)
      >>> drawing[4:24, 14] = 1
      >>> rvis.synthesis.sketch(model, drawing, "1", steps=2).images.shape
      (28, 28, 1)

    Reference: Santurkar et al. 2019, section 3.5 (sketch-to-image).
    """
    return _from_images("sketch", model, images, target, options)


@gate.public
def super_resolve(
    model: Model,
    images: ArrayLike,
    factor: int,
    target: Any = None,
    **options: Unpack[Options],
) -> Synthesis:
    """Enlarges pictures, with detail that makes their class likely.

    Starts from the pixels as blocks and stays within `eps` of them.

    Args:
      model: a classifier.
      images: small pictures, (n, h, w, C) or (h, w, C) in [0, 1].
      factor: how many times as many rows and columns; the model must take that size.
      target: the class of each image by number or name; None for what the model
        itself sees in the blocks.
      **options: see `Options`.

    Returns:
      A `Synthesis` of (n, factor·h, factor·w, C) pictures, or without n for a single image.

    Raises:
      ValueError, TypeError: naming the argument, before anything is compiled.
      FloatingPointError: if a score becomes NaN.

    Example:
      >>> import numpy as np, rvis
      >>> model = rvis.load("mnist_cnn_robust")
      >>> small = np.full((7, 7, 1), 0.2, np.float32)
      >>> rvis.synthesis.super_resolve(model, small, 4, "7", steps=2).images.shape
      (28, 28, 1)

    Reference: Santurkar et al. 2019, section 3.4.
    """
    checks.count("factor", factor)
    small = _images(model, images)
    starts = np.repeat(np.repeat(small, factor, axis=1), factor, axis=2)
    return _climbed("super_resolve", model, images, starts, target, options, factor=factor)


@gate.public
def paint(
    model: Model,
    images: ArrayLike,
    mask: ArrayLike,
    target: Any,
    *,
    weight: float = 10.0,
    **options: Unpack[Options],
) -> Synthesis:
    """Paints a class or a feature into the part of a picture that a mask marks.

    Maximises target − weight·mean(((x − image) ⊙ (1 − mask))²) from the image itself.

    Args:
      model: a classifier.
      images: (n, H, W, C) or (H, W, C) in [0, 1], of any size the model takes.
      mask: (H, W) or (H, W, 1), or one an image (n, H, W) or (n, H, W, 1): 1 where to paint.
      target: a class by number or name (its log-probability), or an objective such as
        `neuron("avgpool", 40)`; one, or one for each image.
      weight: of keeping to the rest.
      **options: see `Options`.

    Returns:
      A `Synthesis` of (n, H, W, C) pictures, or (H, W, C) for a single image.

    Raises:
      ValueError, TypeError: naming the argument, before anything is compiled.
      FloatingPointError: if a score becomes NaN.

    Example:
      >>> import numpy as np, rvis
      >>> model = rvis.load("mnist_cnn_robust")
      >>> left = np.zeros((28, 28))
      >>> left[:, :14] = 1
      >>> image = np.full((28, 28, 1), 0.2, np.float32)
      >>> rvis.synthesis.paint(model, image, left, "6", steps=2).images.shape
      (28, 28, 1)

    Reference: Santurkar et al. 2019, section 3.5 (feature painting).
    """
    batch = _images(model, images)
    visible = 1 - _masks(mask, batch)
    kept = (checks.number("weight", weight, low=0), batch, visible)
    if target is None:
        raise TypeError("target: a class or an objective was expected, given None")
    return _climbed("paint", model, images, batch, target, options, kept=kept, weight=weight)


def _from_images(
    task: str, model: Model, images: ArrayLike, target: Any, options: Options
) -> Synthesis:
    batch = _images(model, images)
    if target is None:
        raise TypeError("target: a class's number or name was expected, given None")
    return _climbed(task, model, images, batch, target, options)


def _climbed(
    task: str,
    model: Model,
    images: ArrayLike,
    starts: np.ndarray,
    target: Any,
    options: Options,
    **about: Any,
) -> Synthesis:
    plan = planned(task, starts.shape[1:3], options)
    objective, single = aim(model, starts, target), np.ndim(images) == 3
    return climb(task, plan, model, starts, objective, options, single=single, **about)


def _images(model: Model, images: ArrayLike) -> np.ndarray:
    # On the host, where nothing is compiled before all arguments are checked.
    return np.asarray(checks.images("images", images, channels=model.input_shape[2]))


def _masks(mask: ArrayLike, batch: np.ndarray) -> np.ndarray:
    """(n, H, W, 1) in [0, 1] from one mask or one an image."""
    count, height, width, _ = batch.shape
    given = np.asarray(mask)
    one_each = given.ndim == 4 or (given.ndim == 3 and given.shape[:2] != (height, width))
    if one_each and len(given) != count:
        raise ValueError(
            f"mask: one, or one for each of {count} images, was expected, given shape {given.shape}"
        )
    each = given if one_each else given[None]
    masks = [np.asarray(regularizers.as_mask("mask", one, (height, width, 1))) for one in each]
    return np.broadcast_to(np.stack(masks), (count, height, width, 1))
