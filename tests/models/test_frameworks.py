"""Evaluation mode, keywords, layers and state of NNX, Equinox and Keras modules."""

from __future__ import annotations

import os
import pathlib
import re
import threading

os.environ.setdefault("KERAS_BACKEND", "jax")

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import rvis
from rvis.models import frameworks, taps

SHAPE = (8, 8, 3)
IMAGES = np.random.default_rng(0).random((2, *SHAPE)).astype(np.float32)
KEY = jax.random.key(0)


def close(given, expected):
    np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-6)


def test_the_readme_s_own_networks_are_models():
    for package in ("equinox", "keras"):
        pytest.importorskip(package)
    text = (pathlib.Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    part = text.partition("\n## Your own network\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```python\n(.*?)```", part, re.S)
    names = {}
    for block in blocks:
        assert sum(map(bool, block.splitlines())) <= 10
        if "keras" not in block:  # whose network comes with weights to fetch
            exec(block, names)
            assert isinstance(names.pop("model"), rvis.Model)
    assert len(blocks) == 5


# --- Linen: keywords, repeated submodules ----------------------------------------------------


class Odd(nn.Module):
    """Calls its mode by a name of its own."""

    @nn.compact
    def __call__(self, x, is_train=True):
        x = nn.BatchNorm(use_running_average=not is_train, name="norm")(x)
        return nn.Dense(2, name="out")(x.mean((1, 2)))


class Loose(Odd):
    def __call__(self, x, **options):
        return super().__call__(x, **options)


class Shared(nn.Module):
    @nn.compact
    def __call__(self, x):
        conv, drop = nn.Conv(3, (3, 3), name="conv"), nn.Dropout(0.5, deterministic=True)
        return nn.Dense(2, name="out")(drop(conv(drop(conv(x)))).mean((1, 2)))


def linen(module, **options):
    keywords = {"is_train": False} if isinstance(module, Odd) else {}
    variables = module.init(KEY, IMAGES, **keywords)
    return rvis.from_linen(module, variables, input_shape=SHAPE, **options)


@pytest.mark.parametrize("module", [Odd(), Loose()])
def test_keywords_of_its_own_put_a_linen_module_into_evaluation(module):
    model = linen(module, call={"is_train": False})
    close(model(IMAGES), module.apply(model.params, IMAGES, is_train=False))
    with pytest.raises(ValueError, match="^module: .*norm.*immutable"):
        linen(module)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ({"is_trian": False}, ValueError, "^call: unknown 'is_trian'; did you mean 'is_train'"),
        (["is_train"], TypeError, "^call: a mapping"),
        ({"is_train": np.zeros(2)}, ValueError, "^call: values that hash"),
    ],
)
def test_keywords_that_cannot_be_given_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        linen(Odd(), call=call)


def test_calls_of_one_linen_submodule_are_numbered():
    model = linen(Shared())
    assert model.layers == ("conv", "Dropout_0", "conv:1", "Dropout_0:1", "out")
    seen = rvis.record(model, IMAGES, ["conv", "conv:1"])
    conv = nn.Conv(3, (3, 3)).bind({"params": model.params["params"]["conv"]})
    close(seen["conv:1"], conv(seen["conv"]))


# --- NNX: evaluation, or a refusal -----------------------------------------------------------


class Net(nnx.Module):
    def __init__(self, **attributes):
        self.norm = nnx.BatchNorm(3, rngs=nnx.Rngs(0))
        self.norm.mean[...] = jnp.asarray([0.1, 0.2, 0.3])
        self.drop = nnx.Dropout(0.5, rngs=nnx.Rngs(1))
        self.out = nnx.Linear(3, 2, rngs=nnx.Rngs(2))
        vars(self).update(attributes)

    def evaluated(self, x):
        x = self.norm(x, use_running_average=True)
        return self.out(x.mean((1, 2)))


class ByEval(Net):
    def __call__(self, x):
        return self.out(self.drop(self.norm(x)).mean((1, 2)))


class ByAttribute(Net):
    def __call__(self, x):
        x = self.norm(x, use_running_average=not self.training)
        return self.out(self.drop(x, deterministic=not self.training).mean((1, 2)))


class ByKeyword(Net):
    def __call__(self, x, inference=False):
        x = self.norm(x, use_running_average=inference)
        return self.out(self.drop(x, deterministic=inference).mean((1, 2)))


class ByOddKeyword(Net):
    def __call__(self, x, sampling=True):
        x = self.norm(x, use_running_average=not sampling)
        return self.out(self.drop(x, deterministic=not sampling).mean((1, 2)))


class Always(Net):
    def __call__(self, x):
        return self.out(self.norm(x, use_running_average=False).mean((1, 2)))


class Noisy(Net):
    def __call__(self, x):
        return self.out(self.drop(x, deterministic=False).mean((1, 2)))


class Mixing(Net):
    def __call__(self, x):
        return self.out((x - x.mean(0)).mean((1, 2)))


EVALUATED = {
    "eval()": (ByEval, {}, {}),
    "an attribute": (ByAttribute, {"training": True}, {}),
    "a keyword": (ByKeyword, {}, {}),
    "a keyword of its own": (ByOddKeyword, {}, {"call": {"sampling": False}}),
}


@pytest.mark.parametrize("case", EVALUATED)
def test_an_nnx_module_is_put_into_evaluation(case):
    kind, attributes, options = EVALUATED[case]
    net = kind(**attributes)
    close(rvis.from_nnx(net, input_shape=SHAPE, **options)(IMAGES), net.evaluated(IMAGES))
    assert all(getattr(net, name) is value for name, value in attributes.items())


TRAINING = {
    "batch statistics": (Always, "^module: its `norm.*` changes when it is called"),
    "a keyword of its own": (ByOddKeyword, "^module: its `.*` changes when it is called"),
    "dropout": (Noisy, "^module: its `drop.rngs.*` changes when it is called"),
    "the batch": (Mixing, "^module: what it makes of an image depends on the other images"),
}


@pytest.mark.parametrize("case", TRAINING)
def test_an_nnx_module_in_training_is_refused(case):
    kind, message = TRAINING[case]
    with pytest.raises(ValueError, match=message):
        rvis.from_nnx(kind(), input_shape=SHAPE)


def test_calls_of_one_nnx_submodule_are_numbered():
    class Repeated(Net):
        def __call__(self, x):
            return self.out(self.drop(self.drop(x)).mean((1, 2)))

    assert rvis.from_nnx(Repeated(), input_shape=SHAPE).layers == ("drop", "drop:1", "out")


# --- Equinox ---------------------------------------------------------------------------------


def equinox_net():
    eqx = pytest.importorskip("equinox")

    class Block(eqx.Module):
        conv: eqx.nn.Conv2d
        norm: eqx.nn.BatchNorm
        training: bool = True

        def __call__(self, x, state):
            assert not self.training
            x, state = self.norm(self.conv(x), state)
            return jax.nn.relu(x), state

    class Net(eqx.Module):
        blocks: list
        drop: eqx.nn.Dropout
        token: eqx.nn.Linear
        table: eqx.nn.Embedding
        out: eqx.nn.Linear

        def __call__(self, x, state):
            for block in self.blocks:
                x, state = block(x, state)
            x = self.drop(self.drop(x))
            tokens = jax.vmap(self.token)(x.reshape(4, -1).T) + self.table(jnp.asarray(1))
            return self.out(tokens.mean(0)), state

    def make():
        keys = jax.random.split(KEY, 5)
        blocks = [
            Block(
                eqx.nn.Conv2d(3 if i == 0 else 4, 4, 3, padding=1, key=keys[i]),
                eqx.nn.BatchNorm(4, "batch", mode="batch"),
            )
            for i in range(2)
        ]
        token, out = (eqx.nn.Linear(4, 4, key=key) for key in keys[2:4])
        table = eqx.nn.Embedding(3, 4, key=keys[4])
        return Net(blocks, eqx.nn.Dropout(0.5), token, table, out)

    return eqx, *eqx.nn.make_with_state(make)()


def test_an_equinox_module_with_state_is_evaluated():
    eqx, net, state = equinox_net()
    model = rvis.from_equinox(net, state=state, input_shape=SHAPE)
    assert model.layers == (
        "blocks.0.conv",
        "blocks.0.norm",
        "blocks.0",
        "blocks.1.conv",
        "blocks.1.norm",
        "blocks.1",
        "drop",
        "drop:1",
        "token",
        "table",
        "out",
    )
    shapes = rvis.layer_shapes(model)
    assert shapes["blocks.1"] == shapes["token"] == (8, 8, 4) and shapes["table"] == (4,)
    still = eqx.nn.inference_mode(net)
    still = eqx.tree_at(lambda n: [b.training for b in n.blocks], still, [False, False])
    image = jnp.moveaxis(IMAGES[1], -1, 0)
    close(model(IMAGES)[1], jax.jit(lambda x: still(x, state)[0])(image))
    seen = rvis.record(model, IMAGES, ["blocks.0", "token", "table"])
    block = jax.jit(lambda x: still.blocks[0](x, state)[0])(image)
    close(seen["blocks.0"][1], jnp.moveaxis(block, 0, -1))
    close(seen["table"], np.broadcast_to(net.table.weight[1], (2, 4)))
    # The module that was given is as it was.
    assert net.blocks[0].training and not net.drop.inference
    assert type(net.blocks[0].conv) is eqx.nn.Conv2d


def test_equinox_tokens_can_be_replaced():
    _, net, state = equinox_net()
    model = rvis.from_equinox(net, state=state, input_shape=SHAPE)
    tokens = jax.random.normal(KEY, (2, 64, 4))

    @jax.jit
    def both(params, images, tokens):
        tap = taps.replacing({"token": tokens.reshape(2, 8, 8, 4)})
        expected = jax.vmap(net.out)((tokens + net.table.weight[1]).mean(1))
        return model.apply(params, images, tap=tap), expected

    close(*both(model.params, IMAGES, tokens))


def test_equinox_maps_come_channels_last():
    eqx = pytest.importorskip("equinox")
    conv = eqx.nn.Conv2d(3, 5, 3, padding=1, key=KEY)
    model = rvis.from_equinox(conv, input_shape=SHAPE)
    expected = jnp.moveaxis(conv(jnp.moveaxis(IMAGES[0], -1, 0)), 0, -1)
    assert model.kind == "maps"
    close(model(IMAGES)[0], expected)


def test_an_equinox_module_that_changes_its_state_is_refused():
    eqx = pytest.importorskip("equinox")

    class Counting(eqx.Module):
        index: eqx.nn.StateIndex
        out: eqx.nn.Linear

        def __init__(self):
            self.index = eqx.nn.StateIndex(jnp.zeros(()))
            self.out = eqx.nn.Linear(3, 2, key=KEY)

        def __call__(self, x, state):
            state = state.set(self.index, state.get(self.index) + 1)
            return self.out(x.mean((1, 2))), state

    net, state = eqx.nn.make_with_state(Counting)()
    with pytest.raises(ValueError, match="^module: it changes its state when it is called"):
        rvis.from_equinox(net, state=state, input_shape=SHAPE)


def test_equinox_models_of_one_architecture_share_a_program():
    _, net, state = equinox_net()
    one, two = (rvis.from_equinox(net, state=state, input_shape=SHAPE) for _ in range(2))
    assert one.apply == two.apply and hash(one.apply) == hash(two.apply)


# --- Keras -----------------------------------------------------------------------------------


def keras_net(k, *, last=None, first=False):
    order = "channels_first" if first else "channels_last"
    axis = 1 if first else -1
    inputs = k.Input((3, 8, 8) if first else SHAPE)
    conv = k.layers.Conv2D(3, 3, padding="same", data_format=order, name="conv")
    x = k.layers.BatchNormalization(axis=axis, name="norm")(conv(conv(inputs)))
    inner = k.Sequential([k.layers.ReLU(name="relu"), k.layers.Dropout(0.5)], name="inner")
    x = k.layers.GlobalAveragePooling2D(data_format=order, name="mean")(inner(x))
    net = k.Model(inputs, k.layers.Dense(3, activation=last, name="out")(x), name="net")
    rng = np.random.default_rng(1)
    net.set_weights([rng.random(weight.shape) for weight in net.get_weights()])
    return net


def test_a_keras_model_is_evaluated_and_left_alone():
    k = pytest.importorskip("keras")
    net = keras_net(k)
    before = net.get_weights()
    model = rvis.from_keras(net, classes=("a", "b", "c"))
    assert model.layers == (
        "conv",
        "conv:1",
        "norm",
        "inner.relu",
        "inner.dropout",
        "inner",
        "mean",
        "out",
    ) or model.layers[4].startswith("inner.dropout")
    assert model.name == "net" and model.input_shape == SHAPE
    close(model(IMAGES), net(IMAGES, training=False))
    layer = k.Model(net.inputs, net.get_layer("norm").output)
    close(rvis.record(model, IMAGES, "norm")["norm"], layer(IMAGES, training=False))
    assert all(map(np.array_equal, net.get_weights(), before))
    assert "call" not in vars(net.get_layer("conv"))


def test_a_keras_model_with_channels_first_shows_them_last():
    k = pytest.importorskip("keras")
    model, net = rvis.from_keras(keras_net(k, first=True)), keras_net(k)
    other = rvis.from_keras(net)
    assert model.input_shape == SHAPE
    close(model(IMAGES), other(IMAGES))
    close(rvis.record(model, IMAGES, "norm")["norm"], rvis.record(other, IMAGES, "norm")["norm"])


def test_a_keras_model_of_a_class_of_its_own():
    k = pytest.importorskip("keras")

    class Net(k.Model):
        def __init__(self):
            super().__init__()
            self.conv = k.layers.Conv2D(4, 3, name="conv")
            self.out = k.layers.Dense(2, name="out")

        def call(self, x, mode="train"):
            x = k.ops.relu(self.conv(x)) if mode == "eval" else x
            return {"logits": self.out(k.ops.mean(x, (1, 2)))}

    net = Net()
    with pytest.raises(ValueError, match="^module: a model with weights was expected"):
        rvis.from_keras(net, input_shape=SHAPE)
    net(IMAGES, mode="eval")
    options = {"input_shape": SHAPE, "call": {"mode": "eval"}, "output": "logits"}
    model = rvis.from_keras(net, **options)
    assert model.layers == ("conv", "out") and model.apply.takes_relu
    close(model(IMAGES), net(IMAGES, mode="eval")["logits"])


def test_two_threads_trace_one_keras_model():
    k = pytest.importorskip("keras")
    model = rvis.from_keras(keras_net(k))
    expected, seen = rvis.record(model, IMAGES, "norm")["norm"], []

    def run(n):
        images = np.repeat(IMAGES, n, 0)
        seen.append((n, rvis.record(model, images, "norm")["norm"]))

    threads = [threading.Thread(target=run, args=(n,)) for n in range(2, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n, activations in seen:
        close(activations, np.repeat(expected, n, 0))
    assert len(seen) == 4


@pytest.mark.parametrize("last", ["softmax", "sigmoid"])
def test_a_keras_model_that_gives_probabilities_is_refused(last):
    k = pytest.importorskip("keras")
    with pytest.raises(ValueError, match=f"^module: .*'out' ends in a {last}"):
        rvis.from_keras(keras_net(k, last=last))


def test_keras_on_another_backend_is_refused(monkeypatch):
    k = pytest.importorskip("keras")
    monkeypatch.setattr(k.backend, "backend", lambda: "torch")
    with pytest.raises(ValueError, match="^module: Keras on JAX.*'torch'.*KERAS_BACKEND"):
        rvis.from_keras(keras_net(k))


@pytest.mark.parametrize("name", ["equinox", "keras"])
def test_a_package_that_is_not_there_is_named(name, monkeypatch):
    monkeypatch.setitem(frameworks.__dict__["checks"].importlib.sys.modules, name, None)
    with pytest.raises(ImportError, match=rf'pip install "rvis\[{name}\]"'):
        getattr(rvis, f"from_{name}")(3, input_shape=SHAPE)


@pytest.mark.parametrize("name", ["equinox", "keras"])
def test_what_is_no_module_is_named(name):
    pytest.importorskip(name)
    with pytest.raises(TypeError, match="^module: a"):
        getattr(rvis, f"from_{name}")(3, input_shape=SHAPE)
