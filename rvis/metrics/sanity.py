"""Whether a map needs what the network has learned: randomised weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from rvis import checks
from rvis.likeness import spearman, structural_similarity
from rvis.metrics.judge import Attribute, explained, summed
from rvis.types import Array, ArrayLike, KeyLike, Model, as_key


@dataclasses.dataclass(frozen=True, eq=False)
class SanityCheck:
    """Maps of a network whose layers are randomised one after another, against the trained one's.

    Attributes:
      modules: (k,) names, from the logits down; entry i has been randomised with all before it.
      signed: (k, n) rank correlation of the maps.
      absolute: (k, n) rank correlation of their absolute values.
      similarity: (k, n) structural similarity of their absolute values, each over its maximum.
      maps: (k + 1, n, H, W), the trained network's first.
    """

    modules: tuple[str, ...]
    signed: np.ndarray
    absolute: np.ndarray
    similarity: np.ndarray
    maps: np.ndarray


def sanity_check(
    model: Model,
    attribute: Attribute,
    images: ArrayLike,
    target: Any,
    *,
    key: KeyLike = 0,
    progress: bool = True,
) -> SanityCheck:
    """Does a map need what the network has learned? Its layers are randomised from the logits down.

    A map that stays the same when the upper layers are noise does not explain what they do.

    Args:
      model: any model; see `randomised` for what becomes of its weights.
      attribute: called as `attribute(model, images, target)`; maps are summed over channels.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      target: handed on to `attribute`.
      key: an int seed or a typed key.
      progress: a bar on a terminal.

    Returns:
      A `SanityCheck`. A correlation with a constant map counts as 0.

    Raises:
      TypeError, ValueError: naming the argument.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import metrics
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
    disable = None if progress else True
    found = [summed(explained(attribute, model, batch, target))]
    for depth in tqdm(range(1, len(names) + 1), desc="sanity", disable=disable, leave=False):
        changed = randomised(model, names[:depth], key=key)
        found.append(summed(explained(attribute, changed, batch, target)))
    maps = np.stack(found)
    size = np.abs(maps)
    size /= np.maximum(size.max((2, 3), keepdims=True), np.finfo(np.float32).tiny)
    return SanityCheck(
        names,
        np.stack([spearman(later, maps[0]) for later in maps[1:]]),
        np.stack([spearman(later, size[0]) for later in size[1:]]),
        np.stack([structural_similarity(later, size[0]) for later in size[1:]]),
        maps,
    )


def modules(model: Model) -> tuple[str, ...]:
    """The parts of a model's weights, in the order in which it uses them first.

    A part is an entry of Flax's "params" (with its statistics), or of the weights themselves.

    Example:
      >>> import rvis
      >>> from rvis import metrics
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


def randomised(model: Model, names: Sequence[str], *, key: KeyLike = 0) -> Model:
    """The model with some of its modules' weights replaced by noise.

    Arrays of two and more axes are drawn anew from a normal distribution with the root mean square
    that they had, so that signals keep their size; vectors (biases, scales, statistics) are
    permuted.

    Args:
      model: any model.
      names: of `modules(model)`.
      key: an int seed or a typed key; a weight's noise depends on it and on the weight's place
        alone, so that a longer list of names contains a shorter one's noise.

    Raises:
      ValueError: naming `names`.

    Example:
      >>> import rvis
      >>> from rvis import metrics
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
    return model.replace(params=params)  # type: ignore[attr-defined]


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
