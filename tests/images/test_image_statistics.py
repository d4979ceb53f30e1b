"""rvis.images.statistics: estimates of known distributions, and what is shipped."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from rvis.images import Statistics, estimate, statistics
from rvis.images.statistics import NAMES


def coloured(count=400, size=16, seed=0):
    """White noise in space with colours of known mean and covariance."""
    root = np.array([[0.1, 0.03, 0.0], [0.1, -0.01, 0.02], [0.08, 0.0, -0.03]])
    noise = np.random.default_rng(seed).normal(size=(count, size, size, 3))
    return np.clip(np.array([0.4, 0.5, 0.6]) + noise @ root.T, 0, 1), root @ root.T


def test_colours_are_estimated():
    images, covariance = coloured()
    found = estimate(images)
    np.testing.assert_allclose(found.mean, [0.4, 0.5, 0.6], atol=2e-3)
    np.testing.assert_allclose(found.root @ found.root.T, covariance, atol=2e-4)
    assert (found.root[0] >= 0).all()
    lengths = np.linalg.norm(found.root, axis=0)
    assert (np.diff(lengths) < 0).all()


def test_white_noise_has_a_flat_spectrum():
    found = estimate(coloured()[0])
    magnitude = found.magnitude(16, 16)
    # |a + ib| of unit variance is √(π/4) on average, of a real coefficient √(2/π); every
    # decorrelated colour has the strength of the strongest column.
    strength = np.linalg.norm(found.root, axis=0).max()
    np.testing.assert_allclose(magnitude[2:7, 2:7], np.sqrt(np.pi / 4) * strength, rtol=0.15)
    np.testing.assert_allclose(magnitude[0, 0], np.sqrt(2 / np.pi) * strength, rtol=0.15)


def test_a_wave_has_its_frequency():
    across = np.arange(32) / 32
    phases = np.random.default_rng(0).uniform(size=(50, 1, 1, 1))
    waves = 0.5 + 0.2 * np.cos(2 * np.pi * (4 * across[:, None] + phases))
    waves = np.broadcast_to(waves, (50, 32, 32, 1))
    magnitude = estimate(waves).magnitude(32, 32)[..., 0]
    np.testing.assert_allclose(magnitude[0, 4], 0.1 * 32, rtol=1e-3)
    rest = magnitude.copy()
    rest[0, 4] = 0
    assert rest.max() < 1e-3


def test_another_size_has_the_same_magnitude_at_the_same_frequency():
    data = Statistics(
        "own", np.array([0.5]), np.eye(1), np.random.default_rng(0).uniform(size=(9, 9, 1))
    )
    small, large = data.magnitude(16, 16), data.magnitude(32, 48)
    np.testing.assert_allclose(large[::2, ::3][1:9, 1:9], small[1:9, 1:9], rtol=1e-5)


def test_bytes_and_floats_agree_and_chunks_do_not_matter(monkeypatch):
    images = (coloured(100, 8)[0] * 255).astype(np.uint8)
    first = estimate(images)
    monkeypatch.setattr(statistics, "_CHUNK", 7)
    for other in (estimate(images), estimate((images / 255).astype(np.float32))):
        np.testing.assert_allclose(other.table, first.table, rtol=1e-4)
        np.testing.assert_allclose(other.root, first.root, rtol=1e-4)


@pytest.mark.parametrize("shape", [(9, 8, 12, 3), (9, 5, 5, 1), (9, 1, 7, 3), (9, 6, 1, 1)])
def test_images_of_any_size_have_statistics(shape):
    found = estimate(np.random.default_rng(0).uniform(size=shape))
    assert found.magnitude(11, 6).shape == (11, 4, shape[3])
    assert np.isfinite(found.magnitude(1, 1)).all()


def test_what_is_saved_is_read(tmp_path):
    found = estimate(coloured(50, 8)[0], name="mine")
    found.save(tmp_path / "mine.npz")
    again = statistics.load(tmp_path / "mine.npz")
    assert again.name == "mine"
    np.testing.assert_array_equal(again.root, found.root)
    np.testing.assert_allclose(again.table, found.table, rtol=1e-3)
    assert again == statistics.load(tmp_path / "mine.npz")
    assert again != found


@pytest.mark.parametrize("name", NAMES)
def test_shipped_statistics_are_those_of_photographs_or_digits(name):
    found = statistics.get(name)
    assert found.name == name
    assert ((found.mean > 0.1) & (found.mean < 0.6)).all()
    spread = np.sqrt(np.diag(found.root @ found.root.T))
    assert ((spread > 0.2) & (spread < 0.35)).all()
    if found.table is not None:
        # Where magnitudes fall as 1/f, magnitude times frequency is flat: but for digits, within
        # a factor of a few over the middle band.
        band = found.whitened(32, 32)[3:10, 3:10, 0]
        assert band.max() / band.min() < 6


def test_the_shipped_cifar_statistics_are_those_of_the_data(cifar_test):
    found, shipped = estimate(cifar_test.images[::5]), statistics.get("cifar10")
    np.testing.assert_allclose(found.mean, shipped.mean, atol=0.01)
    np.testing.assert_allclose(found.root @ found.root.T, shipped.root @ shipped.root.T, atol=5e-3)
    np.testing.assert_allclose(found.table[1:, 1:], shipped.table[1:, 1:], rtol=0.2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: estimate(np.zeros((4, 8, 8))), ValueError, r"images: .*\(4, 8, 8\)"),
        (lambda: estimate(np.zeros((4, 8, 8, 2))), ValueError, "images: .*2"),
        (lambda: estimate(np.zeros((4, 8, 8, 3), int)), TypeError, "images: .*int64"),
        (lambda: estimate(np.full((4, 8, 8, 3), 2.0)), ValueError, r"images: .*\[2, 2\]"),
        (lambda: estimate(np.zeros((4, 8, 8, 3))), ValueError, "images: colours"),
        (lambda: statistics.get("cifar"), ValueError, "statistics: .*'cifar10'"),
        (lambda: statistics.get(None), TypeError, "statistics: .*None"),
        (lambda: statistics.get("imagenet").magnitude(4, 4), ValueError, "statistics: a spectrum"),
        (lambda: Statistics(3, np.full(1, 0.5), np.eye(1)), TypeError, "name: .*3"),
        (lambda: Statistics("a", np.full(2, 0.5), np.eye(2)), ValueError, "mean: "),
        (lambda: Statistics("a", np.full(3, 0.5), np.ones((3, 3))), ValueError, "root: colours"),
        (lambda: Statistics("a", np.full(3, 0.5), np.eye(2)), ValueError, r"root: \(3, 3\)"),
        (
            lambda: Statistics("a", np.full(1, 0.5), np.eye(1), np.ones((3, 4, 1))),
            ValueError,
            r"table: \(n, n, 1\)",
        ),
        (
            lambda: Statistics("a", np.full(1, 0.5), np.eye(1), -np.ones((3, 3, 1))),
            ValueError,
            "table: finite",
        ),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_damaged_files_are_refused(tmp_path):
    file = tmp_path / "broken.npz"
    file.write_bytes(b"PK but no zip")
    with pytest.raises(ValueError, match="path: .*broken.npz"):
        statistics.load(file)
    np.savez(tmp_path / "other.npz", weights=np.ones(3))
    with pytest.raises(ValueError, match="path: .*other.npz"):
        statistics.load(tmp_path / "other.npz")


def test_statistics_whose_header_promises_too_much_are_refused(tmp_path):
    path = tmp_path / "forged.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"shape": (10**6, 10**6), "fortran_order": False, "descr": "<f4"}
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("root.npy", header.getvalue() + bytes(16))
    with pytest.raises(ValueError, match=r"path: .*forged\.npz.* is smaller than its shape"):
        statistics.load(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("root.npy", bytes(2**27))
    with pytest.raises(ValueError, match=r"path: .*root\.npy in .*forged\.npz would unpack to"):
        statistics.load(path)
