"""DeepFool against the margins of a linear model, and its invariants."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rvis import attacks
from rvis.engine import programs
from rvis.types import identity
from tests import toys

SHAPE = (4, 4, 3)
RNG = np.random.default_rng(0)
WEIGHTS = RNG.standard_normal((48, 5)).astype(np.float32)
MODEL = toys.linear(WEIGHTS, SHAPE)
IMAGES = (0.5 + 0.05 * RNG.standard_normal((6, *SHAPE))).astype(np.float32)
LOGITS = np.asarray(MODEL(IMAGES))
LABELS = LOGITS.argmax(1)
NORMS = {"l2": 2, "linf": 1}


def run(images=IMAGES, labels=LABELS, model=MODEL, **options):
    return attacks.deepfool(model, images, labels, progress=False, **options)


def nearest(image, dual):
    """The distance to the nearest boundary, and the class beyond."""
    gaps = LOGITS[image, LABELS[image]] - LOGITS[image]
    slopes = np.linalg.norm(WEIGHTS - WEIGHTS[:, LABELS[image], None], dual, axis=0)
    with np.errstate(invalid="ignore"):
        ways = np.where(np.arange(5) == LABELS[image], np.inf, gaps / slopes)
    return ways.min(), ways.argmin()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("overshoot", [0.0005, 0.02])
def test_a_linear_model_is_left_at_its_margin(norm, overshoot):
    result = run(norm=norm, overshoot=overshoot)
    expected = [nearest(i, NORMS[norm]) for i in range(len(IMAGES))]
    assert result.success.all()
    np.testing.assert_array_equal(result.predictions, [c for _, c in expected])
    margins = (1 + overshoot) * np.asarray([d for d, _ in expected])
    np.testing.assert_allclose(result.distances, margins, rtol=1e-3)
    np.testing.assert_array_equal(result.iterations, 1)


def test_the_box_is_kept_and_what_it_takes_is_made_up_for():
    images = np.where(RNG.random((4, *SHAPE)) < 0.5, 0, 1).astype(np.float32)
    labels = np.asarray(MODEL(images)).argmax(1)
    result = run(images, labels)
    assert result.success.all()
    assert result.images.min() >= 0 and result.images.max() <= 1
    assert result.iterations.max() > 1


def test_what_is_fooled_already_stays_as_it_is():
    result = run(labels=(LABELS + 1) % 5)
    np.testing.assert_array_equal(result.images, IMAGES)
    np.testing.assert_array_equal(result.iterations, 0)


def test_only_candidates_are_tried():
    second = np.argsort(LOGITS, 1)[:, -2]
    np.testing.assert_array_equal(run(candidates=1).predictions, second)


def test_a_model_without_gradient_is_not_fooled():
    flat = MODEL.replace(params=jnp.zeros_like(MODEL.params))
    result = run(labels=0, model=flat)
    assert not result.success.any()
    np.testing.assert_array_equal(result.images, IMAGES)
    np.testing.assert_array_equal(result.iterations, -1)


def rounding(params, images, *, tap=identity, relu=jax.nn.relu):
    """Logits whose last bits depend, as sums do, on how many images there are."""
    z = images.reshape(images.shape[0], -1) @ params
    return tap("out", z + (images.shape[0] > 1) * 2e-6 * z)


@pytest.mark.parametrize("norm", NORMS)
def test_success_is_what_it_says_whatever_rounds(norm):
    model = MODEL.replace(apply=rounding)
    result = run(model=model, norm=norm, overshoot=0.0)
    assert result.success.all()
    z = np.asarray(model(result.images), np.float64)
    own = z[np.arange(6), LABELS].copy()
    z[np.arange(6), LABELS] = -np.inf
    # Another program may add in another order: the margin is no tie.
    assert (z.max(1) - own > 5e-6 * np.abs(own)).all()


def test_an_image_leaves_with_its_first_success():
    result = run(steps=7)
    np.testing.assert_array_equal(np.isnan(result.losses), [[False] + [True] * 6] * 6)
    assert (result.losses[:, 0] > 0).all()


@pytest.mark.parametrize("norm", NORMS)
def test_a_curved_model_is_fooled_alone_and_in_a_batch_alike(norm):
    model = toys.pointwise(channels=3, width=6, classes=4, size=(4, 4))
    images = RNG.random((5, 4, 4, 3)).astype(np.float32)
    labels = np.asarray(model(images)).argmax(1)
    whole = run(images, labels, model, norm=norm)
    again = run(images, labels, model, norm=norm)
    np.testing.assert_array_equal(whole.images, again.images)
    for i in range(5):
        alone = run(images[i], labels[i], model, norm=norm)
        np.testing.assert_array_equal(alone.images, whole.images[i])


def test_numbers_and_labels_trace_once():
    run()
    begun = programs.advance._cache_size()
    for steps, overshoot, labels in ((3, 0.1, LABELS), (7, 0.0, 2), (50, 0.5, 1)):
        run(steps=steps, overshoot=overshoot, labels=labels)
    assert programs.advance._cache_size() == begun


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("norm", {"norm": "l1"}),
        ("norm", {"norm": "l22"}),
        ("steps", {"steps": 0}),
        ("overshoot", {"overshoot": -0.1}),
        ("candidates", {"candidates": 0}),
        ("labels", {"labels": 5}),
        ("images", {"images": 2 * IMAGES}),
        ("key", {"key": 0.5}),
        ("model", {"model": toys.linear(WEIGHTS[:, :1], SHAPE), "labels": 0}),
    ],
)
def test_bad_arguments_are_named(name, options):
    with pytest.raises((TypeError, ValueError), match=rf"^{name}: "):
        run(**options)
