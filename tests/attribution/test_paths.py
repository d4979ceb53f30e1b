"""Paths to the image: completeness, linear functions, and each path against its own definition."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rvis
from rvis import attribution
from rvis.attribution.paths import blurred
from tests import toys
from tests.attribution.explained import MODELS
from tests.golden.attribution import seeded_networks as golden

QUIET = {"progress": False}
RNG = np.random.default_rng(0)
SHAPE = (4, 5, 3)
WEIGHTS = RNG.normal(size=(60, 2)).astype(np.float32)
LINEAR = toys.linear(WEIGHTS, SHAPE)
IMAGES = RNG.random((2, *SHAPE), np.float32)
DATA = RNG.random((3, *SHAPE), np.float32)
FUNCTIONS = {
    "guided_integrated_gradients": {"baseline": 0.25, "steps": 7},
    "blur_integrated_gradients": {"steps": 5},
    "expected_gradients": {"data": DATA[:1], "samples": 4},
}


@pytest.mark.parametrize(("name", "options"), FUNCTIONS.items())
def test_on_a_linear_function_the_path_does_not_matter(name, options):
    result = getattr(attribution, name)(LINEAR, IMAGES, [0, 1], **options, **QUIET)
    start = {"guided": 0.25, "expected": DATA[:1]}.get(name.split("_")[0])
    if start is None:
        start = np.asarray(jax.vmap(blurred, (0, None))(IMAGES, jnp.float32(0.8)))
    expected = (IMAGES - start) * WEIGHTS.T.reshape(2, *SHAPE)
    np.testing.assert_allclose(result.maps, expected, atol=1e-5)
    np.testing.assert_allclose(result.gap, 0, atol=1e-4)


def quadratic(params, images, *, tap=None, relu=None):
    flat = images.reshape(len(images), -1)
    return jnp.stack([jnp.square(flat) @ params, flat.prod(1)], 1)


@pytest.mark.parametrize("name", ["guided_integrated_gradients", "blur_integrated_gradients"])
def test_paths_are_complete(name):
    """On a smooth function: along the guided path kinks are met where the gradient is small."""
    model = rvis.Model(jnp.array([1.0, -4.0, 2.0, 0.5]), quadratic, (), (2, 2, 1))
    image = np.array([0.8, 0.4, 0.6, 1.0], np.float32).reshape(2, 2, 1)
    few, many = (
        getattr(attribution, name)(model, image, 0, steps=steps, **QUIET) for steps in (4, 400)
    )
    assert abs(many.gap) < 0.01
    assert abs(few.gap) > abs(many.gap)


def test_the_guided_path_moves_small_gradients_first():
    """By hand: of x² w with few values, in the order of their gradients, one at a time."""
    weights = jnp.array([1.0, -4.0, 2.0, 0.5])
    model = rvis.Model(weights, quadratic, (), (2, 2, 1))
    image = np.array([0.8, 0.4, 0.6, 1.0], np.float32)
    steps, reach = 5, 0.3
    start = np.full(4, 0.2)
    x, maps = start.copy(), np.zeros(4)
    away = np.abs(image - start).sum()
    for number in range(steps):
        slope = 2 * x * np.asarray(weights)
        before = x.copy()
        alpha = (number + 1) / steps
        band = [start + np.clip(alpha + side, 0, 1) * (image - start) for side in (-reach, reach)]
        x = np.where(np.abs(image - x) > np.abs(image - band[0]), band[0], x)
        left = np.abs(image - x).sum() - away * (1 - alpha)
        for i in sorted(range(4), key=lambda i: abs(slope[i])):
            room = abs(band[1][i] - x[i])
            if room > 0 and left > 0:
                x[i] += min(1, left / room) * (band[1][i] - x[i])
                left -= room
        maps += (x - before) * slope
    result = attribution.guided_integrated_gradients(
        model,
        image.reshape(2, 2, 1),
        0,
        baseline=0.2,
        fraction=0.01,
        reach=reach,
        steps=steps,
        **QUIET,
    )
    np.testing.assert_allclose(result.maps.ravel(), maps, rtol=1e-4, atol=1e-6)


def test_expected_gradients_are_within_their_sampling_error():
    """Of x² the integral over x′ and t is w (x − x′)(x + x′), in the mean over the data."""
    weights = np.array([1.0, -4.0, 2.0, 0.5], np.float32)
    model = rvis.Model(jnp.asarray(weights), quadratic, (), (2, 2, 1))
    image, data = RNG.random((2, 2, 1), np.float32), RNG.random((5, 2, 2, 1), np.float32)
    exact = (weights.reshape(2, 2, 1) * (image**2 - data**2)).mean(0)
    result = attribution.expected_gradients(model, image, 0, data=data, samples=4000, **QUIET)
    np.testing.assert_allclose(result.maps, exact, atol=0.08)
    np.testing.assert_allclose(result.gap, 0, atol=0.15)
    few = attribution.expected_gradients(model, image, 0, data=data, samples=5, **QUIET)
    assert np.abs(few.maps - exact).max() > np.abs(result.maps - exact).max()


def test_a_blur_keeps_flat_images_and_narrows_to_nothing():
    flat = jnp.full((5, 7, 2), 0.3)
    np.testing.assert_allclose(blurred(flat, jnp.float32(2)), flat, atol=1e-6)
    picture = RNG.random((5, 7, 2), np.float32)
    np.testing.assert_allclose(blurred(picture, jnp.float32(0)), picture, atol=1e-6)
    spot = np.zeros((9, 9, 1), np.float32)
    spot[4, 4] = 1
    wide = np.asarray(blurred(spot, jnp.float32(1.0)))[..., 0]
    np.testing.assert_allclose(wide[4, 5] / wide[4, 4], np.exp(-0.5), rtol=1e-3)


def test_nodes_are_added_until_the_map_is_complete():
    model = MODELS["plain"]
    plain = attribution.integrated_gradients(
        model, golden.IMAGES, golden.CLASSES, steps=5, tol=None, **QUIET
    )
    met = attribution.integrated_gradients(
        model, golden.IMAGES, golden.CLASSES, steps=5, tol=0.02, **QUIET
    )
    assert np.abs(plain.gap).max() > 0.02
    assert np.abs(met.gap).max() <= 0.02
    kept = np.abs(plain.gap) <= 0.02
    np.testing.assert_array_equal(met.maps[kept], plain.maps[kept])


@pytest.mark.parametrize("level", range(3))
def test_the_added_nodes_are_midpoints(level):
    """Of x⁴ a level's gap is a ninth of the one before; met, the map is that of 3ˡ times 5."""

    def quartic(params, images, **_):
        return (images.reshape(len(images), -1) ** 4 @ params)[:, None]

    model = rvis.Model(jnp.float32([1.0, -4.0, 2.0, 0.5]), quartic, (), (2, 2, 1))
    image = np.float32([0.9, 0.4, 1.0, 0.7]).reshape(2, 2, 1)
    rough = attribution.integrated_gradients(
        model, image, 0, rule="midpoint", steps=5 * 3**level, tol=None, **QUIET
    )
    met = attribution.integrated_gradients(
        model, image, 0, rule="midpoint", steps=5, tol=float(1.5 * abs(rough.gap)), **QUIET
    )
    assert abs(rough.gap) > 1e-5
    np.testing.assert_allclose(met.maps, rough.maps, atol=1e-6)
    np.testing.assert_allclose(met.gap, rough.gap, rtol=0.1)


def test_a_gap_is_allowed_in_proportion_to_the_rise():
    def cubic(params, images, **_):
        return params * (images.reshape(len(images), -1) ** 3).sum(1)[:, None]

    image, gaps = np.float32([1.0, 0.8]).reshape(1, 2, 1), []
    for size in (1, 100, 0.01):
        model = rvis.Model(jnp.float32(size), cubic, (), (1, 2, 1))
        found = attribution.integrated_gradients(
            model, image, 0, rule="midpoint", steps=5, tol=0.002, **QUIET
        )
        gaps.append(found.gap / size)
    rise = 1.512
    assert 0.002 / 4 < abs(gaps[0]) < 0.002 * rise
    np.testing.assert_allclose(gaps[1], gaps[0], rtol=1e-2)
    np.testing.assert_allclose(gaps[2], 9 * gaps[0], rtol=1e-2)  # of 1, where it rises less


def test_smoothgrad_of_any_method():
    model, image = MODELS["plain"], golden.IMAGES[0]
    method = functools.partial(attribution.integrated_gradients, steps=4, tol=None)
    result = attribution.smoothgrad(model, image, 1, of=method, noise=0.1, samples=3, **QUIET)
    assert result.maps.shape == image.shape
    by_gradient = attribution.smoothgrad(
        model, golden.IMAGES, 1, of=attribution.gradient, samples=3, **QUIET
    )
    plain = attribution.smoothgrad(model, golden.IMAGES, 1, samples=3, **QUIET)
    np.testing.assert_allclose(by_gradient.maps, plain.maps, rtol=1e-4, atol=1e-5)
    variance = attribution.vargrad(
        model, golden.IMAGES, 1, of=attribution.gradient, samples=3, **QUIET
    )
    expected = attribution.vargrad(model, golden.IMAGES, 1, samples=3, **QUIET)
    np.testing.assert_allclose(variance.maps, expected.maps, rtol=1e-3, atol=1e-5)
    with pytest.raises(ValueError, match="of: one without callback"):
        attribution.smoothgrad(model, image, 1, of=attribution.gradient, callback=print, **QUIET)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("integrated_gradients", {"tol": -1}, "tol: a number in"),
        ("guided_integrated_gradients", {"fraction": 0}, "fraction: a number above 0"),
        ("guided_integrated_gradients", {"reach": 2}, "reach: a number in"),
        ("guided_integrated_gradients", {"baseline": DATA}, "baseline: one for an image"),
        ("blur_integrated_gradients", {"sigma": 0}, "sigma: a number above 0"),
        ("expected_gradients", {"data": np.zeros((2, 3, 3, 3))}, "data: "),
    ],
)
def test_what_cannot_be_is_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        getattr(attribution, name)(LINEAR, IMAGES, 0, **options, **QUIET)
