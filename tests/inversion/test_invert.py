"""Inversion: linear layers against their closed forms, samples, phases, plates and refusals."""

from __future__ import annotations

import numpy as np
import pytest

import rvis
from rvis import engine, images, optimizers
from rvis.analysis import representations
from rvis.engine import programs
from rvis.inversion import invert, invert_layers
from rvis.inversion.layers import TV, _jitter
from rvis.inversion.plate import _outermost
from tests import toys
from tests.interrupts import interrupted

SHAPE = (4, 5, 1)
RNG = np.random.default_rng(0)
WEIGHTS = RNG.standard_normal((20, 3)).astype(np.float32)
LINEAR = toys.linear(WEIGHTS, SHAPE)
IDENTITY = toys.linear(np.eye(20), SHAPE)
PHOTO = RNG.uniform(0.3, 0.7, SHAPE).astype(np.float32)
PLAIN = {"alpha": 0.0, "tv": 0.0, "image": images.Pixel(SHAPE, sd=0.0), "progress": False}
SMALL = toys.pointwise()
PAIR = RNG.uniform(0.2, 0.8, (2, 6, 8, 3)).astype(np.float32)
QUICK = {"steps": 12, "progress": False}


def test_a_linear_layer_gives_the_preimage_nearest_to_the_start():
    """The gradient lies in the span of the weights: what they do not see stays grey."""
    found = invert(LINEAR, PHOTO, "out", steps=600, optimizer=optimizers.sgd(0.1), **PLAIN)
    seen = WEIGHTS @ np.linalg.pinv(WEIGHTS)
    expected = 0.5 + (seen @ (PHOTO.ravel() - 0.5)).reshape(SHAPE)
    np.testing.assert_allclose(found.images, expected, atol=1e-4)
    assert found.errors < 1e-4


@pytest.mark.parametrize(
    "kind", ["pixel", "fourier", pytest.param("pyramid", marks=pytest.mark.slow)]
)
def test_the_pixels_themselves_invert_to_the_image(kind):
    options = {**PLAIN, "image": kind}
    found = invert(IDENTITY, PHOTO, "out", steps=384, **options)
    np.testing.assert_allclose(found.images, PHOTO, atol=0.02)
    assert found.errors < 0.01


@pytest.mark.parametrize(
    ("channels", "layer", "kind"),
    [
        (3, "conv", "pyramid"),
        (3, "dense", "fourier"),
        (1, "conv", "pyramid"),
        (1, "dense", "pyramid"),
    ],
)
def test_early_layers_and_grey_images_are_written_as_pyramids(channels, layer, kind, monkeypatch):
    model = toys.pointwise(channels)
    picture = np.full(model.input_shape, 0.4, np.float32)
    chosen = []

    def watched(algorithm, *arguments, **options):
        chosen.append(algorithm.image)
        raise KeyboardInterrupt  # nothing need be climbed

    monkeypatch.setattr(engine, "run", watched)
    for options in ({}, {"image": kind}):
        with pytest.raises(KeyboardInterrupt):
            invert(model, picture, layer, **options, **QUICK)
    assert chosen[0] == chosen[1] == images.named(kind, model.input_shape)


def test_total_variation_against_its_linear_system():
    """E = |x − x0|² / |x0|² + w Σ(dx² + dy²) is least where (I + w |x0|² L) x = x0."""
    found = invert(
        IDENTITY,
        PHOTO,
        "out",
        steps=1200,
        optimizer=optimizers.sgd(0.2),
        **{**PLAIN, "tv": 0.01},
    )
    height, width = SHAPE[:2]
    laplacian = np.kron(_path(height), np.eye(width)) + np.kron(np.eye(height), _path(width))
    weight = 0.01 / 20 * (6.5 * 255 / 80) ** 2 * np.square(PHOTO).sum()
    expected = np.linalg.solve(np.eye(20) + weight * laplacian, PHOTO.ravel())
    np.testing.assert_allclose(found.images.ravel(), expected, atol=1e-3)


def _path(n):
    steps = np.diff(np.eye(n), axis=0)
    return steps.T @ steps


def test_the_alpha_norm_pulls_towards_grey():
    bright = np.full(SHAPE, 0.95, np.float32)
    free, held = (
        invert(IDENTITY, bright, "out", steps=96, **{**PLAIN, "alpha": alpha}).images
        for alpha in (0.0, 0.1)
    )
    assert held.max() < free.min() - 0.02


@pytest.fixture(scope="module")
def both():
    return invert(SMALL, PAIR, "relu", samples=2, **QUICK)


def test_errors_are_those_of_the_pictures(both):
    wanted = np.asarray(rvis.record(SMALL, PAIR, "relu")["relu"])
    got = np.asarray(rvis.record(SMALL, both.images.reshape(-1, 6, 8, 3), "relu")["relu"])
    gap = got.reshape(2, 2, -1) - wanted.reshape(2, 1, -1)
    expected = np.linalg.norm(gap, axis=2) / np.linalg.norm(wanted.reshape(2, 1, -1), axis=2)
    np.testing.assert_allclose(both.errors, expected, rtol=1e-5)
    assert both.scores.shape == (2, 2, 12) and (both.scores[..., -1] > both.scores[..., 0]).all()


def test_an_image_is_the_same_alone_and_in_a_batch(both):
    alone = invert(SMALL, PAIR[1], "relu", samples=2, chunk=1, **QUICK)
    # The width of a program decides how a CPU rounds; other draws would differ by 1e-3.
    np.testing.assert_allclose(alone.images, both.images[1], atol=1e-6)
    np.testing.assert_allclose(alone.errors, both.errors[1], rtol=1e-5)


def test_samples_are_independent_and_do_not_depend_on_their_number(both):
    first = invert(SMALL, PAIR, "relu", **QUICK)
    np.testing.assert_allclose(first.images, both.images[:, 0], atol=1e-6)
    assert np.abs(both.images[:, 0] - both.images[:, 1]).max() > 1e-3
    other = invert(SMALL, PAIR, "relu", key=1, **QUICK)
    assert np.abs(other.images - first.images).max() > 1e-3


def test_a_result_shows_and_saves_itself(both, tmp_path):
    assert both.show().mode == "RGB"
    both.save(tmp_path)
    assert (tmp_path / "figure.png").exists() and (tmp_path / "card.json").exists()


@pytest.mark.parametrize(
    ("layer", "third"),
    [
        *(("conv", 0), ("pool", 1), ("logits", 2)),
        pytest.param("relu", 0, marks=pytest.mark.slow),
        pytest.param("dense", 2, marks=pytest.mark.slow),
    ],
)
def test_total_variation_weighs_more_in_depth(layer, third):
    found = invert(SMALL, PAIR[0], layer, steps=1, progress=False)
    assert found.config["tv"] == TV[third]


def test_jitter_follows_the_stride():
    model = rvis.load("cifar_resnet", weights="random")
    reach = {name: _jitter(model, name, model.input_shape) for name in model.layers}
    assert (reach["layer3"], reach["layer4"], reach["fc"]) == (0, 1, 1)


def test_the_fine_steps_see_no_jitter(monkeypatch):
    run, views = engine.run, []

    def watched(algorithm, *arguments, **options):
        views.append([type(view).__name__ for view in algorithm.views])
        return run(algorithm, *arguments, **options)

    monkeypatch.setattr(engine, "run", watched)
    invert(SMALL, PAIR, "pool", jitter=2, **QUICK)
    assert views == [["Roll"], []]


def test_weights_and_images_compile_once():
    sizes = []
    for alpha, tv, rate in ((0.0, 0.1, 0.1), (0.2, 0.0, 0.2), (0.1, 0.1, 0.3)):
        optimizer = optimizers.adam(rate)
        options = {"jitter": 3, "optimizer": optimizer, **QUICK}
        invert(SMALL, PAIR * alpha, "relu", alpha=alpha, tv=tv, **options)
        sizes.append(programs.advance._cache_size())
    assert len(set(sizes)) == 1


@pytest.mark.parametrize("calls", [1, 2])
def test_interrupted_inversions_go_on(calls, tmp_path, monkeypatch):
    """Before the rough steps, and before the fine ones."""
    whole = invert(SMALL, PAIR[0], "relu", **QUICK)
    options = {"checkpoint": tmp_path / "state", **QUICK}
    with interrupted(monkeypatch, calls), pytest.raises(KeyboardInterrupt):
        invert(SMALL, PAIR[0], "relu", **options)
    if calls == 2:
        with pytest.raises(ValueError, match="checkpoint: .* other arguments"):
            invert(SMALL, PAIR[1], "relu", **options)
    with interrupted(monkeypatch, 4 - calls):
        again = invert(SMALL, PAIR[0], "relu", **options)
    np.testing.assert_array_equal(again.images, whole.images)
    np.testing.assert_array_equal(again.scores, whole.scores)
    assert not (tmp_path / "state").exists()


def test_a_callback_sees_all_steps_and_ends_the_run(both):
    seen = []

    def watch(step, pictures, scores):
        seen.append((step, pictures.shape, scores.shape))
        return step == last

    last = 13
    found = invert(SMALL, PAIR, "relu", samples=2, callback=watch, **QUICK)
    assert seen == [(i, (2, 2, 6, 8, 3), (2, 2, i)) for i in range(1, 13)]
    np.testing.assert_array_equal(found.images, both.images)
    last = 4
    assert invert(SMALL, PAIR, "relu", callback=watch, **QUICK).scores.shape == (2, 4)


REFUSED = {
    "layer": ({"layer": "rleu"}, ValueError, "layer: unknown 'rleu'; did you mean 'relu'"),
    "images": ({"images": PAIR * 255}, ValueError, "images: values in"),
    "channels": ({"images": PAIR[..., :1]}, ValueError, "images: 3 channels"),
    "samples": ({"samples": 0}, ValueError, "samples: at least 1"),
    "steps": ({"steps": 0}, ValueError, "steps: at least 1"),
    "alpha": ({"alpha": -1.0}, ValueError, "alpha: a number in"),
    "tv": ({"tv": float("nan")}, ValueError, "tv: a number"),
    "image": ({"image": "cppn"}, ValueError, "image: unknown 'cppn'"),
    "no picture": ({"image": images.CPPN((6, 8, 3))}, TypeError, "image: .*any picture"),
    "shape": ({"image": images.Pixel((6, 9, 3))}, ValueError, r"image: one of \(6, 8, 3\)"),
    "optimizer": ({"optimizer": "adam"}, TypeError, "optimizer: one of rvis.optimizers"),
    "jitter": ({"jitter": -1}, ValueError, "jitter: at least 0"),
    "chunk": ({"chunk": 0}, ValueError, "chunk: at least 1"),
    "callback": ({"callback": 1}, TypeError, "callback: a function"),
    "key": ({"key": 0.5}, TypeError, "key: an int seed"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_anything_runs(name, monkeypatch):
    changes, error, message = REFUSED[name]
    monkeypatch.setattr(engine, "run", lambda *a, **k: pytest.fail("it ran"))
    options = {"images": PAIR, "layer": "relu", **QUICK, **changes}
    with pytest.raises(error, match=message):
        invert(SMALL, options.pop("images"), options.pop("layer"), **options)


@pytest.fixture(scope="module")
def references():
    pixels = np.random.default_rng(3).integers(0, 256, (30, 12, 12, 3), np.uint8)
    return rvis.data.Dataset(pixels, np.zeros(30, np.int32), ("noise",), "noise")


@pytest.fixture(scope="module")
def plate(references):
    model = toys.pointwise(size=(12, 12))
    pictures = references.floats([4, 9])
    return model, invert_layers(
        model, pictures, ["pool", "conv"], references=references, steps=36, progress=False
    )


def test_a_plate_has_its_layers_in_order(plate):
    _, found = plate
    assert found.layers == ("conv", "pool")
    assert found.images.shape == (2, 2, 2, 12, 12, 3)


def test_a_plate_measures_what_it_says(plate, references):
    model, found = plate
    some = found.images[1, 0, 1]
    wanted = representations.encode(model, found.originals[:1], "pool")[0]
    got = representations.encode(model, some[None], "pool")[0]
    every = representations.encode(model, references.floats(), "pool")
    pairs = [np.square(a - b).sum() for i, a in enumerate(every) for b in every[:i]]
    usual = np.square(got - wanted).sum() / np.mean(pairs)
    np.testing.assert_allclose(found.normalised_errors[1, 0, 1], usual, rtol=1e-4)
    error = np.square(some - found.originals[0]).mean()
    np.testing.assert_allclose(found.psnr[1, 0, 1], -10 * np.log10(error), rtol=1e-5)
    apart = np.sqrt(np.square(found.images[1, 0, 0] - some).mean())
    np.testing.assert_allclose(found.spread[1, 0], apart, rtol=1e-5)


def test_nearest_neighbours_leave_the_original_out(plate, references):
    _, found = plate
    for i, own in enumerate((4, 9)):
        gaps = references.floats() - found.images[0, i, 0]
        apart = np.sqrt(np.square(gaps).sum((1, 2, 3)))
        apart[own] = np.inf
        assert found.neighbours[0, i, 0] == apart.argmin()
        np.testing.assert_allclose(found.neighbour_distances[0, i, 0], apart.min(), rtol=1e-5)


def test_a_mean_over_places_forgets_more_than_a_convolution(plate):
    conv, pool = plate[1].table()
    assert conv["psnr"] > pool["psnr"] and conv["spread"] < pool["spread"]
    assert conv["ssim"] > pool["ssim"] and conv["spread_ssim"] > pool["spread_ssim"]


def test_a_plate_shows_and_saves_itself(plate, tmp_path):
    _, found = plate
    assert found.show().height > found.show(1).width
    found.save(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"arrays.npz", "card.json", "figure.png", "images"}
    assert len(list((tmp_path / "images").iterdir())) == np.prod(found.images.shape[:3])


def test_interrupted_plates_go_on(tmp_path, monkeypatch):
    options = {"steps": 6, "samples": 1, "progress": False}
    whole = invert_layers(SMALL, PAIR, ["conv", "pool"], **options)
    with interrupted(monkeypatch, 4), pytest.raises(KeyboardInterrupt):
        invert_layers(SMALL, PAIR, ["conv", "pool"], checkpoint=tmp_path / "s", **options)
    with interrupted(monkeypatch, 2):
        again = invert_layers(SMALL, PAIR, ["conv", "pool"], checkpoint=tmp_path / "s", **options)
    np.testing.assert_array_equal(again.images, whole.images)
    assert not (tmp_path / "s").exists()


def test_layers_that_lie_in_others_are_left_out():
    model = rvis.load("cifar_resnet", weights="random")
    assert _outermost(model, model.input_shape) == (
        "conv1",
        "bn1",
        "relu",
        "layer1",
        "layer2",
        "layer3",
        "layer4",
        "avgpool",
        "fc",
    )


@pytest.mark.parametrize(
    ("layers", "options", "error", "message"),
    [
        ("conv", {}, TypeError, "layers: a list"),
        (["cnov"], {}, ValueError, "layers: unknown 'cnov'; did you mean 'conv'"),
        (["conv"], {"samples": 0}, ValueError, "samples: at least 1"),
        (["conv"], {"references": 3}, TypeError, "references: rvis.data.dataset.Dataset"),
        (["conv"], {"steps": 0}, ValueError, "steps: at least 1"),
    ],
)
def test_plates_refuse(layers, options, error, message):
    with pytest.raises(error, match=message):
        invert_layers(SMALL, PAIR, layers, **options)


def test_references_of_another_size_are_refused(references):
    with pytest.raises(ValueError, match="references: images of"):
        invert_layers(SMALL, PAIR, ["conv"], references=references)
