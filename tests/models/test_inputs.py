"""Networks of several inputs: the optimum of a signal and a volume together, and the way back."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import rvis
from rvis import objectives, optimizers
from rvis.models.apply import NnxApply
from rvis.models.inputs import as_image, join_inputs, split_inputs

RNG = np.random.default_rng(0)
SHAPES = [(7, 1), (2, 3, 4, 2)]
SLOPE = RNG.choice([-1.0, 1.0], (7, 1)) * RNG.uniform(0.5, 1, (7, 1))
CENTRE = RNG.uniform(-1.5, 1.5, SHAPES[1])
RANGES = [(0.0, 3.0), (-1.0, 1.0)]
PARTS = list(zip(SHAPES, RANGES, strict=True))
CLIMB = {"image": "pixel", "transforms": (), "progress": False}


def apply(params, inputs, *, tap, relu):
    """Two outputs: linear in the signal, and highest where the volume is its centre."""
    signal, volume = inputs
    heard = tap("heard", signal * params["slope"])
    return heard.sum((1, 2))[:, None], -((volume - params["centre"]) ** 2).sum((2, 3, 4))


@pytest.fixture(scope="module")
def model():
    return join_inputs(apply, {"slope": SLOPE, "centre": CENTRE}, SHAPES, ranges=RANGES)


def test_relus_of_a_network_of_several_inputs_take_a_rule():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, signal, volume):
            heard = nn.relu(nn.Dense(3, name="heard")(signal[..., 0]))
            return nn.Dense(1)(heard), volume.mean((1, 2, 3, 4))

    params = Net().init(jax.random.key(0), *(jnp.ones((1, *shape)) for shape in SHAPES))
    model = join_inputs(Net(), params, SHAPES)
    image = jnp.asarray(RNG.random((1, *model.input_shape)), jnp.float32)

    def slope(relu):
        logit = jax.jit(lambda x: -model.apply(model.params, x, relu=relu)[0, 0])
        return jax.grad(logit)(image)

    assert model.apply.takes_relu
    assert np.abs(slope(jax.nn.relu) - slope(rvis.models.taps.deconvnet_relu)).max() > 1e-3


def ascend(model, objective, **options):
    options = {"steps": 30, "optimizer": optimizers.sgd(0.1), **CLIMB, **options}
    result = rvis.visualize(model, objective, **options)
    return split_inputs(model, result.images)


BOTH = objectives.channel("output0", 0) + objectives.channel("output1", 0)
BOTH = BOTH + objectives.channel("output1", 1)


def test_a_signal_and_a_volume_reach_their_optimum_together(model):
    signal, volume = ascend(model, BOTH)
    np.testing.assert_allclose(signal, np.where(SLOPE > 0, 3, 0), atol=1e-6)
    np.testing.assert_allclose(volume, np.clip(CENTRE, -1, 1), atol=1e-5)


def test_one_output_leaves_the_other_input_alone(model):
    start = [np.full((7, 1), 1.2), np.zeros(SHAPES[1])]
    signal, volume = ascend(model, objectives.channel("output1", 0), start=as_image(model, start))
    np.testing.assert_allclose(signal, 1.2, atol=1e-6)
    np.testing.assert_allclose(volume[0], np.clip(CENTRE[0], -1, 1), atol=1e-5)
    np.testing.assert_allclose(volume[1], 0, atol=1e-6)


class Net(nn.Module):
    """Linear convolutions over a circle and a torus, so that all places are alike."""

    @nn.compact
    def __call__(self, signal, volume):
        heard = nn.Conv(3, (3,), padding="CIRCULAR", name="heard")(signal)
        seen = nn.Conv(3, (2, 2, 2), padding="CIRCULAR", name="seen")(volume)
        return {"heard": heard, "seen": seen.mean((1, 2, 3))}


def test_convolutions_in_one_and_three_dimensions_are_driven_to_their_corners():
    params = Net().init(jax.random.key(0), *(jnp.zeros((1, *shape)) for shape in SHAPES))
    model = join_inputs(Net(), params, SHAPES)
    assert model.layers == ("heard", "seen", "output0", "output1")
    assert rvis.layer_shapes(model)["output0"] == (7, 3)
    goal = 9 * objectives.channel("heard", 1) + 20 * objectives.channel("output1", [0, 2])
    signal, volume = ascend(model, goal, optimizer=optimizers.adam(0.1))
    along = params["params"]["heard"]["kernel"].sum(0)[:, 1]
    np.testing.assert_array_equal(signal, np.broadcast_to(along > 0, (2, 7, 1)))
    for i, unit in enumerate((0, 2)):
        corner = params["params"]["seen"]["kernel"].sum((0, 1, 2))[:, unit] > 0
        np.testing.assert_array_equal(volume[i], np.broadcast_to(corner, SHAPES[1]))


def test_an_nnx_module_takes_several_inputs_too():
    class Sum(nnx.Module):
        def __init__(self):
            self.first = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
            self.second = nnx.Conv(1, 2, (3,), rngs=nnx.Rngs(1))

        def __call__(self, vector, signal):
            return self.first(vector) + self.second(signal).mean(1)

    graphdef, state = nnx.split(Sum())
    model = join_inputs(NnxApply(graphdef, False), state, [(3,), (5, 1)])
    assert model.layers == ("first", "second", "output0")
    inputs = RNG.random((2, 3)).astype(np.float32), RNG.random((2, 5, 1)).astype(np.float32)
    np.testing.assert_allclose(model(as_image(model, inputs)), Sum()(*inputs), rtol=1e-5)


def test_splitting_undoes_joining(model):
    inputs = [RNG.uniform(low, high, (4, 2, *s)) for s, (low, high) in PARTS]
    images = as_image(model, inputs)
    assert images.shape == (4, 2, 1, 55, 1)
    assert 0 <= images.min() and images.max() <= 1
    for found, given in zip(split_inputs(model, images), inputs, strict=True):
        np.testing.assert_allclose(found, given, atol=1e-6)


REFUSALS = {
    "no inputs": (lambda: join_inputs(apply, {}, []), "shapes: at least one"),
    "size": (lambda: join_inputs(apply, {}, [(0, 1)]), "shapes: at least 1"),
    "ranges": (lambda: join_inputs(apply, {}, SHAPES, ranges=[(0, 1)]), "ranges: 2 were"),
    "range": (lambda: join_inputs(apply, {}, [(3,)], ranges=[(1, 1)]), "ranges: a number above 1"),
    "network": (
        lambda: join_inputs(apply, {"slope": SLOPE, "centre": CENTRE}, SHAPES[:1]),
        r"network: it cannot be called with inputs of shapes \[\(7, 1\)\]",
    ),
}


@pytest.mark.parametrize(
    ("shapes", "ranges", "name"),
    [((3, 4), None, "shapes"), (None, None, "shapes"), (SHAPES, [3, 4], "ranges")],
)
def test_what_is_no_list_of_lists_is_named(shapes, ranges, name):
    with pytest.raises(TypeError, match=name):
        join_inputs(apply, {}, shapes, ranges=ranges)


def test_one_number_an_example_is_a_layer_of_one_unit():
    def total(params, inputs, *, tap, relu):
        return inputs[0].sum(1)

    joined = join_inputs(total, {}, [(4,)])
    (found,) = ascend(joined, objectives.channel("output0", 0))
    np.testing.assert_allclose(found, 1)


@pytest.mark.parametrize(("call", "message"), REFUSALS.values(), ids=REFUSALS)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_refusals_of_a_joined_model(model):
    with pytest.raises(ValueError, match=r"images: \(…, 1, 55, 1\) was expected"):
        split_inputs(model, np.zeros((1, 54, 1)))
    with pytest.raises(ValueError, match="inputs: shapes"):
        as_image(model, [np.zeros((7, 1)), np.zeros((2, *SHAPES[1]))])
    with pytest.raises(ValueError, match="inputs: shapes"):
        as_image(model, [np.zeros((7, 1))])
    with pytest.raises(ValueError, match="model: one of join_inputs was expected"):
        split_inputs(rvis.load("mnist_cnn"), np.zeros((1, 55, 1)))


def test_a_neuron_of_a_signal_is_refused(model):
    with pytest.raises(ValueError, match="layer: one of images or single numbers"):
        rvis.visualize(model, objectives.neuron("heard", 0), **CLIMB)
