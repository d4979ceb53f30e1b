"""The two small networks of `tests/golden/attribution` as models."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax

import rvis
from rvis.types import identity
from tests.golden.attribution import seeded_networks as golden

LAYOUT = ("NHWC", "OIHW", "NHWC")


def conv(x, p, stride=1):
    pad = p["kernel"].shape[-1] // 2
    pads = [(pad, pad)] * 2
    y = lax.conv_general_dilated(x, p["kernel"], (stride,) * 2, pads, dimension_numbers=LAYOUT)
    return y + p["bias"]


def norm(x, p):
    # Axes of one place, as Flax has them, and none.
    mean, var = (p[name].reshape(1, 1, 1, -1) for name in ("mean", "var"))
    return (x - mean) * (lax.rsqrt(var + 1e-5) * p["scale"]) + p["shift"]


def pool(x, how):
    window = (1, 2, 2, 1)
    if how == "max":
        return lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")
    return lax.reduce_window(x, 0.0, lax.add, window, window, "VALID") / 4


def plain(params, x, *, tap=identity, relu=jax.nn.relu, first="max"):
    x = relu(tap("conv1", conv(x, params["conv1"])))
    x = relu(tap("conv2", conv(x, params["conv2"])))
    x = tap("pool1", pool(x, first))
    x = tap("relu3", relu(tap("conv3", conv(x, params["conv3"]))))
    x = tap("pool2", pool(x, "avg"))
    x = x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)
    for name in ("fc1", "fc2"):
        x = tap(name, x @ params[name]["kernel"].T + params[name]["bias"])
        x = relu(x) if name == "fc1" else x
    return x


def residual(params, x, *, tap=identity, relu=jax.nn.relu):
    def folded(name, x, bn, stride=1):
        return norm(conv(x, params[name], stride), params[bn])

    x = tap("stem", relu(folded("conv1", x, "bn1")))
    x = pool(x, "max")
    y = relu(folded("a.conv1", x, "a.bn1"))
    x = tap("a", relu(folded("a.conv2", y, "a.bn2") + x))
    y = relu(folded("b.conv1", x, "b.bn1", 2))
    x = tap("b", relu(folded("b.conv2", y, "b.bn2") + folded("b.down", x, "b.downbn", 2)))
    x = tap("pooled", x.mean((1, 2)))
    return tap("fc", x @ params["fc"]["kernel"].T + params["fc"]["bias"])


def _apply(function):
    def apply(params, images, *, tap=identity, relu=jax.nn.relu):
        x = (images - jnp.asarray(golden.MEAN)) / jnp.asarray(golden.STD)
        return function(params, x, tap=tap, relu=relu)

    return apply


def _model(function, params, layers):
    params = jax.tree.map(jnp.asarray, params)
    return rvis.Model(params, _apply(function), layers, golden.SHAPE, (), function.__name__)


def variant(name):
    """The plain network with averages for maxima, or maxima without ReLUs."""

    def apply(params, images, *, tap=identity, relu=jax.nn.relu):
        function = functools.partial(plain, first="avg") if name == "average" else plain
        own = relu if name == "average" else lambda x: x
        return _apply(function)(params, images, tap=tap, relu=own)

    model = MODELS["plain"]
    return rvis.Model(model.params, apply, model.layers, golden.SHAPE, (), name)


MODELS = {
    "plain": _model(
        plain,
        golden.PLAIN,
        ("conv1", "conv2", "pool1", "conv3", "relu3", "pool2", "fc1", "fc2"),
    ),
    "residual": _model(residual, golden.RESIDUAL, ("stem", "a", "b", "pooled", "fc")),
}
