"""What is asked of each of some images: a target's score, on the image as it is or changed."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.signal import convolve

from rvis import checks, engine, gate, objectives, struct
from rvis.models import taps
from rvis.objectives import Objective
from rvis.types import Array, ArrayLike, Model, PyTree, Relu, Tap

Shape = tuple[int, ...]
_Array = TypeVar("_Array", bound=np.ndarray | None)


class Score(NamedTuple):
    """An objective of a model as a function of one image (H, W, C)."""

    model: Model
    objective: Objective
    relu: Relu = jax.nn.relu

    def __call__(self, image: Array) -> Array:
        """f(x), a scalar."""
        layers = self.objective.layers
        return self.objective(taps.activations(self.model, image[None], layers, relu=self.relu))

    def and_gradient(self, image: Array) -> tuple[Array, Array]:
        """f(x), and ∇f(x) of the image's shape."""
        return jax.value_and_grad(self.__call__)(image)

    def at(self, layer: str, image: Array) -> tuple[Array, Array, Array]:
        """f(x), a layer's activation, and the gradient of f with respect to it."""
        score, activations, gradients = self.at_layers((layer,), image)
        return score, activations[layer], gradients[layer]

    def at_layers(
        self, layers: tuple[str, ...], image: Array
    ) -> tuple[Array, dict[str, Array], dict[str, Array]]:
        """f(x), the activations of some layers, and the gradients of f with respect to them."""

        def shifted(shifts: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
            model = struct.replace(self.model, apply=_Shifted(self.model.apply, shifts))
            wanted = {*self.objective.layers, *layers}
            activations = taps.activations(model, image[None], wanted, relu=self.relu)
            return self.objective(activations), {name: activations[name] for name in layers}

        none = dict.fromkeys(layers, jnp.zeros((), image.dtype))
        shapes = jax.eval_shape(shifted, none)[1]
        zeros = {name: jnp.zeros(shape.shape, image.dtype) for name, shape in shapes.items()}
        (score, activations), gradients = jax.value_and_grad(shifted, has_aux=True)(zeros)
        first = jax.tree.map(lambda leaf: leaf[0], (activations, gradients))
        return score, *first


class _Shifted(NamedTuple):
    """A model's `apply` with something added to some layers' activations, inside a trace."""

    apply: Any
    shifts: dict[str, Array]

    def __call__(self, params: PyTree, images: Array, *, tap: Tap, relu: Relu) -> Array:
        def both(name: str, activation: Array) -> Array:
            shift = self.shifts.get(name)
            return tap(name, activation if shift is None else activation + shift)

        return self.apply(params, images, tap=both, relu=relu)


def score(model: Model, problem: tuple[Objective, Array]) -> Array:
    """f(x) of an (objective, image), for `engine.apply`."""
    objective, image = problem
    return Score(model, objective)(image)


@dataclasses.dataclass(frozen=True, eq=False)
class Question:
    """A model, and what is asked of each of n images.

    Attributes:
      model: any model.
      images: (n, H, W, C) float32.
      objective: n objectives.
      labels: (n,) titles.
      single: whether one image was given without an axis of images.
    """

    model: Model
    images: np.ndarray
    objective: Objective
    labels: np.ndarray
    single: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return self.images.shape[1:]  # type: ignore[return-value]

    @property
    def pixels(self) -> int:
        """H · W."""
        return self.shape[0] * self.shape[1]

    def scores(self, images: np.ndarray | None = None) -> np.ndarray:
        """(n,) f(x) of the images, or of others in their places."""
        batch = self.images if images is None else images
        return engine.apply(score, self.model, (self.objective, batch), pixels=self.pixels)

    def shaped(self, array: _Array) -> _Array:
        """(n, …) without its first axis where one image was given without it."""
        return array[0] if array is not None and self.single else array


@gate.public
def ask(
    model: Model,
    images: ArrayLike,
    target: Any,
    *,
    chunk: int | None = None,
    callback: Any = None,
    kind: Any = objectives.logit,
) -> Question:
    """Checks what every function of a model, images and a target takes.

    Args:
      model: any model.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1]; or a `Question`, which is what comes
        back.
      target: a class by number or name, one class for each image, or an objective.
      chunk, callback: checked alone.
      kind: what is asked of a class: `objectives.logit` or `objectives.probability`.

    Raises:
      TypeError, ValueError: naming the argument.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis.analysis.questions import ask
      >>> question = ask(rvis.load("mnist_cnn"), np.zeros((2, 28, 28, 1), np.float32), 3)
      >>> question.labels.tolist(), question.scores().shape
      (['3', '3'], (2,))
    """
    if isinstance(images, Question):
        return images
    batch = np.asarray(checks.images("images", images, channels=model.input_shape[2]))
    objective = objectives.target("target", target, model, batch.shape[1:], kind=kind)
    objective.check_count("target", len(batch))
    labels = np.broadcast_to(objective.titles(model.classes), (len(batch),))
    return Question(model, batch, objective.broadcast(len(batch)), labels, np.ndim(images) == 3)


def baselines(baseline: str | ArrayLike, images: np.ndarray) -> np.ndarray:
    """What stands for absence in each image, (n, b, H, W, C).

    Args:
      baseline: a number in [0, 1]; "mean" of each image's pixels, by channel; "blur", a Gaussian
        with σ an eighth of the shorter side; an image (H, W, C); or several (b, H, W, C).
      images: (n, H, W, C).

    Raises:
      TypeError, ValueError: naming `baseline`.

    Example:
      >>> import numpy as np
      >>> from rvis.analysis.questions import baselines
      >>> baselines("mean", np.full((2, 4, 4, 3), 0.25, np.float32)).shape
      (2, 1, 4, 4, 3)
    """
    count, *shape = images.shape
    if isinstance(baseline, str):
        checks.choice("baseline", baseline, ("mean", "blur"))
        if baseline == "blur":
            return np.asarray(blurred(images))[:, None]
        mean = images.mean((1, 2), keepdims=True)
        return np.broadcast_to(mean, images.shape)[:, None]
    if np.ndim(baseline) == 0:
        level = checks.number("baseline", baseline, low=0, high=1)
        return np.broadcast_to(np.float32(level), (count, 1, *shape))
    given = np.asarray(baseline)
    if given.ndim not in (3, 4) or given.shape[-3:] != tuple(shape):
        raise ValueError(
            f"baseline: a number, 'mean', 'blur', an image {tuple(shape)} or several of them were "
            f"expected, given shape {given.shape}"
        )
    flat = np.asarray(checks.images("baseline", given))
    return np.broadcast_to(flat, (count, *flat.shape))


def one_baseline(baseline: str | ArrayLike, images: np.ndarray) -> np.ndarray:
    """As `baselines`, (n, H, W, C), where only one can be used for an image."""
    several = baselines(baseline, images)
    if several.shape[1] != 1:
        raise ValueError(
            f"baseline: one for an image was expected, given {several.shape[1]} of them"
        )
    return several[:, 0]


@jax.jit
def blurred(images: Array) -> Array:
    """Images (n, H, W, C) under a Gaussian with σ an eighth of the shorter side, edges repeated."""
    sigma = min(images.shape[1:3]) / 8
    reach = math.ceil(3 * sigma)
    bell = jnp.exp(-0.5 * (jnp.arange(-reach, reach + 1, dtype=jnp.int32) / sigma) ** 2)
    bell = bell / bell.sum()
    pads = ((0, 0), (reach, reach), (reach, reach), (0, 0))
    padded = jnp.pad(images, pads, mode="edge")
    rows = convolve(padded, bell[None, :, None, None], mode="valid")
    return jnp.clip(convolve(rows, bell[None, None, :, None], mode="valid"), 0, 1)
