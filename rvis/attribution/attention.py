"""What a transformer attends to: attention weights of all its blocks, put together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import JaxprEqn

from rvis import gate
from rvis.analysis.questions import Question, ask
from rvis.attribution import stream
from rvis.attribution.cam import enlarged
from rvis.attribution.equations import Live, Walk, activations, raw
from rvis.attribution.result import Attribution
from rvis.models import interpret
from rvis.models.tokens import TokenGrid
from rvis.objectives import Objective
from rvis.types import Array, ArrayLike, Model


class _Exp(Live):
    """Exponentials, which a softmax divides by their sums."""


class _Attentions(Walk):
    """An evaluation that notes every softmax over as many tokens as there are, and shifts it."""

    def __init__(self, tokens: int, shifts: Sequence[Array] | None):
        self.tokens, self.shifts = tokens, shifts
        self.weights: list[Array] = []

    def equation(
        self, name: str, kind: str, equation: JaxprEqn, inputs: list, live: list
    ) -> list | None:
        outputs = interpret.bound(equation, [raw(value) for value in inputs])
        if name == "exp":
            return [_Exp(outputs[0])]
        square = outputs[0].ndim == 4 and outputs[0].shape[-2:] == (self.tokens,) * 2
        if name == "div" and isinstance(inputs[0], _Exp) and len(live) == 2 and square:
            if self.shifts is not None:
                outputs = [outputs[0] + self.shifts[len(self.weights)]]
            self.weights.append(outputs[0])
        return [Live(out) for out in outputs]

    def sliced(self, x: Any, i: int) -> Live:
        return Live(x.now[i])

    def stacked(self, column: Sequence[Any]) -> Live:
        return Live(jnp.stack([raw(value) for value in column]))


def _attended(
    model: Model, objective: Objective, image: Array
) -> tuple[Array, list[Array], list[Array]]:
    """f(x), the attention weights (heads, tokens, tokens) of every block, and f's gradients."""
    grid: TokenGrid = model.apply  # type: ignore[assignment]
    height, width = (n // p for n, p in zip(image.shape[:2], grid.patch, strict=True))
    evaluated = activations(model, objective, image[None])

    def shifted(shifts: Any) -> tuple[dict[str, Array], list[Array]]:
        walk = _Attentions(grid.before + height * width, shifts)
        reached_by = evaluated(walk, Live(image[None]))
        return {name: raw(value) for name, value in reached_by.items()}, walk.weights

    shapes = jax.eval_shape(lambda: shifted(None)[1])
    if not shapes:
        raise ValueError(f"model: attention over all tokens was expected, {model.name} has none")
    zeros = [jnp.zeros(shape.shape, shape.dtype) for shape in shapes]
    reached, back, weights = jax.vjp(shifted, zeros, has_aux=True)
    score, start = jax.value_and_grad(objective.__call__)(reached)
    (slopes,) = back(start)
    return score, [w[0] for w in weights], [g[0] for g in slopes]


def _placed(model: Model, image: Array, whole: Array) -> Array:
    """What the class token, or the mean of all, takes from each place: (h, w)."""
    grid: TokenGrid = model.apply  # type: ignore[assignment]
    height, width = (n // p for n, p in zip(image.shape[:2], grid.patch, strict=True))
    row = whole[0] if grid.before else whole.mean(0)
    return row[grid.before :].reshape(height, width)


def _rollout(model: Model, problem: tuple[Objective, Array]) -> tuple[Array, Array]:
    objective, image = problem
    score, weights, _ = _attended(model, objective, image)
    whole = jnp.eye(weights[0].shape[-1])
    for block in weights:
        mean = (block.mean(0) + jnp.eye(len(whole))) / 2
        whole = mean @ whole
    return score, _placed(model, image, whole)


def _by_gradients(model: Model, problem: tuple[Objective, Array]) -> tuple[Array, Array]:
    objective, image = problem
    score, weights, slopes = _attended(model, objective, image)
    whole = jnp.eye(weights[0].shape[-1])
    for block, slope in zip(weights, slopes, strict=True):
        whole = whole + jax.nn.relu(slope * block).mean(0) @ whole
    return score, _placed(model, image, whole)


@gate.public
def attention_rollout(
    model: Model, images: ArrayLike, target: Any, *, chunk: int | None = None, progress: bool = True
) -> Attribution:
    """How much of each token reaches the class token, if attention moved tokens as they are.

    The product over blocks of ½ (A + 1), A the mean of the heads' weights. Of a network without a
    class token the mean over all tokens is taken. It does not depend on the target.

    Args:
      model: a transformer whose every block attends over all tokens.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      target: f: a class number, one for each image, or an objective: blocks after its layers do not
        count.
      chunk: images on the device at once; bounds memory, never changes maps (to the bit on a CPU).
      progress: a bar on a terminal.

    Returns:
      An `Attribution` with maps (n, H, W), bilinearly enlarged from `raw` (n, h, w); of one image
      (H, W) and (h, w).

    Raises:
      TypeError, ValueError: naming the argument, such as a model without tokens.
      FloatingPointError: naming the images whose map is not finite.

    Example:
      >>> import jax, numpy as np, rvis
      >>> from rvis import attribution
      >>> from rvis.models.families.vit import ViT
      >>> module = ViT(patch=4, width=8, depth=2, heads=2, image=16, classes=3)
      >>> images = np.zeros((1, 16, 16, 3), np.float32)
      >>> variables = jax.jit(module.init)(jax.random.key(0), images)
      >>> model = rvis.from_linen(module, variables, input_shape=(16, 16, 3))
      >>> attribution.attention_rollout(model, images, 0).raw.shape
      (1, 4, 4)

    Reference: Abnar & Zuidema 2020, Quantifying Attention Flow in Transformers, section 3.
    """
    return _by_attention("attention_rollout", _rollout, model, images, target, chunk, progress)


@gate.public
def attention_gradient(
    model: Model, images: ArrayLike, target: Any, *, chunk: int | None = None, progress: bool = True
) -> Attribution:
    """Attention rolled out with each block's mean over heads of relu(∇A ⊙ A).

    R ← R + E[relu(∇A ⊙ A)] R from the first block to the last, ∇A the gradient of the score. Args,
    returns and raises as `attention_rollout`.

    Example:
      >>> import jax, numpy as np, rvis
      >>> from rvis import attribution
      >>> from rvis.models.families.vit import ViT
      >>> module = ViT(patch=4, width=8, depth=2, heads=2, image=16, classes=3)
      >>> images = np.zeros((1, 16, 16, 3), np.float32)
      >>> variables = jax.jit(module.init)(jax.random.key(0), images)
      >>> model = rvis.from_linen(module, variables, input_shape=(16, 16, 3))
      >>> attribution.attention_gradient(model, images, 0).maps.shape
      (1, 16, 16)

    Reference: Chefer et al. 2021, Generic Attention-model Explainability, equations 5 and 6.
    """
    return _by_attention(
        "attention_gradient", _by_gradients, model, images, target, chunk, progress
    )


def _by_attention(
    method: str,
    function: Any,
    model: Model,
    images: ArrayLike,
    target: Any,
    chunk: int | None,
    progress: bool,
) -> Attribution:
    question: Question = ask(model, images, target, chunk=chunk)
    if not isinstance(model.apply, TokenGrid):
        raise ValueError(f"model: a transformer with tokens was expected, given {model.name}")
    run: dict[str, Any] = {"chunk": chunk, "progress": progress, "label": method}
    scores, maps = stream.each(function, question, **run)
    wide = np.asarray(enlarged(maps, question.shape[:2]))
    return stream.answer(method, question, wide, scores, raw=maps, target=target)
