"""The command line: each command writes what it says, and refuses by name."""

from __future__ import annotations

import json

import pytest

import rvis
from rvis import __main__ as command_line
from tests.scripts.docs import reduced as small


@pytest.fixture
def place(tmp_path, monkeypatch):
    small.files(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rvis, "load", small.load, raising=False)
    return tmp_path


COMMANDS = {
    "visualize": (
        "cifar10_resnet logits --units cat 5 --steps 2 --facets 2",
        ["figure.png", "card.json", "arrays.npz"],
    ),
    "sweep": ("cifar10_resnet layer2 --units 0 3 --steps 2", ["index.html", "spritemap.png"]),
    "dream": ("photo.jpg --octaves 1 --steps 1 --guide other.jpg", ["figure.png", "card.json"]),
    "attribute": (
        "photo.jpg --methods gradient occlusion --top 2",
        ["figure.png", "gradient/card.json", "occlusion/card.json"],
    ),
    "attack": ("photo.jpg --eps 0.1 --steps 2 --target cat", ["figure.png", "card.json"]),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_writes_and_says_where(name, place, capsys):
    words, files = COMMANDS[name]
    assert command_line.main([name, *words.split(), "--quiet", "--out", "here"]) == 0
    assert all((place / "here" / file).stat().st_size for file in files)
    assert capsys.readouterr().out.splitlines()[-1] == f"here/{files[0]}"


def test_units_are_numbers_or_names_of_classes(place):
    words = "visualize cifar10_resnet logits --units cat 5 --steps 2 --quiet --out here"
    assert command_line.main(words.split()) == 0
    card = json.loads((place / "here" / "card.json").read_text())
    assert card["labels"] == ["cat", "dog"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("visualize cifar10_resnet layer9", "layer: unknown 'layer9'; did you mean"),
        ("attack photo.jpg --eps 0.1 --target cow", "target"),
        ("attack missing.jpg", "missing.jpg"),
        ("attribute photo.jpg --top 0", "--top"),
    ],
)
def test_what_cannot_be_is_refused_by_name(words, message, place, capsys):
    assert command_line.main([*words.split(), "--quiet"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("rvis: ") and message in error
    assert "Traceback" not in error


def test_networks_are_found_as_they_are(monkeypatch):
    asked = []

    def load(name, **options):
        asked.append((name, options))
        if name == "resnet50" and not options:
            raise ValueError("weights: …")
        return name

    monkeypatch.setattr(rvis, "load", load, raising=False)
    parse = command_line.parser().parse_args
    command_line.network(parse(["sweep", "mnist_cnn", "fc1"]))
    command_line.network(parse(["sweep", "resnet50", "layer1"]))
    command_line.network(parse(["sweep", "resnet50", "layer1", "--weights", "file.pth"]))
    assert asked == [
        ("mnist_cnn", {}),
        ("resnet50", {}),
        ("resnet50", {"pretrained": True}),
        ("resnet50", {"weights": "file.pth"}),
    ]


@pytest.mark.parametrize("name", sorted(command_line.EXAMPLES))
def test_the_examples_of_the_help_are_commands(name, capsys):
    if name == "gallery":
        with pytest.raises(SystemExit) as end:
            command_line.main(["gallery", "--help"])
    else:
        for line in command_line.EXAMPLES[name].splitlines():
            command_line.parser().parse_args(line.split()[1:])
        with pytest.raises(SystemExit) as end:
            command_line.main([name, "--help"])
        assert command_line.EXAMPLES[name].splitlines()[0] in capsys.readouterr().out
    assert end.value.code == 0


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (
            ValueError("eps: 0 or more was expected,\n given -1"),
            2,
            "eps: 0 or more was expected, given -1",
        ),
        (FileNotFoundError("path: nowhere"), 2, "path: nowhere"),
        (KeyboardInterrupt(), 130, "interrupted; the same command goes on from here"),
    ],
)
def test_a_scripts_error_is_one_line_and_a_status(error, status, told, capsys):
    @command_line.reported(goes_on=True)
    def main(arguments):
        raise error

    assert main([]) == status
    assert capsys.readouterr().err == f"test_command_line.py: {told}\n"


def test_what_is_nobodys_mistake_is_not_hidden():
    @command_line.reported()
    def main(arguments):
        raise AssertionError

    with pytest.raises(AssertionError):
        main([])
