"""The first attack: L-BFGS inside the box, and a search for the least weight of the loss."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import flax.struct
import jax
import jax.numpy as jnp

from rvis import core
from rvis.attacks.minimal import searched
from rvis.attacks.result import AttackResult, prepare
from rvis.images import Pixel
from rvis.objectives import Activations, Objective, Probability
from rvis.objectives.base import kind_field
from rvis.types import LOGITS, Array, ArrayLike, KeyLike, Model


@flax.struct.dataclass
class Escape(Objective):
    """log(1 − p), with p the probability of a class: that of all others together."""

    unit: Array
    kind: str = kind_field("Escape")

    event_ranks: ClassVar[Mapping[str, int]] = {"unit": 0}

    @property
    def layers(self) -> tuple[str, ...]:
        return (LOGITS,)

    def __call__(self, activations: Activations) -> Array:
        z = activations[LOGITS]
        own = jnp.arange(z.shape[-1]) == self.unit
        others = jax.nn.logsumexp(jnp.where(own, -jnp.inf, z), axis=-1)
        return (others - jax.nn.logsumexp(z, axis=-1)).mean()


def lbfgs(
    model: Model,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    rounds: int = 12,
    steps: int = 25,
    weight: float = 1e-3,
    targeted: bool = False,
    key: KeyLike = 0,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> AttackResult:
    """The nearest image that the model takes for a target, by L-BFGS in the box.

    Minimises c·|r| + loss(x + r, l) over r with x + r in [0, 1], and searches along c. The loss is
    the target's cross-entropy; without a target, that of all classes but the true one together,
    −log(1 − p_y). |r| is the square ‖r‖₂² here (as Carlini & Wagner 2017, section III, read it),
    since L-BFGS starts at r = 0, where ‖r‖₂ has no gradient; whatever minimises the one for some c
    is stationary for the other at another c. A bisection looks for the largest c that fools; a
    round begins where the last that did not fool ended, the first at x, and the nearest of all
    images that fooled on the way is kept.

    Args:
      model: any model.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      labels: (n,) or one: true classes, or targets. What fools already is returned as it is.
      rounds: of the bisection.
      steps: evaluations of the model and its gradient in each round.
      weight: 1/c of the first round.
      targeted: whether `labels` are targets, as they are in the paper.
      key: of no effect; the attack is deterministic.
      checkpoint: a folder for the state of an interrupted run; the same call then goes on.
      progress: a bar on a terminal.

    Returns:
      An AttackResult in "l2", whose `distance("rms")` is the paper's distortion √(Σδ²/n) and whose
      `losses` are the margins of logits at each evaluation. Where nothing fooled, the image is that
      of the largest margin.

    Raises:
      ValueError, TypeError: naming the argument, before anything is compiled.

    Example:
      >>> import numpy as np, rvis
      >>> model = rvis.load("mnist_cnn")
      >>> grey = np.full((28, 28, 1), 0.5, np.float32)
      >>> target = int(model(grey).argmin())
      >>> result = rvis.attacks.lbfgs(model, grey, target, targeted=True, rounds=5, steps=20)
      >>> bool(result.success[0]), bool(result.distance("rms")[0] < 0.2)
      (True, True)

    Reference: Szegedy et al. 2013, Intriguing properties of neural networks, section 4.1. See
      `core.BoxLBFGS` for the minimiser.
    """
    request = prepare(model, images, labels, norm="l2", targeted=targeted, key=key)
    unit = jnp.asarray(request.labels)
    return searched(
        core.BoxLBFGS(Pixel(request.shape)),
        request,
        Probability(unit) if request.targeted else Escape(unit),
        method="lbfgs",
        rounds=rounds,
        steps=steps,
        weight=weight,
        checkpoint=checkpoint,
        progress=progress,
        follow=True,
    )
