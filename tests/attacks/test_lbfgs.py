"""L-BFGS in the box against quadratics and the margin of a linear model, and its invariants."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rvis import attacks, engine, struct
from rvis.ascent import BoxLBFGS, Problem
from rvis.attacks.lbfgs import Escape
from rvis.engine import programs
from rvis.images import Pixel
from rvis.objectives import Objective
from tests import toys

SHAPE = (4, 4, 3)
RNG = np.random.default_rng(0)
WEIGHTS = RNG.standard_normal((48, 2)).astype(np.float32)
MODEL = toys.linear(WEIGHTS, SHAPE)
IMAGES = (0.5 + 0.05 * RNG.standard_normal((4, *SHAPE))).astype(np.float32)
LOGITS = np.asarray(MODEL(IMAGES))
LABELS = LOGITS.argmax(1)
STEEP = np.linalg.norm(WEIGHTS[:, 0] - WEIGHTS[:, 1])


def run(images=IMAGES, labels=LABELS, model=MODEL, **options):
    return attacks.lbfgs(model, images, labels, progress=False, **options)


@struct.dataclass
class Bowl(Objective):
    """−½ Σ a (z − m)², of "logits" that are the pixels."""

    a: jax.Array
    m: jax.Array
    event_ranks: ClassVar = {"a": 1, "m": 1}

    @property
    def layers(self):
        return ("logits",)

    def __call__(self, activations):
        return -0.5 * (self.a * (activations["logits"][0] - self.m) ** 2).sum()


def test_a_bowl_in_the_box_has_its_least_value_at_the_clipped_centre():
    size = 12
    identity = toys.linear(np.eye(size), (2, 2, 3)).unnamed()
    a = jnp.asarray(np.geomspace(1, 1000, size), jnp.float32)[None]
    m = jnp.asarray(RNG.uniform(-0.5, 1.5, (1, size)), jnp.float32)
    problem = Problem(Bowl(a, m))
    algorithm, keys = BoxLBFGS(Pixel((2, 2, 3))), jax.random.split(jax.random.key(0), 1)
    start = np.full((1, 1, 2, 2, 3), 0.5, np.float32)
    options = {"starts": start, "steps": 60, "pixels": 8, "failure": None, "progress": False}
    found = engine.run(algorithm, identity, problem, keys, **options)
    np.testing.assert_allclose(found.result.ravel(), np.clip(m[0], 0, 1), atol=1e-4)
    # Steepest descent needs hundreds of steps where curvatures differ a thousandfold.
    values = found.info.energy[0]
    best = -0.5 * (a * (np.clip(m, 0, 1) - m) ** 2).sum()
    assert (values > best - 1e-3 * abs(best)).sum() > 20


@pytest.mark.parametrize("targeted", [False, True])
def test_a_linear_model_is_left_at_its_margin(targeted):
    result = run(target=1 - LABELS if targeted else None, binary_search_steps=14)
    expected = np.abs(LOGITS[:, 0] - LOGITS[:, 1]) / STEEP
    assert result.success.all()
    np.testing.assert_allclose(result.distances, expected, rtol=0.01)
    np.testing.assert_allclose(result.distance("rms"), result.distances / np.sqrt(48), rtol=1e-6)


def test_beside_a_wall_the_nearest_point_of_the_box_is_found():
    # 4a + b against e, from (.05, .8, .2): a can fall by .05 alone, and b and e share the rest.
    weights = np.zeros((48, 2), np.float32)
    weights[:2, 0], weights[2, 1] = (4, 1), 1
    image = np.full(48, 0.5, np.float32)
    image[:3] = 0.05, 0.8, 0.2
    result = run(image.reshape(SHAPE), 0, toys.linear(weights, SHAPE), binary_search_steps=14)
    assert result.success.all()
    np.testing.assert_allclose(result.images.ravel()[:3], [0, 0.5, 0.5], atol=0.01)
    assert result.distances == pytest.approx(np.sqrt(0.05**2 + 2 * 0.3**2), rel=0.01)


def test_the_loss_without_a_target_is_the_probability_of_all_others():
    z = jnp.asarray([[1.0, -2.0, 0.5]])
    expected = np.log(1 - np.exp(1.0) / np.exp(np.asarray(z)).sum())
    assert float(Escape(jnp.int32(0))({"logits": z})) == pytest.approx(expected, rel=1e-5)


def test_logits_of_any_scale_give_the_same_distance():
    loud = MODEL.replace(params=1000 * MODEL.params)
    plain, scaled = run(binary_search_steps=14), run(model=loud, binary_search_steps=18)
    np.testing.assert_allclose(scaled.distances, plain.distances, rtol=0.03)


def test_what_is_fooled_already_stays_as_it_is():
    result = run(labels=1 - LABELS, binary_search_steps=1, steps=5)
    np.testing.assert_array_equal(result.images, IMAGES)


def test_the_batch_equals_its_members_and_the_same_call_itself():
    whole, again = run(), run()
    np.testing.assert_array_equal(whole.images, again.images)
    for i in range(4):
        np.testing.assert_array_equal(run(IMAGES[i], LABELS[i]).images, whole.images[i])


def test_numbers_and_labels_trace_once():
    run()
    begun = programs.advance._cache_size()
    run(weight=0.1)
    run(labels=1, binary_search_steps=10, steps=30)
    assert programs.advance._cache_size() == begun


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("binary_search_steps", {"binary_search_steps": 0}),
        ("steps", {"steps": 2.5}),
        ("weight", {"weight": -1.0}),
        ("target", {"target": "yes"}),
        ("labels", {"labels": 2}),
    ],
)
def test_bad_arguments_are_named(name, options):
    with pytest.raises((TypeError, ValueError), match=rf"^{name}: "):
        run(**options)
