"""Training learns, resumes and repeats to the bit; its adversary stays in its ball and hurts."""

from __future__ import annotations

import functools
import itertools
import os
import signal
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rvis
from rvis.data import Dataset
from rvis.engine import programs
from rvis.models import architectures
from rvis.training import Adversary, Recipe, loop
from tests import toys

SHAPE = (8, 8, 1)
augment = jax.jit(loop.augment, static_argnames=("crop", "flip", "small", "cutout"))


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


RECIPE = Recipe(epochs=4, batch_size=16, learning_rate=0.1, crop=1, flip=False, ema=0.9)


def learn(recipe=RECIPE, data=None, **options):
    """What the recipe makes, and the figures of each epoch."""
    told = []
    options = {"callback": lambda *figures: told.append(figures), "progress": False, **options}
    return rvis.train(model(), stripes() if data is None else data, recipe, **options), told


@functools.cache
def learned():
    """What the plain recipe makes."""
    return learn()[0]


def test_it_learns_and_tells_of_each_epoch():
    trained, told = learn(test=stripes())
    assert rvis.evaluate(trained, stripes(), progress=False) == 1
    assert [epoch for epoch, _ in told] == [1, 2, 3, 4]
    assert told[-1][1]["loss"] < told[0][1]["loss"]
    assert told[-1][1]["test_accuracy"] == 1


def test_the_same_key_gives_the_same_bits():
    first, second = learned(), learn()[0]
    jax.tree.map(np.testing.assert_array_equal, first.params, second.params)


def test_an_interrupted_training_resumes_to_the_same_bits(tmp_path):
    def stop(epoch, figures):
        return epoch == 2

    learn(checkpoint=tmp_path / "c", callback=stop)
    resumed, told = learn(checkpoint=tmp_path / "c")
    assert [epoch for epoch, _ in told] == [3, 4]
    jax.tree.map(np.testing.assert_array_equal, resumed.params, learned().params)
    again, told = learn(checkpoint=tmp_path / "c")
    assert not told
    jax.tree.map(np.testing.assert_array_equal, again.params, learned().params)


def test_a_checkpoint_is_of_the_images_it_was_trained_on(tmp_path):
    learn(checkpoint=tmp_path / "c", callback=lambda epoch, figures: True)
    data = stripes()
    others = Dataset(255 - data.images, data.labels, data.classes, data.name)
    with pytest.raises(ValueError, match="checkpoint: .* other arguments"):
        learn(data=others, checkpoint=tmp_path / "c")


@jax.jit
def _slow(x):
    return jax.lax.fori_loop(0, 40, lambda _, y: jnp.sin(y @ y), x).sum()


def test_an_interruption_while_figures_are_waited_for_is_one(monkeypatch):
    """NumPy's mean of a list of arrays makes a ValueError of it."""
    update = loop._update
    x = jnp.ones((500, 500))
    jax.block_until_ready(_slow(x))

    def waiting(*arguments, **options):
        state, figures = update(*arguments, **options)
        return state, {name: _slow(x) for name in figures}

    monkeypatch.setattr(loop, "_update", waiting)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    # Python drops one that comes while it collects garbage.
    alarms = [threading.Timer(t, os.kill, (os.getpid(), signal.SIGINT)) for t in (0.5, 2, 4)]
    learn(Recipe(epochs=1, batch_size=16, learning_rate=0.1))  # compiled, so that waiting is long
    for alarm in alarms:
        alarm.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            learn(Recipe(epochs=40, batch_size=16, learning_rate=0.1))
            time.sleep(10)
    finally:
        for alarm in alarms:
            alarm.cancel()
        signal.signal(signal.SIGINT, before)


def test_weights_that_are_no_numbers_are_an_error(monkeypatch):
    """Where the last step of an epoch loses them, its loss is that before."""
    update = loop._update

    def losing(*arguments, **options):
        state, figures = update(*arguments, **options)
        if int(state.step) % 4 == 0:
            lost = jax.tree.map(lambda leaf: leaf * np.nan, state.variables)
            state = state.replace(variables=lost)
        return state, figures

    monkeypatch.setattr(loop, "_update", losing)
    with pytest.raises(FloatingPointError, match="weights: became NaN or infinite in epoch 1"):
        learn()


def test_logits_that_are_no_numbers_are_an_error():
    model = toys.pointwise(size=(8, 8), channels=1, bias=1.0)
    vast = model.replace(params=jax.tree.map(lambda leaf: 1e30 * leaf, model.params))
    with pytest.raises(FloatingPointError, match=r"model: finite numbers .* for images \[0, 1, 2"):
        rvis.evaluate(vast, stripes(), progress=False)


def test_weights_that_are_no_numbers_have_no_accuracy():
    """A ReLU on a CPU can turn them into 0, of which the first class is the largest."""
    broken = toys.pointwise(size=(8, 8), channels=1, bias=np.nan)
    with pytest.raises(FloatingPointError, match="model: finite weights were expected"):
        rvis.evaluate(broken, stripes(), progress=False)


@pytest.mark.parametrize("kind", [np.float32, np.float64, float])
def test_numbers_of_numpy_are_numbers(kind):
    adversary = Adversary("l2", kind(0.5), 2)
    assert adversary.step_size == 0.625
    assert rvis.evaluate(learned(), stripes(), adversary=adversary, progress=False) <= 1


@pytest.mark.parametrize(
    "norm",
    # `test_robust_losses.py` trains against the other.
    ["l2", pytest.param("linf", marks=pytest.mark.slow)],
)
def test_adversarial_training_withstands_what_standard_training_does_not(norm):
    eps = {"l2": 1.2, "linf": 0.15}[norm]
    adversary = Adversary(norm, eps, 3)
    recipe = Recipe(
        epochs=8, batch_size=16, learning_rate=0.1, crop=0, flip=False, adversary=adversary
    )
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
    moved = jax.jit(Adversary(norm, eps, 5).perturb)(jax.random.key(0), linear, x, labels)
    delta = np.asarray(moved - x).reshape(5, -1)
    order = {"l2": 2, "linf": np.inf}[norm]
    assert (np.linalg.norm(delta, order, axis=1) <= eps * (1 + 1e-6)).all()
    assert float(moved.min()) >= 0
    assert float(moved.max()) <= 1
    right = jax.nn.log_softmax(linear(x))[jnp.arange(5), labels]
    after = jax.nn.log_softmax(linear(moved))[jnp.arange(5), labels]
    assert bool((after < right).all()) if eps else bool((moved == x).all())


def test_a_sweep_of_radii_compiles_once():
    trained = model()
    rvis.evaluate(trained, stripes(), adversary=Adversary("l2", 0.05, 9), progress=False)
    before = programs.advance._cache_size()
    for eps in (0.1, 0.2, 0.4):
        rvis.evaluate(trained, stripes(), adversary=Adversary("l2", eps, 9), progress=False)
    assert programs.advance._cache_size() == before


def test_an_image_is_attacked_the_same_in_any_company():
    data, attack = stripes(), Adversary("l2", 0.8, 2)
    share = rvis.evaluate(learned(), data, adversary=attack, progress=False)
    assert 0 < share < 1
    first = [
        rvis.evaluate(learned(), data.take(range(n)), adversary=attack, progress=False) * n
        for n in range(1, 9)
    ]
    assert all(after - before in (0, 1) for before, after in itertools.pairwise(np.rint(first)))


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
        (lambda: learn(Recipe(batch_size=65)), "batch_size: at most 64"),
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
    with pytest.raises(FloatingPointError, match="loss: became NaN or infinite in epoch 1"):
        learn(Recipe(epochs=1, batch_size=16, learning_rate=1e30, crop=0, flip=False))
