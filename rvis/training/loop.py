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

from rvis import checks, engine, files, gate, struct
from rvis.data import Dataset
from rvis.engine import checkpoints
from rvis.training.evaluation import evaluate
from rvis.training.recipe import Adversary, Recipe
from rvis.types import Array, KeyLike, Model, PyTree, as_key, check_classes, on_device


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
    corners = jax.random.randint(place, (n, 2), 0, np.add([room], 1), jnp.int32)

    def cut(image: Array, corner: Array) -> Array:
        return jax.lax.dynamic_slice(image, (*corner, jnp.int32(0)), (*shape, channels))

    images = jax.vmap(cut)(images, corners)
    if flip:
        mirrored = jax.random.bernoulli(mirror, jnp.float32(0.5), (n, 1, 1, 1))
        images = jnp.where(mirrored, images[:, :, ::-1], images)
    if cutout:
        middle = jax.random.fold_in(key, 1)
        centres = jax.random.randint(middle, (n, 2), 0, np.array([shape]), jnp.int32)
        rows, columns = (
            (numbers >= centre - cutout // 2) & (numbers < centre - cutout // 2 + cutout)
            for numbers, centre in (
                (jnp.arange(side, dtype=jnp.int32)[None], centre[:, None])
                for side, centre in zip(shape, centres.T, strict=True)
            )
        )
        hidden = rows[:, :, None, None] & columns[:, None, :, None]
        images = jnp.where(hidden, 0.5, images)
    return images


def pair_loss(logits: Array, targets: Array, *, kind: str, beta: float) -> Array:
    """The losses (n,) of TRADES or MART; see `Recipe`.

    Args:
      logits: (2n, k) of adversarial images, then of the images themselves.
      targets: (n, k) probabilities.
      kind: "trades" or "mart".
      beta: the weight of the divergence.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis.training.loop import pair_loss
      >>> alike = jnp.zeros((2, 2))
      >>> pair_loss(alike, jnp.array([[1.0, 0.0]]), kind="trades", beta=6.0).round(3).tolist()
      [0.6930000185966492]
    """
    moved, still = jnp.split(logits, 2)
    p, log_p, log_q = (
        jax.nn.softmax(still),
        jax.nn.log_softmax(still),
        jax.nn.log_softmax(moved),
    )
    divergence = (p * (log_p - log_q)).sum(-1)
    if kind == "trades":
        return optax.softmax_cross_entropy(still, targets) + beta * divergence
    own = targets == targets.max(-1, keepdims=True)
    other = jnp.where(own, 0.0, jnp.exp(log_q)).max(-1)
    boosted = optax.softmax_cross_entropy(moved, targets) - jnp.log1p(-other + 1e-6)
    return boosted + beta * divergence * (1 - jnp.where(own, p, 0.0).sum(-1))


def perturbed(params: PyTree, gradient: PyTree, gamma: float) -> PyTree:
    """Kernels moved by γ of their length up a gradient; everything else as it is."""

    def moved(weight: Array, slope: Array) -> Array:
        if weight.ndim < 2:
            return weight
        scale = jnp.linalg.norm(weight.ravel()) / (jnp.linalg.norm(slope.ravel()) + 1e-12)
        return weight + gamma * scale * slope

    return jax.tree.map(moved, params, gradient)


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
    clean = x
    if adversary is not None:
        frozen = struct.replace(model, params=state.variables)
        reference = None
        if recipe.loss == "trades":
            reference = jax.nn.softmax(frozen.apply(frozen.params, x))
        x = jax.lax.stop_gradient(adversary.perturb(attack, frozen, x, labels, reference))
    paired = recipe.loss != "ce"
    shown = jnp.concatenate([x, clean]) if paired else x
    statistics = {k: v for k, v in state.variables.items() if k != "params"}

    def loss(params: PyTree) -> tuple[Array, tuple[Array, PyTree]]:
        logits, changed = model.apply.train(  # type: ignore[attr-defined]
            {"params": params, **statistics}, shown
        )
        targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
        targets = optax.smooth_labels(targets, recipe.label_smoothing)
        if paired:
            value = pair_loss(logits, targets, kind=recipe.loss, beta=recipe.beta)
        else:
            value = optax.softmax_cross_entropy(logits, targets)
        return value.mean(), (logits[: len(labels)], changed)

    params = state.variables["params"]
    at = params
    if recipe.awp:
        at = perturbed(params, jax.grad(lambda p: loss(p)[0])(params), recipe.awp)
    (value, (logits, statistics)), gradient = jax.value_and_grad(loss, has_aux=True)(at)
    updates, optimizer = _optimizer(recipe, steps).update(gradient, state.optimizer, params)
    variables = {"params": optax.apply_updates(params, updates), **statistics}
    step = state.step.astype(jnp.float32)
    # The average follows closely at first, so that it never remembers the random start.
    decay = jnp.minimum(recipe.ema, (1 + step) / (10 + step)) if recipe.ema else 0.0
    average = jax.tree.map(lambda a, v: decay * a + (1 - decay) * v, state.average, variables)
    right = jax.lax.argmax(logits, 1, labels.dtype) == labels
    figures = {"loss": value, "accuracy": right.mean(dtype=jnp.float32)}
    return _State(state.step + 1, variables, average, optimizer), figures


@gate.public
def train(
    model: Model,
    dataset: Dataset,
    recipe: Recipe,
    *,
    test: Dataset | None = None,
    validation: int = 0,
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
      validation: so many of the data's images are kept from training, and choose: after every epoch
        the accuracy on them is measured, against an adversary under PGD of ten steps at its radius.
        The weights of the best epoch are given back. Where the robust accuracy has fallen below
        half of the best, training has overfitted to a weak adversary, and ends.
      key: an int seed or a typed key; the same key gives the same weights.
      checkpoint: a folder in which every epoch is saved, and from which an interrupted run with the
        same arguments goes on. It stays when the training has ended: the same call then gives the
        weights at once.
      callback: called as `callback(epoch, figures)` after each epoch, from 1, with "loss" and
        "accuracy" in training, "seconds", and "test_accuracy" where there is a test, and
        "validation_accuracy" where images are kept for it; True ends the training.
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
    check_classes(model, least=2)
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
    if recipe.loss != "ce" and recipe.adversary is None:
        raise ValueError(f"adversary: one was expected for loss={recipe.loss!r}, given none")
    model = struct.replace(model, classes=dataset.classes)
    width = jax.eval_shape(
        lambda m: m.apply(m.params, jnp.zeros((1, *m.input_shape), jnp.float32)), model
    ).shape
    if width[-1] != len(dataset.classes):
        raise ValueError(
            f"dataset: {width[-1]} classes were expected, given {len(dataset.classes)}"
        )
    root = as_key(key)
    held: Dataset | None = None
    if validation:
        if len(dataset) - validation < recipe.batch_size:
            raise ValueError(
                f"validation: fewer than {len(dataset) - recipe.batch_size} images of "
                f"{len(dataset)} were expected, so that a batch is left, given {validation}"
            )
        shuffled = np.asarray(jax.random.permutation(jax.random.fold_in(root, 2**31), len(dataset)))
        held, dataset = dataset.take(shuffled[:validation]), dataset.take(shuffled[validation:])
    judge = recipe.adversary and Adversary(recipe.adversary.norm, recipe.adversary.eps, steps=10)
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
    folder = None if checkpoint is None else files.as_path("checkpoint", checkpoint)
    file = folder and folder / "training.npz"
    about = (recipe, root, model.unnamed(), dataset.images, dataset.labels)
    fingerprint = checkpoints.fingerprint(*about) if file else ""
    best: tuple[Any, PyTree] = (np.float32(-1), ())
    if held is not None:  # copies, as the state's arrays are given away
        best = np.float32(-1), jax.tree.map(np.array, state.average)
    with files.alone(folder):
        if file is not None and file.exists():
            state, best = checkpoints.load(file, (state, best), fingerprint=fingerprint)
        blank = struct.replace(model.unnamed(), params=None)
        plain = dataclasses.replace(recipe, adversary=None)
        for epoch in range(int(state.step) // per_epoch, recipe.epochs):
            started = time.perf_counter()
            order = np.asarray(
                jax.random.permutation(jax.random.fold_in(root, on_device(epoch)), len(dataset))
            )
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
            # Not inside NumPy's mean, which would turn a Ctrl-C meanwhile into a ValueError.
            numbers = [
                {name: float(value) for name, value in figure.items()} for figure in recorded
            ]
            figures = {name: float(np.mean([f[name] for f in numbers])) for name in numbers[0]}
            _check(figures, state, epoch, recipe)
            if test is not None:
                now = struct.replace(model, params=state.average)
                figures["test_accuracy"] = evaluate(now, test, progress=False)
            overfitted = False
            if held is not None:
                now = struct.replace(model, params=state.average)
                score = evaluate(now, held, adversary=judge, key=root, progress=False)
                figures["validation_accuracy"] = score
                overfitted = judge is not None and score < best[0] / 2
                if score > best[0]:
                    best = np.float32(score), jax.tree.map(np.array, state.average)
            figures["seconds"] = time.perf_counter() - started
            if file is not None:
                checkpoints.save(file, (state, best), fingerprint=fingerprint)
            if (callback is not None and callback(epoch + 1, figures)) or overfitted:
                break
    kept = state.average if held is None else jax.tree.map(jnp.asarray, best[1])
    return struct.replace(model, params=kept)


def _check(figures: Mapping[str, float], state: _State, epoch: int, recipe: Recipe) -> None:
    """Raises where the loss or a weight is not finite."""
    numbers = {"loss": figures["loss"], "weights": (state.variables, state.average)}
    for name, tree in numbers.items():
        if not checks.all_finite(tree):
            raise FloatingPointError(
                f"{name}: became NaN or infinite in epoch {epoch + 1}; lower learning_rate "
                f"(given {recipe.learning_rate})"
            )
