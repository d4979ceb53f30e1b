"""What counts as the same work: values, structure and code, in this process and in another."""

from __future__ import annotations

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rvis
from rvis import objectives
from rvis.engine.identity import fingerprint
from tests import toys


def scaled(factor):
    return lambda x: factor * x


def defaulted(x, power=2):
    return x**power


DIFFERENT = {
    "numbers": (1.0, 2.0),
    "kinds": (1, 1.0),
    "arrays": (np.zeros(2, np.float32), np.zeros(2, np.float64)),
    "shapes": (np.zeros((2, 3)), np.zeros((3, 2))),
    "keys": (jax.random.key(0), jax.random.key(1)),
    "code": (lambda x: x + 1, lambda x: x + 2),
    "names in code": (lambda x: jnp.sin(x), lambda x: jnp.cos(x)),
    "what a function closes over": (scaled(1.0), scaled(2.0)),
    "defaults": (defaulted, lambda x, power=2: x**power + 0),
    "partial": (functools.partial(defaulted, power=2), functools.partial(defaulted, power=3)),
    "under jit": (jax.jit(lambda x: x + 1), jax.jit(lambda x: x + 2)),
    "objectives": (objectives.channel("a", 0), objectives.neuron("a", 0)),
    "inner functions": (lambda x: (lambda y: y + 1)(x), lambda x: (lambda y: y + 2)(x)),
}


@pytest.mark.parametrize(("one", "other"), DIFFERENT.values(), ids=DIFFERENT)
def test_other_work_has_another_fingerprint(one, other):
    assert fingerprint(one) == fingerprint(one)
    assert fingerprint(one) != fingerprint(other)


def test_what_holds_itself_has_a_fingerprint():
    loop = [1]
    loop.append(loop)
    assert fingerprint(loop) == fingerprint(loop)


def test_another_process_has_the_same():
    code = (
        "import rvis; from rvis.engine.identity import fingerprint\n"
        "model = rvis.load('mnist_cnn'); print(fingerprint(model.apply, model.params))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    model = rvis.load("mnist_cnn")
    assert run.stdout.strip() == fingerprint(model.apply, model.params)


def test_a_sweep_of_another_function_is_refused(tmp_path):
    def model(double):
        def apply(params, images, *, tap=lambda name, x: x, relu=jax.nn.relu):
            return toys.apply(params, images * (2.0 if double else 1.0), tap=tap, relu=relu)

        plain = toys.pointwise()
        return rvis.Model(plain.params, apply, plain.layers, plain.input_shape, name="mine")

    options = {"out": tmp_path, "steps": 2, "transforms": (), "progress": False}
    rvis.sweep(model(False), "relu", [0], **options)
    rvis.sweep(model(False), "relu", [0], **options)
    with pytest.raises(ValueError, match="out: .* other arguments"):
        rvis.sweep(model(True), "relu", [0], **options)
