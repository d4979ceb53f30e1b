"""Twelve kinds of networks with the same weights, by fifteen functions: each is right or refuses."""

from __future__ import annotations

import dataclasses
import functools
import os
from functools import partial

os.environ.setdefault("KERAS_BACKEND", "jax")

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

import rvis
from rvis import attacks, attribution
from rvis.models import taps

SHAPE = (8, 8, 3)
RNG = np.random.default_rng(0)
KERNEL = RNG.standard_normal((3, 3, 3, 4)).astype(np.float32) / 3
BIAS = RNG.standard_normal(4).astype(np.float32) / 9
DENSE = RNG.standard_normal((4, 3)).astype(np.float32)
IMAGES = RNG.random((3, *SHAPE)).astype(np.float32)


def convolved(kernel, bias, x):
    dims = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=dims) + bias


def mapped(x, relu):
    """What every network below computes before its mean, in plain JAX."""
    return relu(convolved(KERNEL, BIAS, x))


def plain(x, relu=jax.nn.relu):
    return mapped(x, relu).mean((1, 2)) @ DENSE


MIDDLE = float(plain(IMAGES)[:, 0].mean())


# --- the same network in twelve ways ---------------------------------------------------------

VARIABLES = {"params": {"conv": {"kernel": KERNEL, "bias": BIAS}, "out": {"kernel": DENSE}}}


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), name="conv")(x))
        return nn.Dense(3, use_bias=False, name="out")(x.mean((1, 2)))


class LinenRelu(nn.Module):
    @nn.compact
    def __call__(self, x, *, tap=lambda name, x: x, relu=nn.relu):
        x = relu(tap("conv", nn.Conv(4, (3, 3), name="conv")(x)))
        return nn.Dense(3, use_bias=False, name="out")(x.mean((1, 2)))


class Both(nn.Module):
    """Two outputs, and maps."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), name="conv")(x))
        out = nn.Dense(3, use_bias=False, name="out")
        return {"logits": out(x.mean((1, 2))), "maps": x @ DENSE}


class One(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), name="conv")(x))
        return (x.mean((1, 2)) @ DENSE)[:, 0] - MIDDLE


class Nnx(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.out = nnx.Linear(4, 3, use_bias=False, rngs=rngs)
        self.conv.kernel[...], self.conv.bias[...] = jnp.asarray(KERNEL), jnp.asarray(BIAS)
        self.out.kernel[...] = jnp.asarray(DENSE)

    def __call__(self, x):
        return self.out(nnx.relu(self.conv(x)).mean((1, 2)))


class Vit(nnx.Module):
    """2×2 patches, one block with attention, a class token."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(3, 8, (2, 2), strides=(2, 2), rngs=rngs)
        self.token = nnx.Param(jnp.ones((1, 1, 8)))
        self.norm = nnx.LayerNorm(8, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, 8, decode=False, rngs=rngs)
        self.inner = nnx.Linear(8, 16, rngs=rngs)
        self.outer = nnx.Linear(16, 8, rngs=rngs)
        self.out = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        x = self.conv(x)
        x = x.reshape(x.shape[0], -1, 8)
        x = jnp.concatenate([jnp.broadcast_to(self.token[...], (len(x), 1, 8)), x], 1)
        x = x + self.attention(self.norm(x))
        x = x + self.outer(nnx.gelu(self.inner(x)))
        return self.out(x[:, 0])


VIT = Vit()


def equinox():
    eqx = pytest.importorskip("equinox")

    class Net(eqx.Module):
        conv: eqx.nn.Conv2d
        out: eqx.nn.Linear
        drop: eqx.nn.Dropout

        def __call__(self, x):
            x = jax.nn.relu(self.conv(x))
            return self.out(self.drop(x).mean((1, 2)))

    key = jax.random.key(0)
    conv = eqx.nn.Conv2d(3, 4, 3, padding=1, key=key)
    out = eqx.nn.Linear(4, 3, use_bias=False, key=key)
    conv = eqx.tree_at(
        lambda c: (c.weight, c.bias), conv, (KERNEL.transpose(3, 2, 0, 1), BIAS[:, None, None])
    )
    out = eqx.tree_at(lambda d: d.weight, out, DENSE.T)
    return rvis.from_equinox(Net(conv, out, eqx.nn.Dropout(0.5)), input_shape=SHAPE)


def keras():
    k = pytest.importorskip("keras")
    net = k.Sequential(
        [
            k.Input(SHAPE),
            k.layers.Conv2D(4, 3, padding="same", name="conv"),
            k.layers.ReLU(name="relu"),
            k.layers.Dropout(0.5),
            k.layers.GlobalAveragePooling2D(name="mean"),
            k.layers.Dense(3, use_bias=False, name="out"),
        ]
    )
    net.set_weights([KERNEL, BIAS, DENSE])
    return rvis.from_keras(net)


PARAMS = {"kernel": KERNEL, "bias": BIAS, "dense": DENSE}


def named(params, x):
    x = checkpoint_name(convolved(params["kernel"], params["bias"], x), "conv")
    return jnp.maximum(x, 0).mean((1, 2)) @ params["dense"]


def unnamed(params, x):
    x = jax.jit(jax.nn.relu)(convolved(params["kernel"], params["bias"], x))
    return x.mean((1, 2)) @ params["dense"]


linen = partial(rvis.from_linen, input_shape=SHAPE)
ONE = {"params": {"conv": VARIABLES["params"]["conv"]}}


@dataclasses.dataclass(frozen=True)
class Kind:
    """A network, what it computes in plain JAX, and its first convolution's name."""

    make: object
    plain: object = plain
    layer: str = "conv"
    refuses: str = ""  # what class targets and labels are refused with
    smooth: bool = False  # whether it has gelu in the place of ReLU


def of_one_logit(x, relu=jax.nn.relu):
    z = (plain(x, relu)[:, :1] - MIDDLE) / 2
    return jnp.concatenate([-z, z], 1)


def of_maps(x, relu=jax.nn.relu):
    return mapped(x, relu) @ DENSE


KINDS = {
    "linen": Kind(lambda: linen(Linen(), VARIABLES)),
    "linen with relu=": Kind(lambda: linen(LinenRelu(), VARIABLES)),
    "nnx": Kind(lambda: rvis.from_nnx(Nnx(), input_shape=SHAPE)),
    "nnx vit": Kind(
        lambda: rvis.from_nnx(VIT, input_shape=SHAPE), lambda x, relu=None: VIT(x), smooth=True
    ),
    "equinox": Kind(equinox),
    "keras": Kind(keras),
    "function": Kind(lambda: rvis.from_function(named, PARAMS, SHAPE)),
    "function without names": Kind(
        lambda: rvis.from_function(unnamed, PARAMS, SHAPE, primitives=["conv_general_dilated"]),
        layer="conv_general_dilated",
    ),
    "two outputs": Kind(lambda: linen(Both(), VARIABLES, output="logits")),
    "embedder": Kind(
        lambda: linen(Linen(), VARIABLES, kind="embedding"), refuses="model gives embedding"
    ),
    "segmenter": Kind(
        lambda: linen(Both(), VARIABLES, output="maps"), of_maps, refuses="model gives maps"
    ),
    "one logit": Kind(lambda: linen(One(), ONE), of_one_logit),
}


@functools.cache
def model_of(kind):
    return KINDS[kind].make()


# --- fifteen functions -----------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=0)
def expected(kind, x):
    """The output in plain JAX."""
    return KINDS[kind].plain(x)


@functools.partial(jax.jit, static_argnums=(0, 2))
def score(kind, x, relu=jax.nn.relu):
    """The target's: unit 1 of the output, averaged over places where there are some."""
    out = KINDS[kind].plain(x, relu)
    return out[..., 1].mean(tuple(range(1, out.ndim - 1)))


def slope(kind, relu=jax.nn.relu):
    return jax.jit(jax.grad(lambda x: score(kind, x, relu).sum()))(IMAGES)


def target(kind):
    return rvis.objectives.channel("logits", 1) if KINDS[kind].refuses else 1


def close(given, expected):
    np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-6)


def output(model, kind):
    close(model(IMAGES), expected(kind, IMAGES))


def record(model, kind):
    layer = KINDS[kind].layer
    seen = rvis.record(model, IMAGES, layer)[layer]
    if kind == "nnx vit":
        return close(seen, VIT.conv(IMAGES))
    bias = 0 if layer == "conv_general_dilated" else BIAS
    return close(seen, convolved(KERNEL, bias, IMAGES))


def replace(model, kind):
    layer = KINDS[kind].layer
    own = rvis.record(model, IMAGES, layer)[layer]
    apply = jax.jit(lambda x, own: model.apply(model.params, x, tap=taps.replacing({layer: own})))
    close(apply(jnp.zeros_like(IMAGES), own), expected(kind, IMAGES))


def gradient(model, kind):
    close(attribution.gradient(model, IMAGES, target(kind), progress=False).maps, slope(kind))


def ruled(model, kind, method, rule):
    maps = getattr(attribution, method)(model, IMAGES, target(kind), progress=False).maps
    if KINDS[kind].smooth:  # no ReLU: see test_interpret for gelu's rule
        assert np.isfinite(maps).all() and np.abs(maps - slope(kind)).max() > 1e-4
    else:
        close(maps, slope(kind, rule))


def integrated(model, kind):
    maps = attribution.integrated_gradients(
        model, IMAGES, target(kind), steps=64, progress=False
    ).maps
    change = score(kind, IMAGES) - score(kind, np.zeros_like(IMAGES))
    np.testing.assert_allclose(maps.sum((1, 2, 3)), change, atol=0.01)


def grad_cam(model, kind):
    layer = KINDS[kind].layer
    result = attribution.grad_cam(model, IMAGES, target(kind), layer=layer, progress=False)
    own = rvis.record(model, IMAGES, layer)[layer]

    def above(activation):
        tap = taps.replacing({layer: activation})
        out = model.apply(model.params, IMAGES, tap=tap)
        return out[..., 1].mean(tuple(range(1, out.ndim - 1))).sum()

    weights = jax.jit(jax.grad(above))(own).mean((1, 2), keepdims=True)
    close(result.raw, np.maximum((weights * own).sum(-1), 0))


def occlusion(model, kind):
    options = {"window": 8, "stride": 8, "progress": False}
    maps = attribution.occlusion(model, IMAGES, target(kind), **options).maps
    change = score(kind, IMAGES) - score(kind, np.zeros_like(IMAGES))
    close(maps[:, 4, 4], change)


def climbs(model, kind, wanted):
    result = rvis.visualize(
        model,
        wanted,
        image="pixel",
        start=IMAGES[:1],
        transforms=(),
        steps=3,
        progress=False,
    )
    higher = rvis.record(model, result.images, wanted.layers[0])[wanted.layers[0]]
    lower = rvis.record(model, IMAGES[0], wanted.layers[0])[wanted.layers[0]]
    assert higher[..., 1].mean() > lower[..., 1].mean()


def dream(model, kind):
    wanted = rvis.objectives.channel(KINDS[kind].layer, 1)
    result = rvis.deepdream(model, IMAGES[0], wanted, octaves=1, steps=2, jitter=0, progress=False)
    seen = rvis.record(model, np.stack([IMAGES[0], result.images]), KINDS[kind].layer)
    before, after = seen[KINDS[kind].layer][..., 1].mean((1, 2))
    assert after > before


def visualized_class(model, kind):
    result = rvis.visualize(
        model, 1, image="pixel", start=IMAGES[:1], transforms=(), steps=3, progress=False
    )
    assert score(kind, result.images[None])[0] > score(kind, IMAGES)[0]


def attack(model, kind, method, **options):
    labels = np.asarray(expected(kind, IMAGES)).argmax(1)
    result = getattr(attacks, method)(model, IMAGES, labels, progress=False, **options)
    left = np.asarray(expected(kind, result.images)).argmax(1) != labels
    assert (left == result.success).all() and result.success.any()


def invert(model, kind):
    layer = KINDS[kind].layer
    result = rvis.invert(model, IMAGES[:1], layer, image="pixel", steps=3, progress=False)
    assert result.images.shape[-3:] == SHAPE and np.isfinite(result.images).all()


FUNCTIONS = {
    "call": output,
    "record": record,
    "replace": replace,
    "gradient": gradient,
    "guided": partial(ruled, method="guided_backprop", rule=taps.guided_relu),
    "deconvnet": partial(ruled, method="deconvnet", rule=taps.deconvnet_relu),
    "integrated gradients": integrated,
    "grad_cam": grad_cam,
    "occlusion": occlusion,
    "visualize": lambda m, k: climbs(m, k, rvis.objectives.channel(KINDS[k].layer, 1)),
    "deepdream": dream,
    "invert": invert,
    "visualize a class": visualized_class,
    "pgd": partial(attack, method="pgd", eps=0.5, steps=5),
    "deepfool": partial(attack, method="deepfool", steps=20),
}
OF_CLASSES = ("visualize a class", "pgd", "deepfool")
LIKE_OTHERS = (
    *("deconvnet", "deepdream", "deepfool", "integrated gradients", "invert", "occlusion"),
    *("visualize", "visualize a class"),
)
"""What asks no more of a network than the other functions do: whole runs try it on one kind."""
SELDOM = {
    "pgd": ("nnx", "one logit"),
    "grad_cam": ("nnx", "nnx vit", "function without names", "segmenter"),
}
"""What asks for gradients and layers as `gradient` and `replace` do, with the kinds on which whole
runs try it: those whose classes or layers are made of something else."""


def slow(kind, function):
    if KINDS[kind].refuses and function in OF_CLASSES:
        return False
    return kind not in SELDOM.get(function, ("nnx",) if function in LIKE_OTHERS else KINDS)


@pytest.mark.parametrize(
    ("kind", "function"),
    [
        pytest.param(kind, function, marks=[pytest.mark.slow] * slow(kind, function))
        for kind in KINDS
        for function in FUNCTIONS
    ],
)
def test_each_function_of_each_kind_is_right_or_refuses(kind, function):
    model = model_of(kind)
    if KINDS[kind].refuses and function in OF_CLASSES:
        with pytest.raises(ValueError, match=f"^model: logits of classes.*{KINDS[kind].refuses}"):
            FUNCTIONS[function](model, kind)
    else:
        FUNCTIONS[function](model, kind)
