"""Carlini & Wagner's attack against the margin of a linear model, and its invariants."""

from __future__ import annotations

import numpy as np
import pytest

from rvis import attacks
from rvis.attacks.carlini_wagner import Tanh
from rvis.engine import programs
from rvis.engine.slots import Group
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
    options = {"steps": 100, "progress": False, **options}
    return attacks.carlini_wagner(model, images, labels, **options)


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("confidence", [0.0, 1.0])
def test_a_linear_model_is_left_at_its_margin(targeted, confidence):
    result = run(target=1 - LABELS if targeted else None, confidence=confidence)
    expected = (np.abs(LOGITS[:, 0] - LOGITS[:, 1]) + confidence) / STEEP
    assert result.success.all()
    np.testing.assert_allclose(result.distances, expected, rtol=0.01)
    after = np.asarray(MODEL(result.images))
    assert (np.abs(after[:, 0] - after[:, 1]) >= confidence).all()


def test_the_box_is_kept():
    images = np.where(RNG.random((2, *SHAPE)) < 0.5, 0, 1).astype(np.float32)
    result = run(images, np.asarray(MODEL(images)).argmax(1), steps=300)
    assert result.success.all()
    assert result.images.min() >= 0 and result.images.max() <= 1


def test_what_is_fooled_already_stays_as_it_is():
    result = run(labels=1 - LABELS, binary_search_steps=1, steps=5)
    np.testing.assert_array_equal(result.images, IMAGES)
    np.testing.assert_array_equal(result.iterations, 0)


def test_where_nothing_fools_the_best_attempt_is_given():
    result = run(binary_search_steps=1, steps=20, weight=1e-6, confidence=100.0)
    assert (result.iterations == -1)[~result.success].all()
    margins = np.asarray(MODEL(result.images))
    before = LOGITS[np.arange(4), LABELS] - LOGITS[np.arange(4), 1 - LABELS]
    assert (margins[np.arange(4), LABELS] - margins[np.arange(4), 1 - LABELS] < before).all()


def test_iterations_count_to_the_first_success_whatever_the_confidence():
    """A confidence that a single round does not reach leaves images that fool all the same."""
    result = run(binary_search_steps=1, steps=60, weight=1.0, confidence=100.0)
    assert result.success.all()
    first = (result.losses > 0).argmax(1)
    np.testing.assert_array_equal(result.iterations, first)
    assert (first > 0).all() and (result.losses < 100).all()


def test_an_interrupted_search_goes_on(tmp_path, monkeypatch):
    options = {"binary_search_steps": 3, "steps": 64}
    whole, plain, calls = run(**options), Group.advance, []

    def interrupted(group):
        if group.work.steps == 1:  # a forward pass
            return plain(group)
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return plain(group)

    monkeypatch.setattr(Group, "advance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint=tmp_path / "half", **options)
    with pytest.raises(ValueError, match="^checkpoint: "):
        run(checkpoint=tmp_path / "half", confidence=1.0, **options)
    before = len(calls)
    again = run(checkpoint=tmp_path / "half", **options)
    assert len(calls) - before == 2  # of three pieces
    np.testing.assert_array_equal(again.images, whole.images)
    np.testing.assert_array_equal(again.losses, whole.losses)
    assert not (tmp_path / "half").exists()


def test_more_rounds_never_come_out_farther():
    few, many = run(binary_search_steps=6), run(binary_search_steps=9)
    assert (many.distances <= few.distances).all()


def test_the_batch_equals_its_members_and_the_same_call_itself():
    whole, again = run(binary_search_steps=4), run(binary_search_steps=4)
    np.testing.assert_array_equal(whole.images, again.images)
    for i in range(4):
        alone = run(IMAGES[i], LABELS[i], binary_search_steps=4)
        np.testing.assert_array_equal(alone.images, whole.images[i])


def test_numbers_and_labels_trace_once():
    run()
    begun = programs.advance._cache_size()
    run(confidence=2.0)
    run(learning_rate=0.05, weight=0.1)
    run(labels=1, binary_search_steps=18, steps=50)
    assert programs.advance._cache_size() == begun


def test_images_pass_through_the_tangent_and_back():
    tanh = Tanh(SHAPE)
    image = np.concatenate([IMAGES[0].ravel()[:-2], [0, 1]]).reshape(SHAPE).astype(np.float32)
    np.testing.assert_allclose(tanh.decode(tanh.encode(image)), image, atol=2e-6)
    assert tanh == Tanh(SHAPE) and hash(tanh) == hash(Tanh(SHAPE))
    # What rounding has left outside [0, 1], which images may be by a millionth.
    beyond = np.full(SHAPE, 1 + 9e-7, np.float32)
    np.testing.assert_array_equal(tanh.encode(beyond), tanh.encode(np.ones(SHAPE, np.float32)))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("confidence", {"confidence": -1.0}),
        ("binary_search_steps", {"binary_search_steps": 0}),
        ("steps", {"steps": 0}),
        ("learning_rate", {"learning_rate": 0.0}),
        ("weight", {"weight": 0.0}),
        ("target", {"target": 2}),
        ("labels", {"labels": [0, 1]}),
    ],
)
def test_bad_arguments_are_named(name, options):
    with pytest.raises((TypeError, ValueError), match=rf"^{name}: "):
        run(**options)
