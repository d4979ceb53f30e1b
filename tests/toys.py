"""Models small enough to be worked out by hand."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

import rvis
from rvis.models import architectures
from rvis.models.apply import LinenApply, assemble
from rvis.models.weights import convert
from rvis.types import identity


def apply(params, images, *, tap=identity, relu=jax.nn.relu):
    """A 1×1 convolution, its ReLU, the mean over places, and a dense layer."""
    x = tap("conv", images @ params["conv"] + params["bias"])
    x = tap("relu", relu(x))
    x = tap("pool", x.mean((1, 2)))
    return tap("dense", x @ params["dense"])


def pointwise(channels=3, width=4, classes=2, size=(6, 8), bias=0.0):
    """The model of `apply`, with fixed pseudo-random weights."""
    rng = np.random.default_rng(0)
    params = {
        "conv": jnp.asarray(rng.standard_normal((channels, width)), jnp.float32),
        "bias": jnp.full(width, bias, jnp.float32),
        "dense": jnp.asarray(rng.standard_normal((width, classes)), jnp.float32),
    }
    layers = ("conv", "relu", "pool", "dense")
    names = tuple(f"c{i}" for i in range(classes))
    return rvis.Model(params, apply, layers, (*size, channels), names, "pointwise")


def linear_apply(params, images, *, tap=identity, relu=jax.nn.relu):
    """Logits linear in the pixels."""
    return tap("out", images.reshape(images.shape[0], -1) @ params)


def linear(weights, shape):
    """A model whose logits are `weights` (H·W·C, k) applied to the pixels."""
    weights = jnp.asarray(weights, jnp.float32)
    return rvis.Model(weights, linear_apply, ("out",), shape, (), "linear")


@functools.cache
def outline(name):
    """An architecture without weights, for what depends on shapes alone."""
    known = architectures.ARCHITECTURES[name]
    apply = LinenApply(known.make())
    params = convert._template(apply.module, known.input_shape)
    return assemble(apply, params, known.input_shape, (), name)
