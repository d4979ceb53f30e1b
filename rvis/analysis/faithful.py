"""Whether a picture shows its unit: how it ranks among real images, units and other networks."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from rvis import checks, gate, objectives, struct
from rvis.analysis import ranking
from rvis.data import Dataset
from rvis.models import taps
from rvis.objectives import Objective
from rvis.types import LOGITS, Array, ArrayLike, Model, layer_shapes


@dataclasses.dataclass(frozen=True, eq=False)
class Faithfulness:
    """How well m pictures show what m objectives respond to; no random view is involved.

    Attributes:
      activation: (m,) the objective on the picture.
      percentile: (m,) in [0, 100], the share of real images that raise the objective less; those
        that raise it as much count half.
      rank: (m,) the unit's place among all units of its layer, by how many standard deviations of
        the real images the picture raises each above its mean on them; 1 where the picture raises
        its own unit most. 0 for objectives that are of no single unit.
      counterpart: (m,) the unit of the other network that stands for this one: the class of the
        same number, or the unit of the layer whose scores correlate most with this one's over the
        real images; −1 without another network.
      correlation: (m,) that correlation; 1 for classes, NaN without another network.
      transfer: (m,) `percentile` of the picture for the counterpart; NaN without another network.
    """

    activation: np.ndarray
    percentile: np.ndarray
    rank: np.ndarray
    counterpart: np.ndarray
    correlation: np.ndarray
    transfer: np.ndarray


@gate.public
def faithfulness(
    model: Model,
    objective: Objective,
    pictures: ArrayLike,
    real: ArrayLike | Dataset,
    *,
    other: Model | None = None,
    chunk: int | None = None,
    progress: bool = False,
) -> Faithfulness:
    """Judges pictures by the clean activation of the unit that they are to show.

    Args:
      model: any model.
      objective: m objectives of one layer, or one.
      pictures: (m, H, W, C) in [0, 1], one for each objective; with one channel more, their
        opacity, they are laid on mid-grey.
      real: images to compare with, (n, H, W, C) in [0, 1] or a data set.
      other: another network, or the same trained from another seed, with the layer's name.
      chunk: real images read at once, where they are a data set; bounds memory. n scores are kept
        for every unit of the layer.
      progress: a bar on a terminal.

    Raises:
      ValueError, TypeError: naming the argument.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis.analysis.faithful import faithfulness
      >>> model = rvis.load("mnist_cnn")
      >>> rng = np.random.default_rng(0)
      >>> noise = rng.uniform(size=(20, 28, 28, 1)).astype(np.float32)
      >>> found = faithfulness(model, rvis.objectives.logit([1]), noise[:1], noise[1:])
      >>> bool(0 <= found.percentile[0] <= 100), bool(1 <= found.rank[0] <= 10)
      (True, True)
    """
    shown = _on_grey(pictures, model.input_shape[2])
    if isinstance(real, Dataset):
        ranking.check_dataset("real", real, model)
        real_shape = real.images.shape[1:]
    else:
        real = np.asarray(checks.images("real", real, channels=model.input_shape[2]))
        real_shape = real.shape[1:]
    count, height, width, channels = shown.shape
    shape = (height, width, channels)
    objectives.check(objective, model, shape)
    if objective.batch_shape not in ((count,), ()):
        raise ValueError(
            f"pictures: one for each of {objective.batch_shape} objectives was expected, given "
            f"{count}"
        )
    objectives.check(objective, model, real_shape)
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
    options: dict[str, Any] = {"chunk": chunk, "progress": progress}
    on_pictures, on_real = (_scores(model, many, members, x, **options) for x in (shown, real))
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
        size = there.batch_shape[0]
        theirs, seen = (_scores(other, there, size, x, **options) for x in (shown, real))
        if objective.layers == (LOGITS,):
            counterpart, correlation = own, np.ones(count)
        else:
            alike = _correlations(on_real[own], seen)
            counterpart, correlation = alike.argmax(1), alike.max(1)
        level = theirs[counterpart, np.arange(count)]
        transfer = _percentile(seen[counterpart], level)
    percentile = _percentile(on_real[own], chosen)
    return Faithfulness(chosen, percentile, rank, counterpart, correlation, transfer)


def _percentile(real: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Where (m,) levels lie among (m, n) scores, in [0, 100]; equal ones count half."""
    below, equal = real < levels[:, None], real == levels[:, None]
    return 100 * (below.mean(1) + 0.5 * equal.mean(1))


def _on_grey(pictures: ArrayLike, channels: int) -> np.ndarray:
    if np.ndim(pictures) != 4 or np.shape(pictures)[-1] != channels + 1:
        return np.asarray(checks.images("pictures", pictures, channels=channels))
    given = np.asarray(checks.images("pictures", pictures))
    return 0.5 + given[..., -1:] * (given[..., :-1] - 0.5)


@struct.dataclass
class _Members:
    """`count` objectives, each on each image by itself, in a model's place for `ranking.each`."""

    model: Model
    objectives: Objective
    count: int = struct.static()

    def unnamed(self) -> _Members:
        return struct.replace(self, model=self.model.unnamed())


def _of_members(members: _Members, problem: tuple[Array]) -> Array:
    """(b, count) scores of (b, H, W, C) images."""
    layers = members.objectives.layers
    activations = taps.activations(members.model, problem[0], layers)

    def one(image: dict[str, Array]) -> Array:
        alone = jax.tree.map(lambda leaf: leaf[None], image)
        # The count is for objectives without any numbers.
        each = jax.vmap(lambda member: member(alone), axis_size=members.count)
        return each(members.objectives)

    return jax.vmap(one)(activations)


def _scores(
    model: Model,
    many: Objective,
    count: int,
    images: np.ndarray | Dataset,
    *,
    chunk: int | None,
    progress: bool,
) -> np.ndarray:
    """(count, n) scores of images."""
    pieces: Any = [((), images)]
    if isinstance(images, Dataset):
        pieces = ranking.pieces(images, chunk=chunk)
    members = _Members(model, many, count)
    options: dict[str, Any] = {"many": True, "progress": progress, "label": model.name}
    parts = [ranking.each(_of_members, members, piece, **options).T for _, piece in pieces]
    return np.concatenate(parts, 1)


def _correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(a, b) Pearson correlations of rows; 0 for a row that is constant."""

    def standard(rows: np.ndarray) -> np.ndarray:
        rows = rows - rows.mean(1, keepdims=True)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        return rows / np.where(norms > 0, norms, np.inf)

    return standard(first) @ standard(second).T
