"""HopSkipJump on linear networks, whose margins are known, by the class alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rvis import attacks
from rvis.attacks.hop_skip_jump import _JUMP, _PROBE, plan_hop_skip_jump
from rvis.attacks.request import prepare
from rvis.types import identity
from tests.attacks import small
from tests.attacks.test_fab import IMAGES, LABELS, MODEL, RNG, SHAPE, margins


def run(images=IMAGES, labels=LABELS, model=MODEL, **options):
    options = {"steps": 2500, "progress": False, **options}
    return attacks.hop_skip_jump(model, images, labels, **options)


def hard(params, images, *, tap=identity, relu=jax.nn.relu):
    """A linear network that tells its class and nothing else."""
    z = images.reshape(images.shape[0], -1) @ params
    return tap("out", jax.nn.one_hot(z.argmax(-1), z.shape[-1], dtype=jnp.float32))


@pytest.mark.parametrize(("norm", "slack"), [("l2", 1.1), ("linf", 1.6)])
def test_it_comes_near_the_margin_of_a_network_that_tells_its_class_alone(norm, slack):
    found = run(model=MODEL.replace(apply=hard), norm=norm)
    assert found.success.all()
    ratio = found.distances / margins(norm).min(1)
    assert (ratio >= 1 - 1e-4).all() and np.median(ratio) < slack


def test_queries_bring_it_nearer_and_are_counted():
    images, labels = small.images(6)
    few, many = (run(images, labels, small.network(), steps=n) for n in (250, 2500))
    assert few.losses.shape == (6, 250)
    assert (many.distances <= few.distances).all()
    assert many.distances.mean() < 0.7 * few.distances.mean()
    np.testing.assert_array_equal(many.losses[:, :250], few.losses)
    alone = run(images[4], labels[4], small.network(), steps=250)
    np.testing.assert_array_equal(alone.images, few.images[4])


def test_the_boundary_is_met_by_halving_between_start_and_image():
    start = IMAGES[:1].copy()
    start[0] = np.where(MODEL.params[:, 2] > MODEL.params[:, LABELS[0]], 1, 0).reshape(SHAPE)
    found = run(IMAGES[:1], LABELS[:1], start=start, steps=14)
    assert found.success.all() and found.iterations[0] == 0
    spread = (found.images[0] - IMAGES[0]) / (start[0] - IMAGES[0])
    np.testing.assert_allclose(spread, spread.mean(), rtol=1e-3)
    whole = np.linalg.norm(start[0] - IMAGES[0])
    halves = -found.losses[0] / whole
    np.testing.assert_allclose(halves[0], 1, rtol=1e-5)
    np.testing.assert_allclose(halves[1], 0.5, rtol=1e-5)
    assert np.isin(np.round(halves[2], 4), (0.25, 0.75))


def following(label, phase, count, **about):
    """The state after one query about the first image, whose place on the boundary is its own."""
    request = prepare(MODEL, IMAGES[:1], label, norm="l2", key=0)
    plan = plan_hop_skip_jump(request, steps=1)
    problem, start = jax.tree.map(lambda leaf: leaf[0], (plan.problem, plan.starts))
    state = jax.jit(plan.attack.init)(jax.random.key(0), start)
    state = state.replace(phase=jnp.int32(phase), count=jnp.int32(count), edge=start.given, **about)
    step = jax.jit(type(plan.attack).step)
    return step(plan.attack, jax.random.key(0), state, MODEL, problem)[0]


def test_a_direction_is_of_votes_less_their_mean():
    label = np.asarray(MODEL(IMAGES[:1])).argmin(1)  # so that every probe fools
    seen, voted = 1e4 * RNG.standard_normal((2, 1, *SHAPE)).astype(np.float32)
    # The last of 100 probes, of which 80 fooled: less the mean of 80 − 20 votes in 100.
    found = following(label, _PROBE, 99, votes=jnp.float32(59), seen=seen, voted=voted)
    expected = voted - 0.6 * seen
    np.testing.assert_allclose(found.jump, expected / np.linalg.norm(expected), atol=1e-3)


def test_a_jump_that_fools_nothing_is_halved():
    found = following(LABELS[:1], _JUMP, 0, size=jnp.float32(0.8))
    assert found.size == jnp.float32(0.4) and found.phase == _JUMP


def test_a_target_needs_a_start_and_is_kept():
    target = (LABELS + 1) % 5
    with pytest.raises(ValueError, match="^start: "):
        run(target=target)
    start = np.stack(
        [np.where(w > 0, 1, 0).reshape(SHAPE) for w in np.asarray(MODEL.params).T[target]]
    ).astype(np.float32)
    kept = np.asarray(MODEL(start)).argmax(1) == target
    found = run(target=target, start=start, steps=400)
    np.testing.assert_array_equal(found.success, kept)
    assert kept.any() and (found.predictions[kept] == target[kept]).all()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("norm", {"norm": "l1"}),
        ("steps", {"steps": 0}),
        ("start", {"start": IMAGES[:2]}),
        ("start", {"start": IMAGES[:, :2]}),
    ],
)
def test_bad_arguments_are_named(name, options):
    with pytest.raises((TypeError, ValueError), match=f"^{name}: "):
        run(**options)
