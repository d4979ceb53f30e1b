"""rvis.images: what holds for every parameterization, and those that live in space."""

from __future__ import annotations

import dataclasses
import pickle
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rvis import images, regularizers
from rvis.images import CPPN, MACO, RGBA, Fourier, Pixel, Pyramid, Statistics, cppn

OWN = Statistics("own", np.array([0.3, 0.4, 0.5]), np.diag([0.1, 0.2, 0.3]), np.ones((4, 4, 3)))
SHAPES = [(8, 8, 3), (7, 10, 3), (6, 1, 1)]
ALL = [
    Pixel((6, 5, 3)),
    Fourier((6, 5, 3)),
    Pyramid((6, 5, 3)),
    CPPN((6, 5, 3), layers=3, width=8),
    MACO((6, 5, 3), statistics=OWN),
    RGBA(Fourier((6, 5, 3))),
]
EXACT = [
    maker(shape)
    for maker in (Pixel, Fourier, Pyramid, lambda shape: RGBA(Fourier(shape)))
    for shape in SHAPES
] + [
    Fourier((7, 10, 3), decorrelate=False),
    Fourier((7, 10, 3), decay=1.5),
    Pyramid((7, 10, 3), levels=1),
    Pyramid((70, 31, 3), levels=9, statistics=OWN),
    RGBA(Pyramid((7, 10, 3))),
]

around = jax.jit(lambda image, picture: image.decode(image.encode(picture)), static_argnums=0)
decode = jax.jit(lambda image, position: image.decode(position), static_argnums=0)
start = jax.jit(lambda image: image.decode(image.init(0)), static_argnums=0)
encode = jax.jit(lambda image, picture: image.encode(picture), static_argnums=0)
init = jax.jit(lambda image, key: image.init(key), static_argnums=0)
init_seed = jax.jit(lambda image, seed: image.init(seed), static_argnums=(0, 1))
composite = jax.jit(lambda image, key, x: image.composite(key, x), static_argnums=0)
composite_seed = jax.jit(lambda image, seed, x: image.composite(seed, x), static_argnums=(0, 1))


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0.01, 0.99, shape).astype(np.float32)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("image", EXACT, ids=str)
def test_what_is_encoded_decodes_to_itself(image):
    picture = random(*image.shape)
    np.testing.assert_allclose(around(image, picture), picture, atol=1e-5)


# A network's layers know no sizes, so that whole runs try it on one of them alone.
@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        pytest.param(
            kind, shape, marks=[pytest.mark.slow] * (kind == "cppn" and shape != (1, 6, 3))
        )
        for kind in images.KINDS
        for shape in [(10, 7, 3), (1, 6, 3), (5, 5, 1)]
    ],
)
def test_every_kind_starts_at_any_size(kind, shape):
    image = images.named(kind, shape)
    picture = np.asarray(start(image))
    assert picture.shape == image.shape == (*shape[:2], shape[2] + (kind == "rgba"))
    assert np.isfinite(picture).all()
    assert (0 <= picture).all()
    assert (picture <= 1).all()


@pytest.mark.parametrize("image", ALL, ids=str)
def test_a_position_is_float32_and_repeats_with_its_key(image):
    keys = jax.random.key(3), jax.random.key(4)
    first = jax.tree.map(np.asarray, init_seed(image, 3))
    second, other = (jax.tree.map(np.asarray, init(image, key)) for key in keys)
    assert {leaf.dtype for leaf in jax.tree.leaves(first)} == {jnp.dtype("float32")}
    assert decode(image, first).dtype == jnp.float32
    chex.assert_trees_all_equal(first, second)
    for one, another in zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True):
        assert not (one == another).all() or not one.any()


@pytest.mark.parametrize("image", ALL, ids=str)
def test_a_batch_is_its_examples_one_by_one(image):
    keys = jax.random.split(jax.random.key(0), 3)
    batch = jax.jit(jax.vmap(lambda key: image.decode(image.init(key))))(keys)
    alone = np.stack([decode(image, init(image, key)) for key in keys])
    np.testing.assert_allclose(batch, alone, atol=1e-6)


@pytest.mark.parametrize("image", ALL, ids=str)
def test_gradients_reach_the_whole_position(image):
    weights = np.random.default_rng(1).standard_normal(image.shape, np.float32)
    # Away from the start, where a CPPN's last layer is zero.
    start = init(image, jax.random.key(0))
    position = jax.tree.map(lambda leaf: np.asarray(leaf) + np.float32(0.1), start)
    gradient = jax.jit(jax.grad(lambda x: (decode(image, x) * weights).sum()))(position)
    for leaf in map(np.asarray, jax.tree.leaves(gradient)):
        assert np.isfinite(leaf).all()
        # Redundant coefficients of a spectrum alone have no say in a real image.
        assert (leaf != 0).mean() > 0.9


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Pixel((4, 4, 1)), Pixel([4, 4, 1], mean=np.float32(0.5))),
        (Fourier((4, 4, 3)), Fourier((4, np.int64(4), 3), decay=1)),
        (
            Fourier((4, 4, 3), statistics=OWN),
            Fourier((4, 4, 3), statistics=pickle.loads(pickle.dumps(OWN))),
        ),
        (Pyramid((4, 4, 3)), Pyramid([4, 4, 3], sd=np.float64(0.01))),
        (CPPN((4, 4, 3)), CPPN((4, 4, 3), layers=np.int32(8))),
        (MACO((4, 4, 3)), MACO((4, 4, 3), statistics="tiny_imagenet")),
        (RGBA(Fourier((4, 4, 3))), RGBA(Fourier((4, 4, 3), sd=0.01), background=0.5)),
    ],
    ids=str,
)
def test_a_rebuilt_description_does_not_retrace(one, other):
    traces = []

    @partial(jax.jit, static_argnums=0)
    def start(image: images.Parameterization) -> jax.Array:
        traces.append(image)
        return image.decode(image.init(0))

    start(one)
    start(other)
    assert len(traces) == 1


@pytest.mark.parametrize(
    "other",
    [
        Fourier((4, 4, 3), statistics="cifar10"),
        Fourier((4, 4, 3), statistics=OWN),
        Fourier((4, 4, 3), statistics=dataclasses.replace(OWN, mean=np.array([0.3, 0.4, 0.6]))),
    ],
    ids=str,
)
def test_other_statistics_make_another_description(other):
    assert other != Fourier((4, 4, 3))
    assert other == dataclasses.replace(other)
    assert len({other, Fourier((4, 4, 3)), dataclasses.replace(other)}) == 2


def test_pixel_positions_are_images():
    pixel = Pixel((3, 4, 1))
    image = random(*pixel.shape)
    chex.assert_trees_all_equal(pixel.decode(image), image)
    chex.assert_trees_all_equal(pixel.encode(image), image)


def test_pixel_starts_around_its_mean():
    start = np.asarray(init_seed(Pixel((64, 64, 3), mean=0.25, sd=0.02), 0))
    np.testing.assert_allclose([start.mean(), start.std()], [0.25, 0.02], atol=1e-3)


def test_octaves_halve():
    octaves = init_seed(Pyramid((33, 20, 1), levels=7), 0)
    sizes = [octave.shape[:2] for octave in octaves]
    assert sizes == [(33, 20), (16, 10), (8, 5), (4, 2), (2, 1), (1, 1), (1, 1)]


def test_octaves_start_with_their_sd():
    for octave in map(np.asarray, init_seed(Pyramid((128, 128, 3), levels=2, sd=0.02), 0)):
        np.testing.assert_allclose([octave.mean(), octave.std()], [0, 0.02], atol=1e-3)


def test_a_pyramid_is_the_sum_of_its_enlarged_octaves():
    # Halfway between two pixels' centres lies their mean; beyond the outermost all is as there.
    pyramid = Pyramid((1, 4, 1), levels=2)
    fine, coarse = np.float32([[0, 1, 0, -1]]), np.float32([[2, 6]])
    image = np.asarray(decode(pyramid, (fine[..., None], coarse[..., None])))
    wanted = sigmoid(np.array([[2.0, 3 + 1, 5, 6 - 1]]))
    np.testing.assert_allclose(image[..., 0], wanted, atol=1e-6)


@pytest.mark.parametrize("channel", range(3))
def test_a_pyramids_channels_are_columns_of_the_colour_matrix(channel):
    pyramid = Pyramid((4, 4, 3), levels=1, statistics=OWN)
    position = np.zeros((4, 4, 3), np.float32)
    position[..., channel] = 2
    wanted = sigmoid(2 * np.diag([0.1, 0.2, 0.3])[:, channel] / 0.3)
    np.testing.assert_allclose(np.asarray(decode(pyramid, (position,)))[2, 1], wanted, rtol=1e-6)


def test_a_photographs_octaves_hold_its_coarse_forms():
    ramp = np.tile(np.linspace(0.2, 0.8, 32, dtype=np.float32)[:, None, None], (1, 32, 1))
    finest, *coarser = map(np.asarray, encode(Pyramid(ramp.shape), ramp))
    assert abs(finest).max() < 0.1
    assert abs(coarser[-1]).max() > 0.9


def test_a_cppn_is_its_formula():
    image = CPPN((3, 5, 1), layers=2, width=4)
    rng = np.random.default_rng(0)
    shapes = [((2, 4), 4), ((8, 4), 4), ((8, 1), 1)]
    position = [(rng.normal(size=w), rng.normal(size=b)) for w, b in shapes]
    y = np.sqrt(3) * 3 / 5 * np.array([-1.0, 0, 1])
    x = np.sqrt(3) * np.array([-1.0, -0.5, 0, 0.5, 1])
    values = np.stack(np.broadcast_arrays(x[None, :], y[:, None]), -1)
    for weights, bias in position[:-1]:
        bent = np.arctan(values @ weights + bias)
        values = np.concatenate([bent / 0.67, bent**2 / 0.6], -1)
    wanted = sigmoid(values @ position[-1][0] + position[-1][1])
    found = decode(image, jax.tree.map(np.float32, tuple(position)))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_the_arcus_tangent_and_its_slope():
    x = np.float32([*np.linspace(-3, 3, 601), -np.inf, -1e30, -0.0, 1e30])
    value, slope = jax.jit(lambda x, v: jax.jvp(cppn._arctan, (x,), (v,)))(x, np.ones_like(x))
    slope = np.asarray(slope)
    np.testing.assert_allclose(value, np.arctan(np.float64(x)), atol=4e-7)
    np.testing.assert_allclose(slope[:601], 1 / (1 + np.float64(x[:601]) ** 2), rtol=1e-6)


def test_a_cppn_starts_from_an_even_colour():
    position = init_seed(CPPN((9, 9, 3)), 0)
    picture = np.asarray(decode(CPPN((9, 9, 3)), position))
    np.testing.assert_array_equal(picture, np.broadcast_to(picture[0, 0], picture.shape))
    inner = np.concatenate([np.ravel(weights) for weights, _ in position[1:-1]])
    np.testing.assert_allclose(inner.std() * np.sqrt(48), 1, atol=0.05)


def test_a_cppn_decodes_at_any_size():
    small = CPPN((5, 5, 3), layers=2)
    position = jax.tree.map(lambda leaf: np.asarray(leaf) + np.float32(0.2), init_seed(small, 1))
    large = dataclasses.replace(small, shape=(9, 9, 3))
    # Every other row and column of the larger lies where those of the smaller do.
    np.testing.assert_allclose(
        decode(small, position), np.asarray(decode(large, position))[::2, ::2], atol=1e-6
    )


def test_a_cppn_refuses_to_start_from_an_image():
    with pytest.raises(ValueError, match="start: .*CPPN.*'fourier'"):
        CPPN((4, 4, 3)).encode(np.ones((4, 4, 3), np.float32))


def test_transparency_is_composed_over_a_random_background():
    image = RGBA(Fourier((6, 5, 3)))
    picture = random(*image.shape)
    behind = Fourier((6, 5, 3), sd=0.5)
    key = jax.random.key(4)
    wanted = picture[..., :3] * picture[..., 3:]
    wanted = wanted + (1 - picture[..., 3:]) * np.asarray(decode(behind, init(behind, key)))
    found = composite(image, key, picture)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert not np.array_equal(composite_seed(image, 5, picture), found)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_opaque_pictures_hide_the_background_and_clear_ones_are_hidden(alpha):
    image = RGBA(Fourier((4, 4, 1)))
    picture = np.tile(np.float32([0.25, alpha]), (4, 4, 1))
    one, other = (np.asarray(composite_seed(image, seed, picture)) for seed in (0, 1))
    assert (one != other).any() == (alpha == 0)


def test_the_start_is_half_opaque_and_its_colours_are_those_of_the_base():
    image = RGBA(Fourier((16, 16, 3)))
    picture = np.asarray(decode(image, init_seed(image, 2)))
    np.testing.assert_allclose(picture[..., 3], 0.5, atol=0.05)
    coloured = decode(image.colour, init_seed(image.colour, 2))
    np.testing.assert_array_equal(picture[..., :3], coloured)


def test_opacity_is_the_mean_of_the_last_channel():
    pictures = np.full((2, 2, 2, 4), 0.5, np.float32)
    pictures[0, ..., 3], pictures[1, ..., 3] = 0.25, 0.75
    found = jax.jit(lambda penalty, x: penalty(x))(regularizers.opacity(3.0), pictures)
    np.testing.assert_allclose(found, 1.5)


def test_opacity_does_not_retrace_over_weights():
    penalty = jax.jit(chex.assert_max_traces(lambda p, x: p(x), n=1))
    for weight in (1, 2.5):
        penalty(regularizers.opacity(weight), np.ones((1, 2, 2, 4), np.float32))


@pytest.mark.parametrize(
    ("kind", "maker"),
    {
        "pixel": Pixel,
        "fourier": Fourier,
        "pyramid": Pyramid,
        "cppn": CPPN,
        "maco": MACO,
        "rgba": lambda shape: RGBA(Fourier(shape)),
    }.items(),
)
def test_named_gives_the_defaults(kind, maker):
    assert images.named(kind, (4, 4, 1)) == maker((4, 4, 1))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: images.named("furier", (4, 4, 3)), ValueError, "kind.*furier.*'fourier'"),
        (lambda: images.named("pyramide", (4, 4, 3)), ValueError, "kind.*'pyramid'"),
        (lambda: Pixel((4, 4, 0)), ValueError, "shape: at least 1.*0"),
        (lambda: CPPN((4, 4, 2.5)), TypeError, "shape: an int.*2.5"),
        (lambda: Pixel((4, 4)), TypeError, r"shape: \(H, W, C\).*\(4, 4\)"),
        (lambda: Pixel(28), TypeError, r"shape: \(H, W, C\).*28"),
        (lambda: Fourier((0, 4, 3)), ValueError, "shape: at least 1.*0"),
        (lambda: Fourier((4.0, 4, 3)), TypeError, "shape: an int.*4.0"),
        (lambda: RGBA(Pixel((4, 4, 3))), TypeError, "colour: .*Pixel"),
        (lambda: MACO((4, 4, 4)), ValueError, "shape: 1 or 3"),
        (lambda: Pixel((4, 4, 3), mean=2), ValueError, r"mean: a number in \[0, 1\].*2"),
        (lambda: Pixel((4, 4, 3), sd=-1), ValueError, "sd: .*-1"),
        (lambda: Pyramid((4, 4, 3), sd=-1), ValueError, "sd: .*-1"),
        (lambda: Pyramid((4, 4, 3), levels=0), ValueError, "levels: .*0"),
        (lambda: Pyramid((4, 4, 3), decorrelate=1), TypeError, "decorrelate: .*1"),
        (lambda: Pyramid((4, 4, 3), statistics="cifar"), ValueError, "statistics: .*'cifar10'"),
        (lambda: CPPN((4, 4, 3), layers=0), ValueError, "layers: .*0"),
        (lambda: CPPN((4, 4, 3), width=2.5), TypeError, "width: .*2.5"),
        (lambda: Fourier((4, 4, 3), sd=float("nan")), ValueError, "sd: .*nan"),
        (lambda: Fourier((4, 4, 3), decay=9), ValueError, "decay: .*9"),
        (lambda: Fourier((4, 4, 3), decorrelate="no"), TypeError, "decorrelate: .*'no'"),
        (lambda: Fourier((4, 4, 3), statistics=3), TypeError, "statistics: .*3"),
        (lambda: Fourier((4, 4, 3), statistics="mnist"), ValueError, "statistics: .*3 channels"),
        (lambda: MACO((4, 4, 3), statistics="imagenet"), ValueError, "statistics: .*spectrum"),
        (lambda: MACO((4, 4, 1), statistics="cifar10"), ValueError, "statistics: .*1 channels"),
        (lambda: RGBA(Pixel((4, 4, 3))), TypeError, "colour: .*Pixel"),
        (lambda: RGBA("fourier"), TypeError, "colour: .*'fourier'"),
        (lambda: RGBA(Fourier((4, 4, 3)), background=-1), ValueError, "background: .*-1"),
        (lambda: regularizers.opacity(-1), ValueError, "weight: .*-1"),
        *[
            (
                lambda image=image: image.encode(np.ones((4, 5, 3), np.float32)),
                ValueError,
                r"image: .*\(4, 5, 3\)",
            )
            for image in ALL
            if not isinstance(image, CPPN)
        ],
        *[(lambda image=image: image.init("seed"), TypeError, "key: .*'seed'") for image in ALL],
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
