"""rvis.transforms: views are the moves they claim to be, and their gradients are exact."""

from __future__ import annotations

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rvis import transforms
from rvis.transforms import Crop, Jitter, Noise, Pad, Roll, Rotate, Scale

CHAINS = {
    "lucid": transforms.lucid(128),
    "distill": transforms.distill(224),
    "jitter": (Jitter(3),),
    "turns": (Rotate((33, 77, 190)), Scale((0.5, 0.7, 1.2)), Jitter(1)),
    "zoom": (Scale((3.0, 2.6)), Jitter(2)),
    "roll": (Roll(3),),
    "roll first": (Roll(2), Pad(1), Jitter(1), Scale((0.9, 1.1))),
    "far": (Jitter(50), Scale((0.2,))),
}
chains = pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS.keys())


compiled = jax.jit(transforms.apply, static_argnums=0)


def apply(chain: tuple[transforms.Transform, ...], seed: int, images: jax.Array) -> jax.Array:
    return compiled(chain, jax.random.key(seed), images)


def image(*shape: int) -> jax.Array:
    return jax.random.uniform(jax.random.key(7), shape)


def shifted(picture: np.ndarray, down: int, right: int, fill: float) -> np.ndarray:
    height, width = picture.shape[:2]
    room = max(abs(down), abs(right))
    padded = np.pad(picture, ((room, room), (room, room), (0, 0)), constant_values=fill)
    return padded[room - down : room - down + height, room - right : room - right + width]


def test_an_empty_chain_is_the_identity():
    images = image(2, 5, 4, 3)
    assert transforms.apply((), 0, images) is images


@pytest.mark.parametrize("chain", [(Noise(0.1),), (Pad(2), Crop(1)), (Pad(2), Noise(0.1))])
def test_nothing_is_resampled_where_nothing_moves(chain):
    jaxpr = jax.make_jaxpr(lambda x: transforms.apply(chain, 0, x))(image(1, 5, 4, 3))
    assert "gather" not in str(jaxpr)


def test_noise_has_its_sd_and_mean():
    images = image(4, 32, 32, 3)
    noise = apply((Noise(0.2),), 0, images) - images
    np.testing.assert_allclose([noise.mean(), noise.std()], [0, 0.2], atol=0.01)


def test_noise_comes_after_the_moves():
    chain = (Noise(0.2), Jitter(0), Scale((2,)))
    images = jnp.full((1, 32, 32, 3), 0.5)
    # Resampled noise would be smooth: its neighbours would correlate.
    noise = apply(chain, 0, images) - images
    correlation = float((noise[:, 1:] * noise[:, :-1]).mean() / (noise**2).mean())
    assert abs(correlation) < 0.1


def test_jitter_shifts_bit_for_bit_and_everywhere():
    picture = np.asarray(image(5, 6, 3))
    views = apply((Pad(1, fill=0.25), Jitter(1)), 0, jnp.tile(picture, (100, 1, 1, 1)))
    wanted = {
        shifted(picture, down, right, 0.25).tobytes() for down in (-1, 0, 1) for right in (-1, 0, 1)
    }
    assert {np.asarray(view).tobytes() for view in views} == wanted


def test_roll_wraps_bit_for_bit_and_everywhere():
    picture = np.asarray(image(5, 6, 3))
    views = apply((Roll(1),), 0, jnp.tile(picture, (100, 1, 1, 1)))
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
    picture = jnp.arange(16.0).reshape(1, 4, 4, 1) / 16
    view = apply((Scale((0.5,)),), 0, picture)[0, 1:3, 1:3, 0]
    wanted = picture[0, ..., 0].reshape(2, 2, 2, 2).mean((1, 3))
    np.testing.assert_allclose(view, wanted, atol=1e-6)


def offsets(chain: tuple[transforms.Transform, ...]) -> np.ndarray:
    """By how many columns of a ramp, on which interpolation is exact, the centre has moved."""
    ramp = jnp.broadcast_to(jnp.linspace(0, 1, 65)[:, None], (64, 65, 65, 1))
    views = apply(chain, 0, ramp)
    return np.asarray(views[:, 32, 32, 0] - 0.5) * 64


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
    view = apply((*chain, Scale((1e-3,))), 0, jnp.ones((1, 8, 8, 3)))
    assert (view[0, 0] == jnp.float32(fill)).all()


@chains
@pytest.mark.parametrize("shape", [(9, 14, 3), (1, 1, 1), (1, 7, 3)])
def test_views_keep_shape_and_range(chain, shape):
    views = apply(chain, 0, image(3, *shape))
    assert views.shape == (3, *shape) and views.dtype == jnp.float32
    assert views.min() >= 0 and views.max() <= 1


@chains
def test_each_image_draws_for_itself(chain):
    images = jnp.tile(image(9, 9, 3), (4, 1, 1, 1))
    views = apply(chain, 0, images)
    assert not jnp.array_equal(views[0], views[1]) or not jnp.array_equal(views[0], views[2])
    np.testing.assert_allclose(apply(chain, 0, images[:2]), views[:2], atol=1e-6)


@chains
def test_a_key_repeats_its_views_and_another_does_not(chain):
    images = image(4, 9, 9, 3)
    views = apply(chain, 0, images)
    chex.assert_trees_all_equal(apply(chain, 0, images), views)
    assert not jnp.array_equal(apply(chain, 1, images), views)


@chains
@pytest.mark.parametrize("shape", [(9, 6, 2), (1, 8, 1)])
def test_the_gradient_is_the_adjoint(chain, shape):
    @jax.jit
    @jax.vmap
    def products(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        x, g = jax.random.normal(key, (2, 1, *shape))
        fill, back = jax.vjp(lambda x: transforms.apply(chain, key, x), jnp.zeros_like(x))
        return jnp.vdot(transforms.apply(chain, key, x) - fill, g), jnp.vdot(x, back(g)[0])

    forth, back = products(jax.random.split(jax.random.key(0), 20))
    np.testing.assert_allclose(forth, back, atol=2e-5)


@chains
def test_the_gradient_is_that_of_autodiff(chain, monkeypatch):
    def gradient() -> jax.Array:
        def loss(x: jax.Array) -> jax.Array:
            return (transforms.apply(chain, 0, x) ** 3).sum()

        return jax.jit(jax.grad(loss))(image(2, 13, 17, 3))

    found = gradient()
    monkeypatch.setattr(transforms, "_WIDEST", 0)
    np.testing.assert_allclose(found, gradient(), atol=2e-5)


@pytest.mark.parametrize("preset", [transforms.lucid, transforms.distill])
def test_the_gradient_of_a_preset_scatters_nothing(preset):
    def loss(x: jax.Array) -> jax.Array:
        return apply(preset(224), 0, x).sum()

    assert "scatter" not in str(jax.make_jaxpr(jax.grad(loss))(image(1, 8, 8, 3)))


def test_a_batch_of_groups_is_its_groups_one_by_one():
    keys = jax.random.split(jax.random.key(0), 3)
    groups = image(3, 2, 9, 8, 3)
    chain = CHAINS["lucid"]
    together = jax.vmap(lambda key, images: compiled(chain, key, images))(keys, groups)
    alone = [compiled(chain, key, images) for key, images in zip(keys, groups, strict=True)]
    np.testing.assert_allclose(together, jnp.stack(alone), atol=1e-6)


def test_a_rebuilt_chain_does_not_retrace():
    traces = []

    @partial(jax.jit, static_argnums=0)
    def view(chain: tuple[transforms.Transform, ...], key: jax.Array) -> jax.Array:
        traces.append(chain)
        return transforms.apply(chain, key, jnp.ones((1, 4, 4, 3)))

    view((Pad(2, fill=0), Scale([1, 2])), jax.random.key(0))
    view((Pad(np.int64(2), fill=0.0), Scale((1.0, 2.0))), jax.random.key(1))
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("preset", "size", "pixels"),
    [
        (transforms.lucid, 224, [12, 8, 4]),
        (transforms.lucid, 128, [12, 8, 4]),
        (transforms.lucid, 64, [6, 4, 2]),
        (transforms.lucid, 32, [3, 2, 1]),
        (transforms.lucid, 28, [3, 2, 1]),
        (transforms.distill, 512, [16, 16, 8, 16]),
        (transforms.distill, 224, [16, 16, 8, 16]),
        (transforms.distill, 64, [5, 5, 2, 5]),
        (transforms.distill, 32, [2, 2, 1, 2]),
        (transforms.distill, 28, [2, 2, 1, 2]),
    ],
)
def test_presets_shrink_with_the_image(preset, size, pixels):
    assert [move.pixels for move in preset(size) if hasattr(move, "pixels")] == pixels


def test_lucid_chooses_from_its_published_numbers():
    _, _, scale, rotate, _ = transforms.lucid(128)
    np.testing.assert_allclose(scale.factors, [1 + (i - 5) / 50 for i in range(11)])
    assert sorted(rotate.degrees) == sorted([*range(-10, 11), 0, 0, 0, 0, 0])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Jitter(-1), ValueError, "pixels: at least 0.*-1"),
        (lambda: Jitter(1.5), TypeError, "pixels: an int.*1.5"),
        (lambda: Scale(()), ValueError, "factors: at least one"),
        (lambda: Scale((1, 0)), ValueError, "factors: a number above 0.*0"),
        (lambda: Scale(1.1), TypeError, "factors: a tuple.*1.1"),
        (lambda: Scale((float("inf"),)), ValueError, "factors: .*inf"),
        (lambda: Rotate(("5",)), TypeError, "degrees: a number.*'5'"),
        (lambda: Rotate((400,)), ValueError, "degrees: .*400"),
        (lambda: Pad(2, fill=1.5), ValueError, "fill: .*1.5"),
        (lambda: Crop(-2), ValueError, "pixels: .*-2"),
        (lambda: Roll(-1), ValueError, "pixels: .*-1"),
        (
            lambda: transforms.apply((Jitter(1), Roll(1)), 0, image(1, 4, 4, 3)),
            ValueError,
            "Roll was expected in the first place",
        ),
        (lambda: Noise(float("nan")), ValueError, "sd: .*nan"),
        (lambda: transforms.lucid(0), ValueError, "size: at least 1.*0"),
        (lambda: transforms.distill(2.5), TypeError, "size: an int.*2.5"),
        (
            lambda: transforms.apply(Jitter(1), 0, image(1, 4, 4, 3)),
            TypeError,
            "transforms: a tuple",
        ),
        (lambda: transforms.apply((Pad(1), Pad(2)), 0, image(1, 4, 4, 3)), ValueError, "one Pad"),
        (lambda: transforms.apply((Crop(1),), 0, image(1, 4, 4, 3)), ValueError, "at most the 0"),
        (
            lambda: transforms.apply((Pad(3), Crop(2), Crop(2)), 0, image(1, 4, 4, 3)),
            ValueError,
            "Crop of at most the 1 pixels.*given 2",
        ),
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
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
