"""`verify` lets honest attacks pass and catches each way to deceive oneself."""

from __future__ import annotations

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rvis import attacks, objectives
from rvis.types import identity
from tests import toys
from tests.attacks import small

SHAPE = (6, 6, 1)
EPS = 0.05
RNG = np.random.default_rng(2)
WEIGHTS = {
    "in": jnp.asarray(RNG.standard_normal((36, 16)) / 6, jnp.float32),
    "out": jnp.asarray(3 * RNG.standard_normal((16, 3)), jnp.float32),
}
IMAGES = RNG.random((12, *SHAPE)).astype(np.float32)


def _small(params, images):
    return jax.nn.tanh((images - 0.5).reshape(images.shape[0], -1) @ params["in"]) @ params["out"]


def honest(params, images):
    """Logits of two dense layers."""
    return _small(params, images)


def softmaxed(params, images):
    """Probabilities where logits belong."""
    return jax.nn.softmax(_small(params, images))


def quantised(params, images):
    """Pixels of 16 levels, through which no gradient passes."""
    return _small(params, jnp.round(images * 15) / 15)


def misled(params, images):
    """A backward pass that points the other way."""
    return _small(params, 2 * jax.lax.stop_gradient(images) - images)


def saturated(params, images):
    """Logits so large that the softmax is sure of everything."""
    return 300 * _small(params, images)


FORMS = (honest, softmaxed, quantised, misled, saturated)


def apply(params, images, *, tap=identity, relu=jax.nn.relu):
    """The form of this number, so that all of them share their programs."""
    return tap("out", jax.lax.switch(params["form"], FORMS, params, images))


def model_of(form):
    params = {**WEIGHTS, "form": jnp.int32(FORMS.index(form))}
    return toys.linear(np.zeros((36, 3)), SHAPE).replace(apply=apply, params=params)


LABELS = np.asarray(model_of(honest)(IMAGES)).argmax(1)


def pgd(model, images, labels, *, eps, norm="linf", loss="margin"):
    return attacks.pgd(
        model, images, labels, eps=eps, norm=norm, steps=8, loss=loss, progress=False
    )


def restless(model, images, labels, **options):
    """Noise first, whatever the radius."""
    made = pgd(model, images, labels, **options).images
    return np.where(made == images, np.clip(images + 1e-3, 0, 1), made).astype(np.float32)


def too_far(model, images, labels, *, eps, norm):
    """A ball half as large again."""
    return pgd(model, images, labels, eps=1.5 * eps, norm=norm)


def out_of_range(model, images, labels, *, eps, norm):
    """Never clipped to [0, 1]."""
    made = pgd(model, images, labels, eps=eps, norm=norm).images
    return (images + np.sign(made - images) * eps).astype(np.float32)


def mixing(model, images, labels, **options):
    """What is added is shared by the batch."""
    delta = pgd(model, images, labels, **options).images - images
    shared = np.mean(delta, 0, keepdims=True)
    return np.clip(images + 0.5 * (delta + shared), 0, 1).astype(np.float32)


def lazy(model, images, labels, *, eps, norm):
    """Noise and no more."""
    signs = np.random.default_rng(0).choice([-1, 1], images.shape)
    return np.clip(images + eps * signs, 0, 1).astype(np.float32)


def timid(model, images, labels, *, eps, norm):
    """The larger the radius, the smaller the steps."""
    return pgd(model, images, labels, eps=min(eps, EPS**2 / max(eps, 1e-9)), norm=norm)


def verify(attack=pgd, form=honest, **options):
    options = {"eps": EPS, "queries": 20, "progress": False, **options}
    return attacks.verify(model_of(form), attack, IMAGES, LABELS, **options)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_honest_attack_on_an_honest_model_passes(norm):
    report = verify(norm=norm, eps=EPS if norm == "linf" else 6 * EPS)
    assert report.passed and report.failed == ()
    assert str(report).endswith("14 of 14 checks hold")
    assert "FAIL" not in str(report)


LEVELS = np.round(255 * small.images(12)[0]).astype(np.float32) / np.float32(255)


def shared(model, images, labels, *, eps, norm):
    """The same change for all images of a batch, which is what such an attack is for."""
    if eps == 0:
        return images
    return attacks.universal(model, images, labels, eps=eps, norm=norm, steps=8, progress=False)


@pytest.mark.parametrize(
    ("attack", "failed"),
    [
        pytest.param(
            functools.partial(attacks.autoattack, progress=False), set(), marks=pytest.mark.slow
        ),
        (functools.partial(attacks.fab, steps=10, progress=False), set()),
        pytest.param(
            functools.partial(attacks.mi_fgsm, loss="margin", progress=False),
            set(),
            marks=pytest.mark.slow,
        ),
        (
            functools.partial(attacks.apgd, loss="dlr", steps=10, quantize=True, progress=False),
            set(),
        ),
        (shared, {"batch"}),
    ],
)
def test_the_attacks_of_the_library_pass(attack, failed, monkeypatch):
    room = importlib.import_module("rvis.attacks.autoattack")  # not the function of this name
    official = room._attacks
    monkeypatch.setattr(
        room, "_attacks", lambda *names: {n: (p, 6) for n, (p, _) in official(*names).items()}
    )
    model = small.network()
    labels = np.asarray(model(LEVELS)).argmax(1)
    report = attacks.verify(model, attack, LEVELS, labels, eps=0.03, queries=20, progress=False)
    assert failed <= set(report.failed) and (failed or report.passed), str(report)


def naive(model, images, labels, **options):
    """PGD on the logarithm of a softmax, whose gradient vanishes where the network is sure."""
    loss = -objectives.probability(np.asarray(labels))
    return pgd(model, images, labels, **{**options, "loss": loss})


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        ({"form": softmaxed}, {"logits"}),
        ({"form": quantised}, {"gradient", "unbounded"}),
        ({"form": misled}, {"slope", "noise"}),
        ({"form": saturated, "attack": naive}, {"single step"}),
        ({"attack": naive}, {"scale"}),
        ({"attack": restless}, {"identity"}),
        ({"attack": too_far}, {"ball"}),
        ({"attack": out_of_range}, {"ball"}),
        ({"attack": mixing}, {"batch"}),
        ({"attack": lazy}, {"unbounded", "single step"}),
        ({"attack": timid}, {"monotone"}),
    ],
)
def test_what_is_broken_is_caught(broken, expected):
    report = verify(**broken)
    assert not report.passed
    assert expected <= set(report.failed)
    for check in expected:
        assert report[check].figure in str(report) and report[check].meaning in str(report)


def test_a_search_without_gradients_shames_masked_ones():
    report = verify(form=quantised, eps=0.15, queries=100)
    assert "black box" in report.failed
    assert report["black box"].meaning.startswith("gradient masking")


def test_images_that_the_model_has_wrong_are_left_out():
    labels = np.where(np.arange(12) < 4, (LABELS + 1) % 3, LABELS)
    report = attacks.verify(
        model_of(honest), pgd, IMAGES, labels, eps=EPS, queries=20, progress=False
    )
    assert "of 8 images" in report["gradient"].figure


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("attack", {"attack": "pgd"}),
        ("attack", {"attack": lambda model, images, labels, **_: images[:1]}),
        ("attack", {"attack": lambda model, images, labels, **_: images > 0.5}),
        ("eps", {"eps": 0.0}),
        ("norm", {"norm": "l1"}),
        ("queries", {"queries": 0}),
        ("tolerance", {"tolerance": -0.1}),
    ],
)
def test_bad_arguments_are_named(name, options):
    with pytest.raises((TypeError, ValueError), match=rf"^{name}: "):
        verify(**options)


def test_images_and_names_of_checks_are_refused_by_name():
    with pytest.raises(ValueError, match="^images: two at least"):
        attacks.verify(model_of(honest), pgd, IMAGES, (LABELS + 1) % 3, eps=EPS)
    report = attacks.Report(())
    with pytest.raises(ValueError, match="^name: "):
        report["bal"]
