"""rvis.plotting.grids: the right pixels in the right places, readable titles, whole files."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageFont

from rvis.plotting import grids


def levels(*shape: int) -> np.ndarray:
    """Images of one level each, told apart by it: i/255 for image i in row-major order."""
    count = int(np.prod(shape[:-3]))
    flat = np.arange(count).reshape(-1, 1, 1, 1) / 255 * np.ones(shape[-3:])
    return flat.reshape(shape).astype(np.float32)


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture)


@pytest.mark.parametrize(
    ("value", "byte"),
    [(0.0, 0), (1.0, 255), (0.5, 128), (127 / 255, 127), (1 + 5e-7, 255), (-5e-7, 0)],
)
def test_values_become_the_nearest_byte(value, byte):
    assert grids.to_pil(np.full((1, 1, 1), value)).getpixel((0, 0)) == byte


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
@pytest.mark.parametrize("library", [np, jnp])
def test_a_picture_keeps_its_orientation_and_colours(channels, mode, library):
    image = np.random.default_rng(0).integers(0, 256, (4, 6, channels)).astype(np.float32)
    picture = grids.to_pil(library.asarray(image / 255))
    assert (picture.mode, picture.size) == (mode, (6, 4))
    np.testing.assert_array_equal(pixels(picture).reshape(image.shape), image)


@pytest.mark.parametrize(
    ("count", "columns", "size"),
    [(12, None, (16, 9)), (4, None, (8, 6)), (1, None, (4, 3)), (5, 2, (8, 9)), (3, 9, (12, 3))],
)
def test_a_sheet_is_without_borders(count, columns, size):
    assert grids.spritemap(levels(count, 3, 4, 3), columns=columns).size == size


def test_a_sheet_is_filled_row_by_row_and_then_black():
    sheet = pixels(grids.spritemap(levels(5, 2, 2, 1) + 1 / 255, columns=3))
    np.testing.assert_array_equal(sheet[::2, ::2, 0], [[1, 2, 3], [4, 5, 0]])


@pytest.mark.parametrize(
    ("shape", "cell"),
    [
        ((28, 28, 1), (112, 112)),
        ((32, 32, 3), (96, 96)),
        ((64, 64, 3), (128, 128)),
        ((96, 96, 3), (96, 96)),
        ((224, 224, 3), (224, 224)),
        ((10, 40, 1), (30, 120)),
    ],
)
def test_small_images_are_enlarged_to_be_legible(shape, cell):
    picture = grids.grid(np.zeros((1, *shape)), pad=0)
    assert picture.size == cell[::-1]


def test_enlarged_pixels_are_squares():
    image = np.random.default_rng(0).random((1, 3, 2, 3)).astype(np.float32)
    found = pixels(grids.grid(image, scale=5, pad=0))
    wanted = pixels(grids.to_pil(image[0])).repeat(5, 0).repeat(5, 1)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("images", "columns", "cells"),
    [
        (levels(5, 4, 4, 1), None, [[0, 1, 2], [3, 4, 255]]),
        (levels(5, 4, 4, 1), 2, [[0, 1], [2, 3], [4, 255]]),
        (levels(2, 3, 4, 4, 3), None, [[0, 1, 2], [3, 4, 5]]),
        (list(levels(3, 4, 4, 3)), 3, [[0, 1, 2]]),
        ([levels(3, 4, 4, 3), levels(1, 4, 4, 1)], None, [[0, 1, 2], [0, 255, 255]]),
        ([list(levels(1, 4, 4, 3)), list(levels(2, 4, 4, 3))], None, [[0, 255], [0, 1]]),
        (levels(1, 4, 4, 1)[0], None, [[0]]),
    ],
    ids=["batch", "columns", "rows", "list", "ragged", "lists", "single"],
)
def test_every_image_is_in_its_cell(images, columns, cells):
    picture = pixels(grids.grid(images, columns=columns, scale=2, pad=3))
    np.testing.assert_array_equal(picture[3::11, 3::11, 0], cells)
    np.testing.assert_array_equal(picture[10::11, 10::11, 0], cells)


def test_pad_surrounds_the_cells():
    picture = pixels(grids.grid(levels(2, 4, 4, 1), columns=2, scale=1, pad=1))
    wanted = np.full((6, 11, 3), 255)
    wanted[1:5, 1:5], wanted[1:5, 6:10] = 0, 1
    np.testing.assert_array_equal(picture, wanted)


def text_rows(picture: Image.Image, ink: int) -> set[int]:
    """The rows of a picture of mid-grey cells in which there is ink, antialiased or not."""
    inked = abs(pixels(picture)[..., 0].astype(int) - ink) < 64
    return set(np.nonzero(inked.any(1))[0].tolist())


@pytest.mark.parametrize(
    ("images", "titles", "lines"),
    [
        (np.full((4, 96, 96, 3), 0.5), "abcd", 2),
        (np.full((2, 2, 96, 96, 3), 0.5), "abcd", 2),
        (np.full((2, 2, 96, 96, 3), 0.5), "ab", 1),
    ],
    ids=["batch", "rows, one an image", "rows, one a column"],
)
def test_titles_stand_above_images_or_columns(images, titles, lines):
    picture = grids.grid(images, titles=list(titles))
    line = sum(ImageFont.load_default(12).getmetrics())
    bare = grids.grid(images)
    assert picture.size == (bare.size[0], bare.size[1] + lines * line)
    cell = 96 + 4 + (line if lines == 2 else 0)
    bands = {(row - 4) // cell for row in text_rows(picture, 0)}
    assert bands == set(range(lines))
    assert all((row - 4) % cell < line for row in text_rows(picture, 0))


def test_row_titles_stand_left_of_their_rows():
    images = np.full((2, 1, 96, 96, 3), 0.5)
    picture = grids.grid(images, row_titles=["", "robust"])
    assert text_rows(picture, 0) and min(text_rows(picture, 0)) > 4 + 96
    assert (pixels(picture)[10, -100:-4] == 128).all()


def test_a_long_title_ends_in_an_ellipsis_inside_its_cell():
    font = ImageFont.load_default(12)
    text = grids._clipped("a title far too long", font, 60)
    assert text.endswith("…") and "a title far too long".startswith(text[:-1])
    assert font.getlength(text) <= 60


def test_a_short_title_is_left_alone():
    assert grids._clipped("unit 7", ImageFont.load_default(12), 96) == "unit 7"


def test_long_titles_do_not_widen_the_grid():
    images = np.full((2, 96, 96, 3), 0.5)
    assert grids.grid(images, titles=["w" * 99] * 2).size[0] == grids.grid(images).size[0]


@pytest.mark.parametrize(
    ("given", "drawn"),
    [
        ("ε = 8/255", "epsilon = 8/255"),
        ("café", "cafe"),
        ("a − b × c → d", "a - b x c -> d"),
        ("½", "1⁄2"),
        ("layer3:5 …", "layer3:5 …"),
        ("中", "?"),
    ],
)
def test_what_the_font_lacks_is_spelled_out(given, drawn):
    assert grids._drawable(given) == drawn


def test_anything_with_a_string_is_a_title():
    images = np.full((2, 96, 96, 3), 0.5)
    found, wanted = (grids.grid(images, titles=titles) for titles in ([3, "a\nb"], ["3", "a b"]))
    np.testing.assert_array_equal(pixels(found), pixels(wanted))


def test_a_saved_picture_reads_back(tmp_path):
    picture = grids.grid(levels(3, 4, 4, 3), titles=list("abc"))
    grids.save(picture, tmp_path / "new" / "grid.png")
    with Image.open(tmp_path / "new" / "grid.png") as read:
        np.testing.assert_array_equal(pixels(read), pixels(picture))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["grid.png"]


@pytest.mark.parametrize(("channels", "mode"), [(2, "LA"), (4, "RGBA")])
def test_transparency_is_kept_in_files_and_lies_on_white_in_grids(channels, mode):
    image = np.zeros((96, 96, channels), np.float32)
    image[:48, :, -1] = 1.0
    assert grids.to_pil(image, alpha=True).mode == mode
    sheet = pixels(grids.spritemap(image[None], alpha=True))
    assert (sheet[:48] == 0).all() and (sheet[48:] == 255).all()


@pytest.mark.parametrize("channels", [2, 4, 7])
def test_other_channels_lie_side_by_side_in_grey(channels):
    image = np.random.default_rng(0).random((4, 6, channels), np.float32)
    picture = grids.to_pil(image)
    assert (picture.mode, picture.size) == ("L", (6 * channels, 4))
    for i in range(channels):
        own = pixels(grids.to_pil(image[..., i : i + 1]))
        np.testing.assert_array_equal(pixels(picture)[:, 6 * i : 6 * i + 6], own)
    sheet = grids.spritemap(np.stack([image, image]), columns=1)
    np.testing.assert_array_equal(pixels(sheet)[4:, :, 0], pixels(picture))
    assert grids.grid(image[None], scale=1, pad=1).size == (6 * channels + 2, 6)


BATCH = np.zeros((4, 8, 8, 3), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: grids.grid(BATCH + 1.5), ValueError, r"images: values in \[0, 1\].*1.5"),
        (lambda: grids.grid(BATCH * np.nan), ValueError, "images: .*NaN"),
        (lambda: grids.grid(BATCH.astype(np.uint8)), TypeError, "images: .*uint8; divide by 255"),
        (
            lambda: grids.grid(np.zeros((1, 8, 8, 3)), alpha=True),
            ValueError,
            "images: 2 or 4 channels.*given 3",
        ),
        (lambda: grids.grid(BATCH[0, 0]), ValueError, r"images: .*\(8, 3\)"),
        (lambda: grids.grid([]), ValueError, "images: .*none at all"),
        (lambda: grids.grid([BATCH[0], BATCH[0, 1:]]), ValueError, r"one shape.*\(7, 8, 3\)"),
        (lambda: grids.grid([BATCH, BATCH[:, 1:]]), ValueError, r"one size.*\(7, 8\)"),
        (lambda: grids.grid(BATCH, titles=["a"]), ValueError, "titles: 4 of them.*given 1"),
        (lambda: grids.grid(BATCH, titles="abcd"), TypeError, "titles: .*'abcd'"),
        (lambda: grids.grid(BATCH[None], titles="a"), TypeError, "titles: .*'a'"),
        (
            lambda: grids.grid(np.stack([BATCH] * 2), titles=["a"]),
            ValueError,
            "titles: 8 or 4 of them.*given 1",
        ),
        (lambda: grids.grid(BATCH, row_titles=["a"]), ValueError, "row_titles: 2 of them.*given 1"),
        (lambda: grids.grid(BATCH, columns=0), ValueError, "columns: at least 1.*0"),
        (lambda: grids.grid(BATCH[None], columns=2), ValueError, "columns: None.*2"),
        (lambda: grids.grid(BATCH, scale=1.5), TypeError, "scale: an int.*1.5"),
        (lambda: grids.grid(BATCH, pad=-1), ValueError, "pad: at least 0.*-1"),
        (lambda: grids.spritemap(BATCH - 1), ValueError, "images: values"),
        (lambda: grids.to_pil(BATCH), ValueError, r"image: \(H, W, C\).*\(4, 8, 8, 3\)"),
        (lambda: grids.to_pil(BATCH[0] + 2), ValueError, "image: values"),
        (lambda: grids.save(BATCH[0], "a.png"), TypeError, "picture: .*ndarray"),
        (lambda: grids.save(grids.to_pil(BATCH[0]), "a.jpg"), ValueError, "path: .*'a.jpg'"),
        (lambda: grids.save(grids.to_pil(BATCH[0]), 3), TypeError, "path: .*3"),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
