"""One change for all images: universal perturbations, and patches pasted at random places."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rvis import checks, engine, gate, struct
from rvis.ascent import Problem
from rvis.attacks.geometry import into_ball
from rvis.attacks.gradient import steepest
from rvis.attacks.look import look
from rvis.attacks.losses import AttackObjective, objective
from rvis.attacks.request import Callback, conclude, drawing, prepare, watch
from rvis.attacks.result import AttackResult
from rvis.objectives import Objective
from rvis.plotting import grids
from rvis.types import Array, ArrayLike, KeyLike, Model, as_key, fold_each, on_device

_ENOUGH = 9.0
"""β of Shafahi et al.: what a loss counts at most, lest images that are fooled draw all steps."""

_FAILED = "loss: became NaN or infinite; a model with finite logits and gradients would be right"


@dataclasses.dataclass(frozen=True, eq=False)
class UniversalResult(AttackResult):
    """What one change does to all images.

    Attributes:
      change: the perturbation (H, W, C), which is added; or the patch (h, w, C) in [0, 1].
      scores: (steps,) the mean loss of each step's images before it.
      pasted: whether it is a patch.
    """

    change: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0, 0)))
    scores: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    pasted: bool = False

    def apply(self, images: ArrayLike, key: KeyLike = 0) -> np.ndarray:
        """Other images (n, H, W, C) or (H, W, C) with the change; a patch at places of the key."""
        batch = np.asarray(checks.images("images", images, channels=self.change.shape[2]))
        most, own = batch.shape[1:3], self.change.shape[:2]
        room = np.subtract(most, own)
        if room.min() < 0 or (room.any() and not self.pasted):
            raise ValueError(f"images: room for a change of {own} was expected, given {most}")
        return applied(batch, self.change, key, self.pasted).reshape(np.shape(images))

    def save(self, folder: str | Path) -> Path:
        """As every attack's; the change too, as a picture (grey is nothing) and in full."""
        place = super().save(folder)
        most = max(float(np.abs(self.change).max()), 1e-12)
        seen = self.change if self.pasted else 0.5 + self.change / (2 * most)
        grids.save(grids.to_pil(seen), place / "change.png")
        np.save(place / "change.npy", self.change)
        return place


class SharedOptions(TypedDict, total=False):
    """What both attacks take alike; there is one change, so that no `chunk` applies."""

    step_size: float | None
    batch_size: int
    loss: str | Objective
    target: Any
    key: KeyLike
    steps: int
    checkpoint: str | Path | None
    callback: Callback | None
    progress: bool


def applied(images: np.ndarray, change: np.ndarray, key: KeyLike, pasted: bool) -> np.ndarray:
    """Images (n, H, W, C) with the change (h, w, C), each with a key of its number."""
    keys = fold_each(as_key(key), np.arange(len(images), dtype=np.uint32))
    changes = np.broadcast_to(change, (len(images), *change.shape))
    problems = images, changes, _places(keys, images.shape[1:3], change.shape[:2])
    pixels = images.shape[1] * images.shape[2]
    return engine.apply(_pasted if pasted else _added, None, problems, pixels=pixels)


def _added(model: None, problem: tuple[Array, Array, Array]) -> Array:
    return jnp.clip(problem[0] + problem[1], 0, 1)


def _pasted(model: None, problem: tuple[Array, Array, Array]) -> Array:
    return paste(*problem)


@partial(jax.jit, static_argnums=(1, 2))
def _places(keys: Array, image: tuple[int, ...], patch: tuple[int, ...]) -> Array:
    return jax.vmap(lambda key: place(key, image, patch))(keys)


def place(key: Array, image: tuple[int, ...], patch: tuple[int, ...]) -> Array:
    """The (row, column) of a patch of a shape in an image of a shape, uniform among all."""
    room = jnp.asarray(image[:2], jnp.int32) - jnp.asarray(patch[:2], jnp.int32) + 1
    return jax.random.randint(key, (2,), 0, room, jnp.int32)


def paste(image: Array, patch: Array, place: Array) -> Array:
    """(H, W, C) with a patch (h, w, C) over it, whose first corner is at a place."""
    row, column = place
    return lax.dynamic_update_slice(image, patch, (row, column, jnp.zeros_like(row)))


@struct.dataclass
class Crowd:
    """The images (n, H, W, C) that share a change, and n objectives."""

    images: Array
    objective: AttackObjective


@struct.dataclass
class Shared:
    """Ascent of the mean loss of random images of a `Crowd` in their one change.

    Attributes:
      rate: of a step, in the norm.
      radius: of the change about `middle`, in the norm.
      middle: where it starts: 0 of what is added, grey of a patch.
      enough: what the loss of an image counts at most.
      norm: "linf" or "l2".
      pasted: whether it is a patch.
      batch: images a step; all in their order where there are no more.
    """

    rate: Array
    radius: Array
    middle: Array
    enough: Array
    norm: str = struct.static()
    pasted: bool = struct.static()
    batch: int = struct.static()

    def init(self, key: Array, start: Array) -> Array:
        """(1, h, w, C), what the change is beyond its middle."""
        return start

    def step(self, key: Array, state: Array, model: Model, problem: Crowd) -> tuple[Array, Array]:
        """One step up; tells the mean loss before it."""
        choose, show = jax.random.split(key)
        count = problem.images.shape[0]
        rows = jnp.arange(count, dtype=jnp.int32)
        if self.batch < count:
            rows = jax.random.randint(choose, (self.batch,), 0, count, jnp.int32)
        chosen = jax.tree.map(lambda leaf: leaf[rows], problem)

        def loss(delta: Array) -> Array:
            def one(key: Array, each: Crowd) -> Array:
                lay, draw = jax.random.split(key)
                change = self.middle + delta[0]
                if self.pasted:
                    image = paste(each.images, change, place(lay, each.images.shape, change.shape))
                else:
                    image = jnp.clip(each.images + change, 0, 1)
                found, _ = look(image[None], draw, model, Problem(each.objective))
                return jnp.minimum(found, self.enough)

            return jax.vmap(one)(jax.random.split(show, rows.shape[0]), chosen).mean()

        told, slope = jax.value_and_grad(loss)(state)
        moved = steepest(state, slope, self.rate, self.norm)
        return into_ball(moved, self.radius, self.norm), told

    def finish(self, state: Array, model: Model, problem: Crowd) -> Array:
        """The change (h, w, C)."""
        return self.middle + state[0]


def _run(
    method: str,
    model: Model,
    images: ArrayLike,
    labels: Any,
    *,
    norm: str = "linf",
    eps: float = 0.5,
    size: tuple[int, int] | None = None,
    step_size: float | None = None,
    batch_size: int = 64,
    loss: str | Objective = "ce",
    target: Any = None,
    key: KeyLike = 0,
    steps: int = 200,
    callback: Callback | None = None,
    **options: Any,
) -> UniversalResult:
    """One change for all images, of so many pixels where it is pasted; `eps` is about its start."""
    checks.number("eps", eps, above=0)
    request = prepare(
        model, images, labels, norm=norm, eps=eps, target=target, key=key, norms=("linf", "l2")
    )
    pasted, (height, width) = size is not None, size or request.shape[:2]
    if height > request.shape[0] or width > request.shape[1]:
        raise ValueError(f"size: at most {request.shape[:2]} was expected, given {size!r}")
    radius = float(request.eps[0])
    rate = 2.5 * radius / steps
    if step_size is not None:
        rate = checks.number("step_size", step_size, above=0)
    batch = min(batch_size, len(request.images))
    # What somebody else's objective is worth where an image is fooled, nobody knows.
    numbers = rate, radius, 0.5 * pasted, _ENOUGH if isinstance(loss, str) else np.inf
    length, reach, start, most = (on_device(number, jnp.float32) for number in numbers)
    crowd = Crowd(request.images, objective(request, loss))  # type: ignore[arg-type]

    def pictures(changes: np.ndarray) -> np.ndarray:
        return applied(request.images, changes[0], request.key, pasted)

    run = engine.run(
        Shared(length, reach, start, most, request.norm, pasted, batch),
        drawing(request.model, 1),
        jax.tree.map(lambda leaf: np.asarray(leaf)[None], crowd),
        request.key[None],
        steps=steps,
        pixels=request.pixels * batch,
        starts=np.zeros((1, 1, height, width, request.shape[2]), np.float32),
        callback=watch(request, callback, pictures),
        failure=lambda examples: _FAILED,
        label=method,
        **options,
    )
    plain = conclude(
        request,
        pictures(run.result),
        method=method,
        iterations=np.where(request.solved, 0, steps),
        steps=steps,
        step_size=rate,
        loss=loss,
        batch_size=batch_size,
        **({"size": size} if pasted else {"eps": eps}),
    )
    return UniversalResult(**vars(plain), change=run.result[0], scores=run.info[0], pasted=pasted)


@gate.public
def universal(
    model: Model,
    images: ArrayLike,
    labels: Any,
    *,
    norm: str = "linf",
    eps: float,
    **options: Unpack[SharedOptions],
) -> UniversalResult:
    """One perturbation that, added to whatever image, fools the model.

        δ ← Π_ε(δ + α·d(∇_δ 1/b Σ_i min(L(x_i + δ, y_i), 9)))

    over random batches of the images, which are clipped to [0, 1] with it. d is the steepest
    direction of the norm, and the bound keeps what is fooled from drawing all of the steps.

    Args, raises as `pgd`, but for:
      images: that it is made for; `apply` of the result adds it to others.
      norm: "linf" or "l2".
      eps: of the perturbation, a number.
      step_size: α, 2.5·eps/steps by default.
      batch_size: images a step, 64 by default, drawn with replacement; all where there are no more.
      loss: of an objective that is no name's there is no bound.
      key: of the batches.
      steps: 200 by default.
      callback: `losses` are the mean of the step's images, the same for all.

    Returns:
      A `UniversalResult`: an AttackResult with the perturbation as `change`, and `scores`.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attacks
      >>> model = rvis.load("mnist_cnn")
      >>> digits = np.random.default_rng(0).random((8, 28, 28, 1)).astype(np.float32)
      >>> found = attacks.universal(model, digits, model(digits).argmax(1), eps=0.1, steps=5)
      >>> found.change.shape, bool(np.abs(found.change).max() <= 0.1)
      ((28, 28, 1), True)

    Reference: Moosavi-Dezfooli et al. 2017, Universal adversarial perturbations; Shafahi et al.
      2020, Universal adversarial training, algorithm 2 and section 4.
    """
    return _run("universal", model, images, labels, norm=norm, eps=eps, **options)


@gate.public
def patch(
    model: Model,
    images: ArrayLike,
    labels: Any,
    *,
    size: Any,
    **options: Unpack[SharedOptions],
) -> UniversalResult:
    """A patch that, laid anywhere on whatever image, makes the model take it for a class.

    It begins grey, and climbs the mean loss of random images with the patch at random places, by
    signs of the gradient; its pixels take any value in [0, 1].

    Args, returns and raises as `universal`, but for:
      size: (h, w) in pixels, or one number for a square.
      target: the class that is to be seen; without one it is enough that labels are not.
      step_size: by default 1.25/steps.
      key: of the batches and places, those in the result too.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attacks
      >>> model = rvis.load("mnist_cnn")
      >>> digits = np.random.default_rng(0).random((8, 28, 28, 1)).astype(np.float32)
      >>> found = attacks.patch(model, digits, 8, size=6, target=3, steps=5)
      >>> found.change.shape, found.images.shape
      ((6, 6, 1), (8, 28, 28, 1))

    Reference: Brown et al. 2017, Adversarial patch, equation 1; of their transformations, the
      places.
    """
    return _run("patch", model, images, labels, size=checks.size("size", size), **options)
