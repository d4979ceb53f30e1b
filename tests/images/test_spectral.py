"""rvis.images: the formulas of Fourier and MACO."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from rvis import images
from rvis.images import MACO, Fourier, Statistics, statistics

SHAPES = [(8, 8, 3), (7, 10, 3), (10, 7, 1), (1, 6, 3), (6, 1, 1)]
ROOT = np.array([[0.26, 0.09, 0.02], [0.27, 0.0, -0.05], [0.27, -0.09, 0.03]])
COLOURS = ROOT / np.sqrt((ROOT**2).sum(0)).max()

decoded = jax.jit(lambda image, position: image.decode(position), static_argnums=0)
encode = jax.jit(lambda image, picture: image.encode(picture), static_argnums=0)
start = jax.jit(lambda image, key: image.decode(image.init(key)), static_argnums=0)


def decode(image: images.Parameterization, position: np.ndarray) -> np.ndarray:
    return np.asarray(decoded(image, position))


def only(shape: tuple[int, ...], *place: int, value: float = 1.0) -> np.ndarray:
    """Zeros but for one number."""
    position = np.zeros(shape, np.float32)
    position[place] = value
    return position


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def logit(p: np.ndarray) -> np.ndarray:
    return np.log(np.float64(p)) - np.log1p(-np.float64(p))


def own(channels, seed=0):
    """Statistics without any symmetry that a mistake could hide behind."""
    rng = np.random.default_rng(seed)
    mean = rng.uniform(0.3, 0.7, channels)
    root = np.linalg.qr(rng.normal(size=(channels, channels)))[0] * 0.2
    return Statistics("own", mean, root, rng.uniform(0.01, 0.05, (5, 5, channels)))


@pytest.mark.parametrize("shape", SHAPES)
def test_fourier_is_the_formula(shape):
    height, width, channels = shape
    position = np.random.default_rng(0).normal(size=(2, height, width // 2 + 1, channels))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    scale = np.sqrt(width * height) / np.maximum(frequency, 1 / max(width, height))
    spectrum = scale[..., None] * (position[0] + 1j * position[1])
    planes = np.fft.irfft2(spectrum, s=(height, width), axes=(0, 1)) / 4
    wanted = sigmoid(planes @ COLOURS.T if channels == 3 else planes)
    np.testing.assert_allclose(decode(Fourier(shape), np.float32(position)), wanted, atol=1e-5)


def test_the_constant_coefficient_is_the_grey_level():
    # irfft2 divides by H·W and s(0) = √(H·W)·max(H, W), so 1 becomes max(H, W) / (4·√(H·W)).
    image = decode(Fourier((4, 16, 1)), only((2, 4, 9, 1), 0, 0, 0, 0))
    np.testing.assert_allclose(image, sigmoid(np.full((4, 16, 1), 16 / (4 * 8))), rtol=1e-6)


@pytest.mark.parametrize("channel", range(3))
def test_each_channel_is_a_column_of_the_colour_matrix(channel):
    position = only((2, 4, 3, 3), 0, 0, 0, channel, value=4.0)
    colour = decode(Fourier((4, 4, 3)), position)[2, 1]
    np.testing.assert_allclose(colour, sigmoid(4 * COLOURS[:, channel] / 4), rtol=1e-6)


@pytest.mark.parametrize("decay", [1.0, 2.0])
def test_decay_divides_by_the_frequency(decay):
    position = only((2, 8, 5, 1), 0, 0, 2, 0)
    flat, decaying = (decode(Fourier((8, 8, 1), decay=d), position)[0, 0, 0] for d in (0.0, decay))
    np.testing.assert_allclose(logit(decaying) / logit(flat), 4**decay, rtol=1e-5)


def test_black_and_white_are_encoded_at_the_clip():
    image = np.tile(np.float32([0, 1, 0.5]), (4, 4, 1))
    fourier = Fourier((4, 4, 3))
    back = decode(fourier, encode(fourier, image))
    np.testing.assert_allclose(back, np.clip(image, 1e-3, 1 - 1e-3), atol=1e-6)


def test_fourier_starts_with_its_sd():
    start = np.asarray(jax.jit(Fourier((64, 64, 3), sd=0.02).init)(jax.random.key(0)))
    np.testing.assert_allclose([start.mean(), start.std()], [0, 0.02], atol=1e-3)


def spectrum(picture, data):
    """Of a MACO picture, as its formula reads backwards."""
    picture = np.asarray(picture, np.float64)
    logits = np.log(picture) - np.log1p(-picture)
    logits = logits - np.log(data.mean / (1 - data.mean))
    planes = (logits * data.mean * (1 - data.mean)) @ data.inverse.T
    return np.fft.rfft2(planes, axes=(0, 1), norm="ortho")


@pytest.mark.parametrize("shape", SHAPES)
def test_maco_pictures_have_the_magnitudes_of_the_data(shape):
    data = own(shape[2])
    image = MACO(shape, statistics=data)
    found = np.abs(spectrum(start(image, jax.random.key(0)), data))
    wanted = data.magnitude(*shape[:2])
    # A coefficient that is its own mirror image is real: its phase says how much of it there is.
    height, width = shape[:2]
    own_mirror = np.zeros(found.shape[:2], bool)
    for row in {0, height // 2 if height % 2 == 0 else 0}:
        for column in {0, width // 2 if width % 2 == 0 else 0}:
            own_mirror[row, column] = True
    np.testing.assert_allclose(found[~own_mirror], wanted[~own_mirror], rtol=1e-3, atol=1e-4)
    assert (found[own_mirror] <= wanted[own_mirror] * 1.001).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_maco_phases_are_those_of_the_position(shape):
    data = own(shape[2])
    image = MACO(shape, statistics=data)
    picture = np.asarray(start(image, jax.random.key(1)))
    again = decode(image, encode(image, picture))
    np.testing.assert_allclose(again, picture, atol=2e-4)


def test_maco_keeps_the_forms_of_an_image():
    # A step's edges stay where they are, whatever magnitudes it is given.
    picture = np.full((16, 16, 1), 0.2, np.float32)
    picture[4:12, 4:12] = 0.8
    image = MACO(picture.shape, statistics="mnist")
    found = decode(image, encode(image, picture))
    inside = found[6:10, 6:10].mean()
    outside = (found.sum() - found[3:13, 3:13].sum()) / (256 - 100)
    assert inside > outside + 0.1


def test_maco_colours_and_contrast_are_those_of_the_data():
    data = statistics.get("cifar10")
    image = MACO((32, 32, 3), statistics="cifar10")
    pictures = np.asarray(
        jax.jit(jax.vmap(lambda key: image.decode(image.init(key))))(
            jax.random.split(jax.random.key(0), 64)
        )
    )
    np.testing.assert_allclose(pictures.mean((0, 1, 2)), data.mean, atol=0.03)
    covariance = np.cov(pictures.reshape(-1, 3).T)
    wanted = data.root @ data.root.T
    # Mean magnitudes fall short of root mean square ones, and the sigmoid saturates.
    assert 0.4 < np.trace(covariance) / np.trace(wanted) < 1
    correlation = covariance[0, 2] / np.sqrt(covariance[0, 0] * covariance[2, 2])
    np.testing.assert_allclose(
        correlation, wanted[0, 2] / np.sqrt(wanted[0, 0] * wanted[2, 2]), atol=0.08
    )


def test_maco_starts_from_phases_of_all_directions():
    image = MACO((64, 64, 3), statistics="cifar10")
    start = np.asarray(jax.jit(image.init)(jax.random.key(0)))
    assert abs(start).max() <= np.pi
    np.testing.assert_allclose(start.std(), np.pi / np.sqrt(3), atol=0.05)
