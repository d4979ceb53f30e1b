"""Carlini & Wagner's attack: the nearest image that fools by a margin, in unbounded variables."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Unpack

import jax
import jax.numpy as jnp

from rvis import checks, gate, optimizers, struct
from rvis.ascent import Ascent
from rvis.attacks.losses import Margin, margin
from rvis.attacks.minimal import searched
from rvis.attacks.request import Options, Request, prepare
from rvis.attacks.result import AttackResult
from rvis.objectives import Activations, Objective
from rvis.types import LOGITS, Array, ArrayLike, KeyLike, Model, as_key, on_device


@dataclasses.dataclass(frozen=True)
class Tanh:
    """The position is w of the image (tanh w + 1) / 2, which no step can take out of [0, 1].

    Attributes:
      shape: (H, W, C).
    """

    shape: tuple[int, int, int]

    def init(self, key: KeyLike) -> Array:
        """Noise about grey."""
        return 0.01 * jax.random.normal(as_key(key), self.shape, jnp.float32)

    def decode(self, position: Array) -> Array:
        """The image at w."""
        return (jnp.tanh(position) + 1) / 2

    def encode(self, image: Array) -> Array:
        """w of an image, whose black and white are taken a millionth inside, as by the authors."""
        # Images may leave [0, 1] by rounding, where arctanh is NaN.
        return jnp.arctanh(jnp.clip(2 * image - 1, -1, 1) * 0.999999)


@struct.dataclass
class Confident(Objective):
    """The margin by which the attack has won, of which no more than `confidence` counts.

    Carlini & Wagner 2017, f₆: −max(max_{i≠t} Z_i − Z_t, −κ).
    """

    margin: Margin
    confidence: Array

    event_ranks: ClassVar[Mapping[str, int]] = {"confidence": 0}

    @property
    def layers(self) -> tuple[str, ...]:
        return (LOGITS,)

    def __call__(self, activations: Activations) -> Array:
        return jnp.minimum(self.margin(activations), self.confidence)

    def broadcast(self, count: int) -> Objective:
        margin = self.margin.broadcast(count)
        return Confident(margin, jnp.broadcast_to(self.confidence, (count,)))  # type: ignore[arg-type]


@gate.public
def carlini_wagner(
    model: Model,
    images: ArrayLike,
    labels: Any,
    *,
    confidence: float = 0.0,
    binary_search_steps: int = 9,
    learning_rate: float = 0.01,
    weight: float = 1e-3,
    target: Any = None,
    key: KeyLike = 0,
    steps: int = 1000,
    **options: Unpack[Options],
) -> AttackResult:
    """The nearest image in L2 that the model takes for another class, or for a target.

    Adam descends ‖x′ − x‖² + c·max(−m, −κ) in w, where x′ = (tanh w + 1)/2, m is the margin of
    logits by which the attack has won, and κ the confidence. A bisection (of log c; the authors
    bisect c) looks for the least c that wins, every round beginning at x, and the nearest of all
    images that fooled on the way is kept.

    Args, raises as `pgd`, but for:
      labels: what fools already is returned as it is.
      confidence: κ, at least 0, in units of the logits.
      binary_search_steps: rounds of the bisection.
      learning_rate: of Adam, in w.
      weight: c of the first round.
      key: of no effect; the attack is deterministic.
      steps: of Adam in each round. The authors allow 10,000, and stop where nothing improves.

    Returns:
      An AttackResult; `losses` are the margins m before each step. An image without any of the
      confidence asked for is that of the largest margin met.

    Example:
      >>> import numpy as np, rvis
      >>> model = rvis.load("mnist_cnn")
      >>> grey = np.full((28, 28, 1), 0.5, np.float32)
      >>> label = int(model(grey).argmax())
      >>> few = {"binary_search_steps": 5, "steps": 20}
      >>> bool(rvis.attacks.carlini_wagner(model, grey, label, **few).success)
      True

    Reference: Carlini & Wagner 2017, Towards Evaluating the Robustness of Neural Networks,
      section VI.A; nicholas.carlini.com/code/nn_robust_attacks, `l2_attack.py`.
    """
    checks.number("confidence", confidence, low=0)
    checks.number("learning_rate", learning_rate, above=0)
    request = prepare(model, images, labels, norm="l2", target=target, key=key)

    def confident(some: Request) -> Objective:
        return Confident(margin(some), on_device(confidence, jnp.float32))

    return searched(
        Ascent(Tanh(request.shape), optimizers.adam(learning_rate)),
        request,
        confident,
        method="carlini_wagner",
        binary_search_steps=binary_search_steps,
        steps=steps,
        weight=weight,
        confidence=confidence,
        own={"learning_rate": learning_rate},
        **options,
    )
