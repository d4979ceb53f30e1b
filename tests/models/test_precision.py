"""Networks in other number formats: half inside, float32 outside."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rvis
from rvis import attacks, objectives
from tests import toys

IMAGES = np.random.default_rng(0).random((2, 28, 28, 1), np.float32)
MODEL = rvis.load("mnist_cnn", weights="random")
QUIET = {"progress": False}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_half_network_is_near_and_seen_in_float32(dtype):
    half = MODEL.astype(dtype)
    seen, whole = (rvis.record(m, IMAGES, ["conv1", "logits"]) for m in (half, MODEL))
    assert {x.dtype for x in seen.values()} == {jnp.dtype("float32")}
    for name in seen:
        assert not np.array_equal(seen[name], whole[name])
        np.testing.assert_allclose(seen[name], whole[name], atol=0.03 * np.abs(whole[name]).max())


def operations(model):
    def loss(images):
        return model.apply(model.params, images)[0, 0]

    images = jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.float32)
    exported = jax.export.export(jax.jit(jax.grad(loss)), platforms=["cuda"])(images)
    return [line for line in exported.mlir_module().splitlines() if ".convolution" in line]


def test_all_convolutions_are_in_the_format():
    lines = operations(MODEL.astype("bfloat16"))
    assert len(lines) == 4 and all("bf16" in line for line in lines)


@pytest.mark.parametrize(
    ("precision", "word"), [("highest", "HIGHEST"), ("tensorfloat32", "HIGH"), (None, "HIGH")]
)
def test_gradients_have_the_precision_too(precision, word):
    lines = operations(MODEL.astype(precision=precision))
    times = 2 if precision else 0
    assert len(lines) == 4 and all(line.count(f"precision {word}>") == times for line in lines)


def test_one_call_after_the_other_keeps_both():
    both = MODEL.astype("bfloat16").astype(precision="highest")
    assert (both.apply.dtype, both.apply.precision) == ("bfloat16", "highest")
    again = MODEL.astype("bfloat16").astype("float32")
    assert again.apply.dtype == "float32"
    assert rvis.models.registry.describe(both)["architecture"] == "mnist_cnn"


def test_pictures_and_attacks_stay_in_float32():
    half = toys.pointwise().astype("bfloat16")
    image = np.full((1, 6, 8, 3), 0.5, np.float32)
    drawn = rvis.visualize(
        half, objectives.channel("relu", [0, 1]), steps=4, transforms=(), **QUIET
    )
    assert drawn.images.dtype == drawn.scores.dtype == np.float32
    assert attacks.pgd(half, image, 0, eps=0.1, steps=2, **QUIET).images.dtype == np.float32


@pytest.mark.parametrize("wrong", [{"dtype": "float8"}, {"precision": "exact"}, {"dtype": 16}])
def test_unknown_formats_are_refused(wrong):
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))}: unknown"):
        MODEL.astype(**wrong)
