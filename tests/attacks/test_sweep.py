"""Curves of accuracy against ε and smallest radii, on a linear model where both are known."""

from __future__ import annotations

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

import rvis
from rvis import attacks, struct
from rvis.engine import programs
from rvis.engine.slots import Group
from rvis.types import identity
from tests import toys
from tests.attacks import small

SHAPE = small.SHAPE


@pytest.fixture(scope="module")
def linear():
    """A linear model of two classes, near-grey images, labels, and where each is fooled in L2."""
    rng = np.random.default_rng(1)
    weights = rng.standard_normal((np.prod(SHAPE), 2)).astype(np.float32)
    weights -= weights.mean(0)
    model = toys.linear(weights, SHAPE)
    images = (0.5 + 0.02 * rng.standard_normal((12, *SHAPE))).astype(np.float32)
    w = weights[:, 1] - weights[:, 0]
    margins = images.reshape(len(images), -1) @ w
    return model, images, (margins > 0).astype(int), np.abs(margins) / np.linalg.norm(w)


def test_a_linear_models_curve_is_that_of_its_margins(linear):
    model, images, labels, radius = linear
    epsilons = np.quantile(radius, [0.2, 0.5, 0.8]) * 1.03
    curve = attacks.robustness(
        model, images, labels, epsilons=epsilons[::-1], norm="l2", attack="apgd", progress=False
    )
    assert curve.epsilons.tolist() == epsilons.tolist() and curve.clean == 1
    expected = (radius > epsilons[:, None]).mean(1)
    assert curve.accuracies.tolist() == pytest.approx(expected)
    assert np.isinf(curve.smallest).mean() == curve.accuracies[-1]


# BIM and MI-FGSM are PGD's loop with other steps.
@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in ("bim", "mi_fgsm")))
        for name in attacks.ATTACKS
    ],
)
def test_success_never_falls_and_zero_is_the_clean_accuracy(attack):
    images, labels = small.images(9)
    wrong = np.where(np.arange(9) < 2, (labels + 1) % 5, labels)
    epsilons = (0, 0.01, 0.02, 0.04, 0.3)
    curve = attacks.robustness(
        small.network(), images, wrong, epsilons=epsilons, attack=attack, steps=10, progress=False
    )
    assert curve.accuracies[0] == curve.clean == pytest.approx(7 / 9)
    assert (np.diff(curve.accuracies) <= 0).all() and curve.accuracies[-1] < curve.accuracies[1]
    assert curve.smallest[:2].tolist() == [0, 0] and (curve.iterations[:2] == 0).all()
    assert ((curve.iterations < 0) == np.isinf(curve.smallest)).all()


def hard(params, images, *, tap=identity, relu=jax.nn.relu):
    """A pixel of a narrow band alone fools: steps of a large ball leap over it."""
    x = images.mean((1, 2, 3))
    inside = 1 - jnp.abs(x - params["band"]) / params["width"]
    return tap("out", jnp.stack([jnp.zeros_like(x), inside], 1))


@pytest.mark.parametrize("attack", ["pgd", "bim", "apgd", "square"])
def test_a_radius_has_the_accuracy_of_the_attack_by_itself(attack):
    """Whichever others are asked for, and though it may do worse than in a smaller ball."""
    model, (images, labels) = small.network(), small.images(9)
    epsilons = (0.01, 0.02, 0.03)
    options = {"steps": 10, "progress": False}
    curve = attacks.robustness(model, images, labels, epsilons=epsilons, attack=attack, **options)
    for i, eps in enumerate(epsilons):
        single = getattr(attacks, attack)(model, images, labels, eps=eps, **options)
        assert curve.accuracies[i] == pytest.approx(single.accuracy)
        alone = attacks.robustness(model, images, labels, epsilons=(eps,), attack=attack, **options)
        assert alone.accuracies[0] == curve.accuracies[i]


def test_what_holds_in_a_large_ball_may_fall_in_a_small_one():
    """Steps of the large ball leap over the band in which the model is fooled."""
    params = {"band": jnp.float32(0.53), "width": jnp.float32(0.008)}
    model = toys.linear(np.zeros((4, 2)), (2, 2, 1)).replace(apply=hard, params=params)
    images = np.full((3, 2, 2, 1), 0.5, np.float32)
    options = {"attack": "bim", "steps": 2, "progress": False}
    curve = attacks.robustness(model, images, 0, epsilons=(0.024, 0.2), **options)
    small_ball, large = (
        attacks.bim(model, images, 0, eps=eps, steps=2, progress=False) for eps in (0.024, 0.2)
    )
    assert small_ball.success.all() and not large.success.any()
    assert curve.accuracies.tolist() == [0, 1] and curve.smallest.tolist() == [0.024] * 3


def test_intervals_are_wilsons():
    """Of 2 in 10 and 0 in 10; Newcombe 1998, table I."""
    smallest = np.full(10, np.inf)
    curve = attacks.RobustnessCurve(
        np.array([0.1, 0.2]), np.array([0.2, 0.0]), smallest, smallest, 1.0, "linf", "pgd", "mine"
    )
    np.testing.assert_allclose(curve.low, [0.0567, 0], atol=1e-4)
    np.testing.assert_allclose(curve.high, [0.5098, 0.2775], atol=1e-4)


def test_all_radii_share_one_program():
    model, (images, _) = small.network(classes=8), small.images(9)
    labels = np.asarray(model(images)).argmax(1)
    options = {"steps": 10, "progress": False}
    attacks.robustness(model, images, labels, epsilons=(0.02,), **options)
    begun = programs.advance._cache_size()
    attacks.robustness(model, images[:5], labels[:5], epsilons=(0, 0.01, 0.1, 0.5), **options)
    assert programs.advance._cache_size() == begun


def test_an_interrupted_curve_goes_on(tmp_path, monkeypatch):
    model, (images, labels) = small.network(), small.images(21, seed=4)
    curve = functools.partial(
        attacks.robustness,
        model,
        images,
        labels,
        epsilons=(0.01, 0.02, 0.04),
        steps=10,
        progress=False,
    )
    whole = curve()
    plain, calls = Group.advance, []

    def interrupted(group):
        if group.work.steps > 1:
            calls.append(1)
            if len(calls) == 6:
                raise KeyboardInterrupt
        return plain(group)

    monkeypatch.setattr(Group, "advance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        curve(checkpoint=tmp_path / "half")
    assert list((tmp_path / "half").iterdir())
    with pytest.raises(ValueError, match="^checkpoint:"):
        curve(checkpoint=tmp_path / "half", key=1)
    before = len(calls)
    again = curve(checkpoint=tmp_path / "half")
    resumed = len(calls) - before
    curve()
    assert resumed < len(calls) - before - resumed
    assert (again.smallest == whole.smallest).all()
    assert (again.iterations == whole.iterations).all()
    assert not (tmp_path / "half").exists()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_smallest_radius_of_a_linear_model_is_its_margin(linear, norm):
    model, images, labels, radius = linear
    weights = np.asarray(model.params)
    if norm == "linf":
        w = weights[:, 1] - weights[:, 0]
        radius = radius * np.linalg.norm(w) / np.abs(w).sum()
    options = {"high": 0.5, "binary_search_steps": 12, "norm": norm, "progress": False}
    found = attacks.smallest_epsilon(model, attacks.fgsm, images, labels, **options)
    assert (
        attacks.smallest_epsilon(model, attacks.fgsm, images[0], labels[0], **options) == found[0]
    )
    assert (found >= radius * (1 - 1e-4)).all()
    assert (found - radius <= 0.5 / 2**11).all()


def test_the_smallest_radius_is_none_or_zero_where_it_must_be(linear):
    model, images, labels, radius = linear
    high = float(np.median(radius))
    labels = np.where(np.arange(12) == 3, 1 - labels, labels)
    options = {"high": high, "binary_search_steps": 3, "norm": "l2", "progress": False}
    found = attacks.smallest_epsilon(model, attacks.fgsm, images, labels, **options)
    assert found[3] == 0
    others = np.arange(12) != 3
    assert (np.isinf(found) == (radius > high))[others].all()


def test_a_curve_is_written(tmp_path):
    numbers = np.array([0.1, 0.2]), np.array([0.5, 0.25]), np.array([0.1, 0.2, np.inf, 0.1])
    curve = attacks.RobustnessCurve(*numbers, np.array([3, 1, -1, 2]), 1.0, "linf", "pgd", "mine")
    curve.save(tmp_path)
    with np.load(tmp_path / "arrays.npz", allow_pickle=False) as arrays:
        assert arrays["accuracies"].tolist() == [0.5, 0.25]
    assert json.loads((tmp_path / "card.json").read_text())["smallest"] == [0.1, 0.2, None, 0.1]
    assert PIL.Image.open(tmp_path / "plot.png").width > 300


def test_curves_of_one_norm_share_a_figure():
    numbers = np.array([0.1, 0.2]), np.array([0.5, 0.25]), np.full(4, 0.1), np.ones(4, int)
    one, other, third = (
        attacks.RobustnessCurve(*numbers, 1.0, norm, "pgd", name)
        for name, norm in (("mine", "linf"), ("yours", "linf"), ("mine", "l2"))
    )
    ax = other.plot(one.plot())
    drawn = [line.get_label() for line in ax.get_lines()]
    assert drawn == ["mine, pgd, 4 images", "yours, pgd, 4 images"]
    np.testing.assert_allclose(ax.get_lines()[0].get_xydata(), [[0.1, 50], [0.2, 25]])
    assert "L∞" in ax.get_xlabel() and "%" in ax.get_ylabel()
    with pytest.raises(ValueError, match="^ax: a curve in 'l2'"):
        third.plot(ax)


@pytest.mark.parametrize(
    ("changed", "error", "named"),
    [
        ({"epsilons": ()}, ValueError, "epsilons"),
        ({"epsilons": 0.1}, TypeError, "epsilons"),
        ({"epsilons": (0.1, -0.1)}, ValueError, "epsilons"),
        ({"attack": "pgb"}, ValueError, "attack"),
        ({"steps": 0}, ValueError, "steps"),
        ({"loss": "hinge"}, ValueError, "loss"),
    ],
)
def test_bad_arguments_of_curves_are_named(changed, error, named):
    images, labels = small.images(2)
    with pytest.raises(error, match=f"^{named}:"):
        attacks.robustness(small.network(), images, labels, **{"epsilons": (0.1,), **changed})


@pytest.mark.parametrize(
    ("changed", "error", "named"),
    [
        ({"attack": "pgd"}, TypeError, "attack"),
        ({"high": 0}, ValueError, "high"),
        ({"binary_search_steps": 0}, ValueError, "binary_search_steps"),
        ({"images": np.zeros(3)}, ValueError, "images"),
    ],
)
def test_bad_arguments_of_smallest_radii_are_named(changed, error, named):
    images, labels = small.images(2)
    given = {"attack": attacks.fgsm, "images": images, "high": 1.0, **changed}
    attack, pictures = given.pop("attack"), given.pop("images")
    with pytest.raises(error, match=f"^{named}:"):
        attacks.smallest_epsilon(small.network(), attack, pictures, labels, **given)


def test_logits_that_are_no_numbers_are_no_robustness():
    """The largest of NaNs is a class like any other to `argmax`."""
    model = rvis.load("mnist_cnn")
    params = jax.tree.map(lambda leaf: leaf, model.params)
    params["params"]["fc2"]["bias"] = params["params"]["fc2"]["bias"].at[0].set(jnp.nan)
    broken = struct.replace(model, params=params)
    digits = np.full((2, 28, 28, 1), 0.5, np.float32)
    with pytest.raises(FloatingPointError, match=r"model: finite numbers .* images \[0, 1\]"):
        attacks.robustness(broken, digits, [1, 2], epsilons=(0.1,), steps=2, progress=False)
