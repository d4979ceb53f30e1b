"""Few directions for many activations: non-negative factors, principal axes, means of clusters."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rvis import checks, engine, gate, struct
from rvis.concepts.dictionary import Concepts, Decoder, Encoder
from rvis.types import Array, ArrayLike, KeyLike, as_key


@dataclasses.dataclass(frozen=True, eq=False)
class Factors:
    """A ≈ W·H with no negative number in either.

    Attributes:
      maps: (..., k) W, in the shape of the activations' leading axes.
      vectors: (k, C) H, of L2 length 1 (or 0).
      residual: ‖A − W·H‖ / ‖A‖, Frobenius norms.
    """

    maps: np.ndarray
    vectors: np.ndarray
    residual: float


@gate.public
def nmf(
    activations: ArrayLike,
    k: int,
    *,
    key: KeyLike = 0,
    start: str | tuple[ArrayLike, ArrayLike] = "nndsvd",
    steps: int = 500,
) -> Factors:
    """Non-negative matrix factorization by hierarchical alternating least squares.

    Groups come out strongest first.

    Args:
      activations: (..., C), not negative; leading axes are flattened.
      k: groups, at most min(n, C).
      key: of the random start.
      start: "nndsvd" (Boutsidis & Gallopoulos 2008), with the mean where it has zeros; "random"; or
        W (n, k) and H (k, C), not negative.
      steps: rounds.

    Raises:
      TypeError, ValueError: naming the argument.

    Example:
      >>> import numpy as np
      >>> from rvis.concepts.factors import nmf
      >>> rng = np.random.default_rng(0)
      >>> product = rng.random((30, 2)) @ rng.random((2, 7))
      >>> nmf(product, 2).residual < 1e-3
      True

    Reference: Cichocki & Phan 2009, Fast local algorithms for large scale nonnegative matrix and
      tensor factorizations, algorithm 2.
    """
    given = np.asarray(activations, np.float32)
    if given.ndim < 2 or given.size == 0:
        raise ValueError(f"activations: (..., C) was expected, given shape {given.shape}")
    if not np.isfinite(given).all() or given.min() < 0:
        raise ValueError(
            f"activations: finite numbers of at least 0, as after a ReLU, were expected, given "
            f"{given.min():.4g} to {given.max():.4g}"
        )
    matrix = given.reshape(-1, given.shape[-1])
    if checks.count("k", k) > min(matrix.shape):
        raise ValueError(f"k: at most {min(matrix.shape)} was expected, given {k}")
    seed = as_key(key)
    rows, columns = (
        starting_factors(start, matrix, k, seed)
        if isinstance(start, str)
        else _given_start(start, matrix, k)
    )
    w, h = (np.asarray(leaf) for leaf in _hals(matrix, rows, columns, np.int32(steps)))
    residual = float(np.linalg.norm(matrix - w @ h) / (np.linalg.norm(matrix) or 1))
    lengths = np.linalg.norm(h, axis=1)
    w, h = w * lengths, h / np.where(lengths > 0, lengths, 1)[:, None]
    order = np.argsort(-np.linalg.norm(w, axis=0), kind="stable")
    return Factors(w[:, order].reshape(*given.shape[:-1], k), h[order], residual)


def starting_factors(
    start: str, matrix: ArrayLike, k: int, key: KeyLike = 0
) -> tuple[np.ndarray, np.ndarray]:
    """W (n, k) and H (k, C) from which `nmf` starts.

    Args:
      start: "nndsvd" or "random".
      matrix: (n, C), not negative.
      k: groups.
      key: of the random start: uniform numbers whose product has the matrix's mean, in the mean.

    Raises:
      ValueError: naming `start`.

    Example:
      >>> import numpy as np
      >>> from rvis.concepts.factors import starting_factors
      >>> w, h = starting_factors("nndsvd", np.ones((4, 3)), 1)
      >>> (w @ h).round(3).max().item()
      1.0
    """
    checks.choice("start", start, ("nndsvd", "random"))
    given = np.asarray(matrix, np.float32)
    if start == "nndsvd":
        return _nndsvd(given, k)
    scale = 2 * np.sqrt(given.mean() / k)
    one, other = jax.random.split(as_key(key))
    w = jax.random.uniform(one, (len(given), k), jnp.float32)
    h = jax.random.uniform(other, (k, given.shape[1]), jnp.float32)
    return scale * np.asarray(w), scale * np.asarray(h)


def _given_start(start: Any, matrix: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(start, (tuple, list)) or len(start) != 2:
        raise TypeError(
            f"start: 'nndsvd', 'random' or a pair of arrays was expected, given {start!r}"
        )
    w, h = (np.asarray(checks.array("start", part), np.float32) for part in start)
    shapes = (len(matrix), k), (k, matrix.shape[1])
    if (w.shape, h.shape) != shapes or min(w.min(), h.min()) < 0:
        raise ValueError(
            f"start: arrays of at least 0, shaped {shapes}, were expected, given "
            f"{w.shape} and {h.shape}"
        )
    return w, h


def _nndsvd(matrix: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    whole = matrix.astype(np.float64)
    # Of the small triangle, whose singular values and axes are the same.
    _, s, v = np.linalg.svd(np.linalg.qr(whole, mode="r"), full_matrices=False)
    u = whole @ v[:k].T / np.where(s[:k] > 0, s[:k], 1)
    w, h = np.zeros((len(matrix), k)), np.zeros((k, matrix.shape[1]))
    for j in range(k):
        signs = [(np.maximum(z * u[:, j], 0), np.maximum(z * v[j], 0)) for z in (1, -1)]
        x, y = max(signs, key=lambda pair: np.linalg.norm(pair[0]) * np.linalg.norm(pair[1]))
        a, b = np.linalg.norm(x), np.linalg.norm(y)
        if a * b > 0:
            scale = np.sqrt(s[j] * a * b)
            w[:, j], h[j] = scale * x / a, scale * y / b
    mean = matrix.mean()
    w[w < 1e-6], h[h < 1e-6] = mean, mean
    return w.astype(np.float32), h.astype(np.float32)


def _half(factor: Array, product: Array, gram: Array) -> Array:
    """Each row of `factor` (k, m) to its optimum, given `product` = fixedᵀ·A."""

    def one(j: Array, factor: Array) -> Array:
        change = (product[j] - gram[j] @ factor) / jnp.maximum(gram[j, j], 1e-12)
        return factor.at[j].set(jnp.maximum(factor[j] + change, 0))

    return lax.fori_loop(0, len(factor), one, factor)


@jax.jit
def _hals(matrix: Array, w: Array, h: Array, steps: Array) -> tuple[Array, Array]:
    def step(_: Array, both: tuple[Array, Array]) -> tuple[Array, Array]:
        w, h = both
        w = _half(w.T, h @ matrix.T, h @ h.T).T
        return w, _half(h, w.T @ matrix, w.T @ w)

    return lax.fori_loop(0, steps, step, (w, h))


_ROUNDS = 50
"""Of coordinate descent for the strengths of fixed factors."""


@struct.dataclass
class NonNegative:
    """Strengths z ≥ 0 of fixed factors that come nearest to x, the other half of `nmf`.

    Attributes:
      vectors: (k, C) H, not negative.
    """

    vectors: Array

    def readings(self, x: Array) -> Array:
        """(..., k) dot products."""
        return x @ self.vectors.T

    def rule(self, readings: Array) -> Array:
        """(..., k) strengths, from the dot products alone."""
        product = jnp.asarray(readings).reshape(-1, readings.shape[-1]).T
        gram = jnp.asarray(self.vectors @ self.vectors.T)

        def step(_: Array, z: Array) -> Array:
            return _half(z, product, gram)

        found = lax.fori_loop(0, _ROUNDS, step, jnp.zeros_like(product))
        return found.T.reshape(readings.shape)


def factorized(rows: np.ndarray, k: int, layer: str, *, key: Array, steps: int) -> Concepts:
    """Non-negative factors of rows (n, C) as concepts."""
    vectors = jnp.asarray(nmf(rows, k, key=key, steps=steps).vectors)
    return Concepts(NonNegative(vectors), Decoder(vectors, jnp.zeros_like(vectors[0])), layer)


def principal(rows: np.ndarray, k: int, layer: str, *, key: Array, steps: int) -> Concepts:
    """The principal axes of rows (n, C) as concepts, largest variance first."""
    mean = rows.mean(0, dtype=np.float64)
    _, axes = np.linalg.eigh(np.cov(rows.T.astype(np.float64)).reshape(len(mean), -1))
    vectors = axes[:, ::-1][:, :k].T
    # Of the two signs the one whose largest entry is positive.
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(1)[:, None], 1)
    signed, offset = jnp.asarray(vectors * np.sign(largest), jnp.float32), jnp.float32(mean)
    zeros = jnp.zeros(k, jnp.float32)
    encoder = Encoder(signed.T, zeros, offset, jnp.float32(0), "linear")
    return Concepts(encoder, Decoder(signed, offset), layer)


@struct.dataclass
class _Lloyd:
    """Lloyd's algorithm: the state is the means (k, C), and whether they moved."""

    def init(self, key: Array, start: Array) -> tuple[Array, Array]:
        return start, jnp.bool_(True)

    def step(
        self, key: Array, state: tuple[Array, Array], model: Any, problem: Array
    ) -> tuple[tuple[Array, Array], Array]:
        (means, _), rows = state, problem
        apart = jnp.square(means).sum(1) - 2 * rows @ means.T
        own = jax.nn.one_hot(apart.argmin(1), len(means), dtype=rows.dtype)
        counts = own.sum(0)[:, None]
        # An empty cluster stays where it was.
        new = jnp.where(counts > 0, own.T @ rows / jnp.maximum(counts, 1), means)
        return (new, (new != means).any()), apart.min(1).mean() + jnp.square(rows).sum(1).mean()

    def done(self, state: tuple[Array, Array]) -> Array:
        return ~state[1]

    def finish(self, state: tuple[Array, Array], model: Any, problem: Array) -> Array:
        return state[0]


def clustered(rows: np.ndarray, k: int, layer: str, *, key: Array, steps: int) -> Concepts:
    """The means of k clusters of rows (n, C) as concepts: a place has one of them.

    Reference: Lloyd 1982, Least squares quantization in PCM; Arthur & Vassilvitskii 2007,
      k-means++.
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
    chosen = [rows[rng.integers(len(rows))]]
    apart = np.full(len(rows), np.inf)
    for _ in range(k - 1):
        apart = np.minimum(apart, np.square(rows - chosen[-1]).sum(1, dtype=np.float64))
        total = apart.sum()
        share = apart / total if total > 0 else np.full(len(rows), 1 / len(rows))
        chosen.append(rows[rng.choice(len(rows), p=share)])
    starts = np.stack(chosen)[None]
    options: dict[str, Any] = {"steps": steps, "pixels": len(rows), "progress": False}
    run = engine.run(_Lloyd(), None, rows[None], key[None], starts=starts, **options)
    means = jnp.asarray(run.result[0])
    none = jnp.zeros_like(means[0])
    bias = -jnp.square(means).sum(1) / 2
    return Concepts(
        Encoder(means.T, bias, none, jnp.float32(0), "nearest"), Decoder(means, none), layer
    )
