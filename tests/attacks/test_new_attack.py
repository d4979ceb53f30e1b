"""An attack from outside the package: momentum iterative FGSM on the public pieces alone."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rvis import attacks, struct
from rvis.attacks.attack import Plan, plan, run_attack, starts
from rvis.attacks.look import Look, loss_gradient
from rvis.attacks.request import prepare
from rvis.attacks.sweep import Registered
from rvis.types import Array
from tests.attacks import small


@struct.dataclass
class MomentumState:
    """The next iterate (1, H, W, C), what the gradients add up to, and the length of steps."""

    position: Array
    velocity: Array
    rate: Array


@struct.dataclass
class Momentum:
    """g ← μ·g + ∇L/‖∇L‖₁, x ← Π(x + α·sign g); Dong et al. 2018, algorithm 1."""

    decay: Array

    def init(self, key: Array, start: Any) -> MomentumState:
        place, rate = start
        x = place.point(place.ball.centre)
        return MomentumState(x, jnp.zeros_like(x), rate)

    def step(self, key, state, model, problem):
        gradient, outcome = loss_gradient(state.position, key, model, problem)
        velocity = self.decay * state.velocity + gradient / jnp.abs(gradient).sum()
        x = problem.constraint.project(state.position + state.rate * jnp.sign(velocity))
        return MomentumState(x, velocity, state.rate), Look(state.position, outcome)


def plan_momentum(request, *, steps=10, decay=1.0, loss="ce", **options) -> Plan:
    """The plan of `momentum`."""
    start = starts(request, drawn=False), request.eps / steps
    return plan(request, Momentum(jnp.float32(decay)), start, steps=steps, loss=loss, **options)


def momentum(model, images, labels, *, eps, target=None, key=0, **options):
    """Momentum iterative FGSM."""
    request = prepare(
        model, images, labels, norm="linf", eps=eps, target=target, key=key, norms=("linf",)
    )
    return run_attack(plan_momentum, request, "momentum", **options)


def by_hand(model, image, label, eps, steps, decay):
    """The iterates and their losses, in a plain loop."""

    @jax.jit
    def loss(x):
        return -jax.nn.log_softmax(model(x))[0, label]

    slope = jax.jit(jax.value_and_grad(loss))
    x, velocity, seen, losses = image, 0.0, [], []
    for _ in range(steps):
        value, gradient = slope(x)
        seen.append(np.asarray(x))
        losses.append(float(value))
        velocity = decay * velocity + gradient / jnp.abs(gradient).sum()
        x = jnp.clip(x + eps / steps * jnp.sign(velocity), image - eps, image + eps).clip(0, 1)
    return np.stack([*seen, x]), np.asarray([*losses, float(loss(x))])


@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_it_does_what_a_loop_by_hand_does(decay):
    model, (images, labels) = small.network(), small.images(4)
    found = momentum(model, images, labels, eps=0.05, steps=6, decay=decay, progress=False)
    for i in range(4):
        iterates, losses = by_hand(model, images[i], labels[i], 0.05, 6, decay)
        np.testing.assert_allclose(found.losses[i], losses[:-1], rtol=1e-4)
        classes = np.asarray(model(iterates)).argmax(1)
        fools = classes != labels[i]
        best = np.where(fools.any() & ~fools, -np.inf, losses).argmax()
        np.testing.assert_allclose(found.images[i], iterates[best], atol=1e-5)
        assert found.iterations[i] == (fools.argmax() if fools.any() else -1)
    assert found.config["function"] == "momentum" and found.config["decay"] == decay


def test_one_line_gives_it_a_curve(monkeypatch):
    monkeypatch.setitem(attacks.ATTACKS, "momentum", Registered(plan_momentum, 10, ("linf",)))
    model, (images, labels) = small.network(), small.images(6)
    options = {"steps": 6, "progress": False}
    curve = attacks.robustness(
        model, images, labels, epsilons=(0.01, 0.03), attack="momentum", **options
    )
    for eps, accuracy in zip((0.01, 0.03), curve.accuracies, strict=True):
        single = momentum(model, images, labels, eps=eps, **options)
        assert accuracy == pytest.approx(single.accuracy)


def test_it_is_checked_restarted_and_shown_like_any_other(tmp_path):
    model, (images, labels) = small.network(), small.images(6)
    steps = []
    options = {"steps": 6, "restarts": 2, "progress": False, "checkpoint": tmp_path / "state"}
    found = momentum(
        model, images, labels, eps=0.01, callback=lambda step, *_: steps.append(step), **options
    )
    assert steps[:6] == list(range(1, 7)) and not (tmp_path / "state").exists()
    assert found.show().width > 0
    targeted = momentum(model, images, labels, target="c2", eps=1.0, progress=False)
    assert (targeted.predictions[targeted.success] == 2).all() and targeted.success.any()
    with pytest.raises(ValueError, match="^norm: |^eps: "):
        momentum(model, images, labels, eps=-1.0)
