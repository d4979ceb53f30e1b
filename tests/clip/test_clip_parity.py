"""ViT-B/32 against the public reference, where its numbers are at hand."""

from __future__ import annotations

import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rvis import clip
from rvis.models.weights import convert
from tests.golden import seeded

PARITY = pathlib.Path(__file__).parents[3] / "shared" / "parity"
BLOCKS = (1, 6, 12)


@pytest.fixture(scope="module")
def golden():
    if not (PARITY / "clip_vit_b32.npz").exists():
        pytest.skip(f"no golden CLIP at {PARITY}")
    with np.load(PARITY / "clip_vit_b32.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def towers(golden):
    """The reference's weights, fitted by their names, as (config, image params, text params)."""
    shapes = json.loads((PARITY / "clip_vit_b32.keys.json").read_text())
    state = {entry: seeded.weight(entry, tuple(shape)) for entry, shape in shapes.items()}
    config = clip.SIZES["ViT-B-32-quickgelu"]
    vision = {k: v for k, v in state.items() if k.startswith("vis")}
    text = {k: v for k, v in state.items() if k.startswith("text")}
    image = convert.to_variables(clip.ImageTower(config), vision, config.input_shape)
    return config, image, convert.to_variables(clip.TextTower(config), text, (config.context,))


@pytest.fixture(scope="module")
def image_side(golden, towers):
    """(embeddings, hidden states, input gradient of the first image's first logit)."""
    config, params, _ = towers
    tower = clip.ImageTower(config)
    text = jnp.asarray(golden["text_embeds"][0] * math.exp(golden["logit_scale"]))
    wanted = {f"vision_model.encoder.layers.{block - 1}": block for block in BLOCKS}

    def forward(images, params):
        out, state = tower.apply(
            params,
            images,
            capture_intermediates=lambda module, _: module.name in wanted,
            mutable=["intermediates"],
        )
        unit = out / jnp.linalg.norm(out, axis=-1, keepdims=True)
        found = state["intermediates"]
        hidden = {block: found[name]["__call__"][0] for name, block in wanted.items()}
        return unit[0] @ text, (unit, hidden)

    with jax.default_matmul_precision("highest"):
        step = jax.jit(jax.value_and_grad(forward, has_aux=True))
        (_, (unit, hidden)), gradient = step(jnp.asarray(seeded.images()), params)
    return np.asarray(unit), jax.tree.map(np.asarray, hidden), np.asarray(gradient)


def near(ours, expected):
    assert np.linalg.norm(ours - expected) <= 1e-4 * np.linalg.norm(expected)


def test_image_embeddings(image_side, golden):
    near(image_side[0], golden["image_embeds"])


@pytest.mark.parametrize("block", BLOCKS)
def test_hidden_states(image_side, golden, block):
    near(seeded.sample(image_side[1][block]), golden[f"act/vision_block{block}/sample"])


def test_input_gradient(image_side, golden):
    near(seeded.sample(image_side[2]), golden["grad_logit00/sample"])
    np.testing.assert_allclose(
        np.linalg.norm(image_side[2]), golden["grad_logit00/norm"], rtol=1e-4
    )


def test_text_embeddings_and_logits(image_side, towers, golden):
    config, _, params = towers
    with jax.default_matmul_precision("highest"):
        out = jax.jit(clip.TextTower(config).apply)(params, jnp.asarray(golden["tokens"]))
    unit = np.asarray(out / jnp.linalg.norm(out, axis=-1, keepdims=True))
    near(unit, golden["text_embeds"])
    logits = math.exp(golden["logit_scale"]) * image_side[0] @ unit.T
    near(logits, golden["logits_per_image"])
