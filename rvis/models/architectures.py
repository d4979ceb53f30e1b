"""The reference architectures, with anybody's weights or random ones."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np

from rvis import checks
from rvis.models.apply import Floats, LinenApply, assemble, reason
from rvis.models.families.alexnet import AlexNet
from rvis.models.families.googlenet import GoogLeNet
from rvis.models.families.inceptionv1 import InceptionV1
from rvis.models.families.mnist import MnistCNN
from rvis.models.families.resnet import ResNet
from rvis.models.families.vgg import VGG
from rvis.models.settings import checked_shape, fields, floats, tuples
from rvis.models.weights import convert
from rvis.types import KeyLike, Model, as_key


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
      TypeError, ValueError: naming the argument, or `state` with every entry that does not fit.

    Example:
      >>> from rvis.models import architectures
      >>> small = architectures.build("mnist_cnn", config={"widths": (4, 8)}, weights="random")
      >>> small.params["params"]["conv2"]["kernel"].shape
      (5, 5, 4, 8)
    """
    known = ARCHITECTURES[checks.choice("architecture", architecture, ARCHITECTURES)]
    fields = _config(known, config)
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
        attached = convert.normaliser(state) or (known.mean, known.std)
        mean, std = attached[0] if mean is None else mean, attached[1] if std is None else std
        state = convert.normalise_names(state, expected)
        head = state.get(f"{known.head}.weight")
        if "classes" not in fields and head is not None and np.ndim(head) == 2:
            module = known.make(**fields, classes=int(np.shape(head)[0]))
        params = convert.to_variables(module, state, shape)
    apply = LinenApply(
        module,
        floats("mean", known.mean if mean is None else mean, shape[2]),
        floats("std", known.std if std is None else std, shape[2]),
    )
    return assemble(apply, params, shape, tuple(map(str, classes)), name or architecture)


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
        if checks.count(argument, value) > _WIDTH:
            raise ValueError(f"{argument}: at most {_WIDTH} was expected, given {value}")
    elif isinstance(like, str):
        checks.text(argument, value)
    elif isinstance(like, tuple):
        if not isinstance(value, tuple):
            raise ValueError(f"{argument}: a list of numbers was expected, given {value!r}")
        for entry in value:
            _same_kind(argument, entry, like[0])
