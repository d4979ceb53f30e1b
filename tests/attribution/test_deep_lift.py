"""DeepLIFT against captum and its paper's examples, and FullGrad's completeness."""

from __future__ import annotations

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rvis
from rvis import attribution
from rvis.types import identity
from tests.attribution.explained import MODELS, variant
from tests.golden.attribution import seeded_networks as golden

QUIET = {"progress": False}
with np.load(pathlib.Path(__file__).parents[1] / "golden" / "attribution" / "maps.npz") as file:
    CAPTUM = {name: file[f"deep_lift/{name}"] for name in ("average", "maxima")}


@pytest.mark.parametrize("name", ["average", "maxima"])
def test_rescale_is_captums(name):
    model = variant(name)
    for image, target, baseline, expected in zip(
        golden.IMAGES, golden.CLASSES, golden.BASELINES, CAPTUM[name], strict=True
    ):
        result = attribution.deep_lift(model, image, target, baseline=baseline, **QUIET)
        np.testing.assert_allclose(result.maps, expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("rule", ["rescale", "reveal_cancel"])
@pytest.mark.parametrize("network", MODELS)
def test_maps_are_complete(network, rule):
    result = attribution.deep_lift(
        MODELS[network], golden.IMAGES, golden.CLASSES, baseline=0.3, rule=rule, **QUIET
    )
    np.testing.assert_allclose(result.gap, 0, atol=2e-4)


def small(params, images, *, tap=identity, relu=jax.nn.relu):
    """min(a, b) = a − relu(a − b), as in the paper's figure 2, and relu(a − 1 + b) beside it."""
    a, b = images[:, 0, 0, 0], images[:, 0, 1, 0]
    return jnp.stack([a - relu(a - b), relu(2 * a - b)], 1)


@pytest.mark.parametrize(
    ("rule", "target", "expected"),
    [
        # Δmin = .4: Rescale gives all to the smaller one. RevealCancel: h = relu(a − b), Δh⁺ =
        # ½(.9 + .5), Δh⁻ = ½(0 − .4): a gets .9 − .7, b gets .2.
        ("rescale", 0, [0.0, 0.4]),
        ("reveal_cancel", 0, [0.2, 0.2]),
        # Δ = 1.4 = 1.8 − .4: of ½(1.8 + 1.4) and ½(0 − .4).
        ("rescale", 1, [1.8, -0.4]),
        ("reveal_cancel", 1, [1.6, -0.2]),
    ],
)
def test_the_papers_minimum(rule, target, expected):
    model = rvis.Model((), small, (), (1, 2, 1))
    image = np.array([0.9, 0.4], np.float32).reshape(1, 2, 1)
    result = attribution.deep_lift(model, image, target, rule=rule, **QUIET)
    np.testing.assert_allclose(result.maps.ravel(), expected, atol=1e-6)


def test_several_baselines_are_averaged():
    model, image = MODELS["plain"], golden.IMAGES[0]
    both = attribution.deep_lift(model, image, 1, baseline=golden.BASELINES, **QUIET)
    each = [attribution.deep_lift(model, image, 1, baseline=b, **QUIET) for b in golden.BASELINES]
    np.testing.assert_allclose(both.maps, (each[0].maps + each[1].maps) / 2, atol=1e-6)


def test_products_of_variables_are_complete():
    def attention(params, images, *, tap=identity, relu=jax.nn.relu):
        x = images[:, 0]
        weights = jax.nn.softmax(x @ params @ jnp.swapaxes(x, 1, 2), -1)
        return (jax.nn.gelu(x) + weights @ x)[:, 0] / (1 + x.sum((1, 2))[:, None])

    weights = jnp.asarray(np.random.default_rng(0).normal(size=(2, 2)), jnp.float32)
    model = rvis.Model(weights, attention, (), (1, 3, 2))
    image = np.random.default_rng(1).random((1, 3, 2), np.float32)
    for rule in ("rescale", "reveal_cancel"):
        result = attribution.deep_lift(model, image, 1, baseline=0.2, rule=rule, **QUIET)
        # RevealCancel takes differences of exponentials in single precision.
        tolerance = 1e-4 if rule == "rescale" else 3e-3
        np.testing.assert_allclose(result.gap, 0, atol=tolerance)
        assert np.abs(result.maps).max() > 0.01


@pytest.mark.parametrize("network", MODELS)
def test_full_gradients_parts_sum_to_the_score(network):
    result = attribution.full_gradient(MODELS[network], golden.IMAGES, golden.CLASSES, **QUIET)
    np.testing.assert_allclose(result.gap, 0, atol=1e-4)
    assert result.maps.shape == golden.IMAGES.shape[:3]


def test_full_gradient_by_hand():
    """relu(2x + 1) + relu(2x − 3) at x = 1 per place: 3, of which the image gives 2, a bias 1."""

    def apply(params, images, *, tap=identity, relu=jax.nn.relu):
        both = jnp.concatenate([2 * images + 1, images * 2 - 3], -1)
        return relu(both).sum((1, 2))

    model = rvis.Model((), apply, (), (1, 2, 1))
    image = np.array([1.0, 0.5], np.float32).reshape(1, 2, 1)
    result = attribution.full_gradient(model, image, 0, **QUIET)
    np.testing.assert_allclose(result.scores, 5, rtol=1e-6)
    np.testing.assert_allclose(result.gap, 0, atol=1e-6)
    # |x ∇f| is (2, 1), scaled to (1, 0); the biases' parts (1, 1) and (0, 0) are flat.
    np.testing.assert_allclose(result.maps, [[1, 0]], atol=1e-6)


def test_unknown_rules_are_refused():
    with pytest.raises(ValueError, match="rule: unknown 'reveal'"):
        attribution.deep_lift(MODELS["plain"], golden.IMAGES, 1, rule="reveal", **QUIET)
