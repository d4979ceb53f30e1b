"""The command of robustness curves: what it writes, and one line with status 2 for wrong input."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest

from scripts import robustness


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
