"""Attacks by projected gradient ascent: one step and many, in three norms."""

from __future__ import annotations

from functools import partial
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks, gate, optimizers, struct
from rvis.ascent import Problem
from rvis.attacks.attack import Keep, Plan, plan, run_attack, starts
from rvis.attacks.look import Look, look, loss_gradient
from rvis.attacks.request import BallOptions, Request, per_image, prepare
from rvis.attacks.result import AttackResult
from rvis.objectives import Objective
from rvis.types import Array, ArrayLike, KeyLike, Model


@struct.dataclass
class Sparse:
    """Steps of fixed L1 length along the steepest ascent within [0, 1], as an `Optimizer`.

    From the largest gradient down, each pixel value moves as far as [0, 1] lets it, until the
    length is spent.
    """

    learning_rate: Array

    def init(self, position: Array) -> tuple[()]:
        """Nothing is remembered."""
        return ()

    def update(self, gradient: Array, state: tuple[()], position: Array) -> tuple[Array, tuple[()]]:
        """The next position, uphill, for a group of images (n, H, W, C)."""
        return jax.vmap(self._moved)(gradient, position), state

    def _moved(self, gradient: Array, image: Array) -> Array:
        room = jnp.where(gradient > 0, 1 - image, image)
        room = jnp.where(gradient == 0, 0, jnp.maximum(room, 0)).ravel()
        order = jnp.argsort(jnp.abs(gradient).ravel(), descending=True)
        spent = jnp.cumsum(room[order]) - room[order]
        length = jnp.clip(self.learning_rate - spent, 0, room[order])
        step = jnp.zeros_like(room).at[order].set(length)
        return image + jnp.sign(gradient) * step.reshape(image.shape)


def steepest(images: Array, gradient: Array, length: Array, norm: str) -> Array:
    """`images` (1, H, W, C) moved by `length` along the steepest ascent of a norm."""
    linear = norm == "l1"
    optimizer: Any = Sparse(length) if linear else optimizers.steepest(length, norm=norm)
    return optimizer.update(gradient, optimizer.init(images), images)[0]


@struct.dataclass
class PGDState:
    """The next iterate (1, H, W, C), and the length of steps."""

    position: Array
    rate: Array


@struct.dataclass
class PGD:
    """Steps of fixed length along the steepest ascent, each put back into the ball.

    Attributes:
      norm: that of the steps.
    """

    norm: str = struct.static()

    def init(self, key: Array, start: Any) -> PGDState:
        """From a `Start` and the length of a step; a draw is uniform in the ball."""
        place, rate = start
        return PGDState(place.point(place.ball.sample(key)), rate)

    def step(
        self, key: Array, state: PGDState, model: Model, problem: Problem
    ) -> tuple[PGDState, Look]:
        """One step up."""
        gradient, outcome = loss_gradient(state.position, key, model, problem)
        moved = steepest(state.position, gradient, state.rate, self.norm)
        following = PGDState(problem.constraint.project(moved), state.rate)
        return following, Look(state.position, outcome)


def plan_pgd(
    request: Request,
    *,
    steps: int,
    step_size: Any = None,
    loss: str | Objective = "ce",
    given: np.ndarray | None = None,
    drawn: Any = True,
    keep: Keep = "best",
) -> Plan:
    """The plan of `pgd` and its kin; see there and `starts` for the arguments."""
    if step_size is None:
        rate = 2.5 * request.eps / steps
    else:
        rate = per_image("step_size", step_size, len(request.images))
    start = starts(request, given, drawn), rate.astype(np.float32)
    return plan(request, PGD(request.norm), start, steps=steps, loss=loss, keep=keep)


@struct.dataclass
class MomentumState:
    """The next iterate (1, H, W, C), what the gradients add up to, and the length of steps."""

    position: Array
    velocity: Array
    rate: Array


@struct.dataclass
class Momentum:
    """Steps along gradients that are remembered, perhaps those of an image at a random scale.

    Attributes:
      norm: that of the steps.
      decay: μ, how much of what was added up a step keeps.
      diversity: how likely the model is shown the image smaller and shifted; None for never, which
        saves looking at the image as it is.
    """

    norm: str = struct.static()
    decay: Array
    diversity: Array | None

    def init(self, key: Array, start: Any) -> MomentumState:
        """At the image, with the length of a step."""
        place, rate = start
        x = place.point(place.ball.centre)
        return MomentumState(x, jnp.zeros_like(x), rate)

    def step(
        self, key: Array, state: MomentumState, model: Model, problem: Problem
    ) -> tuple[MomentumState, Look]:
        """One step up; what is told is of the image as it is."""
        if self.diversity is None:
            gradient, outcome = loss_gradient(state.position, key, model, problem)
        else:
            chance = self.diversity
            _, outcome = look(state.position, key, model, problem)
            gradient = jax.grad(lambda x: look(_resized(key, x, chance), key, model, problem)[0])(
                state.position
            )
        scale = jnp.maximum(jnp.abs(gradient).mean(), 1e-30)
        velocity = self.decay * state.velocity + gradient / scale
        moved = steepest(state.position, velocity, state.rate, self.norm)
        following = MomentumState(problem.constraint.project(moved), velocity, state.rate)
        return following, Look(state.position, outcome)


def _resized(key: Array, image: Array, chance: Array) -> Array:
    """(1, H, W, C) at .9 to 1 of its size, somewhere on black, with this probability."""
    which, size, place = jax.random.split(key, 3)
    scale = jax.random.uniform(size, (), jnp.float32, 0.9, 1)
    room = (1 - scale) * jnp.asarray(image.shape[1:3], jnp.float32)
    shift = room * jax.random.uniform(place, (2,), jnp.float32)
    small = jax.image.scale_and_translate(
        image, image.shape, (1, 2), jnp.broadcast_to(scale, (2,)), shift, "linear"
    )
    return jnp.where(jax.random.uniform(which, (), jnp.float32) < chance, small, image)


def plan_mi_fgsm(
    request: Request,
    *,
    steps: int,
    decay: float = 1.0,
    diversity: float = 0.0,
    loss: str | Objective = "ce",
    keep: Keep = "last",
) -> Plan:
    """The plan of `mi_fgsm`; see there for the arguments."""
    checks.count("steps", steps)
    chance = checks.number("diversity", diversity, low=0, high=1)
    attack = Momentum(
        request.norm,
        jnp.float32(checks.number("decay", decay, low=0)),
        jnp.float32(chance) if chance else None,
    )
    start = starts(request, drawn=False), (request.eps / steps).astype(np.float32)
    return plan(request, attack, start, steps=steps, loss=loss, keep=keep)


@gate.public
def mi_fgsm(
    model: Model,
    images: ArrayLike,
    labels: Any,
    *,
    norm: str = "linf",
    eps: Any,
    decay: float = 1.0,
    diversity: float = 0.0,
    loss: str | Objective = "ce",
    target: Any = None,
    key: KeyLike = 0,
    steps: int = 10,
    **options: Unpack[BallOptions],
) -> AttackResult:
    """Momentum iterative FGSM, whose images fool other networks too; and DI²-FGSM.

        g ← μ·g + ∇L/‖∇L‖₁,    x ← Π(x + ε/steps·d(g))

    With `diversity` p the gradient of a step is, with this probability, that of the image at .9 to
    1 of its size at a random place: DI²-FGSM with a decay of 0, M-DI²-FGSM with one of 1. The last
    iterate is given back.

    Args, returns and raises as `pgd`, but for:
      decay: μ, at least 0.
      diversity: p, in [0, 1]; the authors take .5.
      key: of the sizes and places.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attacks
      >>> model = rvis.load("mnist_cnn")
      >>> digit = np.full((28, 28, 1), 0.5, np.float32)
      >>> attacks.mi_fgsm(model, digit, 3, eps=0.1, diversity=0.5, steps=3).losses.shape
      (3,)

    Reference: Dong et al. 2018, Boosting adversarial attacks with momentum, algorithm 1; Xie et al.
      2019, Improving transferability of adversarial examples with input diversity, algorithm 1.
    """
    return run_attack(
        plan_mi_fgsm,
        prepare(model, images, labels, norm=norm, eps=eps, target=target, key=key),
        "mi_fgsm",
        steps=steps,
        decay=decay,
        diversity=diversity,
        loss=loss,
        **options,
    )


@gate.public
def fgsm(
    model: Model,
    images: ArrayLike,
    labels: Any,
    *,
    norm: str = "linf",
    eps: Any,
    loss: str | Objective = "ce",
    target: Any = None,
    key: KeyLike = 0,
    **options: Unpack[BallOptions],
) -> AttackResult:
    """The fast gradient sign method: one step of length ε along the steepest ascent of the loss.

        x + ε·sign(∇_x L)    in Linf;    ε·∇L/‖∇L‖₂ in L2; along the largest entries alone in L1

    clipped to [0, 1].

    Args, returns and raises as `pgd`: `eps` is the step's length, and nothing is random.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attacks
      >>> model = rvis.load("mnist_cnn")
      >>> digits = np.full((2, 28, 28, 1), 0.5, np.float32)
      >>> result = attacks.fgsm(model, digits, [3, 8], eps=0.1)
      >>> result.distances.round(4).tolist()
      [0.1, 0.1]

    Reference: Goodfellow et al. 2014, Explaining and harnessing adversarial examples, section 4.
    """
    return run_attack(
        _plan_fgsm,
        prepare(model, images, labels, norm=norm, eps=eps, target=target, key=key),
        "fgsm",
        loss=loss,
        **options,
    )


def _plan_fgsm(request: Request, *, loss: str) -> Plan:
    return plan_pgd(request, steps=1, step_size=request.eps, loss=loss, drawn=False, keep="last")


@gate.public
def bim(
    model: Model,
    images: ArrayLike,
    labels: Any,
    *,
    norm: str = "linf",
    eps: Any,
    step_size: Any = None,
    loss: str | Objective = "ce",
    target: Any = None,
    key: KeyLike = 0,
    steps: int = 10,
    **options: Unpack[BallOptions],
) -> AttackResult:
    """The basic iterative method: `pgd` from the image itself, with no random start.

    Args, returns and raises as `pgd`.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attacks
      >>> model = rvis.load("mnist_cnn")
      >>> digit = np.full((28, 28, 1), 0.5, np.float32)
      >>> bool(attacks.bim(model, digit, 3, eps=0.1, steps=3).distances <= 0.1 * (1 + 1e-6))
      True

    Reference: Kurakin et al. 2016, Adversarial examples in the physical world, section 2.2.
    """
    return run_attack(
        plan_bim,
        prepare(model, images, labels, norm=norm, eps=eps, target=target, key=key),
        "bim",
        steps=steps,
        step_size=step_size,
        loss=loss,
        **options,
    )


plan_bim = partial(plan_pgd, drawn=False)
"""The plan of `bim`: `plan_pgd` from the images themselves."""


@gate.public
def pgd(
    model: Model,
    images: ArrayLike,
    labels: Any,
    *,
    norm: str = "linf",
    eps: Any,
    step_size: Any = None,
    restarts: int = 1,
    loss: str | Objective = "ce",
    target: Any = None,
    key: KeyLike = 0,
    steps: int = 40,
    **options: Unpack[BallOptions],
) -> AttackResult:
    """Projected gradient ascent of the loss in a ball about each image, from a random start.

        x₀ ~ U(B_ε(x)),    x_{t+1} = Π(x_t + α·d(∇_x L))

    where d is the steepest direction of the norm and Π projects onto the ball and [0, 1]. Of all
    iterates, the last included, the one with the highest loss is given back; one that fools comes
    before all that do not.

    Args:
      model: any model.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      labels: the true classes, by number or name: one, or (n,).
      norm: "linf", "l2" or "l1".
      eps: the ball's radius, in units of the [0, 1] image: a number, or (n,); inf for all of
        [0, 1].
      step_size: α, in the norm, a number or (n,); 2.5·eps/steps by default.
      restarts: attempts from other random starts; each goes on with the images that still hold.
      loss: "ce", "dlr" or "margin", see `rvis.attacks.losses.objective`.
      target: the classes to reach, by number or name: one, or (n,). None, the default, to leave the
        labels for any other class.
      key: an int seed or a typed key, for the random starts. An image's is folded from its bits.
      steps: gradient steps.
      quantize: whether the model is shown images of 8 bits, rounded towards the given ones, which
        must have as many; the result then fools as it says once it is saved.
      eot: draws that each step's loss and gradient are a mean over, of a network that is a function
        of a key: whose `apply` takes `key=`, and has an attribute `takes_key` that is true. Success
        is that of the mean of its logits over 32 other draws.
      chunk: images at once; bounds memory, never changes results.
      checkpoint: a folder in which an interrupted run leaves its state, and from which the same
        call goes on. It is removed when the run has ended.
      callback: `callback(step, images, losses)` is called between steps, with how many were made,
        the images to give back so far and the losses before each step, NaN for images that no
        longer take part. Where it returns True the attack ends. All images are attacked side by
        side then, so that no `chunk` bounds memory.
      progress: a bar on a terminal.

    Returns:
      An `AttackResult`; on a CPU an image's is the same to the bit alone and in any batch.

    Raises:
      TypeError, ValueError: naming the argument, before anything is compiled.
      FloatingPointError: naming the images whose loss became NaN.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attacks
      >>> model = rvis.load("mnist_cnn")
      >>> digits = np.full((2, 28, 28, 1), 0.5, np.float32)
      >>> result = attacks.pgd(model, digits, [3, 8], norm="l2", eps=1.0, steps=4)
      >>> result.losses.shape
      (2, 4)

    Reference: Madry et al. 2017, Towards deep learning models resistant to adversarial attacks,
      eq. 2.3; for `eot`, Athalye et al. 2018, Synthesizing robust adversarial examples; for L1,
      Tramèr & Boneh 2019, Adversarial training and robustness for multiple perturbations, section
      4. They spread a step over the hundredth of the values with the largest gradients; here it is
      the steepest there is within [0, 1], which does as well.
    """
    return run_attack(
        plan_pgd,
        prepare(model, images, labels, norm=norm, eps=eps, target=target, key=key),
        "pgd",
        restarts=restarts,
        steps=steps,
        step_size=step_size,
        loss=loss,
        **options,
    )
