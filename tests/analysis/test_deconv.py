"""Deconvnet against a hand-worked network; top activations; plates; first-layer filters."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rvis
from rvis import data
from rvis.analysis import deconv
from rvis.engine import programs
from rvis.kernels.layers import Conv
from rvis.kernels.pooling import max_pool
from rvis.types import identity
from tests import toys

QUIET = {"progress": False}


class TwoLayers(nn.Module):
    """A 1×1 convolution, ReLU and 2×2 pooling, twice, with a normalisation between."""

    @nn.compact
    def __call__(self, x, *, tap=identity, relu=nn.relu):
        x = tap("relu1", relu(tap("conv1", Conv(2, 1, bias=False, name="conv1")(x))))
        x = tap("pool1", max_pool(x, 2, 2))
        x = tap("localresponsenorm1", x / (1 + x))
        x = tap("relu2", relu(tap("conv2", Conv(1, 1, bias=False, name="conv2")(x))))
        return tap("logits_", x.mean((1, 2)))


def two_layers(second=(1.0, -0.5)):
    module = TwoLayers()
    params = {
        "conv1": {"kernel": jnp.array([[[[2.0, -1.0]]]])},
        "conv2": {"kernel": jnp.array(second).reshape(1, 1, 2, 1)},
    }
    return rvis.from_linen(module, {"params": params}, input_shape=(4, 4, 1))


IMAGE = np.array(
    [[0.1, 0.2, 0.0, 0.3], [0.4, 0.3, 0.9, 0.0], [0.0, 0.0, 0.5, 0.6], [0.0, 0.0, 0.8, 0.7]],
    np.float32,
)[..., None]


def dataset(images):
    labels = np.arange(len(images), dtype=np.int32) % 2
    return data.Dataset(np.asarray(images, np.uint8), labels, ("even", "odd"), "toy")


def noise(count=23, size=(6, 8), channels=3, seed=0):
    rng = np.random.default_rng(seed)
    return dataset(rng.integers(0, 256, (count, *size, channels), np.uint8))


def test_a_two_layer_network_worked_by_hand():
    model = two_layers()
    found = deconv.reconstruct(model, IMAGE, "relu2", 0, **QUIET)
    # conv1 gives 2x and −x, the ReLU keeps 2x, pooling takes the largest of each 2 × 2 window, and
    # y/(1 + y) keeps their order: the strongest window is the upper right one, 1.8 at (1, 2).
    value = 1.8 / 2.8
    assert found.values == pytest.approx(value, rel=1e-6)
    assert found.positions.tolist() == [0, 1]
    # Back: ×1 through conv2 (its other filter gives a negative, which is rectified), the norm is
    # passed over, the switch puts it at (1, 2), the ReLU lets it through, ×2 through conv1.
    expected = np.zeros((4, 4, 1))
    expected[1, 2] = 2 * value
    np.testing.assert_allclose(found.pixels, expected, rtol=1e-6)


def test_what_comes_back_is_rectified_whatever_went_forward():
    # Both of conv1's units are sent positive values, and the second, off in the forward pass, lets
    # its part through: at its window's first place, for all of them tie at 0.
    found = deconv.reconstruct(two_layers((1.0, 0.5)), IMAGE, "relu2", 0, **QUIET)
    value = 1.8 / 2.8
    expected = np.zeros((4, 4, 1))
    expected[1, 2] = 2 * value
    expected[0, 2] = -0.5 * value
    np.testing.assert_allclose(found.pixels, expected, rtol=1e-6)


def test_a_position_can_be_chosen():
    found = deconv.reconstruct(two_layers(), IMAGE, "relu2", 0, positions=(1, 1), **QUIET)
    expected = np.zeros((4, 4, 1))
    expected[3, 2] = 2 * 1.6 / 2.6
    np.testing.assert_allclose(found.pixels, expected, rtol=1e-6)
    assert found.positions.tolist() == [1, 1]


def test_the_switches_are_each_images_own():
    images = np.stack([IMAGE, IMAGE[::-1], IMAGE[:, ::-1]])
    found = deconv.reconstruct(two_layers(), images, "relu2", 0, chunk=2, **QUIET)
    np.testing.assert_array_equal(found.pixels[1], found.pixels[0][::-1])
    np.testing.assert_array_equal(found.pixels[2], found.pixels[0][:, ::-1])


def test_without_relus_it_is_the_activation_times_the_gradient():
    model = rvis.load("mnist_cnn")
    images = np.random.default_rng(0).random((1, 28, 28, 1)).astype(np.float32)
    found = deconv.reconstruct(model, images, "conv1", 5, positions=(9, 20), **QUIET)
    kernel = np.asarray(model.params["params"]["conv1"]["kernel"])[..., 5]
    expected = np.zeros((28, 28, 1))
    expected[7:12, 18:23] = kernel * found.values[0]
    np.testing.assert_allclose(found.pixels[0], expected, atol=1e-6)


def test_a_batch_equals_its_images_one_by_one():
    model = rvis.load("mnist_cnn")
    images = np.random.default_rng(0).random((3, 28, 28, 1)).astype(np.float32)
    units = [3, 9, 9]
    whole = deconv.reconstruct(model, images, "conv2", units, **QUIET)
    for i, unit in enumerate(units):
        alone = deconv.reconstruct(model, images[i], "conv2", unit, **QUIET)
        np.testing.assert_allclose(alone.pixels, whole.pixels[i], atol=1e-5)


def test_units_and_positions_trace_once():
    model = two_layers()
    programs.advance.clear_cache()
    for position in ((0, 0), (1, 1), None):
        deconv.reconstruct(model, IMAGE, "relu2", 0, positions=position, **QUIET)
        deconv.reconstruct(model, IMAGE, "conv1", 1, **QUIET)
    assert programs.advance._cache_size() == 2


@pytest.mark.parametrize("chunk", [None, 1, 5, 100])
@pytest.mark.parametrize("k", [1, 4, 23])
def test_top_activations_are_those_of_a_full_sort(chunk, k):
    model, images = toys.pointwise(), noise()
    top = deconv.top_activations(model, "conv", [2, 0], images, k=k, chunk=chunk, **QUIET)
    full = np.asarray(rvis.record(model, images.floats(), "conv")["conv"])
    for row, unit in enumerate((2, 0)):
        peaks = full[..., unit].reshape(23, -1)
        order = np.argsort(-peaks.max(1), kind="stable")[:k]
        np.testing.assert_array_equal(top.indices[row], order)
        np.testing.assert_allclose(top.values[row], peaks.max(1)[order], rtol=1e-6)
        places = np.stack(np.divmod(peaks.argmax(1)[order], 8), -1)
        np.testing.assert_array_equal(top.positions[row], places)
        # A 1×1 convolution sees the pixel of its place.
        np.testing.assert_array_equal(top.corners[row], places)
        rows, columns = places.T
        expected = images.floats(order)[np.arange(k), rows, columns]
        np.testing.assert_array_equal(top.patches[row][:, 0, 0], expected)


def test_equal_images_come_in_their_order_and_once_each():
    images = dataset(np.repeat(noise(2).images, 4, 0))
    top = deconv.top_activations(toys.pointwise(), "conv", 1, images, k=8, chunk=3, **QUIET)
    best = top.indices[0, 0] // 4
    assert top.indices[0].tolist() == [
        *range(4 * best, 4 * best + 4),
        *range(4 - 4 * best, 8 - 4 * best),
    ]


def test_patches_at_the_border_are_moved_inside():
    images = np.zeros((1, 28, 28, 1), np.uint8)
    images[0, :3, :3] = 255
    top = deconv.top_activations(
        rvis.load("mnist_cnn"), "conv1", range(32), dataset(images), k=1, **QUIET
    )
    assert top.patches.shape == (32, 1, 5, 5, 1)
    assert (top.corners >= 0).all()
    assert (top.corners <= 23).all()


def test_a_dense_layer_sees_the_whole_image():
    top = deconv.top_activations(toys.pointwise(), "pool", 3, noise(), k=2, **QUIET)
    assert top.patches.shape == (1, 2, 6, 8, 3)
    assert not top.positions.any()


def test_a_large_data_set_is_never_in_memory_at_once(monkeypatch):
    seen = []
    floats = data.Dataset.floats
    monkeypatch.setattr(
        data.Dataset, "floats", lambda self, i=None: seen.append(len(i)) or floats(self, i)
    )
    deconv.top_activations(toys.pointwise(), "conv", 0, noise(40), k=3, chunk=8, **QUIET)
    assert max(seen) == 8


def test_plates_hold_the_patch_of_the_reconstruction(tmp_path):
    images = noise(12, (28, 28), 1)
    model = rvis.load("mnist_cnn")
    found = deconv.plates(model, "conv2", [1, 4], images, k=4, **QUIET)
    assert found.reconstructions.shape == found.top.patches.shape == (2, 4, 14, 14, 1)
    i = int(found.top.indices[1, 2])
    whole = deconv.reconstruct(model, images.floats([i]), "conv2", 4, **QUIET).pixels[0]
    top, left = found.top.corners[1, 2]
    np.testing.assert_allclose(
        found.reconstructions[1, 2], whole[top : top + 14, left : left + 14], atol=1e-5
    )
    # Nothing lies outside the receptive field.
    assert np.abs(whole).sum() == pytest.approx(np.abs(found.reconstructions[1, 2]).sum(), rel=1e-5)
    assert found.pictures.min() >= 0
    assert found.pictures.max() <= 1
    files = sorted(path.name for path in found.save(tmp_path).iterdir())
    assert files == ["arrays.npz", "card.json", "figure.png", "images"]


def test_a_patch_that_does_not_excite_its_unit_is_grey():
    found = deconv.plates(rvis.load("mnist_cnn"), "conv2", [1], noise(4, (28, 28), 1), k=4, **QUIET)
    values = found.top.values.copy()
    values[0, 3] = 0
    silent = dataclasses.replace(found, top=dataclasses.replace(found.top, values=values))
    before, after = (np.asarray(plates.show(), int) for plates in (found, silent))
    rows, columns = np.nonzero((before != after).any(-1))
    # The fourth of 2 x 2 patches: the lower right of the left half.
    scale = 40 // 14
    assert len(rows) > 100 and rows.max() - rows.min() < 14 * scale
    assert set(np.unique(after[rows.min() : rows.max(), columns.min() : columns.max()])) <= {
        127,
        128,
    }


@pytest.mark.parametrize(
    ("name", "layer", "path"),
    [("mnist_cnn", "conv1", ("conv1",)), ("cifar10_resnet", "conv1", ("conv1",))],
)
def test_first_layer_filters_are_the_kernel_in_the_images_colours(name, layer, path):
    model = rvis.load(name)
    found = deconv.first_layer_filters(model)
    kernel = np.asarray(model.params["params"][path[0]]["kernel"])
    expected = np.moveaxis(kernel / np.asarray(model.apply.std).reshape(-1, 1), -1, 0)
    assert found.layer == layer
    np.testing.assert_allclose(found.kernels, expected, atol=1e-5)
    assert found.pictures.min() >= 0
    assert np.abs(found.pictures - 0.5).max((1, 2, 3)) == pytest.approx(0.5, abs=1e-5)
    assert found.show().mode == "RGB"


def test_filters_are_saved_as_pictures(tmp_path):
    found = deconv.first_layer_filters(rvis.load("mnist_cnn", weights="random"))
    folder = found.save(tmp_path / "filters")
    assert len(list((folder / "images").glob("*.png"))) == len(found.kernels) == 32
    np.testing.assert_array_equal(np.load(folder / "arrays.npz")["kernels"], found.kernels)
    assert (folder / "figure.png").is_file() and (folder / "card.json").is_file()


def test_a_first_layer_that_is_not_affine_is_refused():
    def apply(params, images, *, tap=identity, relu=jax.nn.relu):
        return tap("square", images**2).mean((1, 2))

    with pytest.raises(ValueError, match="model: .*'square'"):
        deconv.first_layer_filters(rvis.Model({}, apply, ("square",), (6, 8, 3)))


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"layer": "relu3"}, ValueError, "layer: .*'relu2'"),
        ({"units": 1}, ValueError, "units"),
        ({"units": [0, 0]}, ValueError, "units"),
        ({"units": 0.5}, TypeError, "units"),
        ({"positions": (2, 0)}, ValueError, "positions"),
        ({"positions": (0, 0, 0)}, ValueError, "positions"),
        ({"positions": (0.0, 1.0)}, TypeError, "positions"),
        ({"chunk": 0}, ValueError, "chunk"),
        ({"images": IMAGE * 3}, ValueError, "images"),
    ],
)
def test_bad_arguments_of_a_reconstruction_are_named(options, error, match):
    options = {"images": IMAGE, "layer": "relu2", "units": 0, **options}
    given = (options.pop(name) for name in ("images", "layer", "units"))
    with pytest.raises(error, match=match):
        deconv.reconstruct(two_layers(), *given, **options, **QUIET)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"layer": "convv"}, ValueError, "layer: .*'conv'"),
        ({"units": 4}, ValueError, "units"),
        ({"units": []}, ValueError, "units"),
        ({"k": 24}, ValueError, "k: at most 23"),
        ({"k": 0}, ValueError, "k"),
        ({"chunk": -1}, ValueError, "chunk"),
        ({"dataset": noise().images}, TypeError, "dataset"),
        ({"dataset": noise(channels=1)}, ValueError, "dataset"),
    ],
)
def test_bad_arguments_of_top_activations_are_named(options, error, match):
    options = {"layer": "conv", "units": 0, "dataset": noise(), **options}
    with pytest.raises(error, match=match):
        deconv.top_activations(toys.pointwise(), **options, **QUIET)


def test_a_model_without_activations_is_refused():
    class Own(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Conv(2, (3, 3))(x).mean((1, 2))

    variables = Own().init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    model = rvis.from_linen(Own(), variables, input_shape=(8, 8, 1))
    with pytest.raises(ValueError, match="^relu: the model has no ReLU"):
        deconv.reconstruct(model, np.zeros((8, 8, 1), np.float32), model.layers[0], 0, **QUIET)
