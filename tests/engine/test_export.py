"""What a step is lowered to: for accelerators the network's own operations, and nothing more."""

from __future__ import annotations

import re
from functools import partial

import jax
import numpy as np
import pytest

import rvis
from rvis import images, kernels, objectives, optimizers, struct, transforms
from rvis.ascent import Ascent, Problem
from rvis.engine import programs

# Convolutions up to a layer, each once forward and once back.
FORWARD = {"conv1": 1, "layer1.0": 3, "layer2": 10, "logits": 20}


@pytest.fixture(scope="module")
def resnet18():
    return struct.replace(rvis.load("resnet18", weights="random"), input_shape=(64, 64, 3))


def exported(model, layer, platform):
    """The text of the engine's program of a default visualization, for a platform."""
    spec = images.Fourier(model.input_shape)
    views = transforms.lucid(model.input_shape[0])
    algorithm = Ascent(spec, optimizers.adam(0.05), views=views, redirect_relu=16)
    problem = Problem(objectives.channel(layer, 0)).broadcast(2)
    keys = np.asarray(jax.random.key_data(jax.random.split(jax.random.key(0), 2)))
    begin = partial(programs.begin, implementation="threefry2x32")
    state = jax.eval_shape(lambda k: begin(algorithm, k, None), keys)
    options = {"implementation": "threefry2x32", "width": 2, "piece": 3, "mesh": None}
    step = jax.jit(partial(programs.advance, **options), donate_argnums=3)
    arguments = (algorithm, keys, np.zeros(2, np.int32), state, model.unnamed(), problem)
    counts = np.int32(3), np.int32(1)
    if platform == "cpu":
        with kernels.stock():
            return step.lower(*arguments, *counts).as_text()
    shapes = jax.tree.map(jax.typeof, (*arguments, *counts))
    leaves, structure = jax.tree.flatten(shapes)

    def flat(*leaves):
        return jax.tree.leaves(step(*jax.tree.unflatten(structure, leaves)))

    return jax.export.export(jax.jit(flat), platforms=[platform])(*leaves).mlir_module()


@pytest.mark.parametrize("platform", ["cuda", "tpu", "cpu"])
@pytest.mark.parametrize(("layer", "forward"), FORWARD.items())
def test_a_step_has_the_networks_own_convolutions(resnet18, layer, forward, platform):
    text = exported(resnet18, layer, platform)
    assert text.count("stablehlo.convolution") == 2 * forward


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_a_step_for_an_accelerator_has_nothing_of_the_cpus(resnet18, platform):
    text = exported(resnet18, "layer2", platform)
    assert not re.search(r"feature_group_count = ([2-9]|1\d)", text)
    assert "f64" not in text
    assert "callback" not in text
    # No weights are captured.
    assert max(map(len, text.splitlines())) < 1_000_000
