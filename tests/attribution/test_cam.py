"""Class activation maps: on a network with global pooling, and their formulas."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

import rvis
from rvis import attribution, objectives
from tests import toys
from tests.attribution import explained as networks
from tests.golden.attribution import seeded_networks as golden

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


FILE = pathlib.Path(__file__).parents[1] / "golden" / "attribution" / "maps.npz"
with np.load(FILE) as file:
    MAPS = dict(file)
THEIRS = {
    "grad_cam": "GradCAM",
    "grad_cam_plus": "GradCAMPlusPlus",
    "xgrad_cam": "XGradCAM",
    "hires_cam": "HiResCAM",
    "layer_cam": "LayerCAM",
    "eigen_cam": "EigenCAM",
    "score_cam": "ScoreCAM",
    "ablation_cam": "AblationCAM",
}


@pytest.mark.parametrize("network", ["plain", pytest.param("residual", marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", THEIRS)
def test_maps_are_those_of_pytorch_grad_cam(method, network):
    options = {"layer": {"plain": "relu3", "residual": "b"}[network], "signed": True, **QUIET}
    if method == "score_cam":  # they mask what is normalised already
        options["baseline"] = np.broadcast_to(np.float32(golden.MEAN), golden.SHAPE)
    function = getattr(attribution, method)
    result = function(networks.MODELS[network], golden.IMAGES, golden.CLASSES, **options)
    expected = MAPS[f"{network}/cam/{THEIRS[method]}"]
    if method == "eigen_cam":  # their sign is that of an SVD
        expected = expected * np.sign((expected * result.raw).sum((1, 2), keepdims=True))
    # They add 1e-6 to Grad-CAM++'s denominators, which are about as small.
    share = 1e-2 if method == "grad_cam_plus" else 1e-3
    np.testing.assert_allclose(result.raw, expected, atol=share * np.abs(expected).max())
    np.testing.assert_allclose(
        function(
            networks.MODELS[network], golden.IMAGES, golden.CLASSES, **{**options, "signed": False}
        ).raw,
        np.maximum(result.raw, 0),
    )


def test_an_eigen_cam_is_positive_where_most_is_active():
    raw = attribution.eigen_cam(MODEL, IMAGES, 0, layer="relu", signed=True, **QUIET).raw
    total = ACTIVATIONS.sum(-1)
    assert ((raw * (total - total.mean((1, 2), keepdims=True))).sum((1, 2)) > 0).all()


def test_layers_are_merged_by_their_maxima():
    model, image = networks.MODELS["plain"], golden.IMAGES
    one, two = (
        attribution.hires_cam(model, image, 1, layer=name, **QUIET).maps
        for name in ("pool1", "conv3")
    )
    both = attribution.hires_cam(model, image, 1, layer=["pool1", "conv3"], **QUIET)
    top_one, top_two = (maps.max((1, 2), keepdims=True) for maps in (one, two))
    np.testing.assert_allclose(both.maps, (one / top_one + two / top_two) / 2, atol=1e-6)
    assert both.raw is None
    assert both.config["layer"] == ["pool1", "conv3"]


def test_ablation_weighs_what_a_channel_alone_does():
    """The score is linear in the channels' means: w_k is channel k's own part of it."""
    result = attribution.ablation_cam(MODEL, IMAGES, 1, layer="relu", signed=True, **QUIET)
    parts = ACTIVATIONS.mean((1, 2)) * DENSE[:, 1]
    weights = parts / parts.sum(1, keepdims=True)
    np.testing.assert_allclose(
        result.raw, np.einsum("nhwk,nk->nhw", ACTIVATIONS, weights), rtol=1e-4, atol=1e-5
    )
