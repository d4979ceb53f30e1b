"""Dictionaries in files: our own, and those that others' libraries write."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from rvis import checks, files, gate
from rvis.concepts.dictionary import RULES, Concepts, Decoder, Encoder
from rvis.models.weights import convert

State = dict[str, np.ndarray]


@gate.public
def save(path: files.PathLike, concepts: Concepts) -> None:
    """Writes a dictionary as safetensors, whole or not at all; `load` reads it.

    The arrays have SAELens' names: W_enc, b_enc, W_dec, b_dec, and `centre` and `threshold` beside.

    Args:
      path: where to; it ends in ".safetensors".
      concepts: with an `Encoder`.

    Raises:
      TypeError, ValueError, OSError: naming the argument.

    Example:
      >>> import tempfile
      >>> from rvis import concepts
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     concepts.save(f"{folder}/mine.safetensors", concepts.channels("relu1", 3))
      ...     concepts.load(f"{folder}/mine.safetensors").names
      ('relu1:0', 'relu1:1', 'relu1:2')
    """
    target = files.as_path("path", path)
    if target.suffix != ".safetensors":
        raise ValueError(f"path: a name ending in .safetensors was expected, given {target}")
    if not isinstance(concepts, Concepts) or not isinstance(concepts.encode, Encoder):
        raise TypeError(f"concepts: Concepts with an Encoder were expected, given {concepts!r}")
    encode, decode = concepts.encode, concepts.decode
    arrays = {
        "W_enc": encode.kernel,
        "b_enc": encode.bias,
        "W_dec": decode.vectors,
        "b_dec": decode.offset,
        "centre": encode.centre,
        "threshold": encode.threshold,
    }
    card = {"kind": encode.kind, "active": encode.active, "layer": concepts.layer}
    text = json.dumps({**card, "names": concepts.names})
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    with files.atomic(target) as beside:
        beside.write_bytes(safetensors.numpy.save(whole, {"rvis.concepts": text}))


@gate.public
def load(path: files.PathLike, layer: str | None = None, *, active: int | None = None) -> Concepts:
    """A dictionary from a file, ours or another library's.

    Known are
      * our own, see `save`;
      * SAELens: the folder with cfg.json and sae_weights.safetensors, of the architectures
        standard, topk and jumprelu (as which batchtopk is saved);
      * saev: its file, or a .safetensors of its arrays with its header's entries as metadata;
      * overcomplete: the state-dict of an SAE with a linear encoder, batch-normalised or not, and a
        dictionary with L2 norms, as .safetensors or .pth. How many concepts are on stands in no
        such file: give `active` for its TopKSAE.

    Args:
      path: the file or folder.
      layer: a name of `model.layers`; in the place of what the file says.
      active: how many concepts are on at a place, in the place of what the file says.

    Raises:
      ValueError: naming the argument: a damaged file, an array that no known formula has, another
        architecture; no code in a file is run.

    Reference: formulas of SAELens 6 (`sae_lens/saes`), saev (`saev/nn/modeling.py`) and
      overcomplete 0.3 (`overcomplete/sae`).
    """
    source = files.as_path("path", path)
    if active is not None:
        checks.count("active", active)
    state, config = _read(source)
    ours = config.get("rvis.concepts")
    if ours is not None:
        names, layer = tuple(ours["names"]), layer or ours["layer"]
        kind, count = checks.choice("path", ours["kind"], RULES), active or int(ours["active"])
        encoder, decoder = _plain(state, kind, count, state.get("centre"))
    else:
        names = ()
        if layer is None:
            raise ValueError("layer: a name was expected, which this file does not say")
        made = _overcomplete if "dictionary._weights" in state else _w_enc
        encoder, decoder = made(state, config, active)
    arrays = (encoder.kernel, encoder.bias, encoder.centre, decoder.vectors, decoder.offset)
    channels, width = encoder.kernel.shape if encoder.kernel.ndim == 2 else (0, 0)
    wanted = ((channels, width), (width,), (channels,), (width, channels), (channels,))
    if tuple(array.shape for array in arrays) != wanted or encoder.active > width:
        raise ValueError(
            f"path: arrays of a dictionary were expected in {source}, given "
            f"{[tuple(array.shape) for array in arrays]}"
        )
    return Concepts(encoder, decoder, layer, names)


def _read(source: Path) -> tuple[State, dict[str, Any]]:
    """The arrays, and what the file says of them."""
    if source.is_dir():
        found = source / "cfg.json"
        if not found.exists():
            raise ValueError(f"path: SAELens' cfg.json was expected in {source}")
        config = json.loads(found.read_text(encoding="utf-8"))
        return convert.read_state_dict(source / "sae_weights.safetensors")[0], config
    if source.is_file() and source.suffix not in (".safetensors", ".pth", ".bin"):
        with open(source, "rb") as stream:
            if stream.read(1) == b"{":
                stream.seek(0)
                return _saev(source, stream.readline(1 << 20), stream.read())
    state, metadata = convert.read_state_dict(source)
    config = {}
    for name, value in metadata.items():
        config[name] = value
        with contextlib.suppress(ValueError):
            config[name] = json.loads(value)
    return state, config


def _saev(source: Path, header: bytes, rest: bytes) -> tuple[State, dict[str, Any]]:
    """A line of JSON, and PyTorch's file behind it."""
    try:
        config = json.loads(header)
    except ValueError as error:
        raise ValueError(f"path: saev's header was expected in {source} ({error})") from error
    with tempfile.TemporaryDirectory() as folder:
        inner = Path(folder, "weights.pt")
        inner.write_bytes(rest)
        return convert.read_state_dict(inner)[0], config


def _plain(
    state: Mapping[str, np.ndarray], kind: str, active: int, centre: np.ndarray | None
) -> tuple[Encoder, Decoder]:
    """W_enc, b_enc, W_dec, b_dec and perhaps a threshold."""
    names = ("W_enc", "b_enc", "W_dec", "b_dec")
    missing = [name for name in names if name not in state]
    unknown = sorted(set(state) - {*names, "threshold", "centre"})
    if missing or unknown:
        raise ValueError(f"path: arrays {names} were expected; missing {missing}, given {unknown}")
    w = {name: jnp.asarray(value, jnp.float32) for name, value in state.items()}
    shift = jnp.zeros_like(w["b_dec"]) if centre is None else jnp.asarray(centre, jnp.float32)
    threshold = w.get("threshold", jnp.zeros((), jnp.float32))
    encoder = Encoder(w["W_enc"], w["b_enc"], shift, threshold, kind, active)
    return encoder, Decoder(w["W_dec"], w["b_dec"])


def _w_enc(
    state: Mapping[str, np.ndarray], config: dict[str, Any], active: int | None
) -> tuple[Encoder, Decoder]:
    """Of SAELens and saev."""
    inner = config.get("cfg", config)
    rule, count, shifted = "relu", 0, True
    if "architecture" in config or "activation_fn_str" in config:
        rule = config.get("architecture", "standard")
        arguments = config.get("activation_fn_kwargs") or {}
        count = config.get("k", arguments.get("k", 0))
        if rule == "standard" and config.get("activation_fn_str", "relu") == "topk":
            rule = "topk"
        known = {"standard": "relu", "topk": "topk", "jumprelu": "jump"}
        rule = known[checks.choice("architecture", rule, known)]
        norm = config.get("normalize_activations", "none")
        checks.choice("normalize_activations", norm, ("none", "expected_average_only_in"))
        shifted = bool(config.get("apply_b_dec_to_input", True))
    elif isinstance(inner, dict):
        # saev's first files have no schema; since then it subtracts nothing from its input.
        shifted = "schema" not in config
        activation = inner.get("activation", {})
        called = activation.get("cls", config.get("cls", "Relu"))
        if called in ("TopK", "BatchTopK"):
            rule = "signed topk"
            count = activation.get("params", inner).get("top_k", 32)
    if "threshold" in state:
        rule = "jump"
    elif active is not None and rule == "relu":
        rule = "topk"
    count = active or int(count)
    if rule.endswith("topk") and not count:
        raise ValueError("active: how many concepts are on was expected, which no file says here")
    encoder, decoder = _plain(state, rule, count, state.get("b_dec") if shifted else None)
    if config.get("rescale_acts_by_decoder_norm"):
        norms = jnp.linalg.norm(decoder.vectors, axis=1)
        bias, kernel = encoder.bias * norms, encoder.kernel * norms
        encoder = Encoder(kernel, bias, encoder.centre, encoder.threshold, rule, count)
        decoder = Decoder(decoder.vectors / norms[:, None], decoder.offset)
    return encoder, decoder


_BATCH_NORM_EPS = 1e-5
_L2_EPS = 1e-8


def _overcomplete(
    state: Mapping[str, np.ndarray], config: dict[str, Any], active: int | None
) -> tuple[Encoder, Decoder]:
    """z = top(relu(BatchNorm(x·W + b))), or with thresholds; x̂ = z·D."""
    del config
    # A tied encoder holds the dictionary a second time.
    left = {name: array for name, array in state.items() if ".tied_to." not in name}
    rows = left.pop("dictionary._weights").astype(np.float64)
    vectors = rows / (np.linalg.norm(rows, axis=1, keepdims=True) + _L2_EPS)
    vectors = vectors * np.exp(left.pop("dictionary.multiplier", np.zeros(())))
    kernel, bias = vectors.T, np.zeros(len(vectors))
    for name in ("encoder.final_block.0", "encoder"):
        if f"{name}.weight" in left:
            kernel = left.pop(f"{name}.weight").T.astype(np.float64)
        bias = left.pop(f"{name}.bias", bias)
    norm = "encoder.final_block.1"
    if f"{norm}.running_var" in left:
        scale = left.pop(f"{norm}.weight") / np.sqrt(
            left.pop(f"{norm}.running_var") + _BATCH_NORM_EPS
        )
        bias = (bias - left.pop(f"{norm}.running_mean")) * scale + left.pop(f"{norm}.bias")
        kernel = kernel * scale
        left.pop(f"{norm}.num_batches_tracked", None)
    threshold = np.exp(left.pop("thresholds")) if "thresholds" in left else np.zeros(())
    if left:
        raise ValueError(f"path: a linear encoder's arrays were expected, given {sorted(left)}")
    rule = "jump" if threshold.ndim else "relu" if active is None else "topk"
    none = jnp.zeros(vectors.shape[1], jnp.float32)
    w, b, t, v = (jnp.asarray(part, jnp.float32) for part in (kernel, bias, threshold, vectors))
    return Encoder(w, b, none, t, rule, active or 0), Decoder(v, none)
