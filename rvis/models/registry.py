"""Models by name: those shipped, reference architectures with anybody's weights, and your own."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.resources
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks
from rvis.models import convert
from rvis.models.alexnet import AlexNet
from rvis.models.apply import Floats, LinenApply, NnxApply, assemble, has_relu, reason
from rvis.models.googlenet import GoogLeNet
from rvis.models.inceptionv1 import InceptionV1
from rvis.models.mnist import MnistCNN
from rvis.models.pretrained import file as published
from rvis.models.resnet import ResNet
from rvis.models.vgg import VGG
from rvis.types import Array, KeyLike, Model, PyTree, as_key

if TYPE_CHECKING:
    from flax import nnx

Weights = str | os.PathLike[str] | Mapping[str, Any]
"""A file, a state-dict {reference name: array}, or the word "random"."""


class Architecture(NamedTuple):
    """What is known of a network before its weights are.

    Attributes:
      make: the module from its configuration, `make(**config)`.
      head: the classifier's prefix in a state-dict.
      input_shape: (H, W, C) it is trained at.
      mean: of the images in [0, 1], one for all channels or one for each.
      std: likewise, what they are divided by.
    """

    make: Callable[..., nn.Module]
    head: str
    input_shape: tuple[int, int, int]
    mean: Floats
    std: Floats


_IMAGENET = ((224, 224, 3), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# What published CIFAR-10 networks use (kuangliu/pytorch-cifar, MadryLab/robustness).
_CIFAR = ((32, 32, 3), (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
_VGG = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_RESNET = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}
_CIFAR_RESNET = functools.partial(
    ResNet, stages=(1, 1, 1, 1), widths=(32, 64, 128, 256), stem="cifar", classes=10
)

ARCHITECTURES: Mapping[str, Architecture] = {
    "mnist_cnn": Architecture(MnistCNN, "fc2", (28, 28, 1), (0.0,), (1.0,)),
    "cifar_resnet": Architecture(_CIFAR_RESNET, "fc", *_CIFAR),
    "alexnet": Architecture(AlexNet, "classifier.6", *_IMAGENET),
    **{
        f"vgg{depth}{suffix}": Architecture(
            functools.partial(VGG, stages=stages, norm=bool(suffix)), "classifier.6", *_IMAGENET
        )
        for suffix in ("", "_bn")
        for depth, stages in _VGG.items()
    },
    **{
        f"resnet{depth}": Architecture(
            functools.partial(ResNet, stages=stages, bottleneck=bottleneck), "fc", *_IMAGENET
        )
        for depth, (stages, bottleneck) in _RESNET.items()
    },
    # torchvision's weights were trained on [-1, 1], which its `transform_input` restores.
    "googlenet": Architecture(GoogLeNet, "fc", (224, 224, 3), (0.5,), (0.5,)),
    "inceptionv1": Architecture(
        InceptionV1, "softmax2_pre_activation_matmul", (224, 224, 3), (117 / 255,), (1 / 255,)
    ),
}
"""The reference architectures by name."""


def build(
    architecture: str,
    *,
    weights: Mapping[str, Any] | str,
    config: Mapping[str, Any] | None = None,
    key: KeyLike = 0,
    input_shape: tuple[int, int, int] | None = None,
    mean: Floats | None = None,
    std: Floats | None = None,
    classes: tuple[str, ...] = (),
    name: str | None = None,
) -> Model:
    """A reference architecture with weights; what `load` does once it knows which.

    Args:
      architecture: a name of `ARCHITECTURES`.
      weights: a mapping {reference name: array} (`convert.read_state_dict` reads one from a
        file), or "random" for he-normal weights from `key`.
      config: fields of the module that differ, such as {"stages": (3, 4, 6, 3)}. Where `classes`
        is not among them it follows the classifier's weights.
      key: an int seed or a typed key, for random weights.
      input_shape: (H, W, C) the network was trained at; the architecture's by default.
      mean: of images in [0, 1]; by default that of a normaliser inside the weights (MadryLab's
        checkpoints have one), else the architecture's.
      std: likewise.
      classes: one name a logit.
      name: what to call the model; the architecture's name by default.

    Raises:
      ValueError: naming `architecture`, `config`, `weights`, `state` (with every entry that does
        not fit), `mean`, `std`, `input_shape` or `classes`.
      TypeError: naming `config` or `key`.

    Example:
      >>> from rvis.models import registry
      >>> small = registry.build("mnist_cnn", config={"widths": (4, 8)}, weights="random")
      >>> small.params["params"]["conv2"]["kernel"].shape
      (5, 5, 4, 8)
    """
    known = ARCHITECTURES[checks.choice("architecture", architecture, ARCHITECTURES)]
    fields = _config(known, config)
    shape = _input_shape(known.input_shape if input_shape is None else input_shape)
    module = known.make(**fields)
    try:
        expected = convert.reference_shapes(module, shape)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise ValueError(
            f"config: {architecture!r} cannot be built from {fields} for images of shape {shape} "
            f"({reason(error)})"
        ) from error
    if isinstance(weights, str):
        checks.choice("weights", weights, ("random",))
        params = convert.he_normal(module, shape, as_key(key))
    else:
        state = {str(name): np.asarray(value) for name, value in weights.items()}
        attached = convert.normaliser(state) or (known.mean, known.std)
        mean, std = attached[0] if mean is None else mean, attached[1] if std is None else std
        state = convert.normalise_names(state, expected)
        head = state.get(f"{known.head}.weight")
        if "classes" not in fields and head is not None and np.ndim(head) == 2:
            module = known.make(**fields, classes=int(np.shape(head)[0]))
        params = convert.to_variables(module, state, shape)
    apply = LinenApply(
        module,
        _floats("mean", known.mean if mean is None else mean, shape[2]),
        _floats("std", known.std if std is None else std, shape[2]),
    )
    return assemble(apply, params, shape, tuple(map(str, classes)), name or architecture)


def _config(known: Architecture, config: Mapping[str, Any] | None) -> dict[str, Any]:
    if config is None:
        return {}
    if not isinstance(config, Mapping):
        raise TypeError(f"config: a mapping of the module's fields was expected, given {config!r}")
    options = _fields(known.make())
    for field in config:
        checks.choice("config", field, options)
    return {field: _tuples(value) for field, value in config.items()}


def _fields(module: nn.Module) -> dict[str, Any]:
    names = [field.name for field in dataclasses.fields(module)]
    return {name: getattr(module, name) for name in names if name not in ("parent", "name")}


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value


def _input_shape(value: Any) -> tuple[int, int, int]:
    try:
        height, width, channels = (checks.count("input_shape", n) for n in value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"input_shape: (H, W, C) was expected, given {value!r}") from error
    return height, width, channels


def _floats(argument: str, value: Any, channels: int) -> Floats:
    try:
        numbers = tuple(checks.number(argument, number) for number in value)
    except TypeError as error:
        raise ValueError(f"{argument}: a tuple of numbers was expected, given {value!r}") from error
    if len(numbers) not in (1, channels):
        raise ValueError(
            f"{argument}: one number or {channels}, one a channel, were expected, given {value!r}"
        )
    if argument == "std" and min(numbers) <= 0:
        raise ValueError(f"std: numbers above 0 were expected, given {value!r}")
    return numbers


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
        return build(architecture, weights=convert.read_state_dict(published(architecture))[0])
    if weights is not None:
        checks.choice("name_or_path", name_or_path, ARCHITECTURES)
        return _with_weights(str(name_or_path), weights, key)
    shipped = _shipped() if isinstance(name_or_path, str) else {}
    if name_or_path in shipped:
        return _from_folder(shipped[name_or_path], name_or_path)
    if name_or_path in ARCHITECTURES:
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
        return build(architecture, weights=weights, key=key)
    if not isinstance(weights, (str, os.PathLike)):
        raise TypeError(
            "weights: a path, a mapping {reference name: array} or 'random' was expected, given "
            f"{type(weights).__name__}"
        )
    path = pathlib.Path(weights)
    state, metadata = convert.read_state_dict(path)
    if metadata.get("architecture") != architecture:
        return build(architecture, weights=state)
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
        return build(
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
    return tuple(dict.fromkeys((*_shipped(), *ARCHITECTURES)))


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
    same = [name for name, known in ARCHITECTURES.items() if type(known.make()) is type(module)]
    if not isinstance(model.apply, LinenApply) or not same:
        raise ValueError(
            f"model: one of a reference architecture was expected, given {model.name!r} with "
            f"{type(model.apply).__name__} of {type(module).__name__}"
        )
    config = _fields(model.apply.module)
    # Of ResNet's names, say, the one whose own configuration differs in the fewest fields.
    own = {name: _fields(ARCHITECTURES[name].make()) for name in same}
    name = min(same, key=lambda name: sum(own[name][field] != config[field] for field in config))
    about = {"architecture": name, "config": config, "input_shape": model.input_shape}
    about |= {"mean": model.apply.mean, "std": model.apply.std, "classes": model.classes}
    return json.loads(json.dumps(about))


def from_linen(
    module: nn.Module,
    variables: PyTree,
    *,
    input_shape: tuple[int, int, int],
    classes: tuple[str, ...] = (),
    mean: Floats = (0.0,),
    std: Floats = (1.0,),
    name: str = "model",
) -> Model:
    """A model from anybody's Flax Linen module.

    Its layers are the outputs of every submodule's `__call__`, named by their paths
    ("block_0.Conv_1"), unless the module's own `__call__` takes a keyword `tap`, which then names
    them; what is inside `nn.scan`, `nn.remat` or `nn.jit` is not among them. Keywords `train`,
    `training`, `is_training` (False) and `deterministic` (True) are given where the module takes
    them. Guided backpropagation and its like need a keyword `relu`.

    Args:
      module: maps normalised images (n, H, W, C) to logits (n, classes). Its fields must be
        hashable; a list, as in `nn.Sequential([…])`, is taken as a tuple.
      variables: {"params": …, …} as `module.init` returns them.
      input_shape: (H, W, C) the network was trained at.
      classes: one name a logit.
      mean: subtracted from images in [0, 1]: one number, or one a channel.
      std: what they are divided by then.
      name: what to call it.

    Raises:
      TypeError: naming `module` or `variables`.
      ValueError: naming the argument: a module that cannot be applied to such images with these
        weights, whose fields do not hash, that calls one submodule twice, or that returns anything
        but (n, classes).

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp
      >>> from rvis.models import registry
      >>> net = nn.Sequential([nn.Conv(4, (3, 3)), nn.relu, lambda x: x.mean((1, 2)), nn.Dense(2)])
      >>> variables = net.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
      >>> registry.from_linen(net, variables, input_shape=(8, 8, 3)).layers
      ('layers_0', 'layers_3')
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module: a flax.linen.Module was expected, given {type(module).__name__}")
    if not isinstance(variables, Mapping) or "params" not in variables:
        raise TypeError("variables: {'params': …} as module.init returns it was expected")
    shape = _input_shape(input_shape)
    lists = {field: value for field, value in _fields(module).items() if isinstance(value, list)}
    if lists:
        module = module.clone(**{field: _tuples(value) for field, value in lists.items()})
    apply = LinenApply(module, _floats("mean", mean, shape[2]), _floats("std", std, shape[2]))
    return _from_module(apply, dict(variables), shape, classes, name)


def from_nnx(
    module: nnx.Module,
    *,
    input_shape: tuple[int, int, int],
    classes: tuple[str, ...] = (),
    mean: Floats = (0.0,),
    std: Floats = (1.0,),
    name: str = "model",
) -> Model:
    """A model from anybody's Flax NNX module; the module itself is left as it is.

    As `from_linen`; the weights are those the module holds now, and it is used in evaluation
    mode (`module.eval()` on a copy).

    Args:
      module: maps normalised images (n, H, W, C) to logits (n, classes).
      input_shape: (H, W, C) the network was trained at.
      classes: one name a logit.
      mean: subtracted from images in [0, 1]: one number, or one a channel.
      std: what they are divided by then.
      name: what to call it.

    Raises:
      TypeError: naming `module`.
      ValueError: naming the argument, as `from_linen`.

    Example:
      >>> from flax import nnx
      >>> from rvis.models import registry
      >>> class Net(nnx.Module):
      ...     def __init__(self):
      ...         self.conv = nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(0))
      ...         self.out = nnx.Linear(4, 2, rngs=nnx.Rngs(1))
      ...     def __call__(self, x):
      ...         return self.out(nnx.relu(self.conv(x)).mean((1, 2)))
      >>> registry.from_nnx(Net(), input_shape=(8, 8, 3)).layers
      ('conv', 'out')
    """
    from flax import nnx  # slow to import, and seldom needed

    if not isinstance(module, nnx.Module):
        raise TypeError(f"module: a flax.nnx.Module was expected, given {type(module).__name__}")
    shape = _input_shape(input_shape)
    graphdef, state = nnx.split(module)
    apply = NnxApply(
        graphdef,
        has_relu(module),
        _floats("mean", mean, shape[2]),
        _floats("std", std, shape[2]),
    )
    return _from_module(apply, state, shape, classes, name)


def _from_module(
    apply: LinenApply | NnxApply,
    params: PyTree,
    input_shape: tuple[int, int, int],
    classes: tuple[str, ...],
    name: str,
) -> Model:
    try:
        hash(apply)
    except TypeError as error:
        raise ValueError(
            f"module: its fields must be hashable, without arrays or lists ({reason(error)})"
        ) from error
    params = jax.tree.map(_float32_copy, params)
    return assemble(apply, params, input_shape, tuple(map(str, classes)), name)


def _float32_copy(leaf: Any) -> Array:
    floating = jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
    if floating and isinstance(leaf, np.ndarray):
        return jax.device_put(np.array(leaf, np.float32))
    return jnp.array(leaf, jnp.float32 if floating else None)
