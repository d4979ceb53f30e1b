"""Photographs brought to a network's input, and maps back on the whole photographs."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import rvis
from rvis.data.preparation import Preparation

SHAPE = (32, 32, 3)


def picture(height, width, seed=0):
    """A smooth picture of bytes."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def cut(image, side, size):
    """What torchvision's Resize(side) and CenterCrop(size) give, written out."""
    width, height = image.size
    long = int(side * max(width, height) / min(width, height))
    resized = (long, side) if width > height else (side, long)
    image = image.resize(resized, Image.Resampling.BICUBIC)
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    return np.asarray(image.crop((left, top, left + size, top + size)), np.float32) / 255


@pytest.mark.parametrize("size", [(60, 41), (41, 60), (50, 50), (33, 200), (10, 13)])
def test_a_crop_is_torchvision_s(size):
    pixels = picture(*size)
    found = Preparation(0.875, "bicubic")(pixels, SHAPE)
    np.testing.assert_array_equal(found, cut(Image.fromarray(pixels), 36, 32))


def test_paths_pictures_arrays_and_folders_are_the_same(tmp_path):
    sizes = [(60, 41), (40, 90), (32, 32)]
    arrays = [picture(*size, seed=i) for i, size in enumerate(sizes)]
    for i, array in enumerate(arrays):
        Image.fromarray(array).save(tmp_path / f"{i}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    prepare = Preparation()
    expected = prepare(arrays, SHAPE)
    assert expected.shape == (3, *SHAPE) and expected.dtype == np.float32
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for given in (paths, [str(path) for path in paths], tmp_path, map(Image.open, paths)):
        np.testing.assert_array_equal(prepare(given, SHAPE), expected)
    np.testing.assert_array_equal(prepare(paths[1], SHAPE), expected[1])
    floats = [array.astype(np.float32) / 255 for array in arrays]
    np.testing.assert_allclose(prepare(floats, SHAPE), expected, atol=1.5 / 255)


def test_exif_turns_pictures_upright(tmp_path):
    pixels = picture(60, 40)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(np.rot90(pixels)).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(
        Preparation()(tmp_path / "turned.png", SHAPE), Preparation()(pixels, SHAPE)
    )


def test_padding_shows_all_and_squashing_fills():
    pixels = np.full((20, 40, 3), 255, np.uint8)
    padded = Preparation()(pixels, SHAPE, fit="pad")
    np.testing.assert_allclose(padded[8:24], 1)
    np.testing.assert_allclose(padded[:8], 128 / 255)
    np.testing.assert_allclose(Preparation()(pixels, SHAPE, fit="squash"), 1)
    assert (Preparation()(pixels, (24, 32, 3), fit="crop") == 1).all()


def test_grey_networks_get_grey():
    found = Preparation(crop=1.0)(picture(50, 40), (28, 28, 1))
    assert found.shape == (28, 28, 1)


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
@pytest.mark.parametrize("size", [(120, 80), (80, 120), (100, 100)])
def test_maps_come_back_where_they_were(fit, size):
    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float32)
    photograph = np.stack([rows / size[0], columns / size[1], np.ones(size)], -1)
    prepare = Preparation(0.875, "bicubic")
    # The prepared picture is itself a map of three channels.
    prepared = prepare(photograph, (64, 64, 3), fit=fit)
    back = prepare.restore(prepared, photograph, (64, 64, 3), fit=fit)
    assert back.shape == photograph.shape
    inside = back[..., 2] > 0.99
    assert inside.mean() > (0.4 if fit == "crop" else 0.95)
    # All but the bilinear interpolation's border.
    inner = inside.copy()
    inner[[0, -1]], inner[:, [0, -1]] = False, False
    for axis, shift in ((0, 3), (0, -3), (1, 3), (1, -3)):
        inner &= np.roll(inside, shift, axis)
    assert np.abs(back - photograph)[inner].max() < 0.01
    assert fit != "crop" or size == (100, 100) or (back[~inside][:, 2] < 0.99).all()


def test_coarse_maps_and_batches_come_back_at_each_size():
    photographs = [picture(90, 60), picture(50, 70)]
    maps = np.ones((2, 7, 7))
    found = Preparation().restore(maps, photographs, SHAPE)
    assert [each.shape for each in found] == [(90, 60), (50, 70)]
    assert found[0][45, 30] == 1 and found[0][0, 0] == 0


def test_photographs_of_any_size_compile_once():
    model = rvis.load("mnist_cnn", weights="random")
    from rvis.types import _logits

    before = _logits._cache_size()
    for size in ((28, 28), (90, 61), (40, 200), (300, 50)):
        model(model.prepare([picture(*size)]))
    assert _logits._cache_size() <= before + 1


@pytest.mark.parametrize(
    ("given", "kind", "match"),
    [
        ("nowhere.png", FileNotFoundError, "pictures: there is no file"),
        ([], ValueError, "pictures: at least one"),
        (3, TypeError, "pictures: paths"),
        (np.ones((4, 4, 5)), ValueError, "pictures: .*channels"),
        (np.full((4, 4, 3), 7.0), ValueError, "pictures: values in"),
    ],
)
def test_bad_pictures_are_refused_by_name(given, kind, match):
    with pytest.raises(kind, match=match):
        Preparation()(given, SHAPE)


def test_bad_settings_are_refused_by_name(tmp_path):
    for settings, match in (({"crop": 0}, "crop"), ({"interpolation": "cubic"}, "interpolation")):
        with pytest.raises(ValueError, match=match):
            Preparation(**settings)
    with pytest.raises(ValueError, match="fit: unknown 'stretch'"):
        Preparation()(picture(9, 9), SHAPE, fit="stretch")
    with pytest.raises(ValueError, match="a folder of pictures"):
        Preparation()(tmp_path, SHAPE)
    with pytest.raises(ValueError, match="maps: one"):
        Preparation().restore(np.ones((3, 7, 7)), [picture(9, 9)], SHAPE)
