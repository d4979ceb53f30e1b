"""Training a small CLIP on generated scenes, resumable, and what it has understood of them."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rvis import checks, engine, files, optimizers, projections, struct
from rvis.ascent import Ascent, Problem
from rvis.clip.model import CLIP, encode_image, encode_text, unit
from rvis.clip.towers import TextTower
from rvis.engine import checkpoints
from rvis.images import Pixel
from rvis.objectives import Activations, Objective
from rvis.types import LOGITS, Array, KeyLike, Model, PyTree, as_key
from scripts.clip_scenes import scenes


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
      steps: optimizer steps.
      batch_size: scenes a step.
      alike: scenes that differ in one fact alone, see `scenes.draw_facts`.
      learning_rate: the highest of AdamW's, reached after `warmup` steps; then a cosine to zero.
      warmup: steps.
      weight_decay: on matrices, tables of embeddings among them; not on biases, norms or the scale.
      text_rate: the text tower's share of the learning rate. Were it to learn as fast as the image
        tower, it would unlearn the words for what pictures do not tell it yet.
      noise: each image gets Gaussian noise of a standard deviation drawn from 0 to this. What a
        network does not lose in noise, its input gradient shows more plainly (Kaur 2019).
      colour: each channel is multiplied and shifted by up to this share.
      shift: images are moved by up to so many pixels, their borders continued; less than the
        places of a caption are apart.
      eps: if not 0, the L2 radius about each image in which projected gradient ascent looks for the
        image that is least like its caption, to train on in its place (Madry 2017, eq. 2.1).
      attack_steps: of that ascent.

    Raises:
      TypeError, ValueError: naming the field.
    """

    steps: int = 5000
    batch_size: int = 64
    alike: int = 4
    learning_rate: float = 1e-3
    warmup: int = 200
    weight_decay: float = 0.05
    text_rate: float = 0.1
    noise: float = 0.1
    colour: float = 0.05
    shift: int = 1
    eps: float = 0.0
    attack_steps: int = 3

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "alike", "attack_steps"):
            checks.count(name, getattr(self, name))
        for name in ("warmup", "shift"):
            checks.count(name, getattr(self, name), low=0)
        for name in ("noise", "colour", "text_rate"):
            checks.number(name, getattr(self, name), low=0, high=1)
        for name in ("learning_rate", "weight_decay", "eps"):
            checks.number(name, getattr(self, name), low=0)


@struct.dataclass
class _State:
    step: Array
    variables: PyTree
    optimizer: PyTree


_COLDEST = math.log(100)
"""The logit scale is clipped to 100, as in Radford 2021, section 2.5."""


@functools.cache
def _optimizer(recipe: Recipe) -> optax.GradientTransformation:
    def kernels(params: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: leaf.ndim > 1, params)

    warmup = min(recipe.warmup, recipe.steps // 2)
    rates = optax.warmup_cosine_decay_schedule(0.0, recipe.learning_rate, warmup, recipe.steps)
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(rates, b2=0.98, weight_decay=recipe.weight_decay, mask=kernels),
    )


def contrastive_loss(
    images: Array, texts: Array, logit_scale: Array, agreement: Array
) -> tuple[Array, Array]:
    """The symmetric cross-entropy of pairs, in which no true caption counts as a mistake.

    With cosines c_ij of image i and text j times exp(logit_scale), the mean of
    −log softmax_j(c_i·)[i] and −log softmax_i(c_·j)[j], each over the pair itself and those that do
    not agree.

    Args:
      images: (n, d) embeddings.
      texts: (n, d) embeddings.
      logit_scale: scalar.
      agreement: (n, n) bool, whether text j is true of image i; the diagonal is taken to be.

    Returns:
      The loss, and the share of images whose own text is nearest.

    Example:
      >>> import jax.numpy as jnp
      >>> from scripts.clip_scenes.training import contrastive_loss
      >>> same, twice = jnp.ones((2, 3)), jnp.ones((2, 2), bool)
      >>> float(contrastive_loss(same, same, jnp.float32(0), twice)[0])
      0.0

    Reference: Radford et al. 2021, figure 3.
    """
    logits = jnp.exp(logit_scale) * unit(images) @ unit(texts).T
    own = jnp.eye(logits.shape[0], dtype=bool)
    logits = jnp.where(agreement & ~own, -jnp.inf, logits)
    right = jnp.diagonal(logits)
    losses = [jax.nn.logsumexp(logits, axis) - right for axis in (0, 1)]
    return (losses[0] + losses[1]).mean() / 2, (logits.argmax(1) == jnp.arange(len(right))).mean()


def augment(key: Array, images: Array, recipe: Recipe) -> Array:
    """Noise, colours and places of images (n, H, W, C) varied a little; see `Recipe`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from scripts.clip_scenes.training import Recipe, augment
      >>> augment(jax.random.key(0), jnp.ones((2, 8, 8, 3)), Recipe()).shape
      (2, 8, 8, 3)
    """
    n, height, width, channels = images.shape
    keys = jax.random.split(key, 5)
    if recipe.shift:
        pads = ((0, 0), (recipe.shift,) * 2, (recipe.shift,) * 2, (0, 0))
        padded = jnp.pad(images, pads, mode="edge")
        corners = jax.random.randint(keys[0], (n, 2), 0, 2 * recipe.shift + 1)
        images = jax.vmap(
            lambda x, at: jax.lax.dynamic_slice(x, (at[0], at[1], 0), (height, width, channels))
        )(padded, corners)
    shape, reach = (n, 1, 1, channels), recipe.colour
    images = images * jax.random.uniform(keys[1], shape, minval=1 - reach, maxval=1 + reach)
    images = images + jax.random.uniform(keys[2], shape, minval=-reach, maxval=reach)
    spread = recipe.noise * jax.random.uniform(keys[3], (n, 1, 1, 1))
    return jnp.clip(images + spread * jax.random.normal(keys[4], images.shape), 0, 1)


@struct.dataclass
class Misled(Objective):
    """The cross-entropy of an image's own text, of which it is `row`, among those that count."""

    texts: Array
    row: Array
    counts: Array
    scale: Array

    event_ranks: ClassVar[Mapping[str, int]] = {"texts": 2, "row": 0, "counts": 1, "scale": 0}

    @property
    def layers(self) -> tuple[str, ...]:
        return (LOGITS,)

    def __call__(self, activations: Activations) -> Array:
        logits = jnp.exp(self.scale) * (unit(activations[LOGITS]) @ self.texts.T)
        seen = jax.nn.logsumexp(jnp.where(self.counts, logits, -jnp.inf), -1)
        return (seen - logits[..., self.row]).mean()


def perturb(
    key: Array,
    image: Model,
    images: Array,
    texts: Array,
    agreement: Array,
    logit_scale: Array,
    recipe: Recipe,
) -> Array:
    """Images (n, H, W, C) within `recipe.eps` that are least like their texts (n, d); for traces.

    Texts that are true of an image too, as `agreement` (n, n) tells, do not draw it to them.
    """
    count, *shape = images.shape
    keys = jax.random.split(key, count)
    ball = projections.L2Ball(images[:, None], jnp.full(count, recipe.eps, jnp.float32))
    starts = jax.vmap(lambda ball, key: ball.sample(key))(ball, keys)
    rate = 2.5 * recipe.eps / recipe.attack_steps
    ascent = Ascent(Pixel(tuple(shape)), optimizers.steepest(rate, norm="l2"))  # type: ignore[arg-type]
    objective = Misled(
        jnp.broadcast_to(unit(texts), (count, *texts.shape)),
        jnp.arange(count),
        ~agreement | jnp.eye(count, dtype=bool),
        jnp.full(count, logit_scale),
    )
    problems = Problem(objective, (), ball)
    found = engine.traced(ascent, image, problems, keys, starts, steps=recipe.attack_steps)
    return found[:, 0]


@functools.partial(jax.jit, static_argnames="recipe", donate_argnames="state")
def _update(
    state: _State,
    blank: CLIP,
    key: Array,
    images: Array,
    tokens: Array,
    agreement: Array,
    *,
    recipe: Recipe,
) -> tuple[_State, dict[str, Array]]:
    """One step; `blank` gives the structure, `state` the weights."""
    drawn = jax.random.fold_in(key, state.step)
    seen = augment(drawn, images, recipe)
    if recipe.eps:
        weights = state.variables
        image = struct.replace(blank.image, params=weights["image"])
        texts = TextTower(blank.config).apply(weights["text"], tokens)
        attack, scale = jax.random.fold_in(drawn, 1), weights["logit_scale"]
        seen = perturb(attack, image, seen, texts, agreement, scale, recipe)  # type: ignore[arg-type]

    def loss(variables: PyTree) -> tuple[Array, Array]:
        return contrastive_loss(
            blank.image.apply(variables["image"], seen),
            TextTower(blank.config).apply(variables["text"], tokens),  # type: ignore[arg-type]
            variables["logit_scale"],
            agreement,
        )

    (value, right), gradient = jax.value_and_grad(loss, has_aux=True)(state.variables)
    updates, optimizer = _optimizer(recipe).update(gradient, state.optimizer, state.variables)
    updates = {**updates, "text": jax.tree.map(lambda u: recipe.text_rate * u, updates["text"])}
    variables = optax.apply_updates(state.variables, updates)
    scale = jnp.clip(variables["logit_scale"], 0, _COLDEST)
    variables = {**variables, "logit_scale": scale}
    figures = {"loss": value, "accuracy": right, "scale": jnp.exp(scale)}
    return _State(state.step + 1, variables, optimizer), figures


def train(
    clip: CLIP,
    recipe: Recipe,
    *,
    key: KeyLike = 0,
    seed: int = 0,
    every: int = 500,
    checkpoint: files.PathLike | None = None,
    callback: Callable[[int, Mapping[str, float]], Any] | None = None,
    progress: bool = True,
) -> CLIP:
    """Trains a CLIP on generated scenes from the weights that it comes with.

    Args:
      clip: from `untrained(…, words=scenes.vocabulary())`.
      recipe: how.
      key: an int seed or a typed key, for the variation of images.
      seed: of the stream of scenes. The same key and seed give the same weights.
      every: steps between two calls of `callback` and two checkpoints.
      checkpoint: a folder in which the state is saved, and from which an interrupted run with the
        same arguments goes on. It stays when the training has ended.
      callback: called as `callback(step, figures)` every so many steps, with "loss", "accuracy"
        (own captions first), "scale" and "seconds"; True ends the training.
      progress: a bar on a terminal.

    Returns:
      The CLIP with trained weights.

    Raises:
      ValueError, TypeError: naming the argument; `clip`, whose vocabulary must hold that of the
        scenes, or `checkpoint`, of another run.
      FloatingPointError: if the loss or a weight becomes NaN or infinite.

    Example:
      >>> import dataclasses
      >>> from rvis import clip
      >>> from scripts.clip_scenes import scenes, training
      >>> config = dataclasses.replace(clip.SMALL, layers=1, text_layers=1)
      >>> small = clip.untrained(config, words=scenes.vocabulary())
      >>> recipe = training.Recipe(steps=1, batch_size=4)
      >>> trained = training.train(small, recipe)

    Reference: Radford et al. 2021, "Learning transferable visual models from natural language
      supervision", sections 2.3 to 2.5.
    """
    if clip.tokenizer is None:
        raise ValueError("clip: one with a vocabulary was expected; see `untrained(words=…)`")
    try:
        clip.tokenizer([" ".join(scenes.vocabulary())])
    except ValueError as error:
        raise ValueError(
            f"clip: one that knows the words of scenes was expected ({error})"
        ) from error
    checks.count("every", every)
    root = as_key(key)
    variables = {
        "image": clip.image.params,
        "text": clip.text_params,
        "logit_scale": clip.logit_scale,
    }
    variables = jax.tree.map(jnp.array, variables)
    state = _State(jnp.int32(0), variables, _optimizer(recipe).init(variables))
    config = clip.config
    parts = (repr(recipe), root, seed, variables, config)
    fingerprint = checkpoints.fingerprint(*parts)
    file = None
    if checkpoint is not None:
        file = files.as_path("checkpoint", checkpoint) / "training.npz"
    if file is not None and file.exists():
        state = checkpoints.load(file, state, fingerprint=fingerprint)
    blank = dataclasses.replace(
        clip,
        image=struct.replace(clip.image.unnamed(), params=None),
        text_params=None,
        logit_scale=None,  # type: ignore[arg-type]
        tokenizer=None,
        name="",
    )
    size = clip.config.image_size
    told: list[dict[str, Array]] = []
    clock = time.perf_counter()
    for step in engine.counted(range(int(state.step), recipe.steps), "training", progress=progress):
        some = scenes.generate(
            recipe.batch_size, seed=seed, step=step, size=size, alike=recipe.alike
        )
        state, figure = _update(
            state,
            blank,
            root,
            some.images,
            clip.tokenizer(some.captions),
            scenes.agreement(some.told, some.facts, some.facts),
            recipe=recipe,
        )
        told.append(figure)
        if (step + 1) % every and step + 1 < recipe.steps:
            continue
        # Not inside NumPy's mean, which would turn a Ctrl-C that comes meanwhile into a ValueError.
        numbers = [{name: float(value) for name, value in figure.items()} for figure in told]
        figures = {name: float(np.mean([f[name] for f in numbers])) for name in numbers[0]}
        for name, tree in (("loss", figures["loss"]), ("weights", state.variables)):
            if not checks.all_finite(tree):
                raise FloatingPointError(
                    f"{name}: became NaN or infinite by step {step + 1}; lower learning_rate "
                    f"(given {recipe.learning_rate})"
                )
        figures["seconds"] = time.perf_counter() - clock
        told, clock = [], time.perf_counter()
        if file is not None:
            checkpoints.save(file, state, fingerprint=fingerprint)
        if callback is not None and callback(step + 1, figures):
            break
    return dataclasses.replace(
        clip,
        image=struct.replace(clip.image, params=state.variables["image"]),
        text_params=state.variables["text"],
        logit_scale=state.variables["logit_scale"],
    )


_NOUN = ("a shape", "two shapes", "three shapes")
_PROMPTS: dict[str, Callable[[str, int], str]] = {
    "colour": lambda value, count: _NOUN[count].replace(" ", f" {value} "),
    "shape": lambda value, count: (
        f"{('a', 'two', 'three')[count]} {scenes.SHAPES[value][0][count > 0]}"
    ),
    "position": lambda value, count: f"{_NOUN[count]} {scenes.POSITIONS[value][0]}",
    "size": lambda value, count: f"a {value} shape",
    "count": lambda value, count: _NOUN[scenes.COUNTS.index(value)],
    "background": lambda value, count: f"{_NOUN[count]} on a {value} background",
}


def zero_shot(
    clip: CLIP, *, count: int = 1000, seed: int = 0, held_out: bool | None = True
) -> dict[str, float]:
    """How often the nearest of some texts names the right value of each fact.

    The texts tell nothing else, but for the number of shapes: "a red shape", "a blue shape" … for
    the colour, "two circles", "two stars" … for the shape of two.

    Args:
      clip: one whose vocabulary holds that of the scenes.
      count: scenes, drawn from a stream that training never sees.
      seed: of that stream.
      held_out: scenes of held-out combinations (True), of others (False) or of any.

    Returns:
      {fact: accuracy in [0, 1]}; that of "size" is of scenes with one shape.

    Raises:
      TypeError, ValueError: naming the argument.

    Example:
      >>> import dataclasses
      >>> from rvis import clip
      >>> from scripts.clip_scenes import scenes, training
      >>> config = dataclasses.replace(clip.SMALL, layers=1, text_layers=1)
      >>> small = clip.untrained(config, words=scenes.vocabulary())
      >>> sorted(training.zero_shot(small, count=8))
      ['background', 'colour', 'count', 'position', 'shape', 'size']
    """
    some = scenes.generate(
        count, seed=seed + _UNSEEN, size=clip.config.image_size, held_out=held_out
    )
    images = encode_image(clip, some.images)
    accuracy = {}
    for fact, prompt in _PROMPTS.items():
        values = scenes.VALUES[fact]
        right = np.zeros(len(some), bool)
        for number in range(3):
            texts = encode_text(clip, [prompt(value, number) for value in values])
            rows = some.facts["count"] == number
            right[rows] = (images[rows] @ texts.T).argmax(1) == some.facts[fact][rows]
        counted = some.facts["count"] == 0 if fact == "size" else np.ones(len(some), bool)
        accuracy[fact] = float(right[counted].mean()) if counted.any() else float("nan")
    return accuracy


_UNSEEN = 10**6
"""Added to a seed for scenes that no training run draws."""
