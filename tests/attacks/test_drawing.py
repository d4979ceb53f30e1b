"""Networks that are functions of a key: attacks on what they do in the mean."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rvis import attacks
from rvis.types import identity
from tests.attacks import small

QUIET = {"progress": False}


@dataclasses.dataclass(frozen=True)
class Noisy:
    """The small network of an image with so much noise."""

    sigma: float
    takes_key: bool = True

    def __call__(self, params, images, *, tap=identity, relu=jax.nn.relu, key=None):
        key = jax.random.key(7) if key is None else key
        noise = jax.random.normal(key, images.shape, jnp.float32)
        return tap("out", small.apply(params, images + self.sigma * noise))


def noisy(sigma):
    return small.network().replace(apply=Noisy(sigma), layers=("out",))


def test_without_noise_it_is_the_network_itself():
    images, labels = small.images(5)
    plain = attacks.pgd(small.network(), images, labels, eps=0.02, steps=5, **QUIET)
    for eot in (1, 3):
        drawn = attacks.pgd(noisy(0.0), images, labels, eps=0.02, steps=5, eot=eot, **QUIET)
        np.testing.assert_allclose(drawn.losses, plain.losses, rtol=1e-4)
        np.testing.assert_array_equal(drawn.success, plain.success)


def test_a_step_is_a_mean_over_draws():
    images, labels = small.images(8)
    options = {"eps": 0.0, "steps": 6, **QUIET}
    one = attacks.pgd(noisy(0.3), images, labels, eot=1, **options).losses
    many = attacks.pgd(noisy(0.3), images, labels, eot=64, **options).losses
    # Nothing moves: what varies from step to step are the draws.
    ratio = one.std(1).mean() / many.std(1).mean()
    assert 5 < ratio < 13  # √64
    assert abs(one.mean() - many.mean()) < 3 * one.std() / 48**0.5


def test_more_draws_fool_the_mean_network_more():
    images, labels = small.images(24)
    model = noisy(0.3)
    labels = attacks.pgd(model, images, labels, eps=0.0, steps=1, **QUIET).clean
    one, many = (
        attacks.pgd(model, images, labels, eps=0.01, steps=12, loss="margin", eot=n, **QUIET)
        for n in (1, 32)
    )
    assert many.success.sum() >= one.success.sum()
    assert many.config["eot"] == 32


def test_rand_attacks_the_mean_and_standard_says_that_it_draws(monkeypatch):
    import importlib

    room = importlib.import_module("rvis.attacks.autoattack")
    official = room._attacks
    monkeypatch.setattr(
        room,
        "_attacks",
        lambda *names: {n: (plan, 6) for n, (plan, _) in official(*names).items()},
    )
    images, labels = small.images(6)
    found = attacks.autoattack(noisy(0.05), images, labels, eps=0.03, version="rand", **QUIET)
    assert found.attacks == ("apgd-ce", "apgd-dlr") and found.report.passed
    assert found.accuracy < 1
    found = attacks.autoattack(noisy(0.05), images, labels, eps=0.03, **QUIET)
    assert "same outputs" in found.report.failed


def test_draws_of_a_network_that_has_none_are_refused():
    images, labels = small.images(2)
    with pytest.raises(ValueError, match="^eot: 1 was expected"):
        attacks.pgd(small.network(), images, labels, eps=0.1, eot=4, **QUIET)
    with pytest.raises((TypeError, ValueError), match="^eot: "):
        attacks.pgd(noisy(0.1), images, labels, eps=0.1, eot=0, **QUIET)
