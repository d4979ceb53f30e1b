"""The first attack: L-BFGS inside the box, and a search for the least weight of the loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Unpack

import jax
import jax.numpy as jnp

from rvis import gate, struct
from rvis.ascent import BoxLBFGS
from rvis.attacks.minimal import searched
from rvis.attacks.request import Options, Request, prepare
from rvis.attacks.result import AttackResult
from rvis.images import Pixel
from rvis.objectives import Activations, Objective, Probability
from rvis.types import LOGITS, Array, ArrayLike, KeyLike, Model, on_device


@struct.dataclass
class Escape(Objective):
    """log(1 − p), with p the probability of a class: that of all others together."""

    unit: Array

    event_ranks: ClassVar[Mapping[str, int]] = {"unit": 0}

    @property
    def layers(self) -> tuple[str, ...]:
        return (LOGITS,)

    def __call__(self, activations: Activations) -> Array:
        z = activations[LOGITS]
        own = jnp.arange(z.shape[-1], dtype=jnp.int32) == self.unit
        others = jax.nn.logsumexp(jnp.where(own, -jnp.inf, z), axis=-1)
        return (others - jax.nn.logsumexp(z, axis=-1)).mean()


@gate.public
def lbfgs(
    model: Model,
    images: ArrayLike,
    labels: Any,
    *,
    binary_search_steps: int = 12,
    weight: float = 1e-3,
    target: Any = None,
    key: KeyLike = 0,
    steps: int = 25,
    **options: Unpack[Options],
) -> AttackResult:
    """The nearest image that the model takes for a target, by L-BFGS in the box.

    Minimises c·|r| + loss(x + r, l) over r with x + r in [0, 1], and searches along c. The loss is
    the target's cross-entropy; without a target, that of all classes but the true one together,
    −log(1 − p_y). |r| is the square ‖r‖₂² here (as Carlini & Wagner 2017, section III, read it),
    since L-BFGS starts at r = 0, where ‖r‖₂ has no gradient; whatever minimises the one for some c
    is stationary for the other at another c. A bisection looks for the largest c that fools; a
    round begins where the last that did not fool ended, the first at x, and the nearest of all
    images that fooled on the way is kept.

    Args, raises as `pgd`, but for:
      labels: what fools already is returned as it is.
      binary_search_steps: rounds of the bisection.
      weight: 1/c of the first round.
      target: the classes to reach, as in the paper.
      key: of no effect; the attack is deterministic.
      steps: evaluations of the model and its gradient in each round.

    Returns:
      An AttackResult in "l2", whose `distance("rms")` is the paper's distortion √(Σδ²/n) and whose
      `losses` are the margins of logits at each evaluation. Where nothing fooled, the image is that
      of the largest margin.

    Example:
      >>> import numpy as np, rvis
      >>> model = rvis.load("mnist_cnn")
      >>> grey = np.full((28, 28, 1), 0.5, np.float32)
      >>> label, other = int(model(grey).argmax()), int(model(grey).argmin())
      >>> few = {"binary_search_steps": 5, "steps": 20}
      >>> result = rvis.attacks.lbfgs(model, grey, label, target=other, **few)
      >>> bool(result.success), bool(result.distance("rms") < 0.2)
      (True, True)

    Reference: Szegedy et al. 2013, Intriguing properties of neural networks, section 4.1. See
      `BoxLBFGS` for the minimiser.
    """
    request = prepare(model, images, labels, norm="l2", target=target, key=key)
    return searched(
        BoxLBFGS(Pixel(request.shape)),
        request,
        _loss,
        method="lbfgs",
        binary_search_steps=binary_search_steps,
        steps=steps,
        weight=weight,
        follow=True,
        **options,
    )


def _loss(request: Request) -> Objective:
    unit = on_device(request.unit)
    return Probability(unit) if request.targeted else Escape(unit)
