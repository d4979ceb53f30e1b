"""Maps of the iterate against NumPy, and in the step of every parameterization."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rvis
from rvis import objectives, optimizers, post_step
from tests import toys

RNG = np.random.default_rng(0)
IMAGE = RNG.uniform(size=(9, 7, 3)).astype(np.float32)
SLOPE = RNG.standard_normal((9, 7, 3)).astype(np.float32)


def blurred(image, sigma):
    """Separable convolution with a sampled Gaussian, written as plain sums."""
    reach = max(1, round(4 * sigma))
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    for axis in (0, 1):
        places = np.arange(image.shape[axis])
        image = sum(
            w * np.take(image, np.clip(places + i - reach, 0, len(places) - 1), axis)
            for i, w in enumerate(weights)
        )
    return image


def erased(image, size, percentile):
    return np.where((size < np.percentile(size, percentile))[..., None], 0.5, image)


MAPS = {
    "decay": (post_step.decay(0.1), 0.9 * IMAGE + 0.05),
    "decay to a colour": (
        post_step.decay(0.5, towards=(1.0, 0.0, 0.5)),
        (IMAGE + np.float32([1, 0, 0.5])) / 2,
    ),
    "blur": (post_step.blur(0.8), blurred(IMAGE, 0.8)),
    "blur due": (post_step.blur(0.8, every=3), blurred(IMAGE, 0.8)),
    "blur not due": (post_step.blur(0.8, every=4), IMAGE),
    "small norm": (
        post_step.small_norm(40),
        erased(IMAGE, np.linalg.norm(IMAGE - 0.5, axis=-1), 40),
    ),
    "small contribution": (
        post_step.small_contribution(70),
        erased(IMAGE, np.abs(((IMAGE - 0.5) * SLOPE).sum(-1)), 70),
    ),
}


@pytest.mark.parametrize("name", MAPS)
def test_value(name):
    one, expected = MAPS[name]
    np.testing.assert_allclose(one(6, IMAGE, SLOPE), expected, atol=1e-6)


MODEL = toys.pointwise()
ALL = (post_step.decay(0.01), post_step.blur(0.5, every=2), post_step.small_norm(10))


@pytest.mark.parametrize("image", [pytest.param("pixel", marks=pytest.mark.slow), "fourier"])
def test_maps_work_in_every_parameterization(image):
    plain, mapped = (
        rvis.visualize(
            MODEL,
            objectives.channel("conv", [0, 1]),
            image=image,
            steps=6,
            transforms=(),
            post_step=maps,
            progress=False,
        )
        for maps in ((), ALL)
    )
    assert np.abs(mapped.images - 0.5).mean() < np.abs(plain.images - 0.5).mean()
    assert (mapped.scores[:, -1] > mapped.scores[:, 0]).all()


def test_a_map_that_changes_nothing_leaves_the_bits():
    options = {"steps": 5, "transforms": (), "progress": False}
    plain, still = (
        rvis.visualize(MODEL, objectives.channel("conv", 0), post_step=maps, **options)
        for maps in ((), (post_step.decay(0.0),))
    )
    np.testing.assert_array_equal(plain.images, still.images)


def test_the_numbers_are_leaves():
    structures = {
        str(jax.tree.structure(one)) for one in (post_step.decay(0.1), post_step.decay(0.2))
    }
    assert len(structures) == 1
    kinds = [
        post_step.small_norm(1),
        post_step.small_contribution(1),
        post_step.blur(1.0),
        post_step.decay(0.1),
    ]
    assert len({str(jax.tree.structure(kind)) for kind in kinds}) == 4


@pytest.mark.parametrize("recipe", [1, 2, 3, 4])
def test_recipes_raise_a_class(recipe):
    model = rvis.load("mnist_cnn_robust")
    options = post_step.yosinski(recipe, rate=300) | {"steps": 40, "progress": False}
    result = rvis.visualize(model, objectives.logit(8), **options)
    assert result.scores[-1] > result.scores[0] + 1
    assert result.images.min() >= 0 and result.images.max() <= 1


def test_a_gain_raises_a_linear_objective_by_the_amount():
    weights = RNG.standard_normal((12, 1)).astype(np.float32) / 10
    model = toys.linear(weights, (2, 2, 3))
    options = {"image": "pixel", "transforms": (), "progress": False, "steps": 2}
    result = rvis.visualize(model, objectives.logit(0), optimizer=optimizers.gain(0.01), **options)
    np.testing.assert_allclose(np.diff(result.scores), 0.01, rtol=1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: post_step.decay(1.5), r"rate: a number in \[0, 1\]"),
        (lambda: post_step.decay(0.5, towards=2.0), r"towards: a number in \[0, 1\]"),
        (lambda: post_step.blur(0), "sigma: a number above 0"),
        (lambda: post_step.blur(1, every=0), "every: at least 1"),
        (lambda: post_step.small_norm(101), r"percentile: a number in \[0, 100\]"),
        (lambda: post_step.small_contribution(-1), "percentile: "),
        (lambda: post_step.small_norm(5, towards=2), r"towards: a number in \[0, 1\]"),
        (lambda: post_step.yosinski(5), "recipe: 1 to 4"),
        (lambda: post_step.yosinski(1, rate=0), "rate: a number above 0"),
        (lambda: optimizers.gain(2.0, most=0), "most: a number above 0"),
    ],
)
def test_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_is_no_map_is_refused():
    with pytest.raises(TypeError, match="post_step: a list of rvis.post_step"):
        rvis.visualize(MODEL, objectives.logit(0), post_step=[jnp.tanh], steps=1)
