"""Sparse autoencoders: planted dictionaries, figures, the same bits, what is refused."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from rvis import concepts
from rvis.concepts import sae
from rvis.concepts.source import Source
from rvis.data import Dataset
from tests import toys


def blank(n):
    return Dataset(np.zeros((n, 1, 1, 1), np.uint8), np.zeros(n, np.int32), ("a",), "planted")


def planted(n, k, channels, on, seed=0):
    """Activations of a few of k directions each, and the directions."""
    rng = np.random.default_rng(seed)
    directions = rng.standard_normal((k, channels))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    z = (rng.random((n, k)) < on / k) * rng.uniform(0.5, 1.5, (n, k))
    rows = (z @ directions + 0.3).astype(np.float16)
    return Source(toys.pointwise(), "relu", blank(n), (channels,), rows), directions


def run(data, kind, **options):
    given = {"width": 4, "active": 5, "penalty": sae.KINDS[kind], "epochs": 6, "batch_size": 512}
    return sae.train(data, jax.random.key(0), **{"kind": kind, "rate": 5e-3, **given, **options})


def nearest(trained, directions):
    """The mean of each planted direction's best cosine."""
    return (directions @ np.asarray(trained.concepts.decode.vectors).T).max(1).mean()


def test_two_hundred_planted_directions_in_64_dimensions_come_back():
    data, directions = planted(24_000, 200, 64, on=5)
    assert nearest(run(data, "topk"), directions) >= 0.93


@pytest.mark.parametrize("kind", sae.KINDS)
def test_every_kind_finds_what_was_planted(kind):
    data, directions = planted(12_000, 40, 24, on=2)
    penalty = {"jump": 0.04}.get(kind, sae.KINDS[kind])
    trained = run(data, kind, width=3, active=2, epochs=12, batch_size=256, penalty=penalty)
    assert nearest(trained, directions) > 0.9
    assert trained.figures[-1]["explained"] > 0.7


@pytest.mark.parametrize("kind", sae.KINDS)
def test_the_figures_are_those_of_what_is_handed_back(kind):
    data, _ = planted(4000, 40, 24, on=2)
    trained = run(data, kind, width=3, active=2, epochs=8, batch_size=200)
    x = np.asarray(data.stored, np.float32)
    z = np.asarray(trained.concepts(x))
    left = x - np.asarray(trained.concepts.decode(z))
    explained = 1 - np.square(left).sum() / np.square(x - x.mean(0)).sum()
    assert trained.figures[-1]["explained"] == pytest.approx(explained, abs=0.06)
    assert trained.figures[-1]["active"] == pytest.approx((z > 0).sum(1).mean(), rel=0.15)
    np.testing.assert_allclose(
        np.linalg.norm(trained.concepts.decode.vectors, axis=1), 1, rtol=1e-4
    )


def test_topk_leaves_so_many_on():
    data, _ = planted(2000, 40, 24, on=2)
    trained = run(data, "topk", width=3, active=3, epochs=1, batch_size=200)
    z = np.asarray(trained.concepts(np.asarray(data.stored, np.float32)))
    assert (z > 0).sum(1).max() == 3


def test_the_threshold_of_a_batch_leaves_as_many_on_in_the_mean():
    readings = np.random.default_rng(0).standard_normal((64, 50)).astype(np.float32)
    z, on, least = sae._gates(readings, np.float32(0), "batchtopk", 4)
    assert float(on) == pytest.approx(4, abs=0.05)
    kept = np.sort(readings.ravel())[::-1][256]
    assert float(least) == pytest.approx(kept, abs=1e-4)
    assert ((np.asarray(z) > 0).sum(1) != 4).any()


def test_thresholds_have_the_gradient_of_a_rectangle():
    readings, threshold = np.float32([[0.52, 2.0, 0.1]]), np.float32([0.5, 0.5, 0.5])

    def count(t):
        return sae._gates(readings, t, "jump", 0)[1]

    def total(t):
        return sae._gates(readings, t, "jump", 0)[0].sum()

    width = sae._BANDWIDTH
    np.testing.assert_allclose(jax.grad(count)(threshold), [-1 / width, 0, 0], rtol=1e-5)
    np.testing.assert_allclose(jax.grad(total)(threshold), [-0.5 / width, 0, 0], rtol=1e-5)


@pytest.mark.parametrize("idle", [0, 99, 100])
def test_a_latent_that_is_off_learns_once_it_is_dead(idle):
    data, _ = planted(64, 40, 24, on=2)
    state = sae._start(jax.random.key(0), 24, 48, 1, sae._optimizer(1e-2, 10))
    state = state.replace(idle=np.full(48, idle, np.int32))
    before = np.array(state.weights.kernel)
    sums = (np.zeros(3, np.float32), np.zeros(48, bool))
    rows = np.asarray(data.stored, np.float32)[:4]
    for _ in range(2):  # the first step of the schedule has no length
        state = state.replace(idle=np.full(48, idle, np.int32))
        options = {"kind": "topk", "active": 2, "steps": 10}
        state, sums = sae._update(state, sums, sae._measured(data), rows, 0.0, 1e-2, **options)
    changed = (np.asarray(state.weights.kernel) != before).any(0)
    fired = np.asarray(sums[1])
    assert not fired.all()
    assert changed[fired].all()
    assert changed[~fired].any() == (idle >= 100)


def test_what_is_handed_back_is_of_the_networks_own_activations():
    data, _ = planted(64, 40, 24, on=2)
    rng = np.random.default_rng(0)
    offset, bias = rng.normal(size=24).astype(np.float32), rng.normal(size=48).astype(np.float32)
    state = sae._start(jax.random.key(0), 24, 48, 1, sae._optimizer(1e-2, 10))
    w = state.weights.replace(offset=offset, bias=bias)
    scale = sae._measured(data)
    found = sae._folded(state.replace(weights=w), scale, "relu", "relu", 2)
    x = np.asarray(data.stored, np.float32)
    z = np.maximum(((x - scale.mean) * scale.factor - offset) @ w.kernel + bias, 0)
    np.testing.assert_allclose(found(x), z / scale.factor, atol=1e-4)
    expected = (z @ w.vectors + offset) / scale.factor + scale.mean
    np.testing.assert_allclose(found.decode(found(x)), expected, atol=1e-4)


IMAGES = np.random.default_rng(0).integers(0, 256, (12, 6, 8, 3), np.uint8)
NOISE = Dataset(IMAGES, np.zeros(12, np.int32), ("noise",), "noise")


def small(**options):
    given = {"width": 2, "active": 2, "epochs": 3, "batch_size": 64, "progress": False}
    return concepts.train_sae(toys.pointwise(), "relu", NOISE, **{**given, **options})


def equal(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all((np.asarray(a) == np.asarray(b)).all() for a, b in pairs)


def test_the_same_key_gives_the_same_bits_and_another_others():
    one, same, other = small(), small(), small(key=1)
    assert equal(one.concepts, same.concepts)
    assert not equal(one.concepts, other.concepts)


def test_an_interrupted_training_goes_on_to_the_same_bits(tmp_path):
    whole = small()
    stopped = small(checkpoint=tmp_path, callback=lambda epoch, figures: epoch == 2)
    assert len(stopped.figures) == 2
    assert not equal(stopped.concepts, whole.concepts)
    epochs = []
    resumed = small(checkpoint=tmp_path, callback=lambda epoch, figures: epochs.append(epoch))
    assert epochs == [3]
    assert equal(resumed.concepts, whole.concepts)
    assert resumed.figures == whole.figures
    with pytest.raises(ValueError, match="checkpoint"):
        small(checkpoint=tmp_path, active=3)


def test_stored_activations_are_those_of_the_network(tmp_path, monkeypatch):
    place = tmp_path / "activations.npy"
    one = small(store=place)
    assert np.load(place).shape == (12, 6, 8, 4)
    monkeypatch.setattr("rvis.concepts.source.ranking.each", None)
    assert equal(small(store=place).concepts, one.concepts)


def test_a_store_of_other_activations_is_refused(tmp_path):
    small(store=tmp_path / "a.npy")
    with pytest.raises(ValueError, match="store: .* other activations"):
        concepts.train_sae(
            toys.pointwise(bias=0.1), "relu", NOISE, store=tmp_path / "a.npy", batch_size=64
        )
    with pytest.raises(ValueError, match=r"store: .*\.npy"):
        small(store=tmp_path / "a.npz")


def test_rates_and_penalties_trace_once():
    sae._update.clear_cache()
    for i in range(3):
        small(kind="relu", penalty=0.1 + i, learning_rate=1e-3 * (i + 1), epochs=1)
    assert sae._update._cache_size() == 1


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"kind": "top"}, ValueError, "kind: .*topk"),
        ({"width": 0}, ValueError, "width"),
        ({"active": 9}, ValueError, "active: at most 8"),
        ({"epochs": 0}, ValueError, "epochs"),
        ({"batch_size": 577}, ValueError, "batch_size: at most 576"),
        ({"learning_rate": 0}, ValueError, "learning_rate"),
        ({"penalty": -1}, ValueError, "penalty"),
        ({"callback": 3}, TypeError, "callback"),
        ({"chunk": 0}, ValueError, "chunk"),
        ({"key": "a"}, TypeError, "key"),
    ],
)
def test_a_bad_argument_is_named(options, error, match):
    with pytest.raises(error, match=match):
        small(**options)


def test_a_layer_is_named():
    with pytest.raises(ValueError, match="layer: .*'relu'"):
        concepts.train_sae(toys.pointwise(), "reluu", NOISE)


def test_a_training_that_leaves_the_numbers_says_so():
    with pytest.raises(FloatingPointError, match="learning_rate"):
        small(learning_rate=1e38)
