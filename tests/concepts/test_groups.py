"""Groups: the identity of effects, icons, the figure, refusals."""

from __future__ import annotations

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rvis
from rvis.concepts import factors, groups
from tests import toys

IMAGE = np.random.default_rng(0).random((6, 8, 3)).astype(np.float32)
MODEL = toys.pointwise()


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
    factors._hals.clear_cache()
    for i in range(3):
        groups.factorize(MODEL, IMAGE * (i + 1) / 3, "relu", k=3, steps=5 + i, classes=[i % 2])
    assert factors._hals._cache_size() == 1


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
