"""How much of a data set a network gets right, clean or under attack."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks, engine, gate
from rvis.data import Dataset
from rvis.training.recipe import Adversary
from rvis.types import Array, KeyLike, Model, as_key, check_classes, fold_each, on_device


@gate.public
def evaluate(
    model: Model,
    dataset: Dataset,
    *,
    adversary: Adversary | None = None,
    restarts: int = 1,
    key: KeyLike = 0,
    progress: bool = True,
) -> float:
    """Accuracy in [0, 1], clean or under attack.

    Args:
      model: any model.
      dataset: images as large as the model's input, and labels in the order of its logits.
      adversary: the attack; None for clean accuracy.
      restarts: how many times it may try; an image counts only if every attempt fails.
      key: an int seed or a typed key, of the random starts; attempt a at image i uses
        `fold_in(fold_in(key, a), i)`.
      progress: a bar on a terminal.

    Raises:
      ValueError: naming `dataset`, if its images do not fit the model, or `model`, if it tells no
        classes apart.
      FloatingPointError: naming `model`, for NaN or infinite weights, or images with such logits.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis.data import Dataset
      >>> images = np.zeros((2, 28, 28, 1), np.uint8)
      >>> data = Dataset(images, np.zeros(2, np.int32), tuple("0123456789"), "blank")
      >>> 0 <= rvis.evaluate(rvis.load("mnist_cnn"), data) <= 1
      True
    """
    check_classes(model, least=2)
    if dataset.images.shape[1:] != model.input_shape:
        raise ValueError(
            f"dataset: images of {model.input_shape} were expected, given "
            f"{dataset.images.shape[1:]}"
        )
    # XLA on a CPU may lose a NaN in a ReLU, so that the logits alone would not tell.
    if not checks.all_finite(model.params):
        raise FloatingPointError(
            f"model: finite weights were expected, but some of {model.name} are NaN or infinite"
        )
    root = as_key(key)
    right = _right(_clean, model, dataset, np.arange(len(dataset)), (), progress=progress)
    for attempt in range(restarts if adversary is not None else 0):
        if not len(right):
            break
        keys = jax.random.key_data(fold_each(jax.random.fold_in(root, on_device(attempt)), right))
        each = jax.tree.map(partial(np.full, len(right)), adversary)
        right = _right(_attacked, model, dataset, right, (keys, each), progress=progress)
    return len(right) / len(dataset)


def _right(
    function: Any,
    model: Model,
    dataset: Dataset,
    numbers: np.ndarray,
    attack: tuple[Any, ...],
    *,
    progress: bool,
) -> np.ndarray:
    """Those of the images of these numbers that get their labels."""
    images, labels = dataset.images, dataset.labels
    if len(numbers) < len(images):
        images, labels = images[numbers], labels[numbers]
    height, width, _ = model.input_shape
    logits = engine.apply(
        function,
        model,
        (images, labels, *attack),
        pixels=height * width,
        label="evaluating",
        progress=progress,
        failure=lambda examples: engine.no_number(numbers[examples[:10]].tolist()),
    )
    return numbers[logits.argmax(1) == labels]


def _clean(model: Model, problem: tuple[Array, Array]) -> Array:
    image, _ = problem
    return model.apply(model.params, _floats(image))[0]


def _attacked(model: Model, problem: tuple[Array, Array, Array, Adversary]) -> Array:
    image, label, key, adversary = problem
    key = jax.random.wrap_key_data(key)
    moved = adversary.perturb(key, model, _floats(image), label[None])
    return model.apply(model.params, moved)[0]


def _floats(image: Array) -> Array:
    return image[None].astype(jnp.float32) / 255
