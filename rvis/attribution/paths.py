"""Gradients along other paths to the image: from data, guided, and by Gaussian blurs."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks, engine, gate, struct
from rvis.analysis.questions import Score, Shape, ask, one_baseline
from rvis.attribution import stream
from rvis.attribution.integrated import Line, on_line
from rvis.attribution.result import Attribution
from rvis.attribution.stream import Callback, answer
from rvis.files import PathLike
from rvis.types import Array, ArrayLike, KeyLike, Model, PyTree, as_key, on_device


@struct.dataclass
class _Drawn:
    """∇f ⊙ (x − x′) at a random place of the line from a random one of some images (b, H, W, C)."""

    starts: Array

    def shapes(self, shape: Shape) -> tuple[Shape, Shape]:
        return shape, ()

    def __call__(
        self, key: Array, number: Array, image: Array, own: PyTree, score: Score
    ) -> tuple[Array, Array]:
        which, where = jax.random.split(key)
        start = self.starts[jax.random.randint(which, (), 0, len(self.starts), jnp.int32)]
        t = jax.random.uniform(where, (), jnp.float32)
        return on_line(t, image, start, score), jnp.float32(1)


@gate.public
def expected_gradients(
    model: Model,
    images: ArrayLike,
    target: Any,
    *,
    data: ArrayLike,
    key: KeyLike = 0,
    samples: int = 200,
    chunk: int | None = None,
    checkpoint: PathLike | None = None,
    callback: Callback | None = None,
    progress: bool = True,
) -> Attribution:
    """E[(x − x′) ⊙ ∇f(x′ + t·(x − x′))], x′ drawn from data and t from [0, 1].

    Args:
      data: (b, H, W, C) the images that x′ is drawn from, float32 in [0, 1].
      key: an int seed or a typed key; draw i of every image uses `fold_in(key, i)`.
      samples: draws.

    All else as `integrated_gradients`; `gap` is from the mean of f over the data, and sampling
    error too.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attribution
      >>> model = rvis.load("mnist_cnn")
      >>> digits = np.random.default_rng(0).random((4, 28, 28, 1), np.float32)
      >>> attribution.expected_gradients(model, digits[0], 3, data=digits[1:], samples=8).maps.shape
      (28, 28, 1)

    Reference: Erion et al. 2021, Improving performance of deep learning models with axiomatic
      attribution priors and expected gradients, eq. 3.
    """
    question = ask(model, images, target, chunk=chunk, callback=callback)
    flat = np.asarray(checks.images("data", data, shape=question.shape))
    options: dict[str, Any] = {"samples": samples, "key": as_key(key)}
    run: dict[str, Any] = {"chunk": chunk, "checkpoint": checkpoint, "callback": callback}
    run |= {"progress": progress, "label": "expected_gradients"}
    maps = stream.mean(_Drawn(on_device(flat)), question, **options, **run)
    scores = question.scores()
    absent = [question.scores(np.broadcast_to(one, question.images.shape)) for one in flat]
    gap = scores - np.mean(absent, 0) - maps.sum((1, 2, 3))
    return answer("expected_gradients", question, maps, scores, gap=gap, target=target, **options)


@struct.dataclass
class _Guided:
    """A path that moves the values of least gradient first; a step takes it 1 / steps further."""

    steps: Array
    fraction: Array
    reach: Array

    def init(self, key: Array, start: Array) -> Any:
        return start, jnp.zeros_like(start), jnp.int32(0)

    def step(self, key: Array, state: Any, model: Model, problem: Line) -> tuple[Any, tuple[()]]:
        x, maps, number = state
        image, start = problem.image, problem.starts
        gradient = Score(model, problem.objective).and_gradient(x)[1]
        alpha = (number + 1).astype(jnp.float32) / self.steps.astype(jnp.float32)
        away = image - start
        nearest = start + jnp.maximum(alpha - self.reach, 0) * away
        furthest = start + jnp.minimum(alpha + self.reach, 1) * away
        # In shares of the way: where a value lies behind the band, it is brought to its edge.
        behind = jnp.abs(image - x) > jnp.abs(image - nearest)
        at = jnp.where(behind, nearest, x)
        needed = jnp.abs(image - at).sum() - jnp.abs(away).sum() * (1 - alpha)
        # Values in the order of their gradients, a fraction of all at once, until it is enough.
        room = jnp.abs(furthest - at).ravel()
        size = jnp.where(room > 0, jnp.abs(gradient).ravel(), jnp.inf)
        rank = jnp.argsort(jnp.argsort(size)).astype(jnp.int32)
        together = jnp.floor(self.fraction * (size.size - 1)).astype(jnp.int32) + 1
        batch = rank // together
        filled = jnp.cumsum(room[jnp.argsort(size)])
        last = jnp.minimum((batch + 1) * together, size.size) - 1
        first = batch * together - 1
        before = jnp.where(first >= 0, filled[jnp.maximum(first, 0)], 0)
        whole = filled[last] - before
        share = jnp.clip((needed - before) / jnp.where(whole > 0, whole, 1), 0, 1)
        moved = at + share.reshape(x.shape) * (furthest - at)
        moved = jnp.where(number + 1 >= self.steps, image, moved)
        return (moved, maps + (moved - x) * gradient, number + 1), ()

    def finish(self, state: Any, model: Model, problem: Line) -> Array:
        return state[1]


@gate.public
def guided_integrated_gradients(
    model: Model,
    images: ArrayLike,
    target: Any,
    *,
    baseline: str | ArrayLike = 0.0,
    fraction: float = 0.25,
    reach: float = 0.02,
    steps: int = 200,
    chunk: int | None = None,
    checkpoint: PathLike | None = None,
    callback: Callback | None = None,
    progress: bool = True,
) -> Attribution:
    """Integrated gradients along a path that moves the values with the smallest gradients first.

    At step k a share k / steps of the way has been gone in the sum of absolute differences; no
    value may be ahead of the others, or behind, by more than `reach`. Where a ReLU network's
    gradient is small it often changes at once, so that a `gap` stays: see how large it is.

    Args:
      baseline: where the path starts; see `integrated_gradients`, one for an image.
      fraction: of the values that move at once, those with the smallest gradients, in (0, 1].
      reach: how far from the straight line a value may be, as a share of its way.
      steps: of the path.
      chunk, checkpoint, progress: as `integrated_gradients`.
      callback: `callback(step, maps, scores)` is called after every step; True ends the work.

    All else as `integrated_gradients`.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attribution
      >>> model = rvis.load("mnist_cnn")
      >>> grey = np.full((28, 28, 1), 0.5, np.float32)
      >>> attribution.guided_integrated_gradients(model, grey, 3, steps=10).maps.shape
      (28, 28, 1)

    Reference: Kapishnikov et al. 2021, Guided Integrated Gradients, algorithm 1.
    """
    question = ask(model, images, target, chunk=chunk, callback=callback)
    part = checks.number("fraction", fraction, above=0, high=1)
    far = checks.number("reach", reach, low=0, high=1)
    starts, scores = one_baseline(baseline, question.images), question.scores()
    rise = scores - question.scores(starts)
    watch = None
    if callback is not None:

        def watch(step: int, state: Array, info: Any) -> Any:
            return callback(step, question.shaped(np.asarray(state)), question.shaped(scores))

    maps = engine.run(
        _Guided(jnp.int32(steps), jnp.float32(part), jnp.float32(far)),
        question.model,
        Line(question.objective, question.images, starts, rise),
        jnp.broadcast_to(as_key(0), (len(starts),)),
        starts=starts,
        steps=steps,
        pixels=question.pixels,
        chunk=chunk,
        checkpoint=checkpoint,
        callback=watch,
        progress=progress,
        label=f"{question.model.name} guided_integrated_gradients",
        failure=stream.not_finite,
    ).result
    about: dict[str, Any] = {"baseline": baseline, "fraction": part, "reach": far, "steps": steps}
    gap = rise - maps.sum((1, 2, 3))
    name = "guided_integrated_gradients"
    return answer(name, question, maps, scores, gap=gap, target=target, **about)


@struct.dataclass
class _Unblurred:
    """∇f ⊙ ΔL at a step of the path of Gaussian blurs, from the widest to none."""

    widest: Array
    steps: Array

    def shapes(self, shape: Shape) -> tuple[Shape, Shape]:
        return shape, ()

    def __call__(
        self, key: Array, number: Array, image: Array, own: PyTree, score: Score
    ) -> tuple[Array, Array]:
        steps, place = self.steps.astype(jnp.float32), number.astype(jnp.float32)

        def at(t: Array) -> Array:
            return blurred(image, self.widest * (1 - t / steps))

        change = at(place + 1.0) - at(place)
        return steps * score.and_gradient(at(place + 0.5))[1] * change, jnp.float32(1)


def blurred(image: Array, sigma: Array) -> Array:
    """(H, W, C) under a Gaussian of a traced width; at the borders weights are scaled to sum to 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis.attribution.paths import blurred
      >>> blurred(jnp.array([[[0.0], [1.0]]]), jnp.float32(1e6)).round(3).ravel().tolist()
      [0.5, 0.5]
    """
    for axis in (0, 1):
        places = jnp.arange(image.shape[axis], dtype=jnp.float32)
        square = jnp.square((places[:, None] - places[None]) / jnp.maximum(sigma, 1e-3))
        bell = jnp.exp(-0.5 * square)
        image = jnp.moveaxis(
            jnp.tensordot(bell / bell.sum(1, keepdims=True), image, (1, axis)), 0, axis
        )
    return image


@gate.public
def blur_integrated_gradients(
    model: Model,
    images: ArrayLike,
    target: Any,
    *,
    sigma: float | None = None,
    steps: int = 100,
    chunk: int | None = None,
    checkpoint: PathLike | None = None,
    callback: Callback | None = None,
    progress: bool = True,
) -> Attribution:
    """∫ ∇f(L_σ) ⊙ ∂L_σ/∂σ dσ over Gaussian blurs L_σ of the image, from a wide one to none.

    No baseline has to be chosen, and no new edges come up on the way.

    Args:
      sigma: standard deviation of the widest blur, in pixels; by default a fifth of the shorter
        side, about the paper's 50 at 224.
      steps: of the path.
      chunk, checkpoint, callback, progress: as `integrated_gradients`.

    Returns:
      An `Attribution` with maps (n, H, W, C), or (H, W, C) of one image, and the `gap` from the
      widest blur.

    All else as `integrated_gradients`.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attribution
      >>> model = rvis.load("mnist_cnn")
      >>> grey = np.eye(28, dtype=np.float32)[..., None]
      >>> attribution.blur_integrated_gradients(model, grey, 3, steps=10).maps.shape
      (28, 28, 1)

    Reference: Xu et al. 2020, Attribution in Scale and Space, eq. 6.
    """
    question = ask(model, images, target, chunk=chunk, callback=callback)
    wide = min(question.shape[:2]) / 5
    if sigma is not None:
        wide = checks.number("sigma", sigma, above=0)
    maps = stream.mean(
        _Unblurred(on_device(wide, jnp.float32), on_device(steps, jnp.int32)),
        question,
        samples=steps,
        key=as_key(0),
        chunk=chunk,
        checkpoint=checkpoint,
        callback=callback,
        progress=progress,
        label="blur_integrated_gradients",
    )
    scores = question.scores()
    ends = np.asarray(jax.vmap(blurred, (0, None))(jnp.asarray(question.images), jnp.float32(wide)))
    gap = scores - question.scores(ends) - maps.sum((1, 2, 3))
    about: dict[str, Any] = {"gap": gap, "target": target, "sigma": wide, "steps": steps}
    return answer("blur_integrated_gradients", question, maps, scores, **about)
