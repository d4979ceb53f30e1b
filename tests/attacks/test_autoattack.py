"""AutoAttack: the official attacks in their order, each on what holds, and what casts doubt on it."""

from __future__ import annotations

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rvis import attacks
from rvis.attacks.autoattack import _attacks, _targeted
from rvis.attacks.request import prepare
from rvis.types import identity
from tests.attacks import small

room = importlib.import_module("rvis.attacks.autoattack")  # not the function of this name
STANDARD = ["apgd-ce", "apgd-t", "fab-t", "square"]
QUIET = {"progress": False}
EPS = 0.02


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """The official attacks with fewer steps."""
    official = _attacks

    def shorter(version, norm):
        few = {"square": 60}
        return {n: (plan, few.get(n, 8)) for n, (plan, _) in official(version, norm).items()}

    monkeypatch.setattr(room, "_attacks", shorter)


@pytest.fixture(scope="module")
def pictures():
    images, labels = small.images(13)
    labels = labels.copy()
    labels[3] = (labels[3] + 1) % 5
    return images, labels


def run(images, labels, model=None, **options):
    return attacks.autoattack(
        model or small.network(), images, labels, **{"eps": EPS, **QUIET, **options}
    )


def test_versions_are_the_official_ones():
    for norm in attacks.NORMS:
        assert list(_attacks("standard", norm)) == STANDARD
        plus = ["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"]
        assert list(_attacks("plus", norm)) == plus
    images, labels = small.images(2)
    steps = {}
    for version, norm in (("standard", "linf"), ("standard", "l1"), ("plus", "l2")):
        request = prepare(small.network(), images, labels, norm=norm, eps=1.0)
        for name, (planned, each) in _attacks(version, norm).items():
            plan = planned(request, steps=each)
            # A look at where the last step of a round has led is a step of the round.
            steps[version, norm, name] = plan.steps
    assert steps == {
        ("standard", "linf", "apgd-ce"): 101,
        ("standard", "linf", "apgd-t"): 4 * 101,  # the other classes of five
        ("standard", "linf", "fab-t"): 400,
        ("standard", "linf", "square"): 5000,
        ("standard", "l1", "apgd-ce"): 505,
        ("standard", "l1", "apgd-t"): 4 * 101,
        ("standard", "l1", "fab-t"): 400,
        ("standard", "l1", "square"): 5000,
        ("plus", "l2", "apgd-ce"): 505,
        ("plus", "l2", "apgd-dlr"): 505,
        ("plus", "l2", "fab"): 500,
        ("plus", "l2", "square"): 5000,
        ("plus", "l2", "apgd-t"): 4 * 101,
        ("plus", "l2", "fab-t"): 400,
    }


def test_targets_are_the_next_likely_classes():
    images, _ = small.images(4)
    logits = np.asarray(small.network()(images))
    labels = logits.argsort(1)[:, -2]  # which need not be the first
    request = prepare(small.network(), images, labels, norm="linf", eps=EPS)
    found = _targeted(request, "linf").T
    for row, label, targets in zip(logits, labels, found, strict=True):
        assert targets.tolist() == [c for c in np.argsort(-row) if c != label]


@pytest.mark.parametrize(("norm", "count"), [("linf", 9), ("l2", 9), ("l1", 5)])
def test_of_many_classes_some_are_targets(norm, count):
    images, labels = small.images(2)
    request = prepare(small.network(classes=12), images, labels, norm=norm, eps=EPS)
    assert _targeted(request, norm).shape == (count, 2)


@pytest.mark.parametrize("norm", attacks.NORMS)
def test_each_attack_sees_what_holds_and_the_table_falls(pictures, norm, monkeypatch):
    images, labels = pictures
    held, plain = [], room.run_plan

    def watched(plan, request, **options):
        held.append(len(request.images))
        return plain(plan, request, **options)

    monkeypatch.setattr(room, "run_plan", watched)
    eps = {"linf": 0.02, "l2": 0.13, "l1": 0.7}[norm]
    found = run(images, labels, norm=norm, eps=eps)
    accuracies = list(found.accuracies.values())
    assert list(found.accuracies) == ["clean", *STANDARD]
    assert accuracies == sorted(accuracies, reverse=True)
    assert held == [round(a * len(images)) for a in accuracies[: len(held)]]
    assert found.accuracy == accuracies[-1] and 0 < found.accuracy < accuracies[0] < 1
    assert (found.distances <= eps * (1 + 1e-6)).all()
    np.testing.assert_array_equal(found.fooled_by == 4, ~found.success)
    np.testing.assert_array_equal(found.fooled_by == -1, found.solved)
    np.testing.assert_array_equal(found.images[~found.success], images[~found.success])
    assert found.report.passed and "4 of 4" not in found.table() and "apgd-t" in found.table()


def test_it_finds_at_least_what_its_parts_find(pictures):
    images, labels = pictures
    whole = run(images, labels)
    part = attacks.apgd(small.network(), images, labels, eps=EPS, steps=8, **QUIET)
    assert (whole.success | ~part.success).sum() >= len(images) - 1  # other draws


def test_plus_finds_no_less(pictures, tmp_path):
    images, labels = pictures
    found = run(images, labels, version="plus")
    assert found.accuracy <= run(images, labels).accuracy + 1e-9
    place = found.save(tmp_path)
    card = (place / "card.json").read_text()
    assert '"apgd-dlr"' in card and '"fooled_by"' in card and '"warnings"' in card


def test_a_single_image_has_no_axis(pictures):
    images, labels = pictures
    found = run(images[0], labels[0])
    assert found.images.shape == small.SHAPE and np.ndim(found.fooled_by) == 0
    assert found.accuracies["clean"] == 1


class Stopped(Exception):
    pass


@pytest.mark.parametrize("when", [1, 9, 50])
def test_resumed_equals_uninterrupted(pictures, tmp_path, when):
    images, labels = pictures
    whole = run(images, labels)
    calls = []

    def stop(step, seen, losses):
        calls.append(step)
        if len(calls) == when:
            raise Stopped

    with pytest.raises(Stopped):
        run(images, labels, callback=stop, checkpoint=tmp_path / "c")
    again = run(images, labels, checkpoint=tmp_path / "c")
    np.testing.assert_array_equal(again.images, whole.images)
    np.testing.assert_array_equal(again.fooled_by, whole.fooled_by)
    assert not (tmp_path / "c").exists()


def shown(params, images, *, tap=identity, relu=jax.nn.relu):
    """The small network's probabilities."""
    return tap("out", jax.nn.softmax(small.apply(params, images)))


def stairs(params, images, *, tap=identity, relu=jax.nn.relu):
    """The small network on images of few levels: no gradient."""
    return tap("out", small.apply(params, jnp.round(images * 40) / 40))


@pytest.mark.parametrize(
    ("apply", "named"), [(shown, ("logits",)), (stairs, ("gradient", "black box"))]
)
def test_what_casts_doubt_is_told(apply, named):
    images, _ = small.images(8)
    model = small.network().replace(apply=apply, layers=("out",))
    labels = np.asarray(model(images)).argmax(1)
    found = run(images, labels, model, eps=0.05)
    assert set(named) <= set(found.report.failed)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("version", {"version": "standart"}),
        ("norm", {"norm": "l0"}),
        ("eps", {"eps": -1}),
        ("chunk", {"chunk": 0}),
        ("model", {"model": small.network(3), "labels": 0}),
    ],
)
def test_bad_arguments_are_named(pictures, name, options):
    images, labels = pictures
    with pytest.raises((TypeError, ValueError), match=f"^{name}: "):
        run(images, options.pop("labels", labels), **options)
