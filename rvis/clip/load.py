"""CLIPs from files: Hugging Face's, OpenCLIP's and OpenAI's weights, and those shipped."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.resources
import json
import math
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from importlib.resources.abc import Traversable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks, files, gate
from rvis.clip.model import CLIP
from rvis.clip.tokenizer import Tokenizer, Words, read_byte_pairs
from rvis.clip.towers import ACTIVATIONS, SIZES, Config, ImageTower, TextTower
from rvis.models import adapters, settings
from rvis.models.weights import convert
from rvis.types import Array, KeyLike, PyTree, as_key, on_device

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""What OpenAI and OpenCLIP normalise images with (openai/CLIP, `clip.py`)."""

_BUFFERS = re.compile(
    r"(^|\.)(position_ids|attn_mask|input_resolution|context_length|vocab_size|logit_bias)$"
)
_OPENAI = {
    r"^text\.(?=transformer|token_|positional_|ln_final|text_proj)": "",
    r"^visual\.class_embedding$": "vision_model.embeddings.class_embedding",
    r"^visual\.positional_embedding$": "vision_model.embeddings.position_embedding.weight",
    r"^visual\.conv1\.": "vision_model.embeddings.patch_embedding.",
    r"^visual\.ln_pre\.": "vision_model.pre_layrnorm.",
    r"^visual\.ln_post\.": "vision_model.post_layernorm.",
    r"^visual\.proj$": "visual_projection.weight",
    r"^visual\.transformer\.resblocks\.": "vision_model.encoder.layers.",
    r"^transformer\.resblocks\.": "text_model.encoder.layers.",
    r"^token_embedding\.": "text_model.embeddings.token_embedding.",
    r"^positional_embedding$": "text_model.embeddings.position_embedding.weight",
    r"^ln_final\.": "text_model.final_layer_norm.",
    r"^text_projection$": "text_projection.weight",
    r"\.attn\.in_proj_": ".self_attn.in_proj_",
    r"\.attn\.out_proj\.": ".self_attn.out_proj.",
    r"\.ln_(\d)\.": r".layer_norm\1.",
    r"\.mlp\.c_fc\.": ".mlp.fc1.",
    r"\.mlp\.c_proj\.": ".mlp.fc2.",
}
"""OpenAI's and OpenCLIP's entries, and Hugging Face's for them."""


@gate.public
def load(
    name_or_path: str | os.PathLike[str] | Mapping[str, Any],
    *,
    config: str | Config | None = None,
    tokenizer: Tokenizer | str | os.PathLike[str] | None = None,
    mean: Sequence[float] = MEAN,
    std: Sequence[float] = STD,
) -> CLIP:
    """A CLIP that is shipped, or from a file of Hugging Face, OpenCLIP or OpenAI.

    Args:
      name_or_path: one of `list_clips()`; a folder that `save` wrote, or one of Hugging Face with
        `model.safetensors`; a file of weights: `.safetensors`, `.npz`, or PyTorch's `.pth`, `.pt`
        and `.bin`; or a mapping {entry: array}.
      config: a name of `rvis.clip.SIZES` or a `Config`. It may be left out where the weights say
        all: those of Hugging Face with their `config.json`, and all sizes but the activation, by
        which OpenAI's networks ("…-quickgelu") differ from most of OpenCLIP's.
      tokenizer: a vocabulary for `rvis.clip.read_byte_pairs`, or a tokenizer. By default one that
        lies beside the weights; without any, `encode_text` refuses.
      mean: of the images in [0, 1], for files that are no CLIP of ours.
      std: likewise.

    Returns:
      A CLIP whose params are float32 JAX arrays.

    Raises:
      ValueError: naming `name_or_path` (with the nearest names), `config`, `path` of a file that is
        missing, damaged or not the one its card describes, and `state` with every entry that does
        not fit.
      TypeError: naming `name_or_path` or `config`.

    Example:
      >>> from rvis import clip
      >>> small = clip.untrained(clip.SMALL, words=("a", "red", "circle"))
      >>> state = clip.state_dict(small)
      >>> clip.load(state, config=small.config).image.layers == small.image.layers
      True
    """
    for argument, value in {"mean": mean, "std": std}.items():
        settings.floats(argument, value, 3)
    words, about = _tokenizer(tokenizer), {"mean": mean, "std": std}
    if isinstance(name_or_path, Mapping):
        state = {str(entry): np.asarray(value) for entry, value in name_or_path.items()}
        return _from_state(state, config, words, **about, name="clip")
    path = files.as_path("name_or_path", name_or_path)
    shipped = _shipped() if isinstance(name_or_path, str) else {}
    if name_or_path in shipped:
        if config is not None:
            raise ValueError(f"config: {name_or_path!r} has its own, given {config!r}")
        if tokenizer is not None:
            raise ValueError(f"tokenizer: {name_or_path!r} has its own, given {tokenizer!r}")
        return _from_folder(shipped[name_or_path], str(name_or_path))
    if isinstance(name_or_path, str) and not path.exists() and len(path.parts) < 2:
        if not path.suffix:
            checks.choice("name_or_path", name_or_path, shipped)
    if (path / "card.json").is_file():
        return _from_folder(path, path.resolve().name)
    if path.is_dir():
        path = path / "model.safetensors"
    state = _read(path)
    beside = path.parent
    if config is None and (beside / "config.json").is_file():
        config = _hugging_face(beside / "config.json", state)
    if words is None and any((beside / n).is_file() for n in ("vocab.json", "tokenizer.json")):
        words = read_byte_pairs(beside)
    return _from_state(state, config, words, **about, name=path.stem)


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
    if path.suffix != ".npz":
        return convert.read_state_dict(path)[0]
    try:
        with np.load(path, allow_pickle=False) as stored:
            state = {name: np.asarray(stored[name]) for name in stored.files}
    # A damaged archive can raise anything.
    except Exception as error:
        raise ValueError(f"path: a whole npz of arrays was expected at {path} ({error})") from error
    for name, value in state.items():
        if not np.issubdtype(value.dtype, np.number) or np.iscomplexobj(value):
            raise ValueError(f"path: real numbers were expected for {name!r} in {path}")
    return {name: value.astype(np.float32) for name, value in state.items()}


def _tokenizer(tokenizer: Any) -> Tokenizer | None:
    if isinstance(tokenizer, (str, os.PathLike)):
        return read_byte_pairs(tokenizer)
    if tokenizer is not None and not callable(tokenizer):
        raise TypeError(f"tokenizer: a path or a tokenizer was expected, given {tokenizer!r}")
    return tokenizer


def _renamed(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A state-dict under Hugging Face's names, from that or from OpenAI's and OpenCLIP's.

    Queries, keys and values come apart and the two projections are transposed; what is no weight
    (position numbers, masks, sizes) is left out.
    """
    bare = {re.sub(r"^(module|_orig_mod)\.", "", name): value for name, value in state.items()}
    renamed: dict[str, np.ndarray] = {}
    for name, value in bare.items():
        if _BUFFERS.search(name):
            continue
        other = name
        for pattern, replacement in _OPENAI.items():
            other = re.sub(pattern, replacement, other)
        if other != name and other in ("visual_projection.weight", "text_projection.weight"):
            value = np.swapaxes(value, 0, 1) if value.ndim == 2 else value
        joined = re.search(r"\.in_proj_(weight|bias)$", other)
        if joined and value.ndim and value.shape[0] % 3 == 0:
            for letter, part in zip("qkv", np.split(value, 3), strict=True):
                renamed[f"{other[: joined.start()]}.{letter}_proj.{joined.group(1)}"] = part
        else:
            renamed[other] = value
    return renamed


def _inferred(state: Mapping[str, np.ndarray], activation: str | None) -> Config:
    """The sizes that a state-dict under Hugging Face's names shows."""

    def shape(entry: str, rank: int) -> tuple[int, ...]:
        if entry not in state or state[entry].ndim != rank:
            raise ValueError(
                f"state: a CLIP's {entry!r} of rank {rank} was expected, given entries "
                f"{list(state)[:10]}"
            )
        return state[entry].shape

    def blocks(tower: str) -> int:
        numbers = [
            int(match.group(1))
            for name in state
            if (match := re.match(rf"{tower}\.encoder\.layers\.(\d+)\.", name))
        ]
        return 1 + max(numbers, default=0)

    width, _, patch, _ = shape("vision_model.embeddings.patch_embedding.weight", 4)
    places, _ = shape("vision_model.embeddings.position_embedding.weight", 2)
    vocabulary, text_width = shape("text_model.embeddings.token_embedding.weight", 2)
    context, _ = shape("text_model.embeddings.position_embedding.weight", 2)
    projection, _ = shape("visual_projection.weight", 2)
    mlp, _ = shape("vision_model.encoder.layers.0.mlp.fc1.weight", 2)
    text_mlp, _ = shape("text_model.encoder.layers.0.mlp.fc1.weight", 2)
    layers = blocks("vision_model")
    same = [known for known in SIZES.values() if (known.width, known.layers) == (width, layers)]
    heads = same[0].heads if same else max(1, width // 64)
    return Config(
        image_size=math.isqrt(max(1, places - 1)) * patch,
        patch=patch,
        width=width,
        layers=layers,
        heads=heads,
        mlp=0 if mlp == 4 * width else mlp,
        text_width=text_width,
        text_layers=blocks("text_model"),
        text_heads=max(1, text_width // 64),
        text_mlp=0 if text_mlp == 4 * text_width else text_mlp,
        context=context,
        vocabulary=vocabulary,
        projection=projection,
        activation=activation or "gelu",
    )


def _hugging_face(path: pathlib.Path, state: Mapping[str, np.ndarray]) -> Config:
    """What a `CLIPModel`'s config.json adds to the sizes that its weights show."""
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        # What is left out is as in OpenAI's, but another network's file says nothing of this one.
        if about.get("model_type") != "clip" and "vision_config" not in about:
            raise ValueError(f"no model_type 'clip' among {list(about)[:10]}")
        vision, text = about.get("vision_config") or {}, about.get("text_config") or {}
        activation = vision.get("hidden_act", "quick_gelu")
        heads = vision.get("num_attention_heads"), text.get("num_attention_heads")
        config = _inferred(_renamed(state), checks.choice("activation", activation, ACTIVATIONS))
        return dataclasses.replace(
            config, heads=heads[0] or config.heads, text_heads=heads[1] or config.text_heads
        )
    except (OSError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"path: a CLIPModel's configuration was expected at {path} ({error})"
        ) from error


def _from_state(
    state: Mapping[str, np.ndarray],
    config: str | Config | None,
    tokenizer: Tokenizer | None,
    **about: Any,
) -> CLIP:
    state = _renamed(state)
    if isinstance(config, str):
        config = SIZES[checks.choice("config", config, SIZES)]
    elif config is None:
        config = _inferred(state, None)
        words = config.vocabulary
        larger = [n for n, c in SIZES.items() if dataclasses.replace(c, vocabulary=words) == config]
        if not larger or f"{larger[0]}-quickgelu" in SIZES:
            near = (larger or ["ViT-B-32"])[0]
            raise ValueError(
                "config: the activation cannot be told from weights; give "
                f"config={near + '-quickgelu'!r} for OpenAI's, {near!r} for those trained with "
                "GELU, or a Config"
            )
    elif not isinstance(config, Config):
        raise TypeError(f"config: a name or a Config was expected, given {config!r}")
    scale = state.pop("logit_scale", np.float32(math.log(1 / 0.07)))
    if np.size(scale) != 1 or not np.all(np.isfinite(scale)):
        raise ValueError(f"state: one number was expected for 'logit_scale', given {scale!r}")
    vision = {n: v for n, v in state.items() if not n.startswith("text_")}
    text = {n: v for n, v in state.items() if n.startswith("text_")}
    if tokenizer is not None and tokenizer.context != config.context:
        if not dataclasses.is_dataclass(tokenizer):
            raise ValueError(
                f"tokenizer: a context of {config.context} was expected, given {tokenizer.context}"
            )
        tokenizer = dataclasses.replace(tokenizer, context=config.context)  # type: ignore[type-var]
    return _assembled(
        config,
        convert.to_variables(ImageTower(config), vision, config.input_shape),
        convert.to_variables(TextTower(config), text, (config.context,)),  # type: ignore[arg-type]
        float(np.reshape(scale, ())),
        tokenizer,
        **about,
    )


def _assembled(
    config: Config,
    image: Any,
    text: Any,
    scale: float,
    tokenizer: Tokenizer | None,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    name: str,
) -> CLIP:
    about: Any = {"input_shape": config.input_shape, "mean": mean, "std": std, "name": name}
    model = adapters.from_linen(ImageTower(config), image, **about)
    return CLIP(model, text, on_device(scale, jnp.float32), config, tokenizer, name)


@gate.public
def untrained(
    config: Config,
    *,
    words: Sequence[str] = (),
    key: KeyLike = 0,
    mean: Sequence[float] = (0.5,),
    std: Sequence[float] = (0.25,),
    name: str = "clip",
) -> CLIP:
    """A CLIP with random weights, to be trained.

    Args:
      config: the sizes; with `words` the vocabulary follows them.
      words: the vocabulary of whole words; without any, the CLIP has no tokenizer.
      key: an int seed or a typed key.
      mean: of the images in [0, 1], one number or one a channel.
      std: likewise.
      name: what to call it.

    Raises:
      TypeError, ValueError: naming the argument.

    Example:
      >>> from rvis import clip
      >>> clip.untrained(clip.SMALL, words=("a", "red", "circle")).config.vocabulary
      6
    """
    tokenizer = Words(tuple(words), config.context) if len(words) else None
    if tokenizer is not None:
        config = dataclasses.replace(config, vocabulary=tokenizer.size)
    first, second = jax.random.split(as_key(key))
    for argument, value in {"mean": mean, "std": std}.items():
        settings.floats(argument, value, config.input_shape[2])
    tokens = np.zeros((1, config.context), np.int32)
    return _assembled(
        config,
        _initial(ImageTower(config), first, np.zeros((1, *config.input_shape), np.float32)),
        _initial(TextTower(config), second, tokens),
        math.log(1 / 0.07),
        tokenizer,
        mean=mean,
        std=std,
        name=name,
    )


@functools.partial(jax.jit, static_argnums=0)
def _initial(tower: ImageTower | TextTower, key: Array, sample: Array) -> PyTree:
    return tower.init(key, sample)


@gate.public
def state_dict(clip: CLIP) -> dict[str, np.ndarray]:
    """The weights of a CLIP under Hugging Face's names, in PyTorch's layout.

    Example:
      >>> from rvis import clip
      >>> small = clip.untrained(clip.SMALL, words=("a", "red", "circle"))
      >>> clip.state_dict(small)["text_projection.weight"].shape
      (64, 64)
    """
    return {
        **convert.from_variables(clip.image.params),
        **convert.from_variables(clip.text_params),
        "logit_scale": np.asarray(clip.logit_scale),
    }


@gate.public
def save(folder: str | os.PathLike[str], clip: CLIP, about: Mapping[str, Any]) -> pathlib.Path:
    """Writes a CLIP with its card into a folder, from which `load` reads it.

    Args:
      folder: where to; made where it is missing, and returned.
      clip: one with a vocabulary of whole words; ValueError names it otherwise.
      about: what else the card shall say.

    Example:
      >>> import tempfile
      >>> from rvis import clip
      >>> small = clip.untrained(clip.SMALL, words=("a", "red", "circle"))
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     clip.load(clip.save(folder, small, {"seed": 0})).tokenizer == small.tokenizer
      True
    """
    if not isinstance(clip.tokenizer, Words):
        raise ValueError(f"clip: one with a vocabulary of words was expected, given {clip.name!r}")
    place = files.as_path("folder", folder)
    convert.save(place / "weights.safetensors", clip.state, {"architecture": "clip"})
    data = (place / "weights.safetensors").read_bytes()
    apply: Any = clip.image.apply
    card = {
        "architecture": "clip",
        "config": dataclasses.asdict(clip.config),
        "mean": apply.mean,
        "std": apply.std,
        "words": clip.tokenizer.words,
        **about,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    files.write_json(place / "card.json", card)
    return place


def _from_folder(folder: Traversable, name: str) -> CLIP:
    file = folder / "card.json"
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
        fields = {**card["config"], "stem": tuple(card["config"]["stem"])}
        config, digest = Config(**fields), card["sha256"]
        tokenizer = Words(tuple(card["words"]), config.context)
        if tokenizer.size != config.vocabulary:
            raise ValueError(f"{tokenizer.size} tokens for a vocabulary of {config.vocabulary}")
        about = {"mean": tuple(card["mean"]), "std": tuple(card["std"]), "name": name}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"path: the card of a CLIP was expected at {file} ({error})") from error
    weights = folder / "weights.safetensors"
    if not weights.is_file():
        raise ValueError(f"path: weights.safetensors was expected in {folder}")
    data = weights.read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise ValueError(f"path: {weights} is not the file that its card describes")
    state = convert.parse_safetensors(data, str(weights))
    return _from_state(state, config, tokenizer, **about)


def _shipped() -> dict[str, Traversable]:
    """{name: folder} of the shipped CLIPs, in the package or in the checkout."""
    places = importlib.resources.files("rvis"), pathlib.Path(__file__).parents[2]
    for shelf in (place / "weights" / "clip" for place in places):
        if shelf.is_dir():
            folders = sorted(shelf.iterdir(), key=lambda folder: folder.name)
            return {f.name: f for f in folders if (f / "card.json").is_file()}
    return {}


def list_clips() -> tuple[str, ...]:
    """The names of the CLIPs that are shipped.

    Example:
      >>> from rvis import clip
      >>> isinstance(clip.list_clips(), tuple)
      True
    """
    return tuple(_shipped())
