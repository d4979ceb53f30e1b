"""Gradients, paths and noise against closed forms; the ReLU rules worked by hand."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rvis
from rvis import attribution, objectives
from rvis.attribution.integrated import quadrature
from rvis.types import identity
from tests import toys

SHAPE = (4, 5, 2)
RNG = np.random.default_rng(0)
WEIGHTS = RNG.standard_normal((40, 3)).astype(np.float32)
LINEAR = toys.linear(WEIGHTS, SHAPE)
IMAGES = RNG.random((3, *SHAPE), np.float32)
CLASSES = [2, 0, 1]
OWN = WEIGHTS.T[CLASSES].reshape(3, *SHAPE)
QUIET = {"progress": False}


def square_apply(params, images, *, tap=identity, relu=jax.nn.relu):
    """One logit, Σ w·x²."""
    return tap("out", (params * images**2).sum((1, 2, 3))[:, None])


SQUARE = rvis.Model(jnp.asarray(OWN[0]), square_apply, ("out",), SHAPE, (), "square")


def test_the_gradient_of_a_linear_function_is_its_weights():
    result = attribution.gradient(LINEAR, IMAGES, CLASSES, **QUIET)
    np.testing.assert_array_equal(result.maps, OWN)
    expected = (IMAGES * OWN).sum((1, 2, 3))
    np.testing.assert_allclose(result.scores, expected, rtol=1e-5)
    assert result.labels.tolist() == ["class 2", "class 0", "class 1"]


def test_input_times_gradient_sums_to_a_linear_score():
    result = attribution.input_x_gradient(LINEAR, IMAGES, CLASSES, **QUIET)
    np.testing.assert_array_equal(result.maps, IMAGES * OWN)
    np.testing.assert_allclose(result.maps.sum((1, 2, 3)), result.scores, rtol=1e-4)


@pytest.mark.parametrize(
    "method",
    [
        attribution.gradient,
        attribution.guided_backprop,
        attribution.deconvnet,
        attribution.grad_cam,
        attribution.grad_cam_plus,
        attribution.layer_gradient_x_activation,
    ],
)
def test_scores_are_the_models_and_their_own_in_memory(method):
    model = toys.pointwise()
    images = RNG.random((5, *model.input_shape), np.float32)
    result = method(model, images, [0, 1, 1, 0, 1], chunk=2, **QUIET)
    expected = np.asarray(model(images))[np.arange(5), [0, 1, 1, 0, 1]]
    np.testing.assert_allclose(result.scores, expected, rtol=1e-5)
    assert result.scores.base is None or result.scores.base.nbytes == result.scores.nbytes


BASELINES = {
    "number": 0.25,
    "image": RNG.random(SHAPE, np.float32),
    "set": RNG.random((4, *SHAPE), np.float32),
}


@pytest.mark.parametrize("rule", ["gauss-legendre", "midpoint"])
@pytest.mark.parametrize("steps", [1, 2, 7, 70])
def test_integrated_gradients_are_exact_on_linear_functions(rule, steps):
    result = attribution.integrated_gradients(
        LINEAR, IMAGES, CLASSES, baseline=0.25, rule=rule, steps=steps, **QUIET
    )
    np.testing.assert_allclose(result.maps, (IMAGES - 0.25) * OWN, atol=2e-6)
    np.testing.assert_allclose(result.gap, 0, atol=2e-5)


@pytest.mark.parametrize("name", BASELINES)
def test_any_baseline_or_set_of_them(name):
    baseline = BASELINES[name]
    result = attribution.integrated_gradients(
        SQUARE, IMAGES, 0, baseline=baseline, steps=4, **QUIET
    )
    start = np.square(baseline).mean(0) if name == "set" else np.square(baseline)
    np.testing.assert_allclose(result.maps, OWN[0] * (IMAGES**2 - start), atol=2e-6)
    np.testing.assert_allclose(result.gap, 0, atol=2e-5)


@pytest.mark.parametrize("rule", ["gauss-legendre", "midpoint"])
@pytest.mark.parametrize("steps", [1, 5, 64, 65])
def test_quadrature_weights_sum_to_one_and_integrate_lines(rule, steps):
    nodes, weights = quadrature(rule, steps)
    assert weights.sum() == pytest.approx(1, abs=1e-6)
    assert weights @ nodes == pytest.approx(0.5, abs=1e-6)
    assert ((nodes[:steps] > 0) & (nodes[:steps] < 1)).all()
    assert not nodes[steps:].any()


def test_gauss_legendre_beats_midpoint_on_a_smooth_function():
    nodes, weights = quadrature("gauss-legendre", 4)
    assert weights @ np.exp(nodes) == pytest.approx(np.e - 1, abs=1e-6)
    nodes, weights = quadrature("midpoint", 4)
    assert abs(weights @ np.exp(nodes) - (np.e - 1)) > 1e-4


@jax.jit
@jax.vmap
def drawn(i):
    return jax.random.normal(jax.random.fold_in(jax.random.key(7), i), SHAPE)


@pytest.mark.parametrize("samples", [1, 3, 33])
def test_smoothgrad_and_its_forms_are_moments_of_the_noisy_gradients(samples):
    noise = drawn(jnp.arange(samples))
    spread = IMAGES.max((1, 2, 3)) - IMAGES.min((1, 2, 3))
    copies = IMAGES[:, None] + 0.2 * spread[:, None, None, None, None] * np.asarray(noise)
    gradients = 2 * OWN[0] * copies
    options = {"noise": 0.2, "samples": samples, "key": 7, **QUIET}
    mean = attribution.smoothgrad(SQUARE, IMAGES, 0, **options).maps
    np.testing.assert_allclose(mean, gradients.mean(1), atol=1e-5)
    variance = attribution.vargrad(SQUARE, IMAGES, 0, **options).maps
    np.testing.assert_allclose(variance, gradients.var(1), rtol=1e-4, atol=1e-6)


def test_a_constant_gradient_has_no_variance():
    maps = attribution.vargrad(LINEAR, IMAGES, 0, samples=20, **QUIET).maps
    np.testing.assert_allclose(maps, 0, atol=1e-12)


def test_the_rules_for_the_relu_worked_by_hand():
    model = toys.pointwise()
    images = RNG.random((2, *model.input_shape), np.float32)
    conv, dense = (np.asarray(model.params[name]) for name in ("conv", "dense"))
    places = model.input_shape[0] * model.input_shape[1]
    back = dense[:, 1] / places
    on = images @ conv > 0
    assert (back < 0).any()
    assert not on.all()
    for method, signal in (
        ("gradient", np.where(on, back, 0)),
        ("guided_backprop", np.where(on, np.maximum(back, 0), 0)),
        ("deconvnet", np.broadcast_to(np.maximum(back, 0), on.shape)),
    ):
        maps = getattr(attribution, method)(model, images, 1, **QUIET).maps
        np.testing.assert_allclose(maps, signal @ conv.T, atol=1e-6, err_msg=method)


@pytest.mark.parametrize("method", ["guided_backprop", "deconvnet"])
def test_a_network_without_activations_is_refused(method):
    class Linear(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(2)(nn.Conv(4, (3, 3))(x).mean((1, 2)))

    variables = Linear().init(jax.random.key(0), np.zeros((1, 8, 8, 3)))
    model = rvis.from_linen(Linear(), variables, input_shape=(8, 8, 3))
    image = np.zeros((8, 8, 3), np.float32)
    with pytest.raises(ValueError, match="model: .* applies no ReLU"):
        getattr(attribution, method)(model, image, 0, **QUIET)
    assert np.isfinite(attribution.gradient(model, image, 0, **QUIET).maps).all()


def test_a_unit_inside_the_network():
    model = toys.pointwise()
    images = RNG.random((2, *model.input_shape), np.float32)
    target = objectives.neuron("conv", [3, 1], (2, 5))
    maps = attribution.gradient(model, images, target, **QUIET).maps
    np.testing.assert_allclose(maps[:, 2, 5], np.asarray(model.params["conv"]).T[[3, 1]], atol=1e-6)
    maps[:, 2, 5] = 0
    assert not maps.any()


def test_completeness_on_a_shipped_network(mnist_test):
    model = rvis.load("mnist_cnn")
    digits = np.asarray(mnist_test.floats(np.arange(4)))
    result = attribution.integrated_gradients(model, digits, mnist_test.labels[:4], **QUIET)
    difference = result.maps.sum((1, 2, 3)) + result.gap
    assert np.abs(result.gap / difference).max() < 0.005
