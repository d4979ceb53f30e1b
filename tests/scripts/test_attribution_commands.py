"""The commands of attribution: what they write, and one line where input is wrong."""

from __future__ import annotations

import importlib.util
import json

import jax
import numpy as np
import PIL.Image
import pytest

from rvis import attribution, data
from rvis.engine import programs
from rvis.plotting import grids
from scripts import alignment, attribute, attribution_check, leaderboard, sanity
from tests.scripts.docs import reduced


@pytest.fixture
def picture(tmp_path):
    image = np.random.default_rng(0).random((40, 30, 3), np.float32)
    grids.save(grids.to_pil(image), tmp_path / "picture.png")
    return tmp_path / "picture.png"


def test_the_figure_has_a_row_for_each_class(picture, tmp_path, capsys, monkeypatch):
    # All methods are called and traced as the command has them; their maps, which are looked at
    # elsewhere, are ones.
    def ones(*arguments, **options):
        state, *rest = reduced.still(*arguments, **options)
        leaves, structure = jax.tree.flatten(state)
        ones = [np.ones(x.shape, x.dtype) if x.dtype == np.float32 else x for x in leaves]
        return jax.tree.unflatten(structure, ones), *rest

    monkeypatch.setattr(programs, "advance", ones)
    words = f"{picture} --model mnist_cnn --top 2 --masks 8 --quiet --out {tmp_path}"
    assert attribute.main(words.split()) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-1].endswith("attribution.png")
    assert len(said) == 3
    sheet = PIL.Image.open(tmp_path / "attribution.png")
    assert sheet.width > 20 * 30
    assert (tmp_path / "rise" / "arrays.npz").exists()


def test_the_leaderboard_has_a_row_for_each_method(picture, tmp_path, capsys):
    words = f"{picture.parent} --models mnist_cnn --methods random gradient --images 1"
    file = tmp_path / "board.json"
    file.write_text('{"another": {}}')
    assert leaderboard.main([*words.split(), "--json", str(file)]) == 0
    said = capsys.readouterr().out
    assert "| random |" in said
    assert "FAILS" in said  # it is the same whatever the network has learned
    held = json.loads(file.read_text())
    assert set(held) == {"another", "mnist_cnn"}
    assert set(held["mnist_cnn"]["methods"]) == {"random", "gradient"}
    assert len(held["mnist_cnn"]["methods"]["gradient"]["gini"]) == 3


def test_every_method_is_in_the_figure():
    known = {name for name in attribution.__all__ if name.islower()}
    games = {"shapley", "shapley_sampling", "shapley_interactions"}
    by_data_or_segments = {"expected_gradients", "superpixels", "xrai"}
    assert known - set(attribute.METHODS) == games | by_data_or_segments


def test_the_sobel_gradient_of_a_step():
    image = np.zeros((1, 6, 6, 1), np.float32)
    image[:, :, 3:] = 1
    found = alignment.edges(image)[0]
    np.testing.assert_allclose(found[:, 2:4], 4)
    np.testing.assert_allclose(np.delete(found, [2, 3], 1), 0)


def test_commands_on_real_images(cifar_test, capsys, monkeypatch):
    # Read once for all tests: it takes three seconds.
    monkeypatch.setattr(data, "load", lambda path, split: {"test": cifar_test}[split])
    assert alignment.main("cifar10.zip --images 4".split()) in (0, 1)
    assert "| difference |" in capsys.readouterr().out
    assert sanity.main("cifar10.zip --images 4 --methods grad_cam".split()) in (0, 1)
    assert "| conv1 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        (attribute, "nowhere.png", "nowhere.png"),
        (attribute, "PICTURE --model mnist_cnm", "unknown 'mnist_cnm'; did you mean 'mnist_cnn"),
        (attribute, "PICTURE --top 0", "--top: at least 1"),
        (attribute, "PICTURE --trunk --pretrained", "--trunk: --layer, and --weights or"),
        (sanity, "nowhere", "nowhere"),
        (alignment, "nowhere", "nowhere"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(script, words, message, picture, capsys):
    assert script.main(words.replace("PICTURE", str(picture)).split()) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_a_missing_package_is_named(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert attribution_check.main([]) == 3
    assert "torch is not installed" in capsys.readouterr().err
