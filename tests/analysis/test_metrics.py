"""Judges of maps: on linear functions, by hand, and on networks whose order is known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rvis
from rvis import objectives
from rvis.analysis import metrics
from rvis.engine import programs, queue
from rvis.types import identity
from tests import toys

SHAPE = (6, 7, 2)
RNG = np.random.default_rng(0)
WEIGHTS = RNG.standard_normal((84, 2)).astype(np.float32)
LINEAR = toys.linear(WEIGHTS, SHAPE)
IMAGES = RNG.random((3, *SHAPE), np.float32)
LOGIT = objectives.logit([1, 0, 1])
OWN = WEIGHTS.T[[1, 0, 1]].reshape(3, *SHAPE)
QUIET = {"progress": False}


def test_deletion_of_a_linear_score_takes_its_terms_away_in_order():
    maps = (IMAGES * OWN).sum(-1)
    curve = metrics.deletion(LINEAR, IMAGES, maps, LOGIT, pixels=1, **QUIET)
    terms = np.sort(maps.reshape(3, -1), 1)[:, ::-1]
    expected = terms.sum(1, keepdims=True) - np.cumsum(np.pad(terms, ((0, 0), (1, 0))), 1)
    np.testing.assert_allclose(curve.scores, expected, atol=1e-4)
    assert curve.shares[[0, -1]].tolist() == [0, 1]


def test_a_curve_is_plotted():
    curve = metrics.Curve(np.array([0.0, 0.5, 1.0]), np.array([[0.9, 0.4, 0.1], [0.7, 0.6, 0.3]]))
    ax = curve.plot(curve.plot(label="one"), label="two")
    lines = [line for line in ax.get_lines() if line.get_label() in ("one", "two")]
    np.testing.assert_allclose(lines[1].get_xydata(), [[0, 0.8], [50, 0.5], [100, 0.2]])
    assert len(ax.get_lines()) == 6 and len(ax.get_legend().get_texts()) == 2


def test_insertion_from_black_is_deletion_from_the_other_end():
    maps = RNG.random((3, 6, 7))
    back = metrics.deletion(LINEAR, IMAGES, maps, LOGIT, pixels=6, **QUIET)
    forth = metrics.insertion(LINEAR, IMAGES, -maps, LOGIT, baseline=0, pixels=6, **QUIET)
    np.testing.assert_allclose(forth.scores, back.scores[:, ::-1], atol=1e-4)
    np.testing.assert_allclose(forth.area, back.area, atol=1e-4)


def reflected_window():
    """Petsiuk et al.'s `gkern(11, 5)`: an impulse of 11 places, filtered with its ends mirrored."""
    window = np.zeros(11)
    for place in range(11):
        for away in range(-20, 21):
            spot = (place + away) % 22
            if min(spot, 21 - spot) == 5:
                window[place] += np.exp(-(away**2) / 50)
    return window / window.sum()


def test_insertion_starts_from_a_blurred_image():
    window = reflected_window()
    model = toys.linear(np.eye(400), (20, 20, 1))
    image = np.zeros((20, 20, 1), np.float32)
    image[10, 10] = 1
    for row, column in ((10, 10), (8, 10), (13, 6), (10, 16)):
        pixel = objectives.logit(20 * row + column)
        options = {"pixels": 400, **QUIET}
        curve = metrics.insertion(model, image, np.ones((20, 20)), pixel, **options)
        near = max(abs(row - 10), abs(column - 10)) <= 5
        expected = window[row - 5] * window[column - 5] if near else 0
        np.testing.assert_allclose(curve.scores, [[expected, image[row, column, 0]]], atol=1e-6)


def test_insertion_is_zero_padded():
    model = toys.linear(np.eye(400)[:, :1], (20, 20, 1))  # the upper left pixel
    flat = np.full((20, 20, 1), 0.5, np.float32)
    maps, target = np.ones((20, 20)), objectives.logit(0)
    plain = metrics.insertion(model, flat, maps, target, **QUIET).scores[0, 0]
    assert plain == pytest.approx(0.5 * reflected_window()[5:].sum() ** 2, rel=1e-4)


def test_insertion_pads_with_the_models_mean():
    model = rvis.load("cifar10_resnet_narrow")
    mean = np.asarray(model.apply.mean, np.float32)
    image = np.broadcast_to(mean, (32, 32, 3)).copy()
    curve = metrics.insertion(model, image, np.ones((32, 32)), 3, pixels=256, **QUIET)
    np.testing.assert_allclose(curve.scores, curve.scores[0, 0], rtol=1e-4)


def test_a_class_is_scored_by_its_probability():
    curve = metrics.deletion(LINEAR, IMAGES, OWN, [1, 0, 1], pixels=42, **QUIET)
    expected = np.asarray(jax.nn.softmax(LINEAR(IMAGES)))[[0, 1, 2], [1, 0, 1]]
    np.testing.assert_allclose(curve.scores[:, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(curve.scores[:, 1], 0.5, rtol=1e-5)
    np.testing.assert_allclose(curve.area, (expected + 0.5) / 2, rtol=1e-5)


@pytest.mark.parametrize("good", [True, False])
def test_curves_rank_maps(good):
    maps = (IMAGES * OWN).sum(-1) * (1 if good else -1)
    deletion = metrics.deletion(LINEAR, IMAGES, maps, LOGIT, **QUIET)
    insertion = metrics.insertion(LINEAR, IMAGES, maps, LOGIT, baseline=0, **QUIET)
    assert (deletion.area < insertion.area).all() == good


def test_pixel_flipping_falls_by_what_noise_takes():
    maps = np.arange(42.0).reshape(1, 6, 7).repeat(3, 0)
    curve = metrics.pixel_flipping(
        LINEAR, IMAGES, maps, LOGIT, region=3, steps=2, draws=200, **QUIET
    )
    # Regions of 3 × 3 pixels, the last column of them one wide; the lower middle one counts most.
    terms = ((0.5 - IMAGES) * OWN).sum(-1)
    first, second = terms[:, 3:, 3:6].sum((1, 2)), terms[:, 3:, :3].sum((1, 2))
    fall = curve.scores - curve.scores[:, :1]
    np.testing.assert_allclose(fall[:, 1], first, atol=0.5)
    np.testing.assert_allclose(fall[:, 2], first + second, atol=0.7)
    np.testing.assert_allclose(curve.shares, [0, 1 / 6, 2 / 6])
    np.testing.assert_allclose(curve.fall, -fall.mean(1))


def test_infidelity_is_zero_for_a_linear_gradient_and_nothing_else():
    options = {"samples": 20, "noise": 0.3, **QUIET}
    assert (metrics.infidelity(LINEAR, IMAGES, OWN, LOGIT, **options) < 1e-8).all()
    assert (metrics.infidelity(LINEAR, IMAGES, OWN + 1, LOGIT, **options) > 1e-3).all()
    assert (metrics.infidelity(LINEAR, IMAGES, 9 * OWN, LOGIT, **options) > 1e-3).all()


def test_infidelity_of_a_blank_map_is_the_scores_own_variance():
    blank = np.zeros((3, 6, 7))
    found = metrics.infidelity(LINEAR, IMAGES, blank, LOGIT, noise=0.2, samples=2000, **QUIET)
    np.testing.assert_allclose(found, 0.04 * np.square(OWN).sum((1, 2, 3)), rtol=0.15)


def test_the_greatest_change_of_a_map():
    def attribute(model, images, target):
        return images * target

    found = metrics.max_sensitivity(LINEAR, attribute, IMAGES, 2.0, radius=0.05, samples=20)
    limit = 0.05 * np.sqrt(84) / np.sqrt(np.square(IMAGES).sum((1, 2, 3)))
    assert (found <= limit).all()
    assert (found > 0.5 * limit).all()
    np.testing.assert_array_equal(
        metrics.max_sensitivity(LINEAR, attribute, IMAGES, 2.0, radius=0.0), 0
    )


def test_the_greatest_change_is_the_greatest_of_all_draws():
    """The second of three draws counts, whatever comes after it."""
    calls = iter([0.0, 1.0, 5.0, 2.0])

    def attribute(model, images, target):
        return np.full(images.shape, 1 + next(calls))

    found = metrics.max_sensitivity(LINEAR, attribute, IMAGES, 0, samples=3)
    np.testing.assert_allclose(found, 5.0)


def test_nan_has_no_rank():
    for pair in (([[1, np.nan]], [[1, 2]]), ([[1, 2]], [[np.nan, 2]])):
        with pytest.raises(ValueError, match="numbers were expected, given NaN"):
            metrics.spearman(*pair)


@pytest.mark.parametrize(
    ("a", "b", "value"),
    [
        ([1, 2, 3, 4], [2, 4, 9, 11], 1),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1),
        ([1, 2, 3, 4, 5], [5, 6, 7, 8, 7], 0.8207826817),
        ([1, 1, 2, 2], [1, 2, 1, 2], 0),
        ([3, 3, 3], [1, 2, 3], 0),
    ],
)
def test_rank_correlation(a, b, value):
    np.testing.assert_allclose(metrics.spearman([a], [b]), value, atol=1e-9)


@pytest.mark.parametrize("window", [11, 7])
def test_structural_similarity_is_its_formula_place_by_place(window):
    """Wang et al.'s equation 13 in loops, with their σ 1.5, K1 .01 and K2 .03."""
    a, b = RNG.random((2, 14, 15))
    b = 0.6 * a + 0.4 * b
    away = np.arange(window) - window // 2
    one = np.exp(-(away**2) / (2 * 1.5**2))
    weights = np.outer(one, one) / np.outer(one, one).sum()
    values = []
    for i in range(14 - window + 1):
        for j in range(15 - window + 1):
            x, y = (p[i : i + window, j : j + window] for p in (a, b))
            mx, my = (weights * x).sum(), (weights * y).sum()
            vx, vy = (weights * (x - mx) ** 2).sum(), (weights * (y - my) ** 2).sum()
            vxy = (weights * (x - mx) * (y - my)).sum()
            top = (2 * mx * my + 0.01**2) * (2 * vxy + 0.03**2)
            values.append(top / ((mx**2 + my**2 + 0.01**2) * (vx + vy + 0.03**2)))
    options = {} if window == 11 else {"window": window}
    found = metrics.structural_similarity(a[None], b[None], **options)
    np.testing.assert_allclose(found, np.mean(values), rtol=1e-10)


def test_small_pictures_need_a_smaller_window():
    small = RNG.random((1, 9, 12))
    with pytest.raises(ValueError, match="first: .* of 11 × 11 at least"):
        metrics.structural_similarity(small, small)
    assert metrics.structural_similarity(small, small, window=9) == pytest.approx(1)
    with pytest.raises(ValueError, match="window: an odd number"):
        metrics.structural_similarity(small, small, window=8)


def test_structural_similarity():
    picture = RNG.random((2, 12, 15))
    np.testing.assert_allclose(metrics.structural_similarity(picture, picture), 1)
    # Constant pictures have no variance: the luminance term alone is left.
    a, b = np.full((1, 11, 11), 0.2), np.full((1, 11, 11), 0.6)
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    np.testing.assert_allclose(metrics.structural_similarity(a, b), expected)
    assert (metrics.structural_similarity(picture, 1 - picture) < 0).all()
    large = RNG.random((1, 64, 64))
    noisy = np.clip(large + 0.1 * RNG.standard_normal(large.shape), 0, 1)
    assert 0.5 < metrics.structural_similarity(large, noisy)[0] < 0.99


def test_alignment_is_the_length_along_the_gradient():
    gradient = np.stack([IMAGES[0] * 3, -IMAGES[1], np.zeros(SHAPE)])
    expected = [np.linalg.norm(IMAGES[0]), np.linalg.norm(IMAGES[1]), 0]
    np.testing.assert_allclose(metrics.alignment(IMAGES, gradient), expected, rtol=1e-6)


def reversed_apply(params, images, *, tap=identity, relu=jax.nn.relu):
    """Uses its weights in another order than their names'."""
    x = images.mean((1, 2)) @ params["z"]
    x = tap("m", relu(x @ params["m"]))
    return x @ params["a"] + params["b"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mnist_cnn", ("conv1", "conv2", "fc1", "fc2")),
        ("cifar10_resnet", ("conv1", "bn1", "layer1.0", "layer2.0", "layer3.0", "layer4.0", "fc")),
    ],
)
def test_modules_are_in_order_of_execution(name, expected):
    assert metrics.modules(rvis.load(name)) == expected


def test_modules_of_any_pytree():
    params = {"a": jnp.ones((4, 2)), "b": jnp.ones(2), "m": jnp.ones((4, 4)), "z": jnp.ones((2, 4))}
    model = rvis.Model(params, reversed_apply, ("m",), SHAPE)
    assert metrics.modules(model) == ("z", "m", "a", "b")
    assert metrics.modules(LINEAR) == ("weights",)


def test_randomised_weights_keep_their_size_and_the_others_their_bits():
    model = rvis.load("cifar10_resnet")
    noisy = metrics.randomised(model, ["fc", "layer4.0"], key=3)
    before, after = (m.params for m in (model, noisy))
    kernels = [p["params"]["layer4.0"]["conv1"]["kernel"] for p in (before, after)]
    a, b = (np.asarray(kernel).ravel() for kernel in kernels)
    assert np.sqrt((b**2).mean()) == pytest.approx(np.sqrt((a**2).mean()), rel=0.02)
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.02
    for name in ("mean", "var"):
        first, second = (p["batch_stats"]["layer4.0"]["bn1"][name] for p in (before, after))
        assert not (first == second).all()
        np.testing.assert_array_equal(np.sort(first), np.sort(second))
    same = jax.tree.map(
        lambda x, y: bool((x == y).all()), before["params"]["layer3.0"], after["params"]["layer3.0"]
    )
    assert all(jax.tree.leaves(same))
    fewer = metrics.randomised(model, ["fc"], key=3).params["params"]["fc"]["kernel"]
    np.testing.assert_array_equal(fewer, after["params"]["fc"]["kernel"])


def test_a_map_without_weights_passes_unchanged_and_a_gradient_does_not():
    model = toys.pointwise()
    images = RNG.random((2, 12, 12, 3), np.float32)

    def edges(model, images, target):
        return images

    slope = jax.jit(jax.grad(lambda x, params, k: model.apply(params, x)[:, k].sum()))

    def gradient(model, images, target):
        return slope(images, model.params, target)

    still = metrics.sanity_check(model, edges, images, 0)
    np.testing.assert_allclose(still.signed, 1)
    np.testing.assert_allclose(still.similarity, 1)
    assert still.modules == ("dense", "bias", "conv")
    assert still.maps.shape == (4, 2, 12, 12)
    moved = metrics.sanity_check(model, gradient, images, 0)
    assert (moved.signed[-1] < 0.9).all()
    again = metrics.sanity_check(model, gradient, images, 0)
    np.testing.assert_array_equal(again.signed, moved.signed)


def test_maps_of_zeros_are_told_apart():
    model = toys.pointwise()
    images = RNG.random((3, 12, 12, 3), np.float32)
    calls = []

    def attribute(model, images, target):
        calls.append(1)
        maps = images.copy()
        if len(calls) > 1:
            maps[1] = 0
        return maps

    found = metrics.sanity_check(model, attribute, images, 0)
    assert found.blank.tolist() == [[False, True, False]] * 3
    for values in (found.signed, found.absolute, found.similarity):
        assert np.isnan(values[:, 1]).all()
        np.testing.assert_allclose(values[:, [0, 2]], 1)


def test_batches_and_classes_compile_once():
    flipping = {"region": 3, "steps": 3, "draws": 2, **QUIET}
    metrics.deletion(LINEAR, IMAGES, OWN, 0, **QUIET)
    metrics.pixel_flipping(LINEAR, IMAGES, OWN, 0, **flipping)
    size = programs.advance._cache_size()
    metrics.deletion(LINEAR, IMAGES[:1], OWN[:1], 1, baseline=0.5, **QUIET)
    metrics.insertion(LINEAR, IMAGES, OWN, [0, 1, 1], **QUIET)
    metrics.pixel_flipping(LINEAR, IMAGES[1:], OWN[1:], [1, 0], key=3, **flipping)
    assert programs.advance._cache_size() == size


HOLLOW = toys.linear(np.where(WEIGHTS > 1, np.nan, WEIGHTS), SHAPE)


@pytest.mark.parametrize(
    "judge",
    [
        lambda: metrics.deletion(HOLLOW, IMAGES, OWN, 1, **QUIET),
        lambda: metrics.insertion(HOLLOW, IMAGES, OWN, LOGIT, **QUIET),
        lambda: metrics.pixel_flipping(HOLLOW, IMAGES, OWN, 0, region=3, steps=2, **QUIET),
        lambda: metrics.infidelity(HOLLOW, IMAGES, OWN, 0, samples=2, **QUIET),
        lambda: metrics.faithfulness(HOLLOW, objectives.logit([1]), IMAGES[:1], IMAGES),
    ],
)
def test_a_score_that_is_no_number_is_an_error(judge):
    with pytest.raises(FloatingPointError, match="model: finite numbers were expected of it"):
        judge()


MAPS = np.zeros((3, 6, 7))
REFUSED = [
    (metrics.deletion, {"maps": MAPS[:2]}, ValueError, "maps: "),
    (metrics.deletion, {"maps": MAPS * np.nan}, ValueError, "maps: finite"),
    (metrics.deletion, {"images": IMAGES * 9}, ValueError, "images: values"),
    (metrics.deletion, {"target": 5}, ValueError, "target: 0 to 1 of the logits"),
    (metrics.deletion, {"target": [0, 1]}, ValueError, "target: one, or one for each of 3"),
    (metrics.deletion, {"target": "dog"}, ValueError, "target: a class number"),
    (metrics.deletion, {"model": 3}, TypeError, "model: an rvis.Model"),
    (metrics.deletion, {"pixels": 0}, ValueError, "pixels: at least 1"),
    (metrics.deletion, {"baseline": 2}, ValueError, "baseline: a number"),
    (metrics.insertion, {"baseline": np.zeros((3, 6, 7, 2))}, ValueError, "baseline: one for an"),
    (metrics.insertion, {"baseline": "riser"}, ValueError, "baseline: unknown 'riser'; did you"),
    (metrics.pixel_flipping, {"region": 0}, ValueError, "region: at least 1"),
    (metrics.pixel_flipping, {"draws": 0}, ValueError, "draws: at least 1"),
    (metrics.infidelity, {"samples": 0}, ValueError, "samples: at least 1"),
]


@pytest.mark.parametrize(("metric", "changes", "error", "message"), REFUSED)
def test_refused_before_anything_runs(metric, changes, error, message, monkeypatch):
    monkeypatch.setattr(queue, "stream", lambda *a, **k: pytest.fail("it ran"))
    given = {"model": LINEAR, "images": IMAGES, "maps": MAPS, "target": 0, **QUIET, **changes}
    with pytest.raises(error, match=message):
        metric(
            given.pop("model"), given.pop("images"), given.pop("maps"), given.pop("target"), **given
        )


@pytest.mark.parametrize(
    ("attribute", "error", "message"),
    [
        (3, TypeError, "attribute: a function"),
        (lambda *a: np.zeros((3, 2)), ValueError, "attribute: maps of shape"),
    ],
)
def test_an_attribution_that_is_none(attribute, error, message):
    for metric in (metrics.max_sensitivity, metrics.sanity_check):
        with pytest.raises(error, match=message):
            metric(LINEAR, attribute, IMAGES, 0)
