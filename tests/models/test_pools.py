"""Max-pooling with a smoothed gradient: by hand, in every family, and in a visualization."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rvis
from rvis import objectives, optimizers
from rvis.kernels.pooling import max_pool, unpadded_avg_pool
from rvis.models.pools import smooth_pools, smoothed_max_pool
from tests import toys

X = jnp.array([[1.0, -3.0], [2.0, 4.0]])[None, :, :, None]


@pytest.fixture(scope="module")
def model():
    return rvis.load("mnist_cnn")


def slope(g, *, x=X, window=2, stride=2, **options):
    value, pull = jax.vjp(lambda x: smoothed_max_pool(x, window, stride, **options), x)
    np.testing.assert_array_equal(value, max_pool(x, window, stride, **options))
    return np.asarray(pull(jnp.full(value.shape, g))[0])[0, :, :, 0]


def test_the_average_gives_every_cell_its_share():
    np.testing.assert_allclose(slope(2.0), 0.5)


def test_windows_that_overlap_add_up_and_padding_has_no_share():
    x = jnp.arange(9.0).reshape(1, 3, 3, 1)
    found = slope(1.0, x=x, window=3, stride=2, padding=1)
    # Four corner windows of four cells each.
    np.testing.assert_allclose(found, np.outer([1, 2, 1], [1, 2, 1]) / 4, rtol=1e-6)
    hanging = slope(1.0, x=x, window=2, stride=2, ceil=True)
    np.testing.assert_allclose(hanging[:, 2], [0.5, 0.5, 1])


# Each family with its poolings by maxima.
POOLS = {"alexnet": 3, "vgg11": 5, "googlenet": 13, "inceptionv1": 13, "resnet18": 1}


@pytest.mark.parametrize(("name", "count"), POOLS.items())
def test_every_maximum_of_a_family_is_smoothed(name, count):
    smoothed = smooth_pools(toys.outline(name))
    assert smoothed.apply.pool is smoothed_max_pool
    called = []

    def pool(x, window, stride, **options):
        called.append(window)
        return unpadded_avg_pool(x, window, stride, **options)

    apply = dataclasses.replace(smoothed.apply, pool=pool)
    image = jax.ShapeDtypeStruct((1, *smoothed.input_shape), jnp.float32)
    text = str(jax.make_jaxpr(apply)(smoothed.params, image))
    assert len(called) == count
    assert "reduce_window_max" not in text


def test_a_model_says_the_same_and_only_its_gradient_differs(model):
    images = np.random.default_rng(0).random((2, 28, 28, 1)).astype(np.float32)
    smoothed = smooth_pools(model)
    assert smoothed.params is model.params
    np.testing.assert_array_equal(smoothed(images), model(images))
    plain, smooth = (
        jax.jit(jax.grad(lambda x, m=m: m.apply(m.params, x)[:, 3].sum()))(images)
        for m in (model, smoothed)
    )
    assert np.abs(plain - smooth).max() > 0.1 * np.abs(plain).max()


def test_two_smoothed_models_share_their_programs(model):
    again = smooth_pools(rvis.load("mnist_cnn"))
    assert hash(again.apply) == hash(smooth_pools(model).apply)
    assert again.apply == smooth_pools(model).apply != model.apply


def chessboard(images):
    """The share of the energy, without the mean, above half the highest frequency."""
    power = np.abs(np.fft.fft2(images[..., 0])) ** 2
    power[:, 0, 0] = 0
    high = np.abs(np.fft.fftfreq(images.shape[1])) > 0.25
    return power[:, high[:, None] | high].sum(1) / power.sum((1, 2))


@pytest.mark.slow
def test_pictures_have_fewer_chessboards_and_their_scores_rise(model):
    options = {"image": "pixel", "transforms": (), "steps": 24, "progress": False}
    options["optimizer"] = optimizers.steepest(0.5)
    units = objectives.channel("pool2", range(16))
    plain = rvis.visualize(model, units, **options)
    smooth = rvis.visualize(smooth_pools(model), units, **options)
    assert not plain.dead.any() and not smooth.dead.any()
    assert (smooth.scores[:, -1] > 2 * smooth.scores[:, 0]).all()
    less = chessboard(smooth.images) / chessboard(plain.images)
    assert (less < 1).all()
    assert np.median(less) < 0.5


def test_refusals(model):
    with pytest.raises(TypeError, match="model: an rvis.Model was expected"):
        smooth_pools(model.apply)
    with pytest.raises(ValueError, match="model: pointwise pools by itself"):
        smooth_pools(toys.pointwise())
    averaged = model.replace(apply=model.apply.with_average_pooling())
    with pytest.raises(ValueError, match="model: maxima were expected"):
        smooth_pools(averaged)
