"""Relevance propagation: Zennit's composites, rules by hand, conservation, attention, concepts."""

from __future__ import annotations

import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rvis
from rvis import attribution, objectives
from rvis.attribution import Composite, lrp
from rvis.types import identity
from tests import toys
from tests.attribution.explained import MODELS
from tests.golden.attribution import seeded_networks as golden

FILE = pathlib.Path(__file__).parents[1] / "golden" / "attribution" / "maps.npz"
with np.load(FILE) as file:
    MAPS = dict(file)
QUIET = {"progress": False}
PLANS = {
    "epsilon": "epsilon",
    "gamma": "gamma",
    "w_square": Composite("w_square"),
    "epsilon_plus": "epsilon_plus",
    "epsilon_plus_flat": "epsilon_plus_flat",
    "epsilon_alpha2_beta1": "epsilon_alpha2_beta1",
    "epsilon_alpha2_beta1_flat": "epsilon_alpha2_beta1_flat",
    "epsilon_gamma_box": "epsilon_gamma_box",
}


PAIRS = [
    # With residual sums, norms and strides come three rules, the others on the plain network; what
    # is flat is in the first layer.
    pytest.param(
        plan,
        network,
        marks=[pytest.mark.slow]
        * ((network == "residual") != (plan in ("epsilon", "gamma", "epsilon_alpha2_beta1"))),
    )
    for plan in PLANS
    for network in MODELS
]


@pytest.mark.parametrize(("plan", "network"), PAIRS)
def test_composites_are_zennits(network, plan):
    result = lrp(MODELS[network], golden.IMAGES, golden.CLASSES, composite=PLANS[plan], **QUIET)
    expected = MAPS[f"{network}/lrp/{plan}"]
    np.testing.assert_allclose(
        result.scores, MAPS[f"{network}/logits"][[0, 1], golden.CLASSES], rtol=1e-4
    )
    np.testing.assert_allclose(result.maps, expected, atol=1e-3 * np.abs(expected).max())


LINEAR = toys.linear([[1.0], [-2.0], [3.0], [-4.0]], (1, 4, 1))
X = np.array([0.5, 0.25, 1.0, 0.5], np.float32).reshape(1, 4, 1)
# The contributions are .5, -.5, 3, -2, and f(x) is 1.
BY_HAND = {
    "epsilon": [0.5, -0.5, 3, -2],
    "z_plus": [0.5 / 3.5, 0, 3 / 3.5, 0],
    "alpha_beta": [2 * 0.5 / 3.5, -0.5 / 2.5, 2 * 3 / 3.5, -2 / 2.5],
    "gamma": np.array([0.5 * 1.25, -0.5, 3 * 1.25, -2]) / (3.5 * 1.25 - 2.5),
    "flat": [0.25] * 4,
    "w_square": np.array([1, 4, 9, 16]) / 30,
    # x w - 0 w⁺ - 1 w⁻
    "box": np.array([0.5, -0.5 + 2, 3, -2 + 4]) / 7,
}


@pytest.mark.parametrize("rule", BY_HAND)
def test_rules_by_hand(rule):
    result = lrp(LINEAR, X, 0, composite=Composite(dense=rule), **QUIET)
    np.testing.assert_allclose(result.maps.ravel(), BY_HAND[rule], rtol=1e-4, atol=1e-6)


def test_epsilon_makes_what_is_negative_more_so():
    model = toys.linear(-LINEAR.params, (1, 4, 1))
    result = lrp(model, X, 0, composite="epsilon", epsilon=0.5, **QUIET)
    np.testing.assert_allclose(result.maps.ravel(), np.array([-0.5, 0.5, -3, 2]) / 1.5, rtol=1e-5)


def halved(params, images, *, tap=identity, relu=jax.nn.relu):
    """The linear function of pairs of pixels, each replaced by its mean, twice over."""
    pairs = jnp.repeat(images, 2, axis=2)
    by_matrix = jnp.tensordot(np.kron(np.eye(4), [[0.5, 0.5]]).astype(np.float32), pairs, (1, 2))
    means = jnp.moveaxis(by_matrix, 0, 2).reshape(images.shape[0], 4, 1, 1).sum((2, 3))
    return tap("out", means @ params)


def test_epsilon_is_of_layers_and_not_of_means_and_sums():
    model = LINEAR.replace(apply=halved)
    result = lrp(model, X, 0, composite="epsilon", epsilon=0.5, **QUIET)
    plain = lrp(LINEAR, X, 0, composite="epsilon", epsilon=0.5, **QUIET)
    np.testing.assert_allclose(result.maps, plain.maps, rtol=1e-4)


def biased(params, images, *, tap=identity, relu=jax.nn.relu):
    return tap("out", images.reshape(images.shape[0], -1) @ params["w"] + params["b"])


@pytest.mark.parametrize("bias", [0.5, -0.5])
@pytest.mark.parametrize(("rule", "share"), [("z_plus", max), ("w_square", lambda b, _: b * b)])
def test_biases_have_their_share(rule, share, bias):
    params = {"w": LINEAR.params, "b": jnp.float32([bias])}
    model = LINEAR.replace(params=params, apply=biased)
    result = lrp(model, X, 0, composite=Composite(dense=rule), **QUIET)
    parts = np.array(BY_HAND[rule]) * (30 if rule == "w_square" else 3.5)
    expected = parts / (parts.sum() + share(bias, 0)) * (1 + bias)
    np.testing.assert_allclose(result.maps.ravel(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("network", MODELS)
@pytest.mark.parametrize("composite", ["epsilon_plus", "gamma"])
def test_without_biases_nothing_is_lost(network, composite):
    model = MODELS[network]
    none = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf * (path[-1].key not in ("bias", "shift", "mean")), model.params
    )
    model = rvis.Model(none, model.apply, model.layers, model.input_shape, (), network)
    result = lrp(model, golden.IMAGES, golden.CLASSES, composite=composite, epsilon=1e-9, **QUIET)
    np.testing.assert_allclose(result.maps.sum((1, 2, 3)), result.scores, rtol=1e-4)
    np.testing.assert_allclose(result.gap, 0, atol=1e-4 * np.abs(result.scores).max())
    whole = [
        result.layers.index(name)
        for name in ("fc2", "pool1", "conv1", "fc", "b", "stem")
        if name in result.layers
    ]
    np.testing.assert_allclose(
        result.sums[:, whole], np.broadcast_to(result.scores[:, None], (2, len(whole))), rtol=1e-4
    )


def attention(params, images, *, tap=identity, relu=jax.nn.relu):
    """One block of one head: two tokens (columns) of two channels; the class reads token 0."""
    x = images[:, 0]
    q, k, v = (x @ params[name] for name in "qkv")
    weights = jax.nn.softmax(q @ jnp.swapaxes(k, 1, 2), -1)
    x = tap("block", x + weights @ v)
    return x[:, 0]


def test_attention_by_hand():
    rng = np.random.default_rng(5)
    params = {name: rng.normal(size=(2, 2)) for name in "qkv"}
    x = rng.random((2, 2)).astype(np.float32)
    model = rvis.Model(
        {n: jnp.asarray(p, jnp.float32) for n, p in params.items()},
        attention,
        ("block",),
        (1, 2, 2),
    )
    result = lrp(model, x[None], 0, composite="epsilon", epsilon=1e-9, **QUIET)

    q, k, v = (x @ params[name] for name in "qkv")
    logits = q @ k.T
    a = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    mixed = a @ v
    score = x[0, 0] + mixed[0, 0]
    # The residual shares in proportion; half of the product's part goes to each factor.
    r_x = np.zeros((2, 2))
    r_x[0, 0] = x[0, 0]
    to_a, to_v = np.zeros((2, 2)), np.zeros((2, 2))
    for j in range(2):
        to_a[0, j] = to_v[j, 0] = a[0, j] * v[j, 0] / 2
    to_logits = logits * (to_a - a * to_a.sum(1, keepdims=True))
    to_q, to_k = np.zeros((2, 2)), np.zeros((2, 2))
    for i in range(2):
        for j in range(2):
            for d in range(2):
                share = q[i, d] * k[j, d] / (2 * logits[i, j]) * to_logits[i, j]
                to_q[i, d] += share
                to_k[j, d] += share
    for relevance, name, z in ((to_q, "q", q), (to_k, "k", k), (to_v, "v", v)):
        for i in range(2):
            for d in range(2):
                for c in range(2):
                    r_x[i, c] += x[i, c] * params[name][c, d] / z[i, d] * relevance[i, d]
    np.testing.assert_allclose(result.scores, score, rtol=1e-5)
    np.testing.assert_allclose(result.maps[0], r_x, rtol=1e-3, atol=1e-5)


class Normalised(nn.Module):
    kind: str

    @nn.compact
    def __call__(self, x):
        x = x.reshape(len(x), -1)
        x = {"layer": nn.LayerNorm(), "rms": nn.RMSNorm(), "fast": nn.LayerNorm(use_bias=False)}[
            self.kind
        ](x)
        return nn.gelu(x) if self.kind == "layer" else nn.silu(x)


@pytest.mark.parametrize("kind", ["layer", "rms", "fast"])
def test_normalisation_and_activations_pass_all_relevance_on(kind):
    module = Normalised(kind)
    x = np.random.default_rng(0).random((2, 3, 1), np.float32)
    variables = module.init(jax.random.key(0), x[None])
    model = rvis.from_linen(module, variables, input_shape=(2, 3, 1))
    result = lrp(model, x, 2, **QUIET)
    expected = np.zeros(6)
    expected[2] = result.scores
    np.testing.assert_allclose(result.maps.ravel(), expected, rtol=1e-5)


def test_a_vision_transformer_shares_out_all_of_its_logit():
    from rvis.models.families.vit import ViT

    module = ViT(patch=4, width=8, depth=2, heads=2, image=16, classes=3)
    variables = module.init(jax.random.key(1), jnp.zeros((1, 16, 16, 3)))
    variables = jax.tree.map(
        lambda leaf: jax.random.normal(jax.random.key(leaf.size), leaf.shape) / 3, variables
    )
    model = rvis.from_linen(module, variables, input_shape=(16, 16, 3))
    images = np.random.default_rng(2).random((2, 16, 16, 3), np.float32)
    result = lrp(model, images, 1, composite="gamma", **QUIET)
    assert np.isfinite(result.maps).all()
    assert np.abs(result.maps).max() > 1e-3
    last = result.layers.index("blocks.1")
    np.testing.assert_allclose(
        result.sums[:, last] + result.sums[:, result.layers.index("blocks.1.class")],
        result.sums[:, result.layers.index("norm.class")],
        rtol=1e-4,
    )


def test_a_layers_channels_share_its_relevance():
    model, image = MODELS["plain"], golden.IMAGES[0]
    options = {"composite": "epsilon_plus", **QUIET}
    whole = lrp(model, image, 1, **options)
    parts = [
        lrp(model, image, 1, through=objectives.channel("relu3", k), **options) for k in range(12)
    ]
    np.testing.assert_allclose(
        sum(part.maps for part in parts), whole.maps, atol=1e-4 * np.abs(whole.maps).max()
    )
    assert max(np.abs(part.maps).max() for part in parts) > 10 * min(
        np.abs(part.maps).max() for part in parts
    )
    direction = np.zeros(12, np.float32)
    direction[3] = -2
    by_direction = lrp(model, image, 1, through=objectives.direction("relu3", direction), **options)
    np.testing.assert_allclose(by_direction.maps, parts[3].maps, atol=1e-6)


def test_relevance_through_a_direction_by_hand():
    """Of pixels (x, 2x) with weights (1, 1), through v = (1, 1)/√2: R = x v (v·R/x)."""

    def apply(params, images, *, tap=identity, relu=jax.nn.relu):
        return tap("pixels", images[:, 0, 0]) @ params

    model = rvis.Model(jnp.ones((2, 1)), apply, ("pixels",), (1, 1, 2))
    image = np.array([0.25, 0.5], np.float32).reshape(1, 1, 2)
    result = lrp(
        model,
        image,
        0,
        through=objectives.direction("pixels", [1.0, 1.0]),
        **QUIET,
        composite="epsilon",
    )
    # R/x is (1, 1), whose part along v is itself.
    np.testing.assert_allclose(result.maps.ravel(), [0.25, 0.5], rtol=1e-5)
    other = lrp(
        model,
        image,
        0,
        through=objectives.direction("pixels", [1.0, -1.0]),
        **QUIET,
        composite="epsilon",
    )
    np.testing.assert_allclose(other.maps, 0, atol=1e-6)


def test_loops_are_read():
    def apply(params, images, *, tap=identity, relu=jax.nn.relu):
        def body(x, w):
            return relu(x @ w), x.sum()

        x, _ = jax.lax.scan(body, images.reshape(len(images), -1), params)
        return x

    weights = jnp.asarray(np.random.default_rng(3).random((3, 4, 4)), jnp.float32)
    model = rvis.Model(weights, apply, (), (2, 2, 1))
    image = np.random.default_rng(4).random((2, 2, 1), np.float32)
    result = lrp(model, image, 1, epsilon=1e-9, **QUIET)
    product = np.linalg.multi_dot(np.asarray(weights))
    np.testing.assert_allclose(
        lrp(model, image, 1, composite="epsilon", epsilon=1e-9, **QUIET).maps.ravel(),
        image.ravel() * product[:, 1],
        rtol=1e-4,
    )
    np.testing.assert_allclose(result.maps.sum(), result.scores, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"composite": "epsilon_plas"}, "composite: unknown 'epsilon_plas'; did you mean"),
        ({"composite": None}, "composite: unknown None"),
        ({"epsilon": 0}, "epsilon: a number above 0"),
        ({"alpha": 0.5}, "alpha: a number in"),
        ({"through": objectives.logit(0)}, "through: an objective of one layer before"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        lrp(MODELS["plain"], golden.IMAGES, 1, **options, **QUIET)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"conv": "zplus"}, "composite.conv: unknown 'zplus'"),
        ({"dense": ""}, "composite.dense: unknown ''"),
        ({"first": 3}, "composite.first: unknown 3"),
    ],
)
def test_a_composite_has_rules_that_there_are(rules, message):
    with pytest.raises(ValueError, match=message):
        Composite(**rules)


def test_what_has_no_rule_is_named():
    def apply(params, images, *, tap=identity, relu=jax.nn.relu):
        return jnp.linalg.cholesky(images[..., 0] @ images[..., 0].mT + jnp.eye(2))[:, 0]

    model = rvis.Model((), apply, (), (2, 2, 1))
    with pytest.raises(ValueError, match="model: 'cholesky' has no rule"):
        lrp(model, np.full((2, 2, 1), 0.5, np.float32), 0, **QUIET)


def test_a_batch_is_its_examples_and_numbers_are_traced():
    model = MODELS["plain"]
    both = attribution.lrp(model, golden.IMAGES, golden.CLASSES, **QUIET)
    one = attribution.lrp(model, golden.IMAGES[1], 3, **QUIET)
    np.testing.assert_array_equal(both.maps[1], one.maps)
    calls = []
    counted = rvis.Model(
        model.params, _Counted(model.apply, calls), model.layers, model.input_shape
    )
    for epsilon, gamma in ((1e-6, 0.25), (0.1, 0.5)):
        attribution.lrp(counted, golden.IMAGES, 1, epsilon=epsilon, gamma=gamma, **QUIET)
        calls.append("done")
    assert calls.index("done") == len(calls) - 2


class _Counted:
    def __init__(self, apply, calls):
        self.inner, self.calls = apply, calls

    def __call__(self, params, images, **options):
        if images.ndim == 4 and "tap" in options:
            self.calls.append("traced")
        return self.inner(params, images, **options)
