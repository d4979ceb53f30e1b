"""TRADES, MART and weight perturbation by their definitions; validation, and its roll back."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rvis
from rvis.training import Adversary, Recipe, loop
from rvis.training.loop import pair_loss, perturbed
from rvis.training.recipe import Divergence
from rvis.types import LOGITS
from tests.training.test_train import RECIPE, learn, model, stripes

ADVERSARY = Adversary("linf", 0.05, steps=2)
Z = np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32)
LABELS = np.array([0, 2, 1, 2])


def by_hand(kind, beta):
    q, p = (np.exp(z) / np.exp(z).sum(1, keepdims=True) for z in np.split(Z.astype(float), 2))
    rows = np.arange(4)
    divergence = (p * np.log(p / q)).sum(1)
    if kind == "trades":
        return -np.log(p[rows, LABELS]) + beta * divergence
    others = np.where(np.arange(3) == LABELS[:, None], 0, q).max(1)
    boosted = -np.log(q[rows, LABELS]) - np.log(1 - others)
    return boosted + beta * divergence * (1 - p[rows, LABELS])


@pytest.mark.parametrize("kind", ["trades", "mart"])
@pytest.mark.parametrize("beta", [0.0, 6.0])
def test_losses_are_the_published_ones(kind, beta):
    targets = jax.nn.one_hot(LABELS, 3, dtype=jnp.float32)
    found = pair_loss(jnp.asarray(Z), targets, kind=kind, beta=beta)
    np.testing.assert_allclose(found, by_hand(kind, beta), rtol=1e-4)


def test_kernels_move_up_the_loss_by_a_share_of_their_length():
    params = {"kernel": jnp.full((2, 2), 2.0), "bias": jnp.ones(2)}
    slope = {"kernel": jnp.array([[0.0, 3.0], [0.0, 4.0]]), "bias": jnp.ones(2)}
    found = perturbed(params, slope, 0.1)
    np.testing.assert_allclose(found["kernel"], [[2, 2.24], [2, 2.32]], rtol=1e-5)
    np.testing.assert_array_equal(found["bias"], 1)


@pytest.mark.parametrize("options", [{"loss": "trades"}, {"loss": "mart"}, {"awp": 0.01}])
def test_each_learns_something_else_that_is_robust(options):
    plain = dataclasses.replace(RECIPE, adversary=ADVERSARY)
    recipe = dataclasses.replace(plain, **options)
    (trained, told), (other, _) = learn(recipe), learn(plain)
    assert told[-1][1]["loss"] < told[0][1]["loss"]
    assert rvis.evaluate(trained, stripes(), adversary=ADVERSARY, progress=False) > 0.9
    leaves = zip(*map(jax.tree.leaves, (trained.params, other.params)), strict=True)
    assert any(np.abs(np.asarray(a) - np.asarray(b)).max() > 1e-4 for a, b in leaves)


def test_trades_diverges_from_what_the_network_says():
    images, network = jnp.asarray(stripes().floats(np.arange(6))), model()
    reference = jax.nn.softmax(network(images))
    labels = jnp.zeros(6, jnp.int32)
    moved = jax.jit(ADVERSARY.perturb)(jax.random.key(0), network, images, labels, reference)

    def divergence(x):
        return -(reference * jax.nn.log_softmax(network(x))).sum(1)

    noise = jax.random.uniform(jax.random.key(1), images.shape, jnp.float32, -0.05, 0.05)
    assert (divergence(moved) > divergence(jnp.clip(images + noise, 0, 1))).all()


def test_the_divergence_that_trades_raises_is_a_cross_entropy():
    reference, logits = np.float32([0.2, 0.3, 0.5]), Z[:1]
    expected = -(reference * jax.nn.log_softmax(logits)).sum()
    np.testing.assert_allclose(Divergence(reference)({LOGITS: logits}), expected, rtol=1e-5)


def test_images_kept_for_validation_are_not_trained_on(monkeypatch):
    seen, update = [], loop._update

    def watched(state, blank, key, images, labels, *rest, **options):
        seen.append(images)
        return update(state, blank, key, images, labels, *rest, **options)

    monkeypatch.setattr(loop, "_update", watched)
    data = stripes()
    _, told = learn(RECIPE, data, validation=16)
    met = {image.tobytes() for batch in seen for image in batch}
    assert len(met) == 48 and "validation_accuracy" in told[0][1]


def fading(monkeypatch, scores):
    """Evaluation that tells these scores, and the weights that it was shown."""
    shown, left = [], iter(scores)

    def told(network, *_, **options):
        shown.append(jax.tree.map(np.array, network.params))
        return next(left)

    monkeypatch.setattr(loop, "evaluate", told)
    return shown


def test_the_best_epoch_is_given_back(monkeypatch):
    shown = fading(monkeypatch, [0.2, 0.6, 0.5, 0.4])
    trained, told = learn(RECIPE, validation=16)
    assert len(told) == 4
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(trained.params), shown[1])


def test_catastrophic_overfitting_ends_the_training_and_is_undone(monkeypatch, tmp_path):
    recipe = dataclasses.replace(RECIPE, adversary=ADVERSARY)
    shown = fading(monkeypatch, [0.6, 0.2, 0.9, 0.9])
    trained, told = learn(recipe, validation=16, checkpoint=tmp_path / "c")
    assert len(told) == 2
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(trained.params), shown[0])


def test_resumed_training_remembers_its_best(monkeypatch, tmp_path):
    shown = fading(monkeypatch, [0.6, 0.5, 0.5, 0.5])
    ends = {"callback": lambda epoch, figures: epoch == 2}
    learn(RECIPE, validation=16, checkpoint=tmp_path / "c", **ends)
    trained, _ = learn(RECIPE, validation=16, checkpoint=tmp_path / "c")
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(trained.params), shown[0])


@pytest.mark.parametrize(
    ("named", "recipe", "options"),
    [
        ("adversary", {"loss": "trades"}, {}),
        ("validation", {}, {"validation": 60}),
        ("validation", {}, {"validation": -1}),
    ],
)
def test_bad_arguments_of_training_are_named(named, recipe, options):
    with pytest.raises(ValueError, match=f"^{named}: "):
        learn(dataclasses.replace(RECIPE, **recipe), **options)


@pytest.mark.parametrize(
    ("named", "options"),
    [
        ("loss", {"loss": "pgd"}),
        ("beta", {"beta": -1}),
        ("awp", {"awp": -1}),
        (
            "adversary",
            {"loss": "trades", "adversary": dataclasses.replace(ADVERSARY, random_start=False)},
        ),
    ],
)
def test_bad_recipes_are_named(named, options):
    with pytest.raises(ValueError, match=f"^{named}: "):
        Recipe(**options)
