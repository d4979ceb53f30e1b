"""FMN and DDN against the margins of a linear model, and what their radius does."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rvis import attacks
from rvis.attacks.minimum_norm import plan_fmn
from rvis.attacks.request import prepare
from tests.attacks import small
from tests.attacks.test_fab import IMAGES, LABELS, MODEL, margins

EVERY = {
    ("fmn", "linf"): {"step_size": 0.5},
    ("fmn", "l2"): {"step_size": 0.2},
    ("fmn", "l1"): {"step_size": 0.2},
    ("ddn", "l2"): {"initial": 0.1},
}


def run(name, norm, images=IMAGES, labels=LABELS, model=MODEL, **options):
    own = {**EVERY[name, norm], **({"norm": norm} if name == "fmn" else {})}
    return getattr(attacks, name)(model, images, labels, progress=False, **{**own, **options})


@pytest.mark.parametrize(("name", "norm"), EVERY)
def test_a_linear_model_is_left_at_its_margin(name, norm):
    found = run(name, norm)
    assert found.success.all() and found.norm == norm
    ratio = found.distances / margins(norm).min(1)
    assert (ratio >= 1 - 1e-4).all() and (ratio <= (1.1 if norm == "l1" else 1.03)).all()


@pytest.mark.parametrize(("name", "norm"), EVERY)
def test_the_nearest_of_all_that_fooled_is_given_back(name, norm):
    images, labels = small.images(6)
    found = run(name, norm, images, labels, small.network(), steps=30)
    assert found.success.all()
    # Distances before each step; the last iterate is looked at by no step.
    last = run(name, norm, images, labels, small.network(), steps=15)
    both = found.success & last.success
    assert np.median(found.distances[both] / last.distances[both]) < 1.02
    assert (-found.losses.max(1) <= found.distances + 1e-5).all()
    alone = run(name, norm, images[2], labels[2], small.network(), steps=30)
    np.testing.assert_array_equal(alone.images, found.images[2])


# A target changes the loss alone, which knows no norm.
@pytest.mark.parametrize(
    ("name", "norm"),
    [pytest.param(*pair, marks=[pytest.mark.slow] * (pair[1] != "l2")) for pair in EVERY],
)
def test_targets_are_reached(name, norm):
    target = (LABELS + 1) % 5
    found = run(name, norm, target=target)
    np.testing.assert_array_equal(found.predictions, target)


def test_steps_shorten_and_the_radius_follows():
    """DDN's first iterates by hand: on spheres of radii 1.05, then .95 where something fooled."""
    found = run("ddn", "l2", IMAGES[:1], LABELS[:1], initial=1e-3, steps=6)
    np.testing.assert_allclose(-found.losses[0, 1:], 1e-3 * 1.05 ** np.arange(1, 6), rtol=1e-3)
    far = run("ddn", "l2", IMAGES[:1], LABELS[:1], initial=1.0, steps=3)
    np.testing.assert_allclose(-far.losses[0, 1:], [1.05, 1.05 * 0.95], rtol=1e-3)


@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_fmns_first_radius_reaches_the_boundary(norm):
    model = MODEL.replace(params=MODEL.params[:, :2])
    labels = np.asarray(model(IMAGES)).argmax(1)
    found = run("fmn", norm, labels=labels, model=model, step_size=20.0, steps=2)
    slope = np.linalg.norm(model.params[:, 0] - model.params[:, 1], 1 if norm == "linf" else np.inf)
    least = np.abs(np.diff(np.asarray(model(IMAGES)), axis=1)[:, 0]) / slope
    np.testing.assert_allclose(-found.losses[:, 1], least, rtol=1e-3)


def following(label, **about):
    """FMN's state after one step on the first image."""
    request = prepare(MODEL, IMAGES[:1], label, norm="l2", key=0)
    plan = plan_fmn(request, steps=8, step_size=0.2)
    problem, start = jax.tree.map(lambda leaf: leaf[0], (plan.problem, plan.starts))
    state = plan.attack.init(jax.random.key(0), start)
    return plan.attack.step(jax.random.key(0), state.replace(**about), MODEL, problem)[0]


def test_fmns_radius_is_never_beyond_the_nearest_that_fooled():
    label = np.asarray(MODEL(IMAGES[:1])).argmin(1)  # which it is not taken for
    radius, best = jnp.float32(3), jnp.float32(0.1)
    found = following(label, position=IMAGES[:1] + 0.05, radius=radius, best=best)
    np.testing.assert_allclose(found.radius, 0.1)


@pytest.mark.parametrize(("step", "share"), [(0, 1), (4, 0.505), (8, 0.01)])
def test_steps_are_shortened_by_a_cosine(step, share):
    wide = jnp.float32(1)
    found = following(LABELS[:1], step=jnp.int32(step), radius=wide, best=wide)
    moved = np.linalg.norm(found.position - IMAGES[:1])
    np.testing.assert_allclose(moved, 0.2 * share, rtol=1e-4)


def test_blocked_pixels_do_not_stall_fmn():
    """Half of the pixels are black and would have to be blacker."""
    slope = MODEL.params[:, 0] - MODEL.params[:, 1]
    images = np.where(np.asarray(slope) > 0, 0, 0.5).reshape(1, *IMAGES.shape[1:])
    images = images.astype(np.float32)
    labels = np.asarray(MODEL(images)).argmax(1)
    assert run("fmn", "l2", images, labels, step_size=1.0).success.all()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("step_size", {"step_size": 0}),
        ("gamma", {"gamma": 2}),
        ("steps", {"steps": 0}),
        ("initial", {"initial": 0}),
    ],
)
def test_bad_arguments_are_named(name, options):
    which = ("ddn", "l2") if name == "initial" else ("fmn", "l2")
    with pytest.raises((TypeError, ValueError), match=f"^{name}: "):
        run(*which, **options)
