"""Attribution by gradients: plain, times the input, along paths, under noise, with ReLU rules."""

from __future__ import annotations

import math
from typing import Any, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks, taps
from rvis.attribution.result import Attribution
from rvis.attribution.stream import (
    Moments,
    Question,
    Score,
    Shape,
    ask,
    scored,
    scores,
    stream,
    unscored,
)
from rvis.results import describe
from rvis.types import Array, ArrayLike, KeyLike, Model, PyTree, Relu, as_key


@flax.struct.dataclass
class Gradient:
    """∇f(x) and f(x) (`scored`), one sample an image."""

    kind: str = flax.struct.field(pytree_node=False, default="Gradient")

    def shapes(self, shape: Shape) -> tuple[Shape, Shape]:
        return (math.prod(shape) + 1,), ()

    def __call__(
        self, key: Array, number: Array, image: Array, own: PyTree, score: Score
    ) -> tuple[Array, Array]:
        return scored(*score.and_gradient(image)), jnp.float32(1)


@flax.struct.dataclass
class Noise:
    """∇f(x + ε), ε normal with `deviation` times the image's range."""

    deviation: Array
    kind: str = flax.struct.field(pytree_node=False, default="Noise")

    def shapes(self, shape: Shape) -> tuple[Shape, Shape]:
        return shape, ()

    def __call__(
        self, key: Array, number: Array, image: Array, own: PyTree, score: Score
    ) -> tuple[Array, Array]:
        size = self.deviation * (image.max() - image.min())
        noise = size * jax.random.normal(key, image.shape)
        return score.and_gradient(image + noise)[1], jnp.float32(1)


class Path(Protocol):
    """A way from a baseline to an image; a pytree, as `jax.jit` takes it."""

    def __call__(self, t: Array, baseline: Array, image: Array) -> Array:
        """The picture at t in [0, 1]: the baseline at 0, the image at 1; differentiable in t."""


@flax.struct.dataclass
class Line:
    """The straight way."""

    kind: str = flax.struct.field(pytree_node=False, default="Line")

    def __call__(self, t: Array, baseline: Array, image: Array) -> Array:
        return baseline + t * (image - baseline)


@flax.struct.dataclass
class Along:
    """∇f(γ(t)) ⊙ γ'(t) at a node t of the path γ from one of an image's baselines.

    `own` is (b, H, W, C); sample i is node i mod s of baseline ⌊i / s⌋.
    """

    path: Path
    nodes: Array
    weights: Array
    steps: Array
    kind: str = flax.struct.field(pytree_node=False, default="Along")

    def shapes(self, shape: Shape) -> tuple[Shape, Shape]:
        return shape, ()

    def __call__(
        self, key: Array, number: Array, image: Array, own: PyTree, score: Score
    ) -> tuple[Array, Array]:
        node = number % self.steps
        baseline = own[number // self.steps]
        place, velocity = jax.jvp(
            lambda t: self.path(t, baseline, image), (self.nodes[node],), (jnp.float32(1),)
        )
        return score.and_gradient(place)[1] * velocity, self.weights[node]


def gradient(
    model: Model, images: ArrayLike, target: Any, *, chunk: int | None = None, progress: bool = True
) -> Attribution:
    """∇f(x): how the score changes with every value of the image.

    Args:
      model: any model.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      target: f: a class number (its logit), one for each image, or an objective of
        `rvis.objectives` (one, or one for each image).
      chunk: images on the device at once; bounds memory, never changes maps (to the bit on a CPU).
      progress: a bar on a terminal.

    Returns:
      An `Attribution` with maps (n, H, W, C).

    Raises:
      TypeError, ValueError: naming the argument, before anything is compiled.
      FloatingPointError: naming the images whose map is not finite.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attribution
      >>> model = rvis.load("mnist_cnn")
      >>> digits = np.full((2, 28, 28, 1), 0.5, np.float32)
      >>> attribution.gradient(model, digits, [3, 8]).maps.shape
      (2, 28, 28, 1)

    Reference: Simonyan et al. 2013, Deep Inside Convolutional Networks, section 3.
    """
    question = ask(model, images, target, chunk=chunk)
    reached, maps = _plain(model, question, jax.nn.relu, chunk, progress)
    return _answer("gradient", model, question, maps, reached, target=target)


def input_x_gradient(
    model: Model, images: ArrayLike, target: Any, *, chunk: int | None = None, progress: bool = True
) -> Attribution:
    """x ⊙ ∇f(x): the first-order effect of every value of the image against black.

    Args, returns and raises as `gradient`.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attribution
      >>> model = rvis.load("mnist_cnn")
      >>> black = np.zeros((28, 28, 1), np.float32)
      >>> float(np.abs(attribution.input_x_gradient(model, black, 3).maps).max())
      0.0

    Reference: Shrikumar et al. 2016, Not Just a Black Box, section 2.
    """
    question = ask(model, images, target, chunk=chunk)
    reached, maps = _plain(model, question, jax.nn.relu, chunk, progress)
    maps = question.images * maps
    return _answer("input_x_gradient", model, question, maps, reached, target=target)


def guided_backprop(
    model: Model, images: ArrayLike, target: Any, *, chunk: int | None = None, progress: bool = True
) -> Attribution:
    """The gradient that passes a ReLU where both its input and the gradient are positive.

    Args, returns and raises as `gradient`; a network whose ReLUs are its own is refused too.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attribution
      >>> model = rvis.load("mnist_cnn")
      >>> grey = np.full((28, 28, 1), 0.5, np.float32)
      >>> attribution.guided_backprop(model, grey, 3).method
      'guided_backprop'

    Reference: Springenberg et al. 2014, Striving for Simplicity, section 3.4.
    """
    question = _with_rule(model, images, target, chunk)
    reached, maps = _plain(model, question, taps.guided_relu, chunk, progress)
    return _answer("guided_backprop", model, question, maps, reached, target=target)


def deconvnet(
    model: Model, images: ArrayLike, target: Any, *, chunk: int | None = None, progress: bool = True
) -> Attribution:
    """The gradient that a ReLU rectifies on its way back, whatever the ReLU's input was.

    The rule alone, from a whole target to the whole image; pooling passes gradients back through
    its switches in any case. Args, returns and raises as `guided_backprop`.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attribution
      >>> model = rvis.load("mnist_cnn")
      >>> grey = np.full((28, 28, 1), 0.5, np.float32)
      >>> attribution.deconvnet(model, grey, 3).maps.shape
      (1, 28, 28, 1)

    Reference: Zeiler & Fergus 2013, Visualizing and Understanding Convolutional Networks, section
      2.1; as a rule for gradients, Simonyan et al. 2013, section 4.
    """
    question = _with_rule(model, images, target, chunk)
    reached, maps = _plain(model, question, taps.deconvnet_relu, chunk, progress)
    return _answer("deconvnet", model, question, maps, reached, target=target)


def smoothgrad(
    model: Model,
    images: ArrayLike,
    target: Any,
    *,
    noise: float = 0.15,
    samples: int = 50,
    squared: bool = False,
    key: KeyLike = 0,
    chunk: int | None = None,
    progress: bool = True,
) -> Attribution:
    """The mean of the gradients at noisy copies of the image.

    Args:
      model: any model.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      target: see `gradient`.
      noise: standard deviation of the normal noise, as a share of each image's range (max − min);
        the copies are not clipped.
      samples: noisy copies.
      squared: the mean of the squared gradients instead (Hooker et al. 2018, SmoothGrad-Squared).
      key: an int seed or a typed key; copy i of every image uses `fold_in(key, i)`.
      chunk: images on the device at once.
      progress: a bar on a terminal.

    Returns:
      An `Attribution` with maps (n, H, W, C).

    Raises:
      TypeError, ValueError, FloatingPointError: as `gradient`.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attribution
      >>> model = rvis.load("mnist_cnn")
      >>> grey = np.linspace(0, 1, 784, dtype=np.float32).reshape(28, 28, 1)
      >>> attribution.smoothgrad(model, grey, 3, samples=4).maps.shape
      (1, 28, 28, 1)

    Reference: Smilkov et al. 2017, SmoothGrad, section 3; Hooker et al. 2018, A Benchmark for
      Interpretability Methods in Deep Neural Networks, section 4.1.
    """
    question, moments = _noisy(model, images, target, noise, samples, key, chunk, progress)
    maps = moments.square if squared else moments.mean
    about: dict[str, Any] = {
        "noise": noise,
        "samples": samples,
        "squared": squared,
        "key": as_key(key),
    }
    reached = scores(model, question, chunk=chunk)
    return _answer("smoothgrad", model, question, maps, reached, target=target, **about)


def vargrad(
    model: Model,
    images: ArrayLike,
    target: Any,
    *,
    noise: float = 0.15,
    samples: int = 50,
    key: KeyLike = 0,
    chunk: int | None = None,
    progress: bool = True,
) -> Attribution:
    """The variance of the gradients at noisy copies of the image.

    Args, returns and raises as `smoothgrad`; the variance divides by `samples`.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attribution
      >>> model = rvis.load("mnist_cnn")
      >>> grey = np.linspace(0, 1, 784, dtype=np.float32).reshape(28, 28, 1)
      >>> bool((attribution.vargrad(model, grey, 3, samples=4).maps >= 0).all())
      True

    Reference: Adebayo et al. 2018, Sanity Checks for Saliency Maps, section 2.
    """
    question, moments = _noisy(model, images, target, noise, samples, key, chunk, progress)
    about: dict[str, Any] = {"noise": noise, "samples": samples, "key": as_key(key)}
    reached = scores(model, question, chunk=chunk)
    return _answer("vargrad", model, question, moments.variance, reached, target=target, **about)


def integrated_gradients(
    model: Model,
    images: ArrayLike,
    target: Any,
    *,
    baseline: ArrayLike = 0.0,
    steps: int = 50,
    rule: str = "gauss-legendre",
    path: Path | None = None,
    chunk: int | None = None,
    progress: bool = True,
) -> Attribution:
    """(x − x′) ⊙ ∫₀¹ ∇f(x′ + t·(x − x′)) dt: maps that sum to f(x) − f(x′).

    How far they are from doing so is `gap`. The rules are exact on linear functions with any number
    of nodes; sums that give the ends full weight are not, and are left out for it.

    Args:
      model: any model.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      target: see `gradient`.
      baseline: x′ in [0, 1]: a number; an image (H, W, C); several (b, H, W, C), over which the
        mean is taken; or several for each image, (n, b, H, W, C).
      steps: nodes of the integral, for each baseline. A ReLU network's integrand jumps: see what
        `gap` is left, and take more where it is too much.
      rule: "gauss-legendre" or "midpoint".
      path: a way other than the straight one, see `rvis.attribution.Path`; the integrand is then
        ∇f(γ(t)) ⊙ γ′(t).
      chunk: images on the device at once.
      progress: a bar on a terminal.

    Returns:
      An `Attribution` with maps (n, H, W, C) and the completeness `gap`
      f(x) − f(x′) − Σ map (with several baselines, from the mean of f over them).

    Raises:
      TypeError, ValueError, FloatingPointError: as `gradient`.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attribution
      >>> model = rvis.load("mnist_cnn")
      >>> grey = np.full((28, 28, 1), 0.5, np.float32)
      >>> result = attribution.integrated_gradients(model, grey, 3, steps=20)
      >>> bool(abs(result.gap[0]) < 0.01)
      True

    Reference: Sundararajan et al. 2017, Axiomatic Attribution for Deep Networks, eq. 1 and section
      4 (path methods); several baselines: Erion et al. 2019 (expected gradients).
    """
    question = ask(model, images, target, chunk=chunk)
    steps = checks.count("steps", steps)
    nodes, weights = quadrature(rule, steps)
    starts = _baselines(baseline, question)
    way = Line() if path is None else path
    if not callable(way):
        raise TypeError(f"path: a pytree called as path(t, baseline, image), given {path!r}")
    moments = stream(
        Along(way, jnp.asarray(nodes), jnp.asarray(weights), jnp.int32(steps)),
        model,
        question.objective,
        question.images,
        samples=steps * starts.shape[1],
        key=jax.random.key(0),
        own=starts,
        chunk=chunk,
        progress=progress,
        label=f"{model.name} integrated_gradients",
    )
    maps = np.asarray(moments.mean)
    reached = scores(model, question, chunk=chunk)
    left = [
        scores(model, question, chunk=chunk, images=starts[:, b]) for b in range(starts.shape[1])
    ]
    gap = reached - np.mean(left, 0) - maps.sum((1, 2, 3))
    return _answer(
        "integrated_gradients",
        model,
        question,
        maps,
        reached,
        gap=gap,
        target=target,
        baseline=np.asarray(baseline),
        steps=steps,
        rule=rule,
        path=way,
    )


def quadrature(rule: str, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights on [0, 1]; the weights sum to 1.

    Both are filled with zeros up to a power of two, at least 64, so that many numbers of steps
    share one compiled program.

    Raises:
      ValueError: naming `rule`.

    Example:
      >>> from rvis.attribution.gradients import quadrature
      >>> quadrature("midpoint", 2)[0][:3].tolist()
      [0.25, 0.75, 0.0]
    """
    checks.choice("rule", rule, ("gauss-legendre", "midpoint"))
    if rule == "midpoint":
        nodes, weights = (np.arange(steps) + 0.5) / steps, np.full(steps, 1 / steps)
    else:
        nodes, weights = np.polynomial.legendre.leggauss(steps)
        nodes, weights = (nodes + 1) / 2, weights / 2
    rest = max(64, 1 << (steps - 1).bit_length()) - steps
    whole = (np.pad(array, (0, rest)).astype(np.float32) for array in (nodes, weights))
    return tuple(whole)  # type: ignore[return-value]


def _baselines(baseline: ArrayLike, question: Question) -> np.ndarray:
    """(n, b, H, W, C), without copies."""
    count, *shape = question.images.shape
    if np.ndim(baseline) == 0:
        level = checks.number("baseline", baseline, low=0, high=1)
        return np.broadcast_to(np.float32(level), (count, 1, *shape))
    given = np.asarray(baseline)
    if given.ndim not in (3, 4, 5) or given.shape[-3:] != tuple(shape):
        raise ValueError(
            f"baseline: a number, or an array ending in {tuple(shape)} of rank 3 (one), 4 (several)"
            f" or 5 (several for each image) was expected, given shape {given.shape}"
        )
    if given.ndim == 5 and len(given) != count:
        raise ValueError(
            f"baseline: sets for {count} images were expected, given {len(given)} of them"
        )
    flat = np.asarray(checks.images("baseline", given.reshape(-1, *shape)))
    lead = given.shape[:-3] if given.ndim > 3 else (1,)
    return np.broadcast_to(flat.reshape(*lead, *shape), (count, lead[-1], *shape))


def _plain(
    model: Model, question: Question, relu: Relu, chunk: int | None, progress: bool
) -> tuple[np.ndarray, np.ndarray]:
    """(n,) scores and (n, H, W, C) gradients."""
    moments = stream(
        Gradient(),
        model,
        question.objective,
        question.images,
        samples=1,
        key=jax.random.key(0),
        relu=relu,
        chunk=chunk,
        progress=progress,
        label=f"{model.name} gradient",
    )
    return unscored(moments.mean, question.shape)


def _noisy(
    model: Model,
    images: ArrayLike,
    target: Any,
    noise: float,
    samples: int,
    key: KeyLike,
    chunk: int | None,
    progress: bool,
) -> tuple[Question, Moments]:
    question = ask(model, images, target, chunk=chunk)
    level = checks.number("noise", noise, low=0)
    checks.count("samples", samples)
    moments = stream(
        Noise(jnp.float32(level)),
        model,
        question.objective,
        question.images,
        samples=samples,
        key=as_key(key),
        chunk=chunk,
        progress=progress,
        label=f"{model.name} smoothgrad",
    )
    return question, moments


def _with_rule(model: Model, images: ArrayLike, target: Any, chunk: int | None) -> Question:
    question = ask(model, images, target, chunk=chunk)
    if not getattr(model.apply, "takes_relu", True):
        raise ValueError(
            f"model: {model.name} applies its own ReLUs, so that no other rule for their gradient "
            "can be put in; a module whose __call__ takes `relu` and uses it was expected"
        )
    return question


def _answer(
    method: str,
    model: Model,
    question: Question,
    maps: Any,
    reached: np.ndarray,
    *,
    target: Any,
    gap: np.ndarray | None = None,
    **about: Any,
) -> Attribution:
    return Attribution(
        maps=np.asarray(maps),
        images=question.images,
        scores=reached,
        labels=question.labels,
        method=method,
        gap=gap,
        config=describe(function=method, model=model.name, target=target, **about),
    )
