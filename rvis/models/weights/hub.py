"""Models of the Hugging Face hub in timm's form: config.json beside model.safetensors."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from rvis import checks
from rvis.data import imagenet
from rvis.data.preparation import Preparation
from rvis.models import architectures
from rvis.models.settings import fields
from rvis.models.weights import convert
from rvis.types import Model

_NAME = re.compile(r"(?:hf-hub:)?([\w.-]+/[\w.-]+?)(?:@([\w.-]+))?")
_HUB = "hf-hub:"
_ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".npz", ".json", ".h5")
_PATIENCE = 5
"""Seconds that the hub has to say whether it has a model."""
_FILES = ("model.safetensors", "pytorch_model.bin")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def could_be_name(name: Any) -> bool:
    """Whether it has a hub name's form, as a path of two parts has too."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def is_name(name: Any) -> bool:
    """Whether it is a hub name, OWNER/MODEL or OWNER/MODEL@REVISION, and no file or folder.

    What ends as a file, or begins with a folder that there is, is a path, unless "hf-hub:" says
    otherwise.
    """
    if not could_be_name(name) or os.path.exists(name):
        return False
    if name.startswith(_HUB):
        return True
    return not name.endswith(_ENDINGS) and not os.path.isdir(name.split("/")[0])


def load(name: str) -> Model:
    """A model of the hub, through `huggingface_hub`: its cache, offline mode, tokens and endpoint.

    Args:
      name: OWNER/MODEL, perhaps with @REVISION.

    Raises:
      ImportError: naming the extra, where `huggingface_hub` is not installed.
      ConnectionError: naming `name_or_path`, where the hub or the model cannot be had.
      ValueError: as `from_folder`.
    """
    hub = checks.package("huggingface_hub", "hub", "loading models of the hub")
    match = _NAME.fullmatch(name)
    assert match is not None
    repository, revision = match.groups()

    place: dict[str, Any] = {"revision": revision, "endpoint": os.environ.get("HF_ENDPOINT")}

    def fetched(file: str) -> pathlib.Path:
        return pathlib.Path(hub.hf_hub_download(repository, file, **place))

    try:
        cached = hub.try_to_load_from_cache(repository, "config.json", revision=revision)
        if not isinstance(cached, str) and not hub.constants.HF_HUB_OFFLINE:
            # A download that cannot begin is tried for half a minute; this is not.
            hub.get_hf_file_metadata(
                hub.hf_hub_url(repository, "config.json", **place), timeout=_PATIENCE
            )
        config = fetched("config.json")
        try:
            weights = fetched(_FILES[0])
        except hub.errors.EntryNotFoundError:
            weights = fetched(_FILES[1])
    # It raises its own errors, those of its HTTP client, and OSError.
    except Exception as error:
        reason = (str(error) or type(error).__name__).strip().splitlines()[0][:300]
        raise ConnectionError(
            f"name_or_path: {name!r} could not be had of the hub: {reason}. It is read as a hub's "
            f"OWNER/MODEL, since there is no file or folder {os.path.abspath(name)}. Where there "
            "is no network, bring its config.json and model.safetensors and load their folder"
        ) from error
    _check_blob(weights)
    return _from_files(config, weights, repository)


def from_folder(folder: pathlib.Path) -> Model:
    """A model of a folder with `config.json` and `model.safetensors`, as timm saves them.

    Raises:
      ValueError: naming `path`: a file that is missing, damaged or of another network; an
        architecture that is not known, with the nearest names.
    """
    weights = next((folder / name for name in _FILES if (folder / name).is_file()), None)
    if weights is None:
        raise ValueError(f"path: {' or '.join(_FILES)} was expected in {folder}")
    return _from_files(folder / "config.json", weights, folder.resolve().name)


def _check_blob(path: pathlib.Path) -> None:
    """The hub's cache calls large files by their SHA-256."""
    blob = path.resolve()
    if not _SHA256.fullmatch(blob.name):
        return
    with open(blob, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != blob.name:
        raise ValueError(
            f"path: {path} is damaged: its SHA-256 is {digest}, the hub's {blob.name}; remove it "
            "to fetch it anew"
        )


def _from_files(path: pathlib.Path, weights: pathlib.Path, name: str) -> Model:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"path: JSON was expected at {path} ({error})") from error
    if not isinstance(config, dict) or not isinstance(config.get("architecture"), str):
        raise ValueError(f"path: an 'architecture' was expected in {path}")
    card = config.get("pretrained_cfg", config)
    if not isinstance(card, dict):
        raise ValueError(f"path: a mapping 'pretrained_cfg' was expected in {path}")
    state = convert.read_state_dict(weights)[0]
    try:
        architecture = checks.choice(
            "architecture", config["architecture"], architectures.ARCHITECTURES
        )
        known = architectures.ARCHITECTURES[architecture]
        size = card.get("input_size", (known.input_shape[2], *known.input_shape[:2]))
        preparation = Preparation(
            checks.number("crop_pct", card.get("crop_pct", known.preparation.crop)),
            card.get("interpolation", known.preparation.interpolation),
        )
        model = architectures.build(
            architecture,
            weights=state,
            config=_fields(architecture, config),
            input_shape=(size[1], size[2], size[0]),
            mean=card.get("mean"),
            std=card.get("std"),
            name=name,
            preparation=preparation,
            classes=_classes(config, card, state, known.head),
        )
    except (TypeError, ValueError, IndexError, KeyError) as error:
        raise ValueError(f"path: {path.parent} does not hold together: {error}") from error
    return model


_ARGUMENTS = frozenset(("img_size", "num_classes", "in_chans", "global_pool", "drop_rate"))


def _fields(architecture: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """What the configuration says of the module beside its name."""
    arguments = config.get("model_args") or {}
    unknown = sorted(set(arguments) - _ARGUMENTS)
    if unknown:
        raise ValueError(f"model_args: {unknown} would make it another network than {architecture}")
    own = fields(architectures.ARCHITECTURES[architecture].make())
    if "pool" in own and config.get("global_pool") in ("token", "avg", "map"):
        return {"pool": config["global_pool"]}
    return {}


def _classes(
    config: Mapping[str, Any], card: Mapping[str, Any], state: Mapping[str, Any], head: str
) -> tuple[str, ...]:
    names = config.get("label_names") or card.get("label_names") or ()
    weight = state.get(f"{head}.weight")
    count = 0 if weight is None else len(weight)
    if names and len(names) == count:
        return tuple(map(str, names))
    return imagenet.classes() if count == 1000 else ()
