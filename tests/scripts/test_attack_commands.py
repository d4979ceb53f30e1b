"""The command of robustness curves: what it writes, and one line with status 2 for wrong input."""

from __future__ import annotations

import gzip
import importlib
import json
import struct
import types

import numpy as np
import pytest

from rvis import attacks
from scripts import robustbench, robustness, transfer
from tests import toys


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Twelve noisy test images in MNIST's format, whose labels mean nothing."""
    folder = tmp_path_factory.mktemp("digits")
    pictures = np.random.default_rng(0).integers(0, 255, (12, 28, 28), np.uint8)
    for name, magic, array in (
        ("images-idx3", 2051, pictures),
        ("labels-idx1", 2049, np.arange(12, dtype=np.uint8) % 10),
    ):
        header = struct.pack(f">{1 + array.ndim}I", magic, *array.shape)
        with gzip.open(folder / f"t10k-{name}-ubyte.gz", "wb") as stream:
            stream.write(header + array.tobytes())
    return folder


def test_a_curve_for_each_norm_and_network(digits, tmp_path, capsys):
    words = f"mnist_cnn {digits} --beside mnist_cnn_robust --norms linf --images 6 --steps 10"
    words += f" --epsilons 0 0.1 --quiet --out {tmp_path}"
    assert robustness.main(words.split()) == 0
    told = capsys.readouterr().out
    assert "mnist_cnn, pgd, linf: clean" in told and "mnist_cnn_robust, pgd, linf: clean" in told
    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == ["linf.png", "mnist_cnn", "mnist_cnn_robust"]
    for folder in made[1:]:
        files = sorted(path.name for path in (tmp_path / folder / "linf").iterdir())
        assert files == ["arrays.npz", "card.json", "plot.png"]


def test_accuracy_after_each_attack(digits, tmp_path, capsys, monkeypatch):
    kind = attacks.AutoAttackResult
    told = {"images": np.zeros((2, 28, 28, 1), np.float32), "norm": "linf"}
    empty = np.zeros(2, np.int32)
    names = (
        "originals",
        "labels",
        "success",
        "rounded",
        "predictions",
        "clean",
        "distances",
        "iterations",
    )
    made = kind(
        **told,
        **{name: told["images"] if name == "originals" else empty for name in names},
        losses=np.zeros((2, 0)),
        attacks=("apgd-ce",),
        fooled_by=np.array([0, 1]),
    )
    asked = []
    monkeypatch.setattr(attacks, "autoattack", lambda *a, **options: asked.append(options) or made)
    words = f"mnist_cnn {digits} --norms linf --images 2 --attack autoattack --epsilons 0.1 0.3"
    assert robustness.main([*words.split(), "--quiet", "--out", str(tmp_path)]) == 0
    assert [options["eps"] for options in asked] == [0.1, 0.3]
    assert "apgd-ce     50.00%" in capsys.readouterr().out
    assert (tmp_path / "mnist_cnn" / "linf_autoattack_0.3" / "card.json").exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("mnist_cnn /nowhere", "nowhere"),
        ("mnist_cm {digits}", "mnist_cnn"),
        ("mnist_cnn {digits} --attack pgb", "pgd"),
        ("mnist_cnn {digits} --images 0", "--images"),
        ("mnist_cnn {digits} --epsilons 0.1", "--epsilons"),
        ("mnist_cnn {digits} --beside mnist_cnn", "--beside"),
    ],
)
def test_wrong_input_gets_one_line_and_status_2(digits, words, named, capsys):
    assert robustness.main([*words.format(digits=digits).split(), "--quiet"]) == 2
    told = capsys.readouterr().err
    assert named in told and told.count("\n") == 1


def test_usual_radii_grow_with_the_image():
    assert robustness.radii((64, 64, 3), "l2")[-1] == 2 * robustness.radii((32, 32, 3), "l2")[-1]
    assert robustness.radii((64, 64, 3), "linf") == robustness.radii((32, 32, 3), "linf")


def test_robustbenchs_json_has_its_fields(digits, tmp_path, capsys, monkeypatch):
    asked = []

    def weak(model, images, labels, *, checkpoint, progress, **options):
        asked.append((len(images), labels.tolist(), options))
        return plain(model, images, labels, progress=progress, checkpoint=checkpoint, **options)

    plain, room = attacks.autoattack, importlib.import_module("rvis.attacks.autoattack")
    official = room._attacks
    few = {"apgd-ce": 2, "square": 3}
    monkeypatch.setattr(attacks, "autoattack", weak)
    monkeypatch.setattr(room, "_attacks", lambda *a: {k: (official(*a)[k][0], few[k]) for k in few})
    words = f"mnist_cnn {digits} --examples 5 --eps 1/10 --quiet --out {tmp_path}"
    assert robustbench.main(words.split()) == 0
    assert asked == [(5, [0, 1, 2, 3, 4], {"norm": "linf", "eps": 0.1})]
    card = json.loads((tmp_path / "mnist_cnn.json").read_text())
    assert card["eps"] == "1/10" and card["number_examples"] == 5
    assert float(card["autoattack_acc"]) <= float(card["clean_acc"])
    assert "apgd-ce" in capsys.readouterr().out
    assert robustbench.main(["mnist_cm", str(digits), "--quiet"]) == 2


def test_a_transfer_table_asks_every_pair(digits, capsys):
    words = f"{digits} --models mnist_cnn mnist_cnn_robust cifar10_resnet --images 6 --eps 1/4"
    assert transfer.main(words.split()) == 0
    told = capsys.readouterr().out
    assert told.count("| mnist_cnn_robust |") == 6 and "cifar10" not in told
    assert transfer.main([str(digits), "--images", "0"]) == 2


def test_shares_are_of_what_both_get_right():
    grey = np.linspace(0.2, 0.8, 8, dtype=np.float32).reshape(8, 1, 1, 1)

    def above(level):
        weights = np.array([[0.0, 10.0]], np.float32)
        return toys.linear(weights, (1, 1, 1)).replace(
            apply=lambda params, images, **_: (
                images.reshape(-1, 1) @ params - 10 * level * np.eye(2)[1]
            )
        )

    def attack(model, images, labels, *, eps, progress):
        return types.SimpleNamespace(images=np.clip(images - eps, 0, 1))

    labels = np.ones(8, int)
    rates = transfer.table([above(0.3), above(0.5)], grey, labels, attack, 0.2)
    # Right above .3 are seven, above .5 four; less .2, two of seven and all but two of four fall.
    seven, four = grey.ravel() > 0.3, grey.ravel() > 0.5
    lower = grey.ravel() - np.float32(0.2)
    expected = [
        [(lower <= 0.3)[seven].mean(), (lower <= 0.5)[four].mean()],
        [(lower <= 0.3)[four].mean(), (lower <= 0.5)[four].mean()],
    ]
    np.testing.assert_allclose(rates, expected)
