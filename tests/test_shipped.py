"""The shipped models: their cards hold, and pictures of them mean what the README says."""

from __future__ import annotations

import hashlib
import json
import pathlib

import numpy as np
import pytest

import rvis
from rvis import clip, objectives, optimizers
from rvis.training import Adversary
from scripts.clip_scenes import training

WEIGHTS = pathlib.Path(__file__).parents[1] / "weights"
DATA = {
    "cifar10_resnet": "cifar_test",
    "cifar10_resnet_deep": "cifar_test",
    "cifar10_resnet_narrow": "cifar_test",
    "cifar10_resnet_robust": "cifar_test",
    "mnist_cnn": "mnist_test",
    "mnist_cnn_robust": "mnist_test",
    "tiny_resnet": "animals_test",
    "tiny_resnet_narrow": "animals_test",
    "tiny_resnet_robust": "animals_test",
}
"""The shipped models, and the fixture with the images that each was tested on."""

NAMES = tuple(DATA)
PLAIN = {
    "image": "pixel",
    "transforms": (),
    "optimizer": optimizers.steepest(0.5, norm="l2"),
    "steps": 30,
    "progress": False,
}


def test_these_are_shipped():
    assert sorted(path.name for path in WEIGHTS.iterdir()) == sorted((*NAMES, "clip"))
    assert set(NAMES) <= set(rvis.list_models())
    assert clip.list_clips() == tuple(path.name for path in (WEIGHTS / "clip").iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_the_card_describes_the_file(name):
    card, data = rvis.card(name), (WEIGHTS / name / "weights.safetensors").read_bytes()
    assert card["sha256"] == hashlib.sha256(data).hexdigest()
    assert card["bytes"] == len(data)
    assert {"data", "licence_of_data", "command", "seed", "accuracy", "attack"} <= set(card)
    assert len(rvis.load(name).classes) == (51 if "tiny" in name else 10)


@pytest.mark.parametrize("name", clip.list_clips())
def test_the_card_of_a_clip_describes_its_file(name):
    folder = WEIGHTS / "clip" / name
    card, content = json.loads((folder / "card.json").read_text()), folder / "weights.safetensors"
    assert card["sha256"] == hashlib.sha256(content.read_bytes()).hexdigest()
    assert {"data", "licence_of_data", "command", "seed", "recipe", "zero_shot"} <= set(card)


@pytest.mark.parametrize("name", clip.list_clips())
def test_a_clip_understands_combinations_that_it_never_saw(name):
    card = json.loads((WEIGHTS / "clip" / name / "card.json").read_text())
    accuracy = training.zero_shot(clip.load(name), count=300, seed=3)
    for fact in ("colour", "shape", "position"):
        told, found = card["zero_shot"]["held_out"][fact], accuracy[fact]
        # Adversarial training costs shapes, as it costs accuracy elsewhere.
        assert found >= (0.7 if (name, fact) == ("scenes_robust", "shape") else 0.9), fact
        assert abs(found - told) < 0.07, fact


def test_all_weights_together_are_small():
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*")) < 60e6


@pytest.mark.parametrize("name", NAMES)
def test_accuracy_is_that_of_the_card(name, request):
    data, card = request.getfixturevalue(DATA[name]), rvis.card(name)
    count = 300
    sample = data.take(np.linspace(0, len(data) - 1, count).astype(int))
    accuracy = rvis.evaluate(rvis.load(name), sample, progress=False)
    spread = 3 * np.sqrt(max(card["accuracy"] * (1 - card["accuracy"]), 1e-3) / count)
    assert abs(accuracy - card["accuracy"]) < spread


@pytest.mark.parametrize(
    ("norm", "eps", "name"), [("l2", 0.5, "cifar10_resnet"), ("linf", 0.3, "mnist_cnn")]
)
def test_the_robust_network_withstands_what_the_standard_one_does_not(norm, eps, name, request):
    sample = request.getfixturevalue(DATA[name]).take(slice(0, None, 400))
    names = (name, f"{name}_robust")
    attack = Adversary(norm, eps, 10)
    standard, robust = (
        rvis.evaluate(rvis.load(name), sample, adversary=attack, progress=False) for name in names
    )
    assert standard < 0.2
    assert robust > 0.45


def test_unregularized_class_images_convince_the_network():
    model = rvis.load("cifar10_resnet_robust")
    result = rvis.visualize(model, objectives.probability(range(10)), **PLAIN)
    assert model(result.images).argmax(-1).tolist() == list(range(10))
    assert not result.dead.any()
    assert result.images.std((1, 2, 3)).min() > 0.1


@pytest.mark.parametrize(
    "name", ["cifar10_resnet_robust", pytest.param("cifar10_resnet", marks=pytest.mark.slow)]
)
def test_channel_pictures_beat_real_images(name, cifar_test):
    model = rvis.load(name)
    objective = objectives.channel("layer2", range(0, 64, 16))
    result = rvis.visualize(model, objective, steps=48, progress=False)
    real = cifar_test.floats(np.arange(0, 10000, 50))
    assert (rvis.faithfulness(model, objective, result.images, real).percentile > 99).mean() >= 0.75


@pytest.mark.parametrize(
    ("name", "layer", "size"),
    [("mnist_cnn", "conv2", None), ("cifar10_resnet_robust", "layer2", (33, 47))],
)
def test_a_unit_alone_and_in_a_sweep(name, layer, size):
    options = {"steps": 8, "size": size, "progress": False}
    model = rvis.load(name)
    whole = rvis.sweep(model, layer, [3, 9, 11], **options)
    alone = rvis.visualize(model, objectives.channel(layer, 9), **options)
    np.testing.assert_array_equal(whole.images[1], alone.images)
    assert alone.images.shape[:2] == (size or (28, 28))


def test_a_large_picture_of_a_small_network():
    model = rvis.load("cifar10_resnet_robust")
    objective = objectives.channel("layer1", 0)
    result = rvis.visualize(model, objective, size=224, steps=2, progress=False)
    assert result.images.shape == (224, 224, 3)
    assert result.scores[1] > result.scores[0]
