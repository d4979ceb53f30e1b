"""What is left of the score without the most important places: ROAD and IROF."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse
from scipy.sparse.linalg import spsolve

from rvis import checks, gate, struct
from rvis.analysis.metrics.curves import Curve
from rvis.analysis.metrics.judge import changed, heat, judged
from rvis.analysis.questions import one_baseline
from rvis.objectives.units import Probability
from rvis.types import LOGITS, Array, ArrayLike, KeyLike, Model, as_key


@struct.dataclass
class _Row:
    """Picture `number` of an image's own (k, H, W, C)."""

    def __call__(self, number: Array, image: Array, own: Array) -> tuple[Array, tuple[()]]:
        return own[number], ()


@struct.dataclass
class _Top(Probability):
    """1 where the class has the highest logit, else 0."""

    def __call__(self, activations: Any) -> Array:
        logits = activations[LOGITS]
        best = jnp.argmax(logits, -1) == self.unit
        return best.astype(jnp.float32).mean()


@gate.public
def road(
    model: Model,
    images: ArrayLike,
    maps: ArrayLike,
    target: Any,
    *,
    shares: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
    noise: float = 0.01,
    key: KeyLike = 0,
    chunk: int | None = None,
    progress: bool = True,
) -> Curve:
    """Whether the class is still the first choice without the most important places (ROAD).

    Removed places are filled so that each is the mean of its neighbours (weights 1/6 beside, 1/12
    diagonally), plus noise: less gives the mask away than with a colour.

    Args:
      model: any model.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      maps: (n, H, W), or (n, H, W, C), summed over the channels; highest is most important.
      target: a class number or one for each image, scored 1 where it has the highest logit and else
        0; or an objective of `rvis.objectives`, scored as it is.
      shares: of the places that are removed, each in (0, 1).
      noise: standard deviation of normal noise on what is filled in.
      key: an int seed or a typed key; the same noise serves every image.
      chunk: images on the device at once.
      progress: a bar on a terminal.

    Returns:
      A `Curve` from share 0 on.

    Raises:
      TypeError, ValueError: naming the argument, before anything is compiled.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis.analysis import metrics
      >>> model = rvis.load("mnist_cnn")
      >>> digit, order = np.ones((28, 28, 1), np.float32), np.random.random((1, 28, 28))
      >>> metrics.road(model, digit, order, 3, shares=[0.5]).scores.shape
      (1, 2)

    Reference: Rong et al. 2022, A Consistent and Efficient Evaluation Strategy for Attribution
      Methods, section 4 (noisy linear imputation).
    """
    question, of_class = judged(model, images, target)
    warm = heat(maps, question.images)
    size = checks.number("noise", noise, low=0)
    parts = [checks.number("shares", share, above=0, high=1) for share in shares]
    if not parts or parts != sorted(parts) or parts[-1] >= 1:
        raise ValueError(f"shares: rising numbers in (0, 1) were expected, given {shares!r}")
    seed = as_key(key)
    order = np.argsort(-warm.reshape(len(warm), -1), 1, kind="stable")
    rows = [question.images]
    for i, share in enumerate(parts):
        draw = jax.random.normal(jax.random.fold_in(seed, i), question.shape, jnp.float32)
        count = round(share * question.pixels)
        filled = [
            _filled(image, own[:count], size * np.asarray(draw))
            for image, own in zip(question.images, order, strict=True)
        ]
        rows.append(np.stack(filled))
    if of_class:
        unit = question.objective.unit  # type: ignore[attr-defined]
        question = struct.replace(question, objective=_Top(unit))
    own = np.stack(rows, 1)
    scores, _ = changed(_Row(), question, own.shape[1], own=own, chunk=chunk, progress=progress)
    return Curve(np.asarray([0.0, *parts]), scores)


def _filled(image: np.ndarray, places: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """An image (H, W, C) whose places (numbers row by row) are means of their neighbours."""
    height, width, channels = image.shape
    number = np.full(height * width, -1)
    number[places] = np.arange(len(places))
    rows, columns = np.divmod(places, width)
    weights, entries, right = np.zeros(len(places)), [], np.zeros((len(places), channels))
    flat = image.reshape(-1, channels).astype(np.float64)
    for down in (-1, 0, 1):
        for across in (-1, 0, 1):
            if not down and not across:
                continue
            weight = 1 / 6 if not down or not across else 1 / 12
            there = (rows + down >= 0) & (rows + down < height)
            there &= (columns + across >= 0) & (columns + across < width)
            beside = places[there] + down * width + across
            weights[there] += weight
            unknown = number[beside] >= 0
            at = np.flatnonzero(there)
            entries.append((at[unknown], number[beside[unknown]], weight))
            np.add.at(right, at[~unknown], weight * flat[beside[~unknown]])
    i = np.concatenate([np.arange(len(places)), *(a for a, _, _ in entries)])
    j = np.concatenate([np.arange(len(places)), *(b for _, b, _ in entries)])
    values = np.concatenate([weights, *(np.full(len(a), -w) for a, _, w in entries)])
    system = sparse.csc_matrix((values, (i, j)), shape=(len(places),) * 2)
    flat[places] = spsolve(system, right).reshape(len(places), channels)
    flat[places] += noise.reshape(-1, channels)[places]
    return flat.reshape(image.shape).astype(np.float32)


@struct.dataclass
class _Segments:
    """The first segments of an order hidden."""

    def __call__(self, number: Array, image: Array, own: tuple) -> tuple[Array, tuple[()]]:
        ranks, hidden = own
        return jnp.where((ranks < number)[..., None], hidden, image), ()


@gate.public
def irof(
    model: Model,
    images: ArrayLike,
    maps: ArrayLike,
    target: Any,
    *,
    segments: ArrayLike,
    baseline: str | ArrayLike = "mean",
    chunk: int | None = None,
    progress: bool = True,
) -> Curve:
    """The score as a share of what it was while segments are hidden, highest mean first (IROF).

    1 − `area` is the area over the curve: high is good.

    Args:
      segments: (H, W) integers, or (n, H, W) for each image, such as
        `rvis.attribution.superpixels` gives.
      baseline: what hides: the mean colour, as in the paper; else as `deletion`.

    All else as `deletion`. Where images have fewer segments than others, the last score stays.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis.analysis import metrics
      >>> model = rvis.load("mnist_cnn")
      >>> digit, order = np.ones((28, 28, 1), np.float32), np.ones((1, 28, 28))
      >>> quarters = np.arange(28)[:, None] // 14 * 2 + np.arange(28) // 14
      >>> metrics.irof(model, digit, order, 3, segments=quarters).scores.shape
      (1, 5)

    Reference: Rieger & Hansen 2020, IROF: a low resource evaluation metric for explanation methods,
      eq. 2.
    """
    question, logarithms = judged(model, images, target)
    warm = heat(maps, question.images)
    numbers = checks.integers("segments", segments, low=-checks.LARGEST)
    if numbers.shape not in (warm.shape, warm.shape[1:]):
        raise ValueError(
            f"segments: {warm.shape[1:]} or {warm.shape} was expected, given {numbers.shape}"
        )
    ranks = []
    for own, where in zip(warm, np.broadcast_to(numbers, warm.shape), strict=True):
        _, number = np.unique(where, return_inverse=True)
        number = number.reshape(-1)
        means = np.bincount(number, own.ravel()) / np.bincount(number)
        ranks.append(np.argsort(np.argsort(-means, kind="stable"))[number].reshape(own.shape))
    order = np.asarray(ranks, np.int32)
    count = int(order.max()) + 1
    scores, _ = changed(
        _Segments(),
        question,
        count + 1,
        own=(order, one_baseline(baseline, question.images)),
        logarithms=logarithms,
        chunk=chunk,
        progress=progress,
    )
    return Curve(np.arange(count + 1) / count, scores / scores[:, :1])
