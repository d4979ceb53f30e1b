"""Tokens of transformers as grids: by hand on networks of a few tokens."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

import rvis
from rvis import attribution, objectives
from rvis.analysis import neighbours, patches
from rvis.models import architectures
from rvis.models.tokens import TokenGrid, gridded
from rvis.types import identity

RNG = np.random.default_rng(0)
IMAGES = RNG.random((2, 16, 16, 3), np.float32)
QUIET = {"progress": False}


class Tokens(nnx.Module):
    """Patches of 4×4 pixels, tokens before them, one attention, and a head on the first or all."""

    def __init__(self, before):
        rngs = nnx.Rngs(0)
        self.patch = nnx.Conv(3, 8, (4, 4), strides=(4, 4), padding="VALID", rngs=rngs)
        self.before = nnx.Param(np.random.default_rng(1).random((1, before, 8), np.float32))
        self.norm = nnx.LayerNorm(8, rngs=rngs)
        self.attend = nnx.MultiHeadAttention(2, 8, decode=False, rngs=rngs)
        self.head = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        x = self.patch(x).reshape(len(x), -1, 8)
        before = jnp.broadcast_to(self.before[...], (len(x), *self.before.shape[1:]))
        x = jnp.concatenate([before, x], 1)
        x = x + self.attend(self.norm(x))
        return self.head(x[:, 0] if before.shape[1] else x.mean(1))


def model(before=1):
    return rvis.from_nnx(Tokens(before), input_shape=(16, 16, 3))


@pytest.mark.parametrize("before", [0, 1, 5])
def test_layers_are_grids_and_class_tokens(before):
    shapes = rvis.layer_shapes(model(before))
    assert shapes["norm"] == shapes["attend"] == (4, 4, 8)
    assert shapes["attend.query"] == (4, 4, 8), "heads times their width"
    assert shapes.get("norm.class") == ((8,) if before else None)
    assert rvis.layer_shapes(model(before), (24, 8, 3))["norm"] == (6, 2, 8)


@pytest.mark.parametrize("before", [0, 1, 5])
def test_a_grid_has_the_tokens_in_their_places(before):
    one = model(before)
    seen = rvis.record(one, IMAGES, ["patch", "norm"])
    x = np.asarray(seen["patch"])
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(seen["norm"], expected, atol=1e-5)


@pytest.mark.parametrize("layer", ["norm", "attend.key", "norm.class"])
def test_what_a_tap_gives_takes_its_place(layer):
    one = model()

    def logits(change):
        def tap(name, x):
            return change(x) if name == layer else x

        return one.apply(one.params, IMAGES, tap=tap)

    np.testing.assert_array_equal(logits(lambda x: x), one(IMAGES))
    np.testing.assert_allclose(logits(lambda x: x + 0.0), one(IMAGES), rtol=1e-6)
    assert np.abs(logits(lambda x: x + 1) - one(IMAGES)).max() > 1e-3


HEADS = RNG.random((3, 2, 17, 5), np.float32)
LAYERS = [("patch", (4, 4, 8)), ("tokens", (17, 8)), ("heads", (2, 17, 5))]


def of_heads(params, images, *, tap=identity, relu=jax.nn.relu):
    tap("tokens", jnp.zeros((3, 17, 8)))
    return tap("heads", jnp.asarray(HEADS))


def test_heads_become_channels_of_the_grid():
    seen = {}
    apply = gridded(of_heads, LAYERS, (16, 16, 3))

    def tap(name, x):
        seen[name] = x
        return 2 * x

    out = apply(None, IMAGES[:1], tap=tap)
    expected = HEADS[:, :, 1:].transpose(0, 2, 1, 3).reshape(3, 4, 4, 10)
    np.testing.assert_array_equal(seen["heads"], expected)
    np.testing.assert_array_equal(seen["heads.class"], HEADS[:, :, 0].reshape(3, 10))
    np.testing.assert_array_equal(out, 2 * HEADS)


@pytest.mark.parametrize(
    ("layers", "shape", "grid", "expected"),
    [
        ([("a", (17, 8))], (16, 16, 3), None, ((4, 4), 1)),
        ([("a", (201, 8))], (224, 224, 3), None, ((16, 16), 5)),
        ([("p", (2, 6, 8)), ("a", (13, 8))], (8, 24, 3), None, ((4, 4), 1)),
        ([("a", (12, 8))], (8, 24, 3), (2, 6), ((4, 4), 0)),
        ([("a", (7, 8))], (16, 16, 3), None, None),
        ([("a", (2, 8))], (16, 16, 3), None, None),
        ([("a", (16,)), ("b", (4, 4, 16))], (16, 16, 3), None, None),
    ],
)
def test_the_grid_is_found(layers, shape, grid, expected):
    apply = gridded(of_heads, layers, shape, grid)
    kept = (apply.patch, apply.before) if isinstance(apply, TokenGrid) else None
    assert kept == expected


def test_a_grid_that_no_layer_has_is_refused():
    with pytest.raises(ValueError, match=r"grid: as many places .* given \(5, 5\); .* \[17\]"):
        gridded(of_heads, LAYERS, (16, 16, 3), (5, 5))


def test_grad_cam_looks_where_the_class_token_still_reads():
    found = attribution.grad_cam(model(), IMAGES, 0, **QUIET)
    assert found.config["layer"] == "attend.value" and found.raw.shape == (2, 4, 4)
    by_name = attribution.grad_cam(model(), IMAGES, 0, layer="norm", **QUIET).raw
    one = model()
    seen = rvis.record(one, IMAGES, "norm")["norm"]

    def logit(x, i):
        tap = rvis.models.taps.replacing({"norm": x[None]})
        return one.apply(one.params, IMAGES[i : i + 1], tap=tap)[0, 0]

    for i in range(2):
        weights = jax.jit(jax.grad(logit), static_argnums=1)(seen[i], i).mean((0, 1))
        np.testing.assert_allclose(by_name[i], np.maximum(seen[i] @ weights, 0), atol=1e-6)


def test_tokens_are_places_for_every_method():
    one = model()
    neurons = objectives.neuron("attend", [0, 1], (3, 2))
    assert rvis.visualize(one, neurons, steps=2, **QUIET).images.shape == (2, 16, 16, 3)
    assert rvis.invert(one, IMAGES, "attend", steps=2, **QUIET).images.shape == IMAGES.shape
    pictures = (255 * IMAGES).astype(np.uint8)
    data = rvis.data.Dataset(pictures, np.zeros(2, np.int32), ("one",), "noise")
    assert neighbours.nearest(one, IMAGES, data, "norm", k=1).indices.tolist() == [[0], [1]]
    assert patches.top_activations(one, "norm", [1], data, k=2).patches.shape[:2] == (1, 2)


def test_a_grid_of_another_shape_is_given():
    def tokens(params, images):
        x = checkpoint_name(images.reshape(images.shape[0], 32, 24) @ params, "tokens")
        return x.mean(1)

    options = {"params": jnp.eye(24, 2), "input_shape": (8, 32, 3)}
    assert rvis.layer_shapes(rvis.from_function(tokens, **options))["tokens"] == (32, 2)
    seen = rvis.layer_shapes(rvis.from_function(tokens, **options, grid=(4, 8)))
    assert seen["tokens"] == (4, 8, 2)
    with pytest.raises(ValueError, match="^grid: as many places"):
        rvis.from_function(tokens, **options, grid=(9, 9))


def test_guided_backpropagation_reaches_activations_that_take_no_relu():
    """A module may take `relu` and, of gelu alone, not use it."""
    small = {"depths": (1, 1), "widths": (4, 4)}
    one = architectures.build(
        "convnext_tiny", config=small, weights="random", input_shape=(32, 32, 3)
    )
    image = RNG.random((32, 32, 3), np.float32)
    plain, guided = (
        getattr(attribution, method)(one, image, 0, **QUIET).maps
        for method in ("gradient", "guided_backprop")
    )
    assert np.abs(plain - guided).max() > 0.1 * np.abs(plain).max()
