"""Attacks by projected gradient ascent: one step and many, in three norms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks, core, optimizers, projections
from rvis.attacks.losses import aim
from rvis.attacks.pursuit import Best, Keep, Plan, attacked, look
from rvis.attacks.result import AttackResult, Request, per_image, prepare
from rvis.core import Ascent, AscentState
from rvis.images import Pixel
from rvis.projections import Projection
from rvis.types import Array, ArrayLike, KeyLike, Model

BALLS: Mapping[str, Callable[..., Projection]] = {
    "linf": projections.LinfBall,
    "l2": projections.L2Ball,
    "l1": projections.L1Ball,
}


def balls(request: Request) -> Projection:
    """The n balls in which the attacked images must lie, each a group of one image."""
    return BALLS[request.norm](jnp.asarray(request.images[:, None]), jnp.asarray(request.eps))


@flax.struct.dataclass
class Start:
    """Where an ascent in a ball begins.

    Attributes:
      ball: about the image.
      given: (1, H, W, C), from where it is put into the ball.
      drawn: whether a uniform draw from the ball takes its place.
    """

    ball: Any
    given: Array
    drawn: Array

    def point(self, key: Array) -> Array:
        """The first iterate, (1, H, W, C)."""
        return jnp.where(self.drawn, self.ball.sample(key), self.ball.project(self.given))


def starts(request: Request, given: np.ndarray | None = None, drawn: Any = True) -> Start:
    """The n starts of a request's images.

    Args:
      request: checked arguments.
      given: (n, H, W, C) images to start from; the request's by default.
      drawn: where to start from a uniform draw instead, (n,) or one.
    """
    images = request.images if given is None else given
    chosen = np.broadcast_to(drawn, len(images))
    return Start(balls(request), jnp.asarray(images[:, None]), jnp.asarray(chosen))


@flax.struct.dataclass
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


def steepest(rate: Array, norm: str) -> optimizers.Optimizer | Sparse:
    """Steps of length `rate` along the steepest ascent of a norm."""
    return Sparse(rate) if norm == "l1" else optimizers.steepest(rate, norm=norm)


@flax.struct.dataclass
class ProjectedState:
    """An ascent, the length of its steps, and its best iterate."""

    ascent: AscentState
    rate: Array
    best: Best

    @property
    def step(self) -> Array:
        """How many steps were taken."""
        return self.ascent.step


@flax.struct.dataclass
class Projected:
    """`core.Ascent` in steps of fixed length, whose best iterate is kept.

    Attributes:
      image: pixels of the images' shape.
      norm: that of the steps.
      keep: which iterate to give back, see `Best.after`.
    """

    image: Pixel = flax.struct.field(pytree_node=False)
    norm: str = flax.struct.field(pytree_node=False)
    keep: Keep = flax.struct.field(pytree_node=False, default="best")

    def _ascent(self, rate: Array) -> Ascent:
        return Ascent(self.image, steepest(rate, self.norm))  # type: ignore[arg-type]

    def init(self, key: Array, position: Any = None) -> ProjectedState:
        """The state before the first step, from a `Start` and the length of a step."""
        place, rate = position
        start = place.point(key)
        return ProjectedState(self._ascent(rate).init(key, start), rate, Best.none(start[0]))

    def step(
        self, key: Array, state: ProjectedState, model: Model, problem: core.Problem
    ) -> tuple[ProjectedState, Array]:
        """One step up; tells the loss before it."""
        ascent, told = self._ascent(state.rate).step(key, state.ascent, model, problem)
        return ProjectedState(ascent, state.rate, self._seen(state, told.score)), told.energy

    def settle(self, state: ProjectedState, model: Model, problem: core.Problem) -> ProjectedState:
        """The state with its last iterate looked at."""
        verdict = look(state.ascent.position, model, problem)
        return state.replace(best=self._seen(state, verdict))  # type: ignore[attr-defined]

    def images(self, state: ProjectedState) -> Array:
        """The best iterate, as a group of one."""
        return state.best.image[None]

    def _seen(self, state: ProjectedState, verdict: Any) -> Best:
        return state.best.after(state.ascent.position[0], verdict, state.step, self.keep)


def plan_projected(
    request: Request,
    *,
    steps: int,
    step_size: Any = None,
    loss: str = "ce",
    given: np.ndarray | None = None,
    drawn: Any = True,
    keep: Keep = "best",
) -> Plan:
    """The plan of `pgd` and its kin; see there and `starts` for the arguments."""
    checks.count("steps", steps)
    if step_size is None:
        rate = 2.5 * request.eps / steps
    else:
        rate = per_image("step_size", step_size, len(request.images))
    start = starts(request, given, drawn)
    return Plan(
        Projected(Pixel(request.shape), request.norm, keep),
        core.Problem(aim(request, loss), (), start.ball),
        (start, np.asarray(rate, np.float32)),
        steps,
    )


def fgsm(
    model: Model,
    images: ArrayLike,
    labels: Any,
    *,
    norm: str = "linf",
    eps: Any,
    loss: str = "ce",
    targeted: bool = False,
    key: KeyLike = 0,
    progress: bool = True,
) -> AttackResult:
    """The fast gradient sign method: one step of length ε along the steepest ascent of the loss.

        x + ε·sign(∇_x L)    in Linf;    ε·∇L/‖∇L‖₂ in L2; along the largest entries alone in L1

    clipped to [0, 1].

    Args:
      model: any model.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      labels: (n,) or one class: the true ones, or targets.
      norm: "linf", "l2" or "l1".
      eps: the step's length in that norm, in units of the [0, 1] image: a number, or (n,).
      loss: "ce", "dlr" or "margin", see `rvis.attacks.losses.aim`.
      targeted: whether to go towards `labels` instead of away from them.
      key: taken for the sake of one signature; nothing here is random.
      progress: a bar on a terminal.

    Returns:
      An `AttackResult`.

    Raises:
      TypeError, ValueError: naming the argument, before anything is compiled.
      FloatingPointError: naming the images whose loss is NaN.

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
    request = prepare(model, images, labels, norm=norm, eps=eps, targeted=targeted, key=key)
    return attacked(_plan_single, request, "fgsm", progress=progress, loss=loss)


def _plan_single(request: Request, *, loss: str) -> Plan:
    return plan_projected(
        request, steps=1, step_size=request.eps, loss=loss, drawn=False, keep="last"
    )


def bim(
    model: Model,
    images: ArrayLike,
    labels: Any,
    *,
    norm: str = "linf",
    eps: Any,
    steps: int = 10,
    step_size: Any = None,
    loss: str = "ce",
    targeted: bool = False,
    key: KeyLike = 0,
    progress: bool = True,
) -> AttackResult:
    """The basic iterative method: `pgd` from the image itself, with no random start.

    Args, returns and raises as `pgd`; `key` is taken for the sake of one signature.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attacks
      >>> model = rvis.load("mnist_cnn")
      >>> digit = np.full((28, 28, 1), 0.5, np.float32)
      >>> bool(attacks.bim(model, digit, 3, eps=0.1, steps=3).distances <= 0.1 * (1 + 1e-6))
      True

    Reference: Kurakin et al. 2016, Adversarial examples in the physical world, section 2.2.
    """
    request = prepare(model, images, labels, norm=norm, eps=eps, targeted=targeted, key=key)
    options = {"steps": steps, "step_size": step_size, "loss": loss}
    return attacked(plan_basic, request, "bim", progress=progress, **options)


def plan_basic(request: Request, **options: Any) -> Plan:
    """The plan of `bim`: `plan_projected` from the images themselves."""
    return plan_projected(request, drawn=False, **options)


def pgd(
    model: Model,
    images: ArrayLike,
    labels: Any,
    *,
    norm: str = "linf",
    eps: Any,
    steps: int = 40,
    step_size: Any = None,
    restarts: int = 1,
    loss: str = "ce",
    targeted: bool = False,
    key: KeyLike = 0,
    progress: bool = True,
) -> AttackResult:
    """Projected gradient ascent of the loss in a ball about each image, from a random start.

        x₀ ~ U(B_ε(x)),    x_{t+1} = Π(x_t + α·d(∇_x L))

    where d is the steepest direction of the norm and Π projects onto the ball and [0, 1]. Of all
    iterates, the last included, the one with the highest loss is given back; one that fools comes
    before all that do not.

    Args:
      model: any model.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      labels: (n,) or one class: the true ones, or targets.
      norm: "linf", "l2" or "l1".
      eps: the ball's radius, in units of the [0, 1] image: a number, or (n,); inf for all of
        [0, 1].
      steps: gradient steps.
      step_size: α, in the norm, a number or (n,); 2.5·eps/steps by default.
      restarts: attempts from other random starts; each goes on with the images that still hold.
      loss: "ce", "dlr" or "margin", see `rvis.attacks.losses.aim`.
      targeted: whether to go towards `labels` instead of away from them.
      key: an int seed or a typed key, for the random starts. An image's is folded from its bits.
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
      eq. 2.3; for L1, Tramèr & Boneh 2019, Adversarial training and robustness for multiple
      perturbations, section 4. They spread a step over the hundredth of the values with the largest
      gradients; here it is the steepest there is within [0, 1], which does as well.
    """
    request = prepare(model, images, labels, norm=norm, eps=eps, targeted=targeted, key=key)
    options = {"steps": steps, "step_size": step_size, "loss": loss}
    return attacked(plan_projected, request, "pgd", restarts=restarts, progress=progress, **options)
