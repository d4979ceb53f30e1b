"""A step costs what its passes cost; the stored figures are of all families and methods."""

from __future__ import annotations

from rvis import kernels
from scripts.bench import roofline
from scripts.docs import evidence


def test_a_step_has_little_beside_the_networks_passes():
    with kernels.stock():
        (row,) = roofline.families("mnist_cnn")
    assert 1 <= row["visualize"] < 1.1
    assert 1 <= row["plain ascent"] < 1.1
    assert 1 <= row["gradient"] < 1.1


def test_the_stored_figures_are_whole():
    found = evidence.load("roofline")
    assert [row["network"] for row in found["families"]] == [*roofline.FAMILIES]
    assert [row["method"] for row in found["methods"]] == [*roofline.METHODS]
    for row in found["families"]:
        assert row["visualize"] - row["transforms of Fourier"] < 1.1
    for chip in roofline.CHIPS:
        seconds = found["all of InceptionV1"][chip]["seconds by devices"]
        assert 200 < seconds["1"] / seconds["256"] <= 256
