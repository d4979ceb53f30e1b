"""Several models as one, and models whose output is no logits of classes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rvis
from rvis import attacks, attribution, objectives
from rvis.data import Dataset
from rvis.models import taps
from tests import toys

ONE, TWO = toys.pointwise(), toys.pointwise(width=5, bias=0.1).replace(classes=())
IMAGES = np.random.default_rng(0).random((3, 6, 8, 3)).astype(np.float32)


def both(combine="logits"):
    return rvis.ensemble([ONE, TWO], combine=combine)


def test_the_mean_of_logits():
    np.testing.assert_allclose(both()(IMAGES), (ONE(IMAGES) + TWO(IMAGES)) / 2, rtol=1e-6)


def test_the_mean_of_probabilities():
    chances = (jax.nn.softmax(ONE(IMAGES)) + jax.nn.softmax(TWO(IMAGES))) / 2
    np.testing.assert_allclose(both("probabilities")(IMAGES), jnp.log(chances), rtol=1e-5)


def test_layers_are_those_of_the_members():
    model = both()
    assert model.layers[:5] == ("0.conv", "0.relu", "0.pool", "0.dense", "0.logits")
    assert model.classes == ONE.classes and model.input_shape == ONE.input_shape
    seen = rvis.record(model, IMAGES, ["0.conv", "1.relu", "1.logits"])
    np.testing.assert_allclose(seen["0.conv"], rvis.record(ONE, IMAGES, "conv")["conv"], rtol=1e-6)
    np.testing.assert_allclose(seen["1.relu"], rvis.record(TWO, IMAGES, "relu")["relu"], rtol=1e-6)
    np.testing.assert_allclose(seen["1.logits"], TWO(IMAGES), rtol=1e-6)


def test_a_member_s_activation_can_be_replaced():
    model, tap = both(), taps.replacing({"1.logits": jnp.zeros((3, 2))})
    np.testing.assert_allclose(
        model.apply(model.params, IMAGES, tap=tap), ONE(IMAGES) / 2, rtol=1e-6
    )


@pytest.mark.parametrize("method", ["gradient", "guided_backprop", "deconvnet"])
def test_gradients_are_the_members_mean(method):
    function = getattr(attribution, method)
    one, two = (function(model, IMAGES, 1, progress=False).maps for model in (ONE, TWO))
    maps = function(both(), IMAGES, 1, progress=False).maps
    np.testing.assert_allclose(maps, (one + two) / 2, rtol=1e-5, atol=1e-7)


def test_a_sum_of_objectives_is_asked_of_the_members_logits():
    wanted = objectives.channel("0.logits", 1) + objectives.channel("1.logits", 0)
    maps = attribution.gradient(both(), IMAGES, wanted, progress=False).maps
    one = attribution.gradient(ONE, IMAGES, 1, progress=False).maps
    two = attribution.gradient(TWO, IMAGES, 0, progress=False).maps
    np.testing.assert_allclose(maps, one + two, rtol=1e-5, atol=1e-7)


# Whose means are worked out above.
@pytest.mark.parametrize(
    "combine", ["logits", pytest.param("probabilities", marks=pytest.mark.slow)]
)
def test_an_ensemble_is_attacked_and_visualized(combine):
    model = both(combine)
    labels = np.asarray(model(IMAGES)).argmax(1)
    result = attacks.pgd(model, IMAGES, labels, eps=1.0, steps=10, progress=False)
    np.testing.assert_array_equal(
        np.asarray(model(result.images)).argmax(1) != labels, result.success
    )
    assert rvis.visualize(model, 1, steps=2, progress=False).images.shape == (6, 8, 3)


REFUSED = {
    "one model": ([ONE], {}, TypeError, "^models: a list of two"),
    "no models": ([ONE, 3], {}, TypeError, "^models: an rvis.Model"),
    "sizes": ([ONE, toys.pointwise(size=(6, 6))], {}, ValueError, "^models: one input_shape"),
    "counts": ([ONE, toys.pointwise(classes=3)], {}, ValueError, "^models: one number of classes"),
    "names": (
        [ONE, ONE.replace(classes=("a", "b"))],
        {},
        ValueError,
        "^models: one classes of all",
    ),
    "combine": ([ONE, TWO], {"combine": "mean"}, ValueError, "^combine: unknown 'mean'"),
    "embeddings": ([ONE.replace(kind="embedding"), ONE], {}, ValueError, "^model: logits of"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_ensemble_is_refused(case):
    models, options, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        rvis.ensemble(models, **options)


# --- outputs that are no logits --------------------------------------------------------------

EMBEDDER = toys.pointwise().replace(kind="embedding")
SINGLE = toys.pointwise(classes=1)
DATA = Dataset(np.zeros((2, 6, 8, 3), np.uint8), np.zeros(2, np.int32), ("a", "b"), "blank")
OF_CLASSES = {
    "visualize": lambda model: rvis.visualize(model, 0, steps=1),
    "probability": lambda model: rvis.visualize(model, -objectives.probability(0), steps=1),
    "gradient": lambda model: attribution.gradient(model, IMAGES, 0),
    "grad_cam": lambda model: attribution.grad_cam(model, IMAGES, 0),
    "pgd": lambda model: attacks.pgd(model, IMAGES, 0, eps=0.1),
    "square": lambda model: attacks.square(model, IMAGES, 0, eps=0.1),
    "carlini_wagner": lambda model: attacks.carlini_wagner(model, IMAGES, 0),
    "fool": lambda model: attacks.fool(model, 0),
    "map_elites": lambda model: rvis.evolve.map_elites(model),
    "evaluate": lambda model: rvis.evaluate(model, DATA),
    "train": lambda model: rvis.train(model, DATA, rvis.Recipe(epochs=1)),
    "linear_shift": lambda model: rvis.analysis.manifold.linear_shift(model, IMAGES, 0, 0.1),
}


@pytest.mark.parametrize("function", OF_CLASSES.values(), ids=OF_CLASSES)
def test_what_needs_classes_refuses_an_embedding(function):
    with pytest.raises(ValueError, match=r"^model: logits of classes.*pointwise gives embedding"):
        function(EMBEDDER)


@pytest.mark.parametrize("name", ["pgd", "square", "carlini_wagner", "fool", "evaluate", "train"])
def test_an_attack_refuses_a_single_logit_with_the_remedy(name):
    with pytest.raises(ValueError, match=r"^model: two classes or more.*rvis\.from_linen"):
        OF_CLASSES[name](SINGLE)


def test_a_single_logit_can_be_visualized():
    assert rvis.visualize(SINGLE, 0, steps=1, progress=False).images.shape == (6, 8, 3)
