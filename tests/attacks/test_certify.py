"""Certificates: on a linear network the radius is known, and the bound is Clopper and Pearson's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from rvis import attacks
from rvis.attacks.certify import lower_bound
from tests import toys
from tests.attacks import small

SHAPE = (4, 4, 3)
RNG = np.random.default_rng(0)
WEIGHTS = RNG.standard_normal((48, 2)).astype(np.float32)
MODEL = toys.linear(WEIGHTS, SHAPE)
IMAGES = RNG.random((8, *SHAPE)).astype(np.float32)
LOGITS = np.asarray(MODEL(IMAGES), np.float64)
LABELS = LOGITS.argmax(1)
MARGINS = np.abs(LOGITS[:, 0] - LOGITS[:, 1]) / np.linalg.norm(WEIGHTS[:, 0] - WEIGHTS[:, 1])
QUIET = {"progress": False}


def test_the_bound_is_clopper_and_pearsons():
    for draws, alpha in ((100, 0.001), (1000, 0.05)):
        counts = np.array([0, 1, draws // 2, draws - 1, draws])
        expected = scipy.stats.beta.ppf(alpha, counts, draws - counts + 1)
        expected = np.where(counts == 0, 0, expected)
        np.testing.assert_allclose(lower_bound(counts, draws, alpha), expected, atol=1e-9)


def test_a_linear_networks_radius_is_bounded_by_its_margin():
    """Noise moves w·x by N(0, σ²‖w‖²): the class's probability is Φ(margin/σ)."""
    sigma, samples = 0.5, 4000
    found = attacks.certify(
        MODEL, IMAGES, LABELS, sigma=sigma, samples=samples, alpha=0.01, **QUIET
    )
    assert (found.radii <= MARGINS).all()
    assert (found.counts.sum(1) == samples).all()
    # What four standard errors below its expectation a count would prove.
    for margin, radius, label, guess in zip(
        MARGINS, found.radii, LABELS, found.predictions, strict=True
    ):
        p = scipy.stats.norm.cdf(margin / sigma)
        count = max(samples * p - 4 * math.sqrt(samples * p * (1 - p)) - 1, 0)
        worst = scipy.stats.beta.ppf(0.01, count, samples - count + 1)
        if worst > 0.5:
            assert guess == label
            assert radius >= sigma * scipy.stats.norm.ppf(worst) - 1e-6
    assert (found.radii > 0).sum() >= 3


def test_no_more_is_proved_than_samples_can_prove():
    far = MODEL.replace(params=1e3 * MODEL.params)
    white = np.where(WEIGHTS[:, 0] > WEIGHTS[:, 1], 1, 0).reshape(SHAPE).astype(np.float32)
    found = attacks.certify(far, white, 0, sigma=0.1, samples=50, alpha=0.001, **QUIET)
    assert found.radii == pytest.approx(0.1 * scipy.stats.norm.ppf(0.001 ** (1 / 50)), rel=1e-6)
    assert found.radii.shape == () and not found.abstained


def test_it_abstains_where_nothing_is_sure_and_accuracy_counts_what_is_right():
    even = MODEL.replace(params=0 * MODEL.params + 1e-9 * MODEL.params)
    images = np.full((4, *SHAPE), 0.5, np.float32)
    balanced = WEIGHTS - WEIGHTS.mean(0)
    model = even.replace(params=balanced)
    found = attacks.certify(model, images, [0, 1, 0, 1], sigma=1.0, samples=200, **QUIET)
    assert found.abstained.all() and (found.radii == 0).all()
    assert found.accuracy(0.0) == 0
    found = attacks.certify(MODEL, IMAGES, LABELS, sigma=0.25, samples=500, **QUIET)
    curve = found.accuracy([0.0, 0.1, 5.0])
    assert curve[0] >= curve[1] >= curve[2] == 0 and curve[0] > 0
    low, high = found.interval([0.0, 0.1])
    assert (low <= curve[:2]).all() and (curve[:2] <= high).all()
    wrong = attacks.certify(MODEL, IMAGES, 1 - LABELS, sigma=0.25, samples=500, **QUIET)
    assert wrong.accuracy(0.0) == 0


def test_the_same_alone_in_a_batch_and_resumed(tmp_path):
    images, labels = small.images(5)
    options = {"sigma": 0.1, "samples": 300, **QUIET}
    whole = attacks.certify(small.network(), images, labels, **options)
    alone = attacks.certify(small.network(), images[3], labels[3], **options)
    np.testing.assert_array_equal(alone.counts, whole.counts[3])

    def stop(step, pictures, votes):
        if step > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attacks.certify(
            small.network(), images, labels, callback=stop, checkpoint=tmp_path / "c", **options
        )
    again = attacks.certify(small.network(), images, labels, checkpoint=tmp_path / "c", **options)
    np.testing.assert_array_equal(again.counts, whole.counts)


def test_it_is_saved_and_drawn(tmp_path):
    found = attacks.certify(MODEL, IMAGES, LABELS, sigma=0.25, samples=100, **QUIET)
    names = {path.name for path in found.save(tmp_path).iterdir()}
    assert {"arrays.npz", "card.json"} <= names


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sigma", {"sigma": 0}),
        ("alpha", {"alpha": 1.0}),
        ("alpha", {"alpha": 0}),
        ("samples", {"samples": 0}),
        ("selection", {"selection": 0}),
        ("labels", {"labels": 7}),
    ],
)
def test_bad_arguments_are_named(name, options):
    options = {"sigma": 0.1, "labels": LABELS, **options}
    labels = options.pop("labels")
    with pytest.raises((TypeError, ValueError), match=f"^{name}: "):
        attacks.certify(MODEL, IMAGES, labels, **options)
