"""One network out of several: the mean of their weights, with BatchNorm statistics of its own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks
from rvis.compilation import abreast
from rvis.models import registry
from rvis.train import augment
from rvis.types import Array, KeyLike, Model, PyTree, as_key


@partial(jax.jit, static_argnames=("crop", "flip", "cutout"))
def _statistics(
    model: Model, key: Array, images: Array, *, crop: int, flip: bool, cutout: int
) -> PyTree:
    """The statistics of one batch, freed of the momentum with which a module mixes them in."""
    x = augment(key, images.astype(jnp.float32) / 255, crop=crop, flip=flip, cutout=cutout)

    def after(past: float) -> PyTree:
        start = {
            name: leaves if name == "params" else jax.tree.map(lambda a: 0 * a + past, leaves)
            for name, leaves in model.params.items()
        }
        return model.apply.train(start, x)[1]  # type: ignore[attr-defined]

    def freed(new: Array, mixed: Array) -> Array:
        # Where the new part is small, adding the old one has rounded least.
        momentum = (mixed - new).reshape(-1)[jnp.abs(new).argmin()]
        return new / (1 - momentum)

    return jax.tree.map(freed, after(0.0), after(1.0))


def average(
    models: Sequence[Model],
    images: np.ndarray,
    *,
    crop: int = 4,
    flip: bool = True,
    cutout: int = 0,
    batch: int = 250,
    key: KeyLike = 0,
) -> Model:
    """The network whose weights are the mean of those of several trained ones.

    It helps where the networks come from one start, such as the ends of successive training runs:
    their mean then lies in the same basin, and often generalises better than each of them. The
    running statistics of its BatchNorms are computed anew, as the mean over batches of images that
    are shuffled and changed as in training: without the black borders of shifted windows they would
    not fit the weights.

    Args:
      models: networks of one reference architecture and one input, that can be trained.
      images: training images, (n, H, W, C), uint8, as large as the models' input.
      crop: see `rvis.train.augment`; as the models were trained.
      flip: see there.
      cutout: see there.
      batch: images at once; those that do not fill the last batch are left out.
      key: an int seed or a typed key, of the order and the changes.

    Returns:
      A model of the first one's name and classes.

    Raises:
      ValueError: naming `models`, if there are none, or they differ in more than weights or cannot
        be trained, or `images`, `crop`, `cutout` or `batch`, if they do not fit.
      TypeError: naming `images`, if they are not uint8.

    Reference: Wortsman et al. 2022, Model soups, eq. 1 (the uniform soup); Izmailov et al. 2018,
      Averaging weights leads to wider optima and better generalization, sect. 3.2 (the statistics).

    Example:
      >>> import numpy as np, rvis
      >>> from rvis.models.average import average
      >>> model, images = rvis.load("cifar10_resnet_narrow"), np.zeros((4, 32, 32, 3), np.uint8)
      >>> average([model, model], images, batch=2).input_shape
      (32, 32, 3)
    """
    if not models:
        raise ValueError("models: at least one was expected, given none")
    first = models[0]
    for model in models:
        if not getattr(model.apply, "takes_train", False):
            raise ValueError(f"models: {model.name} cannot be trained: its module takes no train=")
        if registry.describe(model) != registry.describe(first):
            raise ValueError(
                f"models: networks that differ in weights alone were expected, given "
                f"{registry.describe(first)} and {registry.describe(model)}"
            )
    images = np.asarray(images)
    if images.dtype != np.uint8:
        raise TypeError(f"images: uint8 values were expected, given {images.dtype}")
    if images.shape[1:] != first.input_shape:
        raise ValueError(
            f"images: (n, {', '.join(map(str, first.input_shape))}) was expected, given "
            f"{images.shape}"
        )
    checks.count("crop", crop, low=0)
    checks.count("cutout", cutout, low=0)
    if checks.count("batch", batch) > len(images):
        raise ValueError(f"batch: at most {len(images)} images were expected, given {batch}")
    params = jax.tree.map(lambda *a: sum(a) / len(a), *(model.params for model in models))
    mean = first.replace(params=params)  # type: ignore[attr-defined]
    root = as_key(key)
    order = np.asarray(jax.random.permutation(root, len(images)))
    rows = order[: len(order) // batch * batch].reshape(-1, batch)

    def statistics(number: int) -> PyTree:
        found = _statistics(
            mean.unnamed(),
            jax.random.fold_in(root, number),
            images[rows[number]],
            crop=crop,
            flip=flip,
            cutout=cutout,
        )
        return jax.block_until_ready(found)

    batches = abreast(statistics, range(len(rows)))
    fresh = jax.tree.map(lambda *a: sum(a) / len(a), *batches)
    return mean.replace(params={**params, **fresh})
