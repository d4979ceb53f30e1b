"""The commands that make pictures of style and synthesis, on a tiny network, and their refusals."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import PIL.Image
import pytest

from rvis.synthesis import climb
from scripts import foolbox_check, style, style_check, synthesize


@pytest.mark.parametrize(
    ("words", "made"),
    [
        ("--ratio 1 0.1", {"00000_ratio-1.png", "00001_ratio-0.1.png"}),
        ("--texture --pooling average", {"00000_sample-0.png"}),
        ("--grid --ratio 1 0.1", set()),
    ],
)
def test_style_paints_its_own_drawings(words, made, tmp_path):
    told = f"--model mnist_cnn --side 16 --steps 3 --quiet --out {tmp_path / 'out'} {words}"
    assert style.main(told.split()) == 0
    found = {path.name for path in (tmp_path / "out").iterdir()}
    assert ("figure.png" if made else "grid.png") in found
    assert {path.name for path in (tmp_path / "out" / "images").glob("*")} == made
    assert not any(name.startswith("state") for name in found)


def test_style_takes_pictures_of_any_shape(tmp_path):
    photo = tmp_path / "photo.png"
    PIL.Image.linear_gradient("L").resize((50, 40)).save(photo)
    words = f"{photo} {photo} --model mnist_cnn --side 20 --steps 2 --quiet --out {tmp_path}"
    assert style.main(words.split()) == 0
    assert PIL.Image.open(tmp_path / "images" / "00000_ratio-0.03.png").size == (20, 16)


@pytest.fixture
def digits(tmp_path):
    """A test set of twenty pictures, as an image folder."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for digit in range(10):
            folder = tmp_path / "digits" / split / str(digit)
            folder.mkdir(parents=True)
            for i in range(2):
                pixels = rng.integers(0, 256, (28, 28), np.uint8)
                PIL.Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "digits"


def test_synthesize_judges_and_draws(digits, tmp_path, monkeypatch, capsys):
    short = {task: (climb.Schedule(28, 2.0, 0.5, 2),) for task in climb.SCHEDULES}
    monkeypatch.setattr(climb, "SCHEDULES", short)
    monkeypatch.setattr(synthesize, "LOOKS", {"1": synthesize.LOOKS["ship"]})
    words = f"{digits} --model mnist_cnn_robust --standard mnist_cnn --judge mnist_cnn"
    words += f" --images 10 --changed 2 --quiet --out {tmp_path / 'out'}"
    monkeypatch.setattr(
        synthesize, "sketches", lambda size: (np.full((1, *size, 1), 0.2, np.float32), ["1"])
    )
    assert synthesize.main(words.split()) == 0
    tables = json.loads((tmp_path / "out" / "tables.json").read_text())
    assert set(tables) == {"Generation", "Inpainting", "Super-resolution (4×)"}
    assert [row["pictures"] for row in tables["Generation"]] == [
        "robust",
        "seeds alone",
        "standard",
    ]
    assert len(list((tmp_path / "out").glob("*.png"))) == 12
    assert "| mean fill |" in capsys.readouterr().out


def test_sketches_are_drawings_at_any_size():
    drawn, names = synthesize.sketches((48, 32))
    assert drawn.shape == (len(names), 48, 32, 3)
    assert 0 <= drawn.min() < drawn.max() <= 1


@pytest.mark.parametrize("script", [style_check, foolbox_check])
def test_a_missing_extra_is_status_3(script, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    words = ["torch"] if script is style_check else [str(tmp_path)]
    assert script.main(words) == 3
    assert "bench" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        (style, "one.png", "pictures: CONTENT and STYLE"),
        (style, "--model mnist_cnm", "did you mean 'mnist_cnn"),
        (style, "nowhere.png nowhere.png", "nowhere.png"),
        (synthesize, "nowhere --judge mnist_cnn", "nowhere"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(script, words, message, tmp_path, capsys):
    assert script.main([*words.split(), "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
