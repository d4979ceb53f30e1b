"""Files of dictionaries: each format by its maker's formula, written out."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from rvis import concepts

X = np.random.default_rng(9).standard_normal((50, 5)).astype(np.float32)


def arrays(d=5, k=8, **more):
    rng = np.random.default_rng(0)
    shapes = {"W_enc": (d, k), "b_enc": (k,), "W_dec": (k, d), "b_dec": (d,), **more}
    return {name: rng.standard_normal(s).astype(np.float32) for name, s in shapes.items()}


def agree(found, z, decoded):
    assert (z != 0).any()
    np.testing.assert_allclose(found(X), z, atol=1e-5)
    np.testing.assert_allclose(found.decode(found(X)), decoded, atol=1e-5, rtol=1e-5)


def largest(values, k):
    least = np.sort(values, 1)[:, -k:][:, :1]
    return np.where(values >= least, values, 0)


SAELENS = {
    "standard": ({}, lambda pre, w: np.maximum(pre, 0)),
    "topk": ({"k": 3}, lambda pre, w: np.maximum(largest(pre, 3), 0)),
    "jumprelu": ({}, lambda pre, w: np.where(pre > w["threshold"], np.maximum(pre, 0), 0)),
}


@pytest.mark.parametrize("shifted", [True, False])
@pytest.mark.parametrize("name", SAELENS)
def test_saelens(tmp_path, name, shifted):
    config, rule = SAELENS[name]
    w = arrays(**({"threshold": (8,)} if name == "jumprelu" else {}))
    save_file(w, tmp_path / "sae_weights.safetensors")
    card = {"architecture": name, "apply_b_dec_to_input": shifted, "d_in": 5, **config}
    (tmp_path / "cfg.json").write_text(json.dumps(card))
    z = rule((X - w["b_dec"] * shifted) @ w["W_enc"] + w["b_enc"], w)
    agree(concepts.load(tmp_path, "relu"), z, z @ w["W_dec"] + w["b_dec"])


def test_saelens_with_the_norms_of_the_decoder_in_the_choice(tmp_path):
    w = arrays()
    save_file(w, tmp_path / "sae_weights.safetensors")
    card = {"architecture": "topk", "k": 2, "rescale_acts_by_decoder_norm": True}
    (tmp_path / "cfg.json").write_text(json.dumps(card))
    norms = np.linalg.norm(w["W_dec"], axis=1)
    z = np.maximum(largest(((X - w["b_dec"]) @ w["W_enc"] + w["b_enc"]) * norms, 2), 0)
    agree(concepts.load(tmp_path, "relu"), z, (z / norms) @ w["W_dec"] + w["b_dec"])


SAEV = {
    "first": ({"d_vit": 5, "exp_factor": 2}, True, lambda pre: np.maximum(pre, 0)),
    "relu": (
        {"schema": 2, "cfg": {"activation": {"cls": "Relu", "params": {}}}},
        False,
        lambda pre: np.maximum(pre, 0),
    ),
    "topk": (
        {"schema": 2, "cfg": {"activation": {"cls": "TopK", "params": {"top_k": 3}}}},
        False,
        lambda pre: largest(pre, 3),
    ),
    "topk of schema 1": (
        {"schema": 1, "cls": "TopK", "cfg": {"top_k": 2}},
        False,
        lambda pre: largest(pre, 2),
    ),
}


@pytest.mark.parametrize("name", SAEV)
def test_saev(tmp_path, name):
    header, shifted, rule = SAEV[name]
    w = arrays()
    text = {key: json.dumps(value) for key, value in header.items()}
    save_file(w, tmp_path / "sae.safetensors", text)
    z = rule((X - w["b_dec"] * shifted) @ w["W_enc"] + w["b_enc"])
    found = concepts.load(tmp_path / "sae.safetensors", "relu")
    agree(found, z, z @ w["W_dec"] + w["b_dec"])


OVERCOMPLETE = {
    "linear": {"encoder.final_block.0.weight": (8, 5), "encoder.final_block.0.bias": (8,)},
    "normalised": {
        "encoder.final_block.0.weight": (8, 5),
        "encoder.final_block.0.bias": (8,),
        **{f"encoder.final_block.1.{n}": (8,) for n in ("weight", "bias", "running_mean")},
        "encoder.final_block.1.running_var": (8,),
    },
    "untied": {"encoder.weight": (8, 5)},
    "tied": {"encoder.bias": (8,), "encoder.tied_to._weights": (8, 5)},
}


@pytest.mark.parametrize("kind", ["relu", "topk", "jump"])
@pytest.mark.parametrize("name", OVERCOMPLETE)
def test_overcomplete(tmp_path, name, kind):
    rng = np.random.default_rng(1)
    shapes = {**OVERCOMPLETE[name], "dictionary._weights": (8, 5), "dictionary.multiplier": ()}
    if kind == "jump":
        shapes["thresholds"] = (8,)
    w = {n: np.asarray(rng.standard_normal(s), np.float32) for n, s in shapes.items()}
    if name == "normalised":
        w["encoder.final_block.1.running_var"] **= 2
    save_file(w, tmp_path / "sae.safetensors")
    rows = w["dictionary._weights"]
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True) * np.exp(w["dictionary.multiplier"])
    inner = "encoder.final_block.0" if name in ("linear", "normalised") else "encoder"
    pre = X @ w.get(f"{inner}.weight", rows).T + w.get(f"{inner}.bias", 0)
    if name == "normalised":
        scale, shift, mean, variance = (
            w[f"encoder.final_block.1.{n}"]
            for n in ("weight", "bias", "running_mean", "running_var")
        )
        pre = (pre - mean) / np.sqrt(variance + 1e-5) * scale + shift
    z = np.maximum(pre, 0)
    if kind == "topk":
        z = largest(z, 3)
    elif kind == "jump":
        z = np.where(z >= np.exp(w["thresholds"]), z, 0)
    active = 3 if kind == "topk" else None
    agree(concepts.load(tmp_path / "sae.safetensors", "relu", active=active), z, z @ rows)


def test_what_is_saved_is_what_is_loaded(tmp_path):
    one = concepts.channels("relu1", 4)
    one = one.replace(encode=one.encode.replace(kind="topk", active=2))
    concepts.save(tmp_path / "a.safetensors", one)
    found = concepts.load(tmp_path / "a.safetensors")
    assert jax.tree.structure(found) == jax.tree.structure(one)
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(one), strict=True)
    assert all((np.asarray(a) == np.asarray(b)).all() for a, b in pairs)
    assert concepts.load(tmp_path / "a.safetensors", "relu2").layer == "relu2"


CARD = {"architecture": "standard"}


@pytest.mark.parametrize(
    ("config", "more", "match"),
    [
        ({"architecture": "gated"}, {}, "architecture"),
        ({"normalize_activations": "layer_norm"}, {}, "normalize_activations"),
        ({"architecture": "topk"}, {}, "active"),
        ({}, {"scaling_factor": (8,)}, "scaling_factor"),
        ({}, {"b_dec": (6,)}, "path: arrays of a dictionary"),
        ({"architecture": "topk", "k": 9}, {}, "path: arrays of a dictionary"),
    ],
)
def test_what_no_formula_has_is_refused(tmp_path, config, more, match):
    save_file(arrays(**more), tmp_path / "sae_weights.safetensors")
    (tmp_path / "cfg.json").write_text(json.dumps({**CARD, **config}))
    with pytest.raises(ValueError, match=match):
        concepts.load(tmp_path, "relu")


def test_a_damaged_file_is_refused(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"nothing")
    (tmp_path / "sae.pt.bin2").write_bytes(b"{not json\nrest")
    for name in ("a.safetensors", "sae.pt.bin2", "absent.safetensors"):
        with pytest.raises(ValueError, match="path"):
            concepts.load(tmp_path / name, "relu")


def test_a_layer_is_asked_for(tmp_path):
    save_file(arrays(), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="layer"):
        concepts.load(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="path"):
        concepts.save(tmp_path / "a.npz", concepts.channels("relu1", 2))
    with pytest.raises(TypeError, match="concepts"):
        concepts.save(tmp_path / "a.safetensors", 3)
