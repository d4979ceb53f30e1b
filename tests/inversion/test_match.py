"""Matching: linear codes reached and bounded, starts, paths, batches and refusals."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import rvis
from rvis import engine
from rvis.analysis import representations
from rvis.engine import checkpoints, programs
from rvis.inversion import interpolate, match
from scripts import match as match_script
from tests import toys

SHAPE = (4, 5, 1)
RNG = np.random.default_rng(0)
WEIGHTS = RNG.standard_normal((20, 3)).astype(np.float32)
LINEAR = toys.linear(WEIGHTS, SHAPE)
SOURCE, TARGET = RNG.uniform(0.35, 0.65, (2, *SHAPE)).astype(np.float32)
SMALL = toys.pointwise()
FIRST, SECOND = RNG.uniform(0.1, 0.9, (2, 2, 6, 8, 3)).astype(np.float32)
QUICK = {"steps": 6, "progress": False}
WHOLE = {"layer": "out", "steps": 400, "step_size": 0.05, "progress": False}


def test_a_linear_code_is_reached_by_the_shortest_way():
    """Gradients lie in the span of the weights, so the end is the projection of the start."""
    found = match(LINEAR, SOURCE, TARGET, **WHOLE)
    seen = WEIGHTS @ np.linalg.pinv(WEIGHTS)
    expected = SOURCE + (seen @ (TARGET - SOURCE).ravel()).reshape(SHAPE)
    assert 0 < expected.min() and expected.max() < 1
    np.testing.assert_allclose(found.images, expected, atol=2e-3)
    assert found.remaining < 0.01


def test_steps_have_the_stated_length_and_shorten_in_a_straight_line():
    """On one dense unit every gradient has the same direction, ± the weights."""
    model = toys.linear(np.ones((20, 1)), SHAPE)
    light = np.full(SHAPE, 0.9, np.float32)
    found = match(model, np.full(SHAPE, 0.1, np.float32), light, "out", steps=4, step_size=0.4)
    moved = 0.4 * (1 + 3 / 4 + 2 / 4 + 1 / 4) / np.sqrt(20)
    np.testing.assert_allclose(found.images, 0.1 + moved, rtol=1e-5)


def test_distances_are_those_of_the_codes():
    found = match(SMALL, FIRST, SECOND, "pool", **QUICK)
    first, last, wanted = (
        representations.encode(SMALL, x, "pool") for x in (FIRST, found.images, SECOND)
    )
    size = np.linalg.norm(wanted, axis=1)
    assert found.distances.shape == (2, 7)
    np.testing.assert_allclose(
        found.distances[:, 0], np.linalg.norm(first - wanted, axis=1) / size, rtol=1e-5
    )
    np.testing.assert_allclose(
        found.distances[:, -1], np.linalg.norm(last - wanted, axis=1) / size, rtol=1e-5
    )
    np.testing.assert_allclose(found.remaining, found.distances[:, -1] / found.distances[:, 0])
    assert (found.remaining < 1).all()


def test_nearness_to_both_images():
    found = match(SMALL, FIRST, SECOND, "pool", **QUICK)
    gap = np.sqrt(np.square(found.images - SECOND).sum((1, 2, 3)))
    np.testing.assert_allclose(found.to_target()["l2"], gap, rtol=1e-5)
    assert np.isnan(found.to_source()["ssim"]).all()  # 6 pixels are too few for a window


def test_pictures_have_the_ssim_of_their_channels():
    from rvis.analysis.metrics import structural_similarity

    a, b = RNG.uniform(0, 1, (2, 3, 12, 12, 2))
    each = [structural_similarity(a[..., c], b[..., c]) for c in range(2)]
    np.testing.assert_allclose(representations.ssim(a, b), np.mean(each, 0))
    np.testing.assert_allclose(representations.ssim(a, a), 1)


@pytest.mark.parametrize(("norm", "order"), [("l2", None), ("linf", np.inf)])
def test_a_ball_binds(norm, order):
    found = match(LINEAR, SOURCE, TARGET, norm=norm, eps=0.02, **WHOLE)
    gone = np.linalg.norm((found.images - SOURCE).ravel(), order)
    assert 0.0196 < gone < 0.0201
    assert 0.05 < found.remaining < 1


def test_the_least_distance_in_a_ball_is_that_of_a_linear_model():
    """One unit w: the farthest a ball of ε allows is |w·(x2 − x1)| − ε|w|."""
    model = toys.linear(WEIGHTS[:, :1], SHAPE)
    found = match(model, SOURCE, TARGET, eps=0.01, **WHOLE)
    apart = abs(WEIGHTS[:, 0] @ (TARGET - SOURCE).ravel())
    expected = 1 - 0.01 * np.linalg.norm(WEIGHTS[:, 0]) / apart
    np.testing.assert_allclose(found.remaining, expected, atol=1e-3)


@pytest.mark.parametrize("start", ["noise", "grey", "image"])
def test_other_starts(start):
    given = SECOND[0] if start == "image" else start
    found = match(SMALL, FIRST, SECOND, "pool", start=given, **QUICK)
    assert found.starts.shape == FIRST.shape
    np.testing.assert_array_equal(found.starts[0], found.starts[1])
    np.testing.assert_array_equal(found.sources, FIRST)
    if start == "grey":
        assert (found.starts == 0.5).all()
    if start == "noise":
        assert 0.03 < found.starts.std() < 0.07
    assert found.show().mode == "RGB"


def test_without_a_source_the_start_stands_for_it():
    found = match(SMALL, None, SECOND, "pool", start="grey", **QUICK)
    assert (found.sources == 0.5).all()


def test_a_pair_is_the_same_alone_and_in_a_batch():
    both = match(SMALL, FIRST, SECOND, start="noise", **QUICK)
    alone = match(SMALL, FIRST[1], SECOND[1], start="noise", chunk=1, **QUICK)
    assert both.layer == "pool"
    np.testing.assert_array_equal(alone.images, both.images[1])
    np.testing.assert_array_equal(alone.distances, both.distances[1])


def test_one_target_serves_for_all():
    found = match(SMALL, FIRST, SECOND[0], "pool", **QUICK)
    same = match(SMALL, FIRST, SECOND[[0, 0]], "pool", **QUICK)
    np.testing.assert_array_equal(found.images, same.images)


def test_units_that_are_all_off_are_woken():
    """With a bias of −5 no ReLU of the start passes any gradient."""
    dark = np.full((6, 8, 3), 0.1, np.float32)
    light = np.ones((6, 8, 3), np.float32)
    model = toys.pointwise(bias=-0.5)
    conv = jnp.abs(model.params["conv"])
    model = model.replace(params={**model.params, "conv": conv})
    assert (representations.encode(model, dark[None], "relu") == 0).all()
    found = match(model, dark, light, "pool", steps=40, step_size=1.0, progress=False)
    assert found.remaining < 0.5


def test_sizes_and_codes_compile_once():
    sizes = []
    for size, eps in ((0.1, 0.5), (0.2, 0.1), (0.4, 2.0)):
        match(SMALL, FIRST * size, SECOND, "conv", step_size=size, eps=eps, **QUICK)
        sizes.append(programs.advance._cache_size())
    assert len(set(sizes)) == 1


def test_interrupted_matches_go_on(tmp_path, monkeypatch):
    options = {"steps": 130, "progress": False}
    whole = match(SMALL, FIRST, SECOND, **options)
    options["checkpoint"] = tmp_path / "state"
    advance, calls = programs.advance, []

    class Stopping:
        eval_shape = staticmethod(advance.eval_shape)

        def __call__(self, *arguments, **keywords):
            if type(arguments[0]).__name__ == "Shortening":
                calls.append(1)
                if len(calls) == 2:
                    raise KeyboardInterrupt
            return advance(*arguments, **keywords)

    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    monkeypatch.setattr("rvis.engine.queue._TURN", 0.0)
    monkeypatch.setattr(programs, "advance", Stopping())
    with pytest.raises(KeyboardInterrupt):
        match(SMALL, FIRST, SECOND, **options)
    again = match(SMALL, FIRST, SECOND, **options)
    assert len(calls) == 4  # three pieces of at most 64 steps, one of which was cut off
    np.testing.assert_array_equal(again.images, whole.images)
    np.testing.assert_array_equal(again.scores, whole.scores)
    assert not (tmp_path / "state").exists()


def test_a_callback_ends_the_run():
    steps = []

    def watch(step, pictures, scores):
        steps.append((step, pictures.shape, scores.shape))
        return step == 2

    found = match(SMALL, FIRST, SECOND, callback=watch, **QUICK)
    assert steps == [(1, FIRST.shape, (2, 1)), (2, FIRST.shape, (2, 2))]
    assert found.distances.shape == (2, 3) and (found.remaining < 1).all()


def test_a_result_saves_itself(tmp_path):
    match(SMALL, FIRST, SECOND, **QUICK).save(tmp_path)
    assert (tmp_path / "figure.png").exists() and (tmp_path / "card.json").exists()


def test_a_path_is_straight_in_a_linear_representation():
    found = interpolate(
        LINEAR, SOURCE, TARGET, "out", frames=5, **{k: WHOLE[k] for k in WHOLE if k != "layer"}
    )
    seen = WEIGHTS @ np.linalg.pinv(WEIGHTS)
    way = (seen @ (TARGET - SOURCE).ravel()).reshape(SHAPE)
    t = np.linspace(0, 1, 5).reshape(-1, 1, 1, 1)
    np.testing.assert_allclose(found.images, SOURCE + t * way, atol=2e-3)
    np.testing.assert_array_equal(found.images[0], SOURCE)


def test_paths_of_several_pairs():
    found = interpolate(SMALL, FIRST, SECOND, frames=3, **QUICK)
    alone = interpolate(SMALL, FIRST[1], SECOND[1], frames=3, **QUICK)
    assert found.images.shape == (2, 3, 6, 8, 3) and found.distances.shape == (2, 3, 7)
    np.testing.assert_array_equal(found.images[1], alone.images)
    # The half-way code is the mean of both ends'.
    half = (
        representations.encode(SMALL, FIRST, "pool") + representations.encode(SMALL, SECOND, "pool")
    ) / 2
    apart = np.linalg.norm(representations.encode(SMALL, found.images[:, 1], "pool") - half, axis=1)
    expected = apart / np.linalg.norm(half, axis=1)
    np.testing.assert_allclose(found.distances[:, 1, -1], expected, rtol=1e-4)
    assert list(found.labels[0]) == ["t 0", "t 0.5", "t 1"]
    assert found.show().width > found.show().height


def test_the_penultimate_layer_comes_before_as_many_numbers_as_logits():
    assert representations.penultimate(rvis.load("cifar_resnet", weights="random")) == "avgpool"
    with pytest.raises(ValueError, match="layer: linear has no layer before its logits"):
        match(LINEAR, SOURCE, TARGET)


REFUSED = {
    "layer": ({"layer": "poll"}, ValueError, "layer: unknown 'poll'; did you mean 'pool'"),
    "source": ({"source": FIRST * 255}, ValueError, "source: values in"),
    "no source": ({"source": None}, ValueError, "source: images were expected"),
    "pairs": ({"source": FIRST[[0, 1, 1]]}, ValueError, "target: 1 or 3 images"),
    "target": ({"target": SECOND[:, :5]}, ValueError, r"source: \(5, 8, 3\) an image"),
    "start": ({"start": "grew"}, ValueError, "start: unknown 'grew'; did you mean 'grey'"),
    "starts": ({"start": FIRST[..., :1]}, ValueError, r"start: \(6, 8, 3\) an image"),
    "steps": ({"steps": 0}, ValueError, "steps: at least 1"),
    "step_size": ({"step_size": 0.0}, ValueError, "step_size: a number above 0"),
    "eps": ({"eps": -0.1}, ValueError, "eps: a number in"),
    "norm": ({"norm": "l7"}, ValueError, "norm: unknown 'l7'"),
    "chunk": ({"chunk": 0}, ValueError, "chunk: at least 1"),
    "key": ({"key": 0.5}, TypeError, "key: an int seed"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_anything_runs(name, monkeypatch):
    changes, error, message = REFUSED[name]
    monkeypatch.setattr(engine, "run", lambda *a, **k: pytest.fail("it ran"))
    options = {"source": FIRST, "target": SECOND, **QUICK, **changes}
    with pytest.raises(error, match=message):
        match(SMALL, options.pop("source"), options.pop("target"), **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"frames": 1}, ValueError, "frames: at least 2"),
        ({"start": "grey"}, TypeError, "start: a path starts"),
        ({"second": SECOND[:, :5]}, ValueError, r"second: \(6, 8, 3\) an image"),
        ({"first": FIRST[[0, 1, 1]]}, ValueError, "second: 1 or 3 images"),
        ({"layer": "poll"}, ValueError, "layer: unknown 'poll'"),
    ],
)
def test_paths_refuse(options, error, message):
    given = {"first": FIRST, "second": SECOND, **options}
    with pytest.raises(error, match=message):
        interpolate(SMALL, given.pop("first"), given.pop("second"), **given)


def test_the_command_counts_what_a_judge_sees():
    found = match(SMALL, FIRST, SECOND, "pool", **QUICK)
    seen = np.asarray(SMALL(found.images)).argmax(-1)
    table = match_script.measured(found, (seen, seen + 1), SMALL)
    assert table["judged to be of x1's class"].all()
    assert not table["judged to be of x2's class"].any()
    assert not any(name.startswith("judged") for name in match_script.measured(found, (), None))
