"""Dimensions of known manifolds, distances to known planes, and the linear view of linear models."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
import toys

import rvis
from rvis.analysis import manifold
from rvis.analysis.manifold import dimension, points
from scripts import manifold as script
from scripts.gallery.toy import toy

RNG = np.random.default_rng(0)


def spread(n, d, ambient, seed=0):
    """n points uniform in a d-cube, turned into `ambient` dimensions."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.standard_normal((ambient, ambient)))[0][:d]
    return (rng.random((n, d)) @ turn).astype(np.float32)


@pytest.fixture(scope="module")
def curved():
    """1500 points of a warped 10-sphere in 200 dimensions."""
    rng = np.random.default_rng(0)
    ball = rng.standard_normal((1500, 11))
    ball /= np.linalg.norm(ball, axis=1, keepdims=True)
    waves = 0.3 * np.sin(3 * ball @ rng.standard_normal((11, 30)) / 11**0.5)
    turn = np.linalg.qr(rng.standard_normal((200, 41)))[0].T
    return (np.concatenate([ball, waves], 1) @ turn).astype(np.float32)


@pytest.mark.parametrize("n", [300, 37])
def test_neighbours_are_those_of_a_full_search(n):
    data = RNG.standard_normal((n, 50)).astype(np.float32) + 100
    found, numbers = points.nearest(data, data, 7, own=np.arange(n))
    full = np.linalg.norm(data[:, None].astype(np.float64) - data, axis=-1)
    np.fill_diagonal(full, np.inf)
    np.testing.assert_array_equal(numbers, np.argsort(full, 1)[:, :7])
    np.testing.assert_allclose(found, np.sort(full, 1)[:, :7], rtol=1e-5)


def test_neighbours_that_rounding_hides_are_found():
    # Inner products of length 10⁸ cannot tell these apart; their differences can.
    rng = np.random.default_rng(1)
    data = np.concatenate([np.full((200, 1), 1e4), np.zeros((200, 1))], 1)
    data[:, 1] = rng.permutation(200) * 0.01
    data = np.concatenate([data, -data]).astype(np.float32)
    _, numbers = points.nearest(data[:200], data, 2, own=np.arange(200))
    gaps = np.abs(data[numbers, 1] - data[:200, None, 1])
    inner = (data[:200, 1] > 0.005) & (data[:200, 1] < 1.985)
    np.testing.assert_allclose(gaps[inner], 0.01, atol=1e-4)


def test_a_curved_manifold_has_its_dimension_within_a_tenth(curved):
    found = manifold.intrinsic_dimension(curved)
    assert found.value == pytest.approx(10, rel=0.1)
    assert found.interval[0] < found.value < found.interval[1]
    assert 0 < found.error < 0.2


def test_two_neighbours_agree(curved):
    assert manifold.intrinsic_dimension(curved, method="twonn").value == pytest.approx(10, rel=0.1)


@pytest.mark.parametrize("method", ["mle", "twonn"])
@pytest.mark.parametrize("d", [1, 2, 5])
def test_cubes_have_their_dimension(d, method):
    found = manifold.intrinsic_dimension(spread(1500, d, 30), method=method, k=10)
    assert found.value == pytest.approx(d, rel=0.12)


def test_maximum_likelihood_is_its_formula():
    data = spread(60, 3, 8)
    far = np.linalg.norm(data[:, None].astype(np.float64) - data, axis=-1)
    near = np.sort(far, 1)[:, 1:6]
    inverse = np.log(near[:, 4:] / near[:, :4]).mean(1)
    found = manifold.intrinsic_dimension(data, k=5)
    assert found.value == pytest.approx(1 / inverse.mean(), rel=1e-4)


def test_two_neighbours_are_their_formula():
    # Ratios whose distribution is exact: F(μ) = 1 − μ^−d at μ = (1 − i/n)^(−1/d).
    share = np.arange(1, 101) / 101
    told = -np.log1p(-share) / 4.0
    kept = -np.log1p(-np.arange(1, 91) / 100)
    x = told[:90]
    assert dimension._slope(told) == pytest.approx((x * kept).sum() / (x * x).sum(), rel=1e-5)
    assert dimension._slope(told) == pytest.approx(4, rel=0.03)


@pytest.mark.parametrize("method", ["mle", "twonn"])
def test_a_lattice_is_refused(method):
    grid = np.stack(np.meshgrid(*[np.arange(6.0)] * 3), -1).reshape(-1, 3)
    with pytest.raises(ValueError, match="points: neighbours at different distances"):
        manifold.intrinsic_dimension(grid, method=method, k=2)


def test_evenly_spaced_points_are_finite_or_refused():
    found = manifold.intrinsic_dimension(np.arange(50.0)[:, None] * [[1, 2]], k=2)
    assert np.isfinite([found.value, found.error, *found.interval]).all()


def test_duplicates_are_left_out_and_counted():
    data = spread(200, 2, 5)
    twice = np.concatenate([data, data[:30]])
    once, both = (manifold.intrinsic_dimension(x, k=5) for x in (data, twice))
    assert (both.duplicates, both.points, both.value) == (30, 200, once.value)


def test_scale_and_rotation_change_nothing():
    data = spread(300, 3, 10)
    turned = 5 * data @ np.linalg.qr(RNG.standard_normal((10, 10)))[0].astype(np.float32)
    one, other = (manifold.intrinsic_dimension(x, k=8).value for x in (data, turned))
    assert one == pytest.approx(other, rel=1e-3)


@pytest.mark.parametrize("unit", [1e-22, 1e22])
def test_units_far_from_1_change_nothing(unit):
    data = spread(300, 3, 10)
    one, other = (manifold.intrinsic_dimension(x, k=8) for x in (data, data * np.float32(unit)))
    assert other.value == pytest.approx(one.value, rel=1e-4)
    near = manifold.distance_to_data(data[:2] * np.float32(unit), data[9:] * np.float32(unit))
    plain = manifold.distance_to_data(data[:2], data[9:])
    np.testing.assert_allclose(near.nearest, unit * plain.nearest, rtol=1e-5)


def test_a_sample_of_points_has_the_neighbours_of_all():
    data = spread(1500, 3, 20)
    whole, part = (manifold.intrinsic_dimension(data, k=10, sample=s) for s in (None, 400))
    assert (part.sample, part.points) == (400, 1500)
    assert abs(part.value - whole.value) < 4 * part.error
    assert part.error > 1.5 * whole.error


@pytest.mark.parametrize("d", [pytest.param(2, marks=pytest.mark.slow), 5])
def test_intervals_hold_the_estimators_mean_nineteen_times_in_twenty(d):
    found = [
        manifold.intrinsic_dimension(spread(300, d, 8, seed), k=10, key=seed) for seed in range(60)
    ]
    mean = np.mean([one.value for one in found])
    inside = [one.interval[0] <= mean <= one.interval[1] for one in found]
    assert np.mean(inside) >= 0.9
    told = np.mean([one.error for one in found])
    assert 0.85 < told / np.std([one.value for one in found], ddof=1) < 1.6


def test_the_same_key_gives_the_same_error():
    data = spread(200, 2, 4)
    a, b, c = (manifold.intrinsic_dimension(data, k=5, key=key) for key in (0, 0, 1))
    assert a == b
    assert a.error != c.error


def test_local_dimension_is_its_formula():
    data = spread(50, 3, 6)
    moved = (data + 0.1 * RNG.standard_normal(data.shape)).astype(np.float32)
    found = manifold.local_dimension(moved, data, k=8)
    far = np.linalg.norm(moved[:, None].astype(np.float64) - data, axis=-1)
    np.fill_diagonal(far, np.inf)
    near = np.sort(far, 1)[:, :8]
    np.testing.assert_allclose(found, -8 / np.log(near / near[:, -1:]).sum(1), rtol=1e-4)


def test_local_dimension_sees_its_batch_alone():
    data = spread(130, 3, 6)
    found = manifold.local_dimension(data, data, k=8)
    first = manifold.local_dimension(data[:100], data[:100], k=8)
    np.testing.assert_array_equal(found[:100], first)
    # The last batch reaches back to be full.
    last = manifold.local_dimension(data[30:], data[30:], k=8)
    np.testing.assert_array_equal(found[100:], last[70:])


def test_local_dimension_passes_over_distance_zero():
    data = spread(20, 2, 4)
    data[1] = data[0]
    found = manifold.local_dimension(data, data, k=5)
    assert np.isfinite(found).all()
    assert np.isnan(manifold.local_dimension(np.zeros((9, 2)), np.zeros((9, 2)), k=3)).all()


def test_noise_off_the_manifold_raises_local_dimension():
    plane = np.pad(spread(200, 2, 2), ((0, 0), (0, 98)))
    noisy = (plane + 0.05 * RNG.standard_normal(plane.shape)).astype(np.float32)
    clean, off = (manifold.local_dimension(x, plane) for x in (plane, noisy))
    assert np.median(off) > 2 * np.median(clean)


def test_the_distance_to_a_plane_is_the_height_above_it():
    plane = np.pad(spread(400, 2, 2), ((0, 0), (0, 6)))
    heights = np.asarray([0.0, 0.01, 0.2, 3.0])
    above = np.tile(plane[7], (4, 1))
    above[:, 5] = heights
    found = manifold.distance_to_data(above, plane, k=12, directions=2)
    np.testing.assert_allclose(found.residual, heights, atol=1e-5)
    np.testing.assert_allclose(found.nearest, heights, atol=1e-5)
    assert (found.indices[:3] == 7).all()


def test_a_step_within_the_plane_has_no_residual():
    plane = np.pad(spread(400, 2, 2), ((0, 0), (0, 6)))
    beside = plane[:5] + np.asarray([0.3, 0.1] + [0] * 6, np.float32)
    found = manifold.distance_to_data(beside, plane, k=12, directions=2)
    np.testing.assert_allclose(found.residual, 0, atol=1e-5)


def test_a_plane_of_fewer_dimensions_than_directions():
    line = np.linspace(0, 1, 50)[:, None] * np.ones((1, 4))
    found = manifold.distance_to_data([[0.5, 0.5, 0.5, 0.9]], line, k=10, directions=3)
    near = np.linalg.norm(np.asarray([-0.1, -0.1, -0.1, 0.3]))
    np.testing.assert_allclose(found.residual, near, atol=1e-5)


def test_paths_of_images_keep_their_shape_and_their_own_point_is_left_out():
    data = RNG.random((30, 4, 4, 1)).astype(np.float32)
    path = np.stack([data[:3], data[:3] * 0.9], 1)
    own = np.tile(np.arange(3)[:, None], (1, 2))
    found = manifold.distance_to_data(path, data, k=5, directions=2, exclude=own)
    assert found.nearest.shape == found.residual.shape == found.indices.shape == (3, 2)
    assert (found.indices != own).all() and (found.nearest > 0).all()
    assert (manifold.distance_to_data(path[:, 0], data, k=5, directions=2).nearest == 0).all()


def test_a_linear_model_shifts_by_the_norm_of_its_weights():
    weights = RNG.standard_normal((48, 3)).astype(np.float32)
    model = toys.linear(weights, (4, 4, 3))
    images = RNG.random((2, 4, 4, 3)).astype(np.float32)
    found = manifold.linear_shift(model, images, [0, 2], 0.1)
    assert found.dimensions.tolist() == [1, 2, 4, 8, 16, 32, 48]
    np.testing.assert_allclose(found.adversarial, found.predicted, atol=1e-4)
    np.testing.assert_allclose(
        found.predicted[:, -1], 0.1 * np.abs(weights[:, [0, 2]]).sum(0), rtol=1e-5
    )
    assert (np.diff(found.predicted, axis=1) > 0).all()
    assert (np.abs(found.noise) <= found.predicted + 1e-5).all()
    ax = found.plot()
    assert ax.get_xscale() == ax.get_yscale() == "log" and len(ax.get_lines()) == 3
    np.testing.assert_allclose(
        ax.get_lines()[0].get_ydata(), np.sqrt(np.square(found.predicted).mean(0))
    )


def test_a_shift_does_not_depend_on_the_company():
    model = toys.linear(RNG.standard_normal((12, 2)), (2, 2, 3))
    images = RNG.random((3, 2, 2, 3)).astype(np.float32)
    together = manifold.linear_shift(model, images, 1, 0.2)
    alone = manifold.linear_shift(model, images[0], 1, 0.2)
    np.testing.assert_array_equal(together.noise[0], alone.noise[0])


@pytest.fixture(scope="module")
def plane():
    return toy(points=120, attacked=12, steps=500, grid=40)


def test_the_toy_network_is_right_on_the_curve_and_wrong_a_step_off(plane):
    assert plane.accuracy == 1
    assert plane.points.shape == (120, 2)
    near = np.nanmedian(plane.off)
    assert near < 0.4 * np.median(plane.on)
    assert (np.diff(plane.along) > 0).all()


def test_adversarial_paths_end_where_the_network_is_wrong(plane):
    for path, start, length in zip(plane.paths, plane.starts, plane.off, strict=True):
        np.testing.assert_array_equal(path[0], start)
        steps = np.linalg.norm(np.diff(path[np.isfinite(path[:, 0])], axis=0), axis=1)
        np.testing.assert_allclose(steps, 0.01, rtol=1e-2)
        if np.isfinite(length):
            assert steps.sum() == pytest.approx(length, rel=1e-2)


def test_the_toy_is_drawn(plane):
    ax = plane.plot()
    assert ax.get_xlim() == (-1.2, 1.2)
    assert {"inner half", "outer half", "attacked", "adversarial steps"} == {
        text.get_text() for text in ax.get_legend().get_texts()
    }


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda x: manifold.intrinsic_dimension(x, method="mlee"), "method.*'mle'"),
        (lambda x: manifold.intrinsic_dimension(x, k=40), "points.*k = 40"),
        (lambda x: manifold.intrinsic_dimension(x, k=1), "k"),
        (lambda x: manifold.intrinsic_dimension(x * np.nan), "points.*finite"),
        (lambda x: manifold.intrinsic_dimension(x[0]), "points"),
        (lambda x: manifold.intrinsic_dimension(x, k=5, sample=1), "sample"),
        (lambda x: manifold.local_dimension(x, x[:5]), "reference"),
        (lambda x: manifold.local_dimension(x, x[:, :2]), "reference.*3"),
        (lambda x: manifold.local_dimension(x, x, k=40), "k.*40"),
        (lambda x: manifold.distance_to_data(x[:, :2], x), "points"),
        (lambda x: manifold.distance_to_data(x, x, k=50), "k.*40"),
        (lambda x: manifold.distance_to_data(x, x, k=5, directions=5), "directions"),
        (lambda x: manifold.distance_to_data(x, x, k=5, directions=2, exclude=[1]), "exclude"),
        (lambda x: toy(attacked=500), "attacked"),
        (lambda x: toy(step_size=0), "step_size"),
    ],
)
def test_bad_arguments_are_named(call, name):
    with pytest.raises(ValueError, match=name):
        call(np.random.default_rng(0).random((40, 3)).astype(np.float32))


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"target": [0, 9]}, "target.*9"),
        ({"target": [0, 1, 1]}, "target"),
        ({"eps": -0.1}, "eps"),
        ({"images": np.full((1, 6, 8, 3), 2.0)}, "images"),
    ],
)
def test_bad_arguments_of_the_linear_view_are_named(changes, name):
    given = {"images": np.zeros((2, 6, 8, 3), np.float32), "target": 0, "eps": 0.1, **changes}
    with pytest.raises(ValueError, match=name):
        manifold.linear_shift(toys.pointwise(), **given)


def test_the_script_prints_tables_and_draws(tmp_path, capsys, monkeypatch, plane):
    monkeypatch.setattr(script, "toy", lambda key: plane)
    digits = toys.pointwise(channels=1, classes=10, size=(28, 28))
    monkeypatch.setattr(rvis, "load", {"digits": digits}.__getitem__)
    rng = np.random.default_rng(0)
    for split, count in (("train", 80), ("t10k", 20)):
        arrays = rng.integers(0, 256, (count, 28, 28)), np.arange(count) % 10
        for name, magic, array in zip(
            ("images-idx3", "labels-idx1"), (2051, 2049), arrays, strict=True
        ):
            header = struct.pack(f">{1 + array.ndim}I", magic, *array.shape)
            with gzip.open(tmp_path / f"{split}-{name}-ubyte.gz", "wb") as stream:
                stream.write(header + array.astype(np.uint8).tobytes())
    out = tmp_path / "out"
    words = f"{tmp_path} --model digits --k 12 --images 20 --near 80 --quiet --out {out}"
    assert script.main(words.split()) == 0
    printed = capsys.readouterr().out
    assert "80 of 80 | 0 |" in printed and "| dense |" in printed
    made = sorted(path.name for path in out.iterdir())
    assert made == ["distance.png", "linear_pointwise.png", "toy.png"]
    assert script.main([str(tmp_path / "nothing"), "--out", str(out)]) == 2
