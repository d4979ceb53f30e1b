"""How many dimensions points have: of a whole set, and about each point."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rvis import checks
from rvis.manifold.points import check_layers, distinct, features, nearest, rows_of
from rvis.types import Array, ArrayLike, KeyLike, Model, as_key

_KEPT = 0.9
"""The share of the lowest ratios that TwoNN fits; the highest are the least certain."""


@dataclasses.dataclass(frozen=True)
class Dimension:
    """An estimate of an intrinsic dimension.

    Attributes:
      value: the estimate.
      error: its standard error by bootstrap over the points. Neighbourhoods overlap, so the true
        one is somewhat larger; the bias of the method is not in it.
      interval: (low, high), of 95 %, likewise.
      points: how many different ones there were.
      sample: at how many of them neighbours were sought.
      duplicates: how many were left out because they had come before.
      method: "mle" or "twonn".
      k: neighbours used; 2 for "twonn".
    """

    value: float
    error: float
    interval: tuple[float, float]
    points: int
    sample: int
    duplicates: int
    method: str
    k: int


def intrinsic_dimension(
    points: ArrayLike,
    *,
    method: str = "mle",
    k: int = 20,
    sample: int | None = None,
    resamples: int = 200,
    key: KeyLike = 0,
) -> Dimension:
    """The dimension of the manifold that points seem to lie on.

    "mle" takes from each point the mean over j < k of log(T_k/T_j), with T_j the distance to its
    j-th neighbour, averages that over all points and inverts it. "twonn" needs two neighbours: the
    slope through the origin of −log(1 − F) over log(T_2/T_1), F the ratio's rank divided by n, of
    the lowest 90 %.

    Distances are exact, and duplicates are left out first. Of few points in many dimensions both
    methods see too little: compare like with like, at one k and one number of points.

    Args:
      points: (n, ...), such as images (n, H, W, C) or features (n, d).
      method: "mle" or "twonn".
      k: neighbours of "mle", at least 2.
      sample: at how many points, drawn at random, to look; all by default. Their neighbours are
        sought among all points in any case, so that fewer cost time and certainty, but no bias.
      resamples: of the bootstrap.
      key: an int seed or a typed key, for the sample and the bootstrap.

    Returns:
      A `Dimension`.

    Raises:
      TypeError, ValueError: naming the argument: a method that is none, as many neighbours as
        points, NaN.

    Example:
      >>> import numpy as np
      >>> from rvis import manifold
      >>> turns = np.random.default_rng(0).uniform(0, 2 * np.pi, (1000, 1))
      >>> circle = np.concatenate([np.cos(turns), np.sin(turns), 0 * turns], 1)
      >>> found = manifold.intrinsic_dimension(circle)
      >>> round(found.value, 1), found.points
      (1.0, 1000)

    Reference: Levina & Bickel 2004, equation 8, averaged as in MacKay & Ghahramani 2005; Facco et
    al. 2017, equation 5.
    """
    checks.choice("method", method, ("mle", "twonn"))
    k = 2 if method == "twonn" else checks.count("k", k, low=2)
    checks.count("resamples", resamples, low=2)
    root = as_key(key)
    given = rows_of("points", points)
    kept = distinct(given)
    if len(kept) <= k:
        raise ValueError(
            f"points: more than k = {k} different ones were expected, given {len(kept)}"
        )
    rows = np.arange(len(kept))
    if sample is not None and checks.count("sample", sample, low=2) < len(kept):
        drawn = jax.random.permutation(jax.random.fold_in(root, 1), len(kept))
        rows = np.sort(np.asarray(drawn)[:sample])
    distances, _ = nearest(kept[rows], kept, k, own=rows)
    told = _told(distances)
    fit = _slope if method == "twonn" else _inverse_mean
    estimates = np.asarray(_resampled(root, told, resamples=resamples, fit=fit))
    low, high = np.percentile(estimates, (2.5, 97.5))
    return Dimension(
        float(fit(jnp.asarray(told))),
        float(estimates.std(ddof=1)),
        (float(low), float(high)),
        len(kept),
        len(rows),
        len(given) - len(kept),
        method,
        k,
    )


def _told(distances: np.ndarray) -> np.ndarray:
    """(n,) mean over j < k of log(T_k/T_j)."""
    logs = np.log(distances.astype(np.float64))
    return (logs[:, -1:] - logs[:, :-1]).mean(1).astype(np.float32)


def _inverse_mean(told: Array) -> Array:
    return 1 / told.mean()


def _slope(told: Array) -> Array:
    n = len(told)
    kept = int(_KEPT * n)
    x = jnp.sort(told)[:kept]
    y = -jnp.log1p(-jnp.arange(1, kept + 1) / n)
    return (x * y).sum() / jnp.square(x).sum()


@partial(jax.jit, static_argnames=("resamples", "fit"))
def _resampled(key: Array, told: Array, *, resamples: int, fit: Callable[[Array], Array]) -> Array:
    def one(key: Array) -> Array:
        return fit(told[jax.random.randint(key, told.shape, 0, len(told))])

    return lax.map(one, jax.random.split(key, resamples))


def layer_dimensions(
    model: Model,
    images: ArrayLike,
    layers: str | Sequence[str] | None = None,
    *,
    method: str = "mle",
    k: int = 20,
    key: KeyLike = 0,
    progress: bool = True,
) -> dict[str, Dimension]:
    """The intrinsic dimension of images in each layer's representation.

    Args:
      model: any model.
      images: (n, H, W, C), float32 in [0, 1]. A layer's activations for all of them are held in
        memory.
      layers: names of `model.layers` or "logits"; all of `model.layers` by default.
      method: as in `intrinsic_dimension`.
      k: likewise.
      key: likewise.
      progress: a bar on a terminal.

    Returns:
      {layer: `Dimension`}, in the order asked for.

    Raises:
      TypeError, ValueError: naming the argument.

    Example:
      >>> import numpy as np, rvis
      >>> images = np.random.default_rng(0).random((40, 28, 28, 1)).astype(np.float32)
      >>> model = rvis.load("mnist_cnn")
      >>> list(rvis.manifold.layer_dimensions(model, images, ["conv1", "fc1"], k=5))
      ['conv1', 'fc1']

    Reference: Ansuini et al. 2019, Intrinsic dimension of data representations in deep networks.
    """
    batch = np.asarray(checks.images("images", images, channels=model.input_shape[2]))
    names = check_layers(model, layers, batch.shape[1:])
    checks.choice("method", method, ("mle", "twonn"))
    checks.count("k", k, low=2)
    found = {}
    for name in names:
        codes = features(model, batch, name, progress=progress)
        found[name] = intrinsic_dimension(codes, method=method, k=k, key=key)
    return found


def local_dimension(
    points: ArrayLike, reference: ArrayLike, *, k: int = 20, batch: int = 100
) -> np.ndarray:
    """The local intrinsic dimension at points, as seen from batches of a reference set.

    −1 / (mean over j ≤ k of log(r_j/r_k)), with r_j the distance to the j-th nearest of the other
    members of the batch. Adversarial points, off the data, have higher ones than clean points.

    Args:
      points: (n, ...).
      reference: (n, ...): row i is what point i was made from (for clean points, itself); it is
        left out of its neighbours, so that clean, noisy and adversarial points see the same others.
      k: neighbours, below `batch`.
      batch: the reference is cut into batches of so many, in its order; the last one reaches back
        to be full. All at once where there are fewer.

    Returns:
      (n,) float64. NaN where all k neighbours are at one distance.

    Raises:
      TypeError, ValueError: naming the argument.

    Example:
      >>> import numpy as np
      >>> from rvis import manifold
      >>> rng = np.random.default_rng(0)
      >>> plane = np.pad(rng.random((200, 2)), ((0, 0), (0, 48)))
      >>> noisy = plane + 0.3 * rng.standard_normal(plane.shape)
      >>> clean, off = (manifold.local_dimension(p, plane).mean() for p in (plane, noisy))
      >>> bool(clean < 3 < off)
      True

    Reference: Ma et al. 2018, Characterizing Adversarial Subspaces Using Local Intrinsic
    Dimensionality, equation 4 and section 4.
    """
    given = rows_of("points", points)
    others = rows_of("reference", reference, width=given.shape[1])
    if len(given) != len(others):
        raise ValueError(
            f"reference: a row for each of {len(given)} points was expected, given {len(others)}"
        )
    size = min(checks.count("batch", batch, low=3), len(others))
    if checks.count("k", k, low=2) >= size:
        raise ValueError(f"k: fewer than the {size} of a batch were expected, given {k}")
    found = np.empty(len(given))
    for first in range(0, len(given), size):
        start = min(first, len(others) - size)
        rows = np.arange(first, min(first + size, len(given)))
        distances, _ = nearest(given[rows], others[start : start + size], k, own=rows - start)
        found[rows] = _local(distances)
    return found


def _local(distances: np.ndarray) -> np.ndarray:
    """(n,) from ascending (n, k); neighbours at distance zero tell nothing and are passed over."""
    far = distances.astype(np.float64)
    told = far > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        result = -told.sum(1) / np.log(far / far[:, -1:]).sum(1, where=told)
    return np.where(np.isfinite(result), result, np.nan)


def layer_local_dimensions(
    model: Model,
    images: ArrayLike,
    reference: ArrayLike,
    layers: str | Sequence[str] | None = None,
    *,
    k: int = 20,
    batch: int = 100,
    progress: bool = True,
) -> dict[str, np.ndarray]:
    """The local intrinsic dimension at images, in each layer's representation.

    Args:
      model: any model.
      images: (n, H, W, C), float32 in [0, 1]: clean, noisy or adversarial.
      reference: (n, H, W, C), what each was made from, see `local_dimension`.
      layers: names of `model.layers` or "logits"; all of `model.layers` by default.
      k: as in `local_dimension`.
      batch: likewise.
      progress: a bar on a terminal.

    Returns:
      {layer: (n,) float64}.

    Raises:
      TypeError, ValueError: naming the argument.

    Example:
      >>> import numpy as np, rvis
      >>> images = np.random.default_rng(0).random((40, 28, 28, 1)).astype(np.float32)
      >>> model = rvis.load("mnist_cnn")
      >>> found = rvis.manifold.layer_local_dimensions(model, images, images, "fc1", k=5)
      >>> found["fc1"].shape
      (40,)

    Reference: Ma et al. 2018, section 4.
    """
    shown = np.asarray(checks.images("images", images, channels=model.input_shape[2]))
    origin = np.asarray(checks.images("reference", reference, shape=shown.shape[1:]))  # type: ignore[arg-type]
    names = check_layers(model, layers, shown.shape[1:])
    found = {}
    for name in names:
        codes = [features(model, x, name, progress=progress) for x in (shown, origin)]
        found[name] = local_dimension(*codes, k=k, batch=batch)
    return found
