"""Real networks, where they are at hand: their logits, and an attack's success."""

from __future__ import annotations

import numpy as np
import pytest

import rvis
from rvis.data.preparation import Preparation
from rvis.models import architectures
from rvis.models.weights import convert
from tests.conftest import DATA, lite0

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
        return lite0()
    return architectures.build(name, weights=state(name), preparation=RESIZED, **CAFFE)


# How many of the 24 photographs are theirs at the first place, and among the first five, in the
# recorded logits: ours are compared on every fourth.
FIRST = {"googlenet_bvlc": (19, 23), "squeezenet1_0": (15, 22), "tf_efficientnet_lite0": (20, 24)}


def hits(logits, labels):
    places = np.argsort(-logits, axis=1) == labels[:, None]
    return places[:, :1].sum(), places[:, :5].sum()


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * name.startswith("squeeze")) for name in FIRST],
)
def test_logits_are_those_of_an_independent_forward_pass(name):
    model = network(name)
    if not (NETWORKS / "logits.npz").exists():
        pytest.skip(f"no logits at {NETWORKS}")
    with np.load(NETWORKS / "logits.npz") as file:
        photographs, expected = [str(each) for each in file["photos"]], file[name]
    labels = np.array([rvis.data.imagenet.index(each) for each in photographs])
    assert hits(expected, labels) == FIRST[name]
    images = model.prepare([DATA / "photos" / f"{each}.jpg" for each in photographs[::4]])
    found, expected = np.asarray(model(images)), expected[::4]
    away = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert away.max() <= 1e-3
    assert hits(found, labels[::4]) == hits(expected, labels[::4])


@pytest.mark.slow
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
