"""How to train, and against whom."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rvis import checks, engine, optimizers, projections, struct
from rvis.ascent import Ascent, Problem
from rvis.images import Pixel
from rvis.objectives import Activations, Objective, Probability
from rvis.types import LOGITS, Array, Model

_BALLS = {"l2": projections.L2Ball, "linf": projections.LinfBall}


@struct.dataclass
class Divergence(Objective):
    """−Σ_k p_k log softmax(z)_k, the divergence from probabilities (k,) but for their entropy."""

    reference: Array

    event_ranks: ClassVar[Mapping[str, int]] = {"reference": 1}

    @property
    def layers(self) -> tuple[str, ...]:
        return (LOGITS,)

    def __call__(self, activations: Activations) -> Array:
        return -(self.reference * jax.nn.log_softmax(activations[LOGITS])).sum(-1).mean()


@struct.dataclass
class Adversary:
    """Projected gradient ascent on the cross-entropy inside a ball about each image.

    A pytree whose radius and step size are leaves, so that a sweep of either compiles once.

    Attributes:
      norm: "l2" or "linf".
      eps: the ball's radius, in units of the [0, 1] image.
      steps: gradient steps.
      step_size: length of a step in the norm; 2.5·eps/steps by default.
      random_start: start at a uniform random point of the ball instead of the image.

    Reference: Madry et al. 2017, Towards deep learning models resistant to adversarial attacks,
      eq. 2.3.

    Example:
      >>> from rvis.training import Adversary
      >>> Adversary("l2", 0.5, steps=20).step_size
      0.0625
    """

    norm: str = struct.static()
    eps: float
    steps: int = struct.static()
    step_size: float | None = None
    random_start: bool = struct.static(default=True)

    def __post_init__(self) -> None:
        # Put together again inside a transformation, it holds what is no number.
        if self.step_size is not None and not isinstance(self.eps, (int, float, np.number)):
            return
        checks.choice("norm", self.norm, tuple(_BALLS))
        checks.flag("random_start", self.random_start)
        eps = checks.number("eps", self.eps, low=0)
        checks.count("steps", self.steps)
        size = 2.5 * eps / self.steps if self.step_size is None else self.step_size
        object.__setattr__(self, "eps", eps)
        object.__setattr__(self, "step_size", checks.number("step_size", size, low=0))

    def perturb(
        self,
        key: Array,
        model: Model,
        images: Array,
        labels: Array,
        reference: Array | None = None,
    ) -> Array:
        """Adversarial versions of `images` (n, H, W, C), for use inside traced code.

        Args:
          key: a typed key, of the random starts.
          model: any model.
          images: (n, H, W, C) in [0, 1].
          labels: (n,) the true classes.
          reference: (n, k) probabilities to diverge from, in the place of the labels.
        """
        assert self.step_size is not None
        count, height, width, channels = images.shape
        keys = jax.random.split(key, count)
        ball = _BALLS[self.norm](images[:, None], jnp.full(count, self.eps, jnp.float32))
        starts = images[:, None]
        if self.random_start:
            starts = jax.vmap(lambda ball, key: ball.sample(key))(ball, keys)
        ascent = Ascent(
            Pixel((height, width, channels)), optimizers.steepest(self.step_size, norm=self.norm)
        )
        objective = -Probability(labels) if reference is None else Divergence(reference)
        problems = Problem(objective.broadcast(count), (), ball)
        return engine.traced(ascent, model, problems, keys, starts, steps=self.steps)[:, 0]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to train; by default MadryLab/robustness's CIFAR-10 recipe on a short schedule.

    Attributes:
      epochs: passes over the training set.
      batch_size: images a step.
      learning_rate: the highest.
      schedule: "onecycle" (up for a fifth of the steps, down to zero, both linear) or "cosine".
      momentum: of Nesterov's SGD.
      weight_decay: on kernels alone.
      label_smoothing: share of the target spread over all classes.
      crop: random shifts by up to so many pixels, with black beyond the border.
      flip: random mirror images.
      cutout: side of the square at a random place of each image that is greyed out (DeVries &
        Taylor 2017, Improved regularization of convolutional neural networks with cutout).
      small: side of the random windows that the first epochs train on, to save time.
      small_epochs: how many epochs do so (progressive resizing; the rest adapts to full size).
      ema: decay of the averaged weights that are kept in the end; 0 keeps the last ones.
      adversary: whom to train against; None for standard training.
      loss: beside an adversary, "ce" of its images x'; "trades", the cross-entropy of the images x
        and β·KL(p(x)‖p(x')), which the adversary maximises too; or "mart", the boosted
        cross-entropy −log p_y(x') − log(1 − max_{k≠y} p_k(x')) and β·KL(p(x)‖p(x'))·(1 − p_y(x)).
      beta: β.
      awp: γ of adversarial weight perturbation: gradients are those at kernels that one step of
        γ times their length has moved up the loss; .005 is usual, 0 for none.

    Reference: Zhang et al. 2019, Theoretically principled trade-off between robustness and
      accuracy, eq. 5; Wang et al. 2020, Improving adversarial robustness requires revisiting
      misclassified examples, eq. 12; Wu, Xia & Wang 2020, Adversarial weight perturbation helps
      robust generalization, section 3.2.
    """

    epochs: int = 10
    batch_size: int = 128
    learning_rate: float = 0.2
    schedule: str = "onecycle"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    crop: int = 4
    flip: bool = True
    cutout: int = 0
    small: int = 0
    small_epochs: int = 0
    ema: float = 0.0
    adversary: Adversary | None = None
    loss: str = "ce"
    beta: float = 6.0
    awp: float = 0.0

    def __post_init__(self) -> None:
        checks.count("epochs", self.epochs)
        checks.count("batch_size", self.batch_size)
        checks.choice("schedule", self.schedule, ("onecycle", "cosine"))
        for name in ("crop", "cutout", "small", "small_epochs"):
            checks.count(name, getattr(self, name), low=0)
        checks.number("learning_rate", self.learning_rate, low=0)
        for name in ("momentum", "label_smoothing", "ema", "awp"):
            checks.number(name, getattr(self, name), low=0, high=1)
        checks.number("weight_decay", self.weight_decay, low=0)
        checks.flag("flip", self.flip)
        if self.adversary is not None and not isinstance(self.adversary, Adversary):
            raise TypeError(f"adversary: an Adversary was expected, given {self.adversary!r}")
        checks.choice("loss", self.loss, ("ce", "trades", "mart"))
        checks.number("beta", self.beta, low=0)
        if self.loss == "trades" and self.adversary and not self.adversary.random_start:
            raise ValueError(
                "adversary: a random_start was expected for loss='trades', whose divergence has no "
                "gradient at the image itself"
            )

    def rates(self, steps: int) -> optax.Schedule:
        """The learning rate at each of `steps` steps."""
        if self.schedule == "cosine":
            return optax.cosine_decay_schedule(self.learning_rate, steps)
        rise = max(1, steps // 5)
        return optax.join_schedules(
            [
                optax.linear_schedule(0.0, self.learning_rate, rise),
                optax.linear_schedule(self.learning_rate, 0.0, steps - rise),
            ],
            [rise],
        )
