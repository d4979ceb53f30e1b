"""Standard and adversarial training of our own networks, resumable, and their evaluation."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from rvis import checkpoints, checks, core, optimizers, projections
from rvis.data import Dataset
from rvis.images import Pixel
from rvis.objectives import Probability
from rvis.types import Array, KeyLike, Model, PyTree, as_key


@flax.struct.dataclass
class Adversary:
    """Projected gradient ascent on the cross-entropy inside a ball about each image.

    A pytree whose radius and step size are leaves, so that a sweep of either compiles once.

    Attributes:
      norm: "l2" or "linf".
      eps: the ball's radius, in units of the [0, 1] image.
      steps: gradient steps.
      step_size: length of a step in the norm; 2.5·eps/steps by default.
      random_start: start at a uniform random point of the ball instead of the image.

    Reference: Madry et al. 2017, Towards deep learning models resistant to adversarial attacks,
      eq. 2.3.

    Example:
      >>> from rvis.train import Adversary
      >>> Adversary("l2", 0.5, steps=20).step_size
      0.0625
    """

    norm: str = flax.struct.field(pytree_node=False)
    eps: float
    steps: int = flax.struct.field(pytree_node=False)
    step_size: float | None = None
    random_start: bool = flax.struct.field(pytree_node=False, default=True)

    def __post_init__(self) -> None:
        if not isinstance(self.eps, (int, float)):
            return  # put together again inside a transformation: its numbers were checked before
        checks.choice("norm", self.norm, ("l2", "linf"))
        checks.number("eps", self.eps, low=0)
        checks.count("steps", self.steps)
        if self.step_size is None:
            object.__setattr__(self, "step_size", 2.5 * self.eps / self.steps)
        checks.number("step_size", self.step_size, low=0)

    def perturb(self, key: Array, model: Model, images: Array, labels: Array) -> Array:
        """Adversarial versions of `images` (n, H, W, C); for use inside traced code."""
        assert self.step_size is not None
        ball = {"l2": projections.L2Ball, "linf": projections.LinfBall}[self.norm]
        _, height, width, channels = images.shape
        keys = jax.random.split(key, images.shape[0])
        eps = jnp.full(images.shape[:1], self.eps, jnp.float32)
        centre = images[:, None]
        constraint = ball(centre, eps)
        start = jax.vmap(lambda ball, key: ball.sample(key))(constraint, keys)
        if not self.random_start:
            start = centre
        objective = -Probability(labels)
        problem = core.Problem(objective.broadcast(images.shape[0]), (), constraint)
        ascent = core.Ascent(
            Pixel((height, width, channels)), optimizers.steepest(self.step_size, norm=self.norm)
        )
        state = core.init(ascent, keys, start)
        state, _ = core.run(ascent, keys, state, model, problem, steps=self.steps)
        return state.position[:, 0]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to train; by default MadryLab/robustness's CIFAR-10 recipe on a short schedule.

    Attributes:
      epochs: passes over the training set.
      batch: images a step.
      learning_rate: the highest.
      schedule: "onecycle" (up for a fifth of the steps, down to zero, both linear) or "cosine".
      momentum: of Nesterov's SGD.
      weight_decay: on kernels alone.
      label_smoothing: share of the target spread over all classes.
      crop: random shifts by up to so many pixels, with black beyond the border.
      flip: random mirror images.
      cutout: side of the square at a random place of each image that is greyed out (DeVries &
        Taylor 2017, Improved regularization of convolutional neural networks with cutout).
      small: side of the random windows that the first epochs train on, to save time.
      small_epochs: how many epochs do so (progressive resizing; the rest adapts to full size).
      ema: decay of the averaged weights that are kept in the end; 0 keeps the last ones.
      adversary: whom to train against; None for standard training.
    """

    epochs: int = 10
    batch: int = 128
    learning_rate: float = 0.2
    schedule: str = "onecycle"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    crop: int = 4
    flip: bool = True
    cutout: int = 0
    small: int = 0
    small_epochs: int = 0
    ema: float = 0.0
    adversary: Adversary | None = None

    def __post_init__(self) -> None:
        checks.count("epochs", self.epochs)
        checks.count("batch", self.batch)
        checks.choice("schedule", self.schedule, ("onecycle", "cosine"))
        for name in ("crop", "cutout", "small", "small_epochs"):
            checks.count(name, getattr(self, name), low=0)
        checks.number("learning_rate", self.learning_rate, low=0)
        for name in ("momentum", "label_smoothing", "ema"):
            checks.number(name, getattr(self, name), low=0, high=1)

    def rates(self, steps: int) -> optax.Schedule:
        """The learning rate at each of `steps` steps."""
        if self.schedule == "cosine":
            return optax.cosine_decay_schedule(self.learning_rate, steps)
        rise = max(1, steps // 5)
        return optax.join_schedules(
            [
                optax.linear_schedule(0.0, self.learning_rate, rise),
                optax.linear_schedule(self.learning_rate, 0.0, steps - rise),
            ],
            [rise],
        )


@flax.struct.dataclass
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
      >>> from rvis.train import augment
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
        frozen = model.replace(params=state.variables)  # type: ignore[attr-defined]
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
    key: KeyLike = 0,
    checkpoint: str | Path | None = None,
    test: Dataset | None = None,
    progress: bool = True,
    report: Callable[[str], None] = print,
) -> Model:
    """Trains a network of ours from the weights it comes with.

    Args:
      model: from `rvis.load(architecture, weights="random", …)` or any Linen model whose module
        takes `train=`.
      dataset: training images, as large as the model's input, and labels.
      recipe: how.
      key: an int seed or a typed key; the same key gives the same weights.
      checkpoint: a file to which every epoch is saved, and from which an interrupted run with the
        same arguments goes on.
      test: images whose clean accuracy is reported after every epoch.
      progress: a bar on a terminal.
      report: takes one line of figures an epoch.

    Returns:
      The model with trained weights.

    Raises:
      ValueError: naming the argument: sizes or classes of the data that do not fit the model, or a
        checkpoint of another run.
      FloatingPointError: if the loss becomes NaN.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis.data import Dataset
      >>> from rvis.train import Recipe, train
      >>> images = np.zeros((8, 28, 28, 1), np.uint8)
      >>> data = Dataset(images, np.arange(8, dtype=np.int32), tuple("0123456789"), "blank")
      >>> model = rvis.load("mnist_cnn", weights="random")
      >>> trained = train(model, data, Recipe(epochs=1, batch=4), report=lambda line: None)
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
    if len(dataset) < recipe.batch:
        raise ValueError(
            f"batch: at most {len(dataset)} (the data) was expected, given {recipe.batch}"
        )
    model = model.replace(classes=dataset.classes)  # type: ignore[attr-defined]
    width = jax.eval_shape(lambda m: m.apply(m.params, jnp.zeros((1, *m.input_shape))), model).shape
    if width[-1] != len(dataset.classes):
        raise ValueError(
            f"dataset: {width[-1]} classes were expected, given {len(dataset.classes)}"
        )
    root = as_key(key)
    per_epoch = len(dataset) // recipe.batch
    steps = per_epoch * recipe.epochs
    optimizer = _optimizer(recipe, steps)
    variables = jax.tree.map(jnp.array, dict(model.params))
    state = _State(
        jnp.int32(0),
        variables,
        jax.tree.map(jnp.copy, variables),
        optimizer.init(variables["params"]),
    )
    about = {
        "fingerprint": checkpoints.fingerprint(
            repr(recipe), root, model.params, checkpoints.stable(model.apply), dataset.labels
        )
    }
    if checkpoint is not None and Path(checkpoint).exists():
        state, _ = checkpoints.load(checkpoint, state, expect=about["fingerprint"])
    blank = model.unnamed().replace(params=None)  # type: ignore[attr-defined]
    plain = dataclasses.replace(recipe, adversary=None)
    for epoch in range(int(state.step) // per_epoch, recipe.epochs):
        started = time.perf_counter()
        order = np.asarray(jax.random.permutation(jax.random.fold_in(root, epoch), len(dataset)))
        figures: list[Mapping[str, Array]] = []
        label = f"epoch {epoch + 1}/{recipe.epochs}"
        for i in tqdm(range(per_epoch), label, disable=None if progress else True, leave=False):
            chosen = order[i * recipe.batch : (i + 1) * recipe.batch]
            state, figure = _update(
                state,
                blank,
                root,
                dataset.images[chosen],
                dataset.labels[chosen],
                recipe.adversary,
                recipe=plain,
                steps=steps,
                small=recipe.small if epoch < recipe.small_epochs else 0,
            )
            figures.append(figure)
        mean = {name: float(np.mean([f[name] for f in figures])) for name in figures[0]}
        if not math.isfinite(mean["loss"]):
            raise FloatingPointError(
                f"loss: became NaN in epoch {epoch + 1}; lower learning_rate "
                f"(given {recipe.learning_rate})"
            )
        line = f"{label}  loss {mean['loss']:.4f}  training accuracy {mean['accuracy']:.2%}"
        if test is not None:
            now = model.replace(params=state.average)  # type: ignore[attr-defined]
            line += f"  test accuracy {evaluate(now, test, progress=False):.2%}"
        report(f"{line}  {time.perf_counter() - started:.0f} s")
        if checkpoint is not None:
            checkpoints.save(checkpoint, state, about=about)
    return model.replace(params=state.average)  # type: ignore[attr-defined]


@jax.jit
def _correct(
    model: Model, key: Array, images: Array, labels: Array, adversary: Adversary | None
) -> Array:
    """Which images are classified rightly, and stay so under attack."""
    x = images.astype(jnp.float32) / 255
    right = model.apply(model.params, x).argmax(-1) == labels
    if adversary is None:
        return right
    moved = adversary.perturb(key, model, x, labels)
    return right & (model.apply(model.params, moved).argmax(-1) == labels)


def evaluate(
    model: Model,
    dataset: Dataset,
    *,
    adversary: Adversary | None = None,
    restarts: int = 1,
    batch: int = 200,
    key: KeyLike = 0,
    progress: bool = True,
) -> float:
    """Accuracy in [0, 1], clean or under attack.

    Args:
      model: any model.
      dataset: images as large as the model's input, and labels in the order of its logits.
      adversary: the attack; None for clean accuracy.
      restarts: how many times it may try; an image counts only if every attempt fails.
      batch: images at once.
      key: an int seed or a typed key, for the random starts.
      progress: a bar on a terminal.

    Raises:
      ValueError: naming `dataset`, if its images do not fit the model.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis.data import Dataset
      >>> images = np.zeros((2, 28, 28, 1), np.uint8)
      >>> data = Dataset(images, np.zeros(2, np.int32), tuple("0123456789"), "blank")
      >>> 0 <= rvis.evaluate(rvis.load("mnist_cnn"), data) <= 1
      True
    """
    checks.count("restarts", restarts)
    checks.count("batch", batch)
    if dataset.images.shape[1:] != model.input_shape:
        raise ValueError(
            f"dataset: images of {model.input_shape} were expected, given "
            f"{dataset.images.shape[1:]}"
        )
    root, bare = as_key(key), model.unnamed()
    robust = np.zeros(len(dataset), bool)
    disable = None if progress else True
    for start in tqdm(range(0, len(dataset), batch), "evaluating", disable=disable, leave=False):
        indices = np.arange(start, min(start + batch, len(dataset)))
        alive = np.ones(len(indices), bool)
        for attempt in range(restarts if adversary is not None else 1):
            # Padding to full batches keeps one compiled program for the last one too.
            rows = np.resize(indices, batch)
            seed = jax.random.fold_in(jax.random.fold_in(root, attempt), start)
            right = _correct(bare, seed, dataset.images[rows], dataset.labels[rows], adversary)
            alive &= np.asarray(right)[: len(indices)]
        robust[indices] = alive
    return float(robust.mean())


def describe(recipe: Recipe) -> dict[str, Any]:
    """The recipe as JSON-able values, for a model's card.

    Example:
      >>> from rvis.train import Recipe, describe
      >>> describe(Recipe(epochs=3))["epochs"]
      3
    """
    return dataclasses.asdict(recipe)
