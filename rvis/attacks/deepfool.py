"""DeepFool: the nearest boundary of the network, taken as linear, again and again."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax import lax

from rvis import checks, gate, struct
from rvis.ascent import Problem
from rvis.attacks.geometry import dual_length
from rvis.attacks.losses import Margin, least_margin, margin
from rvis.attacks.minimal import run_unsolved
from rvis.attacks.request import Options, conclude, prepare
from rvis.attacks.result import AttackResult
from rvis.types import LOGITS, Array, ArrayLike, KeyLike, Model, on_device

_SHORTEST = {"l2": 1e-4, "linf": 1e-6}
"""The least distance to move where a boundary is all but reached; the authors' code adds 1e-4."""


def pulled(model: Model, images: Array) -> tuple[Array, Callable[[Array], tuple[Array]]]:
    """The logits (k,) of (1, H, W, C), and what pulls a cotangent of theirs back to it."""
    return jax.vjp(lambda images: model.apply(model.params, images)[0], images)  # type: ignore[return-value]


def strongest(logits: Array, label: Array, count: int) -> Array:
    """The classes (count,) other than `label` of the largest logits."""
    others = jnp.where(jnp.arange(logits.shape[0], dtype=jnp.int32) == label, -jnp.inf, logits)
    return lax.top_k(others, count)[1].astype(jnp.int32)


def boundaries(
    logits: Array, pull: Callable[[Array], tuple[Array]], label: Array, others: Array
) -> tuple[Array, Array]:
    """By how much the logits of others (m,) exceed a label's, and gradients (m, 1, H, W, C)."""
    ways = jax.nn.one_hot(others, logits.shape[0], dtype=logits.dtype)
    ways = ways - jax.nn.one_hot(label, logits.shape[0], dtype=logits.dtype)[None]
    return logits[others] - logits[label], jax.vmap(pull)(ways)[0]


@struct.dataclass
class DeepFoolState:
    """Where an attack stands.

    Attributes:
      step: how many linearisations there were.
      origin: (1, H, W, C).
      moved: the sum of the moves.
      images: (1, H, W, C), where that leads.
      nearest: the classes that are tried.
      success: whether the model is fooled.
    """

    step: Array
    origin: Array
    moved: Array
    images: Array
    nearest: Array
    success: Array


@struct.dataclass
class DeepFool:
    """One step is a linearisation and a look at where it leads.

    Attributes:
      overshoot: η, by how much more than the way to the boundary is gone.
      norm: "l2" or "linf".
      candidates: how many other classes are tried, those of the largest logits of the image.
    """

    overshoot: Array
    norm: str = struct.static()
    candidates: int = struct.static()

    def init(self, key: Array, start: Array) -> DeepFoolState:
        """At the image (1, H, W, C)."""
        none = jnp.zeros(self.candidates, jnp.int32)
        still = jnp.zeros_like(start)
        return DeepFoolState(jnp.int32(0), start, still, start, none, jnp.bool_(False))

    def step(
        self, key: Array, state: DeepFoolState, model: Model, problem: Problem
    ) -> tuple[DeepFoolState, Array]:
        """One linearisation, away from the class of a `Margin`; tells the margin after it."""
        objective = problem.objective
        assert isinstance(objective, Margin)
        label = objective.unit
        logits, pull = pulled(model, state.images)
        nearest = jnp.where(
            state.step == 0, strongest(logits, label, self.candidates), state.nearest
        )
        gaps, slopes = boundaries(logits, pull, label, nearest)
        # As far beyond a boundary as it takes to be on its other side in any program.
        gaps = jnp.abs(gaps) + least_margin(logits)
        moved = state.moved + self._move(gaps, slopes)
        images = jnp.clip(state.origin + (1 + self.overshoot) * moved, 0, 1)
        after = model.apply(model.params, images)
        reached = objective({LOGITS: after})
        success = reached > least_margin(after)
        state = DeepFoolState(state.step + 1, state.origin, moved, images, nearest, success)
        return state, reached

    def done(self, state: DeepFoolState) -> Array:
        """Whether the model is fooled."""
        return state.success

    def finish(self, state: DeepFoolState, model: Model, problem: Problem) -> Array:
        """The image (H, W, C)."""
        return state.images[0]

    def _move(self, gaps: Array, slopes: Array) -> Array:
        """The way to the nearest boundary, from gaps (k,) and slopes (k, 1, H, W, C)."""
        dual = jax.vmap(partial(dual_length, norm=self.norm))(slopes)
        reachable = dual > 0
        distance = jnp.where(reachable, gaps / jnp.where(reachable, dual, 1), jnp.inf)
        best = distance.argmin()
        if self.norm == "l2":
            direction = slopes[best] / jnp.where(reachable[best], dual[best], 1)
        else:
            direction = jnp.sign(slopes[best])
        length = jnp.maximum(distance[best], _SHORTEST[self.norm])
        return jnp.where(reachable[best], length, 0) * direction


@gate.public
def deepfool(
    model: Model,
    images: ArrayLike,
    labels: Any,
    *,
    norm: str = "l2",
    overshoot: float = 0.02,
    candidates: int = 10,
    key: KeyLike = 0,
    steps: int = 50,
    **options: Unpack[Options],
) -> AttackResult:
    """A nearby image of another class, by steps to the nearest boundary of the linearised model.

    With f_k the logits and y the label, every step goes from x_i towards the class
    argmin_k |f_k − f_y| / ‖∇f_k − ∇f_y‖_q by just that distance (q = 2 for "l2", 1 for "linf").
    The image is the original plus 1 + η times the sum of these moves, put into [0, 1]. It is done
    when another logit exceeds the label's by more than rounding may undo. There is no targeted
    form, and nothing is random.

    Args, raises as `pgd`, but for:
      labels: an image taken for another class is returned as it is.
      norm: "l2" or "linf", in which distances are small.
      overshoot: η, at least 0: how far beyond the boundary, as a share of the way.
      candidates: how many other classes are tried, those of the largest logits; gradients a step.
      steps: linearisations at most.

    Returns:
      An AttackResult whose `distances` are the margins found; `losses` are by how much the
      strongest other logit exceeds the label's after each step.

    Example:
      >>> import numpy as np, rvis
      >>> model = rvis.load("mnist_cnn")
      >>> grey = np.full((28, 28, 1), 0.5, np.float32)
      >>> label = int(model(grey).argmax())
      >>> bool(rvis.attacks.deepfool(model, grey, label).success)
      True

    Reference: Moosavi-Dezfooli, Fawzi & Frossard 2016, DeepFool: a simple and accurate method to
      fool deep neural networks, algorithm 2 and section 3.2. The box is ours: the paper has none.
    """
    checks.number("overshoot", overshoot, low=0)
    request = prepare(model, images, labels, norm=norm, key=key, norms=("l2", "linf"))
    algorithm = DeepFool(
        on_device(overshoot, jnp.float32), norm, min(candidates, request.outputs - 1)
    )
    attacked, losses, made = run_unsolved(
        algorithm,
        request,
        lambda some: Problem(margin(some)),
        steps=steps,
        piece=1,
        label="deepfool",
        **options,
    )
    return conclude(
        request,
        attacked,
        method="deepfool",
        iterations=made,
        losses=losses,
        steps=steps,
        overshoot=overshoot,
        candidates=candidates,
    )
