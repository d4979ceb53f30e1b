"""A result is saved whole, as pictures and a card that can be read again."""

from __future__ import annotations

import json

import numpy as np
import PIL.Image
import pytest

from rvis.results import Result, describe


def result(**options):
    shown = np.linspace(0, 1, 2 * 8 * 8 * 3, dtype=np.float32).reshape(2, 8, 8, 3)
    return Result(shown, np.zeros((2, 3)), np.array(["a/b", "c"]), **options)


def test_save_writes_pictures_and_a_card(tmp_path):
    place = result(dead=np.array([True, False]), config=describe(steps=3)).save(tmp_path / "r")
    card = json.loads((place / "result.json").read_text())
    assert card["images"] == ["000_a-b.png", "001_c.png"]
    assert card["dead"] == [True, False]
    assert card["config"]["steps"] == 3
    assert card["config"]["versions"]["jax"]
    pixels = np.asarray(PIL.Image.open(place / "001_c.png"))
    np.testing.assert_array_equal(pixels, np.rint(result().images[1] * 255).astype(np.uint8))


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
