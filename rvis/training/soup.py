"""One network out of several: the mean of their weights, with BatchNorm statistics of its own."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks, engine, gate, struct
from rvis.models import registry
from rvis.training.loop import augment
from rvis.types import Array, KeyLike, Model, PyTree, as_key, fold_each


@dataclasses.dataclass(frozen=True)
class _Statistics:
    """The statistics of one batch, freed of the momentum with which a module mixes them in."""

    crop: int
    flip: bool
    cutout: int

    def __call__(self, model: Model, problem: tuple[Array, Array]) -> PyTree:
        key, images = jax.random.wrap_key_data(problem[0]), problem[1]
        x = images.astype(jnp.float32) / 255
        x = augment(key, x, crop=self.crop, flip=self.flip, cutout=self.cutout)

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


@gate.public
def model_soup(
    models: Sequence[Model],
    images: np.ndarray,
    *,
    crop: int = 4,
    flip: bool = True,
    cutout: int = 0,
    batch_size: int = 250,
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
      crop: see `rvis.training.loop.augment`; as the models were trained.
      flip: see there.
      cutout: see there.
      batch_size: images at once; those that do not fill the last batch are left out.
      key: an int seed or a typed key, of the order and the changes.

    Returns:
      A model of the first one's name and classes.

    Raises:
      ValueError: naming `models`, if there are none, or they differ in more than weights or cannot
        be trained, or `images`, `crop`, `cutout` or `batch_size`, if they do not fit.
      TypeError: naming `images`, if they are not uint8.

    Reference: Wortsman et al. 2022, Model soups, eq. 1 (the uniform soup); Izmailov et al. 2018,
      Averaging weights leads to wider optima and better generalization, sect. 3.2 (the statistics).

    Example:
      >>> import numpy as np, rvis
      >>> model, images = rvis.load("mnist_cnn"), np.zeros((4, 28, 28, 1), np.uint8)
      >>> rvis.training.model_soup([model, model], images, batch_size=2).input_shape
      (28, 28, 1)
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
    if checks.count("batch_size", batch_size) > len(images):
        raise ValueError(
            f"batch_size: at most {len(images)} images were expected, given {batch_size}"
        )
    params = jax.tree.map(lambda *a: sum(a) / len(a), *(model.params for model in models))
    mean = struct.replace(first, params=params)
    root = as_key(key)
    order = np.asarray(jax.random.permutation(root, len(images)))
    rows = order[: len(order) // batch_size * batch_size].reshape(-1, batch_size)
    batches = engine.apply(
        _Statistics(crop, flip, cutout),
        mean,
        (jax.random.key_data(fold_each(root, np.arange(len(rows)))), images[rows]),
        pixels=math.prod(images.shape[1:3]) * batch_size,
    )
    fresh = jax.tree.map(lambda leaf: jnp.asarray(leaf.mean(0)), batches)
    return struct.replace(mean, params={**params, **fresh})
