"""Scores of changed images in equal batches, for every metric that asks the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from rvis import checks, objectives, taps
from rvis.objectives import Objective
from rvis.types import Array, ArrayLike, Model

Attribute = Callable[[Model, np.ndarray, Any], Any]
"""`attribute(model, images, target)`: (n, H, W, C) or (n, H, W), or something with such `maps`."""


class Judge:
    """Checked images and their targets; scores any number of changed images in equal batches."""

    def __init__(
        self, model: Model, images: ArrayLike, target: Any, *, probability: bool, progress: bool
    ) -> None:
        if not isinstance(model, Model):
            raise TypeError(f"model: an rvis.Model was expected, given {type(model).__name__}")
        self.images = np.asarray(checks.images("images", images, channels=model.input_shape[2]))
        count, height, width, channels = self.images.shape
        shape = (height, width, channels)
        self.probability = probability and not isinstance(target, Objective)
        kind = objectives.probability if probability else objectives.logit
        objective = objectives.target("target", target, model, shape, kind=kind)
        if objective.batch_shape not in ((), (1,), (count,)):
            raise ValueError(
                f"target: one, or one for each of {count} images, was expected, given "
                f"{objective.batch_shape[0]}"
            )
        self.model = model.unnamed()
        self.objective = jax.tree.map(np.asarray, objective.broadcast(count))
        self.progress = progress
        # As many as fit a core's cache, or keep an accelerator busy.
        most, pixels = (16, 2**14) if jax.default_backend() == "cpu" else (256, 2**22)
        self.width = max(1, min(most, pixels // (height * width)))

    def like(self, argument: str, value: ArrayLike) -> np.ndarray:
        """A number or an image, as one for each image."""
        if np.ndim(value) == 0:
            level = np.float32(checks.number(argument, value, low=0, high=1))
            return np.broadcast_to(level, self.images.shape)
        if np.ndim(value) != 3:
            raise ValueError(
                f"{argument}: a number or an image {self.images.shape[1:]} was expected, given "
                f"shape {np.shape(value)}"
            )
        shape = self.images.shape[1:]
        one = np.asarray(checks.images(argument, value, shape=shape))  # type: ignore[arg-type]
        return np.broadcast_to(one[0], self.images.shape)

    def __call__(self, images: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """(m,) scores of m images, each by the target of its row; m is at most the width."""
        filled = np.minimum(np.arange(self.width), len(rows) - 1)
        objective = jax.tree.map(lambda leaf: leaf[rows[filled]], self.objective)
        found = np.asarray(_scores(self.model, objective, images[filled]), np.float64)[: len(rows)]
        return np.exp(found) if self.probability else found

    def grid(self, changed: Callable[[int, int], np.ndarray], columns: int) -> np.ndarray:
        """(n, columns) scores of `changed(row, column)`."""
        result = np.empty((len(self.images), columns))
        disable = None if self.progress else True
        with tqdm(total=result.size, unit="image", disable=disable, leave=False) as bar:
            for places in self._batches(result.shape):
                images = np.stack([changed(row, column) for row, column in places])
                rows, numbers = np.array(places).T
                result[rows, numbers] = self(images.astype(np.float32), rows)
                bar.update(len(places))
        return result

    def _batches(self, shape: tuple[int, ...]) -> Iterator[list[tuple[int, int]]]:
        places = list(np.ndindex(*shape))
        for first in range(0, len(places), self.width):
            yield places[first : first + self.width]  # type: ignore[misc]


@jax.jit
def _scores(model: Model, objective: Objective, images: Array) -> Array:
    """(m,) scores of m images by m objectives."""

    def one(objective: Objective, image: Array) -> Array:
        return objective(taps.activations(model, image[None], objective.layers))

    return jax.vmap(one)(objective, images)


def checked(maps: ArrayLike, images: np.ndarray) -> np.ndarray:
    """Finite maps of the images' shape, with or without channels; else an error names `maps`."""
    given = np.asarray(maps, np.float32)
    if given.shape not in (images.shape, images.shape[:3]):
        raise ValueError(
            f"maps: {images.shape} or {images.shape[:3]} was expected, given shape {given.shape}"
        )
    if not np.isfinite(given).all():
        raise ValueError("maps: finite numbers were expected, given NaN or infinity")
    return given


def summed(maps: np.ndarray) -> np.ndarray:
    """(n, H, W), over the channels where there are any."""
    return maps.sum(-1) if maps.ndim == 4 else maps


def explained(attribute: Attribute, model: Model, images: np.ndarray, target: Any) -> np.ndarray:
    """What `attribute` gives for these images; else an error names it."""
    if not callable(attribute):
        raise TypeError(
            f"attribute: a function of (model, images, target) was expected, given {attribute!r}"
        )
    found = attribute(model, images, target)
    maps = np.asarray(getattr(found, "maps", found), np.float64)
    if maps.shape not in (images.shape, images.shape[:3]):
        raise ValueError(
            f"attribute: maps of shape {images.shape} or {images.shape[:3]} were expected of it, "
            f"given {maps.shape}"
        )
    return maps


def heat(maps: ArrayLike, images: np.ndarray) -> np.ndarray:
    """Checked maps, one number a place."""
    return summed(checked(maps, images))


def spread(maps: ArrayLike, images: np.ndarray) -> np.ndarray:
    """Checked maps, one number a value of the image; every channel takes an equal part."""
    given = checked(maps, images)
    if given.ndim == 4:
        return given
    return np.broadcast_to(given[..., None] / images.shape[-1], images.shape)
