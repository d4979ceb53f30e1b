"""The reference architectures, with anybody's weights or random ones."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from rvis import checks, struct
from rvis.data.preparation import Preparation
from rvis.models.apply import Floats, LinenApply, assemble, reason
from rvis.models.families import (
    alexnet,
    convnext,
    densenet,
    efficientnet,
    googlenet,
    inceptionv1,
    mnist,
    resnet,
    squeezenet,
    vgg,
    vit,
    wideresnet,
)
from rvis.models.families.parts import Architecture
from rvis.models.outputs import Selected
from rvis.models.settings import checked_shape, fields, floats, tuples
from rvis.models.weights import convert
from rvis.types import KeyLike, Model, as_key, layer_shapes

_FAMILIES = (
    mnist,
    resnet,
    alexnet,
    vgg,
    googlenet,
    inceptionv1,
    squeezenet,
    efficientnet,
    densenet,
    convnext,
    vit,
    wideresnet,
)
ARCHITECTURES: Mapping[str, Architecture] = {
    name: architecture
    for family in _FAMILIES
    for name, architecture in family.ARCHITECTURES.items()
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
    preparation: Preparation | None = None,
    strict: bool = True,
    partial: str | None = None,
) -> Model:
    """A reference architecture with weights; what `load` does once it knows which.

    Args:
      architecture: a name of `ARCHITECTURES`.
      weights: a mapping {reference name: array} (`convert.read_state_dict` reads one from a
        file), or "random" for he-normal weights from `key`.
      config: fields of the module that differ, such as {"stages": (3, 4, 6, 3)}. Where `classes`
        is not among them it follows the classifier's weights.
      key: an int seed or a typed key, for random weights.
      input_shape: (H, W, C) the network was trained at; the architecture's by default, with as
        many channels as the first convolution takes.
      mean: of images in [0, 1]; by default that of a normaliser inside the weights (MadryLab's
        checkpoints have one), else the architecture's, averaged for grey images.
      std: likewise.
      classes: one name a logit; by default those of what the architecture is trained on, where
        the weights have as many.
      name: what to call the model; the architecture's name by default.
      preparation: how photographs are brought to it; the architecture's by default.
      strict: whether entries that the architecture does not have are refused; otherwise they are
        left out, with a warning that names them.
      partial: "trunk" for a model without classifier, and so without logits.

    Raises:
      TypeError, ValueError: naming the argument, or `state` with every entry that does not fit.

    Example:
      >>> from rvis.models import architectures
      >>> small = architectures.build("mnist_cnn", config={"widths": (4, 8)}, weights="random")
      >>> small.params["params"]["conv2"]["kernel"].shape
      (5, 5, 4, 8)
    """
    known = ARCHITECTURES[checks.choice("architecture", architecture, ARCHITECTURES)]
    fields = _config(known, config)
    if partial is not None:
        checks.choice("partial", partial, ("trunk",))
        fields["classes"] = 0 if _bare(known, fields) else 1
    shape = checked_shape(known.input_shape if input_shape is None else input_shape)
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
        if known.adapt is not None:
            state, implied = known.adapt(state)
            normaliser = {key: implied.pop(key) for key in ("mean", "std") if key in implied}
            mean = normaliser.get("mean") if mean is None else mean
            std = normaliser.get("std") if std is None else std
            if implied:
                fields = {**implied, **fields}
                module = known.make(**fields)
                expected = convert.reference_shapes(module, shape)
        attached = convert.normaliser(state) or (known.mean, known.std)
        mean, std = attached[0] if mean is None else mean, attached[1] if std is None else std
        state = convert.normalise_names(state, expected)
        channels = _channels(state, expected, shape[2]) if input_shape is None else shape[2]
        if channels != shape[2]:
            shape = (*shape[:2], channels)
            expected = convert.reference_shapes(module, shape)
            if channels == 1:
                mean, std = ((sum(numbers) / len(numbers),) for numbers in (mean, std))
        if partial:
            state = _headless(state, known, expected)
        head = state.get(f"{known.head}.weight")
        if "classes" not in fields and head is not None and np.ndim(head) in (2, 4):
            module = known.make(**fields, classes=int(np.shape(head)[0]))
        surplus = sorted(state.keys() - convert.reference_shapes(module, shape).keys())
        if surplus and not strict:
            warnings.warn(
                f"weights: {len(surplus)} entries are no part of {architecture} and left out: "
                f"{', '.join(surplus[:20])}{', …' * (len(surplus) > 20)}",
                stacklevel=2,
            )
            state = {name: value for name, value in state.items() if name not in surplus}
        params = convert.to_variables(module, state, shape)
    apply = LinenApply(
        module,
        floats("mean", known.mean if mean is None else mean, shape[2]),
        floats("std", known.std if std is None else std, shape[2]),
    )
    if not classes and not isinstance(weights, str) and known.names is not None:
        count = fields.get("classes", getattr(module, "classes", 0))
        classes = known.names() if count == len(known.names()) else ()
    names = () if partial else tuple(map(str, classes))
    model = assemble(apply, params, shape, names, name or architecture)
    if partial and fields["classes"]:
        model = _trunk(model, module)
    return struct.replace(model, preparation=preparation or known.preparation)


def _bare(known: Architecture, fields: Mapping[str, Any]) -> bool:
    """Whether an architecture can be made without a classifier."""
    try:
        convert.reference_shapes(known.make(**{**fields, "classes": 0}), known.input_shape)
    except (ValueError, ZeroDivisionError):
        return False
    return True


def _headless(
    state: Mapping[str, np.ndarray], known: Architecture, expected: Mapping[str, tuple]
) -> dict[str, np.ndarray]:
    """`state` without its classifier; with one of zeros, where the network needs one."""
    head, top = f"{known.head}.", known.head.partition(".")[0]
    kept = {k: v for k, v in state.items() if k in expected or not k.startswith(top)}
    zeros = {k: np.zeros(s, np.float32) for k, s in expected.items() if k.startswith(head)}
    return kept | zeros


def _channels(state: Mapping[str, Any], expected: Mapping[str, tuple], channels: int) -> int:
    """How many channels the weights take, if one convolution of the image takes other than that."""
    others = {
        np.shape(state[name])[1]
        for name, shape in expected.items()
        if len(shape) == 4 == np.ndim(state.get(name, 0))
        and shape[1] == channels
        and np.shape(state[name])[::2] == shape[::2]
    }
    return others.pop() if len(others) == 1 else channels


def _trunk(model: Model, module: nn.Module) -> Model:
    """A model up to where its layers have as many units as there are classes, without logits."""
    two = module.clone(classes=2)
    shapes = layer_shapes(model)
    image = jax.ShapeDtypeStruct((1, *model.input_shape), np.float32)
    params = jax.eval_shape(lambda image: two.init(jax.random.key(0), image), image)
    wider = layer_shapes(assemble(LinenApply(two), params, model.input_shape, (), ""))
    layers = tuple(layer for layer in model.layers if shapes[layer] == wider[layer])
    return struct.replace(model, apply=Selected(model.apply, _nothing), layers=layers)


def _nothing(logits: Any) -> Any:
    return logits[:, :0]


def _config(known: Architecture, config: Mapping[str, Any] | None) -> dict[str, Any]:
    if config is None:
        return {}
    if not isinstance(config, Mapping):
        raise TypeError(f"config: a mapping of the module's fields was expected, given {config!r}")
    options = fields(known.make())
    for field in config:
        checks.choice("config", field, options)
    chosen = {field: tuples(value) for field, value in config.items()}
    for field, value in chosen.items():
        _same_kind(f"config: {field}", value, options[field])
    # A million blocks would be traced for hours, whatever weights there are for them.
    if sum(chosen.get("stages", ())) > _BLOCKS:
        raise ValueError(
            f"config: stages of at most {_BLOCKS} blocks were expected, given {chosen}"
        )
    return chosen


_BLOCKS, _WIDTH = 1000, 2**17


def _same_kind(argument: str, value: Any, like: Any) -> None:
    """Refuses what is not of the kind, and within the sizes, of a module's field."""
    if isinstance(like, bool):
        checks.flag(argument, value)
    elif isinstance(like, int):
        # Without classes a trunk is meant.
        low = 0 if argument == "config: classes" else min(1, like)
        if checks.count(argument, value, low=low) > _WIDTH:
            raise ValueError(f"{argument}: at most {_WIDTH} was expected, given {value}")
    elif isinstance(like, str):
        checks.text(argument, value)
    elif isinstance(like, tuple):
        if not isinstance(value, tuple):
            raise ValueError(f"{argument}: a list of numbers was expected, given {value!r}")
        for entry in value:
            _same_kind(argument, entry, like[0])
