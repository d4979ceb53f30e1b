"""Towers and files: taps, sizes, every layout of weights, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import rvis
from rvis import attribution, clip, objectives
from rvis.clip.towers import ACTIVATIONS

TINY = clip.Config(
    image_size=12, patch=4, width=8, layers=2, heads=2, text_width=8, text_layers=1, text_heads=2,
    context=6, vocabulary=3, projection=5, activation="gelu",
)  # fmt: skip
WORDS = ("a", "red", "blue", "circle", "square")
IMAGES = np.random.default_rng(0).uniform(0, 1, (3, 12, 12, 3)).astype(np.float32)
TEXTS = ["a red circle", "a blue square"]


@pytest.fixture(scope="module")
def tiny():
    return clip.untrained(TINY, words=WORDS)


@pytest.fixture(scope="module")
def openai(tiny):
    """The same weights under OpenAI's names."""
    state = clip.state_dict(tiny)
    found = {"context_length": np.array(6), "input_resolution": np.array(12)}
    plain = {
        "vision_model.embeddings.class_embedding": "visual.class_embedding",
        "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
        "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
        "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
        "logit_scale": "logit_scale",
    }
    names = (
        ("vision_model.pre_layrnorm", "visual.ln_pre"),
        ("vision_model.post_layernorm", "visual.ln_post"),
        ("text_model.final_layer_norm", "ln_final"),
        ("vision_model.encoder.layers", "visual.transformer.resblocks"),
        ("text_model.encoder.layers", "transformer.resblocks"),
        ("layer_norm", "ln_"),
        ("mlp.fc1", "mlp.c_fc"),
        ("mlp.fc2", "mlp.c_proj"),
        ("self_attn", "attn"),
    )
    for name, value in state.items():
        other = plain.get(name, name)
        for ours, theirs in names:
            other = other.replace(ours, theirs)
        if ".q_proj." in name:
            others = [state[name.replace("q_proj", f"{letter}_proj")] for letter in "qkv"]
            other = other.replace("q_proj.", "in_proj_")
            value = np.concatenate(others)
        elif ".k_proj." in name or ".v_proj." in name:
            continue
        elif name == "visual_projection.weight":
            other, value = "visual.proj", value.T
        elif name == "text_projection.weight":
            other, value = "text_projection", value.T
        found[other] = np.ascontiguousarray(value)
    return found


def same(one, other):
    np.testing.assert_array_equal(clip.encode_image(one, IMAGES), clip.encode_image(other, IMAGES))
    tokens = np.array([[1, 2, 3, 7, 0, 0]])
    np.testing.assert_array_equal(
        clip.encode_tokens(one, tokens), clip.encode_tokens(other, tokens)
    )


PLAIN = {"mean": (0.5,), "std": (0.25,)}


def test_openai_s_and_openclip_s_names(tiny, openai):
    same(clip.load(openai, config=tiny.config, **PLAIN), tiny)
    custom = {
        (f"text.{n}" if not n.startswith(("visual", "logit")) else n): v for n, v in openai.items()
    }
    same(clip.load(custom, config=tiny.config, **PLAIN), tiny)
    wrapped = {f"module.{n}": v for n, v in openai.items()}
    same(clip.load(wrapped, config=tiny.config, **PLAIN), tiny)


def test_files(tiny, openai, tmp_path):
    save_file(openai, tmp_path / "model.safetensors")
    same(clip.load(tmp_path / "model.safetensors", config=tiny.config, **PLAIN), tiny)
    np.savez(tmp_path / "model.npz", **openai)
    same(clip.load(tmp_path / "model.npz", config=tiny.config, **PLAIN), tiny)


def test_a_hugging_face_folder_tells_its_activation_and_heads(tiny, tmp_path):
    state = {**clip.state_dict(tiny), "vision_model.embeddings.position_ids": np.arange(10)[None]}
    save_file(state, tmp_path / "model.safetensors")
    about = {"hidden_act": "gelu", "num_attention_heads": 2}
    (tmp_path / "config.json").write_text(
        json.dumps({"vision_config": about, "text_config": about})
    )
    loaded = clip.load(tmp_path, **PLAIN)
    assert loaded.config == tiny.config
    same(loaded, tiny)
    # Another network's tells nothing of the activation.
    for content in ("[]", json.dumps({"hidden_act": "gelu", "model_type": "vit"})):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(ValueError, match="path: a CLIPModel's configuration"):
            clip.load(tmp_path)


def test_a_folder_of_ours(tiny, tmp_path):
    loaded = clip.load(clip.save(tmp_path / "mine", tiny, {"seed": 3}))
    assert loaded.tokenizer == tiny.tokenizer and loaded.name == "mine"
    same(loaded, tiny)
    card = json.loads((tmp_path / "mine" / "card.json").read_text())
    assert card["seed"] == 3 and card["words"] == list(WORDS)
    for words in ([["red"]], list(WORDS[1:])):
        (tmp_path / "mine" / "card.json").write_text(json.dumps({**card, "words": words}))
        with pytest.raises(ValueError, match="path: the card of a CLIP"):
            clip.load(tmp_path / "mine")
    (tmp_path / "mine" / "card.json").write_text(json.dumps(card))
    weights = tmp_path / "mine" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    with pytest.raises(ValueError, match="path: .* is not the file that its card describes"):
        clip.load(tmp_path / "mine")
    (tmp_path / "mine" / "card.json").write_text("{}")
    with pytest.raises(ValueError, match="path: the card of a CLIP"):
        clip.load(tmp_path / "mine")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.pop("ln_final.bias"), "1 missing: text_model.final_layer_norm.bias"),
        (lambda s: s.update(more=np.zeros(3)), "1 surplus: more"),
        (lambda s: s.update({"visual.conv1.weight": np.zeros((8, 3, 2, 2))}), "misshapen"),
        (lambda s: s.update({"visual.ln_pre.bias": np.array(["a"] * 8)}), "real numbers"),
        (lambda s: s.update(logit_scale=np.array(np.nan)), "logit_scale"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tiny, openai, change, says):
    state = dict(openai)
    change(state)
    with pytest.raises(ValueError, match=f"state: [^~]*{says}"):
        clip.load(state, config=tiny.config)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("none.safetensors", None),
        ("short.safetensors", b"\x08\0\0\0\0\0\0\0{"),
        ("broken.npz", b"PK\x03\x04"),
        ("code.npz", "objects"),
        ("weights.txt", b"x"),
    ],
)
def test_damaged_and_hostile_files_are_refused(name, content, tmp_path):
    path = tmp_path / name
    if content == "objects":
        np.savez(path, a=np.array([print], object))
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="path"):
        clip.load(path)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda t: clip.load("sceens"), ValueError, "name_or_path: unknown 'sceens'"),
        (lambda t: clip.load(3), TypeError, "name_or_path"),
        (lambda t: clip.load({}, config="ViT-B32"), ValueError, "config: .*'ViT-B-32'"),
        (lambda t: clip.load({}, config=3), TypeError, "config"),
        (lambda t: clip.load({}), ValueError, "state: a CLIP's"),
        (lambda t: clip.load(clip.state_dict(t)), ValueError, "config: the activation"),
        (lambda t: clip.Config(width=10, heads=3), ValueError, "heads: a divisor"),
        (lambda t: clip.Config(image_size=30), ValueError, "image_size: a multiple of 32"),
        (lambda t: clip.Config(activation="relu"), ValueError, "activation"),
        (lambda t: clip.Config(layers=0), ValueError, "layers"),
        (lambda t: clip.encode_image(t, IMAGES[:, :11]), ValueError, "images: sides"),
        (lambda t: clip.encode_image(t, IMAGES * 255), ValueError, "images.*divide by 255"),
        (lambda t: clip.encode_text(t, "a green circle"), ValueError, "texts: .*'green'"),
        (lambda t: clip.encode_text(t, "red", templates=["a"]), ValueError, "templates"),
        (lambda t: clip.encode_text(t, "red", templates=()), ValueError, "templates"),
        (lambda t: clip.encode_text(t, None), TypeError, "texts"),
        (lambda t: clip.encode_tokens(t, np.zeros((1, 5), int)), ValueError, "tokens: .*6"),
        (lambda t: clip.encode_tokens(t, np.full((1, 6), 99)), ValueError, "tokens: 0 to 7"),
        (lambda t: clip.ensemble([t, 3]), TypeError, "clips"),
        (lambda t: clip.untrained("ViT"), TypeError, "config"),
        (
            lambda t: clip.encode_text(dataclasses.replace(t, tokenizer=None), "red"),
            ValueError,
            "clip: .*no vocabulary",
        ),
    ],
)
def test_refusals_name_the_argument(tiny, call, error, says):
    with pytest.raises(error, match=says):
        call(tiny)


def test_the_common_sizes():
    """Weights of both towers, in millions, as OpenCLIP's page lists them."""
    for name, millions in {"ViT-B-32": 151.28, "ViT-L-14": 427.62, "ViT-bigG-14": 2539.57}.items():
        config = clip.SIZES[name]
        shapes = [
            jax.eval_shape(tower(config).init, jax.random.key(0), jnp.zeros(shape))
            for tower, shape in (
                (clip.ImageTower, (1, *config.input_shape)),
                (clip.TextTower, (1, config.context)),
            )
        ]
        count = 1 + sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
        assert round(count / 1e6, 2) == millions, name


def test_the_activations():
    x = jnp.linspace(-3, 3, 13)
    erf = np.asarray([math.erf(v / math.sqrt(2)) for v in x])
    np.testing.assert_allclose(ACTIVATIONS["gelu"](x), x * (1 + erf) / 2, atol=1e-6)
    np.testing.assert_allclose(
        ACTIVATIONS["quick_gelu"](x), x / (1 + np.exp(-1.702 * np.asarray(x))), atol=1e-6
    )


def test_layers_are_grids_and_class_tokens(tiny):
    shapes = rvis.layer_shapes(tiny.image)
    assert shapes["patches"] == shapes["block1"] == (3, 3, 8)
    assert shapes["block1.class"] == (8,) and shapes["block2.mlp.class"] == (32,)
    # After the last attention the patches reach nothing.
    assert "block2" not in shapes and "block2.norm1" in shapes and shapes["embedding"] == (5,)


def test_other_sizes_have_more_places(tiny):
    shapes = rvis.layer_shapes(tiny.image, (20, 16, 3))
    assert shapes["block1"] == (5, 4, 8) and shapes["embedding"] == (5,)


def test_a_text_is_read_up_to_its_end(tiny):
    rows = np.array([[1, 3, 7, 0, 0, 0], [1, 3, 7, 5, 4, 2]])
    ends = clip.encode_tokens(tiny, rows)
    np.testing.assert_allclose(ends[0], ends[1], atol=1e-6)


def test_a_batch_is_its_members(tiny):
    many = clip.encode_text(tiny, [*TEXTS, *TEXTS * 4])
    np.testing.assert_array_equal(clip.encode_text(tiny, TEXTS[1]), many[1])
    np.testing.assert_array_equal(clip.encode_image(tiny, IMAGES[1])[0], clip.encode_image(tiny, IMAGES)[1])  # fmt: skip
    np.testing.assert_allclose(np.linalg.norm(many, axis=1), 1, atol=1e-6)


def test_the_classifier_s_logits_are_scaled_cosines(tiny):
    model = clip.classifier(tiny, TEXTS)
    expected = clip.encode_image(tiny, IMAGES) @ clip.encode_text(tiny, TEXTS).T
    np.testing.assert_allclose(
        model(IMAGES), expected * np.exp(np.asarray(tiny.logit_scale)), rtol=1e-4, atol=1e-5
    )
    assert model.classes == tuple(TEXTS)
    by_name = attribution.gradient(model, IMAGES, TEXTS[0], progress=False).maps
    scaled = clip.similarity(tiny, TEXTS[0]) * jnp.exp(tiny.logit_scale)
    direct = attribution.gradient(tiny.image, IMAGES, scaled, progress=False).maps
    np.testing.assert_allclose(by_name, direct, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("pool", ["class", pytest.param("mean", marks=pytest.mark.slow)])
def test_grad_cam_on_tokens(pool):
    one = clip.untrained(dataclasses.replace(TINY, pool=pool), words=WORDS)
    found = attribution.grad_cam(one.image, IMAGES, clip.similarity(one, TEXTS[0]), progress=False)
    assert found.raw.shape == (3, 3, 3) and found.config["layer"] == (
        "block2.norm1" if pool == "class" else "block2"
    )
    assert found.raw.max() > 0


def test_templates_are_averaged(tiny):
    both = clip.encode_text(tiny, "red", templates=["a {} circle", "a {} square"])
    each = clip.encode_text(tiny, ["a red circle", "a red square"]).mean(0)
    np.testing.assert_allclose(both, each / np.linalg.norm(each), atol=1e-6)


def test_text_and_channels_can_be_visualized(tiny):
    texts = clip.similarity(tiny, TEXTS) - 0.5 * clip.similarity(tiny, "a")
    for objective in (texts, objectives.channel("block1.mlp", [3, 4])):
        found = rvis.visualize(tiny.image, objective, steps=2, transforms=(), progress=False)
        assert found.images.shape == (2, 12, 12, 3)
        assert (found.scores[:, 1] > found.scores[:, 0]).all()


def test_titles_are_the_texts_and_do_not_retrace(tiny):
    objective = clip.similarity(tiny, TEXTS)
    assert objective.titles(()).tolist() == TEXTS
    assert clip.similarity(tiny, "red").titles(()).item() == "red"
    one, other = (jax.tree.structure(clip.similarity(tiny, text)) for text in TEXTS)
    assert one == other and hash(one) == hash(other)


def test_an_ensemble_sees_the_picture_at_each_tower_s_size(tiny):
    large = clip.untrained(dataclasses.replace(TINY, image_size=24), words=WORDS, key=1)
    model = clip.ensemble([tiny, large])
    assert model.input_shape == (24, 24, 3)
    out = np.asarray(model(np.full((1, 24, 24, 3), 0.25, np.float32)))
    grey = [np.full((1, s, s, 3), 0.25, np.float32) for s in (12, 24)]
    np.testing.assert_allclose(out[:, :5], tiny.image(grey[0]), atol=1e-5)
    np.testing.assert_allclose(out[:, 5:], large.image(grey[1]), atol=1e-5)
