"""FullGrad: the image's part and every bias's part of the score, on one map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import JaxprEqn

from rvis import gate
from rvis.analysis.questions import ask
from rvis.attribution import stream
from rvis.attribution.cam import enlarged
from rvis.attribution.equations import Live, Walk, activations, raw
from rvis.attribution.result import Attribution
from rvis.models import interpret
from rvis.objectives import Objective
from rvis.types import Array, ArrayLike, Model


class _Biases(Walk):
    """An evaluation that notes every constant added to a value, and moves the sum by a shift."""

    def __init__(self, shifts: Sequence[Array] | None):
        self.shifts = shifts
        self.biases: list[Array] = []

    def equation(
        self, name: str, kind: str, equation: JaxprEqn, inputs: list, live: list
    ) -> list | None:
        outputs = interpret.bound(equation, [raw(value) for value in inputs])
        if name in ("add", "sub") and len(live) == 1:
            first, second = inputs
            bias = raw(second if first is live[0] else first)
            sign = -1 if name == "sub" and first is live[0] else 1
            if self.shifts is not None:
                outputs = [outputs[0] + self.shifts[len(self.biases)]]
            self.biases.append(jnp.broadcast_to(sign * bias, outputs[0].shape))
        return [Live(out) for out in outputs]

    def sliced(self, x: Any, i: int) -> Live:
        return Live(x.now[i])

    def stacked(self, column: Sequence[Any]) -> Live:
        return Live(jnp.stack([raw(value) for value in column]))


def _full(model: Model, problem: tuple[Objective, Array]) -> tuple[Array, Array, Array]:
    """f(x), the map, and the sum of all parts."""
    objective, image = problem
    evaluated = activations(model, objective, image[None])

    def shifted(image: Array, shifts: Any) -> tuple[dict[str, Array], list[Array]]:
        walk = _Biases(shifts)
        ends = evaluated(walk, Live(image[None]))
        return {name: raw(value) for name, value in ends.items()}, walk.biases

    shapes = jax.eval_shape(lambda image: shifted(image, None), image)[1]
    zeros = [jnp.zeros(shape.shape, shape.dtype) for shape in shapes]
    reached, back, biases = jax.vjp(shifted, image, zeros, has_aux=True)
    score, start = jax.value_and_grad(objective.__call__)(reached)
    slope, slopes = back(start)
    parts = [(image * slope)[None], *(g * b for g, b in zip(slopes, biases, strict=True))]
    size = (image.shape[0], image.shape[1])
    placed = [part[0] for part in parts if part.ndim == 4]
    maps = [enlarged(jnp.moveaxis(_scaled(p), -1, 0), size).sum(0) for p in placed]
    return score, sum(maps[1:], maps[0]), jnp.array([part.sum() for part in parts]).sum()


def _scaled(part: Array) -> Array:
    """Sizes, brought to [0, 1]."""
    size = jnp.abs(part)
    size = size - size.min()
    return size / jnp.where(size.max() > 0, size.max(), 1)


@gate.public
def full_gradient(
    model: Model, images: ArrayLike, target: Any, *, chunk: int | None = None, progress: bool = True
) -> Attribution:
    """FullGrad: |x ⊙ ∇f| and |b ⊙ ∂f/∂b| of every constant b added in the network, on one map.

    Each part is brought to [0, 1], enlarged and summed over its channels. Of a network of linear
    maps, ReLUs and maxima the parts sum to f(x): what is lacking is `gap`. BatchNorm's constants,
    and the mean that images are normalised by, count among the biases; those without places (of
    dense layers) are in the sum, but on no map.

    Args:
      model: any model.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      target: f: a class number (its logit), one for each image, or an objective of
        `rvis.objectives` (one, or one for each image).
      chunk: images on the device at once; bounds memory, never changes maps (to the bit on a CPU).
      progress: a bar on a terminal.

    Returns:
      An `Attribution` with maps (n, H, W), or (H, W) of one image, 0 and above.

    Raises:
      TypeError, ValueError: naming the argument, before anything is compiled.
      FloatingPointError: naming the images whose map is not finite.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attribution
      >>> model = rvis.load("mnist_cnn")
      >>> grey = np.full((28, 28, 1), 0.5, np.float32)
      >>> result = attribution.full_gradient(model, grey, 3)
      >>> result.maps.shape, bool(abs(result.gap) < 1e-3)
      ((28, 28), True)

    Reference: Srinivas & Fleuret 2019, Full-Gradient Representation for Neural Network
      Visualization, propositions 1 and 2 and eq. 4.
    """
    question = ask(model, images, target, chunk=chunk)
    run: dict[str, Any] = {"chunk": chunk, "progress": progress, "label": "full_gradient"}
    scores, maps, sums = stream.each(_full, question, **run)
    return stream.answer("full_gradient", question, maps, scores, gap=scores - sums, target=target)
