"""Training learns, resumes and repeats to the bit; its adversary stays in its ball and hurts."""

from __future__ import annotations

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rvis
from rvis.data import Dataset
from rvis.models import architectures
from rvis.train import Adversary, Recipe, augment
from tests import toys

SHAPE = (8, 8, 1)


def stripes(count=64):
    """Vertical and horizontal stripes: two classes that a small network tells apart."""
    rng = np.random.default_rng(0)
    labels = np.arange(count, dtype=np.int32) % 2
    wave = 0.5 + 0.3 * np.sign(np.sin(np.arange(8) * np.pi / 2 + 0.1))
    pictures = np.stack(
        [np.tile(wave, (8, 1)) if k else np.tile(wave[:, None], (1, 8)) for k in labels]
    )
    pictures = pictures + rng.normal(0, 0.05, pictures.shape)
    pixels = np.rint(255 * pictures.clip(0, 1)).astype(np.uint8)[..., None]
    return Dataset(pixels, labels, ("across", "down"), "stripes")


def model(key=0):
    config = {"stages": (1, 1), "widths": (4, 8), "classes": 2}
    return architectures.build(
        "cifar_resnet",
        config=config,
        weights="random",
        key=key,
        input_shape=SHAPE,
        mean=(0.5,),
        std=(0.5,),
    )


RECIPE = Recipe(epochs=4, batch=16, learning_rate=0.1, crop=1, flip=False, ema=0.9)


def learn(recipe=RECIPE, **options):
    lines = []
    trained = rvis.train(model(), stripes(), recipe, report=lines.append, progress=False, **options)
    return trained, lines


@functools.cache
def learned():
    """What the plain recipe makes."""
    return learn()[0]


def test_it_learns_and_says_so_once_an_epoch():
    trained, lines = learn(test=stripes())
    assert rvis.evaluate(trained, stripes(), progress=False) == 1
    assert len(lines) == 4
    assert "epoch 4/4" in lines[-1]
    assert "test accuracy 100.00%" in lines[-1]


def test_the_same_key_gives_the_same_bits():
    first, second = learned(), learn()[0]
    jax.tree.map(np.testing.assert_array_equal, first.params, second.params)


def test_an_interrupted_training_resumes_to_the_same_bits(tmp_path):
    class Stop(Exception):
        pass

    def stop(line):
        if "epoch 3" in line:
            raise Stop

    file = tmp_path / "c.npz"
    with pytest.raises(Stop):
        rvis.train(model(), stripes(), RECIPE, report=stop, progress=False, checkpoint=file)
    resumed, lines = learn(checkpoint=file)
    assert [line.split()[1] for line in lines] == ["3/4", "4/4"]
    jax.tree.map(np.testing.assert_array_equal, resumed.params, learned().params)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_adversarial_training_withstands_what_standard_training_does_not(norm):
    eps = {"l2": 1.2, "linf": 0.15}[norm]
    adversary = Adversary(norm, eps, 3)
    recipe = Recipe(epochs=8, batch=16, learning_rate=0.1, crop=0, flip=False, adversary=adversary)
    attack = Adversary(norm, eps, 10)
    robust, standard = (
        rvis.evaluate(network, stripes(), adversary=attack, progress=False)
        for network in (learn(recipe)[0], learned())
    )
    assert robust > standard + 0.1


@pytest.mark.parametrize("schedule", ["onecycle", "cosine"])
def test_rates_end_at_zero(schedule):
    rates = Recipe(schedule=schedule, learning_rate=0.3).rates(100)
    values = [float(rates(i)) for i in range(101)]
    assert max(values) == pytest.approx(0.3, rel=1e-3)
    assert values[-1] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_the_adversary_stays_in_ball_and_box_and_raises_the_loss(norm, eps):
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((48, 3)).astype(np.float32)
    linear = toys.linear(weights, (4, 4, 3))
    x, labels = jnp.asarray(rng.random((5, 4, 4, 3)), jnp.float32), jnp.arange(5) % 3
    moved = Adversary(norm, eps, 5).perturb(jax.random.key(0), linear, x, labels)
    delta = np.asarray(moved - x).reshape(5, -1)
    order = {"l2": 2, "linf": np.inf}[norm]
    assert (np.linalg.norm(delta, order, axis=1) <= eps * (1 + 1e-6)).all()
    assert float(moved.min()) >= 0
    assert float(moved.max()) <= 1
    right = jax.nn.log_softmax(linear(x))[jnp.arange(5), labels]
    after = jax.nn.log_softmax(linear(moved))[jnp.arange(5), labels]
    assert bool((after < right).all()) if eps else bool((moved == x).all())


def test_a_sweep_of_radii_compiles_once():
    module = sys.modules["rvis.train"]
    before = module._correct._cache_size()
    trained = model()
    for eps in (0.1, 0.2, 0.4):
        rvis.evaluate(trained, stripes(), adversary=Adversary("l2", eps, 9), progress=False)
    assert module._correct._cache_size() == before + 1


def test_augmentation_moves_windows_and_mirrors():
    ramp = jnp.broadcast_to(jnp.arange(8.0)[None, :, None], (64, 8, 8, 1))
    views = augment(jax.random.key(0), ramp, crop=0, flip=True)
    mirrored = np.asarray(views[:, 0, 0, 0] == 7)
    assert 10 < mirrored.sum() < 54
    windows = augment(jax.random.key(0), ramp, crop=0, flip=False, small=6)
    assert windows.shape == (64, 6, 6, 1)
    assert set(np.unique(windows[:, 0, 0, 0])) == {0, 1, 2}
    shifted = augment(jax.random.key(0), ramp, crop=2, flip=False)
    assert set(np.unique(shifted[:, 4, 4, 0])) == {2, 3, 4, 5, 6}


def test_cutout_greys_one_square_wherever_it_lands():
    views = augment(jax.random.key(0), jnp.ones((256, 8, 8, 1)), crop=0, flip=False, cutout=4)
    hidden = np.asarray(views[..., 0] == 0.5)
    rows, columns = hidden.any(2).sum(1), hidden.any(1).sum(1)
    np.testing.assert_array_equal(hidden.sum((1, 2)), rows * columns)
    assert set(rows) == set(columns) == {2, 3, 4}
    assert hidden.any(0).all()


def test_restarts_never_raise_accuracy():
    attack = Adversary("l2", 0.8, 2)
    once, thrice = (
        rvis.evaluate(learned(), stripes(), adversary=attack, restarts=n, progress=False)
        for n in (1, 3)
    )
    assert thrice <= once


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Recipe(epochs=0), "epochs: at least 1"),
        (lambda: Recipe(schedule="step"), "schedule: unknown 'step'"),
        (lambda: Recipe(learning_rate=-1), "learning_rate: a number in"),
        (lambda: Adversary("l1", 1, 1), "norm: unknown 'l1'"),
        (lambda: Adversary("l2", -1, 1), "eps: a number in"),
        (lambda: learn(Recipe(batch=65)), "batch: at most 64"),
        (
            lambda: rvis.train(toys.pointwise(), stripes(), RECIPE),
            "model: pointwise cannot be trained",
        ),
        (
            lambda: rvis.train(rvis.load("mnist_cnn", weights="random"), stripes(), RECIPE),
            "dataset: images",
        ),
        (lambda: rvis.evaluate(toys.pointwise(), stripes()), "dataset: images"),
    ],
)
def test_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_diverging_loss_is_an_error():
    with pytest.raises(FloatingPointError, match="loss: became NaN in epoch 1"):
        learn(Recipe(epochs=1, batch=16, learning_rate=1e30, crop=0, flip=False))
