"""rvis.analysis.receptive: the windows of the literature, and those that a lit pixel shows."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from toys import linear, outline, pointwise

import rvis
from rvis import kernels
from rvis.analysis.receptive import ReceptiveField, fields, receptive_field
from rvis.kernels import pooling
from rvis.models.apply import LinenApply
from rvis.types import identity

RNG = np.random.default_rng(0)


def weights(*shape):
    """Positive, so that whatever a unit can see raises it."""
    return jnp.asarray(RNG.uniform(0.1, 1, shape), jnp.float32)


def conv(x, size, stride=1, pads="SAME", out=1, **options):
    size = (size, size) if isinstance(size, int) else size
    groups = options.get("feature_group_count", 1)
    kernel = weights(*size, x.shape[-1] // groups, out)
    numbers = ("NHWC", "HWIO", "NHWC")
    stride = (stride, stride) if isinstance(stride, int) else stride
    return lax.conv_general_dilated(x, kernel, stride, pads, dimension_numbers=numbers, **options)


def toy(function, shape=(24, 20, 3)):
    """A model with one layer, "out", which is that function of the images."""

    def apply(params, images, *, tap=identity, relu=jax.nn.relu):
        return tap("out", function(images))

    return rvis.Model({}, apply, ("out",), shape)


def lit(model, names, size):
    """{layer: (rows, columns) that its places see}, found by lighting one row or column each."""
    height, width = size
    # One batch, and so one program, for both.
    images = np.zeros((height + width, height, width, model.input_shape[2]), np.float32)
    images[np.arange(height), np.arange(height)] = 1
    images[height + np.arange(width), :, np.arange(width)] = 1
    seen = {name: [] for name in names}
    with kernels.stock():
        recorded = rvis.record(model, images, names)
    for name, y in recorded.items():
        y = np.asarray(y).reshape(len(y), 1, 1, -1) if y.ndim != 4 else np.asarray(y)
        for part, axis in ((y[:height], 1), (y[height:], 2)):
            hit = (part > 0).any(tuple(i for i in (1, 2, 3) if i != axis))
            spans = [np.flatnonzero(place) for place in hit.T]
            seen[name].append(
                tuple((int(s[0]), int(s[-1]) + 1) if len(s) else (0, 0) for s in spans)
            )
    return seen


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        (
            "alexnet",
            {"conv1": 11, "pool1": 19, "conv2": 51, "pool2": 67, "conv3": 99, "conv4": 131}
            | {"conv5": 163, "pool5": 195, "fc6": 355, "logits": 355},
        ),
        ("vgg16", {"conv1_2": 5, "pool1": 6, "conv5_3": 196, "pool5": 212, "fc6": 404}),
        ("resnet18", {"layer1": 43, "layer2": 99, "layer3": 211, "layer4": 435}),
        ("resnet50", {"layer1": 35, "layer2": 91, "layer3": 267, "layer4": 427}),
        ("cifar_resnet", {"layer1": 7, "layer2": 13, "layer3": 25, "layer4": 49}),
    ],
)
def test_sizes_of_the_literature(name, sizes):
    model = outline(name)
    found = {layer: receptive_field(model, layer).size for layer in sizes}
    assert found == {layer: (size, size) for layer, size in sizes.items()}


def test_a_chain_worked_out_by_hand():
    def chain(x):
        x = conv(conv(x, 7, pads="VALID"), 5, pads="VALID")
        return conv(pooling.avg_pool(x, 2, 2), 5, pads="VALID")

    field = receptive_field(toy(chain, (64, 40, 3)), "out")
    assert (field.size, field.stride, field.offset) == ((20, 20), (2, 2), (0, 0))
    assert field.rows[:2] == ((0, 20), (2, 22))


def test_pixels_that_no_stride_reaches_are_not_seen():
    # The last of six pixels is dropped by the first operation; the padding after it is no pixel.
    def dropping(x):
        return conv(conv(x, 2, 2, "VALID")[:, :2, :2], 3)

    field = receptive_field(toy(dropping, (6, 6, 3)), "out")
    assert (field.size, field.offset) == ((6, 6), (-2, -2))
    assert field.rows == ((0, 4), (0, 4))


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("mnist_cnn", ("conv2", "pool2", "fc1")),
        ("resnet18", ("maxpool", "layer2.0.downsample", "layer2.0")),
        # InceptionV1 has its branches too.
        pytest.param("googlenet", ("maxpool2", "inception3a.branch4"), marks=pytest.mark.slow),
        ("inceptionv1", ("localresponsenorm1", "mixed3a")),
        ("cifar_resnet", ("layer2", "layer4.0.conv1")),
    ],
)
def test_a_lit_pixel_reaches_exactly_the_places_that_see_it(name, names):
    model = outline(name)

    def positive(leaf):  # means of positive weights: black stays 0, and nothing overflows
        size = np.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 1
        return np.full(leaf.shape, 1 / size, np.float32)

    params = jax.tree.map_with_path(
        lambda path, leaf: positive(leaf) * (path[-1].key not in ("bias", "mean")), model.params
    )
    model = model.replace(params=params, apply=LinenApply(model.apply.module))
    size = (44, 52) if model.input_shape[0] == 224 else model.input_shape[:2]
    for layer, found in lit(model, names, size).items():
        field = receptive_field(model, layer, size=size)
        assert [field.rows, field.columns] == found, layer


def attention(x):
    tokens = conv(x, 4, 4, "VALID", out=5).reshape(x.shape[0], -1, 5)
    weight = jax.nn.softmax(jnp.einsum("nic,njc->nij", tokens, tokens))
    return jnp.einsum("nij,njc->nic", weight, tokens).reshape(x.shape[0], 6, 5, 5)


def shuffled(x):
    y = jnp.concatenate([conv(x, 1, out=2), conv(x, 5, out=2)], -1)
    y = conv(y, 3, out=4, feature_group_count=4)
    return y[..., :2]


EXACT = {
    "strides and pads": lambda x: conv(x, (3, 5), (2, 3), ((1, 0), (2, 4))),
    "dilated": lambda x: conv(x, 3, pads=((4, 4), (4, 4)), rhs_dilation=(4, 4)),
    "transposed": lambda x: conv(x, 4, pads=((2, 2), (2, 2)), lhs_dilation=(2, 2)),
    "transposed with gaps": lambda x: conv(x, 1, pads=((0, 0), (0, 0)), lhs_dilation=(3, 3)),
    "a padded window that hangs over": lambda x: pooling.max_pool(x, 3, 2, padding=1, ceil=True),
    "explicit pads": lambda x: conv(jnp.pad(x, ((0, 0), (3, 1), (1, 2), (0, 0))), 3, pads="VALID"),
    "reflected pads": lambda x: conv(
        jnp.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect"), 5, pads="VALID"
    ),
    "slices": lambda x: conv(x, 3)[:, 3:-2:2, 1::4],
    "the other way round": lambda x: conv(x[:, ::-1], 3, 2),
    "space to depth": lambda x: (
        x.reshape(x.shape[0], 6, 4, 5, 4, 3).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 6, 5, 48)
    ),
    "depth to space": lambda x: (
        conv(x, 4, 4, out=4)
        .reshape(-1, 6, 5, 2, 2, 1)
        .transpose(0, 1, 3, 2, 4, 5)
        .reshape(-1, 12, 10, 1)
    ),
    "adaptive pooling": lambda x: pooling.adaptive_avg_pool(conv(x, 3), 7),
    "branches cut apart again": shuffled,
    "rows chosen by number": lambda x: conv(x, 3)[:, np.array([5, 1, 8])],
    "one axis summed": lambda x: conv(x, 3).sum(1, keepdims=True),
    "global pooling added": lambda x: conv(x, 3) + x.max((1, 2), keepdims=True),
    "rematerialised": jax.checkpoint(lambda x: jax.jit(partial(conv, size=3))(x)),
    "attention": attention,
    "dense": lambda x: x.reshape(x.shape[0], -1) @ weights(24 * 20 * 3, 4),
}


@pytest.mark.parametrize("name", EXACT)
def test_operations_one_by_one(name):
    model = toy(EXACT[name])
    field = receptive_field(model, "out")
    found = lit(model, ("out",), (24, 20))["out"]
    assert [field.rows, field.columns] == found


@pytest.mark.parametrize(
    "function",
    [lambda x: jnp.fft.fft2(conv(x, 1), axes=(1, 2)).real, lambda x: jnp.sort(conv(x, 1), (1))],
)
def test_what_is_unknown_or_sorts_is_taken_to_mix_all(function):
    field = receptive_field(toy(function), "out")
    assert field.rows[3] == (0, 24)


def test_a_map_of_one_place_still_has_neighbours_in_the_padding():
    def shrunk(x):
        return conv(conv(x, 4, 4, "VALID"), 3, pads=((1, 1), (1, 1)))

    small, large = (receptive_field(toy(shrunk, (n, n, 3)), "out") for n in (4, 16))
    assert small.size == large.size == (12, 12)
    assert small.offset == large.offset == (-4, -4)


def test_a_dense_layer_sees_what_is_below_it():
    model = pointwise(size=(6, 8))
    assert receptive_field(model, "pool").size == (6, 8)
    field = receptive_field(model, "dense")
    assert (field.rows, field.columns, field.stride) == (((0, 6),), ((0, 8),), (0, 0))
    assert field.window() == (slice(0, 6), slice(0, 8))


def test_windows_are_cut_to_the_image():
    field = receptive_field(outline("mnist_cnn"), "pool2")
    assert field.window((0, 6)) == (slice(0, 10), slice(18, 28))
    assert field.window() == field.window((3, 3)) == (slice(6, 22), slice(6, 22))


def test_the_size_of_the_image_can_be_chosen():
    model = outline("cifar_resnet")
    field = receptive_field(model, "layer2", size=(20, 40))
    assert (len(field.rows), len(field.columns)) == (10, 20)
    assert field.size == receptive_field(model, "layer2").size


def test_one_trace_serves_all_layers():
    model = outline("cifar_resnet")
    fields._traced.cache_clear()
    for layer in model.layers:
        receptive_field(model, layer)
    assert fields._traced.cache_info().misses == 1


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: receptive_field(pointwise(), "cnv"), ValueError, "layer.*'cnv'.*'conv'"),
        (lambda: receptive_field(pointwise(), "conv", size=0), ValueError, "size: at least 1"),
        (lambda: receptive_field(pointwise(), "conv", size="big"), ValueError, "size: .*'big'"),
        (lambda: receptive_field(pointwise(), "conv", size=(1, 2, 3)), ValueError, "size: .*3"),
        (
            lambda: receptive_field(linear(np.ones((12, 2)), (2, 2, 3)), "out", size=3),
            ValueError,
            r"size: .*\(3, 3, 3\).*\(2, 2, 3\)",
        ),
        (
            lambda: receptive_field(toy(lambda x: jnp.ones((x.shape[0], 2))), "out"),
            ValueError,
            "layer: 'out' does not depend",
        ),
        (
            lambda: receptive_field(pointwise(), "conv").window((6, 0)),
            ValueError,
            "position: 0 to 5.*6",
        ),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_the_type_is_public():
    assert isinstance(receptive_field(pointwise(), "conv"), ReceptiveField)
