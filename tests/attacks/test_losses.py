"""The cross-entropy of an attack, where a log-softmax keeps its gradient and where it does not."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rvis import attacks
from rvis.attacks.losses import CrossEntropy
from rvis.types import LOGITS, identity
from tests.attacks import small


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_it_is_the_cross_entropy(targeted, scale):
    z = scale * jax.random.normal(jax.random.key(0), (1, 7), jnp.float32)
    sign = 1 if targeted else -1

    def plain(z):
        return sign * jax.nn.log_softmax(z)[0, 2]

    own = CrossEntropy(jnp.int32(2), targeted)
    found = jax.jit(jax.value_and_grad(lambda z: own({LOGITS: z})))(z)
    expected = jax.jit(jax.value_and_grad(plain))(z)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("gap", [20.0, 80.0, 1e4])
def test_its_gradient_keeps_its_direction_however_sure_the_network_is(gap):
    z = jnp.array([[gap, 0.0, -gap]])
    slope = np.asarray(jax.grad(lambda z: CrossEntropy(jnp.int32(0))({LOGITS: z}))(z))[0]
    assert slope[1] > 0
    np.testing.assert_allclose(slope / slope[1], [-1, 1, 0], atol=1e-6)
    # What is higher stays higher.
    values = [float(CrossEntropy(jnp.int32(0))({LOGITS: z * k})) for k in (1.01, 1.0, 0.99, 0.5)]
    assert values == sorted(values) and len(set(values)) == 4


def loud(params, images, *, tap=identity, relu=jax.nn.relu):
    """The small network, its logits ten thousand times as large."""
    return tap("out", 1e4 * small.apply(params, images))


# APGD's loss is tried on loud logits in test_gradient.
@pytest.mark.parametrize("name", ["pgd", pytest.param("apgd", marks=pytest.mark.slow), "ddn"])
def test_loud_logits_are_no_robustness(name):
    images, labels = small.images(12)
    options = {} if name == "ddn" else {"eps": 0.03}
    attack = getattr(attacks, name)
    quiet, other = (
        attack(model, images, labels, steps=20, progress=False, **options)
        for model in (
            small.network(),
            small.network().replace(apply=loud, layers=("out",)),
        )
    )
    assert abs(quiet.accuracy - other.accuracy) <= 1 / 12 + 1e-9
