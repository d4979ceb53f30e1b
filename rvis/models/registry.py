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

from rvis import checks
from rvis.models import architectures, convert
from rvis.models.apply import LinenApply
from rvis.models.pretrained import file as published
from rvis.models.settings import fields
from rvis.types import KeyLike, Model

Weights = str | os.PathLike[str] | Mapping[str, Any]
"""A file, a state-dict {reference name: array}, or the word "random"."""


def load(
    name_or_path: str | os.PathLike[str],
    *,
    weights: Weights | None = None,
    pretrained: bool = False,
    key: KeyLike = 0,
) -> Model:
    """A model by its name, from a file, or as an architecture with weights of yours or public ones.

    Args:
      name_or_path: one of `list_models()`; a folder with `weights.safetensors` and `card.json`; or
        a `.safetensors` file that rvis wrote (`convert.save`).
      weights: for an architecture's name: a file of any maker (`.safetensors`; `.pth`, `.pt` and
        `.bin` with PyTorch installed), a mapping {reference name: array}, or "random" for
        he-normal weights.
      pretrained: for an architecture's name: its public weights for ImageNet (`PUBLISHED` in
        `rvis.models.pretrained`). They are fetched at the first call into $RVIS_CACHE, else
        ~/.cache/rvis; those of `alexnet`, `googlenet` and `inceptionv1` are PyTorch's files.
      key: an int seed or a typed key, for random weights.

    Returns:
      A model whose params are float32 JAX arrays. `classes` is empty where nobody named them.

    Raises:
      ValueError: naming `name_or_path` (with the nearest names), `weights` where an architecture
        has none, `path` of a file that is missing or damaged, or whose checksum is not its card's,
        `state` with every entry that does not fit, and `pretrained`, where there is no public file
        or other `weights` are given.
      TypeError: naming `name_or_path`, `weights`, `pretrained` or `key`.
      ImportError: for a PyTorch file where PyTorch is not installed.
      OSError: naming the `url` of a public file that cannot be had, or the `path` where it cannot
        be kept (see `rvis.models.pretrained.fetch`).

    Example:
      >>> from rvis.models import registry
      >>> model = registry.load("resnet18", weights="random", key=1)
      >>> model.layers[:4], model.input_shape
      (('conv1', 'bn1', 'relu', 'maxpool'), (224, 224, 3))
    """
    if not isinstance(name_or_path, (str, os.PathLike)):
        raise TypeError(f"name_or_path: a name or a path was expected, given {name_or_path!r}")
    if not isinstance(pretrained, bool):
        raise TypeError(f"pretrained: True or False was expected, given {pretrained!r}")
    if pretrained and weights is not None:
        raise ValueError("weights, pretrained: one of the two was expected, given both")
    if pretrained:
        architecture = checks.choice("name_or_path", name_or_path, list_models())
        if architecture in _shipped():
            raise ValueError(
                f"pretrained: {architecture!r} is shipped with its weights, load({architecture!r}) "
                "has them"
            )
        return architectures.build(
            architecture, weights=convert.read_state_dict(published(architecture))[0]
        )
    if weights is not None:
        checks.choice("name_or_path", name_or_path, architectures.ARCHITECTURES)
        return _with_weights(str(name_or_path), weights, key)
    shipped = _shipped() if isinstance(name_or_path, str) else {}
    if name_or_path in shipped:
        return _from_folder(shipped[name_or_path], name_or_path)
    if name_or_path in architectures.ARCHITECTURES:
        raise ValueError(
            f"weights: {name_or_path!r} is an architecture, which is shipped without weights; give "
            "weights=PATH, weights={name: array}, weights='random' or pretrained=True"
        )
    path = pathlib.Path(name_or_path)
    plain = isinstance(name_or_path, str) and not path.suffix and len(path.parts) < 2
    if plain and not (path / "card.json").is_file():
        checks.choice("name_or_path", name_or_path, list_models())
    if path.is_dir():
        return _from_folder(path, path.resolve().name)
    state, metadata = convert.read_state_dict(path)
    if "architecture" not in metadata:
        raise ValueError(
            f"name_or_path: {path} does not say of which architecture it is; use "
            f"load(ARCHITECTURE, weights={str(path)!r})"
        )
    return _from_card(_decoded(metadata, path), state, str(path), path.stem)


def _with_weights(architecture: str, weights: Weights, key: KeyLike) -> Model:
    if isinstance(weights, Mapping) or weights == "random":
        return architectures.build(architecture, weights=weights, key=key)
    if not isinstance(weights, (str, os.PathLike)):
        raise TypeError(
            "weights: a path, a mapping {reference name: array} or 'random' was expected, given "
            f"{type(weights).__name__}"
        )
    path = pathlib.Path(weights)
    state, metadata = convert.read_state_dict(path)
    if metadata.get("architecture") != architecture:
        return architectures.build(architecture, weights=state)
    return _from_card(_decoded(metadata, path), state, str(path), path.stem)


def _decoded(metadata: Mapping[str, str], path: pathlib.Path) -> dict[str, Any]:
    card: dict[str, Any] = {"architecture": metadata["architecture"]}
    for field in ("config", "mean", "std", "input_shape", "classes"):
        if field in metadata:
            try:
                card[field] = json.loads(metadata[field])
            except json.JSONDecodeError as error:
                raise ValueError(
                    f"path: JSON was expected in the metadata of {path} for {field!r}, found "
                    f"{metadata[field]!r}"
                ) from error
    return card


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
    except (OSError, KeyError, ValueError) as error:
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


def card(name: str | os.PathLike[str]) -> dict[str, Any]:
    """The card of a shipped model: its architecture, classes, and how it was trained and measured.

    Args:
      name: a shipped model's name, or a folder with a `card.json`.

    Returns:
      What its `card.json` holds.

    Raises:
      ValueError: naming `name` (with the nearest names), or `path` where the card is no JSON.

    Example:
      >>> import pathlib, tempfile
      >>> from rvis.models import registry
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     card = pathlib.Path(folder, "card.json")
      ...     _ = card.write_text('{"architecture": "vgg16", "sha256": "…"}', encoding="utf-8")
      ...     registry.card(folder)["architecture"]
      'vgg16'
    """
    shipped = _shipped()
    if name not in shipped and (pathlib.Path(name) / "card.json").is_file():
        return _card(pathlib.Path(name))
    return _card(shipped[checks.choice("name", name, shipped)])


def describe(model: Model) -> dict[str, Any]:
    """What `load` needs beside the weights to build `model` again; JSON can hold it.

    Args:
      model: a model of a reference architecture.

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
    module = model.apply.module if isinstance(model.apply, LinenApply) else None
    same = [
        name
        for name, known in architectures.ARCHITECTURES.items()
        if type(known.make()) is type(module)
    ]
    if not isinstance(model.apply, LinenApply) or not same:
        raise ValueError(
            f"model: one of a reference architecture was expected, given {model.name!r} with "
            f"{type(model.apply).__name__} of {type(module).__name__}"
        )
    config = fields(model.apply.module)
    # Of ResNet's names, say, the one whose own configuration differs in the fewest fields.
    own = {name: fields(architectures.ARCHITECTURES[name].make()) for name in same}
    name = min(same, key=lambda name: sum(own[name][field] != config[field] for field in config))
    about = {"architecture": name, "config": config, "input_shape": model.input_shape}
    about |= {"mean": model.apply.mean, "std": model.apply.std, "classes": model.classes}
    return json.loads(json.dumps(about))
