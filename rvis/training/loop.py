"""Standard and adversarial training of our own networks, epoch by epoch, resumable."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rvis import checks, engine, files, struct
from rvis.data import Dataset
from rvis.engine import checkpoints
from rvis.training.evaluation import evaluate
from rvis.training.recipe import Adversary, Recipe
from rvis.types import Array, KeyLike, Model, PyTree, as_key


@struct.dataclass
class _State:
    step: Array
    variables: PyTree
    average: PyTree
    optimizer: PyTree


def _optimizer(recipe: Recipe, steps: int) -> optax.GradientTransformation:
    def kernels(params: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: leaf.ndim > 1, params)

    return optax.chain(
        optax.add_decayed_weights(recipe.weight_decay, mask=kernels),
        optax.sgd(recipe.rates(steps), momentum=recipe.momentum, nesterov=True),
    )


def augment(
    key: Array, images: Array, *, crop: int, flip: bool, cutout: int = 0, small: int = 0
) -> Array:
    """Random windows of images, mirror images and squares greyed out.

    Args:
      key: a typed key.
      images: (n, H, W, C).
      crop: how far a window of full size may shift, with black beyond the border.
      flip: whether half of the images are mirrored.
      cutout: the side of a grey square in each image, its centre anywhere, so that it may lie
        partly outside; 0 for none.
      small: the side of smaller windows to cut out of the image instead; 0 for none.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from rvis.training.loop import augment
      >>> augment(jax.random.key(0), jnp.ones((2, 8, 8, 3)), crop=2, flip=True).shape
      (2, 8, 8, 3)
    """
    n, height, width, channels = images.shape
    place, mirror = jax.random.split(key)
    if small:
        shape, room = (small, small), (height - small, width - small)
    else:
        images = jnp.pad(images, ((0, 0), (crop, crop), (crop, crop), (0, 0)))
        shape, room = (height, width), (2 * crop, 2 * crop)
    corners = jax.random.randint(place, (n, 2), 0, jnp.asarray(room) + 1)

    def cut(image: Array, corner: Array) -> Array:
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), (*shape, channels))

    images = jax.vmap(cut)(images, corners)
    if flip:
        mirrored = jax.random.bernoulli(mirror, shape=(n, 1, 1, 1))
        images = jnp.where(mirrored, images[:, :, ::-1], images)
    if cutout:
        centres = jax.random.randint(jax.random.fold_in(key, 1), (n, 2), 0, jnp.asarray(shape))
        rows, columns = (
            (jnp.arange(side) >= centre - cutout // 2)
            & (jnp.arange(side) < centre - cutout // 2 + cutout)
            for side, centre in zip(shape, centres.T[..., None], strict=True)
        )
        hidden = rows[:, :, None, None] & columns[:, None, :, None]
        images = jnp.where(hidden, 0.5, images)
    return images


@partial(jax.jit, static_argnames=("recipe", "steps", "small"), donate_argnames="state")
def _update(
    state: _State,
    model: Model,
    key: Array,
    images: Array,
    labels: Array,
    adversary: Adversary | None,
    *,
    recipe: Recipe,
    steps: int,
    small: int,
) -> tuple[_State, dict[str, Array]]:
    """One step of training on uint8 images; `model` gives the structure, `state` the weights."""
    key = jax.random.fold_in(key, state.step)
    shuffle, attack = jax.random.split(key)
    x = images.astype(jnp.float32) / 255
    x = augment(shuffle, x, crop=recipe.crop, flip=recipe.flip, cutout=recipe.cutout, small=small)
    if adversary is not None:
        frozen = struct.replace(model, params=state.variables)
        x = jax.lax.stop_gradient(adversary.perturb(attack, frozen, x, labels))
    statistics = {k: v for k, v in state.variables.items() if k != "params"}

    def loss(params: PyTree) -> tuple[Array, tuple[Array, PyTree]]:
        logits, changed = model.apply.train(  # type: ignore[attr-defined]
            {"params": params, **statistics}, x
        )
        targets = jax.nn.one_hot(labels, logits.shape[-1])
        targets = optax.smooth_labels(targets, recipe.label_smoothing)
        return optax.softmax_cross_entropy(logits, targets).mean(), (logits, changed)

    params = state.variables["params"]
    (value, (logits, statistics)), gradient = jax.value_and_grad(loss, has_aux=True)(params)
    updates, optimizer = _optimizer(recipe, steps).update(gradient, state.optimizer, params)
    variables = {"params": optax.apply_updates(params, updates), **statistics}
    # The average follows closely at first, so that it never remembers the random start.
    decay = jnp.minimum(recipe.ema, (1 + state.step) / (10 + state.step)) if recipe.ema else 0.0
    average = jax.tree.map(lambda a, v: decay * a + (1 - decay) * v, state.average, variables)
    figures = {"loss": value, "accuracy": (logits.argmax(-1) == labels).mean()}
    return _State(state.step + 1, variables, average, optimizer), figures


def train(
    model: Model,
    dataset: Dataset,
    recipe: Recipe,
    *,
    test: Dataset | None = None,
    key: KeyLike = 0,
    checkpoint: files.PathLike | None = None,
    callback: Callable[[int, Mapping[str, float]], Any] | None = None,
    progress: bool = True,
) -> Model:
    """Trains a network of ours from the weights it comes with.

    Args:
      model: from `rvis.load(architecture, weights="random", …)` or any Linen model whose module
        takes `train=`.
      dataset: training images, as large as the model's input, and labels.
      recipe: how.
      test: images on which the accuracy is measured after every epoch.
      key: an int seed or a typed key; the same key gives the same weights.
      checkpoint: a folder in which every epoch is saved, and from which an interrupted run with the
        same arguments goes on. It stays when the training has ended: the same call then gives the
        weights at once.
      callback: called as `callback(epoch, figures)` after each epoch, from 1, with "loss" and
        "accuracy" in training, "seconds", and "test_accuracy" where there is a test; True ends the
        training.
      progress: a bar on a terminal.

    Returns:
      The model with trained weights.

    Raises:
      ValueError: naming the argument: sizes or classes of the data that do not fit the model, or a
        checkpoint of another run.
      FloatingPointError: if the loss or a weight becomes NaN or infinite.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis.data import Dataset
      >>> from rvis.training import Recipe, train
      >>> images = np.zeros((8, 28, 28, 1), np.uint8)
      >>> data = Dataset(images, np.arange(8, dtype=np.int32), tuple("0123456789"), "blank")
      >>> model = rvis.load("mnist_cnn", weights="random")
      >>> trained = train(model, data, Recipe(epochs=1, batch_size=4))
    """
    if not getattr(model.apply, "takes_train", False):
        raise ValueError(f"model: {model.name} cannot be trained: its module takes no train=")
    if dataset.images.shape[1:] != model.input_shape:
        raise ValueError(
            f"dataset: images of {model.input_shape} were expected, given "
            f"{dataset.images.shape[1:]}"
        )
    if recipe.small > min(model.input_shape[:2]):
        raise ValueError(
            f"small: at most {min(model.input_shape[:2])} pixels were expected, given "
            f"{recipe.small}"
        )
    if len(dataset) < recipe.batch_size:
        raise ValueError(
            f"batch_size: at most {len(dataset)} (the data) was expected, given {recipe.batch_size}"
        )
    model = struct.replace(model, classes=dataset.classes)
    width = jax.eval_shape(lambda m: m.apply(m.params, jnp.zeros((1, *m.input_shape))), model).shape
    if width[-1] != len(dataset.classes):
        raise ValueError(
            f"dataset: {width[-1]} classes were expected, given {len(dataset.classes)}"
        )
    root = as_key(key)
    per_epoch = len(dataset) // recipe.batch_size
    steps = per_epoch * recipe.epochs
    optimizer = _optimizer(recipe, steps)
    variables = jax.tree.map(jnp.array, dict(model.params))
    state = _State(
        jnp.int32(0),
        variables,
        jax.tree.map(jnp.copy, variables),
        optimizer.init(variables["params"]),
    )
    file, fingerprint = None, ""
    if checkpoint is not None:
        file = files.as_path("checkpoint", checkpoint) / "training.npz"
        fingerprint = checkpoints.fingerprint(
            recipe, root, model.unnamed(), dataset.images, dataset.labels
        )
    if file is not None and file.exists():
        state = checkpoints.load(file, state, fingerprint=fingerprint)
    blank = struct.replace(model.unnamed(), params=None)
    plain = dataclasses.replace(recipe, adversary=None)
    for epoch in range(int(state.step) // per_epoch, recipe.epochs):
        started = time.perf_counter()
        order = np.asarray(jax.random.permutation(jax.random.fold_in(root, epoch), len(dataset)))
        batches = order[: per_epoch * recipe.batch_size].reshape(per_epoch, -1)
        recorded: list[dict[str, Array]] = []
        label = f"epoch {epoch + 1}/{recipe.epochs}"
        for rows in engine.counted(list(batches), label, progress=progress):
            state, figure = _update(
                state,
                blank,
                root,
                dataset.images[rows],
                dataset.labels[rows],
                recipe.adversary,
                recipe=plain,
                steps=steps,
                small=recipe.small if epoch < recipe.small_epochs else 0,
            )
            recorded.append(figure)
        # Not inside NumPy's mean, which would turn a Ctrl-C that comes meanwhile into a ValueError.
        numbers = [{name: float(value) for name, value in figure.items()} for figure in recorded]
        figures = {name: float(np.mean([f[name] for f in numbers])) for name in numbers[0]}
        _check(figures, state, epoch, recipe)
        if test is not None:
            now = struct.replace(model, params=state.average)
            figures["test_accuracy"] = evaluate(now, test, progress=False)
        figures["seconds"] = time.perf_counter() - started
        if file is not None:
            checkpoints.save(file, state, fingerprint=fingerprint)
        if callback is not None and callback(epoch + 1, figures):
            break
    return struct.replace(model, params=state.average)


def _check(figures: Mapping[str, float], state: _State, epoch: int, recipe: Recipe) -> None:
    """Raises where the loss or a weight is not finite."""
    numbers = {"loss": figures["loss"], "weights": (state.variables, state.average)}
    for name, tree in numbers.items():
        if not checks.all_finite(tree):
            raise FloatingPointError(
                f"{name}: became NaN or infinite in epoch {epoch + 1}; lower learning_rate "
                f"(given {recipe.learning_rate})"
            )
