"""Which layer of a network is its first to relevance: not what moves or averages pixels."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import rvis
from rvis.attribution import lrp

RNG = np.random.default_rng(0)
PICTURE = RNG.random((6, 6, 3)).astype(np.float32)
KERNEL = RNG.normal(size=(3, 3, 3, 4)).astype(np.float32)
HEAD = RNG.normal(size=(144, 3)).astype(np.float32)


def first_convolution(prepare, padding="SAME"):
    """A network whose first layer takes what `prepare` makes of the pixels."""

    def apply(params, images):
        kernel, head = params
        layout = ("NHWC", "HWIO", "NHWC")
        x = lax.conv_general_dilated(
            prepare(images), kernel, (1, 1), padding, dimension_numbers=layout
        )
        return jax.nn.relu(x).reshape(len(x), -1) @ head

    return rvis.from_function(apply, (KERNEL, HEAD), (6, 6, 3))


def assert_same_maps(model, other, composite):
    maps, expected = (
        lrp(each, PICTURE, 0, composite=composite, epsilon=0.25, progress=False).maps
        for each in (model, other)
    )
    np.testing.assert_allclose(maps, expected, atol=1e-3 * np.abs(expected).max())


WAYS = {
    "pad": lambda x: jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))),
    "flip twice": lambda x: x[..., ::-1][..., ::-1],
    "gather": lambda x: x[..., np.arange(3)],
    "concatenate": lambda x: jnp.concatenate([x[:, :3], x[:, 3:]], 1),
    "clip": lambda x: jnp.clip(x, 0, 1),
    "clamp": lambda x: lax.clamp(0.0, x, 1.0),
    "mean": lambda x: jnp.einsum("ah,nhwc->nawc", np.eye(6, dtype=np.float32), x),
}


PAIRS = [
    (way, composite)
    for way in WAYS
    for composite in ("epsilon_plus_flat", "epsilon_gamma_box")
    # Zeros that are padded have a share of what is flat.
    if (way, composite) != ("pad", "epsilon_plus_flat")
]


@pytest.mark.parametrize(("way", "composite"), PAIRS)
def test_pixels_may_be_moved_before_the_first_layer(way, composite):
    moved = first_convolution(WAYS[way], "VALID" if way == "pad" else "SAME")
    plain = first_convolution(lambda x: x)
    assert_same_maps(moved, plain, composite)


@pytest.mark.parametrize("composite", ["epsilon", "epsilon_plus_flat"])
def test_a_resize_is_a_mean(composite):
    shrunk = np.asarray(jax.image.resize(np.eye(6, dtype=np.float32), (4, 6), "linear"))

    def by_matrix(x):
        rows = jnp.einsum("ah,nhwc->nawc", shrunk, x)
        return jax.image.resize(jnp.einsum("bw,nawc->nabc", shrunk, rows), x.shape, "nearest")

    def by_jax(x):
        small = jax.image.resize(x, (len(x), 4, 4, 3), "linear")
        return jax.image.resize(small, x.shape, "nearest")

    assert_same_maps(first_convolution(by_jax), first_convolution(by_matrix), composite)


def test_a_dense_layer_of_constant_weights_is_no_mean():
    weights = RNG.random((108, 5)).astype(np.float32)
    weights /= weights.sum(0)
    bias, head = (RNG.normal(size=shape).astype(np.float32) for shape in (5, (5, 3)))

    def apply(params, images):
        hidden = jax.nn.relu(images.reshape(len(images), -1) @ params["weights"] + bias)
        return hidden @ params["head"]

    def closed(params, images):
        return apply(params | {"weights": weights}, images)

    passed = rvis.from_function(apply, {"weights": weights, "head": head}, (6, 6, 3))
    assert_same_maps(
        rvis.from_function(closed, {"head": head}, (6, 6, 3)), passed, "epsilon_plus_flat"
    )
