"""Models by name: those shipped, and reference architectures with the weights of a file."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import os
import pathlib
from collections.abc import Mapping
from importlib.resources.abc import Traversable
from typing import Any

from rvis import checks, files, gate
from rvis.models import architectures
from rvis.models.apply import LinenApply
from rvis.models.settings import fields
from rvis.models.weights import convert, hub, packages
from rvis.models.weights.pretrained import file as published
from rvis.types import KeyLike, Model, check_model

Weights = str | os.PathLike[str] | Mapping[str, Any]
"""A file, a state-dict {reference name: array}, or the word "random"."""


@gate.public
def load(
    name_or_path: str | os.PathLike[str],
    *,
    weights: Weights | None = None,
    pretrained: bool | str = False,
    key: KeyLike = 0,
    strict: bool = True,
    partial: str | None = None,
) -> Model:
    """A model by its name, from a file, or as an architecture with weights of yours or public ones.

    Args:
      name_or_path: one of `list_models()`; a folder with `weights.safetensors` and `card.json`; a
        `.safetensors` file that rvis wrote (`convert.save`); or a model of the Hugging Face hub,
        such as "timm/convnext_tiny.fb_in1k", or a folder with its `config.json` and
        `model.safetensors` (`rvis.models.weights.hub`).
      weights: for an architecture's name: a file of any maker (`.safetensors`, `.pth`, `.pt` or
        `.bin`), a mapping {reference name: array}, or "random" for he-normal weights.
      pretrained: for an architecture's name: its public weights for ImageNet, or "trunk" for them
        without the classifier. Whole ones of `efficientnet_lite0` to 2 and trunks of `alexnet` and
        `vgg16` come with data packages, the extra `imagenet`; others (`PUBLISHED` in
        `rvis.models.weights.pretrained`) are fetched once into $RVIS_CACHE, else ~/.cache/rvis.
      key: an int seed or a typed key, for random weights.
      strict: whether entries of `weights` that the architecture does not have are refused;
        otherwise they are left out, with a warning that names them.
      partial: "trunk" loads `weights` without the classifier: a model with layers and no logits.

    Returns:
      A model whose params are float32 JAX arrays. `classes` are ImageNet's for 1,000 logits of an
        architecture that is trained on it, and empty where nobody named them.

    Raises:
      TypeError, ValueError: naming the argument (a name with the nearest ones), the `path` of a
        damaged file, or `state` with every entry that does not fit.
      ImportError: naming the package and the extra that weights come with.
      OSError: see `rvis.models.weights.pretrained.fetch`.

    Example:
      >>> from rvis.models import registry
      >>> model = registry.load("resnet18", weights="random", key=1)
      >>> model.layers[:4], model.input_shape
      (('conv1', 'bn1', 'relu', 'maxpool'), (224, 224, 3))
    """
    if not isinstance(name_or_path, (str, os.PathLike)):
        raise TypeError(f"name_or_path: a name or a path was expected, given {name_or_path!r}")
    if partial is not None:
        checks.choice("partial", partial, ("trunk",))
        if weights is None:
            raise ValueError("partial: it needs weights=…; of public ones pretrained='trunk' is it")
    if repr(pretrained) not in ("True", "False", "'trunk'"):
        raise TypeError(f"pretrained: True, False or 'trunk' was expected, given {pretrained!r}")
    if pretrained and weights is not None:
        raise ValueError("weights, pretrained: one of the two was expected, given both")
    if pretrained:
        architecture = checks.choice("name_or_path", name_or_path, list_models())
        if architecture in _shipped():
            raise ValueError(
                f"pretrained: {architecture!r} is shipped with its weights, load({architecture!r}) "
                "has them"
            )
        return _pretrained(architecture, None if pretrained is True else "trunk")
    if weights is not None:
        checks.choice("name_or_path", name_or_path, architectures.ARCHITECTURES)
        return _with_weights(str(name_or_path), weights, key, strict=strict, partial=partial)
    shipped = _shipped() if isinstance(name_or_path, str) else {}
    if name_or_path in shipped:
        return _from_folder(shipped[name_or_path], name_or_path)
    if name_or_path in architectures.ARCHITECTURES:
        raise ValueError(
            f"weights: {name_or_path!r} is an architecture, which is shipped without weights; give "
            "weights=PATH, weights={name: array}, weights='random', pretrained=True or 'trunk'"
        )
    if hub.is_name(name_or_path):
        return hub.load(str(name_or_path))
    path = files.as_path("name_or_path", name_or_path)
    plain = isinstance(name_or_path, str) and not path.suffix and len(path.parts) < 2
    ours, theirs = (path / "card.json").is_file(), (path / "config.json").is_file()
    if plain and not ours and not theirs:
        checks.choice("name_or_path", name_or_path, list_models())
    if theirs and not ours:
        return hub.from_folder(path)
    if hub.could_be_name(name_or_path) and not path.exists():
        raise ValueError(
            f"name_or_path: there is no file or folder {path}; a model of the hub that is called "
            f"so is load('hf-hub:{name_or_path}')"
        )
    if path.is_dir():
        return _from_folder(path, path.resolve().name)
    state, metadata = convert.read_state_dict(path)
    card = _own(metadata)
    if card is None:
        raise ValueError(
            f"name_or_path: {path} does not say of which architecture it is; use "
            f"load(ARCHITECTURE, weights={str(path)!r})"
        )
    return _from_card(card, state, str(path), path.stem)


def _pretrained(architecture: str, partial: str | None) -> Model:
    if partial and architecture in packages.TRUNKS:
        known, config = architectures.ARCHITECTURES[architecture], {"classes": 0}
        names = convert.reference_shapes(known.make(**config), known.input_shape)
        state = packages.trunk(packages.TRUNKS[architecture], names)
        return architectures.build(architecture, weights=state, config=config)
    package = packages.WHOLE.get(architecture)
    file = packages.installed(package) if package else published(architecture)
    state = convert.read_state_dict(file)[0]
    built = package.architecture if package else architecture
    return architectures.build(built, weights=state, name=architecture, partial=partial)


def _with_weights(architecture: str, weights: Weights, key: KeyLike, **options: Any) -> Model:
    if isinstance(weights, Mapping) or (isinstance(weights, str) and weights == "random"):
        return architectures.build(architecture, weights=weights, key=key, **options)
    if not isinstance(weights, (str, os.PathLike)):
        raise TypeError(
            "weights: a path, a mapping {reference name: array} or 'random' was expected, given "
            f"{type(weights).__name__}"
        )
    path = files.as_path("weights", weights)
    state, metadata = convert.read_state_dict(path)
    card = _own(metadata)
    if card is None or card["architecture"] != architecture or options["partial"]:
        return architectures.build(architecture, weights=state, **options)
    return _from_card(card, state, str(path), path.stem)


def _own(metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """What `describe` wrote into a file's header; None of anybody else's, whatever it says."""
    try:
        fields = {field: json.loads(metadata[field]) for field in _FIELDS}
    except (KeyError, ValueError, RecursionError):
        return None
    return {**fields, "architecture": metadata.get("architecture")}


_FIELDS = ("config", "input_shape", "mean", "std", "classes")
"""Beside the architecture, all that `describe` tells of a model."""


def _from_card(card: Mapping[str, Any], state: Mapping[str, Any], origin: str, name: str) -> Model:
    try:
        return architectures.build(
            card["architecture"],
            weights=state,
            config=card.get("config"),
            input_shape=card.get("input_shape"),
            mean=card.get("mean"),
            std=card.get("std"),
            classes=tuple(card.get("classes", ())),
            name=name,
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"path: {origin} does not hold together: {error}") from error


def _from_folder(folder: Traversable, name: str) -> Model:
    card = _card(folder)
    file = folder / "weights.safetensors"
    if not file.is_file():
        raise ValueError(f"path: weights.safetensors was expected in {folder}")
    data = file.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest != card["sha256"]:
        raise ValueError(
            f"path: {file} is not the file that its card describes: its SHA-256 is {digest}, that "
            f"of the card {card['sha256']}"
        )
    return _from_card(card, convert.parse_safetensors(data, str(file)), str(folder), name)


def _card(folder: Traversable) -> dict[str, Any]:
    file = folder / "card.json"
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"path: a card in JSON was expected at {file} ({error})") from error
    missing = [
        key for key in ("architecture", "sha256") if not isinstance(card, dict) or key not in card
    ]
    if missing:
        raise ValueError(f"path: {missing} were expected in {file}")
    return card


def _shelves() -> tuple[Traversable, ...]:
    """Where shipped models may stand: in the package when installed, beside it in a checkout."""
    checkout = pathlib.Path(__file__).parents[2]
    return importlib.resources.files("rvis") / "weights", checkout / "weights"


def _shipped() -> dict[str, Traversable]:
    """{name: folder} of the shipped models, by name; the first shelf that stands counts."""
    shelf = next((shelf for shelf in _shelves() if shelf.is_dir()), None)
    folders = shelf.iterdir() if shelf is not None else ()
    return {
        folder.name: folder
        for folder in sorted(folders, key=lambda folder: folder.name)
        if (folder / "card.json").is_file()
    }


def list_models() -> tuple[str, ...]:
    """The names that `load` knows: models shipped with their weights, then the architectures.

    Example:
      >>> from rvis.models import registry
      >>> "resnet50" in registry.list_models()
      True
    """
    return tuple(dict.fromkeys((*_shipped(), *architectures.ARCHITECTURES)))


@gate.public
def card(name: str | os.PathLike[str]) -> dict[str, Any]:
    """The `card.json` of a shipped model, or of a folder: what it is, and how it was trained.

    Raises:
      ValueError: naming `name` (with the nearest names), or `path` where the card is no JSON.

    Example:
      >>> import rvis
      >>> rvis.card("cifar10_resnet")["architecture"]
      'cifar_resnet'
    """
    shipped = _shipped()
    path = files.as_path("name", name)
    if name not in shipped and (path / "card.json").is_file():
        return _card(path)
    return _card(shipped[checks.choice("name", name, shipped)])


def describe(model: Model) -> dict[str, Any]:
    """What `load` needs beside the weights to build `model` again; JSON can hold it.

    Returns:
      architecture, config, input_shape, mean, std, classes: the first half of a card, and what
      `convert.save` writes into a file's header.

    Raises:
      ValueError: naming `model`, where its module is of no reference architecture.

    Example:
      >>> from rvis.models import registry
      >>> card = registry.describe(registry.load("mnist_cnn", weights="random"))
      >>> card["architecture"], card["config"]
      ('mnist_cnn', {'widths': [32, 64], 'dense': 256, 'classes': 10})
    """
    check_model(model)
    apply = model.apply
    while hasattr(apply, "inner"):  # tokens as grids, another precision
        apply = apply.inner
    module = apply.module if isinstance(apply, LinenApply) else None
    same = [
        name
        for name, known in architectures.ARCHITECTURES.items()
        if type(known.make()) is type(module)
    ]
    if not isinstance(apply, LinenApply) or not same:
        raise ValueError(
            f"model: one of a reference architecture was expected, given {model.name!r} with "
            f"{type(apply).__name__} of {type(module).__name__}"
        )
    config = fields(apply.module)
    # Of ResNet's names, say, the one whose own configuration differs in the fewest fields.
    own = {name: fields(architectures.ARCHITECTURES[name].make()) for name in same}
    name = min(same, key=lambda name: sum(own[name][field] != config[field] for field in config))
    about = {"architecture": name, "config": config, "input_shape": model.input_shape}
    about |= {"mean": apply.mean, "std": apply.std, "classes": model.classes}
    return json.loads(json.dumps(about))
