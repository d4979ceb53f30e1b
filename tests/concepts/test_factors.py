"""Factors of many activations: non-negative, principal, clusters; over images and over crops."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import rvis
from rvis import concepts
from rvis.concepts import factors
from rvis.data import Dataset
from tests import toys

MODEL = toys.pointwise()


def product(n=40, c=9, k=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((n, k)) @ rng.random((k, c))


@pytest.mark.parametrize("start", ["nndsvd", "random"])
def test_a_matrix_of_low_rank_is_factored(start):
    found = factors.nmf(product(), 3, start=start, steps=2000)
    assert found.residual < 2e-3
    assert found.maps.min() >= 0
    assert found.vectors.min() >= 0
    np.testing.assert_allclose(found.maps @ found.vectors, product(), atol=0.02)


def test_rank_one_is_solved_exactly():
    found = factors.nmf(product(k=1), 1, steps=3)
    assert found.residual < 1e-6


@pytest.mark.parametrize("start", ["nndsvd", "random"])
def test_more_steps_and_more_groups_leave_less(start):
    matrix = np.random.default_rng(1).random((30, 12))
    by_steps = [factors.nmf(matrix, 3, start=start, steps=s).residual for s in (1, 10, 200)]
    by_groups = [factors.nmf(matrix, k, start=start).residual for k in (1, 2, 4, 8)]
    assert by_steps == sorted(by_steps, reverse=True)
    assert by_groups == sorted(by_groups, reverse=True)


def test_the_residual_is_what_it_says():
    matrix = np.random.default_rng(1).random((5, 6, 12))
    found = factors.nmf(matrix, 3)
    left = matrix - found.maps @ found.vectors
    assert found.residual == pytest.approx(np.linalg.norm(left) / np.linalg.norm(matrix), rel=1e-4)
    assert found.maps.shape == (5, 6, 3)


def test_no_scale_of_one_group_is_better():
    matrix = np.random.default_rng(1).random((30, 12))
    found = factors.nmf(matrix, 3, steps=3000)
    left = matrix - found.maps @ found.vectors
    for j in range(3):
        slope = np.sum(left * np.outer(found.maps[:, j], found.vectors[j]))
        assert abs(slope) < 1e-3 * np.square(matrix).sum()


def test_vectors_are_of_length_one_and_groups_strongest_first():
    found = factors.nmf(product(), 3)
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, rtol=1e-5)
    lengths = np.linalg.norm(found.maps, axis=0)
    assert (np.diff(lengths) <= 0).all()


def test_keys_choose_the_random_start_and_nothing_else():
    matrix = np.random.default_rng(1).random((30, 12))
    one, again, other = (
        factors.nmf(matrix, 3, start="random", key=key, steps=5).maps for key in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    first, second = (factors.nmf(matrix, 3, key=key, steps=5).maps for key in (0, 1))
    np.testing.assert_array_equal(first, second)


def test_an_optimal_start_is_kept():
    rng = np.random.default_rng(0)
    w, h = rng.random((20, 2)), rng.random((2, 7))
    found = factors.nmf(w @ h, 2, start=(w, h), steps=1)
    assert found.residual < 1e-6


def test_nothing_has_nothing_in_it():
    found = factors.nmf(np.zeros((6, 4)), 2)
    assert found.residual == 0
    assert not found.maps.any()


@pytest.mark.parametrize(
    ("activations", "match"),
    [
        (-product(), "activations"),
        (np.full((3, 3), np.nan), "activations"),
        (np.ones(3), "activations"),
    ],
)
def test_bad_activations_are_named(activations, match):
    with pytest.raises(ValueError, match=match):
        factors.nmf(activations, 1)


def noise(n=6, size=(6, 8)):
    images = np.random.default_rng(0).integers(0, 256, (n, *size, 3), np.uint8)
    return Dataset(images, np.zeros(n, np.int32), ("noise",), "noise")


def activations(data):
    return np.asarray(rvis.record(MODEL, data.floats(), "relu")["relu"]).reshape(-1, 4)


# Of five groups of the rows of default_rng(0).random((40, 9)): its Frobenius residual by
# sklearn.decomposition.NMF(5, init="nndsvda", solver="cd", tol=0, max_iter=2000).
SCIKIT_LEARN = 0.24660


def test_the_residual_is_scikit_learns():
    matrix = np.random.default_rng(0).random((40, 9))
    assert factors.nmf(matrix, 5, steps=2000).residual == pytest.approx(SCIKIT_LEARN, rel=2e-3)


def test_strengths_of_fixed_factors_are_the_nearest_that_are_not_negative():
    from scipy.optimize import nnls

    rng = np.random.default_rng(0)
    vectors, rows = rng.random((3, 7)).astype(np.float32), rng.random((5, 7)).astype(np.float32)
    encode = factors.NonNegative(vectors)
    found = np.asarray(encode.rule(encode.readings(rows)))
    expected = np.stack([nnls(vectors.T.astype(float), row)[0] for row in rows])
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_factors_of_a_data_set_are_those_of_all_its_places():
    data = noise()
    found = concepts.fit(MODEL, "relu", data, 2, steps=100, progress=False)
    key = jax.random.fold_in(jax.random.key(0), 1)
    expected = factors.nmf(activations(data), 2, key=key, steps=100)
    np.testing.assert_allclose(found.decode.vectors, expected.vectors, atol=1e-4)


def test_principal_axes_are_those_of_the_covariance():
    data = noise()
    rows = activations(data)
    found = concepts.fit(MODEL, "relu", data, 4, method="pca", progress=False)
    z = np.asarray(found(rows))
    covariance = np.cov(z.T)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-5)
    assert (np.diff(np.diag(covariance)) < 0).all()
    np.testing.assert_allclose(found.decode(z), rows, atol=1e-5)


def test_clusters_that_lie_apart_are_told_apart():
    rng = np.random.default_rng(1)
    means = 10 * np.eye(3, 5)
    rows = (means[np.repeat(np.arange(3), 30)] + 0.1 * rng.standard_normal((90, 5))).astype("f4")
    found = factors.clustered(rows, 3, "layer", key=jax.random.key(0), steps=20)
    order = np.asarray(found.decode.vectors).argmax(1)
    np.testing.assert_allclose(np.asarray(found.decode.vectors)[np.argsort(order)], means, atol=0.1)
    z = np.asarray(found(rows))
    assert set(z.ravel()) == {0.0, 1.0}
    np.testing.assert_array_equal(order[z.argmax(1)], np.repeat(np.arange(3), 30))


def test_crops_are_windows_of_the_images_averaged_over_places():
    left = np.zeros((8, 14, 14, 3), np.uint8)
    left[::2, :, :] = (255, 0, 0)
    left[1::2, :, :] = (0, 0, 255)
    data = Dataset(left, np.zeros(8, np.int32), ("one",), "two colours")
    model = toys.pointwise(size=(14, 14))
    found = concepts.fit(model, "relu", data, 2, method="kmeans", crops=3, progress=False)
    # A crop of a plain image is the plain image again, so that the means are its activations.
    plain = np.asarray(rvis.record(model, data.floats([0, 1]), "relu")["relu"])[:, 0, 0]
    means = np.asarray(found.decode.vectors)
    apart = np.linalg.norm(means[:, None] - plain, axis=-1)
    assert apart.min(0).max() < 1e-4


def test_the_same_key_gives_the_same_crops():
    one, same, other = (
        concepts.fit(MODEL, "relu", noise(), 2, crops=2, key=key, steps=5, progress=False)
        for key in (0, 0, 1)
    )
    np.testing.assert_array_equal(one.decode.vectors, same.decode.vectors)
    assert (np.asarray(one.decode.vectors) != other.decode.vectors).any()


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"method": "ica"}, ValueError, "method"),
        ({"layer": "reluu"}, ValueError, "layer.*relu"),
        ({"layer": "conv"}, ValueError, "layer: one without negative"),
        ({"k": 5}, ValueError, "k: "),
        ({"k": 0}, ValueError, "k: "),
        ({"crops": -1}, ValueError, "crops"),
        ({"steps": 0}, ValueError, "steps"),
        ({"dataset": 3}, TypeError, "dataset"),
        ({"key": "a"}, TypeError, "key"),
    ],
)
def test_a_bad_argument_of_fit_is_named(options, error, match):
    options = {"model": MODEL, "layer": "relu", "dataset": noise(), "k": 2, **options}
    with pytest.raises(error, match=match):
        concepts.fit(**options, progress=False)
