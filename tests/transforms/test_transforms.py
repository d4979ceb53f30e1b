"""rvis.transforms: views are the moves they claim to be, and their gradients are exact."""

from __future__ import annotations

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rvis import objectives, transforms
from rvis.ascent import Problem, energy
from rvis.transforms import (
    Jitter,
    Noise,
    Pad,
    RandomCrop,
    Roll,
    Rotate,
    Scale,
    views,
)
from tests import toys

CHAINS = {
    "lucid": transforms.lucid(128),
    "jitter": (Jitter(3),),
    "turns": (Rotate((33, 77, 190)), Scale((0.5, 0.7, 1.2)), Jitter(1)),
    "zoom": (Scale((3.0, 2.6)), Jitter(2)),
    "roll": (Roll(3),),
    "roll first": (Roll(2), Pad(1), Jitter(1), Scale((0.9, 1.1))),
    "far": (Jitter(50), Scale((0.2,))),
}
chains = pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS.keys())


compiled = jax.jit(transforms.apply, static_argnums=0)


def apply(chain: tuple[transforms.Transform, ...], seed: int, images: np.ndarray) -> np.ndarray:
    return np.asarray(compiled(chain, jax.random.key(seed), images))


def image(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).random(shape, np.float32)


def grey(level: float, *shape: int) -> np.ndarray:
    return np.full(shape, level, np.float32)


def ramps(count: int, side: int) -> np.ndarray:
    ramp = np.linspace(0, 1, side, dtype=np.float32)[:, None]
    return np.tile(ramp, (count, side, 1, 1))


def shifted(picture: np.ndarray, down: int, right: int, fill: float) -> np.ndarray:
    height, width = picture.shape[:2]
    room = max(abs(down), abs(right))
    padded = np.pad(picture, ((room, room), (room, room), (0, 0)), constant_values=fill)
    return padded[room - down : room - down + height, room - right : room - right + width]


def test_an_empty_chain_is_the_identity():
    images = jax.device_put(image(2, 5, 4, 3))
    assert transforms.apply((), 0, images) is images


@pytest.mark.parametrize("chain", [(Noise(0.1),), (Pad(2), Noise(0.1))])
def test_nothing_is_resampled_where_nothing_moves(chain):
    jaxpr = jax.make_jaxpr(lambda x: transforms.apply(chain, 0, x))(image(1, 5, 4, 3))
    assert "gather" not in str(jaxpr)


def test_noise_has_its_sd_and_mean():
    images = image(4, 32, 32, 3)
    noise = apply((Noise(0.2),), 0, images) - images
    np.testing.assert_allclose([noise.mean(), noise.std()], [0, 0.2], atol=0.01)


def test_noise_comes_after_the_moves():
    chain = (Noise(0.2), Jitter(0), Scale((2,)))
    images = grey(0.5, 1, 32, 32, 3)
    # Resampled noise would be smooth: its neighbours would correlate.
    noise = apply(chain, 0, images) - images
    correlation = float((noise[:, 1:] * noise[:, :-1]).mean() / (noise**2).mean())
    assert abs(correlation) < 0.1


def test_jitter_shifts_bit_for_bit_and_everywhere():
    picture = image(5, 6, 3)
    views = apply((Pad(1, fill=0.25), Jitter(1)), 0, np.tile(picture, (100, 1, 1, 1)))
    wanted = {
        shifted(picture, down, right, 0.25).tobytes() for down in (-1, 0, 1) for right in (-1, 0, 1)
    }
    assert {np.asarray(view).tobytes() for view in views} == wanted


def test_roll_wraps_bit_for_bit_and_everywhere():
    picture = image(5, 6, 3)
    views = apply((Roll(1),), 0, np.tile(picture, (100, 1, 1, 1)))
    wanted = {
        np.roll(picture, (down, right), (0, 1)).tobytes()
        for down in (-1, 0, 1)
        for right in (-1, 0, 1)
    }
    assert {np.asarray(view).tobytes() for view in views} == wanted


@pytest.mark.parametrize(
    "chain", [(Rotate((0,)), Scale((1,))), (Jitter(0),), (Scale((0.5,)), Scale((2,)))]
)
def test_moves_that_cancel_copy_bit_for_bit(chain):
    images = image(1, 5, 6, 3)
    chex.assert_trees_all_equal(apply(chain, 0, images), images)


@pytest.mark.parametrize(("degrees", "turns"), [(90, 1), (180, 2), (-90, 3), (360, 0)])
def test_rotation_is_anticlockwise(degrees, turns):
    picture = image(6, 6, 3)
    view = apply((Rotate((degrees,)),), 0, picture[None])[0]
    np.testing.assert_allclose(view, np.rot90(picture, turns), atol=1e-5)


def test_a_zoom_out_by_two_averages_the_four_it_lands_between():
    picture = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1) / 16
    view = apply((Scale((0.5,)),), 0, picture)[0, 1:3, 1:3, 0]
    wanted = picture[0, ..., 0].reshape(2, 2, 2, 2).mean((1, 3))
    np.testing.assert_allclose(view, wanted, atol=1e-6)


def offsets(chain: tuple[transforms.Transform, ...]) -> np.ndarray:
    """By how many columns of a ramp, on which interpolation is exact, the centre has moved."""
    views = apply(chain, 0, ramps(64, 65))
    return (views[:, 32, 32, 0] - 0.5) * 64


@pytest.mark.parametrize(
    ("chain", "unit"),
    [((Jitter(2), Scale((2,))), 1.0), ((Scale((2,)), Jitter(2)), 0.5)],
    ids=["moved, then zoomed", "zoomed, then moved"],
)
def test_moves_are_made_in_their_order(chain, unit):
    found = np.unique(np.round(offsets(chain), 3))
    np.testing.assert_allclose(found, unit * np.arange(-2, 3), atol=1e-3)


@pytest.mark.parametrize(
    ("chain", "fill"), [((Pad(9, fill=0.2),), 0.2), ((Pad(0),), 0.5), ((), 0.5)]
)
def test_fill_is_read_outside_the_picture(chain, fill):
    view = apply((*chain, Scale((1e-3,))), 0, grey(1, 1, 8, 8, 3))
    assert (view[0, 0] == np.float32(fill)).all()


@chains
@pytest.mark.parametrize("shape", [(4, 9, 14, 3), (3, 1, 1, 1)])
def test_views_keep_shape_and_range(chain, shape):
    views = apply(chain, 0, image(*shape))
    assert views.shape == shape and views.dtype == jnp.float32
    assert views.min() >= 0 and views.max() <= 1


@chains
def test_each_image_draws_for_itself(chain):
    images = np.tile(image(9, 14, 3), (4, 1, 1, 1))
    views = apply(chain, 0, images)
    assert not np.array_equal(views[0], views[1]) or not np.array_equal(views[0], views[2])
    images[2:] = 1 - images[2:]
    np.testing.assert_array_equal(apply(chain, 0, images)[:2], views[:2])


@pytest.mark.parametrize("name", ["lucid", "turns"])
def test_an_image_is_seen_alike_in_any_batch(name):
    images = image(4, 9, 14, 3)
    alike = apply(CHAINS[name], 0, images)[:2]
    np.testing.assert_allclose(apply(CHAINS[name], 0, images[:2]), alike, atol=1e-6)


@chains
def test_a_key_repeats_its_views_and_another_does_not(chain):
    images = image(4, 9, 14, 3)
    views = apply(chain, 0, images)
    chex.assert_trees_all_equal(apply(chain, 0, images), views)
    assert not np.array_equal(apply(chain, 1, images), views)


def check_adjoint(
    chain: tuple[transforms.Transform, ...],
    shape: tuple[int, int, int],
    seen: tuple[int, int, int],
    atol: float,
) -> None:
    """⟨Jx, g⟩ = ⟨x, Jᵀg⟩ of the linear part J of twenty draws; x and g are random."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20, *shape)).astype(np.float32)
    g = rng.standard_normal((20, *seen)).astype(np.float32)

    @jax.jit
    def products(x: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Of zeros, which `fill` alone is seen of, and of x."""
        view = jax.vmap(lambda x: transforms.apply(chain, 0, x))
        views, back = jax.vjp(view, jnp.stack([jnp.zeros_like(x), x]))
        return views, back(jnp.stack([g, g]))[0][1]

    (fill, view), back = jax.device_get(products(x, g))
    forth = np.vecdot((view - fill).reshape(20, -1), g.reshape(20, -1))
    np.testing.assert_allclose(forth, np.vecdot(x.reshape(20, -1), back.reshape(20, -1)), atol=atol)


# Of a picture of one row the chain that has every move is enough.
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        pytest.param(name, shape, marks=[pytest.mark.slow] * (shape[0] == 1 and name != "lucid"))
        for name in CHAINS
        for shape in [(9, 6, 2), (1, 8, 1)]
    ],
)
def test_the_gradient_is_the_adjoint(name, shape):
    chain = CHAINS[name]
    check_adjoint(chain, shape, shape, atol=2e-5)


@pytest.mark.parametrize("name", ["lucid", "turns"])
def test_the_gradient_is_that_of_autodiff(name, monkeypatch):
    """Of some of the chains whose moves have an adjoint of their own."""

    def gradient() -> jax.Array:
        def loss(x: jax.Array) -> jax.Array:
            return (transforms.apply(CHAINS[name], 0, x) ** 3).sum()

        return jax.jit(jax.grad(loss))(image(2, 13, 17, 3))

    found = gradient()
    monkeypatch.setattr(views, "_WIDEST", 0)
    np.testing.assert_allclose(found, gradient(), atol=2e-5)


def test_the_gradient_of_a_preset_scatters_nothing():
    def loss(x: jax.Array) -> jax.Array:
        return compiled(transforms.lucid(224), jax.random.key(0), x).sum()

    assert "scatter" not in str(jax.make_jaxpr(jax.grad(loss))(image(1, 8, 8, 3)))


def test_a_batch_of_groups_is_its_groups_one_by_one():
    keys = jax.random.split(jax.random.key(0), 3)
    groups = image(3, 2, 9, 8, 3)
    chain = CHAINS["lucid"]
    together = jax.vmap(lambda key, images: compiled(chain, key, images))(keys, groups)
    alone = [compiled(chain, key, images) for key, images in zip(keys, groups, strict=True)]
    np.testing.assert_allclose(together, np.stack(alone), atol=1e-6)


ONES = np.ones((1, 4, 4, 3), np.float32)


def test_a_rebuilt_chain_does_not_retrace():
    traces = []

    @partial(jax.jit, static_argnums=0)
    def view(chain: tuple[transforms.Transform, ...], key: jax.Array) -> jax.Array:
        traces.append(chain)
        return transforms.apply(chain, key, jnp.ones((1, 4, 4, 3)))

    before = compiled._cache_size()
    view((Pad(2, fill=0), Scale([1, 2])), jax.random.key(0))
    view((Pad(np.int64(2), fill=0.0), Scale((1.0, 2.0))), jax.random.key(1))
    assert len(traces) == 1
    for seed in (0, 3):
        compiled((Noise(0.1), RandomCrop(3)), jax.random.key(seed), ONES)
    assert compiled._cache_size() == before + 1


@pytest.mark.parametrize(
    ("preset", "size", "pixels"),
    [
        (transforms.lucid, 224, [21, 14, 7]),
        (transforms.lucid, 128, [12, 8, 4]),
        (transforms.lucid, 64, [6, 4, 2]),
        (transforms.lucid, 32, [3, 2, 1]),
        (transforms.lucid, 28, [3, 2, 1]),
    ],
)
def test_presets_grow_with_the_image(preset, size, pixels):
    assert [move.pixels for move in preset(size) if hasattr(move, "pixels")] == pixels


def test_lucid_chooses_from_its_published_numbers():
    _, _, scale, rotate, _ = transforms.lucid(128)
    np.testing.assert_allclose(scale.factors, [1 + (i - 5) / 50 for i in range(11)])
    assert sorted(rotate.degrees) == sorted([*range(-10, 11), 0, 0, 0, 0, 0])


def test_the_whole_picture_as_a_part_is_the_picture():
    picture = image(2, 7, 5, 3)
    whole = (RandomCrop((7, 5), side=1, spread=0, centre=0),)
    chex.assert_trees_all_equal(apply(whole, 0, picture), picture)


def test_a_part_of_the_models_size_is_cut_out_bit_for_bit():
    picture = image(1, 16, 16, 3)
    part = apply((RandomCrop(4, side=0.25, spread=0, centre=0),), 0, picture)
    chex.assert_trees_all_equal(part, picture[:, 6:10, 6:10])


@pytest.mark.parametrize("side", [0.3, 0.1])
def test_parts_have_their_published_sizes_and_places(side):
    """On a ramp, which interpolation keeps, a view's slope is its size and its middle its place."""
    chain = (RandomCrop(9, side=side, spread=0.01, centre=0.05),)
    seen = np.asarray(compiled(chain, jax.random.key(0), ramps(1000, 101)))[:, 4, :, 0]
    slopes = (seen[:, 8] - seen[:, 0]) / 8 * 100 * 9 / 101
    np.testing.assert_allclose(slopes.mean(), side, atol=2e-3)
    np.testing.assert_allclose(slopes.std(), 0.01, atol=2e-3)
    np.testing.assert_allclose(seen[:, 4].mean(), 0.5, atol=0.01)
    np.testing.assert_allclose(seen[:, 4].std(), 0.05, atol=5e-3)


def test_moves_are_of_the_picture_before_a_crop_and_of_the_part_after_it():
    quarter = RandomCrop(65, side=0.25, spread=0, centre=0)
    for chain, unit in (((Jitter(2), quarter), 1.0), ((quarter, Jitter(2)), 0.25)):
        found = offsets(chain)
        wanted = unit * np.arange(-2, 3)
        np.testing.assert_allclose(np.unique(np.round(found, 3)), wanted, atol=2e-3)


@pytest.mark.parametrize("side", [0.05, 0.3, 1.0], ids=["scattered", "gathered", "shrunk"])
def test_the_gradient_of_a_part_is_the_adjoint(side):
    chain = (RandomCrop((6, 8), side=side, spread=0.01), Rotate((20,)))
    check_adjoint(chain, (24, 30, 2), (6, 8, 2), atol=1e-4)


def test_a_step_averages_over_its_parts():
    model = toys.pointwise()
    crop = RandomCrop((6, 8), side=0.4, count=5)
    problem = Problem(objectives.channel("conv", 1))
    picture, key = image(1, 20, 20, 3), jax.random.key(3)
    compiled_energy = jax.jit(energy, static_argnames="views")
    together, _ = compiled_energy(picture, key, model, problem, views=(crop,))
    alone = [
        compiled_energy(compiled((crop,), k, picture), k, model, problem)[0]
        for k in jax.random.split(key, 5)
    ]
    np.testing.assert_allclose(together, np.mean(alone), rtol=1e-5)
    assert np.ptp(alone) > 0.01


def test_macos_numbers():
    crop, noise = transforms.maco(224)
    assert (crop.size, crop.centre, crop.count) == ((224, 224), 0.15, 6)
    # U(.25, .3), by its mean and standard deviation.
    assert (crop.side, crop.spread) == (0.275, pytest.approx(0.05 / np.sqrt(12), abs=1e-4))
    # N(0, .05) and U(±.025) for pixels from −2.5 to 2.5.
    assert noise.sd == pytest.approx(np.sqrt(0.05**2 + 0.05**2 / 12) / 5, abs=1e-3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: RandomCrop(0), ValueError, "size: at least 1"),
        (lambda: RandomCrop(8, side=0.01), ValueError, r"side: a number in \[0.05, 1\]"),
        (lambda: RandomCrop(8, spread=-1), ValueError, "spread: a number in"),
        (lambda: RandomCrop(8, centre="."), TypeError, "centre: a number"),
        (lambda: RandomCrop(8, count=0), ValueError, "count: at least 1"),
        (lambda: transforms.maco(0), ValueError, "size: at least 1"),
        (lambda: transforms.maco(0.5), TypeError, "size: an int"),
        (
            lambda: transforms.apply((RandomCrop(2), RandomCrop(2)), 0, image(1, 4, 4, 3)),
            ValueError,
            "one RandomCrop",
        ),
        (lambda: Jitter(-1), ValueError, "pixels: at least 0.*-1"),
        (lambda: Jitter(1.5), TypeError, "pixels: an int.*1.5"),
        (lambda: Scale(()), ValueError, "factors: at least one"),
        (lambda: Scale((1, 0)), ValueError, "factors: a number above 0.*0"),
        (lambda: Scale(1.1), TypeError, "factors: a tuple.*1.1"),
        (lambda: Scale((float("inf"),)), ValueError, "factors: .*inf"),
        (lambda: Rotate(("5",)), TypeError, "degrees: a number.*'5'"),
        (lambda: Rotate((400,)), ValueError, "degrees: .*400"),
        (lambda: Pad(2, fill=1.5), ValueError, "fill: .*1.5"),
        (lambda: Roll(-1), ValueError, "pixels: .*-1"),
        (
            lambda: transforms.apply((Jitter(1), Roll(1)), 0, image(1, 4, 4, 3)),
            ValueError,
            "Roll was expected in the first place",
        ),
        (lambda: Noise(float("nan")), ValueError, "sd: .*nan"),
        (lambda: transforms.lucid(0), ValueError, "size: at least 1.*0"),
        (lambda: transforms.lucid(8, patch=0), ValueError, "patch: at least 1.*0"),
        (
            lambda: transforms.apply(Jitter(1), 0, image(1, 4, 4, 3)),
            TypeError,
            "transforms: a tuple",
        ),
        (lambda: transforms.apply((Pad(1), Pad(2)), 0, image(1, 4, 4, 3)), ValueError, "one Pad"),
        (
            lambda: transforms.apply(("blur",), 0, image(1, 4, 4, 3)),
            TypeError,
            "transforms: .*'blur'",
        ),
        (
            lambda: transforms.apply((Jitter(1),), 0, image(4, 4, 3)),
            ValueError,
            r"images: .*\(4, 4, 3\)",
        ),
        (lambda: transforms.apply((Jitter(1),), None, image(1, 4, 4, 3)), TypeError, "key: .*None"),
        (
            lambda: transforms.apply((Jitter(1),), 0, np.zeros((1, 4, 4, 3), np.uint8)),
            TypeError,
            "images: float32 .*uint8",
        ),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("patch", [1, 8, 14, 16, 32])
@pytest.mark.parametrize("size", [32, 224])
def test_a_grid_of_patches_falls_on_every_place(size, patch):
    plain, chain = transforms.lucid(size), transforms.lucid(size, patch=patch)
    assert chain[1].options >= patch
    assert chain == (plain if plain[1].options >= patch else (plain[0], chain[1], *plain[2:]))
