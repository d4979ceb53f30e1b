"""Curves of accuracy against ε and smallest radii, on a linear model where both are known."""

from __future__ import annotations

import csv
import functools
import json
import time

import jax
import numpy as np
import PIL.Image
import pytest

from rvis import attacks, core
from rvis.attacks import pursuit
from rvis.attacks.gradient import plan_projected
from rvis.attacks.result import prepare
from rvis.attacks.square import _pattern, _shift, _tiles, share
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


@pytest.mark.parametrize("attack", ["pgd", "bim", "apgd", "square"])
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


def test_a_curve_agrees_with_attacks_one_by_one():
    """Warm starts only add successes to those of single attacks."""
    model, (images, labels) = small.network(), small.images(9)
    epsilons = (0.01, 0.02, 0.03)
    curve = attacks.robustness(
        model, images, labels, epsilons=epsilons, attack="bim", steps=10, progress=False
    )
    for eps, accuracy in zip(epsilons, curve.accuracies, strict=True):
        single = attacks.bim(model, images, labels, eps=eps, steps=10, progress=False)
        assert accuracy == pytest.approx(single.accuracy, abs=1e-6)


@pytest.mark.parametrize("cores", [1, 3])
def test_what_an_image_tells_does_not_depend_on_the_other_lanes(monkeypatch, cores):
    monkeypatch.setattr("rvis.compilation.cores", lambda: cores)
    images, labels = small.images(40)
    request = prepare(small.network(), images, labels, norm="linf", eps=0.06)

    def run(some):
        plan = plan_projected(some, steps=10, step_size=0.008, drawn=False).stopping()
        return pursuit.pursue(plan, some, progress=False)

    # On one core it begins when others have been running for half their steps, and is fooled as
    # they end.
    late = np.array([14])
    whole, alone = run(request), run(request.rows(late))
    assert alone.since == 5
    for one, all_ in zip(alone, whole, strict=True):
        np.testing.assert_array_equal(one, all_[late])


def test_all_radii_share_one_program(monkeypatch):
    model, (images, _) = small.network(classes=8), small.images(9)
    labels = np.asarray(model(images)).argmax(1)
    traced = []
    energy = core.ascent.energy

    def counted(*args, **options):
        traced.append(1)
        return energy(*args, **options)

    monkeypatch.setattr(core.ascent, "energy", counted)
    options = {"steps": 10, "progress": False}
    attacks.robustness(model, images, labels, epsilons=(0.02,), **options)
    begun = len(traced)
    attacks.robustness(model, images[:5], labels[:5], epsilons=(0, 0.01, 0.1, 0.5), **options)
    assert begun and len(traced) == begun


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
    plain, calls = core.run, []

    def interrupted(*args, **options):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return plain(*args, **options)

    monkeypatch.setattr(pursuit.core, "run", interrupted)
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


def test_ctrl_c_stops_every_core(tmp_path, monkeypatch):
    monkeypatch.setattr("rvis.compilation.cores", lambda: 2)
    images, labels = small.images(40)
    request = prepare(small.network(), images, labels, norm="linf", eps=0.06)
    plan = plan_projected(request, steps=10, step_size=0.008, drawn=False).stopping()
    whole = pursuit.pursue(plan, request, progress=False)
    plain, calls = core.run, []

    def counted(*args, **options):
        calls.append(1)
        return plain(*args, **options)

    def interrupted(bar, count):
        if count:
            raise KeyboardInterrupt

    monkeypatch.setattr(pursuit.core, "run", counted)
    with monkeypatch.context() as patched:
        patched.setattr(pursuit.tqdm, "update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pursuit.pursue(plan, request, progress=False, checkpoint=tmp_path / "half.npz")
    before = len(calls)
    time.sleep(0.1)
    assert len(calls) == before
    again = pursuit.pursue(plan, request, progress=False, checkpoint=tmp_path / "half.npz")
    for one, other in zip(again, whole, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_smallest_radius_of_a_linear_model_is_its_margin(linear, norm):
    model, images, labels, radius = linear
    attack = functools.partial(attacks.fgsm, norm=norm, progress=False)
    weights = np.asarray(model.params)
    if norm == "linf":
        w = weights[:, 1] - weights[:, 0]
        radius = radius * np.linalg.norm(w) / np.abs(w).sum()
    found = attacks.smallest_epsilon(attack, model, images, labels, high=0.5, rounds=12)
    assert (found >= radius * (1 - 1e-4)).all()
    assert (found - radius <= 0.5 / 2**11).all()


def test_the_smallest_radius_is_none_or_zero_where_it_must_be(linear):
    model, images, labels, radius = linear
    attack = functools.partial(attacks.fgsm, norm="l2", progress=False)
    high = float(np.median(radius))
    labels = np.where(np.arange(12) == 3, 1 - labels, labels)
    found = attacks.smallest_epsilon(attack, model, images, labels, high=high, rounds=3)
    assert found[3] == 0
    others = np.arange(12) != 3
    assert (np.isinf(found) == (radius > high))[others].all()


def test_a_curve_is_written(tmp_path):
    numbers = np.array([0.1, 0.2]), np.array([0.5, 0.25]), np.array([0.1, 0.2, np.inf, 0.1])
    curve = attacks.RobustnessCurve(*numbers, np.array([3, 1, -1, 2]), 1.0, "linf", "pgd", "mine")
    curve.save(tmp_path, "linf")
    rows = list(csv.DictReader((tmp_path / "linf.csv").open()))
    assert [float(row["accuracy"]) for row in rows] == [0.5, 0.25]
    assert json.loads((tmp_path / "linf.json").read_text())["smallest"] == [0.1, 0.2, None, 0.1]
    assert PIL.Image.open(tmp_path / "linf.png").width > 300


def test_curves_of_one_norm_share_a_figure():
    numbers = np.array([0.1, 0.2]), np.array([0.5, 0.25]), np.full(4, 0.1), np.ones(4, int)
    one, other, third = (
        attacks.RobustnessCurve(*numbers, 1.0, norm, "pgd", name)
        for name, norm in (("mine", "linf"), ("yours", "linf"), ("mine", "l2"))
    )
    both, thrice = one.show(other), one.show(other, one)
    assert thrice.width > both.width > one.show().width  # a legend, the longer for "mine (3)"
    with pytest.raises(ValueError, match="^others: curves in 'linf'"):
        one.show(third)


@pytest.mark.parametrize(
    ("changed", "error", "named"),
    [
        ({"epsilons": ()}, ValueError, "epsilons"),
        ({"epsilons": 0.1}, TypeError, "epsilons"),
        ({"epsilons": (0.1, -0.1)}, ValueError, "epsilons"),
        ({"attack": "pgb"}, ValueError, "attack"),
        ({"attack": "square", "norm": "l1"}, ValueError, "norm"),
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
        ({"rounds": 0}, ValueError, "rounds"),
        ({"images": np.zeros(3)}, ValueError, "images"),
    ],
)
def test_bad_arguments_of_smallest_radii_are_named(changed, error, named):
    images, labels = small.images(2)
    given = {"attack": attacks.fgsm, "images": images, "high": 1.0, **changed}
    attack, pictures = given.pop("attack"), given.pop("images")
    with pytest.raises(error, match=f"^{named}:"):
        attacks.smallest_epsilon(attack, small.network(), pictures, labels, **given)


def test_squares_shrink_as_published():
    at = [0, 10, 11, 50, 51, 201, 501, 1001, 2001, 4001, 6001, 8001]
    halvings = [0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    found = [float(share(query, 10000, 0.8)) for query in at]
    assert found == pytest.approx([0.8 / 2**k for k in halvings])
    assert float(share(25, 5000, 0.8)) == float(share(50, 10000, 0.8))


def authors_pile(tall, wide):
    """The authors' loop for one half of η."""
    delta = np.zeros((tall, wide))
    middle = tall // 2 + 1, wide // 2 + 1
    corner = [middle[0] - 1, middle[1] - 1]
    for k in range(max(middle)):
        rows = slice(max(corner[0], 0), min(corner[0] + 2 * k + 1, tall))
        columns = slice(max(corner[1], 0), min(corner[1] + 2 * k + 1, wide))
        delta[rows, columns] += 1 / (k + 1) ** 2
        corner = [corner[0] - 1, corner[1] - 1]
    return delta / np.sqrt((delta**2).sum())


@pytest.mark.parametrize("side", [3, 5, 6, 11])
def test_the_pattern_is_the_authors(side):
    expected = np.concatenate(
        [authors_pile(side // 2, side), -authors_pile(side - side // 2, side)]
    ) / np.sqrt(2)
    whole = np.zeros((12, 14))
    whole[1 : 1 + side, 2 : 2 + side] = expected
    found = jax.jit(_pattern)(np.arange(12) - 1, np.arange(14) - 2, np.int32(side))
    assert np.abs(np.asarray(found) - whole).max() < 1e-6


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 24, 3)])
def test_l2_candidates_use_the_whole_radius(shape):
    @jax.jit
    def candidates(key):
        begun = 2 * _tiles(key, shape)
        return begun, _shift(key, begun, np.float32(2), np.float32(0.1))

    begun, moved = map(np.asarray, candidates(jax.random.key(0)))
    assert np.linalg.norm(begun) == pytest.approx(2, rel=1e-5)
    assert np.linalg.norm(moved) == pytest.approx(2, rel=1e-5)
    # Outside of the two squares everything is as it was, but for its length.
    ratio = np.median((moved / np.where(begun == 0, np.inf, begun))[begun != 0])
    side = 2 * (round(np.sqrt(0.1 * shape[0] * shape[1])) // 2) + 1
    changed = ~np.isclose(moved, ratio * begun, atol=1e-6).all(-1)
    assert side**2 / 2 < changed.sum() <= 2 * side**2
