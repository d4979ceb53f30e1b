"""Whether a picture shows its unit: how it ranks among real images, units and other networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import numpy as np

from rvis import checks, objectives
from rvis.data import Dataset
from rvis.objectives import Objective
from rvis.taps import record
from rvis.types import LOGITS, Array, ArrayLike, Model, layer_shapes

_Batches = Callable[[slice], ArrayLike]


@dataclasses.dataclass(frozen=True, eq=False)
class Faithfulness:
    """How well m pictures show what m objectives respond to; no random view is involved.

    Attributes:
      activation: (m,) the objective on the picture.
      percentile: (m,) in [0, 100], the share of real images that raise the objective less.
      rank: (m,) the unit's place among all units of its layer, by how many standard deviations of
        the real images the picture raises each above its mean on them; 1 where the picture raises
        its own unit most. 0 for objectives that are of no single unit.
      counterpart: (m,) the unit of the other network that stands for this one: the class of the
        same number, or the unit of the layer whose scores correlate most with this one's over the
        real images; −1 without another network.
      correlation: (m,) that correlation; 1 for classes.
      transfer: (m,) `percentile` of the picture for the counterpart; NaN without another network.
    """

    activation: np.ndarray
    percentile: np.ndarray
    rank: np.ndarray
    counterpart: np.ndarray
    correlation: np.ndarray
    transfer: np.ndarray


def faithfulness(
    model: Model,
    objective: Objective,
    pictures: ArrayLike,
    real: ArrayLike | Dataset,
    *,
    other: Model | None = None,
    batch: int = 100,
) -> Faithfulness:
    """Judges pictures by the clean activation of the unit that they are to show.

    Args:
      model: any model.
      objective: m objectives of one layer, or one.
      pictures: (m, H, W, C) in [0, 1], one for each objective; with one channel more, their
        opacity, they are laid on mid-grey.
      real: images to compare with, (n, H, W, C) in [0, 1] or a data set.
      other: another network, or the same trained from another seed, with the layer's name.
      batch: real images at once; bounds memory. n scores are kept for every unit of the layer.

    Returns:
      A Faithfulness.

    Raises:
      ValueError, TypeError: naming the argument.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis.faithfulness import faithfulness
      >>> model = rvis.load("mnist_cnn")
      >>> rng = np.random.default_rng(0)
      >>> noise = rng.uniform(size=(20, 28, 28, 1)).astype(np.float32)
      >>> found = faithfulness(model, rvis.objectives.logit([1]), noise[:1], noise[1:])
      >>> bool(0 <= found.percentile[0] <= 100), bool(1 <= found.rank[0] <= 10)
      (True, True)
    """
    shown = _on_grey(pictures, model.input_shape[2])
    others: _Batches
    if isinstance(real, Dataset):
        total, others = len(real), lambda rows: real.floats(np.arange(len(real))[rows])
        checks.images("real", others(slice(0, 1)), channels=model.input_shape[2])
    else:
        given = checks.images("real", real, channels=model.input_shape[2])
        total, others = len(given), given.__getitem__
    checks.count("batch", batch)
    count, height, width, channels = shown.shape
    shape = (height, width, channels)
    objectives.check(objective, model, shape)
    if objective.batch_shape not in ((count,), ()):
        raise ValueError(
            f"pictures: one for each of {objective.batch_shape} objectives was expected, given "
            f"{count}"
        )
    there_shape = tuple(others(slice(0, 1)).shape[1:])  # type: ignore[union-attr]
    objectives.check(objective, model, there_shape)
    family = objective.siblings(layer_shapes(model, shape))
    if other is not None and family is None:
        raise ValueError(
            "other: objectives of single units were expected for a comparison of networks"
        )
    many = objective.broadcast(count) if family is None else family
    members = count if family is None else family.batch_shape[0]
    own = np.arange(count)
    if family is not None:
        own = np.broadcast_to(np.asarray(objective.identities()), (count,))
    sets = ((shown.__getitem__, count), (others, total))
    on_pictures, on_real = (_scores(model, many, members, *images, batch) for images in sets)
    chosen = on_pictures[own, np.arange(count)]
    rank = np.zeros(count, int)
    if family is not None:
        spread = on_real.std(1)
        raised = on_pictures - on_real.mean(1)[:, None]
        raised = raised / np.where(spread > 0, spread, np.inf)[:, None]
        rank = 1 + (raised > raised[own, np.arange(count)]).sum(0)
    counterpart, correlation = np.full(count, -1), np.full(count, np.nan)
    transfer = np.full(count, np.nan)
    if other is not None:
        there = objective.siblings(layer_shapes(other, shape))
        assert there is not None
        objectives.check(there, other, shape)
        theirs, seen = (
            _scores(other, there, there.batch_shape[0], *images, batch) for images in sets
        )
        if objective.layers == (LOGITS,):
            counterpart, correlation = own, np.ones(count)
        else:
            alike = _correlations(on_real[own], seen)
            counterpart, correlation = alike.argmax(1), alike.max(1)
        level = theirs[counterpart, np.arange(count)]
        transfer = 100 * (seen[counterpart] < level[:, None]).mean(1)
    percentile = 100 * (on_real[own] < chosen[:, None]).mean(1)
    return Faithfulness(chosen, percentile, rank, counterpart, correlation, transfer)


def _on_grey(pictures: ArrayLike, channels: int) -> Array:
    if np.ndim(pictures) != 4 or np.shape(pictures)[-1] != channels + 1:
        return checks.images("pictures", pictures, channels=channels)
    given = checks.images("pictures", pictures)
    return 0.5 + given[..., -1:] * (given[..., :-1] - 0.5)


@partial(jax.jit, static_argnames="count")
def _each(activations: dict[str, Array], many: Objective, count: int) -> Array:
    """(count, n) scores, each objective on each image by itself."""

    def one(member: Objective, image: dict[str, Array]) -> Array:
        return member(jax.tree.map(lambda leaf: leaf[None], image))

    def all_images(member: Objective) -> Array:
        return jax.vmap(lambda image: one(member, image))(activations)

    # Said in numbers, for objectives without any.
    return jax.vmap(all_images, axis_size=count)(many)


def _scores(
    model: Model, many: Objective, count: int, images: _Batches, total: int, batch: int
) -> np.ndarray:
    """(count, total) scores of images that are looked at batch by batch."""
    parts = [
        np.asarray(
            _each(record(model, images(slice(first, first + batch)), many.layers), many, count)
        )
        for first in range(0, total, batch)
    ]
    return np.concatenate(parts, 1)


def _correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(a, b) Pearson correlations of rows; 0 for a row that is constant."""

    def standard(rows: np.ndarray) -> np.ndarray:
        rows = rows - rows.mean(1, keepdims=True)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        return rows / np.where(norms > 0, norms, np.inf)

    return standard(first) @ standard(second).T
