"""A result is saved whole, as pictures and a card that can be read again."""

from __future__ import annotations

import json

import numpy as np
import PIL.Image
import pytest

from rvis import regularizers, results
from rvis.plotting import figures
from rvis.results import Result, describe


def result(**options):
    shown = np.linspace(0, 1, 2 * 8 * 8 * 3, dtype=np.float32).reshape(2, 8, 8, 3)
    return Result(shown, np.zeros((2, 3)), np.array(["a/b", "c"]), **options)


def test_save_writes_pictures_and_a_card(tmp_path):
    place = result(dead=np.array([True, False]), config=describe(steps=3)).save(tmp_path / "r")
    names = sorted(path.name for path in place.iterdir())
    assert names == ["arrays.npz", "card.json", "figure.png", "images"]
    card = json.loads((place / "card.json").read_text())
    assert card["images"] == ["images/00000_a-b.png", "images/00001_c.png"]
    assert card["dead"] == [True, False]
    assert card["config"]["steps"] == 3
    assert card["config"]["versions"]["jax"]
    pixels = np.asarray(PIL.Image.open(place / "images" / "00001_c.png"))
    np.testing.assert_array_equal(pixels, np.rint(result().images[1] * 255).astype(np.uint8))
    with np.load(place / "arrays.npz", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["images"], result().images)
        assert arrays["scores"].shape == (2, 3)


@pytest.mark.parametrize(
    ("channels", "mode", "size"),
    [(1, "L", (6, 8)), (3, "RGB", (6, 8)), (4, "L", (24, 8)), (7, "L", (42, 8))],
)
def test_pictures_of_any_channels_are_saved_as_they_are(channels, mode, size, tmp_path):
    images = np.random.default_rng(0).random((2, 8, 6, channels), np.float32)
    made = Result(images, np.zeros((2, 1)), np.array(["a", "b"]), snapshots={1: images})
    place = made.save(tmp_path)
    with PIL.Image.open(place / "images" / "00001_b.png") as picture:
        assert (picture.mode, picture.size) == (mode, size)
        shown = np.asarray(picture)
    expected = np.floor(255 * images[1] + 0.5)
    if channels not in (1, 3):
        expected = np.concatenate([expected[..., i] for i in range(channels)], 1)
    np.testing.assert_array_equal(shown, expected.squeeze())
    with np.load(place / "arrays.npz", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["snapshot_1"], images)


def test_opacity_is_kept_in_files(tmp_path):
    images = np.zeros((1, 4, 4, 3), np.float32)
    alpha = np.full((1, 4, 4), 0.5, np.float32)
    place = Result(images, np.zeros((1, 1)), np.array(["a"]), alpha=alpha).save(tmp_path)
    with PIL.Image.open(place / "images" / "00000_a.png") as picture:
        assert picture.mode == "RGBA" and picture.getpixel((0, 0)) == (0, 0, 0, 128)
    with PIL.Image.open(place / "figure.png") as picture:
        assert picture.mode == "RGB"


def test_a_plot_is_written_only_where_matplotlib_is_there(tmp_path, monkeypatch):
    results.write(tmp_path / "with", card={}, plot=figures.axes)
    assert (tmp_path / "with" / "plot.png").exists()
    monkeypatch.setattr(figures, "available", lambda: False)
    results.write(tmp_path / "without", card={}, plot=figures.axes)
    assert [path.name for path in (tmp_path / "without").iterdir()] == ["card.json"]


def test_snapshots_are_columns():
    stages = {step: result().images for step in (0, 4, 48)}
    shown, plain = result(snapshots=stages).show(), result().show()
    assert shown.width > plain.width


def test_a_dead_unit_is_crossed_out():
    shown, plain = (result(dead=np.array(dead)).show() for dead in ([True, False], [False, False]))
    half = shown.width // 2
    left, right = ((0, 0, half, shown.height), (half, 0, shown.width, shown.height))
    assert shown.crop(left).tobytes() != plain.crop(left).tobytes()
    assert shown.crop(right).tobytes() == plain.crop(right).tobytes()


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        result().save(tmp_path / "file" / "r")


def test_functions_are_named_without_an_address():
    told = results.describe(regularizers=[regularizers.l1(0.5)], call=np.testing.assert_equal)
    assert told["regularizers"][0]["measure"] == "rvis.regularizers._l1"
    assert told["call"].endswith(".assert_equal")
