"""scripts/parameterizations.py and scripts/image_statistics.py run and print what they say."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest

from rvis.images import statistics
from scripts import image_statistics, parameterizations


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An image folder of noise, as users have them."""
    place = tmp_path_factory.mktemp("noise")
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for number in range(6):
            file = place / split / f"class{number % 2}" / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(file)
    return place


def test_parameterizations_prints_a_table_and_draws_sheets(folder, tmp_path, capsys):
    options = "--models cifar10_resnet_robust --layers conv1 --units 2 --steps 2 --real 4".split()
    kinds = ["--images", "pixel", "fourier", "--out", str(tmp_path)]
    assert parameterizations.main([str(folder), *options, *kinds]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| pixel", "| fourier", "| real images"]
    assert len({line.count("|") for line in lines}) == 1
    assert (tmp_path / "cifar10_resnet_robust_conv1.png").exists()


def test_the_share_of_fine_energy():
    across = np.arange(32)
    slow, fast = (np.cos(2 * np.pi * f * across / 32)[None, :, None] for f in (4, 12))
    images = 0.5 + 0.1 * np.stack([slow, fast, slow + fast]) * np.ones((3, 32, 32, 1))
    np.testing.assert_allclose(parameterizations.fine(images), [0, 1, 0.5], atol=1e-9)


def test_statistics_are_printed_and_written(folder, tmp_path, capsys):
    arguments = [str(folder), "--name", "noise", "--out", str(tmp_path / "new")]
    assert image_statistics.main(arguments) == 0
    assert "6 images, mean [0.5" in capsys.readouterr().out
    found = statistics.load(tmp_path / "new" / "noise.npz")
    np.testing.assert_allclose(np.diag(found.root @ found.root.T), 1 / 12, rtol=0.05)


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        (parameterizations, ["nowhere"], "nowhere"),
        (parameterizations, ["{folder}", "--models", "cifar"], "name_or_path: unknown 'cifar'"),
        (parameterizations, ["{folder}", "--layers", "layer9"], "layers: unknown 'layer9'"),
        (image_statistics, ["nowhere", "--name", "x", "--out", "{folder}"], "nowhere"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(script, arguments, message, folder, capsys):
    assert script.main([a.format(folder=folder) for a in arguments]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert message in told.err
    assert told.err.count("\n") == 1
