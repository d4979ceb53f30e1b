"""Nearest neighbours in representation space against a full sort in float64."""

from __future__ import annotations

import numpy as np
import pytest

import rvis
from rvis import data
from rvis.analysis import neighbours
from tests import toys

QUIET = {"progress": False}
MODEL = toys.pointwise()


def noise(count=23, channels=3):
    rng = np.random.default_rng(0)
    labels = np.arange(count, dtype=np.int32) % 2
    images = rng.integers(0, 256, (count, 6, 8, channels), np.uint8)
    return data.Dataset(images, labels, ("even", "odd"), "noise")


@pytest.mark.parametrize("layer", ["conv", "relu", "pool", "logits"])
@pytest.mark.parametrize("chunk", [None, 1, 5])
def test_they_are_those_of_a_full_sort(layer, chunk):
    images = noise()
    queries = np.random.default_rng(1).random((3, 6, 8, 3)).astype(np.float32)
    found = neighbours.nearest(MODEL, queries, images, layer, k=4, chunk=chunk, **QUIET)
    codes, others = (
        np.asarray(rvis.record(MODEL, x, layer)[layer], np.float64).reshape(len(x), -1)
        for x in (queries, images.floats())
    )
    lengths = np.linalg.norm(codes[:, None] - others, axis=-1)
    order = np.argsort(lengths, kind="stable")[:, :4]
    np.testing.assert_array_equal(found.indices, order)
    np.testing.assert_allclose(found.distances, np.take_along_axis(lengths, order, 1), rtol=1e-5)
    np.testing.assert_array_equal(found.images[1, 2], images.floats([order[1, 2]])[0])
    assert found.labels[0, 0] == ("even", "odd")[order[0, 0] % 2]
    assert found.show().mode == "RGB"


def test_near_distances_do_not_cancel():
    # Two representations of length about 1e3 that differ by 1e-2.
    model = toys.linear(np.full((48, 1), 1.0) * 100, (4, 4, 3))
    images = np.full((2, 4, 4, 3), 200, np.uint8)
    images[1, 0, 0, 0] = 201
    pair = data.Dataset(images, np.zeros(2, np.int32), ("a",), "pair")
    found = neighbours.nearest(model, pair.floats([0]), pair, "out", k=2, **QUIET)
    assert found.distances[0].tolist() == pytest.approx([0, 100 / 255], rel=1e-2)


def test_the_query_itself_is_left_out_when_asked():
    images = noise()
    queries = images.floats([5, 7])
    plain = neighbours.nearest(MODEL, queries, images, "conv", k=3, **QUIET)
    found = neighbours.nearest(MODEL, queries, images, "conv", k=2, exclude=[5, 7], **QUIET)
    assert plain.indices[:, 0].tolist() == [5, 7]
    assert not plain.distances[:, 0].any()
    np.testing.assert_array_equal(found.indices, plain.indices[:, 1:])


def test_a_query_has_the_same_neighbours_alone():
    images = noise()
    queries = images.floats([5, 7, 9])
    whole = neighbours.nearest(MODEL, queries, images, "relu", k=3, **QUIET)
    alone = neighbours.nearest(MODEL, queries[1], images, "relu", k=3, **QUIET)
    np.testing.assert_array_equal(alone.indices[0], whole.indices[1])
    np.testing.assert_array_equal(alone.distances[0], whole.distances[1])


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"layer": "convv"}, ValueError, "layer: .*'conv'"),
        ({"k": 24}, ValueError, "k: at most 23"),
        ({"k": 23, "exclude": [0]}, ValueError, "k"),
        ({"exclude": [23]}, ValueError, "exclude"),
        ({"exclude": [0, 1]}, ValueError, "exclude"),
        ({"exclude": [0.5]}, TypeError, "exclude"),
        ({"chunk": 0}, ValueError, "chunk"),
        ({"queries": np.zeros((5, 8, 3), np.float32)}, ValueError, "queries"),
        ({"dataset": noise(channels=1)}, ValueError, "dataset"),
        ({"dataset": np.zeros((3, 6, 8, 3), np.uint8)}, TypeError, "dataset"),
    ],
)
def test_bad_arguments_are_named(options, error, match):
    options = {"queries": np.zeros((6, 8, 3), np.float32), "dataset": noise(), **options}
    options = {"layer": "conv", **options}
    with pytest.raises(error, match=match):
        neighbours.nearest(MODEL, **options, **QUIET)
