"""Whether a map needs what the network has learned: randomised weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np

from rvis import checks, gate, struct
from rvis.analysis.metrics.judge import Attribute, explained, summed
from rvis.analysis.similarity import spearman, structural_similarity
from rvis.types import Array, ArrayLike, KeyLike, Model, as_key


@dataclasses.dataclass(frozen=True, eq=False)
class SanityCheck:
    """Maps of a network whose layers are randomised one after another, against the trained one's.

    Attributes:
      modules: (k,) names, from the logits down; entry i has been randomised with all before it.
      signed: (k, n) rank correlation of the maps.
      absolute: (k, n) rank correlation of their absolute values.
      similarity: (k, n) structural similarity of their absolute values, each over its maximum; NaN
        for images less than 11 pixels high or wide.
      blank: (k, n) whether one of the two maps is zero everywhere: it then says nothing, and the
        three are NaN.
      maps: (k + 1, n, H, W), the trained network's first.
    """

    modules: tuple[str, ...]
    signed: np.ndarray
    absolute: np.ndarray
    similarity: np.ndarray
    blank: np.ndarray
    maps: np.ndarray


@gate.public
def sanity_check(
    model: Model,
    attribute: Attribute,
    images: ArrayLike,
    target: Any,
    *,
    key: KeyLike = 0,
) -> SanityCheck:
    """Does a map need what the network has learned? Its layers are randomised from the logits down.

    Args:
      model: any model; see `randomised` for what becomes of its weights.
      attribute: called as `attribute(model, images, target)`; maps are summed over channels.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      target: handed on to `attribute`.
      key: an int seed or a typed key.

    Returns:
      A `SanityCheck`. A correlation with a map that is constant, but not zero, counts as 0.

    Raises:
      TypeError, ValueError: naming the argument.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis.analysis import metrics
      >>> model = rvis.load("mnist_cnn")
      >>> digit = np.full((1, 28, 28, 1), 0.5, np.float32)
      >>> found = metrics.sanity_check(model, lambda model, images, target: images, digit, 3)
      >>> found.modules
      ('fc2', 'fc1', 'conv2', 'conv1')

    Reference: Adebayo et al. 2018, Sanity Checks for Saliency Maps, section 3.1 (cascading
      randomisation) and 4 (the metrics).
    """
    batch = np.asarray(checks.images("images", images, channels=model.input_shape[2]))
    names = modules(model)[::-1]
    maps = [summed(explained(attribute, model, batch, target))]
    for depth in range(1, len(names) + 1):
        noisy = randomised(model, names[:depth], key=key)
        maps.append(summed(explained(attribute, noisy, batch, target)))
    stack = np.stack(maps)
    size = np.abs(stack)
    size /= np.maximum(size.max((2, 3), keepdims=True), np.finfo(np.float32).tiny)
    empty = (stack == 0).all((2, 3))
    blank = empty[1:] | empty[0]

    def told(measure: Callable[..., np.ndarray], values: np.ndarray) -> np.ndarray:
        rows = np.stack([measure(later, values[0]) for later in values[1:]])
        return np.where(blank, np.nan, rows)

    small = min(batch.shape[1:3]) < 11
    alike = np.full(blank.shape, np.nan) if small else told(structural_similarity, size)
    return SanityCheck(names, told(spearman, stack), told(spearman, size), alike, blank, stack)


@gate.public
def efficient_sanity_check(
    model: Model,
    attribute: Attribute,
    images: ArrayLike,
    target: Any,
    *,
    bins: int = 100,
    key: KeyLike = 0,
) -> np.ndarray:
    """By what share a map's entropy rises once all of the network's weights are noise (eMPRT).

    The entropy is that of a histogram of the map's values. No two maps are compared, so that what a
    measure of likeness takes from noise does not matter; high is good.

    Args:
      model, attribute, images, target, key: as `sanity_check`.
      bins: of the histogram.

    Returns:
      (n,), or a number for one image (H, W, C); NaN where the trained network's map is constant.

    Raises:
      TypeError, ValueError: naming the argument.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis.analysis import metrics
      >>> model = rvis.load("mnist_cnn")
      >>> digit = np.eye(28, dtype=np.float32)[None, ..., None]
      >>> own = lambda model, images, target: images
      >>> metrics.efficient_sanity_check(model, own, digit, 3).item()
      0.0

    Reference: Hedström et al. 2023, Sanity Checks Revisited, section 4.2. Its smooth check (section
      4.1) is `sanity_check` of `functools.partial(rvis.attribution.smoothgrad, of=method)`.
    """
    batch = np.asarray(checks.images("images", images, channels=model.input_shape[2]))
    checks.count("bins", bins, low=2)

    def entropies(one: Model) -> np.ndarray:
        return _entropies(summed(explained(attribute, one, batch, target)), bins)

    before = entropies(model)
    after = entropies(randomised(model, modules(model), key=key))
    rise = np.where(before > 0, (after - before) / np.where(before > 0, before, 1), np.nan)
    return rise[0] if np.ndim(images) == 3 else rise


def _entropies(maps: np.ndarray, bins: int) -> np.ndarray:
    counts = np.stack([np.histogram(own, bins)[0] for own in maps])
    share = counts / counts.sum(1, keepdims=True)
    return -(share * np.log(np.where(share > 0, share, 1))).sum(1)


@gate.public
def modules(model: Model) -> tuple[str, ...]:
    """The parts of a model's weights, in the order in which it uses them first.

    A part is an entry of Flax's "params" (with its statistics), or of the weights themselves.

    Example:
      >>> import rvis
      >>> from rvis.analysis import metrics
      >>> metrics.modules(rvis.load("mnist_cnn"))
      ('conv1', 'conv2', 'fc1', 'fc2')
    """
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), model.params)
    image = jax.ShapeDtypeStruct((1, *model.input_shape), jnp.float32)
    program = jax.make_jaxpr(lambda params, images: model.apply(params, images))(shapes, image)
    paths = jax.tree_util.tree_leaves_with_path(model.params)
    # The program's inputs are the weights, leaf by leaf, and then the images.
    names = {
        variable: _part(path)
        for (path, _), variable in zip(paths, program.jaxpr.invars[:-1], strict=True)
    }
    used = [
        names[variable]
        for equation in program.jaxpr.eqns
        for variable in equation.invars
        if not isinstance(variable, jax.extend.core.Literal) and variable in names
    ]
    return tuple(dict.fromkeys((*used, *names.values())))


@gate.public
def randomised(model: Model, names: Sequence[str], *, key: KeyLike = 0) -> Model:
    """The model with some of its modules' weights replaced by noise.

    Arrays of two and more axes are drawn anew from a normal distribution with the root mean square
    that they had; vectors (biases, scales, statistics) are permuted.

    Args:
      model: any model.
      names: of `modules(model)`.
      key: an int seed or a typed key; a weight's noise depends on it and on the weight's place
        alone, so that a longer list of names contains a shorter one's noise.

    Raises:
      ValueError: naming `names`.

    Example:
      >>> import rvis
      >>> from rvis.analysis import metrics
      >>> model = rvis.load("mnist_cnn")
      >>> noisy = metrics.randomised(model, ["fc2"])
      >>> before, after = (m.params["params"]["fc1"]["bias"] for m in (model, noisy))
      >>> bool((before == after).all())
      True
    """
    paths, structure = jax.tree_util.tree_flatten_with_path(model.params)
    there = {_part(path) for path, _ in paths}
    for name in names:
        checks.choice("names", name, sorted(there))
    start = as_key(key)
    leaves = []
    for number, (path, leaf) in enumerate(paths):
        if _part(path) in names and jnp.issubdtype(leaf.dtype, jnp.floating):
            leaf = _noise(start, number, leaf)
        leaves.append(leaf)
    params = jax.tree_util.tree_unflatten(structure, leaves)
    return struct.replace(model, params=params)


@jax.jit
def _noise(key: Array, number: ArrayLike, leaf: Array) -> Array:
    """Noise in place of one weight; a vector's own values in another order."""
    own = jax.random.fold_in(key, number)
    if leaf.ndim == 1:
        return jax.random.permutation(own, leaf)
    size = jnp.sqrt(jnp.mean(jnp.square(leaf)))
    return size * jax.random.normal(own, leaf.shape, leaf.dtype) if leaf.ndim else leaf


def _part(path: tuple) -> str:
    keys = [str(getattr(key, "key", getattr(key, "name", key))) for key in path]
    collections = keys and keys[0] in ("params", "batch_stats") and len(keys) > 1
    return keys[1] if collections else keys[0] if keys else "weights"
