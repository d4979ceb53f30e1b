"""Attribution by gradients: plain, times the input, along paths, under noise, with ReLU rules."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks, struct
from rvis.analysis.questions import Score, Shape, ask, baselines
from rvis.attribution import stream
from rvis.attribution.result import Attribution
from rvis.attribution.stream import Callback, answer
from rvis.files import PathLike
from rvis.models import taps
from rvis.objectives import Objective
from rvis.types import Array, ArrayLike, KeyLike, Model, PyTree, Relu, as_key


@dataclasses.dataclass(frozen=True)
class _Gradient:
    """f(x) and ∇f(x), with a rule for the ReLUs."""

    relu: Relu

    def __call__(self, model: Model, problem: tuple[Objective, Array]) -> tuple[Array, Array]:
        objective, image = problem
        return Score(model, objective, self.relu).and_gradient(image)


@struct.dataclass
class Noise:
    """∇f(x + ε), ε normal with `deviation` times the image's range."""

    deviation: Array

    def shapes(self, shape: Shape) -> tuple[Shape, Shape]:
        return shape, ()

    def __call__(
        self, key: Array, number: Array, image: Array, own: PyTree, score: Score
    ) -> tuple[Array, Array]:
        size = self.deviation * (image.max() - image.min())
        noise = size * jax.random.normal(key, image.shape)
        return score.and_gradient(image + noise)[1], jnp.float32(1)


@struct.dataclass
class Along:
    """∇f ⊙ (x − x′) at a node of the line from one of an image's baselines x′.

    `own` is (b, H, W, C); sample i is node i mod s of baseline ⌊i / s⌋.
    """

    nodes: Array
    weights: Array
    steps: Array

    def shapes(self, shape: Shape) -> tuple[Shape, Shape]:
        return shape, ()

    def __call__(
        self, key: Array, number: Array, image: Array, own: PyTree, score: Score
    ) -> tuple[Array, Array]:
        node = number % self.steps
        away = image - own[number // self.steps]
        place = image - (1 - self.nodes[node]) * away
        return score.and_gradient(place)[1] * away, self.weights[node]


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
      An `Attribution` with maps (n, H, W, C), or (H, W, C) of one image.

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
    return _plain("gradient", model, images, target, jax.nn.relu, chunk, progress)


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
    return _plain("input_x_gradient", model, images, target, jax.nn.relu, chunk, progress)


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
    return _plain("guided_backprop", model, images, target, taps.guided_relu, chunk, progress)


def deconvnet(
    model: Model, images: ArrayLike, target: Any, *, chunk: int | None = None, progress: bool = True
) -> Attribution:
    """The gradient that a ReLU rectifies on its way back, whatever the ReLU's input was.

    Args, returns and raises as `guided_backprop`.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attribution
      >>> model = rvis.load("mnist_cnn")
      >>> grey = np.full((28, 28, 1), 0.5, np.float32)
      >>> attribution.deconvnet(model, grey, 3).maps.shape
      (28, 28, 1)

    Reference: Zeiler & Fergus 2013, Visualizing and Understanding Convolutional Networks, section
      2.1; as a rule for gradients, Simonyan et al. 2013, section 4.
    """
    return _plain("deconvnet", model, images, target, taps.deconvnet_relu, chunk, progress)


def smoothgrad(
    model: Model,
    images: ArrayLike,
    target: Any,
    *,
    noise: float = 0.15,
    key: KeyLike = 0,
    samples: int = 50,
    chunk: int | None = None,
    checkpoint: PathLike | None = None,
    callback: Callback | None = None,
    progress: bool = True,
) -> Attribution:
    """The mean of the gradients at noisy copies of the image.

    Args:
      model: any model.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      target: see `gradient`.
      noise: standard deviation of the normal noise, as a share of each image's range (max − min);
        the copies are not clipped.
      key: an int seed or a typed key; copy i of every image uses `fold_in(key, i)`.
      samples: noisy copies.
      chunk: images on the device at once.
      checkpoint: a folder for the state of interrupted work; the same call then goes on.
      callback: `callback(step, maps, scores)` is called as the samples add up, with how many there
        are, the maps so far and f(x); where it returns True the work ends with these maps.
      progress: a bar on a terminal.

    Returns:
      An `Attribution` with maps (n, H, W, C), or (H, W, C) of one image.

    Raises:
      TypeError, ValueError, FloatingPointError: as `gradient`.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attribution
      >>> model = rvis.load("mnist_cnn")
      >>> grey = np.linspace(0, 1, 784, dtype=np.float32).reshape(28, 28, 1)
      >>> attribution.smoothgrad(model, grey, 3, samples=4).maps.shape
      (28, 28, 1)

    Reference: Smilkov et al. 2017, SmoothGrad, section 3.
    """
    run: dict[str, Any] = {"chunk": chunk, "checkpoint": checkpoint, "progress": progress}
    return _noisy("smoothgrad", model, images, target, noise, key, samples, callback, **run)


def vargrad(
    model: Model,
    images: ArrayLike,
    target: Any,
    *,
    noise: float = 0.15,
    key: KeyLike = 0,
    samples: int = 50,
    chunk: int | None = None,
    checkpoint: PathLike | None = None,
    callback: Callback | None = None,
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
    run: dict[str, Any] = {"chunk": chunk, "checkpoint": checkpoint, "progress": progress}
    return _noisy("vargrad", model, images, target, noise, key, samples, callback, **run)


def integrated_gradients(
    model: Model,
    images: ArrayLike,
    target: Any,
    *,
    baseline: str | ArrayLike = 0.0,
    rule: str = "gauss-legendre",
    steps: int = 50,
    chunk: int | None = None,
    checkpoint: PathLike | None = None,
    callback: Callback | None = None,
    progress: bool = True,
) -> Attribution:
    """(x − x′) ⊙ ∫₀¹ ∇f(x′ + t·(x − x′)) dt: maps that sum to f(x) − f(x′).

    How far they are from doing so is `gap`.

    Args:
      model: any model.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      target: see `gradient`.
      baseline: x′ in [0, 1]: a number; "mean" of each image's pixels, by channel; "blur", a
        Gaussian with σ an eighth of the shorter side; an image (H, W, C); several (b, H, W, C),
        over which the mean is taken.
      steps: nodes of the integral, for each baseline. A ReLU network's integrand jumps: see what
        `gap` is left, and take more where it is too much.
      rule: "gauss-legendre" or "midpoint".
      chunk, checkpoint, callback, progress: as `smoothgrad`; the callback's steps are nodes.

    Returns:
      An `Attribution` with maps (n, H, W, C), or (H, W, C) of one image, and the completeness `gap`
      f(x) − f(x′) − Σ map (with several baselines, from the mean of f over them).

    Raises:
      TypeError, ValueError, FloatingPointError: as `gradient`.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attribution
      >>> model = rvis.load("mnist_cnn")
      >>> grey = np.full((28, 28, 1), 0.5, np.float32)
      >>> result = attribution.integrated_gradients(model, grey, 3, steps=20)
      >>> bool(abs(result.gap) < 0.01)
      True

    Reference: Sundararajan et al. 2017, Axiomatic Attribution for Deep Networks, eq. 1; several
      baselines: Erion et al. 2019 (expected gradients).
    """
    question = ask(model, images, target, chunk=chunk, callback=callback)
    steps = checks.count("steps", steps)
    nodes, weights = quadrature(rule, steps)
    starts = baselines(baseline, question.images)
    maps = stream.mean(
        Along(jnp.asarray(nodes), jnp.asarray(weights), jnp.int32(steps)),
        question,
        samples=steps * starts.shape[1],
        key=jax.random.key(0),
        own=starts,
        chunk=chunk,
        checkpoint=checkpoint,
        callback=callback,
        progress=progress,
        label="integrated_gradients",
    )
    scores = question.scores()
    absent = np.mean([question.scores(starts[:, b]) for b in range(starts.shape[1])], 0)
    about: dict[str, Any] = {"baseline": baseline, "steps": steps, "rule": rule}
    gap = scores - absent - maps.sum((1, 2, 3))
    return answer("integrated_gradients", question, maps, scores, gap=gap, target=target, **about)


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


def _noisy(
    method: str,
    model: Model,
    images: ArrayLike,
    target: Any,
    noise: float,
    key: KeyLike,
    samples: int,
    callback: Callback | None,
    **run: Any,
) -> Attribution:
    """The mean of the gradients at noisy copies, or their variance."""
    question = ask(model, images, target, chunk=run["chunk"], callback=callback)
    sampler = Noise(jnp.float32(checks.number("noise", noise, low=0)))
    checks.count("samples", samples)
    options: dict[str, Any] = {"samples": samples, "key": as_key(key)}
    if method == "vargrad":
        run["maps"] = lambda moments: moments.variance
    run |= {"callback": callback, "label": "smoothgrad"}
    found = stream.mean(sampler, question, **options, **run)
    return answer(method, question, found, question.scores(), target=target, noise=noise, **options)


def _plain(
    method: str,
    model: Model,
    images: ArrayLike,
    target: Any,
    relu: Relu,
    chunk: int | None,
    progress: bool,
) -> Attribution:
    """The gradient under a rule for the ReLUs, times the image where the method says so."""
    question = ask(model, images, target, chunk=chunk)
    if relu is not jax.nn.relu and not getattr(model.apply, "takes_relu", True):
        raise ValueError(
            f"model: {model.name} applies its own ReLUs, so that no other rule for their gradient "
            "can be put in; a module whose __call__ takes `relu` and uses it was expected"
        )
    scores, maps = stream.each(_Gradient(relu), question, chunk=chunk, progress=progress)
    if method == "input_x_gradient":
        maps = question.images * maps
    return answer(method, question, maps, scores, target=target)
