"""The command: it trains, measures, writes figures and a page; its drawn pictures are what they say."""

from __future__ import annotations

import json

import numpy as np
import PIL.Image
import pytest

from scripts import concepts


def pictures(folder):
    rng = np.random.default_rng(0)
    for i in range(12):
        file = folder / "train" / "ab"[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(rng.integers(0, 256, (28, 28), np.uint8)).save(file)
    return folder


def test_it_trains_measures_and_writes(tmp_path, capsys):
    data, out = pictures(tmp_path / "data"), tmp_path / "out"
    options = ["--model", "mnist_cnn", "--layer", "relu2", "--images", "12", "--epochs", "2"]
    options += ["--batch", "256", "--width", "2", "--active", "4", "--show", "2", "--steps", "0"]
    figures = tmp_path / "figures.json"
    assert concepts.main([str(data), *options, "--out", str(out), "--json", str(figures)]) == 0
    told = json.loads(figures.read_text(encoding="utf-8"))
    assert told["latents"] == 128
    assert 0 < told["explained"] <= 1
    assert told["active"] <= 4
    assert told["interval"][0] <= told["difference"] <= told["interval"][1]
    assert -1 <= told["correlation"] <= 1
    assert (out / "index.html").exists()
    assert "purity of the top nine" in capsys.readouterr().out


def test_a_bad_argument_ends_it(tmp_path, capsys):
    data = pictures(tmp_path / "data")
    assert concepts.main([str(data), "--model", "mnist_cnn", "--layer", "relu9"]) == 2
    assert "layer" in capsys.readouterr().err


@pytest.mark.parametrize(("kind", "axes"), [("stripes", 1), ("dots", 2)])
def test_drawn_pictures_have_as_many_waves_as_they_should(kind, axes):
    for picture in concepts.drawn(kind, 6, 64, seed=0):
        power = np.abs(np.fft.fft2(picture.mean(-1) - picture.mean())) ** 2
        rows, columns = np.unravel_index(np.argsort(-power, axis=None)[:40], power.shape)
        angles = np.arctan2((rows + 32) % 64 - 32, (columns + 32) % 64 - 32)
        weights = np.sort(power, axis=None)[::-1][:40]
        # Stripes have all of their power along one direction.
        along = np.abs((weights * np.exp(2j * angles)).sum() / weights.sum())
        assert (along > 0.8) == (axes == 1)


def test_drawn_pictures_differ_and_stay_in_range():
    for kind in ("stripes", "dots", "noise"):
        one, same = (concepts.drawn(kind, 3, 32, seed=1) for _ in range(2))
        np.testing.assert_array_equal(one, same)
        assert one.min() >= 0
        assert one.max() <= 1
        assert (one[0] != one[1]).any()
