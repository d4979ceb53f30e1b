"""What every attribution owes: bits, traces, refusals, and a result that can be kept."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from rvis import attribution, objectives
from rvis.engine import policy, programs, queue
from tests import toys

MODEL = toys.pointwise()
IMAGES = np.random.default_rng(2).random((7, *MODEL.input_shape), np.float32)
CLASSES = np.array([0, 1, 1, 0, 1, 0, 0])
METHODS = {
    "gradient": {},
    "input_x_gradient": {},
    "integrated_gradients": {"steps": 5, "tol": None},
    "expected_gradients": {"samples": 5, "data": IMAGES[:2]},
    "guided_integrated_gradients": {"steps": 4},
    "blur_integrated_gradients": {"steps": 5},
    "deep_lift": {},
    "full_gradient": {},
    "lrp": {"composite": "epsilon"},
    "smoothgrad": {"samples": 5},
    "vargrad": {"samples": 5},
    "guided_backprop": {},
    "deconvnet": {},
    "grad_cam": {"layer": "conv"},
    "grad_cam_plus": {"layer": "conv"},
    "layer_gradient_x_activation": {"layer": "conv"},
    "xgrad_cam": {"layer": "relu"},
    "hires_cam": {"layer": "conv"},
    "layer_cam": {"layer": "relu"},
    "eigen_cam": {"layer": "relu"},
    "score_cam": {"layer": "relu"},
    "ablation_cam": {"layer": "relu"},
    "occlusion": {"window": 3, "stride": 2},
    "rise": {"samples": 9, "grid": 3},
}
RANDOM = ("smoothgrad", "vargrad", "rise", "expected_gradients")
NUMBERS = {
    "integrated_gradients": {"steps": 6, "baseline": 0.5, "rule": "midpoint"},
    "expected_gradients": {"samples": 7, "key": 3},
    "guided_integrated_gradients": {"steps": 3, "fraction": 0.5, "reach": 0.1},
    "blur_integrated_gradients": {"steps": 7, "sigma": 2},
    "smoothgrad": {"samples": 7, "noise": 0.5, "key": 3},
    "vargrad": {"samples": 7, "noise": 0.5, "key": 3},
    "occlusion": {"window": (2, 3), "stride": 1, "baseline": 0.5},
    "rise": {"samples": 17, "keep": 0.25, "baseline": 0.1, "key": 3, "grid": 3},
}


def explain(method, images=IMAGES, target=CLASSES, model=MODEL, **options):
    function = getattr(attribution, method)
    return function(model, images, target, **{"progress": False, **METHODS[method], **options})


@pytest.mark.parametrize("method", METHODS)
def test_an_image_has_the_same_bits_alone_and_in_any_batch_and_chunk(method):
    whole = explain(method)
    assert np.abs(whole.maps).max() > 0
    for image in (0, 6):
        alone = explain(method, IMAGES[image], int(CLASSES[image]))
        assert alone.labels == whole.labels[image]
        np.testing.assert_array_equal(alone.maps, whole.maps[image])
        assert alone.scores == whole.scores[image]
    np.testing.assert_array_equal(explain(method, chunk=3).maps, whole.maps)


@pytest.mark.parametrize("method", ["gradient", "integrated_gradients", "rise"])
def test_cores_change_no_map(monkeypatch, method):
    found = []
    for cores in (2, 3, 8):
        monkeypatch.setattr("rvis.kernels.threads.cores", lambda cores=cores: cores)
        found += [explain(method).maps, explain(method, chunk=2).maps]
    for maps in found:
        np.testing.assert_array_equal(maps, found[0])


@pytest.mark.parametrize("method", METHODS)
def test_targets_and_numbers_compile_once(method):
    explain(method)
    size = programs.advance._cache_size()
    explain(method, IMAGES[:2], 1)
    explain(method, IMAGES, objectives.logit(0))
    explain(method, IMAGES, CLASSES[::-1])
    explain(
        method, model=MODEL.replace(name="other", params=jax.tree.map(jnp.square, MODEL.params))
    )
    if method in NUMBERS:
        explain(method, **NUMBERS[method])
    # Another number of samples may be cut into other blocks.
    assert programs.advance._cache_size() <= size + (method in NUMBERS)


@pytest.mark.parametrize("method", RANDOM)
def test_the_key_decides(method):
    first, same, other = (explain(method, key=k).maps for k in (0, jax.random.key(0), 1))
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - other).max() > 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_an_objective_for_each_image(method):
    target = objectives.logit([0, 1, 1, 0, 1, 0, 0])
    np.testing.assert_array_equal(explain(method, target=target).maps, explain(method).maps)


ONE_OF_A_KIND = ("smoothgrad", "deep_lift", "lrp", "grad_cam", "score_cam", "rise")


@pytest.mark.parametrize(
    "method",
    [pytest.param(m, marks=[pytest.mark.slow] * (m not in ONE_OF_A_KIND)) for m in METHODS],
)
def test_a_sum_of_objectives(method):
    both = explain(method, target=objectives.logit(1) - 2 * objectives.probability(CLASSES))
    assert np.isfinite(both.maps).all()
    assert both.labels[0].startswith("c1 − 2 ×")


LONG = [method for method in METHODS if method in NUMBERS]


@pytest.mark.parametrize("method", LONG)
def test_a_callback_sees_the_samples_add_up_and_may_end_them(method):
    seen = []
    whole = explain(method, callback=lambda step, maps, scores: seen.append((step, maps, scores)))
    steps = [step for step, _, _ in seen]
    assert steps == sorted(set(steps))
    np.testing.assert_array_equal(seen[-1][1], whole.maps)
    np.testing.assert_array_equal(seen[-1][2], whole.scores)
    np.testing.assert_array_equal(explain(method).maps, whole.maps)
    first = explain(method, callback=lambda step, maps, scores: True)
    np.testing.assert_array_equal(first.maps, seen[0][1])


@pytest.mark.parametrize("method", LONG)
def test_interrupted_work_goes_on(method, interrupt, tmp_path, monkeypatch):
    monkeypatch.setattr(policy, "samples_for", lambda pixels, samples: 2)
    whole, folder = explain(method), tmp_path / "state"
    label = "smoothgrad" if method == "vargrad" else method
    interrupt(2, label, lambda: explain(method, checkpoint=folder))
    assert (folder / "flight.npz").exists()
    with pytest.raises(ValueError, match="checkpoint: .* other arguments"):
        explain(method, IMAGES[:4], CLASSES[:4], checkpoint=folder)
    np.testing.assert_array_equal(explain(method, checkpoint=folder).maps, whole.maps)
    assert not folder.exists()


@pytest.mark.parametrize("method", ["smoothgrad", "vargrad", "rise", "integrated_gradients"])
def test_more_samples_compile_nothing_new(method):
    name = "steps" if method == "integrated_gradients" else "samples"
    explain(method, **{name: 48})
    size = programs.advance._cache_size()
    explain(method, **{name: 64})
    assert programs.advance._cache_size() == size


def test_baselines_are_named_alike():
    one = IMAGES[:1]
    level = np.broadcast_to(one[0].mean((0, 1)), one.shape[1:])
    for method in ("integrated_gradients", "occlusion", "rise"):
        expected = explain(method, images=one, target=0, baseline=level)
        found = explain(method, images=one, target=0, baseline="mean")
        np.testing.assert_array_equal(found.maps, expected.maps)
        blurred = explain(method, images=one, target=0, baseline="blur").maps
        assert np.abs(blurred - expected.maps).max() > 1e-4


REFUSED = {
    "model": ({"model": 3}, TypeError, "model: an rvis.Model"),
    "uint8": ({"images": np.zeros((6, 8, 3), np.uint8)}, TypeError, "images: .*divide by 255"),
    "range": ({"images": np.full((6, 8, 3), 2.0)}, ValueError, "images: values in"),
    "channels": ({"images": np.zeros((6, 8, 1))}, ValueError, "images: 3 channels"),
    "nan": ({"images": np.full((6, 8, 3), np.nan)}, ValueError, "images: .*NaN"),
    "class": ({"target": 2}, ValueError, "target: 0 to 1 of the logits were expected, given 2"),
    "classes": ({"target": [0, 1]}, ValueError, "target: one, or one for each of 7 images"),
    "float": ({"target": 0.5}, TypeError, "target: a class number"),
    "word": ({"target": "c9"}, ValueError, "target: unknown 'c9'; did you mean 'c"),
    "layer": ({"target": objectives.channel("relo", 0)}, ValueError, "layer: unknown 'relo'"),
    "unit": ({"target": objectives.channel("relu", 9)}, ValueError, "unit: 0 to 3"),
    "chunk": ({"chunk": 0}, ValueError, "chunk: at least 1"),
}
OPTIONS = [
    ("integrated_gradients", {"steps": 0}, ValueError, "steps: at least 1"),
    ("integrated_gradients", {"rule": "mid"}, ValueError, "rule: unknown 'mid'; did you mean"),
    ("integrated_gradients", {"baseline": 2}, ValueError, r"baseline: a number in \[0, 1\]"),
    ("integrated_gradients", {"baseline": np.zeros((5, 5, 3))}, ValueError, "baseline: a number"),
    ("smoothgrad", {"samples": 0}, ValueError, "samples: at least 1"),
    ("smoothgrad", {"noise": -1}, ValueError, "noise: a number"),
    ("vargrad", {"key": 0.5}, TypeError, "key: an int seed"),
    ("occlusion", {"window": 7}, ValueError, r"window: at most 6 \(the image\)"),
    ("occlusion", {"stride": 4}, ValueError, r"stride: at most 3 \(the window\)"),
    ("occlusion", {"window": "3"}, ValueError, r"window: \(height, width\)"),
    ("occlusion", {"baseline": np.zeros((2, 6, 8, 3))}, ValueError, "baseline: one for an image"),
    ("rise", {"baseline": "blurr"}, ValueError, "baseline: unknown 'blurr'; did you mean 'blur'"),
    ("rise", {"callback": 3}, TypeError, "callback: a function"),
    ("rise", {"keep": 0}, ValueError, "keep: a number above 0"),
    ("rise", {"grid": 9}, ValueError, "grid: at most 6"),
    ("rise", {"samples": 2.0}, TypeError, "samples: an int"),
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_anything_runs(method, name, monkeypatch):
    changes, error, message = REFUSED[name]
    monkeypatch.setattr(queue, "stream", lambda *a, **k: pytest.fail("it ran"))
    with pytest.raises(error, match=message):
        explain(method, **changes)


@pytest.mark.parametrize(("method", "options", "error", "message"), OPTIONS)
def test_options_refused_before_anything_runs(method, options, error, message, monkeypatch):
    monkeypatch.setattr(queue, "stream", lambda *a, **k: pytest.fail("it ran"))
    with pytest.raises(error, match=message):
        explain(method, **options)


def test_a_map_that_is_not_finite_is_an_error():
    broken = jax.tree.map(lambda leaf: leaf * np.inf, MODEL.params)
    with pytest.raises(FloatingPointError, match=r"maps: those of images \[0, 1\]"):
        explain("gradient", IMAGES[:2], 0, model=MODEL.replace(params=broken))


@pytest.mark.parametrize("method", ["integrated_gradients", "grad_cam"])
def test_a_result_is_shown_and_saved(method, tmp_path):
    result = explain(method)
    assert result.show().size[0] > 90
    result.save(tmp_path)
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["method"] == method
    assert card["labels"][:2] == ["c0", "c1"]
    assert card["config"]["versions"]["rvis"]
    assert (card["gap"] is None) is (method == "grad_cam")
    with np.load(tmp_path / "arrays.npz", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["maps"], result.maps)
        assert ("raw" in arrays) is (method == "grad_cam")
    assert PIL.Image.open(tmp_path / card["images"][0]).size == result.maps.shape[2:0:-1]


def test_heatmaps_reduce_channels():
    result = explain("gradient")
    np.testing.assert_array_equal(result.heatmaps(), result.maps.sum(-1))
    np.testing.assert_array_equal(result.heatmaps("max"), np.abs(result.maps).max(-1))
    assert explain("grad_cam").heatmaps("max").shape == (7, 6, 8)
    with pytest.raises(ValueError, match="reduce: unknown 'mean'"):
        result.heatmaps("mean")
