"""Attention of a small transformer with seeded weights, against a forward pass by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rvis
from rvis import attribution
from rvis.models.families.vit import ViT
from tests.attribution.explained import MODELS
from tests.golden.attribution import seeded_networks as golden

QUIET = {"progress": False}
MODULE = ViT(patch=4, width=8, depth=2, heads=2, image=12, classes=3)


@pytest.fixture(scope="module")
def model():
    variables = jax.eval_shape(MODULE.init, jax.random.key(0), jnp.zeros((1, 12, 12, 3)))
    leaves, structure = jax.tree.flatten(variables)
    rng = np.random.default_rng(0)
    drawn = [jnp.asarray(rng.normal(size=leaf.shape) * 0.4, jnp.float32) for leaf in leaves]
    return rvis.from_linen(MODULE, jax.tree.unflatten(structure, drawn), input_shape=(12, 12, 3))


IMAGES = np.random.default_rng(1).random((2, 12, 12, 3), np.float32)


def attentions(model, image, shifts):
    """The logits and the weights of both blocks, the latter shifted: from the weights by hand."""
    p = model.params["params"]

    def norm(x, q):
        x = x - x.mean(-1, keepdims=True)
        return x / jnp.sqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-6) * q["scale"] + q["bias"]

    def dense(x, q):
        return x @ q["kernel"] + q["bias"]

    patches = image.reshape(3, 4, 3, 4, 3).transpose(0, 2, 1, 3, 4).reshape(9, 48)
    x = patches @ p["patch_embed.proj"]["kernel"].reshape(48, 8) + p["patch_embed.proj"]["bias"]
    x = jnp.concatenate([p["cls_token"][0], x]) + p["pos_embed"][0]
    weights = []
    for b in range(2):
        q = p[f"blocks.{b}"]
        y = dense(norm(x, q["norm1"]), q["attn.qkv"]).reshape(10, 3, 2, 4)
        a = jax.nn.softmax(jnp.einsum("qhd,khd->hqk", y[:, 0] / 2, y[:, 1])) + shifts[b]
        weights.append(a)
        x = x + dense(jnp.einsum("hqk,khd->qhd", a, y[:, 2]).reshape(10, 8), q["attn.proj"])
        y = norm(x, q["norm2"])
        mlp = q["mlp"]
        x = x + dense(jax.nn.gelu(dense(y, mlp["fc1"]), approximate=False), mlp["fc2"])
    return dense(norm(x, p["norm"])[0], p["head"]), weights


def test_rollout_and_gradients_by_hand(model):
    rolled = attribution.attention_rollout(model, IMAGES, 1, **QUIET)
    by_gradient = attribution.attention_gradient(model, IMAGES, 1, **QUIET)
    forward = jax.jit(lambda image, shift: attentions(model, image, shift))
    slope = jax.jit(jax.grad(lambda image, shift: forward(image, shift)[0][1], 1))
    for i, image in enumerate(IMAGES):
        zeros = [jnp.zeros((2, 10, 10))] * 2
        logits, weights = forward(image, zeros)
        np.testing.assert_allclose(rolled.scores[i], logits[1], rtol=1e-3)
        one, two = ((w.mean(0) + jnp.eye(10)) / 2 for w in weights)
        np.testing.assert_allclose(rolled.raw[i].ravel(), (two @ one)[0, 1:], rtol=1e-3)
        slopes = slope(image, zeros)
        one, two = (jnp.maximum(g * w, 0).mean(0) for g, w in zip(slopes, weights, strict=True))
        whole = (jnp.eye(10) + two) @ (jnp.eye(10) + one)
        np.testing.assert_allclose(by_gradient.raw[i].ravel(), whole[0, 1:], rtol=2e-3, atol=1e-6)


def test_grad_cam_takes_the_tokens_that_the_last_attention_reads(model):
    result = attribution.grad_cam(model, IMAGES, 1, **QUIET)
    assert result.config["layer"] == "blocks.1.norm1"
    assert result.raw.shape == (2, 3, 3)


def test_other_networks_are_refused():
    with pytest.raises(ValueError, match="model: a transformer with tokens was expected"):
        attribution.attention_rollout(MODELS["plain"], golden.IMAGES, 1, **QUIET)
