"""A network of two dense layers that takes random images for all of its classes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import rvis
from rvis.types import identity

SHAPE = (6, 8, 3)


def apply(params, images, *, tap=identity, relu=jax.nn.relu):
    """Logits of (n, 6, 8, 3)."""
    x = (images - 0.5).reshape(images.shape[0], -1)
    x = tap("hidden", relu(x @ params["hidden"]))
    return tap("dense", x @ params["dense"])


def network(classes=5):
    """With fixed pseudo-random weights."""
    rng = np.random.default_rng(0)
    params = {
        "hidden": jnp.asarray(rng.standard_normal((np.prod(SHAPE), 32)) / 4, jnp.float32),
        "dense": jnp.asarray(rng.standard_normal((32, classes)) / 4, jnp.float32),
    }
    names = tuple(f"c{i}" for i in range(classes))
    return rvis.Model(params, apply, ("hidden", "dense"), SHAPE, names, "small")


def images(count, seed=2):
    """Random ones, and what the network takes them for."""
    pictures = np.random.default_rng(seed).random((count, *SHAPE)).astype(np.float32)
    return pictures, np.asarray(network()(pictures)).argmax(1)
