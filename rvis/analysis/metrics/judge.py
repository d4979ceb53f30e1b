"""Scores of changed images, for every metric that asks the model; and maps as metrics take them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from rvis import engine, objectives, struct
from rvis.analysis.questions import Question, Score, ask
from rvis.engine import policy
from rvis.objectives import Objective
from rvis.types import Array, ArrayLike, Model, PyTree, as_key

Attribute = Callable[[Model, np.ndarray, Any], Any]
"""`attribute(model, images, target)`: (n, H, W, C) or (n, H, W), or something with such `maps`."""


class Change(Protocol):
    """What is done to an image; a pytree whose numbers are traced."""

    def __call__(self, number: Array, image: Array, own: PyTree) -> tuple[Array, PyTree]:
        """Change `number` of an image (H, W, C), given its `own`, and what else is to be known."""


class _Changed(NamedTuple):
    """One image, its objective, and what its changes alone get."""

    objective: Objective
    image: Any
    own: PyTree


@struct.dataclass
class _Scores:
    """The scores of an image's changes; a step is a block of them."""

    change: Change
    block: int = struct.static()

    def init(self, key: Array, start: None) -> Array:
        return jnp.int32(0)

    def step(
        self, key: Array, first: Array, model: Model, problem: _Changed
    ) -> tuple[Array, tuple[Array, PyTree]]:
        score = Score(model, problem.objective)

        def one(number: Array) -> tuple[Array, PyTree]:
            image, told = self.change(number, problem.image, problem.own)
            return score(image), told

        told = jax.vmap(one)(first + jnp.arange(self.block, dtype=jnp.int32))
        return first + self.block, told


def judged(model: Model, images: ArrayLike, target: Any) -> tuple[Question, bool]:
    """A question, and whether its scores are logarithms of the classes' probabilities."""
    of_class = not isinstance(target, Objective)
    return ask(model, images, target, kind=objectives.probability), of_class


def changed(
    change: Change,
    question: Question,
    count: int,
    *,
    own: PyTree = (),
    logarithms: bool = False,
    chunk: int | None = None,
    progress: bool = True,
) -> tuple[np.ndarray, PyTree]:
    """(n, count) scores of changed images, and what the changes told, leaves (n, count, …).

    Args:
      change, question: see `Change`; n images and their objectives.
      count: changes of each.
      own: leaves of shape (n, …), for each image alone.
      logarithms: whether the scores are to be taken to the exponent.
      chunk, progress: see `rvis.engine.run`.
    """
    images = len(question.images)
    block = policy.equal_blocks(question.pixels, count)
    found = engine.run(
        _Scores(change, block),
        question.model,
        _Changed(question.objective, question.images, own),
        jnp.broadcast_to(as_key(0), (images,)),
        steps=-(-count // block),
        pixels=question.pixels * block,
        chunk=chunk,
        progress=progress,
        label=question.model.name,
        failure=engine.no_number,
    )
    scores, told = jax.tree.map(
        lambda leaf: leaf.reshape(images, -1, *leaf.shape[3:])[:, :count], found.info
    )
    scores = scores.astype(np.float64)
    return np.exp(scores) if logarithms else scores, told


def checked(maps: ArrayLike, images: np.ndarray) -> np.ndarray:
    """Finite maps of the images' shape, with or without channels; else an error names `maps`."""
    given = np.asarray(maps, np.float32)
    if len(images) == 1 and given.shape in (images.shape[1:], images.shape[1:3]):
        given = given[None]
    if given.shape not in (images.shape, images.shape[:3]):
        raise ValueError(
            f"maps: {images.shape} or {images.shape[:3]} was expected, given shape {given.shape}"
        )
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
