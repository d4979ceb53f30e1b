"""Plots: axes without pyplot, pictures and files, and what is said where matplotlib is missing."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import PIL.Image
import pytest

from rvis import attacks
from rvis.plotting import figures


def curve():
    numbers = np.array([0.1, 0.2]), np.array([0.5, 0.25]), np.array([0.1, 0.2, np.inf, 0.1])
    return attacks.RobustnessCurve(*numbers, np.array([3, 1, -1, 2]), 1.0, "linf", "pgd", "mine")


def test_axes_are_made_or_drawn_into():
    ax = figures.axes(size=(3, 2))
    assert figures.axes(ax) is ax
    assert curve().plot(ax) is ax
    assert curve().plot() is not ax


def test_pyplot_is_not_touched():
    code = (
        "import sys; from rvis.plotting import figures; assert 'matplotlib' not in sys.modules\n"
        "figures.picture(figures.axes()); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_pictures_are_dark_on_white_and_the_same_twice(tmp_path):
    first, second = (figures.picture(curve().plot()) for _ in range(2))
    assert first.mode == "RGB" and first.getpixel((0, 0)) == (255, 255, 255)
    assert first.tobytes() == second.tobytes()
    assert np.asarray(first).min() < 60
    figures.save(curve().plot(), tmp_path / "new" / "plot.png")
    with PIL.Image.open(tmp_path / "new" / "plot.png") as read:
        assert read.tobytes() == first.tobytes()


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'a plot needs matplotlib: pip install "rvis\[plot\]"'):
        curve().plot()
