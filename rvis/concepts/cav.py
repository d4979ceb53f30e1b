"""Does a class depend on a concept that a user shows by examples? TCAV, with its significance."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import PIL.Image
import PIL.ImageDraw

from rvis import checks, engine, gate
from rvis.analysis import ranking
from rvis.analysis.questions import Score, ask
from rvis.data import Dataset
from rvis.objectives import Objective
from rvis.results import describe
from rvis.types import Array, ArrayLike, KeyLike, Model, as_key


@dataclasses.dataclass(frozen=True, eq=False)
class TCAV:
    """How often a class rises along a concept's direction.

    Attributes:
      scores: (sets,) the share of the images whose score rises along the direction that tells the
        concept from one random set.
      null: (sets,) the same of directions that tell random sets from one another.
      score: the mean of `scores`.
      p: of scores and null having one mean, two-sided (Welch), as the paper has it. It asks whether
        these examples differ from random ones, however little: images alike make scores of 0 or 1,
        and a slight lean of all directions is enough.
      sensitivity: (sets,) the mean cosine of the images' gradients and each direction.
      null_sensitivity: (sets,) the same of directions that tell random sets from one another.
      p_sensitivity: of the mean sensitivity being that of one more random direction, two-sided
        (Student): it asks whether the concept matters more than random directions do.
      accuracy: (sets,) of each direction on examples that it was not fitted to.
      vectors: (sets, C) the directions, of length 1.
      derivatives: (sets, n) the directional derivatives, summed over the places.
      config: the arguments and versions, as JSON-able values.
    """

    scores: np.ndarray
    null: np.ndarray
    score: float
    p: float
    sensitivity: np.ndarray
    null_sensitivity: np.ndarray
    p_sensitivity: float
    accuracy: np.ndarray
    vectors: np.ndarray
    derivatives: np.ndarray
    config: Mapping[str, Any]

    def show(self) -> PIL.Image.Image:
        """Two bars with their standard deviations: the concept's score and that of chance."""
        picture = PIL.Image.new("RGB", (320, 200), "white")
        draw = PIL.ImageDraw.Draw(picture)
        draw.text((10, 5), f"score {self.score:.2f}, p = {self.p:.2g}", fill="black")
        for x, name, each in ((70, "concept", self.scores), (190, "random", self.null)):
            top, spread = 180 - 150 * each.mean(), 150 * each.std()
            colour = (23, 118, 182) if name == "concept" else (150, 150, 150)
            draw.rectangle((x, top, x + 60, 180), fill=colour)
            draw.line((x + 30, top - spread, x + 30, min(180, top + spread)), fill="black", width=2)
            draw.text((x + 8, 184), name, fill="black")
        draw.line((50, 180, 270, 180), fill="black")
        return picture


@gate.public
def tcav(
    model: Model,
    images: ArrayLike,
    target: Any,
    layer: str,
    examples: ArrayLike,
    random: ArrayLike | Dataset,
    *,
    sets: int = 30,
    key: KeyLike = 0,
    chunk: int | None = None,
    progress: bool = True,
) -> TCAV:
    """Tests whether a score depends on a concept that examples show.

    A direction is the normal of the ridge regression that tells activations of examples, averaged
    over the places, from those of a random set as large. Each takes other random two fifths of the
    examples too: directions that share all of them are no independent draws, and their t test
    finds significance between random sets. The accuracy is of those fitted to two thirds of a set.

    Args:
      model: any model.
      images: (n, H, W, C) of the class that is asked about, float32 in [0, 1].
      target: a class number or name, or an objective.
      layer: a name of `model.layers` before the target's.
      examples: (m, H, W, C) of the concept, at least 6.
      random: pictures without it, .8·m and 12 at least, or a data set.
      sets: random sets, and so many directions.
      key: of the random sets.
      chunk: images at once, a bound on memory.
      progress: a bar on a terminal.

    Raises:
      TypeError, ValueError: naming the argument.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import concepts
      >>> rng = np.random.default_rng(0)
      >>> noise = rng.random((30, 28, 28, 1)).astype(np.float32)
      >>> model = rvis.load("mnist_cnn")
      >>> found = concepts.tcav(model, noise[:5], 3, "relu2", noise[:8] / 2, noise[8:], sets=4)
      >>> found.scores.shape, bool(found.accuracy.mean() > 0.9)
      ((4,), True)

    Reference: Kim et al. 2018, Interpretability Beyond Feature Attribution: Quantitative Testing
      with Concept Activation Vectors, section 3.
    """
    question = ask(model, images, target, chunk=chunk)
    ranking.layer_shape(model, layer, question.shape)
    if checks.count("sets", sets, low=2) and isinstance(random, Dataset):
        ranking.check_dataset("random", random, model)
        random = random.floats()
    shape = question.shape
    shown = np.asarray(checks.images("examples", examples, shape=shape))
    others = np.asarray(checks.images("random", random, shape=shape))
    if len(shown) < 6:
        raise ValueError(f"examples: at least 6 were expected, given {len(shown)}")
    m = max(6, round(_SHARE * len(shown)))
    if len(others) < 2 * m:
        raise ValueError(f"random: at least {2 * m} images were expected, given {len(others)}")
    options: dict[str, Any] = {"pixels": question.pixels, "chunk": chunk, "progress": progress}
    slopes = engine.apply(
        _Slope(layer), model, (question.objective, question.images), label="gradients", **options
    )
    concept, pool = (
        _pooled(ranking.each(ranking.Activations(layer), model, part, many=True))
        for part in (shown, others)
    )
    rng = np.random.default_rng(np.asarray(jax.random.key_data(as_key(key))).tolist())
    vectors, right, chance = [], [], []
    for _ in range(sets):
        drawn = rng.permutation(len(pool))[: 2 * m]
        one, two = pool[drawn[:m]], pool[drawn[m:]]
        vector, accuracy = _direction(concept[rng.permutation(len(concept))[:m]], one, rng)
        vectors.append(vector)
        right.append(accuracy)
        chance.append(_direction(one, two, rng)[0])
    derivatives = np.stack(vectors) @ slopes.T
    scores, null = (derivatives > 0).mean(1), (np.stack(chance) @ slopes.T > 0).mean(1)
    lengths = np.linalg.norm(slopes, axis=1, keepdims=True)
    gradient = (slopes / np.where(lengths > 0, lengths, 1)).mean(0)
    cosines, random_cosines = (np.stack(each) @ gradient for each in (vectors, chance))
    # Which of two random sets comes first is chance, so that the null's mean is 0.
    spread = np.sqrt(np.square(random_cosines).mean() * (1 + 1 / sets))
    about = {
        "model": model.name,
        "target": target,
        "layer": layer,
        "sets": sets,
        "key": as_key(key),
    }
    return TCAV(
        scores,
        null,
        float(scores.mean()),
        welch(scores, null),
        cosines,
        random_cosines,
        student(cosines.mean() / spread, sets) if spread > 0 else float(not cosines.any()),
        np.asarray(right),
        np.stack(vectors),
        derivatives,
        describe(function="tcav", **about),
    )


@dataclasses.dataclass(frozen=True)
class _Slope:
    """The gradient of a score with respect to a layer, summed over the places (C,)."""

    layer: str

    def __call__(self, model: Model, problem: tuple[Objective, Array]) -> Array:
        objective, image = problem
        gradient = Score(model, objective).at(self.layer, image)[2]
        return gradient.reshape(-1, gradient.shape[-1]).sum(0)


def _pooled(activations: np.ndarray) -> np.ndarray:
    return activations.reshape(len(activations), -1, activations.shape[-1]).mean(1, dtype=float)


_SHARE = 0.4
_RIDGE = 0.01
"""Of the ridge regression, against the mean squared length of an example."""


def _direction(
    first: np.ndarray, second: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """The direction (C,) from `second` to `first`, and its accuracy where a third is held out."""
    held = len(first) // 3
    orders = [rng.permutation(len(part)) for part in (first, second)]
    mixed = [part[order] for part, order in zip((first, second), orders, strict=True)]
    vector, mean = _normal(*(part[held:] for part in mixed))
    sides = [(part[:held] - mean) @ vector > 0 for part in mixed]
    return _normal(first, second)[0], float(np.concatenate([sides[0], ~sides[1]]).mean())


def _normal(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The unit normal (C,) of the ridge regression that tells rows apart, and their mean."""
    rows = np.concatenate([first, second])
    mean = rows.mean(0)
    x = rows - mean
    y = np.repeat([1.0, -1.0], [len(first), len(second)])
    gram = x @ x.T
    # As many unknowns as examples, not as channels.
    weight = _RIDGE * np.trace(gram) / len(gram) or 1.0
    vector = x.T @ np.linalg.solve(gram + weight * np.eye(len(gram)), y)
    return vector / (np.linalg.norm(vector) or 1), mean


def welch(first: np.ndarray, second: np.ndarray) -> float:
    """The two-sided p of two samples having one mean, by Welch's t test.

    Example:
      >>> from rvis.concepts.cav import welch
      >>> round(welch([1, 2, 3, 4], [3, 4, 5, 6]), 4)
      0.071
    """
    a, b = (np.asarray(part, float) for part in (first, second))
    variances = [part.var(ddof=1) / len(part) for part in (a, b)]
    total = sum(variances)
    if total == 0:
        return float(a.mean() == b.mean())
    freedom = total**2 / sum(v**2 / (len(p) - 1) for v, p in zip(variances, (a, b), strict=True))
    return student((a.mean() - b.mean()) / np.sqrt(total), freedom)


def student(t: float, freedom: float) -> float:
    """Both tails of Student's distribution beyond ±t.

    Example:
      >>> from rvis.concepts.cav import student
      >>> round(student(2.0, 10), 4)
      0.0734
    """
    return float(jax.scipy.special.betainc(freedom / 2, 0.5, freedom / (freedom + t * t)))
