"""Charts: where things are drawn, which ticks there are, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from rvis import charts


def pixels(picture, colour):
    """(n, 2) rows and columns of the pixels nearly of a colour."""
    wanted = np.asarray(Image.new("RGB", (1, 1), colour))[0, 0].astype(int)
    near = np.abs(np.asarray(picture).astype(int) - wanted).max(-1) < 40
    return np.argwhere(near)


def test_a_rising_line_goes_from_the_lower_left_to_the_upper_right():
    picture = charts.chart({"y": ([0, 1], [0, 1])}, xrange=(0, 1), yrange=(0, 1), size=(200, 100))
    places = pixels(picture, charts.COLOURS[0])
    assert np.ptp(places[:, 1]) == pytest.approx(200, abs=3)
    assert np.ptp(places[:, 0]) == pytest.approx(100, abs=3)
    assert np.corrcoef(places.T)[0, 1] < -0.999


def test_a_power_law_is_straight_on_logarithmic_axes():
    x = np.logspace(0, 3, 40)
    picture = charts.chart({"y": (x, x**2)}, xlog=True, ylog=True, size=(200, 200))
    places = pixels(picture, charts.COLOURS[0])
    fit = np.polyfit(places[:, 1], places[:, 0], 1)
    assert np.abs(np.polyval(fit, places[:, 1]) - places[:, 0]).max() < 3


def test_nan_breaks_a_line():
    x = np.arange(5.0)
    whole = pixels(charts.chart({"y": (x, x)}), charts.COLOURS[0])
    broken = pixels(charts.chart({"y": (x, np.where(x == 2, np.nan, x))}), charts.COLOURS[0])
    assert len(broken) < 0.6 * len(whole)


def test_points_have_the_colour_of_the_line_of_their_name():
    x = np.arange(3.0)
    both = charts.chart({"a": (x, x), "b": (x, 2 * x)}, {"b": (x, 3 * x)})
    assert len(pixels(both, charts.COLOURS[1])) > 0
    assert len(pixels(both, charts.COLOURS[2])) == 0


def test_one_name_has_no_legend_and_hidden_names_are_left_out():
    x = np.arange(3.0)
    one = charts.chart({"a long name": (x, x)})
    hidden = charts.chart({"a long name": (x, x), "_b": (x, 2 * x)}, yrange=(0, 2))
    two = charts.chart({"a long name": (x, x), "b": (x, 2 * x)})
    assert two.width > one.width + 50
    assert abs(hidden.width - one.width) < 20


def test_the_backdrop_fills_the_axes():
    red = np.zeros((2, 2, 3))
    red[..., 0] = 1
    picture = charts.chart({"_": ([0, 1], [0, 1])}, backdrop=red, size=(100, 100))
    assert len(pixels(picture, "#ff0000")) > 9000


@pytest.mark.parametrize(
    ("low", "high", "marks"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 0.3, [0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3]),
        (-12, 31, [-10, 0, 10, 20, 30]),
    ],
)
def test_round_ticks(low, high, marks):
    np.testing.assert_allclose(charts._round_steps(low, high), marks, atol=1e-12)


@pytest.mark.parametrize(
    ("low", "high", "marks"),
    [
        (-3, 0, [1e-3, 1e-2, 1e-1, 1]),
        (0, 1, [1, 2, 5, 10]),
        (-12, 0, [1e-12, 1e-10, 1e-8, 1e-6, 1e-4, 1e-2, 1]),
        (0.01, 0.2, [1.1, 1.2, 1.3, 1.4, 1.5]),
    ],
)
def test_logarithmic_ticks(low, high, marks):
    np.testing.assert_allclose(charts._decades(low, high), marks, rtol=0.05)


def test_a_constant_has_an_axis():
    assert charts.chart({"y": ([0, 1], [3, 3])}).width > 480


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({}, "lines"),
        ({"lines": {"a": ([1, 2], [1])}}, "lines.*'a'"),
        ({"points": {"a": ([1, np.inf], [1, 2])}}, "points.*finite"),
        ({"lines": {"a": ([0, 1], [1, 2])}, "xlog": True}, "lines.*positive"),
        ({"lines": {"a": ([1, 2], [1, 2])}, "xrange": (2, 1)}, "xrange"),
        ({"lines": {"a": ([1, 2], [1, 2])}, "yrange": (0, 1), "ylog": True}, "yrange"),
        ({"lines": {"a": ([1, 2], [1, 2])}, "size": (0, 100)}, "size"),
    ],
)
def test_bad_arguments_are_named(arguments, name):
    with pytest.raises(ValueError, match=name):
        charts.chart(**arguments)


def test_lines_must_be_named():
    with pytest.raises(TypeError, match="lines"):
        charts.chart([([0, 1], [0, 1])])
