"""The type, its rules, and concepts as layers of a model."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rvis
from rvis import concepts, objectives
from rvis.concepts import Concepts, Decoder, Encoder
from rvis.data import Dataset
from rvis.models import taps
from tests import toys

MODEL = toys.pointwise()
IMAGES = np.random.default_rng(0).random((3, 6, 8, 3)).astype(np.float32)


def some(kind="relu", k=7, active=2, seed=0, channels=4):
    rng = np.random.default_rng(seed)
    kernel, bias, centre, vectors, offset = (
        jnp.asarray(rng.standard_normal(shape), jnp.float32)
        for shape in ((channels, k), (k,), (channels,), (k, channels), (channels,))
    )
    encoder = Encoder(kernel, bias, centre, jnp.float32(0.5), kind, active)
    return Concepts(encoder, Decoder(vectors, offset), "relu")


READINGS = np.array([[-1.0, 0.2, 3.0, 0.7], [-4.0, -1.0, -2.0, -3.0]], np.float32)
RULED = {
    "linear": READINGS,
    "relu": [[0, 0.2, 3, 0.7], [0, 0, 0, 0]],
    "jump": [[0, 0, 3, 0.7], [0, 0, 0, 0]],
    "topk": [[0, 0, 3, 0.7], [0, 0, 0, 0]],
    "signed topk": [[0, 0, 3, 0.7], [0, -1, -2, 0]],
    "nearest": [[0, 0, 1, 0], [0, 1, 0, 0]],
}


@pytest.mark.parametrize("kind", RULED)
def test_a_rule_does_what_its_name_says(kind):
    np.testing.assert_allclose(some(kind, k=4).encode.rule(READINGS), RULED[kind])


def test_concepts_are_the_rule_of_affine_readings():
    one = some("linear")
    x = np.random.default_rng(1).random((5, 4)).astype(np.float32)
    kernel, bias, centre = (
        np.asarray(p) for p in (one.encode.kernel, one.encode.bias, one.encode.centre)
    )
    np.testing.assert_allclose(one(x), (x - centre) @ kernel + bias, atol=1e-5)
    expected = np.asarray(one(x)) @ np.asarray(one.decode.vectors) + np.asarray(one.decode.offset)
    np.testing.assert_allclose(one.decode(one(x)), expected, atol=1e-5)


@pytest.mark.parametrize("kind", RULED)
def test_a_model_with_concepts_gives_the_same_logits(kind):
    both = concepts.attach(MODEL, some(kind))
    np.testing.assert_array_equal(both(IMAGES), MODEL(IMAGES))
    assert both.layers == ("conv", "relu", "relu.readings", "relu.concepts", "pool", "dense")


def test_concepts_are_layers():
    one = some()
    found = rvis.record(concepts.attach(MODEL, one), IMAGES, ("relu.readings", "relu.concepts"))
    inner = rvis.record(MODEL, IMAGES, "relu")["relu"]
    np.testing.assert_allclose(found["relu.concepts"], one(inner), atol=1e-6)
    np.testing.assert_allclose(found["relu.readings"], one.encode.readings(inner), atol=1e-6)


@pytest.mark.parametrize("layer", ["relu.readings", "relu.concepts"])
def test_what_a_tap_changes_moves_the_activations_along_the_vectors(layer):
    one = some()
    both = concepts.attach(MODEL, one)
    x = np.asarray(rvis.record(MODEL, IMAGES, "relu")["relu"])
    z = np.asarray(one(x))
    readings = np.array(one.encode.readings(x))

    def tap(name, value):
        return value.at[..., 2].add(1.5) if name == layer else value

    readings[..., 2] += 1.5
    changed = z + np.eye(7)[2] * 1.5 if layer == "relu.concepts" else np.maximum(readings, 0)
    moved = x + (changed - z) @ np.asarray(one.decode.vectors)
    found = both.apply(both.params, IMAGES, tap=tap)
    expected = MODEL.apply(MODEL.params, IMAGES, tap=taps.replacing({"relu": jnp.asarray(moved)}))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_an_objective_climbs_what_is_read():
    one = some("topk")
    objective = one.objective([4, 1])
    both = concepts.attach(MODEL, one)
    seen = rvis.record(both, IMAGES, ("relu", "relu.readings"))
    for i, number in enumerate((4, 1)):
        alone = jax.tree.map(lambda leaf, i=i: leaf[i], objective)
        gap = objectives.channel("relu.readings", number)(seen) - alone(seen)
        other = {name: x[:1] for name, x in seen.items()}
        same = objectives.channel("relu.readings", number)(other) - alone(other)
        # They differ by a constant.
        np.testing.assert_allclose(gap, same, atol=1e-5)


def test_faithfulness_ranks_a_concept_among_all():
    one = some()
    both = concepts.attach(MODEL, one)
    data = Dataset((IMAGES * 255).astype(np.uint8), np.zeros(3, np.int32), ("a",), "three")
    found = rvis.faithfulness(both, objectives.channel("relu.readings", [2, 5]), IMAGES[:2], data)
    assert found.rank.min() >= 1
    assert found.rank.max() <= 7
    assert (0 <= found.percentile).all()


def test_names_and_numbers_are_no_part_of_a_program():
    @jax.jit
    def run(model, images):
        return model.apply(model.params, images)

    for seed in (0, 1):
        one = some(seed=seed).replace(names=tuple("abcdefg"[seed:] + "hi"[: 2 - seed])[:7])
        run(concepts.attach(MODEL, one).unnamed(), IMAGES)
    assert run._cache_size() == 1


def test_channels_are_concepts():
    one = concepts.channels("relu", 4)
    x = np.asarray(rvis.record(MODEL, IMAGES, "relu")["relu"])
    np.testing.assert_array_equal(one(x), x)
    assert one.named(2) == "relu:2"


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        (3, TypeError, "concepts"),
        (some(channels=5), ValueError, "concepts: .*5 entries"),
        (some().replace(layer="reluu"), ValueError, "concepts: .*relu"),
    ],
)
def test_bad_concepts_are_named(given, error, match):
    with pytest.raises(error, match=match):
        concepts.attach(MODEL, given)


def test_concepts_are_attached_once():
    both = concepts.attach(MODEL, some())
    with pytest.raises(ValueError, match="model: one without concepts"):
        concepts.attach(both, some())


@pytest.mark.parametrize("numbers", [[7], [-1], [], 1.5])
def test_bad_numbers_are_named(numbers):
    with pytest.raises((TypeError, ValueError), match="numbers"):
        some().objective(numbers)
