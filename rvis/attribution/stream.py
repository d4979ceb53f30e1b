"""The one loop of attribution: a streaming weighted mean over noise, paths or masks.

A sampler says what one sample of one image is: a map and its weight. Everything else is here: the
samples' weighted mean and variance, any number of them in bounded memory and one compiled program.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from tqdm import tqdm

from rvis import checks, objectives, taps
from rvis.compilation import abreast, hands, jit
from rvis.models.layers import side_by_side
from rvis.objectives import Objective
from rvis.types import LOGITS, Array, ArrayLike, Model, PyTree, Relu, Tap, layer_shapes

Shape = tuple[int, ...]


class Score(NamedTuple):
    """An objective of a model as a function of one image (H, W, C)."""

    model: Model
    objective: Objective
    relu: Relu

    def __call__(self, image: Array) -> Array:
        """f(x), a scalar."""
        layers = self.objective.layers
        found = taps.activations(self.model, image[None], layers, relu=self.relu)
        return self.objective(found)

    def and_gradient(self, image: Array) -> tuple[Array, Array]:
        """f(x), and ∇f(x) of the image's shape."""
        return jax.value_and_grad(self.__call__)(image)

    def at(self, layer: str, image: Array) -> tuple[Array, Array, Array]:
        """f(x), a layer's activation, and the gradient of f with respect to it."""

        def shifted(shift: Array | float) -> tuple[Array, Array]:
            model = self.model.replace(  # type: ignore[attr-defined]
                apply=_Shifted(self.model.apply, layer, shift)
            )
            layers = {*self.objective.layers, layer}
            found = taps.activations(model, image[None], layers, relu=self.relu)
            return self.objective(found), found[layer]

        none = jnp.zeros((), image.dtype)
        zero = jnp.zeros(jax.eval_shape(shifted, none)[1].shape, image.dtype)
        (score, activation), gradient = jax.value_and_grad(shifted, has_aux=True)(zero)
        return score, activation[0], gradient[0]


class _Shifted(NamedTuple):
    """A model's `apply` with `shift` added to one layer's activation, inside a trace."""

    apply: Any
    layer: str
    shift: Any

    def __call__(self, params: PyTree, images: Array, *, tap: Tap, relu: Relu) -> Array:
        def both(name: str, activation: Array) -> Array:
            return tap(name, activation + self.shift if name == self.layer else activation)

        return self.apply(params, images, tap=both, relu=relu)


class Sampler(Protocol):
    """What one sample of one image is; a pytree whose numbers are traced."""

    def shapes(self, shape: Shape) -> tuple[Shape, Shape]:
        """The shapes of a value and of its weight, for an image of `shape`."""

    def __call__(
        self, key: Array, number: Array, image: Array, own: PyTree, score: Score
    ) -> tuple[Array, Array]:
        """The value of sample `number` of one image, and its weight.

        Args:
          key: the sample's own, `fold_in(key, number)`.
          number: 0 … samples − 1.
          image: (H, W, C).
          own: what `stream` was given for this image alone.
          score: f and its gradients.
        """


@flax.struct.dataclass
class Value:
    """The score itself, one sample an image."""

    kind: str = flax.struct.field(pytree_node=False, default="Value")

    def shapes(self, shape: Shape) -> tuple[Shape, Shape]:
        return (), ()

    def __call__(
        self, key: Array, number: Array, image: Array, own: PyTree, score: Score
    ) -> tuple[Array, Array]:
        return score(image), jnp.float32(1)


def scored(score: Array, map_: Array) -> Array:
    """A map and f(x) in one value, for samplers that see the image as it is."""
    return jnp.append(map_.ravel(), score.astype(map_.dtype))


def unscored(values: Any, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """(n,) scores and (n, *shape) maps of n values of `scored`."""
    values = np.asarray(values)
    # Copies, so that neither keeps the other in memory.
    return values[:, -1].copy(), values[:, :-1].reshape(-1, *shape).copy()


@flax.struct.dataclass
class Moments:
    """A streaming weighted mean and the spread about it; the leading axis is images.

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
        """Σ w·(v − mean)² / Σ w."""
        return np.asarray(self.spread) / _beside(np.asarray(self.weight), np.ndim(self.spread))

    @property
    def square(self) -> np.ndarray:
        """Σ w·v² / Σ w."""
        return self.variance + np.square(self.mean)


def _beside(weight: Any, rank: int) -> Any:
    return weight.reshape(weight.shape + (1,) * (rank - weight.ndim))


def _merged(state: Moments, values: Array, weights: Array) -> Moments:
    """The moments with (images, samples, …) more values (Chan, Golub & LeVeque 1983, eq. 2.1).

    Sums of squares less squared sums would cancel.
    """
    rank = values.ndim
    wide = _beside(weights, rank)
    added = weights.sum(1)
    mean = _ratio((wide * values).sum(1), _beside(added, rank - 1))
    spread = (wide * jnp.square(values - mean[:, None])).sum(1)
    total = state.weight + added
    share = _beside(_ratio(added, total), rank - 1)
    delta = mean - state.mean
    return Moments(
        total,
        state.mean + delta * share,
        state.spread + spread + jnp.square(delta) * _beside(state.weight, rank - 1) * share,
    )


def _ratio(top: Array, bottom: Array) -> Array:
    return jnp.where(bottom == 0, 0, top / jnp.where(bottom == 0, 1, bottom))


@partial(jit, static_argnames=("relu", "lanes"), donate_argnames="moments")
def accumulate(
    sampler: Sampler,
    moments: Moments,
    key: Array,
    model: Model,
    objective: Objective,
    images: Array,
    own: PyTree,
    counts: dict[str, Array],
    *,
    relu: Relu,
    lanes: tuple[int, int],
) -> Moments:
    """Some blocks of samples of some images, added to their moments.

    Args:
      sampler: see `Sampler`.
      moments: of m images; donated.
      key: sample i uses `fold_in(key, i)`, whichever image it is of.
      model: shared by all.
      objective: m objectives.
      images: (m, H, W, C).
      own: leaves of shape (m, …).
      counts: traced, so that none of them compiles anew. "groups" of images to compute, blocks of
        samples from "first" to "stop", and how many "samples" count in all.
      relu: the networks' ReLU, perhaps with another gradient.
      lanes: images and samples computed side by side; m is a multiple of the first.

    Returns:
      The moments of the m images.
    """
    across, deep = lanes

    def group(index: Array, moments: Moments) -> Moments:
        def rows(tree: PyTree) -> PyTree:
            return jax.tree.map(
                lambda leaf: lax.dynamic_slice_in_dim(leaf, index * across, across), tree
            )

        some_images, some_objectives, some_own = rows((images, objective, own))

        def block(number: Array, state: Moments) -> Moments:
            numbers = number * deep + jnp.arange(deep)

            def one(image: Array, objective: Objective, own: PyTree) -> tuple[Array, Array]:
                score = Score(model, objective, relu)

                def sample(number: Array) -> tuple[Array, Array]:
                    counted = number < counts["samples"]
                    number = jnp.minimum(number, counts["samples"] - 1)
                    own_key = jax.random.fold_in(key, number)
                    value, weight = sampler(own_key, number, image, own, score)
                    return value, jnp.where(counted, weight, 0)

                return jax.vmap(sample)(numbers)

            with side_by_side(across * deep):
                values, weights = jax.vmap(one)(some_images, some_objectives, some_own)
            return _merged(state, values, weights)

        done = lax.fori_loop(counts["first"], counts["stop"], block, rows(moments))
        return jax.tree.map(
            lambda whole, part: lax.dynamic_update_slice_in_dim(whole, part, index * across, 0),
            moments,
            done,
        )

    return lax.fori_loop(0, counts["groups"], group, moments)


def lanes_for(shape: Shape, samples: int, count: int) -> tuple[int, int]:
    """How many images and how many samples of each are computed side by side.

    On a CPU it is a function of the image's size and the number of samples alone, so that an
    image's map has the same bits alone and in any batch; sixteen small images fit the cache.

    Example:
      >>> from rvis.attribution.stream import lanes_for
      >>> lanes_for((224, 224, 3), 50, 10)
      (1, 1)
    """
    pixels = shape[0] * shape[1]
    on_cpu = jax.default_backend() == "cpu"
    limit = max(1, 16384 // pixels) if on_cpu else max(1, 2**22 // pixels)
    limit = min(limit, 16 if on_cpu else 256)
    powers = [2**i for i in range(9) if 2**i <= limit]
    # A last block of which little counts would be computed in vain.
    deep = max(d for d in powers if -(-samples // d) * d <= 1.125 * samples)
    if on_cpu:
        return max(1, min(4, limit // deep)), deep
    return max(d for d in powers if d == 1 or (d * deep <= limit and d < 2 * count)), deep


_PIECE = 2**22
"""Pixels that one call of `accumulate` sees: seconds on a CPU, so that Ctrl-C and the bar work."""


class _Part(NamedTuple):
    """The images that one core works on: the first `counted` of those given."""

    counted: int
    images: np.ndarray
    objective: Objective
    own: PyTree
    moments: Moments


def stream(
    sampler: Sampler,
    model: Model,
    objective: Objective,
    images: ArrayLike,
    *,
    samples: int,
    key: Array,
    own: PyTree = (),
    relu: Relu = jax.nn.relu,
    chunk: int | None = None,
    progress: bool = True,
    label: str = "attribution",
) -> Moments:
    """Moments of all samples of all images.

    Args:
      sampler: see `Sampler`.
      model: any model.
      objective: n objectives (`Objective.broadcast`).
      images: (n, H, W, C).
      samples: of each image.
      key: shared by the images, so that an image's map is the same alone and in any batch.
      own: leaves of shape (n, …), for each image alone.
      relu: see `rvis.taps`.
      chunk: images on the device at once; a few megabytes of them by default, and at least as many
        as keep all cores of a CPU busy.
      progress: a bar on a terminal.
      label: the bar's title.

    Returns:
      The moments, on the host.

    Raises:
      FloatingPointError: naming the images whose map is not finite.
    """
    given = np.asarray(images)
    count, *rest = given.shape
    shape = tuple(rest)
    pixels = shape[0] * shape[1]
    across, deep = lanes_for(shape, samples, count)
    busy = hands()
    if chunk is None:
        chunk = max(busy * across, min(64, 65536 // pixels))
    busy = min(busy, max(1, chunk // across))
    room = max(1, chunk // (busy * across)) * across
    blocks = -(-samples // deep)
    piece = max(1, _PIECE // (pixels * deep * min(chunk, count)))
    value, weight = sampler.shapes(shape)
    model = model.unnamed()
    found = []
    disable = None if progress else True
    total = count * blocks * deep

    def further(first: int, stop: int, part: _Part) -> Moments:
        numbers = {
            "groups": -(-part.counted // across),
            "first": first,
            "stop": stop,
            "samples": samples,
        }
        moments = accumulate(
            sampler,
            part.moments,
            key,
            model,
            part.objective,
            part.images,
            part.own,
            {name: np.int32(number) for name, number in numbers.items()},
            relu=relu,
            lanes=(across, deep),
        )
        return jax.block_until_ready(moments)

    with tqdm(total=total, desc=label, unit="sample", disable=disable, leave=False) as bar:
        for begin in range(0, count, busy * room):
            end = min(begin + busy * room, count)
            share = -(-(end - begin) // (busy * across)) * across
            parts = []
            for mine in range(begin, end, share):
                rows = np.minimum(np.arange(mine, mine + room), count - 1)
                own_objective, own_leaves = jax.tree.map(
                    lambda leaf, r=rows: np.asarray(leaf)[r], (objective, own)
                )
                moments = Moments(
                    *(jnp.zeros((room, *inner), jnp.float32) for inner in (weight, value, value))
                )
                some = min(share, end - mine)
                parts.append(_Part(some, given[rows], own_objective, own_leaves, moments))
            for first in range(0, blocks, piece):
                stop = min(first + piece, blocks)
                made = abreast(partial(further, first, stop), parts, single=False)
                parts = [p._replace(moments=m) for p, m in zip(parts, made, strict=True)]
                bar.update((end - begin) * (stop - first) * deep)
            for part in parts:
                found.append(
                    jax.tree.map(lambda leaf, n=part.counted: np.asarray(leaf)[:n], part.moments)
                )
    whole = jax.tree.map(lambda *leaves: np.concatenate(leaves), *found)
    wrong = ~np.isfinite(whole.mean).reshape(count, -1).all(1)
    if wrong.any():
        raise FloatingPointError(
            f"maps: those of images {np.flatnonzero(wrong).tolist()} are NaN or infinite; finite "
            "weights and a target with finite gradients would be right"
        )
    return whole


class Question(NamedTuple):
    """Checked arguments of an attribution: what is asked of each image.

    Attributes:
      images: (n, H, W, C) float32.
      objective: n objectives.
      labels: (n,) titles.
    """

    images: np.ndarray
    objective: Objective
    labels: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return self.images.shape[1:]  # type: ignore[return-value]


def ask(model: Model, images: ArrayLike, target: Any, *, chunk: int | None = None) -> Question:
    """Checks what every attribution takes.

    Args:
      model: any model.
      images: (n, H, W, C) or (H, W, C) in [0, 1].
      target: a class (its logit) by number or name, one class an image, or an objective.
      chunk: None or a number of images.

    Raises:
      TypeError, ValueError: naming the argument.
    """
    if not isinstance(model, Model):
        raise TypeError(f"model: an rvis.Model was expected, given {type(model).__name__}")
    batch = np.asarray(checks.images("images", images, channels=model.input_shape[2]))
    if chunk is not None:
        checks.count("chunk", chunk)
    shape = batch.shape[1:]
    objective = objectives.target("target", target, model, shape)
    if objective.batch_shape not in ((), (1,), (len(batch),)):
        raise ValueError(
            f"target: one, or one for each of {len(batch)} images, was expected, given "
            f"{objective.batch_shape[0]}"
        )
    labels = np.broadcast_to(objective.titles(model.classes), (len(batch),))
    return Question(batch, objective.broadcast(len(batch)), labels)


def scores(
    model: Model, question: Question, *, chunk: int | None = None, images: Any = None
) -> np.ndarray:
    """f(x) for every image, or for others in their places, (n,)."""
    given = question.images if images is None else images
    moments = stream(
        Value(),
        model,
        question.objective,
        given,
        samples=1,
        key=jax.random.key(0),
        chunk=chunk,
        progress=False,
    )
    return np.asarray(moments.mean)


def spatial_layer(model: Model, shape: tuple[int, int, int], before: Iterable[str]) -> str:
    """The last layer with more than one place, before those that the target reads.

    Raises:
      ValueError: naming `layer`, where there is none.
    """
    for name in reversed(_earlier(model, before)):
        if _places(layer_shapes(model, shape).get(name, ())):
            return name
    raise ValueError(f"layer: {model.name} has none with more than one place before the target")


def check_layer(
    model: Model, shape: tuple[int, int, int], layer: str, before: Iterable[str]
) -> str:
    """`layer`, if it has places and the target lies behind it.

    Raises:
      ValueError: naming `layer`.
    """
    checks.choice("layer", layer, model.layers)
    found = layer_shapes(model, shape).get(layer, ())
    if len(found) != 3:
        raise ValueError(
            f"layer: one with places (h, w, c) was expected, given {layer!r} of shape {found}"
        )
    if layer not in _earlier(model, before):
        raise ValueError(f"layer: one before the target's was expected, given {layer!r}")
    return layer


def _earlier(model: Model, before: Iterable[str]) -> tuple[str, ...]:
    last = max(len(model.layers) if name == LOGITS else model.layers.index(name) for name in before)
    return model.layers[:last]


def _places(shape: Shape) -> bool:
    return len(shape) == 3 and shape[0] * shape[1] > 1
