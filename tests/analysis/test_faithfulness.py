"""The judgement of pictures, on models whose activations are the pixels themselves."""

from __future__ import annotations

import numpy as np
import pytest

import rvis
from rvis import objectives
from tests import toys

MODEL = toys.linear(np.eye(4)[:, :2], (2, 2, 1))
LEVELS = np.array([0.1, 0.2, 0.3, 0.4], np.float32)
REAL = np.tile(LEVELS[:, None, None, None], (1, 2, 2, 1))


def test_the_percentile_is_the_share_of_lower_images():
    pictures = np.full((2, 2, 2, 1), 0.35, np.float32)
    pictures[1] = 0.15
    found = rvis.faithfulness(MODEL, objectives.channel("out", [0, 1]), pictures, REAL)
    assert found.percentile.tolist() == [75, 25]
    np.testing.assert_allclose(found.activation, [0.35, 0.15], rtol=1e-6)


def test_equal_scores_count_half():
    pictures = np.full((1, 2, 2, 1), LEVELS[2], np.float32)
    found = rvis.faithfulness(MODEL, objectives.channel("out", [0]), pictures, REAL)
    assert found.percentile.tolist() == [100 * 2.5 / 4]


@pytest.mark.parametrize("chunk", [2, None])  # the last piece is of one image
def test_a_picture_among_the_real_images_has_its_own_rank_in_any_company(chunk):
    """Its score there is to the bit its own, so that it is equal to itself."""
    model = rvis.load("mnist_cnn")
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 1), np.uint8)
    real = rvis.data.Dataset(images, np.zeros(5, np.int32), ("noise",), "noise")
    chosen = real.floats(np.arange(3))
    asked = objectives.channel("conv2", range(3))
    found = rvis.faithfulness(model, asked, chosen, real, chunk=chunk)
    steps = found.percentile / 100 * 5 - 0.5
    np.testing.assert_allclose(steps, steps.round(), atol=1e-9)


def test_the_rank_counts_units_raised_further():
    picture = np.array([0.5, 0.9, 0, 0], np.float32).reshape(1, 2, 2, 1)
    found = [
        rvis.faithfulness(MODEL, objectives.neuron("out", unit), picture, REAL).rank[0]
        for unit in (0, 1)
    ]
    assert found == [2, 1]


def test_transparent_pictures_lie_on_grey():
    clear = np.zeros((1, 2, 2, 2), np.float32)
    clear[..., 0] = 1
    found = rvis.faithfulness(MODEL, objectives.channel("out", [0]), clear, REAL)
    np.testing.assert_allclose(found.activation, 0.5)


def test_an_objective_of_no_unit_has_no_rank():
    found = rvis.faithfulness(MODEL, objectives.layer("out"), REAL[:1], REAL)
    assert found.rank.tolist() == [0]
    assert np.isnan(found.transfer).all()


def test_transfer_finds_the_counterpart_in_a_network_with_its_units_in_another_order():
    rng = np.random.default_rng(0)
    real = rng.uniform(size=(50, 2, 2, 1)).astype(np.float32)
    other = toys.linear(np.eye(4)[:, [3, 1, 0]], (2, 2, 1))
    picture = np.ones((1, 2, 2, 1), np.float32)
    found = rvis.faithfulness(MODEL, objectives.channel("out", [0]), picture, real, other=other)
    assert found.counterpart.tolist() == [2]
    np.testing.assert_allclose(found.correlation, 1, rtol=1e-5)
    assert found.transfer.tolist() == [100]


def test_classes_are_their_own_counterparts():
    other = toys.linear(np.eye(4)[:, [1, 0]], (2, 2, 1))
    found = rvis.faithfulness(MODEL, objectives.logit([1]), REAL[3:], REAL, other=other)
    assert found.counterpart.tolist() == [1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pictures": REAL[:3]}, "pictures: one for each of"),
        ({"real": 255 * REAL}, r"real: values in \[0, 1\]"),
        ({"objective": objectives.channel("uot", [0])}, "layer: unknown 'uot'"),
        ({"objective": objectives.layer("out"), "other": MODEL}, "other: objectives of single"),
        ({"chunk": 0}, "chunk: at least 1"),
    ],
)
def test_refused(change, message):
    arguments = {"objective": objectives.channel("out", [0, 1]), "pictures": REAL[:2], "real": REAL}
    arguments |= change
    with pytest.raises(ValueError, match=message):
        rvis.faithfulness(MODEL, **arguments)


def test_neurons_at_several_places_have_no_rank():
    model = toys.pointwise()
    objective = objectives.neuron("conv", [1, 2], [(0, 0), (3, 3)])
    images = np.random.default_rng(0).uniform(size=(5, 6, 8, 3)).astype(np.float32)
    assert rvis.faithfulness(model, objective, images[:2], images).rank.tolist() == [0, 0]


def test_real_images_too_small_for_a_position_are_refused():
    model = toys.pointwise()
    with pytest.raises(ValueError, match=r"position\[0\]"):
        rvis.faithfulness(
            model,
            objectives.neuron("conv", [1], (5, 5)),
            np.zeros((1, 6, 8, 3), np.float32),
            np.zeros((2, 3, 8, 3), np.float32),
        )
