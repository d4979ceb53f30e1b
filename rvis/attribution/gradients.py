"""Attribution by gradients: plain, times the input, under noise, with ReLU rules."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks, gate, struct
from rvis.analysis.questions import Question, Score, Shape, ask
from rvis.attribution import stream
from rvis.attribution.result import Attribution
from rvis.attribution.stream import Callback as Watch
from rvis.attribution.stream import answer
from rvis.files import PathLike
from rvis.models import taps
from rvis.objectives import Objective
from rvis.types import Array, ArrayLike, KeyLike, Model, PyTree, Relu, as_key, fold_each, on_device


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
        noise = size * jax.random.normal(key, image.shape, jnp.float32)
        return score.and_gradient(image + noise)[1], jnp.float32(1)


@gate.public
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


@gate.public
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


@gate.public
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


@gate.public
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


@gate.public
def smoothgrad(
    model: Model,
    images: ArrayLike,
    target: Any,
    *,
    of: Callable[..., Attribution] | None = None,
    noise: float = 0.15,
    key: KeyLike = 0,
    samples: int = 50,
    chunk: int | None = None,
    checkpoint: PathLike | None = None,
    callback: Watch | None = None,
    progress: bool = True,
) -> Attribution:
    """The mean of the gradients, or of the maps of any method, at noisy copies of the image.

    Args:
      model: any model.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      target: see `gradient`.
      of: what is averaged in the place of gradients: a function of this package such as
        `integrated_gradients`, with options by `functools.partial`. All copies are then held at
        once, and `checkpoint` and `callback` cannot be had.
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
    return _noisy("smoothgrad", model, images, target, of, noise, key, samples, callback, **run)


@gate.public
def vargrad(
    model: Model,
    images: ArrayLike,
    target: Any,
    *,
    of: Callable[..., Attribution] | None = None,
    noise: float = 0.15,
    key: KeyLike = 0,
    samples: int = 50,
    chunk: int | None = None,
    checkpoint: PathLike | None = None,
    callback: Watch | None = None,
    progress: bool = True,
) -> Attribution:
    """The variance of the gradients, or of the maps of any method, at noisy copies of the image.

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
    return _noisy("vargrad", model, images, target, of, noise, key, samples, callback, **run)


def _noisy(
    name: str,
    model: Model,
    images: ArrayLike,
    target: Any,
    of: Callable[..., Attribution] | None,
    noise: float,
    key: KeyLike,
    samples: int,
    callback: Watch | None,
    **run: Any,
) -> Attribution:
    """The mean of the maps at noisy copies, or their variance."""
    question = ask(model, images, target, chunk=run["chunk"], callback=callback)
    deviation = checks.number("noise", noise, low=0)
    checks.count("samples", samples)
    options: dict[str, Any] = {"samples": samples, "key": as_key(key)}
    if of is not None:
        if not callable(of):
            raise TypeError(f"of: an attribution's function was expected, given {of!r}")
        if callback is not None or run["checkpoint"] is not None:
            raise ValueError("of: one without callback and checkpoint was expected")
        copies = _copies(question, deviation, **options)
        maps = of(model, copies, None, chunk=run["chunk"], progress=run["progress"]).maps
        rows = maps.reshape(samples, len(question.images), *maps.shape[1:])
        found = rows.mean(0) if name == "smoothgrad" else rows.var(0)
    else:
        if name == "vargrad":
            run["maps"] = lambda moments: moments.variance
        run |= {"callback": callback, "label": "smoothgrad"}
        found = stream.mean(Noise(on_device(deviation, jnp.float32)), question, **options, **run)
    about: dict[str, Any] = {"noise": noise}
    about["of"] = None if of is None else str(getattr(of, "__name__", of))
    return answer(name, question, found, question.scores(), target=target, **about, **options)


def _copies(question: Question, deviation: float, samples: int, key: Array) -> Question:
    """A question of `samples` noisy copies of every image, copy by copy."""
    images = question.images
    keys = fold_each(key, jnp.arange(samples, dtype=jnp.int32))
    draws = jax.vmap(lambda own: jax.random.normal(own, question.shape, jnp.float32))(keys)
    span = np.ptp(images, (1, 2, 3), keepdims=True)
    noisy = images + deviation * span * np.asarray(draws)[:, None]
    return dataclasses.replace(
        question,
        images=noisy.reshape(-1, *question.shape),
        objective=jax.tree.map(
            lambda leaf: np.tile(leaf, (samples,) + (1,) * (np.ndim(leaf) - 1)), question.objective
        ),
        labels=np.tile(question.labels, samples),
        single=False,
    )


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
            f"model: {model.name} applies no ReLU that another rule for its gradient can be put in "
            "for, nor a gelu, silu or other activation that rvis.from_function knows"
        )
    scores, maps = stream.each(_Gradient(relu), question, chunk=chunk, progress=progress)
    if method == "input_x_gradient":
        maps = question.images * maps
    return answer(method, question, maps, scores, target=target)
