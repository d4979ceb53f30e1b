"""Sparse autoencoders: dictionaries larger than their layer, of which few directions are on."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rvis import checks, engine, files, gate, struct
from rvis.concepts.dictionary import Concepts, Decoder, Encoder, largest
from rvis.concepts.source import Source, source
from rvis.data import Dataset
from rvis.engine import checkpoints
from rvis.types import Array, KeyLike, Model, as_key

KINDS = {"relu": 0.2, "topk": 0.0, "batchtopk": 0.0, "jump": 0.02}
"""What there is, and the weight of each one's penalty by default."""


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """A sparse autoencoder and how it came about.

    Attributes:
      concepts: the latents, with directions of length 1.
      figures: of each epoch: "explained" (the share of the activations' variance that the latents
        explain), "active" (latents on at a place, L0) and "dead" (the share of the latents that
        were on nowhere in the epoch).
    """

    concepts: Concepts
    figures: tuple[Mapping[str, float], ...]


@struct.dataclass
class _Weights:
    """In units in which activations have mean 0 and a mean square of 1 a channel."""

    kernel: Array
    bias: Array
    vectors: Array
    offset: Array
    threshold: Array


@struct.dataclass
class _State:
    step: Array
    weights: _Weights
    optimizer: Any
    idle: Array
    least: Array
    figures: Array


@struct.dataclass
class _Scale:
    """How activations become numbers of mean 0 and a mean square of 1 a channel."""

    mean: Array
    factor: Array


@gate.public
def train_sae(
    model: Model,
    layer: str,
    dataset: Dataset,
    *,
    width: int = 8,
    kind: str = "topk",
    active: int = 32,
    penalty: float | None = None,
    epochs: int = 4,
    batch_size: int = 2048,
    learning_rate: float = 4e-3,
    store: files.PathLike | None = None,
    key: KeyLike = 0,
    chunk: int | None = None,
    checkpoint: files.PathLike | None = None,
    callback: Callable[[int, Mapping[str, float]], Any] | None = None,
    progress: bool = True,
) -> Trained:
    """Trains a sparse autoencoder on a layer's activations, a vector of each place.

    The directions have length 1. Latents that were off for a hundred steps are dead: with all of
    these kinds the largest dead ones are asked to explain what the others leave (Gao 2024).

    Args:
      model: any model.
      layer: a name of `model.layers`.
      dataset: images that the model takes, looked at in another order in each epoch.
      width: latents for each channel of the layer.
      kind: "relu" with an L1 penalty; "topk", the `active` largest at each place; "batchtopk", as
        many on average, by a threshold over the batch and then a fixed one; "jump", a threshold of
        each latent's own with a penalty on how many are on.
      active: latents that are on at a place, of "topk" and "batchtopk".
      penalty: the weight of the penalty of "relu" and "jump", against the unexplained share of the
        variance; .2 and .02 by default.
      epochs: passes over the images.
      batch_size: activation vectors a step.
      learning_rate: the highest, of Adam; it rises for a twentieth of the steps and falls for the
        last half.
      store: a file ending in .npy in which the activations are kept as float16, so that later
        epochs, and other calls for the same images, need not run the network.
      key: of the start and the order of the images.
      chunk: images at once, a bound on memory; another one gives another order.
      checkpoint: a folder in which every epoch is saved, and from which an interrupted run with the
        same arguments goes on to the same bits. It stays in the end.
      callback: `callback(epoch, figures)` after each epoch, from 1; True ends the training.
      progress: a bar on a terminal.

    Raises:
      TypeError, ValueError: naming the argument.
      FloatingPointError: if a weight becomes NaN or infinite.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import concepts
      >>> images = np.random.default_rng(0).integers(0, 256, (6, 28, 28, 1), np.uint8)
      >>> noise = rvis.data.Dataset(images, np.zeros(6, np.int32), ("noise",), "noise")
      >>> model = rvis.load("mnist_cnn")
      >>> trained = concepts.train_sae(model, "relu2", noise, epochs=1, batch_size=512)
      >>> len(trained.concepts), sorted(trained.figures[0])
      (512, ['active', 'dead', 'explained'])

    Reference: Bricken et al. 2023, Towards Monosemanticity; Gao et al. 2024, Scaling and evaluating
      sparse autoencoders, eq. 1 and appendix A.2; Bussmann et al. 2024, BatchTopK Sparse
      Autoencoders; Rajamanoharan et al. 2024, Jumping Ahead, eq. 9 to 12.
    """
    checks.choice("kind", kind, KINDS)
    for name, value in {"width": width, "active": active, "epochs": epochs}.items():
        checks.count(name, value)
    place = None if checkpoint is None else files.as_path("checkpoint", checkpoint) / "sae.npz"
    weight = KINDS[kind] if penalty is None else checks.number("penalty", penalty, low=0)
    rate = checks.number("learning_rate", learning_rate, above=0)
    root = as_key(key)
    data = source(model, layer, dataset, store=store, chunk=chunk, progress=progress)
    if active > width * data.shape[-1]:
        raise ValueError(f"active: at most {width * data.shape[-1]} was expected, given {active}")
    total = len(dataset) * data.places
    if checks.count("batch_size", batch_size) > total:
        raise ValueError(
            f"batch_size: at most {total} activations was expected, given {batch_size}"
        )
    options: dict[str, Any] = {"width": width, "kind": kind, "active": active, "penalty": weight}
    options |= {"epochs": epochs, "batch_size": batch_size, "rate": rate}
    options |= {"chunk": chunk, "place": place, "callback": callback, "progress": progress}
    return train(data, root, **options)


def train(
    data: Source,
    root: Array,
    *,
    width: int,
    kind: str,
    active: int,
    penalty: float,
    epochs: int,
    batch_size: int,
    rate: float,
    chunk: int | None = None,
    place: Any = None,
    callback: Callable[[int, Mapping[str, float]], Any] | None = None,
    progress: bool = False,
) -> Trained:
    """The training itself, of checked arguments."""
    channels, count = data.shape[-1], len(data.dataset)
    per_epoch = count * data.places // batch_size
    scale = _measured(data)
    optimizer, steps = _optimizer(rate, per_epoch * epochs), per_epoch * epochs
    state = _start(root, channels, width * channels, epochs, optimizer)
    fingerprint = ""
    if place is not None:
        about = (root, width, kind, active, penalty, epochs, batch_size, rate, chunk, data.layer)
        fingerprint = checkpoints.fingerprint(about, scale, data.dataset.images)
    settings: dict[str, Any] = {"kind": kind, "active": active, "steps": steps}
    told: list[dict[str, float]] = []
    with files.alone(place and place.parent):
        if place is not None and place.exists():
            state = checkpoints.load(place, state, fingerprint=fingerprint)
        for epoch in range(epochs):
            began, fresh = time.perf_counter(), epoch >= int(state.step) // per_epoch
            if fresh:
                sums = (jnp.zeros(3, jnp.float32), jnp.zeros(width * channels, jnp.bool_))
                batches = _batches(data, root, epoch, batch_size, chunk)
                label = f"epoch {epoch + 1}/{epochs}"
                for rows in engine.counted(batches, label, progress=progress):
                    state, sums = _update(state, sums, scale, rows, penalty, rate, **settings)
                if not checks.all_finite((state.weights, sums)):
                    raise FloatingPointError(
                        f"weights: became NaN or infinite in epoch {epoch + 1}; lower "
                        f"learning_rate (given {rate})"
                    )
                error, variance, on = np.asarray(sums[0])
                row = (1 - error / variance, on / per_epoch, 1 - np.asarray(sums[1]).mean())
                state = struct.replace(state, figures=state.figures.at[epoch].set(jnp.float32(row)))
                if place is not None:
                    checkpoints.save(place, state, fingerprint=fingerprint)
            told.append(dict(zip(_FIGURES, np.asarray(state.figures)[epoch].tolist(), strict=True)))
            seconds = {"seconds": time.perf_counter() - began}
            if callback is not None and fresh and callback(epoch + 1, told[-1] | seconds):
                break
    return Trained(_folded(state, scale, data.layer, kind, active), tuple(told))


_FIGURES = ("explained", "active", "dead")
_SAMPLE = 256
"""Images by which the mean and the scale of the activations are measured."""


def _measured(data: Source) -> _Scale:
    count = len(data.dataset)
    numbers = np.unique(np.linspace(0, count - 1, min(count, _SAMPLE)).astype(int))
    rows = data.rows(numbers).reshape(-1, data.shape[-1]).astype(np.float64)
    mean = rows.mean(0)
    spread = np.sqrt(np.square(rows - mean).mean())
    return _Scale(jnp.asarray(mean, jnp.float32), jnp.float32(1 / (spread or 1)))


def _optimizer(rate: Any, steps: int) -> optax.GradientTransformation:
    rise, level = max(1, steps // 20), steps // 2
    parts = [optax.linear_schedule(0, rate, rise), optax.constant_schedule(rate)]
    parts.append(optax.linear_schedule(rate, 0, steps - level))
    return optax.adam(optax.join_schedules(parts, [rise, level]), b1=0.9, b2=0.99)


def _start(root: Array, channels: int, latents: int, epochs: int, optimizer: Any) -> _State:
    vectors = jax.random.normal(jax.random.fold_in(root, 0), (latents, channels), jnp.float32)
    vectors = vectors / jnp.linalg.norm(vectors, axis=1, keepdims=True)
    zeros = jnp.zeros(latents, jnp.float32)
    weights = _Weights(
        vectors.T, zeros, vectors, jnp.zeros(channels, jnp.float32), jnp.full_like(zeros, 0.5)
    )
    figures = jnp.zeros((epochs, len(_FIGURES)), jnp.float32)
    idle = jnp.zeros(latents, jnp.int32)
    return _State(jnp.int32(0), weights, optimizer.init(weights), idle, jnp.float32(0), figures)


def _batches(
    data: Source, root: Array, epoch: int, size: int, chunk: int | None
) -> Iterator[np.ndarray]:
    """Activation vectors (size, C) of all images in a random order, mixed over several images."""
    rng = np.random.default_rng([*np.asarray(jax.random.key_data(root)).tolist(), epoch])
    order = rng.permutation(len(data.dataset))
    step = chunk or max(16, -(-8 * size // data.places))
    pool = np.zeros((0, data.shape[-1]), np.float32)
    for first in range(0, len(order), step):
        # In the order of the file, which is read faster so.
        rows = data.rows(np.sort(order[first : first + step]))
        pool = np.concatenate([pool, rows.reshape(-1, pool.shape[1])])
        pool = pool[rng.permutation(len(pool))]
        whole = len(pool) // size * size
        yield from pool[:whole].reshape(-1, size, pool.shape[1])
        pool = pool[whole:]


_IDLE = 100
"""Steps after which a latent that was off is dead."""
_AUXILIARY = 1 / 32
_BANDWIDTH = 0.1
_MOMENTUM = 0.99


def _gates(readings: Array, threshold: Array, kind: str, active: int) -> tuple[Array, Array, Array]:
    """Latents (B, k), how many are on at a place, and the least reading of those that are."""
    none = jnp.zeros((), jnp.float32)
    if kind == "topk":
        z, _ = largest(readings, active)
        return z, (z > 0).sum(1).mean(dtype=jnp.float32), none
    if kind == "batchtopk":
        z, least = largest(readings, active * len(readings), axis=None)
        return z, (z > 0).sum(1).mean(dtype=jnp.float32), least.reshape(())
    if kind == "relu":
        z = jax.nn.relu(readings)
        return z, (z > 0).sum(1).mean(dtype=jnp.float32), none
    on = jax.lax.stop_gradient((readings > threshold) & (readings > 0)).astype(jnp.float32)
    # Thresholds have no gradient of their own: that of a rectangle as wide as the bandwidth is
    # taken in its place.
    near = (jnp.abs(readings - threshold) < _BANDWIDTH / 2).astype(jnp.float32)
    slope = jax.lax.stop_gradient(near / _BANDWIDTH) * (
        threshold - jax.lax.stop_gradient(threshold)
    )
    z = readings * on - jax.lax.stop_gradient(threshold) * slope
    return z, (on - slope).sum(1).mean(), none


@partial(jax.jit, static_argnames=("kind", "active", "steps"), donate_argnames=("state", "sums"))
def _update(
    state: _State,
    sums: tuple[Array, Array],
    scale: _Scale,
    rows: Array,
    penalty: Array,
    rate: Array,
    *,
    kind: str,
    active: int,
    steps: int,
) -> tuple[_State, tuple[Array, Array]]:
    """One step on activations (B, C)."""
    y = (rows.astype(jnp.float32) - scale.mean) * scale.factor
    channels = y.shape[1]
    dead = state.idle >= _IDLE

    def loss(w: _Weights) -> tuple[Array, tuple[Array, ...]]:
        readings = (y - w.offset) @ w.kernel + w.bias
        z, on, least = _gates(readings, w.threshold, kind, active)
        left = y - z @ w.vectors - w.offset
        error = jnp.square(left).sum(1).mean()
        total = error / channels

        def rescue() -> Array:
            """How badly the largest dead latents explain what is left."""
            extra, _ = largest(jnp.where(dead, readings, 0), channels // 2 or 1)
            gap = jax.lax.stop_gradient(left) - extra @ w.vectors
            return jnp.square(gap).sum(1).mean() / jax.lax.stop_gradient(error + 1e-8)

        total += _AUXILIARY * jax.lax.cond(dead.any(), rescue, lambda: jnp.zeros((), jnp.float32))
        if kind == "relu":
            total += penalty * z.sum(1).mean() / jnp.sqrt(jnp.float32(channels))
        elif kind == "jump":
            total += penalty * on
        return total, (error, on, least, (z > 0).any(0))

    gradients, (error, on, least, fired) = jax.grad(loss, has_aux=True)(state.weights)
    changes, optimizer = _optimizer(rate, steps).update(gradients, state.optimizer, state.weights)
    new = optax.apply_updates(state.weights, changes)
    norms = jnp.linalg.norm(new.vectors, axis=1, keepdims=True)
    new = struct.replace(
        new, vectors=new.vectors / norms, threshold=jnp.maximum(new.threshold, 1e-3)
    )
    state = struct.replace(
        state,
        step=state.step + 1,
        weights=new,
        optimizer=optimizer,
        idle=jnp.where(fired, 0, state.idle + 1),
        least=_MOMENTUM * state.least + (1 - _MOMENTUM) * least,
    )
    figures = jnp.stack([error, jnp.square(y).sum(1).mean(), on])
    return state, (sums[0] + figures, sums[1] | fired)


def _folded(state: _State, scale: _Scale, layer: str, kind: str, active: int) -> Concepts:
    """In the layer's own units."""
    w, factor = state.weights, scale.factor
    centre = scale.mean + w.offset / factor
    # A mean that began at zero, as Adam's.
    least = state.least / (1 - _MOMENTUM ** jnp.float32(jnp.maximum(state.step, 1)))
    threshold = {"jump": w.threshold, "batchtopk": least}.get(kind, jnp.zeros((), jnp.float32))
    rule = {"batchtopk": "jump"}.get(kind, kind)
    encoder = Encoder(w.kernel, w.bias / factor, centre, threshold / factor, rule, active)
    names = tuple(f"{layer} latent {i}" for i in range(len(w.bias)))
    return Concepts(encoder, Decoder(w.vectors, centre), layer, names)
