"""Visualizations of small models: shapes, bits, resumption, dead units, refusals."""

from __future__ import annotations

import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rvis
from rvis import engine, images, objectives, optimizers, regularizers, struct, transforms
from rvis.analysis import receptive
from rvis.engine import programs
from rvis.models import architectures
from rvis.visualization.plan import make_plan
from tests import toys

MODEL = toys.pointwise()
GREY = toys.pointwise(channels=1)
QUICK = {"steps": 4, "progress": False}


def draw(objective, model=MODEL, **options):
    return rvis.visualize(model, objective, **{**QUICK, **options})


@pytest.mark.parametrize(
    ("objective", "facets", "shape"),
    [
        (objectives.channel("relu", 1), 1, ()),
        (objectives.channel("relu", [1]), 1, (1,)),
        (objectives.channel("relu", [0, 1, 2]), 1, (3,)),
        (objectives.channel("relu", 1), 2, (2,)),
        (objectives.channel("relu", [0, 1, 2]), 2, (3, 2)),
    ],
)
def test_shapes_follow_objectives_and_facets(objective, facets, shape):
    result = draw(objective, facets=facets, snapshots=(0, 4))
    assert result.images.shape == (*shape, 6, 8, 3)
    assert result.snapshots[4].shape == (*shape, 6, 8, 3)
    assert result.scores.shape == (*objective.batch_shape, 4)
    assert result.dead.shape == objective.batch_shape
    assert result.show().size[0] > 90


@pytest.mark.parametrize(
    ("image", "model", "size"),
    [
        ("fourier", MODEL, None),
        ("pixel", GREY, (7, 4)),
        ("fourier", GREY, 5),
        ("fourier", MODEL, (1, 9)),
        *(
            pytest.param("pixel", model, size, marks=pytest.mark.slow)
            for model, size in ((MODEL, None), (GREY, 5), (MODEL, (1, 9)))
        ),
        pytest.param("fourier", GREY, (7, 4), marks=pytest.mark.slow),
    ],
)
def test_any_size_and_channels_and_the_score_rises(model, image, size):
    result = draw(objectives.channel("conv", 0), model, image=image, size=size, transforms=())
    height, width = (6, 8) if size is None else (size, size) if isinstance(size, int) else size
    assert result.images.shape == (height, width, model.input_shape[2])
    assert result.scores[-1] > result.scores[0]
    assert result.images.min() >= 0
    assert result.images.max() <= 1


@pytest.mark.parametrize(
    "options",
    [{}, {"chunk": 1}, pytest.param({"chunk": 7}, marks=pytest.mark.slow), {"facets": 2}],
)
def test_a_unit_has_the_same_bits_alone_and_in_a_batch(options):
    many = draw(objectives.channel("relu", range(4)), **options)
    for unit in (0, 3):
        alone = draw(objectives.channel("relu", unit), **options)
        np.testing.assert_array_equal(alone.images, many.images[unit])
        np.testing.assert_array_equal(alone.scores, many.scores[unit])


def test_a_direction_has_the_same_bits_alone_and_in_a_batch():
    width = rvis.layer_shapes(MODEL)["relu"][-1]
    vectors = np.random.default_rng(0).normal(size=(3, width)).astype(np.float32)
    many = draw(objectives.direction("relu", vectors))
    alone = draw(objectives.direction("relu", vectors[2]))
    np.testing.assert_array_equal(alone.images, many.images[2])


def test_a_vector_that_was_rounded_otherwise_gives_the_same_picture():
    """Another machine's last bits neither draw another start nor another picture."""
    vectors = np.asarray([[0.9, -0.4, 0.2, 0.1], [0.3, 0.1, -0.7, 0.2]], np.float32)
    first, second = (draw(objectives.direction("relu", v)) for v in (vectors, vectors * (1 + 3e-7)))
    assert (vectors != vectors * np.float32(1 + 3e-7)).any()
    np.testing.assert_allclose(first.images, second.images, atol=1e-3)
    assert np.abs(first.images[0] - first.images[1]).max() > 0.01


def test_a_sum_tells_its_members_apart_by_the_term_that_has_them():
    width = rvis.layer_shapes(MODEL)["relu"][-1]
    one = objectives.direction("relu", np.ones(width))
    result = draw(one + objectives.channel("relu", [1, 1, 2]), steps=1)
    np.testing.assert_array_equal(result.images[0], result.images[1])
    assert np.abs(result.images[0] - result.images[2]).max() > 0


def test_the_key_decides():
    first, same, other = (
        draw(objectives.logit(0), key=k).images for k in (0, jax.random.key(0), 1)
    )
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - other).max() > 1e-3


def test_start_from_an_image():
    start = np.random.default_rng(0).uniform(0.1, 0.9, MODEL.input_shape).astype(np.float32)
    for image in ("fourier", "pixel"):
        result = draw(objectives.logit([0, 1]), image=image, start=start, snapshots=(0,))
        np.testing.assert_allclose(result.snapshots[0][1], start, atol=1e-4)


def test_regularizers_pull_towards_grey():
    plain, penalised = (
        draw(objectives.channel("conv", 0), image="pixel", transforms=(), steps=20, regularizers=r)
        for r in ((), (regularizers.l1(10.0),))
    )
    assert np.abs(penalised.images - 0.5).mean() < 0.7 * np.abs(plain.images - 0.5).mean()


def test_a_unit_that_never_moved_is_reported():
    closed = toys.pointwise(bias=-100.0)
    result = draw(objectives.channel("relu", [0, 1]), closed)
    assert result.dead.tolist() == [True, True]
    assert not draw(objectives.channel("conv", [0, 1]), closed).dead.any()


def test_a_sweep_is_every_channel():
    result = rvis.sweep(MODEL, "relu", **QUICK)
    np.testing.assert_array_equal(result.images, draw(objectives.channel("relu", range(4))).images)
    assert result.labels.tolist() == [f"relu:{i}" for i in range(4)]


def test_a_sweep_resumes_with_what_is_missing(tmp_path, monkeypatch):
    whole = rvis.sweep(MODEL, "relu", out=tmp_path, **QUICK)
    (tmp_path / "units" / "unit00002.npz").unlink()
    drawn = []
    real = rvis.visualize
    module = sys.modules["rvis.visualization.sweeps"]

    def count(model, objective, **options):
        drawn.extend(np.atleast_1d(objective.unit).tolist())
        return real(model, objective, **options)

    monkeypatch.setattr(module, "visualize", count)
    again = rvis.sweep(MODEL, "relu", out=tmp_path, **QUICK)
    assert drawn == [2]
    np.testing.assert_array_equal(again.images, whole.images)
    assert (tmp_path / "spritemap.png").exists()


def test_a_sweep_into_a_folder_of_other_work_is_refused(tmp_path):
    rvis.sweep(MODEL, "relu", [0], out=tmp_path, **QUICK)
    with pytest.raises(ValueError, match="out: .*other arguments"):
        rvis.sweep(MODEL, "relu", [0], out=tmp_path, **{**QUICK, "steps": 5})


def test_another_start_is_other_work(tmp_path):
    starts = np.full((2, 6, 8, 3), 0.5, np.float32)
    starts[1, 3, 4] = 0.6
    options = {**QUICK, "out": tmp_path, "size": (6, 8)}
    rvis.sweep(MODEL, "relu", [0], start=starts[0], **options)
    with pytest.raises(ValueError, match="out: .*other arguments"):
        rvis.sweep(MODEL, "relu", [0], start=starts[1], **options)


def test_neither_progress_nor_chunk_is_other_work(tmp_path):
    first = rvis.sweep(MODEL, "relu", [0, 1], out=tmp_path, chunk=1, **QUICK)
    card = (tmp_path / "sweep.json").read_text()
    again = rvis.sweep(MODEL, "relu", [0, 1], out=tmp_path, **QUICK, key=jax.random.key(0))
    np.testing.assert_array_equal(first.images, again.images)
    assert (tmp_path / "sweep.json").read_text() == card


def test_a_sweep_keeps_snapshots(tmp_path):
    options = {**QUICK, "snapshots": (0, 2)}
    stored = rvis.sweep(MODEL, "relu", out=tmp_path, **options)
    direct = rvis.sweep(MODEL, "relu", **options)
    np.testing.assert_array_equal(stored.snapshots[2], direct.snapshots[2])


def test_an_early_layer_of_a_network_with_dense_layers_takes_any_size():
    model = rvis.load("mnist_cnn", weights="random")
    result = draw(objectives.channel("conv1", 0), model, size=(33, 47))
    assert result.images.shape == (33, 47, 1)
    with pytest.raises(ValueError, match=r"size: mnist_cnn reaches 'fc1' only from images of \(28"):
        draw(objectives.channel("fc1", 0), model, size=(33, 47))


def test_a_damaged_sweep_is_named(tmp_path):
    rvis.sweep(MODEL, "relu", [0], out=tmp_path, **QUICK)
    (tmp_path / "units" / "unit00000.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"out: .*unit00000\.npz cannot be read"):
        rvis.sweep(MODEL, "relu", [0], out=tmp_path, **QUICK)


def test_units_and_rates_compile_once():
    compiled = []
    for unit, rate in ((0, 0.05), (3, 0.1), ([0, 1, 2], 0.2)):
        draw(objectives.channel("relu", unit), optimizer=optimizers.adam(rate))
        compiled.append(programs.advance._cache_size())
    assert len(set(compiled)) == 1


def there_and_back(rate):
    """Up for two steps and down for good."""
    return optax.sgd(lambda count: jnp.where(count < 2, rate, -rate))


@pytest.fixture(scope="module")
def linear():
    weights = np.random.default_rng(0).standard_normal((12, 2)).astype(np.float32)
    return toys.linear(weights, (2, 2, 3))


def test_the_best_picture_is_kept(linear):
    options = {
        "image": "pixel",
        "transforms": (),
        "optimizer": optimizers.from_optax(there_and_back, 0.01),
        "steps": 6,
        "snapshots": (2, 4),
    }
    last, best = (draw(objectives.logit([0, 1]), linear, best=b, **options) for b in (False, True))
    np.testing.assert_array_equal(best.scores, last.scores)
    assert best.scores.argmax(1).tolist() == [2, 2]
    clean = [np.diagonal(linear(result.images)) for result in (last, best)]
    np.testing.assert_allclose(clean[1], best.scores.max(1), rtol=1e-6)
    assert (clean[0] < clean[1]).all()
    # Of the first two steps the second is the best that was scored.
    np.testing.assert_allclose(np.diagonal(linear(best.snapshots[2])), best.scores[:, 1], rtol=1e-6)
    np.testing.assert_array_equal(best.snapshots[4], best.images)


def test_penalties_count_in_what_is_best(linear):
    """Where the penalty grows faster than the score, the start is the best."""
    start = np.full((2, 2, 3), 0.5, np.float32)
    result = draw(
        objectives.logit(0),
        linear,
        image="pixel",
        start=start,
        transforms=(),
        optimizer=optimizers.sgd(0.02),
        regularizers=[regularizers.distance(1e4, start)],
        best=True,
        steps=1,
    )
    np.testing.assert_array_equal(result.images, start)


def test_the_best_of_a_sweep_is_that_of_its_units(tmp_path):
    options = {**QUICK, "best": True, "snapshots": (2,)}
    stored = rvis.sweep(MODEL, "relu", out=tmp_path, **options)
    np.testing.assert_array_equal(
        stored.images, draw(objectives.channel("relu", range(4)), **options).images
    )
    with pytest.raises(ValueError, match="out: .*other arguments"):
        rvis.sweep(MODEL, "relu", out=tmp_path, **{**options, "best": False})


def test_a_model_sees_parts_of_a_larger_picture(linear):
    """A network that takes images of one size alone draws pictures of any."""
    crop = transforms.RandomCrop(2, side=0.2, spread=0.05, count=4)
    options = {"size": (9, 12), "transforms": (crop,), "steps": 40}
    result = draw(objectives.logit([0, 1]), linear, **options)
    assert result.images.shape == (2, 9, 12, 3)
    assert (result.scores[:, -8:].mean(1) > result.scores[:, :8].mean(1) + 0.2).all()
    alone = draw(objectives.logit(1), linear, **options)
    np.testing.assert_array_equal(alone.images, result.images[1])
    with pytest.raises(ValueError, match="size: linear"):
        draw(objectives.logit(0), linear, size=(9, 12))


def test_accentuation_ends_where_gain_and_distance_meet(linear):
    """Of w·x − λ‖x − s‖² the maximum is s + w/2λ."""
    seed = np.random.default_rng(1).uniform(0.4, 0.6, (2, 2, 3)).astype(np.float32)
    result = draw(
        objectives.logit(0),
        linear,
        image="pixel",
        start=seed,
        transforms=(),
        regularizers=[regularizers.distance(10.0, seed)],
        optimizer=optimizers.sgd(0.03),
        steps=40,
    )
    wanted = seed + np.asarray(linear.params)[:, 0].reshape(2, 2, 3) / 20
    np.testing.assert_allclose(result.images, np.clip(wanted, 0, 1), atol=1e-4)


def test_a_picture_seen_rolled_tiles_the_plane():
    """Across its border it is no rougher than inside."""
    model = rvis.load("mnist_cnn")
    result = draw(
        objectives.channel("conv2", range(4)),
        model,
        size=24,
        transforms=(transforms.Roll(12),),
        steps=64,
    )
    for axis in (1, 2):
        steps = np.abs(result.images - np.roll(result.images, 1, axis)).mean((0, 3 - axis, 3))
        assert steps[0] < 1.2 * steps[1:].mean()


LAYER = objectives.channel("relu", 0)
BAD_TRANSFORMS = {"transforms": ["jitter"]}
REFUSED = {
    "layer": (objectives.channel("relo", 0), {}, ValueError, "layer: unknown 'relo'; did you mean"),
    "unit": (objectives.channel("relu", 99), {}, ValueError, "unit: 0 to 3 of layer 'relu'"),
    "no unit": (
        objectives.channel("relu", np.zeros(0, int)),
        {},
        ValueError,
        "objective: at least",
    ),
    "target": ("relu:0", {}, ValueError, "target: unknown 'relu:0'"),
    "key": (LAYER, {"key": 0.5}, TypeError, "key: an int seed"),
    "steps": (LAYER, {"steps": 0}, ValueError, "steps: at least 1"),
    "facets": (LAYER, {"facets": -1}, ValueError, "facets: at least 1"),
    "chunk": (LAYER, {"chunk": 0}, ValueError, "chunk: at least 1"),
    "size": (LAYER, {"size": 0}, ValueError, "size: at least 1"),
    "sizes": (LAYER, {"size": (3, 3, 3)}, ValueError, r"size: \(height, width\)"),
    "fractional size": (LAYER, {"size": 3.5}, ValueError, r"size: \(height, width\)"),
    "image": (
        LAYER,
        {"image": "furier"},
        ValueError,
        "image: unknown 'furier'; did you mean 'fourier'",
    ),
    "channels": (LAYER, {"image": images.Pixel((6, 8, 1))}, ValueError, "image: 3 channels"),
    "no image": (LAYER, {"image": 3}, TypeError, "image: 'fourier', 'pixel'"),
    "start": (LAYER, {"start": np.ones((5, 8, 3), np.float32)}, ValueError, "start: .*an image"),
    "start range": (LAYER, {"start": np.full((6, 8, 3), 255.0)}, ValueError, "start: .*255"),
    "starts": (LAYER, {"start": np.zeros((2, 6, 8, 3))}, ValueError, "start: one, or one for each"),
    "transforms": (LAYER, BAD_TRANSFORMS, TypeError, "transforms: a list of"),
    "regularizer": (LAYER, {"regularizers": [1.0]}, TypeError, "regularizers: a list of"),
    "function": (LAYER, {"regularizers": [np.mean]}, TypeError, "regularizers: .*pytrees"),
    "places": (
        objectives.neuron("relu", [0, 1, 2], [[0, 0], [1, 1]]),
        {},
        ValueError,
        "unit and position: as many",
    ),
    "optimizer": (LAYER, {"optimizer": "adam"}, TypeError, "optimizer: one of rvis.optimizers"),
    "of optax": (LAYER, {"optimizer": optax.sgd(0.1)}, TypeError, "optimizer: .*from_optax"),
    "best": (LAYER, {"best": 1}, TypeError, "best: True or False"),
    "snapshots": (LAYER, {"snapshots": (9,)}, ValueError, r"snapshots: 0 to 4 \(steps\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_anything_runs(name, monkeypatch):
    objective, options, error, message = REFUSED[name]
    monkeypatch.setattr(engine, "run", lambda *a, **k: pytest.fail("it ran"))
    with pytest.raises(error, match=message):
        draw(objective, **options)


@pytest.mark.parametrize(
    ("layer", "units", "message"),
    [("relo", None, "layer: unknown 'relo'"), ("relu", [4], "units: 0 to 3 of layer 'relu'")],
)
def test_a_sweep_refuses(layer, units, message):
    with pytest.raises(ValueError, match=message):
        rvis.sweep(MODEL, layer, units, **QUICK)


def test_a_sweep_of_one_number_is_refused():
    with pytest.raises(TypeError, match="units: a list of numbers was expected, given 3"):
        rvis.sweep(MODEL, "relu", 3, **QUICK)


def test_a_network_with_relus_of_its_own_is_drawn_too():
    class Own(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Conv(4, (3, 3), name="conv")(x))
            return nn.Dense(2, name="dense")(x.mean((1, 2)))

    module = Own()
    variables = jax.jit(module.init)(jax.random.key(0), np.zeros((1, 8, 8, 3)))
    own = rvis.from_linen(module, variables, input_shape=(8, 8, 3))
    result = draw(objectives.channel("conv", [0, 1]), own, transforms=())
    assert (result.scores[:, -1] > result.scores[:, 0]).all()


SMALL_CPPN = images.CPPN((6, 8, 3), layers=2, width=8)


@pytest.mark.parametrize("kind", images.KINDS)
def test_every_parameterization_climbs(kind):
    image = SMALL_CPPN if kind == "cppn" else kind
    result = draw(objectives.channel("conv", [0, 1]), image=image, steps=24, transforms=())
    assert (result.scores[:, -4:].mean(1) > result.scores[:, :4].mean(1)).all()
    assert result.images.shape[-1] == (4 if kind == "rgba" else 3)
    assert (result.alpha is not None) == (kind == "maco")
    assert result.show().width > 190


def test_checks_for_nan_find_none():
    with jax.debug_nans(True):
        assert draw(objectives.channel("relu", 0), image="pixel").scores.shape == (4,)


def test_a_model_in_double_precision():
    with jax.enable_x64(True):
        double = MODEL.replace(params=jax.tree.map(lambda x: x.astype("float64"), MODEL.params))
        assert draw(objectives.channel("relu", 0), double).scores.shape == (4,)


def test_a_cppn_is_shown_as_it_is():
    options = {"image": SMALL_CPPN, "steps": 24}  # of the program that climbs above
    objective = objectives.channel("conv", [0, 1])
    plain = draw(objective, transforms=(), **options)
    np.testing.assert_array_equal(draw(objective, transforms=None, **options).images, plain.images)


def test_the_transparency_of_maco_is_where_the_gradient_was():
    start = np.full(MODEL.input_shape, 0.5, np.float32)
    result = draw(objectives.neuron("conv", 0, (2, 3)), image="maco", start=start, transforms=())
    assert np.unravel_index(result.alpha.argmax(), (6, 8)) == (2, 3)
    assert result.alpha.min() == 0 and result.alpha.shape == (6, 8)


@pytest.mark.parametrize(
    "layer",
    [
        *("conv1", "relu2"),
        *(pytest.param(layer, marks=pytest.mark.slow) for layer in ("relu1", "pool1", "conv2")),
    ],
)
def test_a_layer_is_reached_without_those_after_it(layer):
    """An image of the field's size is too small for the network's last layers."""
    alexnet = toys.outline("alexnet")
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), alexnet.params)
    small = struct.replace(alexnet, params=zeros)
    size = receptive.receptive_field(small, layer).size
    assert max(size) < 64
    found = rvis.visualize(
        small, objectives.neuron(layer, 0), size="receptive_field", steps=1, progress=False
    )
    assert found.images.shape == (*size, 3)


def test_a_receptive_field_is_the_size_of_the_picture():
    model = rvis.load("mnist_cnn", weights="random")
    result = draw(
        objectives.neuron("pool2", [0, 1]), model, size="receptive_field", facets=2, transforms=()
    )
    assert result.images.shape == (2, 2, 16, 16, 1)
    with pytest.raises(ValueError, match="size: unknown 'receptive'; did you mean 'receptive_fi"):
        draw(objectives.neuron("pool2", 0), model, size="receptive")
    with pytest.raises(ValueError, match="size: the receptive field of one layer"):
        draw(objectives.neuron("pool2", 0) + objectives.logit(1), model, size="receptive_field")


class Watcher:
    """A callback that keeps what it is shown, and stops after so many steps."""

    def __init__(self, stop=None):
        self.stop, self.seen = stop, []

    def __call__(self, step, pictures, scores):
        self.seen.append((step, pictures.copy(), scores.copy()))
        scores[...] = pictures[..., 0, 0, 0].max()  # what is done to them changes no result
        return step == self.stop


THREE = objectives.channel("conv", [0, 1, 2])


@pytest.fixture(scope="module")
def unwatched():
    return draw(THREE, steps=6, snapshots=(0, 4))


@pytest.mark.parametrize(
    ("every", "steps"), [(1, [1, 2, 3, 4, 5, 6]), (4, [4, 6]), (2, [2, 4, 6]), (9, [6])]
)
def test_a_callback_changes_no_bit(unwatched, every, steps):
    watcher = Watcher()
    result = draw(THREE, steps=6, snapshots=(0, 4), callback=watcher, every=every)
    assert [step for step, _, _ in watcher.seen] == steps
    np.testing.assert_array_equal(result.images, unwatched.images)
    np.testing.assert_array_equal(result.scores, unwatched.scores)
    for step, pictures, scores in watcher.seen:
        np.testing.assert_array_equal(scores, unwatched.scores[:, :step])
        assert pictures.min() >= 0 and pictures.max() <= 1
        expected = {4: unwatched.snapshots[4], 6: unwatched.images}.get(step, pictures)
        np.testing.assert_array_equal(pictures, expected)


def test_a_callback_that_returns_true_ends_the_climb(unwatched):
    watcher = Watcher(stop=3)
    result = draw(THREE, steps=6, snapshots=(0, 2, 4), callback=watcher)
    assert [step for step, _, _ in watcher.seen] == [1, 2, 3]
    np.testing.assert_array_equal(result.scores, unwatched.scores[:, :3])
    np.testing.assert_array_equal(result.images, watcher.seen[2][1])
    np.testing.assert_array_equal(result.snapshots[2], watcher.seen[1][1])
    np.testing.assert_array_equal(result.snapshots[0], unwatched.snapshots[0])
    assert list(result.snapshots) == [0, 2]
    assert not result.dead.any()


@pytest.mark.parametrize(
    ("objective", "options", "pictures", "scores"),
    [
        (objectives.channel("relu", 1), {}, (6, 8, 3), (2,)),
        (objectives.channel("relu", 1), {"facets": 2}, (2, 6, 8, 3), (2,)),
        (THREE, {"facets": 2}, (3, 2, 6, 8, 3), (3, 2)),
        (objectives.channel("relu", 1), {"image": "maco"}, (6, 8, 3), (2,)),
    ],
    ids=["one", "facets", "many", "with transparency"],
)
def test_a_callback_sees_the_shapes_of_the_result(objective, options, pictures, scores):
    watcher = Watcher()
    result = draw(objective, steps=2, transforms=(), callback=watcher, every=2, **options)
    ((_, seen, told),) = watcher.seen
    assert (seen.shape, told.shape) == (pictures, scores)
    np.testing.assert_array_equal(seen, result.images)


def test_an_error_in_a_callback_is_its_callers():
    def broken(step, pictures, scores):
        raise ArithmeticError("mine")

    with pytest.raises(ArithmeticError, match="mine"):
        draw(THREE, steps=6, snapshots=(0, 4), callback=broken)  # compiled above


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"callback": 3}, "callback: a function was expected, given 3"),
        ({"callback": print, "every": 0}, "every: at least 1 was expected, given 0"),
        ({"callback": print, "chunk": 2}, "chunk: at least 3 was expected beside a callback"),
    ],
)
def test_callbacks_that_cannot_be_are_refused(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        draw(THREE, **options)


@pytest.mark.parametrize(
    ("options", "decay", "rate"),
    [
        ({"size": 159}, 1.0, 0.05),
        ({"size": 160}, 1.5, 1.28 / 512),
        ({"size": (300, 159)}, 1.0, 0.05),
        ({"image": images.Fourier((200, 200, 3))}, 1.0, 0.05),
        ({"image": images.Fourier((20, 20, 3), decay=1.5), "steps": 128}, 1.5, 0.01),
        ({"size": 160, "steps": 10}, 1.5, 0.05),
    ],
)
def test_large_pictures_have_steeper_spectra_and_smaller_steps(options, decay, rate):
    planned = make_plan(MODEL, ("relu",), **options).algorithm
    assert planned.image.decay == decay
    assert planned.optimizer == optimizers.adam(rate)


def test_the_views_of_a_vision_transformer_reach_over_half_a_patch():
    small = {"width": 8, "depth": 1, "heads": 1, "image": 64}
    model = architectures.build(
        "vit_base_patch32_224", config=small, weights="random", input_shape=(64, 64, 3)
    )
    assert make_plan(model, ("norm",)).algorithm.views == transforms.lucid(64, patch=32)
    given = make_plan(model, ("norm",), transforms=transforms.lucid(64)).algorithm
    assert given.views == transforms.lucid(64)
