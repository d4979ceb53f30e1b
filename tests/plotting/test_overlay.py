"""Heat maps in colour: white at zero, uniform steps, percentiles, refusals."""

from __future__ import annotations

import numpy as np
import pytest

from rvis.plotting import grids

IMAGES = np.random.default_rng(0).random((2, 6, 8, 3), np.float32)
RAMP = np.tile(np.linspace(-1, 1, 8, dtype=np.float32), (2, 6, 1))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("style", "width"), [("beside", 16), ("blend", 8), ("map", 8)])
def test_shapes(channels, style, width):
    shown = grids.overlay(IMAGES[..., :channels], RAMP, style=style)
    assert shown.shape == (2, 6, width, 3)
    assert shown.min() >= 0
    assert shown.max() <= 1


def test_the_image_stands_beside_its_map():
    shown = grids.overlay(IMAGES, RAMP)
    np.testing.assert_allclose(shown[:, :, :8], IMAGES, atol=1 / 255)
    np.testing.assert_array_equal(shown[:, :, 8:], grids.overlay(IMAGES, RAMP, style="map"))


def test_red_above_blue_below_white_at_zero():
    maps = np.zeros((1, 6, 8), np.float32)
    maps[0, 0, 0], maps[0, 5, 7] = 2, -2
    shown = grids.overlay(IMAGES[:1], maps, style="map")[0]
    np.testing.assert_allclose(shown[3, 3], 1, atol=0.01)
    red, blue = shown[0, 0], shown[5, 7]
    assert red[0] > 0.6 > red[2] + 0.3
    assert blue[2] > 0.6 > blue[0] + 0.3


def test_a_sign_is_only_shown_where_there_is_one():
    positive = np.abs(RAMP)
    plain = grids.overlay(IMAGES, positive, style="map")
    assert np.abs(plain - grids.overlay(IMAGES, RAMP, style="map"))[RAMP > 0].max() > 0.2


@pytest.mark.parametrize("anchors", [grids._WARM, grids._COLD, grids._SEQUENTIAL])
def test_colours_are_uniform_darken_and_fit_the_screen(anchors):
    size = np.linspace(0, 1, 101)[:, None]
    lab = grids._along(anchors, size)
    steps = np.linalg.norm(np.diff(lab, axis=0), axis=1)
    assert steps.min() > 0.85 * steps.max()
    assert (np.diff(lab[:, 0]) < 0).all()
    linear = (lab @ grids._TO_CONES.T) ** 3 @ grids._TO_LINEAR.T
    assert linear.min() > -0.005
    assert linear.max() < 1.005


def test_each_map_has_its_own_percentile():
    maps = np.stack([RAMP[0], 1000 * RAMP[0]])
    shown = grids.overlay(np.stack([IMAGES[0]] * 2), maps)
    np.testing.assert_allclose(shown[0], shown[1], atol=1e-6)
    spike = np.ones((1, 20, 20), np.float32)
    spike[0, 0, 0] = 1e6
    image = np.zeros((1, 20, 20, 1))
    usual = grids.overlay(image, spike, style="map")
    assert usual[0, 5, 5].mean() < 0.5


@pytest.mark.parametrize("style", ["beside", "blend", "map"])
def test_images_of_many_channels_are_shown_by_their_mean(style):
    images = np.random.default_rng(0).random((2, 4, 5, 7), np.float32)
    maps = np.random.default_rng(1).standard_normal((2, 4, 5))
    mean = images.mean(-1, keepdims=True)
    shown = grids.overlay(images, maps, style=style)
    np.testing.assert_array_equal(shown, grids.overlay(mean, maps, style=style))


def test_a_blank_map_is_white_and_leaves_the_image():
    blank = np.zeros((2, 6, 8), np.float32)
    np.testing.assert_allclose(grids.overlay(IMAGES, blank, style="map"), 1, atol=0.01)
    blend = grids.overlay(IMAGES, blank, style="blend")
    assert np.ptp(blend, axis=-1).max() < 1e-6
    assert blend.std() > 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"style": "besides"}, "style: unknown 'besides'; did you mean 'beside'"),
        ({"maps": RAMP[:1]}, r"maps: \(2, 6, 8\) was expected"),
        ({"maps": np.full((2, 6, 8), np.nan)}, "maps: finite"),
        ({"images": IMAGES * 9}, "images: values in"),
    ],
)
def test_refused(options, message):
    images, maps = options.pop("images", IMAGES), options.pop("maps", RAMP)
    with pytest.raises(ValueError, match=message):
        grids.overlay(images, maps, **options)
