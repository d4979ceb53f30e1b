"""Maps of the iterate against NumPy, and in the step of every parameterization."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rvis
from rvis import iterates, objectives, optimizers
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
    "decay": (iterates.decay(0.1), 0.9 * IMAGE + 0.05),
    "decay to a colour": (
        iterates.decay(0.5, towards=(1.0, 0.0, 0.5)),
        (IMAGE + np.float32([1, 0, 0.5])) / 2,
    ),
    "blur": (iterates.blur(0.8), blurred(IMAGE, 0.8)),
    "blur due": (iterates.blur(0.8, every=3), blurred(IMAGE, 0.8)),
    "blur not due": (iterates.blur(0.8, every=4), IMAGE),
    "small norm": (
        iterates.small_norm(40),
        erased(IMAGE, np.linalg.norm(IMAGE - 0.5, axis=-1), 40),
    ),
    "small value": (
        iterates.small_value(40),
        np.where(
            np.abs(IMAGE - 0.5) < np.percentile(np.abs(IMAGE - 0.5), 40), np.float32(0.5), IMAGE
        ),
    ),
    "small benefit": (
        iterates.small_benefit(30),
        erased(IMAGE, ((0.5 - IMAGE) * SLOPE).sum(-1), 30),
    ),
    "small contribution": (
        iterates.small_contribution(70),
        erased(IMAGE, np.abs(((IMAGE - 0.5) * SLOPE).sum(-1)), 70),
    ),
}


@pytest.mark.parametrize("name", MAPS)
def test_value(name):
    one, expected = MAPS[name]
    np.testing.assert_allclose(one(6, IMAGE, SLOPE), expected, atol=1e-6)


MODEL = toys.pointwise()
ALL = (iterates.decay(0.01), iterates.blur(0.5, every=2), iterates.small_norm(10))


@pytest.mark.parametrize("image", ["pixel", "fourier"])
def test_maps_work_in_every_parameterization(image):
    plain, mapped = (
        rvis.visualize(
            MODEL,
            objectives.channel("conv", [0, 1]),
            image=image,
            steps=6,
            transforms=(),
            maps=maps,
            progress=False,
        )
        for maps in ((), ALL)
    )
    assert np.abs(mapped.images - 0.5).mean() < np.abs(plain.images - 0.5).mean()
    assert (mapped.scores[:, -1] > mapped.scores[:, 0]).all()


def test_a_map_that_changes_nothing_leaves_the_bits():
    options = {"steps": 5, "transforms": (), "progress": False}
    plain, still = (
        rvis.visualize(MODEL, objectives.channel("conv", 0), maps=maps, **options)
        for maps in ((), (iterates.decay(0.0),))
    )
    np.testing.assert_array_equal(plain.images, still.images)


def test_the_numbers_are_leaves():
    structures = {
        str(jax.tree.structure(one)) for one in (iterates.decay(0.1), iterates.decay(0.2))
    }
    assert len(structures) == 1
    kinds = [
        iterates.small_norm(1),
        iterates.small_contribution(1),
        iterates.small_value(1),
        iterates.small_benefit(1),
        iterates.decay(0.1),
    ]
    assert len({str(jax.tree.structure(kind)) for kind in kinds}) == 5


@pytest.mark.parametrize("recipe", [1, 2, 3, 4])
def test_recipes_raise_a_class(recipe):
    model = rvis.load("mnist_cnn_robust")
    options = iterates.yosinski(recipe, rate=300) | {"steps": 40, "progress": False}
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
        (lambda: iterates.decay(1.5), r"rate: a number in \[0, 1\]"),
        (lambda: iterates.decay(0.5, towards=2.0), r"towards: a number in \[0, 1\]"),
        (lambda: iterates.blur(0), "sigma: a number above 0"),
        (lambda: iterates.blur(1, every=0), "every: at least 1"),
        (lambda: iterates.small_norm(101), r"percentile: a number in \[0, 100\]"),
        (lambda: iterates.small_contribution(-1), "percentile: "),
        (lambda: iterates.small_value(101), r"percentile: a number in \[0, 100\]"),
        (lambda: iterates.small_benefit(5, towards=2), r"towards: a number in \[0, 1\]"),
        (lambda: iterates.yosinski(5), "recipe: 1 to 4"),
        (lambda: iterates.yosinski(1, rate=0), "rate: a number above 0"),
        (lambda: optimizers.gain(2.0, most=0), "most: a number above 0"),
    ],
)
def test_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_is_no_map_is_refused():
    with pytest.raises(TypeError, match="maps: a list of rvis.iterates"):
        rvis.visualize(MODEL, objectives.logit(0), maps=[jnp.tanh], steps=1)
