"""Grids and maps of activations: which vector is drawn where, by hand."""

from __future__ import annotations

import numpy as np
import pytest

import rvis
from rvis import engine, objectives
from rvis.engine import programs
from rvis.visualization import activation_atlas, activation_grid
from tests import toys

MODEL = toys.pointwise(size=(3, 2))
QUICK = {"steps": 5, "size": (4, 4), "transforms": (), "progress": False}
PHOTO = np.random.default_rng(0).uniform(size=(3, 2, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def grid():
    return activation_grid(MODEL, PHOTO, "relu", snapshots=(0,), **QUICK)


def test_every_place_has_its_picture(grid):
    assert grid.images.shape == (3, 2, 4, 4, 3) and grid.scores.shape == (3, 2, 5)
    assert grid.snapshots[0].shape == grid.images.shape
    assert grid.labels[2, 1] == "relu@2,1" and grid.dead.shape == (3, 2)
    assert rvis.plotting.grids.grid(grid.images, pad=0, scale=1).size == (2 * 4, 3 * 4)
    assert grid.show().size[0] < grid.show().size[1]


def test_a_place_climbs_towards_its_activation(grid):
    seen = np.asarray(rvis.record(MODEL, PHOTO, "relu")["relu"][0]).reshape(6, 4)
    wanted = objectives.direction("relu", seen, cosine_power=2, position=(2, 2))
    direct = rvis.visualize(MODEL, wanted, **QUICK)
    np.testing.assert_array_equal(grid.images.reshape(6, 4, 4, 3), direct.images)
    np.testing.assert_array_equal(grid.scores.reshape(6, 5), direct.scores)


def test_a_batch_of_places_compiles_nothing_for_another_image(grid):
    compiled = programs.advance._cache_size()
    activation_grid(MODEL, 1 - PHOTO, "relu", snapshots=(0,), **QUICK)
    assert programs.advance._cache_size() == compiled


# Eight activations in the lower left corner of the plane, three between, which are too few, and
# eight in the upper right, the last of which is the last of all.
PLACES = np.concatenate(
    [np.zeros((8, 2)), np.ones((7, 2)), np.full((3, 2), 0.5), np.full((1, 2), 1.0)]
)
VECTORS = np.random.default_rng(1).uniform(size=(19, 4))


@pytest.fixture(scope="module")
def atlas():
    return activation_atlas(MODEL, "relu", VECTORS, PLACES, grid=3, **QUICK)


def test_cells_hold_their_activations(atlas):
    # The border lies a tenth beyond 0 and 1, so that each third is .4 wide; up is the first row.
    assert atlas.cells.tolist() == [[0, 2], [2, 0]]
    assert atlas.counts.tolist() == [8, 8]
    upper = np.concatenate([VECTORS[8:15], VECTORS[18:]]).mean(0)
    np.testing.assert_allclose(atlas.vectors, [upper, VECTORS[:8].mean(0)], rtol=1e-6)


def test_the_map_shows_icons_in_their_cells(atlas):
    sheet = np.asarray(atlas.show(), np.float32) / 255
    assert sheet.shape == (12, 12, 3)
    np.testing.assert_allclose(sheet[:4, 8:], atlas.icons.images[0], atol=3e-3)
    np.testing.assert_allclose(sheet[8:, :4], atlas.icons.images[1], atol=3e-3)
    assert (sheet[4:8, 4:8] == 1).all() and (sheet[:4, :4] == 1).all()


def test_icons_climb_towards_the_means(atlas):
    wanted = objectives.direction("relu", atlas.vectors, cosine_power=2, position=(2, 2))
    np.testing.assert_array_equal(atlas.icons.images, rvis.visualize(MODEL, wanted, **QUICK).images)


def test_what_lies_beyond_the_percentiles_is_left_out():
    places = np.concatenate([np.random.default_rng(0).uniform(size=(400, 2)), [[50.0, 50.0]]])
    vectors = np.ones((401, 4))
    vectors[-1] = 1000
    found = activation_atlas(MODEL, "relu", vectors, places, grid=2, **QUICK)
    assert found.counts.sum() == 400
    np.testing.assert_array_equal(found.vectors, 1)


def test_a_dense_layer_has_a_map_too():
    vectors = np.random.default_rng(2).standard_normal((20, 2))
    found = activation_atlas(MODEL, "dense", vectors, vectors, grid=1, **QUICK)
    assert found.icons.images.shape == (1, 4, 4, 3) and found.counts.tolist() == [20]


def drawn_grid(**given):
    options = {"images": PHOTO, "layer": "relu", **QUICK, **given}
    return activation_grid(MODEL, options.pop("images"), options.pop("layer"), **options)


def drawn_atlas(**given):
    options = {"activations": VECTORS, "layout": PLACES, "layer": "relu", **QUICK, **given}
    layer, seen, layout = (options.pop(name) for name in ("layer", "activations", "layout"))
    return activation_atlas(MODEL, layer, seen, layout, **options)


@pytest.mark.parametrize(
    ("call", "given", "error", "message"),
    [
        (drawn_grid, {"images": np.stack([PHOTO] * 2)}, ValueError, "images: one was expected"),
        (drawn_grid, {"images": 255 * PHOTO}, ValueError, "images: values in"),
        (drawn_grid, {"layer": "rleu"}, ValueError, "layer: unknown 'rleu'"),
        (drawn_grid, {"layer": "pool"}, ValueError, "layer: one with places was expected"),
        (drawn_grid, {"facets": 2}, ValueError, "facets: 1 was expected"),
        (drawn_grid, {"cosine_power": -1}, ValueError, "cosine_power: a number in"),
        (drawn_grid, {"image": "pixels"}, ValueError, "image: unknown 'pixels'"),
        (drawn_grid, {"steps": 0}, ValueError, "steps: at least 1"),
        (drawn_atlas, {"layer": "rleu"}, ValueError, "layer: unknown 'rleu'"),
        (drawn_atlas, {"activations": VECTORS[:, :3]}, ValueError, r"activations: \(n, 4\)"),
        (drawn_atlas, {"activations": VECTORS * np.nan}, ValueError, "activations: finite"),
        (drawn_atlas, {"activations": [["a"] * 4]}, TypeError, "activations: an array of numbers"),
        (drawn_atlas, {"layout": PLACES[:5]}, ValueError, "layout: 19 places"),
        (drawn_atlas, {"layout": PLACES[:, :1]}, ValueError, r"layout: \(n, 2\)"),
        (drawn_atlas, {"grid": 0}, ValueError, "grid: at least 1"),
        (drawn_atlas, {"least": 0}, ValueError, "least: at least 1"),
        (drawn_atlas, {"least": 100}, ValueError, "least: no cell holds 100"),
    ],
)
def test_refused(call, given, error, message, monkeypatch):
    monkeypatch.setattr(engine, "run", lambda *a, **k: pytest.fail("it ran"))
    with pytest.raises(error, match=message):
        call(**given)
