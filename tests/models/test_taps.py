"""Recording and replacing activations, and the ReLU rules on hand-worked gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rvis
from rvis.models import taps
from tests import toys

MODEL = toys.pointwise()
IMAGES = np.random.default_rng(2).random((3, 6, 8, 3)).astype(np.float32)


def test_record_gives_what_the_model_computes():
    found = rvis.record(MODEL, IMAGES, ["relu", "logits", "conv"])
    conv = IMAGES @ np.asarray(MODEL.params["conv"])
    np.testing.assert_allclose(found["conv"], conv, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["relu"], np.maximum(conv, 0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["logits"], MODEL(IMAGES), rtol=1e-5)


def test_one_image_is_a_batch_of_one():
    assert rvis.record(MODEL, IMAGES[0], "pool")["pool"].shape == (1, 4)


def test_replacing_an_activation_changes_what_follows():
    tap = taps.replacing({"pool": jnp.ones((1, 4))})
    out = MODEL.apply(MODEL.params, jnp.asarray(IMAGES), tap=tap)
    np.testing.assert_allclose(out, np.tile(np.asarray(MODEL.params["dense"]).sum(0), (3, 1)), 1e-5)


X = jnp.asarray([-1.0, -1.0, 2.0, 2.0])
G = jnp.asarray([3.0, -3.0, 3.0, -3.0])


@pytest.mark.parametrize(
    ("relu", "expected"),
    [
        (jax.nn.relu, [0, 0, 3, -3]),
        (taps.guided_relu, [0, 0, 3, 0]),
        (taps.deconvnet_relu, [3, 0, 3, 0]),
    ],
)
def test_relu_rules(relu, expected):
    y, pull = jax.vjp(relu, X)
    assert y.tolist() == [0, 0, 2, 2]
    assert pull(G)[0].tolist() == expected


# Two examples: in the first some gradient passes, in the second all of it is blocked.
@pytest.mark.parametrize(
    ("opened", "expected"), [(True, [[0, 5], [4, 0]]), (False, [[0, 5], [0, 0]])]
)
def test_redirecting_lets_through_only_what_is_blocked_entirely(opened, expected):
    x = jnp.asarray([[-1.0, 1.0], [-1.0, -1.0]])
    g = jnp.asarray([[4.0, 5.0], [4.0, -5.0]])
    y, pull = jax.vjp(lambda x: taps.redirecting_relu(x, jnp.asarray(opened)), x)
    assert y.tolist() == [[0, 1], [0, 0]]
    assert pull(g)[0].tolist() == expected


@pytest.mark.parametrize(
    ("images", "layers", "error", "message"),
    [
        (IMAGES, "rleu", ValueError, "layers: unknown 'rleu'; did you mean 'relu'"),
        (IMAGES * 255, "relu", ValueError, r"images: values in \[0, 1\].*divide by 255"),
        ((IMAGES * 255).astype(np.uint8), "relu", TypeError, "images: .*uint8; divide by 255"),
        (IMAGES * np.nan, "relu", ValueError, "images: .*given NaN"),
        (IMAGES[..., :1], "relu", ValueError, "images: 3 channels last"),
        (IMAGES[0, 0], "relu", ValueError, r"images: \(n, H, W, C\)"),
        (IMAGES.transpose(0, 3, 1, 2), "relu", ValueError, "images: 3 channels last"),
        (IMAGES > 0.5, "relu", TypeError, "images: .*dtype bool"),
        ("photo.png", "relu", TypeError, "images: "),
    ],
)
def test_record_refuses(images, layers, error, message):
    with pytest.raises(error, match=message):
        rvis.record(MODEL, images, layers)
