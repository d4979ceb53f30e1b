"""Functions read equation by equation: rules for activations on hand-worked gradients, and layers."""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from jax.ad_checkpoint import checkpoint_name

import rvis
from rvis import attribution
from rvis.models import interpret, taps
from rvis.models.families.resnet import ResNet
from rvis.models.weights import convert

X = jnp.asarray([[-1.0, -1.0, 2.0, 2.0]])
G = jnp.asarray([[3.0, -3.0, 3.0, -3.0]])
RESCUE = partial(taps.redirecting_relu, redirect=jnp.asarray(True))
RULES = {"guided": taps.guided_relu, "deconvnet": taps.deconvnet_relu, "rescue": RESCUE}


def identity(name, x):
    return x


@jax.custom_jvp
def own(x):
    return jax.nn.relu(x)


own.defjvp(lambda primals, tangents: (own(*primals), 7 * tangents[0]))

RELUS = {
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "maximum": lambda x: jnp.maximum(x, 0),
    "maximum, 0 first": lambda x: jnp.maximum(0.0, x),
    "maximum with zeros": lambda x: jnp.maximum(jnp.zeros_like(x), x),
    "lax.max": lambda x: lax.max(x, 0.0),
    "in jit": jax.jit(lambda x: jax.nn.relu(x) * 1.0),
    "in remat": jax.checkpoint(jax.nn.relu),
    "in cond": lambda x: lax.cond(x.sum() > -9, jax.nn.relu, lambda x: x, x),
    "in scan": lambda x: lax.scan(lambda c, _: (jax.nn.relu(c), c.sum()), x, None, length=3)[0],
    "in fori_loop": lambda x: lax.fori_loop(0, 2, lambda i, x: jnp.maximum(x, 0), x),
    "in vmap": jax.vmap(jax.nn.relu),
}


@pytest.mark.parametrize("function", RELUS.values(), ids=RELUS)
@pytest.mark.parametrize(
    ("rule", "expected"), [("guided", [0, 0, 3, 0]), ("deconvnet", [3, 0, 3, 0])]
)
def test_a_rule_takes_the_place_of_every_relu(function, rule, expected):
    y, pull = jax.vjp(lambda x: interpret.call(function, (x,), tap=None, relu=RULES[rule]), X)
    np.testing.assert_array_equal(y, function(X))
    assert pull(G)[0].tolist() == [expected]


def folded(x):
    """A scan with constants, a carry, slices and outputs, backwards; and a choice of three."""
    scale = x.mean() + 3

    def body(carry, piece):
        carry = jax.nn.relu(carry * scale - piece)
        return carry, carry + jax.nn.relu(piece)

    end, stacked = lax.scan(body, x[0], jnp.stack([x[0], 2 * x[0], -x[0]]), reverse=True)
    return lax.switch(jnp.int32(1), [jnp.sin, jax.nn.relu, jnp.cos], end) + stacked[0] - stacked[2]


def test_loops_and_branches_keep_their_values_under_a_rule():
    open_rule = jax.custom_vjp(jax.nn.relu)
    open_rule.defvjp(lambda x: (jax.nn.relu(x), x), lambda x, g: (jnp.where(x > 0, g, 0),))
    ruled = jax.vjp(lambda x: interpret.call(folded, (x,), tap=None, relu=open_rule), X)
    plain = jax.vjp(folded, X)
    np.testing.assert_array_equal(ruled[0], plain[0])
    np.testing.assert_allclose(ruled[1](G[0])[0], plain[1](G[0])[0], rtol=1e-6)
    assert np.abs(plain[1](G[0])[0]).max() > 1


SMOOTH = {
    "gelu": jax.nn.gelu,
    "exact gelu": partial(jax.nn.gelu, approximate=False),
    "silu": jax.nn.silu,
    "quick gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "leaky relu": jax.nn.leaky_relu,
    "elu": jax.nn.elu,
    "mish": jax.nn.mish,
    "hard silu": jax.nn.hard_silu,
    "in remat": jax.checkpoint(lambda x: jax.nn.gelu(x)),
}


@pytest.mark.parametrize("function", SMOOTH.values(), ids=SMOOTH)
@pytest.mark.parametrize("rule", RULES)
def test_of_a_smooth_activation_a_rule_sees_what_comes_back(function, rule):
    y, pull = jax.vjp(lambda x: interpret.call(function, (x,), tap=None, relu=RULES[rule]), X)
    # Two roundings of one number, where a compiler fuses what stands around it.
    np.testing.assert_allclose(y, function(X), rtol=1e-6)
    slope = jax.vjp(function, X)[1](G if rule == "rescue" else jnp.maximum(G, 0))[0]
    np.testing.assert_allclose(pull(G)[0], slope, rtol=1e-6)


NOTHING = {
    "clip": lambda x: jnp.clip(x, 0, 1),
    "hard sigmoid": jax.nn.hard_sigmoid,
    "a variance": lambda x: x * lax.rsqrt(jnp.maximum(0.0, x) + 1e-3),
    "a softmax": jax.nn.softmax,
    "a gate": lambda x: x * jax.nn.sigmoid(x.sum(-1, keepdims=True)),
    "a gradient of its own": own,
    "nothing": lambda x: 2 * x,
}


@pytest.mark.parametrize("function", NOTHING.values(), ids=NOTHING)
def test_what_is_no_activation_is_left_alone(function):
    def both(x):
        return function(x) + jax.nn.relu(x)

    def ruled(x):
        return interpret.call(both, (x,), tap=None, relu=taps.guided_relu)

    expected = jax.vjp(function, X)[1](G)[0] + jnp.asarray([[0.0, 0, 3, 0]])
    np.testing.assert_allclose(jax.vjp(ruled, X)[1](G)[0], expected, rtol=1e-6)
    with pytest.raises(ValueError, match="^relu: the model has no ReLU"):
        interpret.call(function, (X,), tap=None, relu=taps.guided_relu)


def looped(x):
    return lax.while_loop(lambda x: x.sum() > 99, jax.nn.relu, x)


def test_a_relu_that_no_rule_reaches_is_refused():
    with pytest.raises(ValueError, match="^an activation lies inside `while`"):
        interpret.call(looped, (X,), tap=None, relu=taps.guided_relu)
    np.testing.assert_array_equal(interpret.call(looped, (X,), tap=identity, relu=jax.nn.relu), X)


def name(x):
    return checkpoint_name(x, "inner")


PLACES = {
    "jit": (jax.jit(name), None),
    "remat": (jax.checkpoint(name), None),
    "scan": (lambda x: lax.scan(lambda c, _: (name(c), 0), x, None, length=3)[0], "scan"),
    "cond": (lambda x: lax.cond(x.sum() > 0, name, jnp.sin, x), "cond"),
    "while": (lambda x: lax.while_loop(lambda x: x.sum() > 99, name, x), "while"),
}


@pytest.mark.parametrize(("function", "refused"), PLACES.values(), ids=PLACES)
def test_a_layer_is_tapped_wherever_it_has_one_value(function, refused):
    def tap(name, x):
        assert name == "inner"
        return x + 5

    def run():
        return interpret.call(function, (X,), tap=tap, relu=jax.nn.relu, layers=["name"])

    if refused:
        with pytest.raises(ValueError, match=f"^layer 'inner' lies inside `{refused}`"):
            run()
    else:
        np.testing.assert_array_equal(run(), X + 5)


# --- from_function ---------------------------------------------------------------------------

SHAPE = (4, 4, 3)
WEIGHTS = {"one": jnp.ones((3, 3)), "two": jnp.eye(3, 2)}


def twice(params, x):
    for _ in range(2):
        x = checkpoint_name(x @ params["one"], "dense")
    return x.mean((1, 2)) @ params["two"]


def test_calls_of_one_name_are_numbered():
    model = rvis.from_function(twice, WEIGHTS, SHAPE, primitives=["dot_general"])
    assert model.layers == ("dot_general", "dense", "dot_general:1", "dense:1", "dot_general:2")
    seen = rvis.record(model, np.ones(SHAPE, np.float32), ["dense", "dense:1"])
    assert seen["dense"].max() == 3 and seen["dense:1"].max() == 9


def test_images_are_normalised_and_weights_kept_in_their_precision():
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), WEIGHTS)
    model = rvis.from_function(twice, half, SHAPE, mean=(0.5,), std=(0.25,))
    assert {leaf.dtype for leaf in jax.tree.leaves(model.params)} == {jnp.dtype("bfloat16")}
    np.testing.assert_allclose(model(np.ones(SHAPE, np.float32))[0, 0], 2 * 9, rtol=1e-2)


def scanned(params, x):
    x, _ = lax.scan(
        lambda x, _: (checkpoint_name(x @ params["one"], "block"), 0), x, None, length=2
    )
    return x.mean((1, 2)) @ params["two"]


def centred(params, x):
    x = x - x.mean(0)
    return x.mean((1, 2)) @ params["two"]


REFUSED = {
    "no function": (3, {}, TypeError, "^function: a function"),
    "no weights": (twice, {"params": "none"}, TypeError, "^params: "),
    "shape": (twice, {"input_shape": (4, 4)}, ValueError, "^input_shape: "),
    "primitives": (twice, {"primitives": ["conv"]}, ValueError, "^primitives: unknown 'conv'"),
    "one primitive": (twice, {"primitives": "dot_general"}, TypeError, "^primitives: a list"),
    "a layer in a loop": (scanned, {}, ValueError, "^function: .*layer 'block' lies inside `scan`"),
    "batch statistics": (centred, {}, ValueError, "^function: what it makes of an image depends"),
    "probabilities": (
        lambda p, x: jax.nn.softmax(twice(p, x)),
        {},
        ValueError,
        "^function: logits were expected of it, given probabilities",
    ),
    "two outputs": (
        lambda p, x: (twice(p, x), {"maps": x}),
        {},
        ValueError,
        r"^function: one array.*\(array \(1, 2\), \{'maps': array \(1, 4, 4, 3\)\}\); choose",
    ),
    "an output that is not there": (
        lambda p, x: {"logits": twice(p, x)},
        {"output": "maps"},
        ValueError,
        r"^output: one of the network's.*'maps' of \{'logits': array",
    ),
    "an output of no kind": (twice, {"output": 1.5}, TypeError, "^output: "),
    "an unknown kind": (twice, {"kind": "logit"}, ValueError, "^kind: unknown 'logit'"),
    "maps for an embedding": (
        lambda p, x: x,
        {"kind": "embedding"},
        ValueError,
        r"^function: embeddings \(n, d\) were expected",
    ),
    "one name of a pair": (
        lambda p, x: twice(p, x)[:, 0],
        {"classes": ("cat",)},
        ValueError,
        "^classes: 2 names",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_serve_is_refused(case):
    function, options, error, message = REFUSED[case]
    arguments = {"params": WEIGHTS, "input_shape": SHAPE, **options}
    with pytest.raises(error, match=message):
        rvis.from_function(function, **arguments)


CHOICES = {
    "index": (lambda p, x: (x, twice(p, x)), 1),
    "last": (lambda p, x: (x, twice(p, x)), -1),
    "key": (lambda p, x: {"z": twice(p, x), "x": x}, "z"),
    "attribute": (lambda p, x: nnx.State({"z": twice(p, x)}), "z"),
    "function": (lambda p, x: [twice(p, x) / 2], lambda out: out[0] * 2),
}


@pytest.mark.parametrize("case", CHOICES)
def test_an_output_is_chosen(case):
    function, output = CHOICES[case]
    images = np.random.default_rng(0).random((2, *SHAPE)).astype(np.float32)
    model = rvis.from_function(function, WEIGHTS, SHAPE, output=output)
    np.testing.assert_allclose(model(images), twice(WEIGHTS, images), rtol=1e-6)


def test_a_pair_has_the_sigmoid_for_its_softmax():
    model = rvis.from_function(lambda p, x: twice(p, x)[:, :1], WEIGHTS, SHAPE)
    images = np.random.default_rng(0).random((2, *SHAPE)).astype(np.float32)
    expected = jax.nn.sigmoid(twice(WEIGHTS, images)[:, 0])
    np.testing.assert_allclose(jax.nn.softmax(model(images))[:, 1], expected, rtol=1e-5)


# --- networks without relu= ------------------------------------------------------------------


class Closed(nn.Module):
    """A residual network whose ReLUs are its own."""

    inner: ResNet

    @nn.compact
    def __call__(self, x):
        return self.inner(x)


@pytest.mark.parametrize("method", ["guided_backprop", "deconvnet", "gradient"])
def test_a_resnet_without_relu_is_as_the_same_with_it(method):
    net = ResNet(stages=(1, 1), widths=(4, 8), stem="cifar", classes=3)
    variables = convert.he_normal(net, (16, 16, 3), jax.random.key(0))
    below = {name: {"inner": tree} for name, tree in variables.items()}
    own = rvis.from_linen(net, variables, input_shape=(16, 16, 3))
    closed = rvis.from_linen(Closed(net), below, input_shape=(16, 16, 3))
    assert "inner.layer1.0.conv1" in closed.layers and closed.apply.takes_relu
    images = np.random.default_rng(0).random((2, 16, 16, 3)).astype(np.float32)
    expected, maps = (
        getattr(attribution, method)(model, images, 1, progress=False).maps
        for model in (own, closed)
    )
    np.testing.assert_allclose(maps, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


def test_dead_units_of_a_network_without_relu_are_woken():
    def dead(params, x):
        return jax.nn.relu(x.mean((1, 2)) @ params - 1)

    model = rvis.from_function(dead, jnp.eye(3, 2), (8, 8, 3))
    result = rvis.visualize(
        model, 0, image="pixel", start=np.full((8, 8, 3), 0.5, np.float32), transforms=(), steps=2
    )
    assert result.images[..., 0].mean() > 0.5


def test_normalisations_of_flax_take_no_rule():
    """Their variance is a maximum with 0 as well."""

    class Normed(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(2)(nn.relu(nn.LayerNorm()(nn.Dense(4)(x))).mean((1, 2)))

    variables = Normed().init(jax.random.key(0), jnp.zeros((1, *SHAPE)))
    closed = jax.make_jaxpr(Normed().apply)(variables, jnp.zeros((1, *SHAPE)))
    kinds = [kind for kind in interpret.kinds(closed.jaxpr) if kind.startswith("relu")]
    assert kinds == [] and interpret.holds(closed.jaxpr, ("relu",))
