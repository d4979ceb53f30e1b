"""The one ascent step: from a position uphill to the next, as a pair of pure functions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rvis import post_step, struct, transforms
from rvis.ascent.tiles import Tiles
from rvis.images import Parameterization
from rvis.models import taps
from rvis.objectives import Objective
from rvis.objectives.base import written_out
from rvis.optimizers import Optimizer
from rvis.post_step import PostStep
from rvis.transforms import Transform
from rvis.types import Array, Model, PyTree


@struct.dataclass
class Problem:
    """What one example asks for: maximise `objective` − Σ `penalties`, inside `constraint`.

    Every leaf is traced, so that units, weights and radii sweep in one compiled program. In a batch
    every leaf has a leading axis.

    Attributes:
      objective: see `rvis.objectives`.
      penalties: see `rvis.regularizers`; each is subtracted.
      constraint: see `rvis.projections`; None for positions that need none.
    """

    objective: Objective
    penalties: tuple[Callable[[Array], Array], ...] = ()
    constraint: Any = None

    def broadcast(self, count: int) -> Problem:
        """The problem for each of `count` examples, with the same penalties and constraint."""
        penalties, constraint = written_out((self.penalties, self.constraint), count)
        return Problem(self.objective.broadcast(count), penalties, constraint)


@struct.dataclass
class AscentState:
    """What an ascent carries from step to step.

    `recent` are the scores of the last two steps, where units are to be redirect_relu.
    """

    step: Array
    position: PyTree
    optimizer: PyTree
    recent: Array | None = None
    saliency: Array | None = None
    best: tuple[Array, PyTree] | None = None


@struct.dataclass
class AscentInfo:
    """What an ascent tells of a step: the objective, and that less the penalties, before it."""

    score: Array
    energy: Array


def energy(
    pictures: Array,
    key: Array,
    model: Model,
    problem: Problem,
    *,
    views: tuple[Transform, ...] = (),
    compose: Callable[[Array, Array], Array] | None = None,
    redirect: Array | None = None,
) -> tuple[Array, Array]:
    """(objective − penalties, objective) of one group of pictures.

    Args:
      pictures: (facets, H, W, C), decoded.
      key: for the random transformations.
      model: any model.
      problem: the objective and penalties.
      views: random transformations between picture and model.
      compose: `compose(key, picture)` gives what the model is shown of a picture that is no image
        of it, such as one with transparency; None for images.
      redirect: where true, blocked ReLU gradients are let through; None for plain ReLUs.
    """
    images = pictures
    if compose is not None:
        keys = jax.random.split(jax.random.fold_in(key, _BACKGROUND), pictures.shape[0])
        images = jax.vmap(compose)(keys, pictures)

    def one(key: Array) -> Array:
        return _score(transforms.apply(views, key, images), model, problem, redirect)

    draws = transforms.draws(views)
    score = one(key) if draws == 1 else jax.vmap(one)(jax.random.split(key, draws)).mean()
    return score - sum(penalty(pictures) for penalty in problem.penalties), score


_BACKGROUND = 2**31 - 1
"""Folded in for backgrounds; the transformations fold in the numbers of the pictures."""


def _score(seen: Array, model: Model, problem: Problem, redirect: Array | None) -> Array:
    relu = jax.nn.relu if redirect is None else partial(taps.redirecting_relu, redirect=redirect)
    return problem.objective(taps.activations(model, seen, problem.objective.layers, relu=relu))


@struct.dataclass
class Ascent:
    """Gradient ascent on a group of images: the step that serves every task.

    decode, transform, model with taps, objective − penalties, gradient, optimizer, maps,
    projection.

    Attributes:
      image: the parameterization (structure).
      optimizer: gradient maps and learning rate (a leaf).
      views: random transformations (structure).
      facets: images in a group; more than one only where an objective couples them.
      redirect_relu: for this many first steps a ReLU that blocks all of an example's gradient lets
        its upward part through (tensorflow/lucid does so for 16), so that dead units can wake;
        later, unless it is 0, only after two steps of the same score.
      post_step: maps of the image after the step, see `rvis.post_step`; what they change is encoded
        anew.
      tiles: by which the model sees the image, without penalties and views; None for all at once.
      saliency: whether to add up |∂energy/∂image|, which `images` then gives as transparency.
      best: whether `images` gives the group that had the highest energy of all before a step,
        instead of the last, whose energy is unknown.
    """

    image: Parameterization = struct.static()
    optimizer: Optimizer
    views: tuple[Transform, ...] = struct.static(default=())
    facets: int = struct.static(default=1)
    redirect_relu: int = struct.static(default=0)
    post_step: tuple[PostStep, ...] = ()
    tiles: Tiles | None = None
    saliency: bool = struct.static(default=False)
    best: bool = struct.static(default=False)

    @property
    def pixels(self) -> int:
        """What the engine goes by: the pictures', and as many that the optimizer remembers."""
        height, width, _ = self.image.shape
        return 2 * height * width * self.facets

    def init(self, key: Array, position: PyTree | None = None) -> AscentState:
        """The state before the first step.

        Args:
          key: the example's key; facet i starts from `fold_in(key, i)`.
          position: where to start instead, with a leading axis of `facets`.
        """
        if position is None:
            facets = jnp.arange(self.facets, dtype=jnp.int32)
            keys = jax.vmap(partial(jax.random.fold_in, key))(facets)
            position = jax.vmap(self.image.init)(keys)
        shape = (self.facets, *self.image.shape[:2])
        saliency = jnp.zeros(shape, jnp.float32) if self.saliency else None
        best = (jnp.float32(-jnp.inf), position) if self.best else None
        optimizer = self.optimizer.init(position)
        # Two that differ, and that no check for NaN or infinity takes for a mishap.
        most = float(np.finfo(np.float32).max)
        recent = jnp.asarray([most, -most], jnp.float32) if self.redirect_relu else None
        return AscentState(jnp.int32(0), position, optimizer, recent, saliency, best)

    def step(
        self, key: Array, state: AscentState, model: Model, problem: Problem
    ) -> tuple[AscentState, AscentInfo]:
        """One step up; see `rvis.engine.Algorithm`."""
        redirect, recent = None, state.recent
        if recent is not None:
            redirect = (state.step < self.redirect_relu) | (recent[0] == recent[1])
        pictures, pull = jax.vjp(self.decoded, state.position)
        climb = self._whole if self.tiles is None else self._tiled
        at_picture, score = climb(pictures, key, model, problem, redirect)
        (gradient,) = pull(at_picture)
        position, optimizer = self.optimizer.update(gradient, state.optimizer, state.position)
        step = state.step + 1
        if self.post_step:
            position = self._mapped(step, position, at_picture)
        if problem.constraint is not None:
            position = problem.constraint.project(position)
        saliency = state.saliency
        if saliency is not None:
            saliency = saliency + jnp.abs(at_picture).mean(-1)
        best = state.best
        if best is not None:
            better = score[1] > best[0]
            best = jax.tree.map(
                lambda new, old: jnp.where(better, new, old), (score[1], state.position), best
            )
        if recent is not None:
            recent = jnp.stack([recent[1], score[0].astype(recent.dtype)])
        state = AscentState(step, position, optimizer, recent, saliency, best)
        return state, AscentInfo(*score)

    def decoded(self, position: PyTree) -> Array:
        """The pictures (facets, H, W, C) of a group's position."""
        return jax.vmap(self.image.decode)(position)

    def _whole(
        self, pictures: Array, key: Array, model: Model, problem: Problem, redirect: Array | None
    ) -> tuple[Array, tuple[Array, Array]]:
        """∂energy/∂pictures, and (objective, energy)."""
        climb = partial(
            energy,
            key=key,
            model=model,
            problem=problem,
            views=self.views,
            compose=getattr(self.image, "composite", None),
            redirect=redirect,
        )
        (total, score), gradient = jax.value_and_grad(climb, has_aux=True)(pictures)
        return gradient, (score, total)

    def _tiled(
        self, pictures: Array, key: Array, model: Model, problem: Problem, redirect: Array | None
    ) -> tuple[Array, tuple[Array, Array]]:
        """`_whole` tile by tile."""
        assert self.tiles is not None
        score, gradient = self.tiles.climb(
            pictures, key, lambda seen: _score(seen, model, problem, redirect)
        )
        return gradient, (score, score)

    def _mapped(self, step: Array, position: PyTree, gradient: Array) -> PyTree:
        before = self.decoded(position)
        after = post_step.apply(self.post_step, step, before, gradient)
        # An image that no map changed keeps its position: not every one decodes to the same bits.
        changed = (after != before).reshape(before.shape[0], -1).any(1)
        return jax.tree.map(
            lambda new, old: jnp.where(changed.reshape(-1, *(1,) * (new.ndim - 1)), new, old),
            jax.vmap(self.image.encode)(after),
            position,
        )

    def finish(self, state: AscentState, model: Model, problem: Problem) -> Array:
        """What a run gives: `images`."""
        return self.images(state)

    def images(self, state: AscentState) -> Array:
        """The group's pictures, (facets, H, W, C), and their transparency where it is kept."""
        pictures = self.decoded(state.position if state.best is None else state.best[1])
        if state.saliency is None:
            return pictures
        # Clipped at the 80th percentile and put into [0, 1], as serre-lab/Horama draws it.
        most = jnp.percentile(state.saliency, 80, axis=(1, 2), keepdims=True)
        most = jnp.where(most > 0, most, state.saliency.max((1, 2), keepdims=True))
        alpha = jnp.minimum(state.saliency, most) / jnp.where(most > 0, most, 1)
        return jnp.concatenate([pictures, alpha[..., None]], -1)


def watcher(
    callback: Callable[[int, np.ndarray, np.ndarray], Any] | None,
    shaped: Callable[[np.ndarray], np.ndarray] = lambda array: array,
    before: np.ndarray | None = None,
) -> Callable[[int, Any, AscentInfo], Any] | None:
    """A caller's `callback(step, images, scores)` as the engine calls back, for single pictures.

    Args:
      callback: the caller's; None for none.
      shaped: gives arrays (n, …) the axes that the caller knows.
      before: (n, steps) scores of the stages before.
    """
    if callback is None:
        return None

    def watch(step: int, pictures: np.ndarray, info: AscentInfo) -> Any:
        scores = info.score if before is None else np.concatenate([before, info.score], 1)
        return callback(scores.shape[1], shaped(pictures[:, 0]), shaped(np.asarray(scores)))

    return watch
