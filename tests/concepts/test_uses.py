"""What concepts do: their measures, effects on classes, relevance, TCAV, and the page."""

from __future__ import annotations

import dataclasses
import tracemalloc
import types

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import rvis
from rvis import concepts
from rvis.concepts import Concepts, Decoder, Encoder, cav
from rvis.concepts.scores import Measures
from rvis.data import Dataset
from tests import toys

MODEL = toys.pointwise()
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 6, 8, 3), np.uint8)
DATA = Dataset(IMAGES, np.arange(12, dtype=np.int32) % 3, ("a", "b", "c"), "noise")


def some(kind="relu", k=7):
    rng = np.random.default_rng(1)
    kernel, vectors = (jnp.asarray(rng.standard_normal(s), jnp.float32) for s in ((4, k), (k, 4)))
    zeros = jnp.zeros(4, jnp.float32)
    encoder = Encoder(kernel, jnp.zeros(k, jnp.float32), zeros, jnp.float32(0.1), kind, 2)
    return Concepts(encoder, Decoder(vectors, zeros + 0.1), "relu")


def seen(one, images=None):
    x = np.asarray(rvis.record(MODEL, DATA.floats() if images is None else images, "relu")["relu"])
    return x, np.asarray(one(x))


@pytest.mark.parametrize("chunk", [None, 5])
def test_measures_are_what_they_say(chunk):
    one = some()
    found = concepts.measure(MODEL, one, DATA, 4, chunk=chunk, progress=False)
    x, z = seen(one)
    peaks = z.reshape(12, -1, 7).max(1)
    order = np.argsort(-peaks, axis=0, kind="stable")[:4].T
    np.testing.assert_array_equal(found.indices, order)
    np.testing.assert_allclose(found.values, np.take_along_axis(peaks.T, order, 1), rtol=1e-5)
    row, column = found.positions[3, 0]
    assert z[order[3, 0], row, column, 3] == pytest.approx(found.values[3, 0], rel=1e-5)
    np.testing.assert_allclose(found.frequency, (z > 0).mean((0, 1, 2)))
    assert found.active == pytest.approx((z > 0).sum(-1).mean())
    spread = np.square(x - x.mean((0, 1, 2))).sum()
    left = np.square(x - np.asarray(one.decode(z))).sum()
    assert found.explained == pytest.approx(1 - left / spread, rel=1e-4)
    without = z * (np.arange(7) != 2)
    more = np.square(x - np.asarray(one.decode(without))).sum()
    assert found.variance[2] == pytest.approx((more - left) / spread, rel=1e-3)
    labels = DATA.labels[order[2]]
    assert found.purity[2] == np.bincount(labels).max() / 4


def test_a_concept_that_is_seldom_on_has_no_purity():
    one = some("jump")
    one = one.replace(encode=one.encode.replace(threshold=jnp.float32(1e9)))
    found = concepts.measure(MODEL, one, DATA, 4, progress=False)
    assert np.isnan(found.purity).all()
    with pytest.raises(ValueError, match="^measures"):
        concepts.compare(found, found)


def test_the_interval_of_a_difference_holds_it():
    def measures(purity):
        others = {field.name: None for field in dataclasses.fields(Measures)}
        return Measures(**others | {"purity": np.asarray(purity)})

    rng = np.random.default_rng(0)
    high, low = 0.6 + 0.1 * rng.standard_normal(400), 0.5 + 0.1 * rng.standard_normal(300)
    gap, (bottom, top) = concepts.compare(measures(high), measures([*low, np.nan]))
    assert gap == pytest.approx(high.mean() - low.mean())
    width = 1.96 * np.sqrt(0.01 / 400 + 0.01 / 300)
    assert (gap - bottom, top - gap) == pytest.approx((width, width), rel=0.15)


def test_effects_before_a_linear_head_are_its_share_of_the_logits():
    one, images = some(), DATA.floats([1, 4])
    found = concepts.effects(MODEL, one, images, [0, 5], progress=False)
    _, z = seen(one, images)
    share = z.mean((0, 1, 2))[[0, 5], None] * np.asarray(one.decode.vectors)[[0, 5]]
    expected = share @ np.asarray(MODEL.params["dense"])
    np.testing.assert_allclose(found.gradient, expected, rtol=1e-4, atol=1e-6)
    # What is linear changes by ablation as by its gradient.
    np.testing.assert_allclose(found.ablation, expected, rtol=1e-3, atol=1e-5)


def test_effects_of_a_network_are_those_of_changed_activations():
    model = rvis.load("mnist_cnn")
    image = np.random.default_rng(0).random((1, 28, 28, 1)).astype(np.float32)
    one = concepts.channels("relu2", 64)
    found = concepts.effects(model, one, image, [3], progress=False)
    x = np.asarray(rvis.record(model, image, "relu2")["relu2"])

    def logits(t):
        changed = x * np.where(np.arange(64) == 3, t, 1).astype(np.float32)
        tap = rvis.models.taps.replacing({"relu2": jnp.asarray(changed)})
        return np.asarray(model.apply(model.params, image, tap=tap))[0]

    np.testing.assert_allclose(found.ablation[0], logits(1) - logits(0), atol=1e-4)
    slope = (logits(1.01) - logits(0.99)) / 0.02
    np.testing.assert_allclose(found.gradient[0], slope, atol=2e-2 * np.abs(slope).max())
    assert -1 <= found.correlation[0] <= 1


def test_each_concept_may_have_its_own_images():
    one = some()
    own = np.stack([DATA.floats([1, 4]), DATA.floats([2, 3])])
    found = concepts.effects(MODEL, one, own, [0, 5], progress=False)
    alone = concepts.effects(MODEL, one, own[1], [5], progress=False)
    np.testing.assert_array_equal(found.ablation[1], alone.ablation[0])


@pytest.mark.parametrize("kind", ["relu", "topk", "linear"])
def test_relevances_and_the_rest_sum_to_activation_times_gradient(kind):
    one, images = some(kind), DATA.floats([1, 4])
    found = concepts.relevance(MODEL, images, 1, one, count=3, progress=False)
    x, z = seen(one, images)
    slope = np.asarray(MODEL.params["dense"])[:, 1] / 48
    expected = z.sum((1, 2)) * (np.asarray(one.decode.vectors) @ slope)
    np.testing.assert_allclose(found.relevances, expected, rtol=1e-3, atol=1e-5)
    whole = (x * slope).sum((1, 2, 3))
    np.testing.assert_allclose(found.relevances.sum(1) + found.rest, whole, atol=1e-5)
    order = np.argsort(-np.abs(expected), axis=1)[:, :3]
    np.testing.assert_array_equal(found.numbers, order)
    # The layer is as large as the image, so that its maps are too.
    totals = np.take_along_axis(expected, order, 1)
    np.testing.assert_allclose(found.maps.sum((2, 3)), totals, rtol=1e-3, atol=1e-5)


def test_pixels_are_input_times_gradient_of_a_concepts_relevance():
    one, images = some(), DATA.floats([4])
    found = concepts.relevance(MODEL, images[0], 1, one, count=2, progress=False)
    assert found.pixels.shape == (2, 6, 8)
    slope = np.asarray(one.decode.vectors) @ np.asarray(MODEL.params["dense"])[:, 1] / 48
    conv = np.asarray(MODEL.params["conv"])
    x, z = seen(one, images)
    for i, number in enumerate(found.numbers):
        through = (
            (x[0] > 0)
            * np.asarray(one.encode.kernel)[:, number]
            * (z[0, ..., [number]].T > 0).transpose(1, 0, 2)
        )
        expected = ((through @ conv.T) * images[0]).sum(-1) * slope[number]
        np.testing.assert_allclose(found.pixels[i], expected, rtol=1e-3, atol=1e-6)


def test_a_relevance_is_shown_and_saved(tmp_path):
    found = concepts.relevance(MODEL, DATA.floats([1, 4]), [0, 1], some(), count=3, progress=False)
    heights = [
        concepts.relevance(MODEL, DATA.floats(r), 0, some(), count=3, progress=False).show().size[1]
        for r in ([1], [1, 4])
    ]
    assert heights[1] > 1.8 * heights[0]
    names = sorted(path.name for path in found.save(tmp_path).iterdir())
    assert names == ["arrays.npz", "card.json", "figure.png", "images"]
    assert len(list((tmp_path / "images").iterdir())) == 6


def painted(colour, n, seed):
    rng = np.random.default_rng(seed)
    return np.clip(np.asarray(colour) + 0.1 * rng.standard_normal((n, 6, 8, 3)), 0, 1).astype("f4")


def linear():
    """Two logits: how red an image is, and how green; three channels, the colours."""
    params = {"conv": jnp.eye(3, dtype=jnp.float32), "bias": jnp.zeros(3, jnp.float32)}
    params["dense"] = jnp.eye(3, 2, dtype=jnp.float32)
    return rvis.Model(params, toys.apply, MODEL.layers, (6, 8, 3), ("red", "green"), "colours")


def test_a_concept_that_a_class_is_made_of_is_found_and_another_is_not():
    grey, reddish = painted((0.5, 0.5, 0.5), 60, 1), painted((0.8, 0.5, 0.5), 30, 2)
    images = painted((0.5, 0.5, 0.5), 10, 3)
    options = {"layer": "relu", "random": grey, "samples": 199, "progress": False}
    found = concepts.tcav(linear(), images, "red", examples=reddish, **options)
    assert found.score == 1
    assert found.p == 1 / 200  # of which the concept is one
    assert found.p_welch < 1e-6
    assert found.null.shape == found.null_sensitivity.shape == (199,)
    assert found.accuracy.mean() > 0.95
    assert np.abs(found.vectors.mean(0) / found.vectors.mean(0)[0])[1:].max() < 0.2
    np.testing.assert_allclose(found.derivatives[:, 0], found.vectors[:, 0], rtol=1e-4)
    unit = np.eye(3)[0]
    np.testing.assert_allclose(found.sensitivity, found.vectors @ unit, rtol=1e-4)
    assert found.show().mode == "RGB"


def test_random_concepts_are_rarely_significant_though_their_directions_agree():
    images = painted((0.5, 0.5, 0.5), 4, 3)
    p, welch = [], []
    for seed in range(20):
        grey = painted((0.5, 0.5, 0.5), 36, 10 + seed)
        options = {"sets": 40, "samples": 49, "progress": False, "key": seed}
        found = concepts.tcav(linear(), images, 0, "relu", grey[:12], grey[12:], **options)
        p.append(found.p)
        welch.append(found.p_welch)
    assert 0.3 < np.mean(p) < 0.7  # uniform between 0 and 1
    assert np.mean(np.less(p, 0.1)) < 0.25
    assert np.mean(np.less(welch, 0.01)) > 0.3  # the paper's test takes one concept for many


def test_memory_does_not_grow_with_the_square_of_the_random_pictures():
    grey, red = painted((0.5,) * 3, 3000, 1), painted((0.8, 0.5, 0.5), 6, 2)
    tracemalloc.start()
    concepts.tcav(linear(), grey[:2], 0, "relu", red, grey, samples=2, progress=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3000**2 * 4  # half of their products


def test_directions_are_the_normals_of_a_ridge_regression():
    rows = np.random.default_rng(0).standard_normal((20, 5))
    rows -= rows.mean(0)
    rng = np.random.default_rng(1)
    of, weights = cav._directions(rows, np.arange(8), np.arange(8, 20), 3, rng)
    assert (of[:, :4] < 8).all() and (of[:, 4:] >= 8).all()
    for chosen, weight in zip(of, weights, strict=True):
        x = rows[chosen] - rows[chosen].mean(0)
        ridge = 0.01 * np.square(x).sum() / 8
        normal = np.linalg.solve(x.T @ x + ridge * np.eye(5), x.T @ np.repeat([1, -1], 4))
        np.testing.assert_allclose(weight @ rows[chosen], normal / np.linalg.norm(normal))


def test_welchs_test_is_scipys():
    rng = np.random.default_rng(0)
    first, second = rng.random(9), 0.3 + rng.random(14)
    expected = stats.ttest_ind(first, second, equal_var=False).pvalue
    assert cav.welch(first, second) == pytest.approx(expected, rel=1e-3)
    assert cav.welch([1, 1], [1, 1]) == 1
    assert cav.welch([1, 1], [0, 0]) == 0


def test_the_key_draws_the_random_sets():
    grey, red = painted((0.5,) * 3, 40, 1), painted((0.8, 0.5, 0.5), 9, 2)
    options = {"layer": "relu", "examples": red, "random": grey, "sets": 3, "samples": 2}
    one, same, other = (concepts.tcav(linear(), grey[:2], 0, key=k, **options) for k in (0, 0, 1))
    np.testing.assert_array_equal(one.vectors, same.vectors)
    assert (one.vectors != other.vectors).any()


def test_words_are_those_nearest_to_the_top_images():
    embed = {"encode_image": lambda x: x.mean((1, 2)), "encode_text": lambda t: np.eye(3)}
    pictures = np.stack([np.full((2, 4, 4, 3), c) for c in ((0.9, 0.5, 0), (0.8, 0, 0.1))])
    names, how = concepts.label(pictures, ["red", "green", "blue"], **embed)
    # Both are red; what tells them apart is not.
    assert names == ("green", "blue")
    np.testing.assert_allclose(how, [0.25, 0.05], atol=1e-6)


def test_the_page_has_everything(tmp_path):
    def draw(model, objective):
        size = objective.batch_shape[0]
        return types.SimpleNamespace(
            images=np.full((size, 6, 8, 3), 0.5, np.float32), scores=np.ones((size, 3))
        )

    path = concepts.report(
        MODEL,
        some(),
        DATA,
        tmp_path,
        [2, 5],
        draw=draw,
        name=lambda x: ["one", "two"],
        progress=False,
    )
    text = path.read_text(encoding="utf-8")
    for word in (
        "relu concept 5: two",
        "gives, by gradient",
        "gives, by ablation",
        "rank correlation",
        "picture above real images",
        "explained variance",
        "commonest class",
        "concepts/00002_real.png",
    ):
        assert word in text, word
    assert (tmp_path / "concepts" / "00005.png").exists()


EMBED = {"encode_image": len, "encode_text": len}
BAD = {
    "numbers": lambda: concepts.effects(MODEL, some(), DATA.floats(), [7]),
    "images": lambda: concepts.effects(MODEL, some(), np.zeros((3, 1, 6, 8, 3)), [1]),
    "concepts": lambda: concepts.measure(MODEL, 3, DATA),
    "dataset": lambda: concepts.measure(MODEL, some(), 3),
    "k": lambda: concepts.measure(MODEL, some(), DATA, 13),
    "count": lambda: concepts.relevance(MODEL, DATA.floats([0]), 0, some(), count=8),
    "target": lambda: concepts.relevance(MODEL, DATA.floats([0]), "x", some()),
    "examples": lambda: concepts.tcav(MODEL, DATA.floats([0]), 0, "relu", DATA.floats([1]), DATA),
    "random": lambda: concepts.tcav(
        MODEL, DATA.floats([0]), 0, "relu", DATA.floats(range(7)), DATA.take(range(8))
    ),
    "layer": lambda: concepts.tcav(MODEL, DATA.floats([0]), 0, "reluu", DATA.floats(), DATA),
    "measures": lambda: concepts.report(
        MODEL, some(), DATA, "nowhere", measures=types.SimpleNamespace(values=[1])
    ),
    "texts": lambda: concepts.label(np.zeros((1, 1, 2, 2, 3)), [], **EMBED),
    "pictures": lambda: concepts.label(np.zeros((1, 2)), ["a"], **EMBED),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_argument_is_named(name):
    with pytest.raises((TypeError, ValueError), match=f"^{name}: "):
        BAD[name]()
