"""Weights in the reference layout: reading them, fitting their names, to and from Flax variables.

A Flax submodule of `rvis.models` is named as the reference's state-dict prefix, so one rule serves
every family: the path joined with dots, `kernel` → `weight` (HWIO → OIHW, dense transposed),
`scale` → `weight`, `mean` → `running_mean`, `var` → `running_var`.
"""

from __future__ import annotations

import collections
import functools
import json
import math
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from rvis import checks, files
from rvis.kernels.layers import shapes_only
from rvis.models.weights import torch_files
from rvis.types import Model, PyTree

State = dict[str, np.ndarray]
"""Reference entry name → float32 array in PyTorch's layout."""

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "embedding": "weight",
    "mean": "running_mean",
    "var": "running_var",
}
_PREFIXES = frozenset(("module", "model", "attacker", "_orig_mod", "backbone"))
_WRAPPERS = ("state_dict", "model", "model_state", "model_state_dict", "net")
_NORMALISER = re.compile(r"(?:^|\.)normalizer?\.new_(mean|std)$")
_STATISTIC = re.compile(r"^(.*?)(?:new_)?(mean|std)$")
_ALIASES = (
    (re.compile(r"^pre_logits\.fc1\."), "classifier.0."),
    (re.compile(r"^pre_logits\.fc2\."), "classifier.3."),
    (re.compile(r"^head\.fc\."), "classifier.6."),
    (re.compile(r"(^|\.)shortcut\."), r"\1downsample."),
    (re.compile(r"^linear\."), "fc."),
)
"""timm's names in VGG; then those of kuangliu/pytorch-cifar and MadryLab in residual networks."""

_SHOWN = 20


def read_state_dict(path: files.PathLike) -> tuple[State, dict[str, str]]:
    """The weights in a file, as they are named there, and the file's metadata.

    `.pth`, `.pt` and `.bin`, PyTorch's files, are read without PyTorch (`torch_files`), so that no
    code in them runs, and unwrapped where the state-dict sits under "state_dict", "model",
    "model_state", "model_state_dict" or "net".

    Returns:
      ({entry: float32 array in the file's layout}, metadata: empty unless the file is safetensors).

    Raises:
      ValueError: naming `path`: a file that is missing, truncated, corrupt, of another kind, or
        that holds pickled objects beside tensors, which are named.

    Example:
      >>> import pathlib, tempfile
      >>> import numpy as np
      >>> from safetensors.numpy import save_file
      >>> from rvis.models.weights import convert
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = pathlib.Path(folder, "weights.safetensors")
      ...     save_file({"fc.bias": np.ones(2, np.float16)}, path, {"made by": "hand"})
      ...     state, metadata = convert.read_state_dict(path)
      >>> state["fc.bias"].dtype, metadata
      (dtype('float32'), {'made by': 'hand'})
    """
    path = files.as_path("path", path)
    if not path.is_file():
        there = "a folder is there" if path.is_dir() else "there is none"
        raise ValueError(f"path: a file of weights was expected at {path}, {there}")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in (".pth", ".pt", ".bin"):
        return _read_torch(path), {}
    raise ValueError(f"path: .safetensors, .pth, .pt or .bin was expected, given {path}")


def _read_safetensors(path: pathlib.Path) -> tuple[State, dict[str, str]]:
    try:
        with safetensors.safe_open(path, framework="numpy") as opened:
            kinds = {name: opened.get_slice(name).get_dtype() for name in opened.keys()}
            eighth = [name for name, kind in kinds.items() if kind.startswith("F8")]
            if eighth:
                raise ValueError(
                    f"path: {path} holds {eighth[0]!r} as float8 ({kinds[eighth[0]]}), which means "
                    "nothing without the scales it is quantised by; give it as float16 or float32"
                )
            state = {name: opened.get_tensor(name) for name in kinds}
            metadata = opened.metadata() or {}
    # AttributeError is how the package meets a number format that NumPy has not.
    except (safetensors.SafetensorError, OSError, AttributeError) as error:
        raise _broken(path, "safetensors", error) from error
    return {name: _float32(str(path), name, value) for name, value in state.items()}, metadata


def parse_safetensors(data: bytes, origin: str) -> State:
    """The weights in the bytes of a safetensors file that came from `origin`.

    Raises:
      ValueError: naming `origin`, where the bytes are no safetensors file.
    """
    try:
        state = safetensors.numpy.load(data)
    except (safetensors.SafetensorError, KeyError) as error:
        raise _broken(origin, "safetensors", error) from error
    return {name: _float32(origin, name, value) for name, value in state.items()}


def _read_torch(path: pathlib.Path) -> State:
    try:
        held = torch_files.read(path, _WRAPPERS)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"path: a whole PyTorch checkpoint of tensors was expected at {path}: {error}; nothing "
            "in it was run"
        ) from error
    return {name: _float32(str(path), name, value) for name, value in held.items()}


def _broken(path: pathlib.Path | str, kind: str, error: Exception) -> ValueError:
    why = (str(error) or type(error).__name__).splitlines()[0][:200]
    return ValueError(f"path: a whole {kind} file was expected, {path} is damaged or none ({why})")


def _float32(origin: str, name: str, value: Any) -> np.ndarray:
    array = np.asarray(value)
    number = jnp.issubdtype(array.dtype, jnp.number) or array.dtype == bool
    if not number or jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise ValueError(
            f"{origin}: real numbers were expected for {name!r}, given dtype {array.dtype}"
        )
    return array.astype(np.float32, copy=False)


def reference_shapes(module: nn.Module, input_shape: tuple[int, int, int]) -> dict[str, tuple]:
    """{entry: shape in PyTorch's layout} of a module for images (H, W, C); nothing is computed.

    Raises:
      ValueError: where two variables would have one name, or one would be empty.
    """
    shapes = {
        name: _reference_shape(leaf, shaped.shape)
        for name, leaf, shaped in _entries(_template(module, tuple(input_shape)))
    }
    empty = {name: shape for name, shape in shapes.items() if 0 in shape}
    if empty:
        raise ValueError(f"variables: they would be empty: {empty}")
    return shapes


@functools.lru_cache(maxsize=32)
def _template(module: nn.Module, input_shape: tuple[int, int, int]) -> PyTree:
    images = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    with shapes_only(True):
        return jax.eval_shape(lambda images: module.init(jax.random.key(0), images), images)


def _entries(variables: PyTree) -> Iterator[tuple[str, str, Any]]:
    """(reference name, Flax leaf name, leaf) of each variable, in the tree's order."""
    seen: set[str] = set()
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        keys = [str(getattr(key, "key", key)) for key in path[1:]]
        name = ".".join((*keys[:-1], _LEAVES.get(keys[-1], keys[-1])))
        if name in seen:
            raise ValueError(f"variables: two of them would be called {name!r} in a state-dict")
        seen.add(name)
        yield name, keys[-1], leaf


def _reference_shape(leaf: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if leaf == "kernel" and len(shape) > 1:
        return (shape[-1], shape[-2], *shape[:-2])
    return tuple(shape)


def normaliser(
    state: Mapping[str, np.ndarray],
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """(mean, std), one number a channel, of the normaliser beside a network; None without one.

    It is any pair of entries ".mean" and ".std" (MadryLab's `normalizer.new_mean`, or `0.mean` of
    a Sequential of normaliser and network), of at most four numbers each.
    """
    pairs = _statistics(state)
    numbers = {
        kind: tuple(np.ravel(state[name]).tolist())
        for kind, name in next(iter(pairs.values()), {}).items()
    }
    return (numbers["mean"], numbers["std"]) if numbers else None


def _statistics(state: Mapping[str, np.ndarray]) -> dict[str, dict[str, str]]:
    """{what stands before: {"mean": entry, "std": entry}} of the normalisers in a state-dict."""
    pairs: dict[str, dict[str, str]] = collections.defaultdict(dict)
    for name, value in state.items():
        match = _STATISTIC.match(name)
        if match and match.group(1)[-1:] in ("", ".") and np.size(value) <= 4:
            pairs[match.group(1)][match.group(2)] = name
    return {before: pair for before, pair in pairs.items() if len(pair) == 2}


def normalise_names(state: Mapping[str, np.ndarray], expected: Mapping[str, tuple]) -> State:
    """`state` under the names that a network expects, without what wrappers and training add.

    Leading `module.`, `model.`, `attacker.`, `_orig_mod.` and `backbone.` go wherever that makes
    the rest an expected name, and so does any other that the network as a whole stands under
    (`net.`, `student.`, `1.`). Of several copies of one entry (as in MadryLab's checkpoints) the
    fullest is kept, and of equal ones that with the shortest prefix. timm's names for VGG, and
    those of CIFAR's residual networks, become torchvision's. Left out are `num_batches_tracked`, an
    attached normaliser and GoogLeNet's auxiliary heads.

    Args:
      state: {entry: array in PyTorch's layout}; what fits nothing keeps its name, to be refused.
      expected: {entry: shape}, from `reference_shapes`.

    Example:
      >>> import numpy as np
      >>> from rvis.models.weights import convert
      >>> state = {"module.fc.bias": np.zeros(2), "module.bn1.num_batches_tracked": np.array(7)}
      >>> list(convert.normalise_names(state, {"fc.bias": (2,)}))
      ['fc.bias']
    """
    attached = {name for pair in _statistics(state).values() for name in pair.values()}
    state = _unwrapped({k: v for k, v in state.items() if k not in attached}, expected)
    fitting: dict[str, dict[str, str]] = collections.defaultdict(dict)
    others: dict[str, str] = {}
    for name in state:
        forms = [(prefix, _alias(rest, expected)) for prefix, rest in _forms(name)]
        fits = [(prefix, rest) for prefix, rest in forms if rest in expected]
        for prefix, rest in fits:
            fitting[prefix][rest] = name
        shortest = forms[-1][1]
        ignored = shortest.endswith("num_batches_tracked") or _NORMALISER.search(name)
        if not fits and not ignored and not shortest.startswith(("aux1.", "aux2.")):
            others[name] = shortest
    copies = sorted(fitting.items(), key=lambda item: (-len(item[1]), len(item[0]), item[0]))
    result: State = {}
    for _, names in copies:
        for rest, name in names.items():
            if rest not in result:
                value = state[name]
                # timm keeps VGG's first dense layers as convolutions over the whole 7×7 map.
                if value.ndim == 4 and len(expected[rest]) == 2:
                    value = value.reshape(value.shape[0], -1)
                result[rest] = value
    for name, shortest in others.items():
        result[name if shortest in result else shortest] = state[name]
    return result


def _unwrapped(state: Mapping[str, np.ndarray], expected: Mapping[str, tuple]) -> State:
    """`state` without the prefix, if it is no known one, under which most is as expected."""
    fits: collections.Counter[str] = collections.Counter()
    for name in state:
        parts = name.split(".")
        for i in range(len(parts)):
            if _alias(".".join(parts[i:]), expected) in expected:
                fits[".".join(parts[:i])] += 1
    best = min(fits, key=lambda prefix: (-fits[prefix], len(prefix), prefix), default="")
    if set(best.split(".")) <= {"", *_PREFIXES}:
        return dict(state)
    inside = {name for name in state if name.startswith(f"{best}.")}
    rest = {name: value for name, value in state.items() if name not in inside}
    return rest | {name[len(best) + 1 :]: state[name] for name in state if name in inside}


def _forms(name: str) -> Iterator[tuple[str, str]]:
    """(prefix, rest) with none, one, two, … of the known wrappers taken off the front."""
    parts = name.split(".")
    for i in range(len(parts)):
        yield ".".join(parts[:i]), ".".join(parts[i:])
        if parts[i] not in _PREFIXES:
            return


def _alias(name: str, expected: Mapping[str, tuple]) -> str:
    if name in expected:
        return name
    renamed = (pattern.sub(replacement, name) for pattern, replacement in _ALIASES)
    return next((other for other in renamed if other in expected), name)


def to_variables(
    module: nn.Module, state: Mapping[str, Any], input_shape: tuple[int, int, int]
) -> PyTree:
    """Flax variables from a reference state-dict; the inverse of `from_variables`.

    Args:
      module: a Linen module whose submodules are named as the reference's.
      state: {entry: array in PyTorch's layout}, under the names of `reference_shapes`.
      input_shape: (H, W, C) of an image.

    Raises:
      ValueError: naming every entry (up to 20 of each kind) that is missing, surplus or of another
        shape, and the first that holds anything but finite real numbers.
    """
    template = _template(module, tuple(input_shape))
    expected = reference_shapes(module, input_shape)
    given = {name: tuple(np.shape(value)) for name, value in state.items()}
    _refuse(type(module).__name__, expected, given)
    leaves = []
    for name, leaf, _ in _entries(template):
        array = _float32("state", name, state[name])
        checks.finite(f"state: {name}", array)
        if leaf == "kernel" and array.ndim > 1:
            array = array.transpose(*range(2, array.ndim), 1, 0)
        # JAX may keep memory in the order that it wants: a copy. What it turns round, it copies.
        # And no program for every shape, which `jnp.asarray` would compile.
        leaves.append(jax.device_put(np.array(array) if array.flags.c_contiguous else array))
    # Until all is copied, nobody may write into what was given.
    return jax.tree.unflatten(jax.tree.structure(template), jax.block_until_ready(leaves))


def _refuse(module: str, expected: Mapping[str, tuple], given: Mapping[str, tuple]) -> None:
    missing = [f"{name} {shape}" for name, shape in expected.items() if name not in given]
    surplus = [f"{name} {shape}" for name, shape in given.items() if name not in expected]
    misshapen = [
        f"{name} is {given[name]} where {shape} was expected"
        for name, shape in expected.items()
        if name in given and given[name] != shape
    ]
    kinds = {"missing": missing, "surplus": surplus, "misshapen": misshapen}
    problems = [
        f"{len(entries)} {kind}: {'; '.join(entries[:_SHOWN])}{'; …' * (len(entries) > _SHOWN)}"
        for kind, entries in kinds.items()
        if entries
    ]
    if problems:
        raise ValueError(f"state: these weights do not fit {module}.\n  " + "\n  ".join(problems))


def from_variables(variables: PyTree) -> State:
    """The reference state-dict of Flax variables; the inverse of `to_variables`.

    Raises:
      ValueError: where two variables would have one name.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis.models.weights import convert
      >>> state = convert.from_variables({"params": {"fc": {"kernel": jnp.ones((2, 5))}}})
      >>> state["fc.weight"].shape
      (5, 2)
    """
    state = {}
    for name, leaf, value in _entries(variables):
        array = _float32("variables", name, value)
        if leaf == "kernel" and array.ndim > 1:
            array = array.transpose(-1, -2, *range(array.ndim - 2))
        state[name] = np.asarray(array, order="C")
    return state


def save(
    path: files.PathLike, model_or_variables: Model | PyTree, metadata: Mapping[str, Any]
) -> None:
    """Writes weights as safetensors in the reference layout and names, whole or not at all.

    Args:
      path: where to; it must end in `.safetensors`.
      model_or_variables: a model of `rvis.models`, or {"params": …, "batch_stats": …}.
      metadata: what the header shall say; strings stand as they are, all else becomes JSON.
        `registry.describe(model)` is what `rvis.load(path)` needs.

    Raises:
      ValueError: naming `path`, `model_or_variables` or `metadata`.
      OSError: naming `path`, where it cannot be written.

    Example:
      >>> import rvis, tempfile
      >>> from rvis.models import registry
      >>> from rvis.models.weights import convert
      >>> model = rvis.load("mnist_cnn", weights="random")
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     convert.save(f"{folder}/mine.safetensors", model, registry.describe(model))
    """
    path = files.as_path("path", path)
    if path.suffix != ".safetensors":
        raise ValueError(f"path: a name ending in .safetensors was expected, given {path}")
    variables = (
        model_or_variables.params if isinstance(model_or_variables, Model) else model_or_variables
    )
    if not isinstance(variables, Mapping) or "params" not in variables:
        raise ValueError(
            "model_or_variables: Flax variables {'params': …} or a model that holds them were "
            f"expected, given {type(variables).__name__}"
        )
    try:
        strings = {
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in metadata.items()
        }
    except TypeError as error:
        raise ValueError(
            f"metadata: strings or what JSON can hold were expected ({error})"
        ) from error
    data = safetensors.numpy.save(from_variables(variables), strings)
    with files.atomic(path) as beside:
        beside.write_bytes(data)


def he_normal(module: nn.Module, input_shape: tuple[int, int, int], key: jax.Array) -> PyTree:
    """Random variables: kernels ~ N(0, 2 / fan-in), scales and variances 1, all else 0 (He 2015).

    Example:
      >>> import jax
      >>> from rvis.models.weights import convert
      >>> from rvis.models.families.mnist import MnistCNN
      >>> list(convert.he_normal(MnistCNN(), (28, 28, 1), jax.random.key(0))["params"]["fc1"])
      ['bias', 'kernel']
    """
    template = _template(module, tuple(input_shape))
    # NumPy draws eight times faster than a CPU under JAX: a VGG-16 has 138 million weights.
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    leaves = []
    for _, leaf, shaped in _entries(template):
        values = np.full(shaped.shape, float(leaf.endswith(("scale", "var", "gamma"))), np.float32)
        if leaf == "kernel":
            fan_in = math.prod(shaped.shape[:-1])
            values = generator.standard_normal(shaped.shape, np.float32)
            values *= np.float32((2 / fan_in) ** 0.5)
        leaves.append(jax.device_put(values))
    return jax.tree.unflatten(jax.tree.structure(template), leaves)
