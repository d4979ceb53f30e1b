"""The one algorithm of attribution: a weighted mean over samples of noise, paths or masks.

A sampler says what one sample of one image is: a map and its weight. Everything else is here and
in the engine: any number of samples in bounded memory and one compiled program.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from rvis import engine, struct
from rvis.analysis.questions import Question, Score, Shape, ask
from rvis.attribution.result import Attribution
from rvis.engine import policy
from rvis.files import PathLike
from rvis.objectives import Objective
from rvis.results import describe
from rvis.types import Array, Model, PyTree, on_device

__all__ = ["Moments", "Question", "Sampler", "Score", "Shape", "answer", "ask", "each", "mean"]

Callback = Callable[[int, np.ndarray, np.ndarray], Any]
"""Called with the samples made, the maps so far and f(x); True ends the work."""


class Sampler(Protocol):
    """What one sample of one image is; a pytree whose numbers are traced."""

    def shapes(self, shape: Shape) -> tuple[Shape, Shape]:
        """The shapes of a value and of its weight, for an image of `shape`."""

    def __call__(
        self, key: Array, number: Array, image: Array, own: PyTree, score: Score
    ) -> tuple[Array, Array]:
        """The value of sample `number` of one image (H, W, C), and its weight.

        `own` is what `mean` was given for this image alone; `key` is the sample's.
        """


@struct.dataclass
class Moments:
    """A running weighted mean and the spread about it.

    Attributes:
      weight: Σ w.
      mean: Σ w·v / Σ w.
      spread: Σ w·(v − mean)².
    """

    weight: Array
    mean: Array
    spread: Array

    @property
    def variance(self) -> np.ndarray:
        """Σ w·(v − mean)² / Σ w, of moments with a leading axis of images."""
        spread = np.asarray(self.spread)
        return spread / _beside(np.asarray(self.weight), spread.ndim)

    def merged(self, values: Array, weights: Array) -> Moments:
        """The moments with (samples, …) more values (Chan, Golub & LeVeque 1983, eq. 2.1).

        Sums of squares less squared sums would cancel.
        """
        rank = values.ndim
        wide = _beside(weights, rank)
        added = weights.sum(0)
        mean = _ratio((wide * values).sum(0), _beside(added, rank - 1))
        spread = (wide * jnp.square(values - mean[None])).sum(0)
        total = self.weight + added
        share = _beside(_ratio(added, total), rank - 1)
        delta = mean - self.mean
        spread = self.spread + spread + jnp.square(delta) * _beside(self.weight, rank - 1) * share
        return Moments(total, self.mean + delta * share, spread)


def _beside(weight: Any, rank: int) -> Any:
    return weight.reshape(weight.shape + (1,) * (rank - weight.ndim))


def _ratio(top: Array, bottom: Array) -> Array:
    return jnp.where(bottom == 0, 0, top / jnp.where(bottom == 0, 1, bottom))


class Asked(NamedTuple):
    """One image's part of a question, and what its sampler alone gets."""

    objective: Objective
    image: Any
    own: PyTree


@struct.dataclass
class Mean:
    """The moments of an image's samples; a step is a block of them.

    Attributes:
      key: sample i uses `fold_in(key, i)`, whichever image it is of.
      samples: how many count in all; traced, so that another number compiles nothing.
      shape: (H, W, C).
      block: samples of a step, computed side by side.
    """

    sampler: Sampler
    key: Array
    samples: Array
    shape: Shape = struct.static()
    block: int = struct.static()

    def init(self, key: Array, start: None) -> tuple[Moments, Array]:
        value, weight = self.sampler.shapes(self.shape)
        zeros = (jnp.zeros(shape, jnp.float32) for shape in (weight, value, value))
        return Moments(*zeros), jnp.int32(0)

    def step(
        self, key: Array, state: tuple[Moments, Array], model: Model, problem: Asked
    ) -> tuple[tuple[Moments, Array], tuple[()]]:
        moments, first = state
        score = Score(model, problem.objective)

        def sample(number: Array) -> tuple[Array, Array]:
            counted = number < self.samples
            number = jnp.minimum(number, self.samples - 1)
            own_key = jax.random.fold_in(self.key, number)
            value, weight = self.sampler(own_key, number, problem.image, problem.own, score)
            return value, jnp.where(counted, weight, 0)

        values, weights = jax.vmap(sample)(first + jnp.arange(self.block, dtype=jnp.int32))
        return (moments.merged(values, weights), first + self.block), ()

    def finish(self, state: tuple[Moments, Array], model: Model, problem: Asked) -> Moments:
        return state[0]


def mean(
    sampler: Sampler,
    question: Question,
    *,
    samples: int,
    key: Array,
    own: PyTree = (),
    maps: Callable[[Moments], np.ndarray] = lambda moments: np.asarray(moments.mean),
    chunk: int | None = None,
    checkpoint: PathLike | None = None,
    callback: Callback | None = None,
    progress: bool = True,
    label: str = "attribution",
) -> np.ndarray:
    """The maps (n, …) of all images, from the moments of their samples.

    Args:
      sampler: see `Sampler`.
      question: n images and their objectives.
      samples: of each image.
      key: shared by the images, so that an image's map is the same alone and in any batch.
      own: leaves of shape (n, …), for each image alone.
      maps: makes maps of the images' moments; their mean by default.
      chunk, checkpoint, progress, label: see `rvis.engine.run`.
      callback: see `Callback`; called after every block of samples.

    Raises:
      FloatingPointError: naming the images whose map is not finite.
    """
    block = policy.samples_for(question.pixels, samples)
    watch = None
    if callback is not None:
        reached = question.shaped(question.scores())

        def watch(step: int, moments: Moments, info: tuple[()]) -> Any:
            return callback(min(step * block, samples), question.shaped(maps(moments)), reached)

    count = len(question.images)
    found = engine.run(
        Mean(sampler, key, on_device(samples, jnp.int32), question.shape, block),
        question.model,
        Asked(question.objective, question.images, own),
        jnp.broadcast_to(key, (count,)),
        steps=-(-samples // block),
        pixels=question.pixels * block,
        callback=watch,
        chunk=chunk,
        checkpoint=checkpoint,
        progress=progress,
        label=f"{question.model.name} {label}",
        failure=not_finite,
    )
    return maps(found.result)


def each(
    function: Callable[[Model, Any], PyTree],
    question: Question,
    *,
    own: PyTree = None,
    chunk: int | None = None,
    progress: bool = True,
    label: str = "attribution",
) -> PyTree:
    """`function(model, (objective, image))` of every image, leaves (n, …): a mean of one sample.

    Where there is something `own`, leaves (n, …), for each image, its part comes third.
    """
    asked = (question.objective, question.images)
    return engine.apply(
        function,
        question.model,
        asked if own is None else (*asked, own),
        pixels=question.pixels,
        widest=4,
        chunk=chunk,
        label=f"{question.model.name} {label}",
        progress=progress,
        failure=not_finite,
    )


def not_finite(examples: list[int]) -> str:
    """What is said of maps that are NaN or infinite."""
    return (
        f"maps: those of images {examples} are NaN or infinite; finite weights and a target with "
        "finite gradients would be right"
    )


def answer(
    method: str,
    question: Question,
    maps: np.ndarray,
    scores: np.ndarray,
    *,
    raw: np.ndarray | None = None,
    gap: np.ndarray | None = None,
    **arguments: Any,
) -> Attribution:
    """An `Attribution` of (n, …) arrays, with the axes that the images were given with."""
    shaped = question.shaped
    return Attribution(
        maps=shaped(maps),
        images=shaped(question.images),
        scores=shaped(scores),
        labels=shaped(question.labels),
        method=method,
        raw=shaped(raw),
        gap=shaped(gap),
        config=describe(function=method, model=question.model.name, **arguments),
    )
