"""The commands: a CLIP is trained, written, read, inverted and judged; bad calls say what was bad."""

from __future__ import annotations

import json

import pytest

from rvis import clip
from scripts import invert_clip, train_clip
from scripts.clip_scenes import scenes

SIZES = {
    "image_size": 16, "patch": 8, "width": 8, "layers": 1, "heads": 1, "text_width": 8,
    "text_layers": 1, "text_heads": 1, "projection": 8, "stem": [4],
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("clip") / "tiny"
    arguments = [
        "--out",
        str(out),
        "--steps",
        "2",
        "--batch-size",
        "4",
        "--tested",
        "20",
        "--quiet",
    ]
    assert train_clip.main([*arguments, "--config", json.dumps(SIZES)]) == 0
    return out


def test_training_writes_a_card(trained):
    card = json.loads((trained / "card.json").read_text())
    assert card["recipe"]["steps"] == 2 and card["seed"] == 0 and len(card["held_out"]) == 48
    assert set(card["zero_shot"]["held_out"]) == set(scenes.VALUES)
    assert not (trained / "checkpoint").exists()
    assert clip.load(trained).config.stem == (4,)


def test_sentences_become_a_sheet(trained, tmp_path, capsys):
    arguments = ["--clip", str(trained), "--steps", "2", "--copies", "2", "--quiet"]
    out = ["--sizes", "16", "--out", str(tmp_path)]
    assert invert_clip.main(["a red ring", "two stars", *arguments, *out]) == 0
    assert "two stars" in capsys.readouterr().out
    assert (tmp_path / "sheet.png").exists() and (tmp_path / "table.md").exists()
    test = ["--test", "4", "--judge", str(trained), "--samples", "2"]
    assert invert_clip.main([*test, *arguments, *out]) == 0
    table = (tmp_path / "table.md").read_text()
    assert "judge ranks first of 4" in table and "without" in table and "colour right" in table


def test_held_out_sentences():
    texts, facts = invert_clip.held_out_sentences(40, 0)
    assert len(set(texts)) == 40 and scenes.combinations(facts) <= set(scenes.HELD_OUT)
    assert set(" ".join(texts).split()) <= set(scenes.vocabulary())


def test_dominant_colours_are_those_of_the_scenes():
    some = scenes.generate(100, seed=9)
    one = some.facts["count"] == 0
    found = invert_clip.dominant_colours(some.images[one], some.facts["position"][one])
    assert (found == some.facts["colour"][one]).mean() > 0.97
    elsewhere = (some.facts["position"][one] + 4) % 9
    missed = invert_clip.dominant_colours(some.images[one], elsewhere)
    assert (missed == some.facts["colour"][one]).mean() < 0.5


@pytest.mark.parametrize(
    ("main", "arguments", "says"),
    [
        (invert_clip.main, [], "texts"),
        (invert_clip.main, ["--test", "4"], "judge"),
        (invert_clip.main, ["red", "--clip", "nowhere"], "name_or_path"),
        (invert_clip.main, ["--test", "99", "--judge", "x", "--clip", "y"], "name_or_path"),
        (train_clip.main, ["--steps", "0"], "steps"),
        (train_clip.main, ["--config", '{"heads": 5}'], "heads"),
        (train_clip.main, ["--config", '{"hats": 5}'], "hats"),
    ],
)
def test_bad_calls_say_what_was_bad(main, arguments, says, tmp_path, capsys):
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
    assert says in capsys.readouterr().err
