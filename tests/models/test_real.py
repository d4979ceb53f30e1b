"""Real networks, where they are at hand: their logits, and an attack's success."""

from __future__ import annotations

import numpy as np
import pytest

import rvis
from rvis.data.preparation import Preparation
from rvis.models import architectures
from rvis.models.weights import convert
from tests.conftest import DATA

NETWORKS = DATA.parent / "networks"
CAFFE = {"mean": (123 / 255, 117 / 255, 104 / 255), "std": (1 / 255,)}
RESIZED = Preparation(0.875, "bicubic", torchvision=False)


def state(name):
    path = NETWORKS / f"{name}.safetensors"
    if not path.exists():
        pytest.skip(f"no real network at {path}")
    return convert.read_state_dict(path)[0]


def network(name):
    if name == "tf_efficientnet_lite0":
        try:
            return rvis.load("efficientnet_lite0", pretrained=True)
        except ImportError as error:
            pytest.skip(str(error))
    return architectures.build(name, weights=state(name), preparation=RESIZED, **CAFFE)


# How many of the 24 photographs are theirs at the first place, and among the first five.
FIRST = {"googlenet_bvlc": (19, 23), "squeezenet1_0": (15, 22), "tf_efficientnet_lite0": (20, 24)}


@pytest.mark.parametrize("name", FIRST)
def test_logits_are_those_of_an_independent_forward_pass(name):
    model = network(name)
    if not (NETWORKS / "logits.npz").exists():
        pytest.skip(f"no logits at {NETWORKS}")
    with np.load(NETWORKS / "logits.npz") as file:
        photographs, expected = [str(each) for each in file["photos"]], file[name]
    images = model.prepare([DATA / "photos" / f"{each}.jpg" for each in photographs])
    found = np.asarray(model(images))
    away = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert away.max() <= 1e-3
    labels = np.array([rvis.data.imagenet.index(each) for each in photographs])
    places = np.argsort(-found, axis=1)
    hits = (places[:, :1] == labels[:, None]).sum(), (places[:, :5] == labels[:, None]).sum()
    assert hits == FIRST[name]


def test_an_adversarially_trained_network_has_its_accuracies(cifar_test):
    model = architectures.build("cifar10_resnet4b_adv", weights=state("cifar10_resnet4b_adv"))
    # The first hundred of each class.
    chosen = np.concatenate([np.flatnonzero(cifar_test.labels == i)[:100] for i in range(10)])
    images, labels = cifar_test.floats(chosen), cifar_test.labels[chosen]
    clean = np.asarray(model(images)).argmax(1) == labels
    assert abs(100 * clean.mean() - 75.9) <= 1
    for epsilon, accuracy in ((2 / 255, 61.1), (8 / 255, 15.8)):
        result = rvis.attacks.pgd(model, images, labels, eps=epsilon, steps=10, progress=False)
        held = np.asarray(model(result.images)).argmax(1) == labels
        assert abs(100 * held.mean() - accuracy) <= 1
