"""Class activation maps: on a network with global pooling, and their formulas."""

from __future__ import annotations

import numpy as np
import pytest

import rvis
from rvis import attribution, objectives
from tests import toys

MODEL = toys.pointwise()
IMAGES = np.random.default_rng(3).random((3, *MODEL.input_shape), np.float32)
QUIET = {"progress": False}
ACTIVATIONS = np.asarray(rvis.record(MODEL, IMAGES, "relu")["relu"])
DENSE = np.asarray(MODEL.params["dense"])


def test_grad_cam_is_cam_on_a_network_with_global_pooling():
    result = attribution.grad_cam(MODEL, IMAGES, [0, 1, 1], **QUIET)
    cam = np.einsum("nhwk,kn->nhw", ACTIVATIONS, DENSE[:, [0, 1, 1]])
    np.testing.assert_allclose(result.raw, np.maximum(cam, 0) / 48, atol=1e-6)
    assert result.raw.max() > 0
    assert result.config["layer"] == "relu"
    np.testing.assert_allclose(result.maps, result.raw, atol=1e-6)


def test_grad_cam_plus_follows_its_closed_form():
    layer = "conv"
    result = attribution.grad_cam_plus(MODEL, IMAGES, 1, layer=layer, **QUIET)
    before = np.asarray(rvis.record(MODEL, IMAGES, layer)[layer])
    for image in range(3):
        weights = np.zeros(4)
        for k in range(4):
            a = before[image, :, :, k].astype(np.float64)
            g = np.where(a > 0, DENSE[k, 1] / 48, 0)
            for i in range(6):
                for j in range(8):
                    bottom = 2 * g[i, j] ** 2 + a.sum() * g[i, j] ** 3
                    alpha = g[i, j] ** 2 / bottom if bottom else 0
                    weights[k] += alpha * max(g[i, j], 0)
        expected = np.maximum(before[image] @ weights, 0)
        np.testing.assert_allclose(result.raw[image], expected, rtol=1e-4, atol=1e-6)


def test_activation_times_gradient_sums_to_the_score():
    result = attribution.layer_gradient_x_activation(MODEL, IMAGES, 0, layer="relu", **QUIET)
    assert result.raw.shape == (3, 6, 8, 4)
    np.testing.assert_allclose(result.raw, ACTIVATIONS * DENSE[:, 0] / 48, atol=1e-6)
    np.testing.assert_allclose(result.raw.sum((1, 2, 3)), result.scores, atol=1e-5)
    np.testing.assert_allclose(result.maps, result.raw.sum(-1), atol=1e-6)


@pytest.mark.parametrize(("name", "layer"), [("mnist_cnn", "pool2"), ("cifar10_resnet", "layer4")])
def test_the_last_layer_with_places_is_the_default(name, layer):
    model = rvis.load(name)
    images = np.zeros((1, *model.input_shape), np.float32)
    result = attribution.grad_cam(model, images, 0, **QUIET)
    assert result.config["layer"] == layer
    assert result.maps.shape == images.shape[:3]


def test_the_layer_lies_before_the_target():
    result = attribution.grad_cam(MODEL, IMAGES, objectives.channel("relu", 0), **QUIET)
    assert result.config["layer"] == "conv"
    for layer, target, message in (
        ("relo", 0, "layer: unknown 'relo'; did you mean 'relu'"),
        ("dense", 0, r"layer: one with places .* given 'dense' of shape \(2,\)"),
        ("relu", objectives.channel("conv", 0), "layer: one before the target's"),
        (None, objectives.channel("conv", 0), "layer: pointwise has none"),
    ):
        with pytest.raises(ValueError, match=message):
            attribution.grad_cam(MODEL, IMAGES, target, layer=layer, **QUIET)
