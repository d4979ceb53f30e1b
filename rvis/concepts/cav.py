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
    """How much a class depends on a concept, beside random concepts that are tested alike.

    Attributes:
      scores: (sets,) the share of the images whose score rises along the direction that tells the
        concept from one random set.
      null: (samples,) the mean of such shares of each random concept.
      score: the mean of `scores`.
      sensitivity: (sets,) the mean cosine of the images' gradients and each direction.
      null_sensitivity: (samples,) the mean of such cosines of each random concept.
      p: the share of random concepts, this one counted among them, whose sensitivity is as large,
        of either sign: does the class depend on these examples more than on random pictures? It
        is at least 1 / (samples + 1).
      p_welch: the paper's: of the concept's scores and random sets' having one mean (Welch's t).
        It counts the directions of one concept as independent. With more sets it finds any lean
        of a direction significant, a random one's too.
      accuracy: (sets,) of each direction, on the pictures that it was not fitted to.
      vectors: (sets, C) the directions, of length 1.
      derivatives: (sets, n) the directional derivatives, summed over the places.
      config: the arguments and versions, as JSON-able values.
    """

    scores: np.ndarray
    null: np.ndarray
    score: float
    sensitivity: np.ndarray
    null_sensitivity: np.ndarray
    p: float
    p_welch: float
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
    samples: int = 200,
    chunk: int | None = None,
    progress: bool = True,
) -> TCAV:
    """Tests whether a score depends on a concept that examples show.

    A direction is the normal of the ridge regression that tells activations, averaged over the
    places, of half of the examples from those of as many random pictures. There are as many as
    `sets`, each with other halves. What they share is the concept, and this is what is tested: as
    many examples are drawn from the random pictures `samples` times, and treated in the same way
    as the concept against those that are left.

    Args:
      model: any model.
      images: (n, H, W, C) of the class that is asked about, float32 in [0, 1].
      target: a class number or name, or an objective.
      layer: a name of `model.layers` before the target's.
      examples: (m, H, W, C) of the concept, at least 6.
      random: at least 2·m pictures without it, or a data set.
      sets: random sets, and so many directions of a concept.
      key: of the random sets and concepts.
      samples: random concepts.
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
      >>> found = concepts.tcav(model, noise[:5], 3, "relu2", noise[:8] / 2, noise[8:], samples=9)
      >>> found.scores.shape, bool(found.accuracy.mean() > 0.9)
      ((30,), True)

    Reference: Kim et al. 2018, Interpretability Beyond Feature Attribution: Quantitative Testing
      with Concept Activation Vectors, section 3; the p of random concepts is Phipson & Smyth's
      2010, Permutation P-values should never be zero.
    """
    question = ask(model, images, target, chunk=chunk)
    ranking.layer_shape(model, layer, question.shape)
    checks.count("sets", sets, low=2)
    checks.count("samples", samples, low=2)
    if isinstance(random, Dataset):
        ranking.check_dataset("random", random, model)
        random = random.floats()
    shape = question.shape
    shown = np.asarray(checks.images("examples", examples, shape=shape))
    others = np.asarray(checks.images("random", random, shape=shape))
    size, count = len(shown), len(others)
    if size < 6:
        raise ValueError(f"examples: at least 6 were expected, given {size}")
    if count < 2 * size:
        raise ValueError(f"random: at least {2 * size} images were expected, given {count}")
    options: dict[str, Any] = {"pixels": question.pixels, "chunk": chunk, "progress": progress}
    slopes = engine.apply(
        _Slope(layer), model, (question.objective, question.images), label="gradients", **options
    )
    pictures = np.concatenate([shown, others])
    seen = ranking.each(ranking.Activations(layer), model, pictures, many=True)
    rows = seen.reshape(len(seen), -1, seen.shape[-1]).mean(1, dtype=float)
    rows -= rows.mean(0)
    rises = slopes @ rows.T
    lengths = np.linalg.norm(slopes, axis=1, keepdims=True)
    leans = (slopes / np.where(lengths > 0, lengths, 1)).mean(0) @ rows.T
    # The same products of pictures, in as many numbers as there are pictures or channels.
    few = np.asarray(np.linalg.qr(rows.T, mode="r")).T
    rng = np.random.default_rng(np.asarray(jax.random.key_data(as_key(key))).tolist())
    null, chance, first = np.empty(samples), np.empty(samples), np.empty(samples)
    for i in range(samples):
        drawn = size + rng.permutation(count)
        of, weights = _directions(few, drawn[:size], drawn[size:], sets, rng)
        shares = (np.einsum("nsr,sr->sn", rises[:, of], weights) > 0).mean(1)
        null[i], first[i] = shares.mean(), shares[0]
        chance[i] = (leans[of] * weights).sum(1).mean()
    # The concept is told from as many pictures as a random one is.
    left = size + rng.permutation(count)[size:]
    of, weights = _directions(few, np.arange(size), left, sets, rng)
    vectors = np.einsum("src,sr->sc", rows[of], weights)
    derivatives = vectors @ slopes.T
    scores, cosines = (derivatives > 0).mean(1), (leans[of] * weights).sum(1)
    right = []
    for fitted, vector in zip(of, vectors, strict=True):
        sides = [np.setdiff1d(part, fitted) for part in (np.arange(size), left)]
        above = [(rows[side] - rows[fitted].mean(0)) @ vector > 0 for side in sides]
        right.append((above[0].mean() + 1 - above[1].mean()) / 2)
    given: dict[str, Any] = {"layer": layer, "sets": sets, "samples": samples, "key": as_key(key)}
    config = describe(function="tcav", model=model.name, target=target, **given)
    return TCAV(
        scores,
        null,
        float(scores.mean()),
        cosines,
        chance,
        float(1 + (np.abs(chance) >= abs(cosines.mean())).sum()) / (samples + 1),
        welch(scores, first),
        np.asarray(right),
        vectors,
        derivatives,
        config,
    )


@dataclasses.dataclass(frozen=True)
class _Slope:
    """The gradient of a score with respect to a layer, summed over the places (C,)."""

    layer: str

    def __call__(self, model: Model, problem: tuple[Objective, Array]) -> Array:
        objective, image = problem
        gradient = Score(model, objective).at(self.layer, image)[2]
        return gradient.reshape(-1, gradient.shape[-1]).sum(0)


_RIDGE = 0.01
"""Of the ridge regression, against the mean squared length of an example."""


def _directions(
    rows: np.ndarray, concept: np.ndarray, pool: np.ndarray, sets: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Unit normals that tell halves of a concept from the pool, as sums of rows.

    Args:
      rows: (N, C) of all pictures.
      concept, pool: numbers of rows.
      sets: how many normals.
      rng: draws the halves, and as many of the pool.

    Returns:
      The rows' numbers (sets, 2m), and their weights, which add up to 0.
    """
    m = len(concept) // 2
    halves = [[rng.permutation(part)[:m] for part in (concept, pool)] for _ in range(sets)]
    chosen = np.asarray(halves).reshape(sets, 2 * m)
    x = rows[chosen]
    x -= x.mean(1, keepdims=True)
    part = x @ x.swapaxes(1, 2)
    ridge = _RIDGE * np.trace(part, axis1=1, axis2=2) / (2 * m)
    ridge = np.where(ridge > 0, ridge, 1)[:, None, None]
    sides = np.repeat([[1.0], [-1.0]], m, 0)
    # As many unknowns as examples, not as channels.
    weights = np.linalg.solve(part + ridge * np.eye(2 * m), sides)[..., 0]
    squares = np.einsum("sr,srq,sq->s", weights, part, weights)
    return chosen, weights / np.sqrt(np.where(squares > 0, squares, 1))[:, None]


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
    t = (a.mean() - b.mean()) / np.sqrt(total)
    return float(jax.scipy.special.betainc(freedom / 2, 0.5, freedom / (freedom + t * t)))
