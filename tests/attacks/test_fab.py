"""FAB against the margins of a linear model, where the box is met and where it is not."""

from __future__ import annotations

import numpy as np
import pytest

from rvis import attacks
from tests import toys
from tests.attacks import small

SHAPE = (4, 4, 3)
RNG = np.random.default_rng(0)
WEIGHTS = RNG.standard_normal((48, 5)).astype(np.float32)
MODEL = toys.linear(WEIGHTS, SHAPE)
IMAGES = (0.5 + 0.05 * RNG.standard_normal((6, *SHAPE))).astype(np.float32)
LOGITS = np.asarray(MODEL(IMAGES))
LABELS = LOGITS.argmax(1)
DUALS = {"linf": 1, "l2": 2, "l1": np.inf}


def run(images=IMAGES, labels=LABELS, model=MODEL, **options):
    return attacks.fab(model, images, labels, progress=False, **{"steps": 15, **options})


def margins(norm):
    """(6, 5) how far the boundaries between labels and classes are."""
    gaps = LOGITS[np.arange(6), LABELS, None] - LOGITS
    slopes = np.linalg.norm(WEIGHTS[:, None] - WEIGHTS[:, :, None], DUALS[norm], axis=0)
    with np.errstate(invalid="ignore"):
        return np.where(gaps > 0, gaps / slopes[LABELS], np.inf)


@pytest.mark.parametrize("norm", DUALS)
def test_a_linear_model_is_left_just_beyond_its_margin(norm):
    result = run(norm=norm)
    assert result.success.all()
    np.testing.assert_array_equal(result.predictions, margins(norm).argmin(1))
    ratio = result.distances / margins(norm).min(1)
    assert (ratio >= 1 - 1e-4).all() and (ratio <= 1.06).all()


# That its steps are those of each norm is seen above and in the steps by hand.
ONE_NORM = [pytest.param(norm, marks=[pytest.mark.slow] * (norm != "l2")) for norm in DUALS]


@pytest.mark.parametrize("norm", ONE_NORM)
def test_with_a_target_it_goes_to_the_targets_boundary(norm):
    target = margins(norm).argsort(1)[:, 2]
    result = run(norm=norm, target=target, steps=40)
    np.testing.assert_array_equal(result.predictions, target)
    least = margins(norm)[np.arange(6), target]
    assert (result.distances >= least * (1 - 1e-4)).all()
    assert (result.distances <= 3 * least).all()


def test_what_is_farther_than_the_radius_does_not_count():
    least = margins("l2").min(1)
    eps = np.where(np.arange(6) % 2, 1.1, 0.9) * least
    result = run(norm="l2", eps=eps)
    np.testing.assert_array_equal(result.success, np.arange(6) % 2 == 1)
    np.testing.assert_array_equal(result.images[::2], IMAGES[::2])
    assert (result.distances <= eps * (1 + 1e-6)).all()


@pytest.mark.parametrize("norm", ONE_NORM)
def test_on_a_curved_model_it_is_as_near_as_deepfool(norm):
    images, labels = small.images(12)
    model = small.network()
    result = run(images, labels, model, norm=norm, steps=30)
    assert result.success.all()
    other = attacks.deepfool(
        model, images, labels, norm=norm if norm != "l1" else "l2", progress=False
    )
    assert np.median(result.distances / other.distance(norm)) < (1.001 if norm != "l1" else 0.7)
    once = run(images, labels, model, norm=norm, steps=1)
    assert result.distances.sum() < once.distances.sum() or not once.success.all()


def test_it_crosses_a_boundary_however_near_that_is():
    """Between a margin of 0 and what rounding may undo it would go to and fro for ever."""
    slope = WEIGHTS[:, 0] - WEIGHTS[:, 1]
    gaps = IMAGES.reshape(6, -1) @ slope - np.float32([1e-4, 1e-5, 1e-6, -1e-6, 1e-3, 1e-2])
    images = IMAGES - (gaps[:, None] * slope / np.square(slope).sum()).reshape(IMAGES.shape)
    model = toys.linear(WEIGHTS[:, :2], SHAPE)
    labels = np.asarray(model(images)).argmax(1)
    assert run(images.astype(np.float32), labels, model, norm="l2").success.all()


@pytest.mark.parametrize(("norm", "nearest"), [("linf", 1), ("l1", 2)])
def test_the_nearest_boundary_is_that_of_the_norm(norm, nearest):
    """Class 1 rises slowly with all pixels, class 2 with two; its logit is the higher one."""
    weights = np.zeros((48, 3), np.float32)
    weights[:, 1] = np.where(np.arange(48) < 22, 0.1, -0.1)
    weights[:2, 2] = 0.3, -0.6
    image = np.full(SHAPE, 0.5, np.float32)  # whose logits are 0, −.2 and −.15
    found = run(image, 0, toys.linear(weights, SHAPE), norm=norm, steps=1)
    assert found.predictions == nearest


def test_steps_by_hand():
    """On the straight way to a plane, in shares of the distance to it."""
    model = toys.linear(WEIGHTS[:, :2], SHAPE)
    logits = np.asarray(model(IMAGES))
    result = run(labels=logits.argmax(1), model=model, norm="l2", steps=4)
    margin = np.abs(logits[:, 0] - logits[:, 1]) / np.linalg.norm(WEIGHTS[:, 0] - WEIGHTS[:, 1])
    at, expected = 0.0, []
    for _ in range(4):
        share = min(abs(1 - at) / (abs(1 - at) + 1), 0.1)
        expected.append((1 - share) * (at + 1.05 * (1 - at)) + share * 1.05)
        at = 0.9 * expected[-1]
    ratios = -result.losses / margin[:, None]
    np.testing.assert_allclose(ratios, np.tile(expected, (6, 1)), rtol=5e-4)


def test_restarts_begin_elsewhere_and_find_no_less():
    images, labels = small.images(6)
    options = {"norm": "linf", "eps": 0.03, "steps": 4}
    once = run(images, labels, small.network(), **options)
    often = run(images, labels, small.network(), restarts=3, **options)
    assert often.losses.shape == (6, 12)
    np.testing.assert_array_equal(often.losses[:, :4], once.losses)
    assert (often.losses[:, 4:8] != once.losses).any(1).all()
    assert (
        often.distances[often.success & once.success]
        <= once.distances[often.success & once.success]
    ).all()


def test_an_image_is_the_same_alone_and_among_others():
    images, labels = small.images(9)
    whole = run(images, labels, small.network(), eps=0.05, steps=6)
    alone = run(images[4], labels[4], small.network(), eps=0.05, steps=6)
    np.testing.assert_array_equal(alone.images, whole.images[4])
    assert whole.config["function"] == "fab"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("norm", {"norm": "l22"}),
        ("steps", {"steps": 0}),
        ("restarts", {"restarts": 0}),
        ("eps", {"eps": -1.0}),
        ("model", {"model": toys.linear(WEIGHTS[:, :1], SHAPE), "labels": 0}),
    ],
)
def test_bad_arguments_are_named(name, options):
    with pytest.raises((TypeError, ValueError), match=rf"^{name}: "):
        run(**options)


def test_a_curve_by_fab_needs_no_loss():
    images, labels = small.images(6)
    options = {"epsilons": (0.005, 0.05), "attack": "fab", "steps": 10, "progress": False}
    curve = attacks.robustness(small.network(), images, labels, **options)
    assert curve.accuracies[0] > curve.accuracies[1]
    with pytest.raises(ValueError, match="^loss: none was expected"):
        attacks.robustness(small.network(), images, labels, loss="ce", **options)
