"""Groups: the factorization, the identity of effects, icons, the figure, refusals."""

from __future__ import annotations

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rvis
from rvis.concepts import groups
from tests import toys

IMAGE = np.random.default_rng(0).random((6, 8, 3)).astype(np.float32)
MODEL = toys.pointwise()


def product(n=40, c=9, k=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((n, k)) @ rng.random((k, c))


@pytest.mark.parametrize("start", ["nndsvd", "random"])
def test_a_matrix_of_low_rank_is_factored(start):
    found = groups.nmf(product(), 3, start=start, steps=2000)
    assert found.residual < 2e-3
    assert found.maps.min() >= 0
    assert found.vectors.min() >= 0
    np.testing.assert_allclose(found.maps @ found.vectors, product(), atol=0.02)


def test_rank_one_is_solved_exactly():
    found = groups.nmf(product(k=1), 1, steps=3)
    assert found.residual < 1e-6


@pytest.mark.parametrize("start", ["nndsvd", "random"])
def test_more_steps_and_more_groups_leave_less(start):
    matrix = np.random.default_rng(1).random((30, 12))
    by_steps = [groups.nmf(matrix, 3, start=start, steps=s).residual for s in (1, 10, 200)]
    by_groups = [groups.nmf(matrix, k, start=start).residual for k in (1, 2, 4, 8)]
    assert by_steps == sorted(by_steps, reverse=True)
    assert by_groups == sorted(by_groups, reverse=True)


def test_the_residual_is_what_it_says():
    matrix = np.random.default_rng(1).random((5, 6, 12))
    found = groups.nmf(matrix, 3)
    left = matrix - found.maps @ found.vectors
    assert found.residual == pytest.approx(np.linalg.norm(left) / np.linalg.norm(matrix), rel=1e-4)
    assert found.maps.shape == (5, 6, 3)


def test_no_scale_of_one_group_is_better():
    matrix = np.random.default_rng(1).random((30, 12))
    found = groups.nmf(matrix, 3, steps=3000)
    left = matrix - found.maps @ found.vectors
    for j in range(3):
        slope = np.sum(left * np.outer(found.maps[:, j], found.vectors[j]))
        assert abs(slope) < 1e-3 * np.square(matrix).sum()


def test_vectors_are_of_length_one_and_groups_strongest_first():
    found = groups.nmf(product(), 3)
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, rtol=1e-5)
    lengths = np.linalg.norm(found.maps, axis=0)
    assert (np.diff(lengths) <= 0).all()


def test_keys_choose_the_random_start_and_nothing_else():
    matrix = np.random.default_rng(1).random((30, 12))
    one, again, other = (
        groups.nmf(matrix, 3, start="random", key=key, steps=5).maps for key in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    first, second = (groups.nmf(matrix, 3, key=key, steps=5).maps for key in (0, 1))
    np.testing.assert_array_equal(first, second)


def test_an_optimal_start_is_kept():
    rng = np.random.default_rng(0)
    w, h = rng.random((20, 2)), rng.random((2, 7))
    found = groups.nmf(w @ h, 2, start=(w, h), steps=1)
    assert found.residual < 1e-6


def test_nothing_has_nothing_in_it():
    found = groups.nmf(np.zeros((6, 4)), 2)
    assert found.residual == 0
    assert not found.maps.any()


@pytest.mark.parametrize(
    ("model", "layer", "image"),
    [
        (MODEL, "relu", IMAGE),
        (rvis.load("mnist_cnn"), "relu1", np.random.default_rng(0).random((28, 28, 1))),
    ],
)
def test_effects_and_the_rest_sum_to_activations_times_gradient(model, layer, image):
    image = image.astype(np.float32)
    found = groups.factorize(model, image, layer, k=3, steps=20, classes=[1, 0])
    activations = rvis.record(model, image, layer)[layer]

    @jax.jit
    @jax.grad
    def gradient(shift, number):
        def tap(name, x):
            return x + shift if name == layer else x

        return model.apply(model.params, jnp.asarray(image[None]), tap=tap)[0, number]

    activations = np.asarray(activations)
    whole = [(gradient(np.zeros_like(activations), c) * activations).sum() for c in (1, 0)]
    whole = np.asarray(whole)
    total = found.effects.sum(0) + found.rest
    np.testing.assert_allclose(total, whole, atol=1e-4 * np.abs(whole).max())


def test_effects_of_a_layer_before_a_linear_head_are_its_share_of_the_logits():
    found = groups.factorize(MODEL, IMAGE, "relu", k=4, steps=50, classes=[0, 1])
    share = np.einsum("khw,kc->kc", found.maps, found.vectors) / 48
    expected = share @ np.asarray(MODEL.params["dense"])
    np.testing.assert_allclose(found.effects, expected, rtol=1e-3, atol=1e-5)


def test_the_highest_logits_are_the_default_classes():
    model = rvis.load("mnist_cnn")
    image = np.random.default_rng(0).random((28, 28, 1)).astype(np.float32)
    found = groups.factorize(model, image, "relu2", k=2, steps=5)
    order = np.argsort(-np.asarray(model(image))[0])[:5]
    assert found.classes == tuple(model.classes[i] for i in order)


def test_icons_are_drawn_by_what_is_handed_in(tmp_path):
    asked = []

    def draw(model, objective):
        asked.append((model.name, objective))
        return types.SimpleNamespace(images=np.full((2, 6, 8, 3), 0.5, np.float32))

    found = groups.factorize(MODEL, IMAGE, "relu", k=2, draw=draw)
    assert found.icons.shape == (2, 6, 8, 3)
    name, objective = asked[0]
    assert name == "pointwise"
    np.testing.assert_array_equal(objective.vector, found.vectors)
    names = sorted(path.name for path in found.save(tmp_path).iterdir())
    assert names == ["arrays.npz", "card.json", "figure.png", "images"]


def test_the_figure_has_a_row_for_each_group():
    heights = [groups.factorize(MODEL, IMAGE, "relu", k=k).show().size[1] for k in (1, 2, 4)]
    assert heights[2] - heights[1] == 2 * (heights[1] - heights[0]) > 0


def test_colours_are_where_the_groups_are():
    maps = np.zeros((2, 4, 4), np.float32)
    maps[0, :, 0], maps[1, :, 3] = 1, 0.5
    shown = groups.coloured(np.ones((8, 8, 3), np.float32), maps)
    np.testing.assert_allclose(shown[4, 0], groups.COLOURS[0] / 255, atol=0.01)
    np.testing.assert_allclose(shown[4, 7], 0.5 + groups.COLOURS[1] / 510, atol=0.01)
    np.testing.assert_allclose(shown[4, 4], 1, atol=0.2)


def test_images_numbers_and_classes_trace_once():
    groups._hals.clear_cache()
    for i in range(3):
        groups.factorize(MODEL, IMAGE * (i + 1) / 3, "relu", k=3, steps=5 + i, classes=[i % 2])
    assert groups._hals._cache_size() == 1


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"layer": "reluu"}, ValueError, "layer: .*'relu'"),
        ({"layer": "dense"}, ValueError, "layer"),
        ({"layer": "conv"}, ValueError, "layer: one without negative"),
        ({"k": 0}, ValueError, "k"),
        ({"k": 5}, ValueError, "k: at most 4"),
        ({"start": "svd"}, ValueError, "start"),
        ({"start": 3}, TypeError, "start"),
        ({"steps": 0}, ValueError, "steps"),
        ({"classes": [2]}, ValueError, "classes"),
        ({"classes": []}, (TypeError, ValueError), "classes"),
        ({"key": "a"}, TypeError, "key"),
        ({"image": np.stack([IMAGE, IMAGE])}, ValueError, "image: one"),
    ],
)
def test_bad_arguments_are_named(options, error, match):
    options = {"image": IMAGE, "layer": "relu", "k": 2, **options}
    with pytest.raises(error, match=match):
        groups.factorize(MODEL, **options)


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
        groups.nmf(activations, 1)
