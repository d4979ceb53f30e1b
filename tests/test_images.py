"""rvis.images: positions decode to the images that the formulas say, and back."""

from __future__ import annotations

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rvis import images
from rvis.images import Fourier, Pixel

SHAPES = [(8, 8, 3), (7, 10, 3), (10, 7, 3), (5, 5, 1), (1, 6, 3), (6, 1, 1), (1, 1, 3)]
BOTH = [Pixel((6, 5, 3)), Fourier((6, 5, 3))]
ROOT = np.array([[0.26, 0.09, 0.02], [0.27, 0.0, -0.05], [0.27, -0.09, 0.03]])
COLOURS = ROOT / np.sqrt((ROOT**2).sum(0)).max()


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


decode = jax.jit(lambda image, position: image.decode(position), static_argnums=0)
encode = jax.jit(lambda image, picture: image.encode(picture), static_argnums=0)


@pytest.mark.parametrize(
    "fourier",
    [*map(Fourier, SHAPES), Fourier((7, 10, 3), decorrelate=False), Fourier((7, 10, 3), decay=1.5)],
    ids=str,
)
def test_fourier_decodes_what_it_encodes(fourier):
    image = jax.random.uniform(jax.random.key(0), fourier.shape, minval=0.01, maxval=0.99)
    np.testing.assert_allclose(decode(fourier, encode(fourier, image)), image, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_fourier_is_the_formula(shape):
    height, width, channels = shape
    position = np.random.default_rng(0).normal(size=(2, height, width // 2 + 1, channels))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    scale = np.sqrt(width * height) / np.maximum(frequency, 1 / max(width, height))
    spectrum = scale[..., None] * (position[0] + 1j * position[1])
    planes = np.fft.irfft2(spectrum, s=(height, width), axes=(0, 1)) / 4
    wanted = sigmoid(planes @ COLOURS.T if channels == 3 else planes)
    np.testing.assert_allclose(decode(Fourier(shape), jnp.float32(position)), wanted, atol=1e-5)


def test_the_constant_coefficient_is_the_grey_level():
    # irfft2 divides by H·W and s(0) = √(H·W)·max(H, W), so 1 becomes max(H, W) / (4·√(H·W)).
    position = jnp.zeros((2, 4, 9, 1)).at[0, 0, 0, 0].set(1.0)
    image = decode(Fourier((4, 16, 1)), position)
    np.testing.assert_allclose(image, sigmoid(np.full((4, 16, 1), 16 / (4 * 8))), rtol=1e-6)


@pytest.mark.parametrize("channel", range(3))
def test_each_channel_is_a_column_of_the_colour_matrix(channel):
    position = jnp.zeros((2, 4, 3, 3)).at[0, 0, 0, channel].set(4.0)
    colour = decode(Fourier((4, 4, 3)), position)[2, 1]
    np.testing.assert_allclose(colour, sigmoid(4 * COLOURS[:, channel] / 4), rtol=1e-6)


@pytest.mark.parametrize("decay", [1.0, 2.0])
def test_decay_divides_by_the_frequency(decay):
    position = jnp.zeros((2, 8, 5, 1)).at[0, 0, 2, 0].set(1.0)
    flat, decaying = (decode(Fourier((8, 8, 1), decay=d), position)[0, 0, 0] for d in (0.0, decay))
    ratio = jax.scipy.special.logit(decaying) / jax.scipy.special.logit(flat)
    np.testing.assert_allclose(ratio, 4**decay, rtol=1e-5)


def test_black_and_white_are_encoded_at_the_clip():
    image = jnp.stack([jnp.zeros((4, 4)), jnp.ones((4, 4)), jnp.full((4, 4), 0.5)], -1)
    fourier = Fourier((4, 4, 3))
    back = decode(fourier, encode(fourier, image))
    np.testing.assert_allclose(back, jnp.clip(image, 1e-3, 1 - 1e-3), atol=1e-6)


def test_pixel_positions_are_images():
    pixel = Pixel((3, 4, 1))
    image = jax.random.uniform(jax.random.key(0), pixel.shape)
    chex.assert_trees_all_equal(pixel.decode(image), image)
    chex.assert_trees_all_equal(pixel.encode(image), image)


def test_pixel_starts_around_its_mean():
    start = Pixel((64, 64, 3), mean=0.25, sd=0.02).init(0)
    np.testing.assert_allclose([start.mean(), start.std()], [0.25, 0.02], atol=1e-3)


def test_fourier_starts_with_its_sd():
    start = Fourier((64, 64, 3), sd=0.02).init(0)
    np.testing.assert_allclose([start.mean(), start.std()], [0, 0.02], atol=1e-3)


@pytest.mark.parametrize("image", BOTH)
def test_a_position_is_float32_and_repeats_with_its_key(image):
    first, second, other = image.init(3), image.init(jax.random.key(3)), image.init(4)
    assert first.dtype == decode(image, first).dtype == jnp.float32
    chex.assert_trees_all_equal(first, second)
    assert not jnp.array_equal(first, other)


@pytest.mark.parametrize("image", BOTH)
def test_a_batch_is_its_examples_one_by_one(image):
    keys = jax.random.split(jax.random.key(0), 3)
    batch = jax.jit(jax.vmap(lambda key: image.decode(image.init(key))))(keys)
    alone = jnp.stack([decode(image, image.init(key)) for key in keys])
    np.testing.assert_allclose(batch, alone, atol=1e-6)


@pytest.mark.parametrize("image", BOTH)
def test_gradients_reach_the_whole_position(image):
    weights = jax.random.normal(jax.random.key(1), image.shape)
    gradient = jax.grad(lambda x: (decode(image, x) * weights).sum())(image.init(0))
    # The imaginary part of the constant coefficient alone has no say in a real image.
    assert jnp.isfinite(gradient).all()
    assert (gradient != 0).mean() > 0.95


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Pixel((4, 4, 1)), Pixel([4, 4, 1], mean=np.float32(0.5))),
        (Fourier((4, 4, 3)), Fourier((4, np.int64(4), 3), decay=1)),
    ],
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


@pytest.mark.parametrize("kind", ["pixel", "fourier"])
def test_named_gives_the_defaults(kind):
    assert images.named(kind, (4, 4, 1)) == {"pixel": Pixel, "fourier": Fourier}[kind]((4, 4, 1))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: images.named("furier", (4, 4, 3)), ValueError, "kind.*furier.*'fourier'"),
        (lambda: Pixel((4, 4, 2)), ValueError, r"shape: 1 or 3 channels.*\(4, 4, 2\)"),
        (lambda: Pixel((4, 4)), TypeError, r"shape: \(H, W, C\).*\(4, 4\)"),
        (lambda: Pixel(28), TypeError, r"shape: \(H, W, C\).*28"),
        (lambda: Fourier((0, 4, 3)), ValueError, "shape: at least 1.*0"),
        (lambda: Fourier((4.0, 4, 3)), TypeError, "shape: an int.*4.0"),
        (lambda: Pixel((4, 4, 3), mean=2), ValueError, r"mean: a number in \[0, 1\].*2"),
        (lambda: Pixel((4, 4, 3), sd=-1), ValueError, "sd: .*-1"),
        (lambda: Fourier((4, 4, 3), sd=float("nan")), ValueError, "sd: .*nan"),
        (lambda: Fourier((4, 4, 3), decay=9), ValueError, "decay: .*9"),
        (lambda: Fourier((4, 4, 3), decorrelate="no"), TypeError, "decorrelate: .*'no'"),
        (
            lambda: Fourier((4, 4, 3)).encode(jnp.ones((4, 5, 3))),
            ValueError,
            r"image: .*\(4, 5, 3\)",
        ),
        (lambda: Pixel((4, 4, 3)).init("seed"), TypeError, "key: .*'seed'"),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
