"""Every architecture against the public reference: numbers, names, sizes, and its ReLUs."""

from __future__ import annotations

import functools
import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rvis import kernels
from rvis.models.architectures import ARCHITECTURES
from rvis.models.families.inceptionv1 import local_response_norm
from rvis.models.weights import convert
from tests.golden import seeded

# Golden layer: our tap; and how far the gradient's samples may lie from the golden ones, relative
# to their norm. A ReLU's input, or a pair in a pooling window, that rounding puts on the other side
# of a tie sends the gradient another way: in float32 the reference differs from itself in float64
# by 1e-3 (VGG-16), and our VGG-16 in float64 from it by 3e-15. `test_gradient_is_the_stock_one`
# holds the same networks to 1e-5.
PARITY = {
    "alexnet": (
        {
            "features.0": "conv1",
            "features.2": "pool1",
            "features.5": "pool2",
            "features.12": "pool5",
            "classifier.5": "relu7",
        },
        1e-4,
    ),
    "vgg16": (
        {
            "features.3": "relu1_2",
            "features.15": "relu3_3",
            "features.29": "relu5_3",
            "features.30": "pool5",
        },
        5e-2,
    ),
    "resnet18": ({}, 1e-4),
    "resnet50": ({}, 1e-2),
    "googlenet": ({}, 2e-2),
    "inceptionv1": ({}, 0.0),
}


def make(name: str):
    return ARCHITECTURES[name].make()


def narrow(name: str):
    """The same, without the 120 million weights of a VGG's dense layers."""
    return ARCHITECTURES[name].make(**({"dense": 64} if name.startswith("vgg") else {}))


# What is peculiar to a bottleneck is in test_parity's networks of 64 pixels too.
SEEN = [pytest.param(name, marks=[pytest.mark.slow] * (name == "resnet50")) for name in PARITY]


@pytest.fixture(scope="module", params=SEEN)
def both(request):
    """What the reference computes, and what we do, with the same weights and images."""
    name = request.param
    taps, tolerance = PARITY[name]
    module, golden = make(name), seeded.expected(name)
    wanted = {key.split("/")[1] for key in golden if key.startswith("act/")}
    # Where the golden files say "logits", InceptionV1's are its softmax; ours are before it.
    softmax = name == "inceptionv1"
    variables = convert.to_variables(module, seeded.state(name), (224, 224, 3))

    @functools.partial(jax.value_and_grad, argnums=1, has_aux=True)
    def forward(variables, images):
        found = {}

        def tap(layer, activation):
            found[layer] = activation
            return activation

        logits = module.apply(variables, images, tap=tap)
        target = found["softmax2"] if softmax else logits
        logits = jax.nn.softmax(logits) if softmax else logits
        return target[0, 7], (logits, {layer: found[taps.get(layer, layer)] for layer in wanted})

    images = jnp.asarray(seeded.images(50.0 if softmax else 1.0))
    with jax.default_matmul_precision("highest"):
        (_, (logits, activations)), gradient = jax.jit(forward)(variables, images)
    return types.SimpleNamespace(
        golden=golden,
        logits=np.asarray(logits),
        activations=jax.tree.map(np.asarray, activations),
        gradient=np.asarray(gradient),
        tolerance=tolerance,
    )


def test_activations_are_the_reference_s(both):
    for layer, activation in both.activations.items():
        norm = both.golden[f"act/{layer}/norm"]
        np.testing.assert_allclose(np.linalg.norm(activation), norm, rtol=1e-4, err_msg=layer)
        away = np.abs(seeded.sample(activation) - both.golden[f"act/{layer}/sample"]).max()
        assert away <= 1e-4 * norm / math.sqrt(activation.size), layer


def test_logits_are_the_reference_s(both):
    expected = both.golden["logits"]
    assert np.linalg.norm(both.logits - expected) <= 1e-4 * np.linalg.norm(expected)


def test_input_gradient_is_the_reference_s(both):
    norm, sample = both.golden["grad_logit7/norm"], both.golden["grad_logit7/sample"]
    # InceptionV1's golden gradient is that of a saturated softmax: exactly 0.
    np.testing.assert_allclose(np.linalg.norm(both.gradient), norm, rtol=1e-3)
    away = np.linalg.norm(seeded.sample(both.gradient) - sample)
    assert away <= both.tolerance * np.linalg.norm(sample)


# A narrow VGG has all that AlexNet has, without its 60 million weights.
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n == "alexnet")) for n in PARITY]
)
def test_weights_come_back_bit_for_bit(name):
    module, rng = narrow(name), np.random.default_rng(0)
    shapes = convert.reference_shapes(module, (224, 224, 3))
    state = {entry: rng.random(shape, np.float32) for entry, shape in shapes.items()}
    back = convert.from_variables(convert.to_variables(module, state, (224, 224, 3)))
    assert back.keys() == state.keys()
    assert all(np.array_equal(back[entry], state[entry]) for entry in back)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        pytest.param("vgg16", "pool5", marks=pytest.mark.slow),
        pytest.param("googlenet", "maxpool3", marks=pytest.mark.slow),
        ("inceptionv1", "maxpool4"),
    ],
)
def test_gradient_is_the_stock_one(name, layer):
    module = narrow(name)
    variables = convert.he_normal(module, (64, 64, 3), jax.random.key(0))
    images = 50 * np.random.default_rng(1).standard_normal((1, 64, 64, 3)).astype(np.float32)

    def gradient():
        def target(variables, images):
            found = {}
            module.apply(variables, images, tap=lambda name, x: found.setdefault(name, x))
            return found[layer][..., 7].sum()

        return np.asarray(jax.jit(jax.grad(target, 1))(variables, images))

    with kernels.stock(False):
        ours = gradient()
    with kernels.stock():
        stock = gradient()
    assert np.linalg.norm(ours - stock) <= 1e-5 * np.linalg.norm(stock)


def parameters(name):
    """Their shapes, traced once for all tests."""
    return convert._template(make(name), ARCHITECTURES[name].input_shape)


@functools.cache
def traced(name, shape):
    """The layers' names and shapes, and the logits' shape."""
    found = []

    def tap(layer, activation):
        found.append((layer, activation.shape))
        return activation

    images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    apply = functools.partial(make(name).apply, tap=tap)
    logits = jax.eval_shape(apply, parameters(name), images)
    return dict(found), logits.shape


LAYERS = {
    "alexnet": "conv1 relu1 pool1 conv2 relu2 pool2 conv3 relu3 conv4 relu4 conv5 relu5 pool5 "
    "fc6 relu6 fc7 relu7 fc8",
    "vgg11": "conv1_1 relu1_1 pool1 conv2_1 relu2_1 pool2 conv3_1 relu3_1 conv3_2 relu3_2 pool3 "
    "conv4_1 relu4_1 conv4_2 relu4_2 pool4 conv5_1 relu5_1 conv5_2 relu5_2 pool5 "
    "fc6 relu6 fc7 relu7 fc8",
    "vgg11_bn": "conv1_1 bn1_1 relu1_1 pool1 conv2_1 bn2_1 relu2_1 pool2 conv3_1 bn3_1 relu3_1 "
    "conv3_2 bn3_2 relu3_2 pool3 conv4_1 bn4_1 relu4_1 conv4_2 bn4_2 relu4_2 pool4 "
    "conv5_1 bn5_1 relu5_1 conv5_2 bn5_2 relu5_2 pool5 fc6 relu6 fc7 relu7 fc8",
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_have_caffe_s_names_in_order(name):
    assert list(traced(name, (224, 224, 3))[0]) == LAYERS[name].split()


# The layers of the distill articles with their numbers of channels (lucid's model zoo).
LUCID = {
    "conv2d0": 64,
    "maxpool0": 64,
    "localresponsenorm0": 64,
    "conv2d1": 64,
    "conv2d2": 192,
    "localresponsenorm1": 192,
    "maxpool1": 192,
    "mixed3a_1x1_pre_relu": 64,
    "mixed3a_1x1": 64,
    "mixed3a_3x3_bottleneck_pre_relu": 96,
    "mixed3a_3x3_bottleneck": 96,
    "mixed3a_3x3_pre_relu": 128,
    "mixed3a_5x5_bottleneck": 16,
    "mixed3a_5x5": 32,
    "mixed3a_pool": 192,
    "mixed3a_pool_reduce_pre_relu": 32,
    "mixed3a_pool_reduce": 32,
    "mixed3a": 256,
    "mixed3b": 480,
    "maxpool4": 480,
    "mixed4a": 508,
    "mixed4b": 512,
    "mixed4c": 512,
    "mixed4d": 528,
    "mixed4e": 832,
    "maxpool10": 832,
    "mixed5a": 832,
    "mixed5b": 1024,
    "avgpool0": 1024,
    "softmax2_pre_activation_matmul": 1008,
    "softmax2_pre_activation": 1008,
    "softmax2": 1008,
}


def test_inceptionv1_has_lucid_s_layers():
    found, _ = traced("inceptionv1", (224, 224, 3))
    assert {layer: found[layer][-1] for layer in LUCID} == LUCID


TORCHVISION = {
    "resnet18": "conv1 bn1 relu maxpool layer1.0.conv1 layer1.0.bn2 layer2.0.downsample layer2.0 "
    "layer1 layer4.1 layer4 avgpool fc",
    "resnet50": "layer1.0.conv3 layer1.0.relu2 layer1.0.downsample layer3.5 layer4 fc",
    "googlenet": "conv1.conv conv1.bn conv1 maxpool1 conv2 conv3 maxpool2 inception3a.branch1 "
    "inception3a.branch2.0 inception3a.branch2.1.conv inception3a.branch2 inception3a.branch4.0 "
    "inception3a.branch4 inception3a maxpool3 inception4e maxpool4 inception5b avgpool fc",
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_layers_have_torchvision_s_names(name):
    found, _ = traced(name, (224, 224, 3))
    assert set(TORCHVISION[name].split()) <= set(found)


# Numbers of parameters as torchvision's documentation gives them.
PARAMETERS = {
    "alexnet": 61_100_840,
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "vgg11_bn": 132_868_840,
    "vgg13_bn": 133_053_736,
    "vgg16_bn": 138_365_992,
    "vgg19_bn": 143_678_248,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "googlenet": 6_624_904,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_number_of_parameters_is_torchvision_s(name):
    entries = convert.reference_shapes(make(name), (224, 224, 3)).items()
    assert PARAMETERS[name] == sum(math.prod(s) for entry, s in entries if "running" not in entry)


@pytest.mark.parametrize("name", PARITY)
def test_state_dict_is_the_reference_s(name):
    assert convert.reference_shapes(make(name), (224, 224, 3)) == seeded.shapes(name)


ANY_SIZE = ("vgg16", "vgg11_bn", "resnet18", "cifar_resnet", "googlenet", "inceptionv1")


SIZES = [(name, size) for name in ANY_SIZE for size in ((64, 64), (33, 47), (224, 224))]


@pytest.mark.parametrize(("name", "size"), [*SIZES, ("alexnet", (63, 63)), ("alexnet", (64, 81))])
def test_other_sizes_give_logits(name, size):
    assert traced(name, (*size, 3))[1] == (1, make(name).classes)


def test_alexnet_refuses_what_torchvision_s_does():
    with pytest.raises((ValueError, ZeroDivisionError)):
        traced("alexnet", (33, 47, 3))


RELUS = {
    "mnist_cnn": 3,
    "cifar_resnet": 9,
    "alexnet": 7,
    "vgg16": 15,
    "vgg11_bn": 10,
    "resnet18": 17,
    "resnet50": 49,
    "googlenet": 57,
    "inceptionv1": 57,
}


@pytest.mark.parametrize("name", RELUS)
def test_every_relu_is_the_one_given(name):
    calls = []

    def relu(x):
        calls.append(x.shape)
        return x

    module, shape = make(name), ARCHITECTURES[name].input_shape
    images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    program = jax.make_jaxpr(functools.partial(module.apply, relu=relu))(parameters(name), images)
    assert len(calls) == RELUS[name]
    assert "relu" not in str(program)


def test_local_response_norm_is_the_sum_written_out():
    x = np.random.default_rng(0).normal(0, 100, (2, 3, 3, 12)).astype(np.float32)
    expected = np.empty_like(x)
    for c in range(12):
        near = x[..., max(0, c - 4) : c + 5].astype(np.float64)
        expected[..., c] = x[..., c] / np.sqrt(1 + 1e-4 / 9 * (near**2).sum(-1))
    np.testing.assert_allclose(local_response_norm(jnp.asarray(x)), expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["cifar_resnet", "vgg11_bn", "googlenet"])
def test_training_mode_moves_the_batch_statistics(name):
    module = narrow(name)
    variables = convert._template(module, (32, 32, 3))
    apply = functools.partial(module.apply, train=True, mutable=["batch_stats"])
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    _, changed = jax.eval_shape(apply, variables, images)
    assert jax.tree.structure(changed["batch_stats"]) == jax.tree.structure(
        variables["batch_stats"]
    )
