"""DeepFool: the nearest boundary of the network, taken as linear, again and again."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rvis import checks, core
from rvis.attacks.losses import Margin
from rvis.attacks.result import AttackResult, conclude, lanes, prepare
from rvis.types import Array, ArrayLike, KeyLike, Model

_SHORTEST = {"l2": 1e-4, "linf": 1e-6}
"""The least distance to move where a boundary is all but reached; the authors' code adds 1e-4."""


@flax.struct.dataclass
class DeepFoolState:
    """Where an attack stands: the image it began with, the sum of its moves, where that leads."""

    step: Array
    origin: Array
    moved: Array
    images: Array
    iterations: Array


@flax.struct.dataclass
class DeepFoolInfo:
    """How many linearisations it took, and whether they fooled."""

    iterations: Array
    fooled: Array


@flax.struct.dataclass
class DeepFool:
    """One step is a whole attack: linearisations until the label is left, as a rule three or four.

    Most of the 50 that it may take would be wasted on images that are done, so that the loop ends
    with the last of those computed side by side.

    Attributes:
      steps: linearisations at most.
      overshoot: η, by how much more than the way to the boundary is gone.
      norm: "l2" or "linf".
      candidates: how many other classes are tried, those of the largest logits of the image.
    """

    steps: Array
    overshoot: Array
    norm: str = flax.struct.field(pytree_node=False)
    candidates: int = flax.struct.field(pytree_node=False)

    def init(self, key: Array, position: Array | None = None) -> DeepFoolState:
        """At the images (1, H, W, C) of `position`, which there must be."""
        del key
        assert position is not None
        return DeepFoolState(
            jnp.int32(0), position, jnp.zeros_like(position), position, jnp.int32(0)
        )

    def step(
        self, key: Array, state: DeepFoolState, model: Model, problem: core.Problem
    ) -> tuple[DeepFoolState, DeepFoolInfo]:
        """The attack, on the class of an objective that is a `Margin`."""
        del key
        assert isinstance(problem.objective, Margin)
        label = problem.objective.unit
        logits = model.apply(model.params, state.origin)[0]
        others = jnp.where(jnp.arange(logits.shape[0]) == label, -jnp.inf, logits)
        _, nearest = lax.top_k(others, self.candidates)
        wanted = jax.nn.one_hot(nearest, logits.shape[0]) - jax.nn.one_hot(label, logits.shape[0])

        def unfinished(carry: tuple[DeepFoolState, Array]) -> Array:
            state, fooled = carry
            return ~fooled & (state.iterations < self.steps)

        def nearer(carry: tuple[DeepFoolState, Array]) -> tuple[DeepFoolState, Array]:
            state, _ = carry
            logits, pull = jax.vjp(
                lambda images: model.apply(model.params, images)[0], state.images
            )
            (slopes,) = jax.vmap(pull)(wanted)
            moved = state.moved + self._move(logits[nearest] - logits[label], slopes)
            images = jnp.clip(state.origin + (1 + self.overshoot) * moved, 0, 1)
            state = state.replace(  # type: ignore[attr-defined]
                moved=moved, images=images, iterations=state.iterations + 1
            )
            return state, model.apply(model.params, images)[0].argmax() != label

        state, fooled = lax.while_loop(unfinished, nearer, (state, logits.argmax() != label))
        state = state.replace(step=state.step + 1)  # type: ignore[attr-defined]
        return state, DeepFoolInfo(state.iterations, fooled)

    def images(self, state: DeepFoolState) -> Array:
        """The attacked image, (1, H, W, C)."""
        return state.images

    def _move(self, gaps: Array, slopes: Array) -> Array:
        """The way to the nearest boundary, from gaps (k,) and slopes (k, 1, H, W, C)."""
        flat = slopes.reshape(slopes.shape[0], -1)
        if self.norm == "l2":
            dual = jnp.linalg.norm(flat, axis=1)
        else:
            dual = jnp.abs(flat).sum(1)
        reachable = dual > 0
        distance = jnp.where(reachable, jnp.abs(gaps) / jnp.where(reachable, dual, 1), jnp.inf)
        best = distance.argmin()
        slope = slopes[best]
        if self.norm == "l2":
            direction = slope / jnp.where(reachable[best], dual[best], 1)
        else:
            direction = jnp.sign(slope)
        length = jnp.maximum(distance[best], _SHORTEST[self.norm])
        return jnp.where(reachable[best], length, 0) * direction


def deepfool(
    model: Model,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    norm: str = "l2",
    steps: int = 50,
    overshoot: float = 0.02,
    candidates: int = 10,
    key: KeyLike = 0,
    progress: bool = True,
) -> AttackResult:
    """A nearby image of another class, by steps to the nearest boundary of the linearised model.

    With f_k the logits and y the label, every step goes from x_i towards the class
    argmin_k |f_k − f_y| / ‖∇f_k − ∇f_y‖_q by just that distance (q = 2 for "l2", 1 for "linf").
    The image is the original plus 1 + η times the sum of these moves, put into [0, 1]. There is no
    targeted form.

    Args:
      model: any model.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      labels: (n,) true classes, or one. An image taken for another class is returned as it is.
      norm: "l2" or "linf", in which distances are small.
      steps: linearisations at most.
      overshoot: η, at least 0: how far beyond the boundary, as a share of the way.
      candidates: how many other classes are tried, those of the largest logits; gradients a step.
      key: of no effect; the attack is deterministic.
      progress: a bar on a terminal.

    Returns:
      An AttackResult whose `distances` are the margins found.

    Raises:
      ValueError, TypeError: naming the argument, before anything is compiled.

    Example:
      >>> import numpy as np, rvis
      >>> model = rvis.load("mnist_cnn")
      >>> grey = np.full((28, 28, 1), 0.5, np.float32)
      >>> label = int(model(grey).argmax())
      >>> bool(rvis.attacks.deepfool(model, grey, label).success[0])
      True

    Reference: Moosavi-Dezfooli, Fawzi & Frossard 2016, DeepFool: a simple and accurate method to
      fool deep neural networks, algorithm 2 and section 3.2. The box is ours: the paper has none.
    """
    checks.count("steps", steps)
    checks.number("overshoot", overshoot, low=0)
    checks.count("candidates", candidates)
    request = prepare(model, images, labels, norm=norm, key=key, norms=("l2", "linf"))
    if request.outputs < 2:
        raise ValueError(f"model: at least two logits were expected, given {request.outputs}")
    algorithm = DeepFool(
        jnp.int32(steps), jnp.float32(overshoot), norm, min(candidates, request.outputs - 1)
    )
    found, iterations = [], []
    for outcome in core.drive(
        algorithm,
        request.keys,
        request.model,
        core.Problem(Margin(jnp.asarray(request.labels))),
        steps=1,
        position=request.images[:, None],
        width=lanes(request.shape),
        progress=progress,
        label="deepfool",
    ):
        found.append(outcome.images[:, 0])
        iterations.append(outcome.info.iterations[:, 0])
    return conclude(
        request,
        np.concatenate(found),
        method="deepfool",
        iterations=np.concatenate(iterations),
        steps=steps,
        overshoot=overshoot,
        candidates=candidates,
    )
