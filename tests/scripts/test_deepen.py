"""A deepened network is the same function until it is trained."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rvis
from rvis.models import architectures
from rvis.models.apply import LinenApply
from rvis.models.families.mnist import MnistCNN
from rvis.models.families.vgg import VGG
from scripts.deepen import deepen


def small(bottleneck: bool) -> rvis.Model:
    """Two stages of random weights, of either kind of block, with BatchNorms that do something."""
    config = {"stages": (1, 1), "widths": (4, 8), "bottleneck": bottleneck, "classes": 3}
    model = architectures.build(
        "cifar_resnet", weights="random", config=config, input_shape=(8, 8, 3), classes=tuple("abc")
    )
    rng = np.random.default_rng(0)
    shifted = jax.tree.map(
        lambda a: a + 0.1 * rng.random(a.shape, np.float32), jax.device_get(model.params)
    )
    return model.replace(params=jax.device_put(shifted))


@pytest.mark.parametrize("bottleneck", [False, True])
def test_the_function_and_the_old_layers_stay(bottleneck):
    model = small(bottleneck)
    deeper = deepen(model, (2, 3))
    x = jax.random.uniform(jax.random.key(0), (2, 8, 8, 3))
    layers = ("layer1.0", "layer1", "layer2.0", "layer2", "fc")
    old, new = rvis.record(model, x, layers), rvis.record(deeper, x, layers)
    for layer in layers:
        np.testing.assert_allclose(new[layer], old[layer], atol=1e-5)
    assert "layer2.2" in rvis.layer_shapes(deeper)


def test_new_blocks_learn_from_the_first_step():
    deeper = deepen(small(False), (2, 1))
    x = jax.random.uniform(jax.random.key(0), (2, 8, 8, 3))
    gradient = jax.jit(jax.grad(lambda p: deeper.apply(p, x)[:, 0].sum()))(deeper.params)
    assert jnp.abs(gradient["params"]["layer1.1"]["bn2"]["scale"]).max() > 0


@pytest.mark.parametrize("stages", [(1,), (1, 0), (2, 0), (1, 1, 1)])
def test_stages_that_do_not_fit_are_named(stages):
    with pytest.raises(ValueError, match="stages"):
        deepen(small(False), stages)


@pytest.mark.parametrize(
    "module",
    [MnistCNN((4, 8)), VGG(stages=(1,), classes=2)],
    ids=lambda module: type(module).__name__,
)
def test_only_residual_networks_grow(module):
    # Without weights: it is refused before they matter.
    model = rvis.Model({}, LinenApply(module), layers=(), input_shape=(32, 32, 3))
    with pytest.raises(ValueError, match="residual"):
        deepen(model, (1, 1))


def test_a_replaced_pooling_stays():
    config = {"stages": (1, 1), "widths": (4, 8), "stem": "imagenet", "classes": 3}
    shape, classes = (16, 16, 3), tuple("abc")
    model = architectures.build(
        "resnet18", weights="random", config=config, input_shape=shape, classes=classes
    )
    model = model.replace(apply=model.apply.with_average_pooling())
    x = np.random.default_rng(0).random(shape, np.float32)
    np.testing.assert_allclose(deepen(model, (1, 2))(x), model(x), atol=1e-5)
