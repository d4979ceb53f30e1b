"""Every family beside torchvision's, timm's or RobustBench's network of the same seeded weights.

Command:  python scripts/bench/parity.py [NAME …] [--record]
Needs:    torch, torchvision and timm (RobustBench for its networks); what is missing is left out.
Prints:   for each network and size how far logits, one activation and the input gradient are away,
          in float64, relative to their norms. With --record the tests' golden files are written.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import Any, NamedTuple

import jax
import numpy as np

from tests.golden import networks, seeded

SIZES = ((64, 64), (64, 96))


class Case(NamedTuple):
    """A network of ours and its reference.

    Attributes:
      ours: an architecture's name.
      module: of the reference.
      make: the reference's constructor there.
      keywords: of the constructor.
      layer: our layer, and the reference's module whose output it is.
      config: fields of ours that differ.
      sizes: (H, W) of the images.
      recorded: whether there is a golden file, which takes the tests some seconds.
    """

    ours: str
    module: str
    make: str
    keywords: dict[str, Any]
    layer: tuple[str, str]
    config: dict[str, Any] = {}
    sizes: tuple[tuple[int, int], ...] = SIZES
    recorded: bool = True


def _timm(name: str, layer: tuple[str, str], ours: str = "", **more: Any) -> Case:
    keywords = {"model_name": name, **more.pop("keywords", {})}
    return Case(ours or name, "timm", "create_model", keywords, layer, **more)


def _torchvision(name: str, layer: tuple[str, str], ours: str = "", **more: Any) -> Case:
    return Case(ours or name, "torchvision.models", name, {"weights": None}, layer, **more)


# Two blocks, and one in each stage: the others are the same again.
_TOKENS = {"img_size": 64, "dynamic_img_size": True, "depth": 2}
_TWO: dict[str, Any] = {"keywords": _TOKENS, "config": {"depth": 2}}
_SMALL_DINO = _TWO | {"keywords": {**_TOKENS, "img_size": 56}, "sizes": ((56, 56), (56, 84))}
_SINGLE = (1, 1, 1, 1)
_ARCHITECTURES = "robustbench.model_zoo.architectures"
_CIFAR = ((32, 32),)


def _block(name: str) -> tuple[str, str]:
    return (name, name)


CASES = {
    "squeezenet1_0": _torchvision("squeezenet1_0", ("pool8", "features.11")),
    "squeezenet1_1": _torchvision("squeezenet1_1", ("pool5", "features.8")),
    "mobilenet_v2": _torchvision("mobilenet_v2", ("blocks.3.0", "features.7")),
    "mobilenetv2_100": _timm("mobilenetv2_100", _block("blocks.3.0"), recorded=False),
    "efficientnet_b0_torchvision": _torchvision(
        "efficientnet_b0", ("blocks.3", "features.4"), "efficientnet_b0", sizes=SIZES[:1]
    ),
    "efficientnet_b1": _timm("efficientnet_b1", _block("blocks.3"), recorded=False),
    "tf_efficientnet_b0": _timm("tf_efficientnet_b0", _block("blocks.3")),
    "efficientnet_lite0": _timm("efficientnet_lite0", _block("blocks.3")),
    "tf_efficientnet_lite1": _timm("tf_efficientnet_lite1", _block("blocks.3"), recorded=False),
    "densenet121": _torchvision(
        "densenet121", ("denseblock2", "features.denseblock2"), recorded=False
    ),
    "densenet_small": Case(
        "densenet121",
        "torchvision.models",
        "DenseNet",
        {"block_config": (2, 3, 2, 2)},
        ("denseblock2", "features.denseblock2"),
        {"layers": (2, 3, 2, 2)},
    ),
    "densenet161": _timm("densenet161", ("denseblock2", "features.denseblock2"), recorded=False),
    "wide_resnet50_2": Case(
        "wide_resnet50_2",
        "torchvision.models",
        "ResNet",
        {
            "block": "torchvision.models.resnet.Bottleneck",
            "layers": _SINGLE,
            "width_per_group": 128,
        },
        _block("layer2"),
        {"stages": _SINGLE},
    ),
    "resnext50_32x4d": _timm(
        "resnext50_32x4d",
        _block("layer2"),
        keywords={"layers": _SINGLE},
        config={"stages": _SINGLE},
    ),
    "convnext_tiny": _timm("convnext_tiny", _block("stages.2.blocks.0"), recorded=False),
    "convnext_small_depths": _timm(
        "convnext_tiny",
        _block("stages.2.blocks.0"),
        keywords={"depths": (1, 1, 2, 1)},
        config={"depths": (1, 1, 2, 1)},
    ),
    "convnext_tiny_torchvision": _torchvision(
        "convnext_tiny", ("stages.2.blocks.0", "features.5.0"), "convnext_tiny", sizes=SIZES[:1]
    ),
    "vit_tiny_patch16": _timm("vit_tiny_patch16_224", _block("blocks.0"), **_TWO),
    "vit_b_32_torchvision": Case(
        "vit_b_32",
        "torchvision.models",
        "VisionTransformer",
        {
            "image_size": 64,
            "patch_size": 32,
            "num_layers": 2,
            "num_heads": 12,
            "hidden_dim": 768,
            "mlp_dim": 3072,
        },
        ("blocks.0", "encoder.layers.encoder_layer_0"),
        {"depth": 2},
        ((64, 64),),
    ),
    "deit_tiny_distilled_patch16": _timm(
        "deit_tiny_distilled_patch16_224", _block("blocks.0"), **_TWO
    ),
    "vit_small_patch14_dinov2": _timm(
        "vit_small_patch14_dinov2", _block("blocks.0"), **_SMALL_DINO
    ),
    "vit_small_patch14_reg4_dinov2": _timm(
        "vit_small_patch14_reg4_dinov2", _block("blocks.0"), **_SMALL_DINO
    ),
    "vit_base_patch32_clip": _timm(
        "vit_base_patch32_clip_224",
        _block("blocks.0"),
        **_TWO | {"keywords": {**_TOKENS, "num_classes": 512}},
    ),
    "vit_base_patch32_clip_quickgelu": _timm(
        "vit_base_patch32_clip_quickgelu_224",
        _block("blocks.0"),
        **_TWO | {"keywords": {**_TOKENS, "num_classes": 512}},
    ),
    "vit_base_patch16_siglip": _timm("vit_base_patch16_siglip_224", _block("blocks.0"), **_TWO),
    "wideresnet28_10": Case(
        "wideresnet28_10",
        f"{_ARCHITECTURES}.wide_resnet",
        "WideResNet",
        {"depth": 10, "widen_factor": 2},
        _block("block2"),
        {"depth": 10, "widen": 2},
        _CIFAR,
    ),
    "wideresnet70_16": Case(
        "wideresnet70_16",
        f"{_ARCHITECTURES}.dm_wide_resnet",
        "DMWideResNet",
        {
            "depth": 10,
            "width": 2,
            "activation_fn": "torch.nn.SiLU",
            "mean": [0.0] * 3,
            "std": [1.0] * 3,
        },
        ("block2", "layer.1"),
        {"depth": 10, "widen": 2},
        _CIFAR,
    ),
    "preactresnet18": Case(
        "preactresnet18",
        f"{_ARCHITECTURES}.resnet",
        "PreActResNet",
        {"block": f"{_ARCHITECTURES}.resnet.PreActBlock", "num_blocks": [2, 2, 2, 2]},
        _block("layer3"),
        sizes=_CIFAR,
    ),
    "preactresnet18_norm": Case(
        "preactresnet18",
        f"{_ARCHITECTURES}.resnet",
        "PreActResNet",
        {
            "block": f"{_ARCHITECTURES}.resnet.PreActBlockV2",
            "num_blocks": [2, 2, 2, 2],
            "bn_before_fc": True,
        },
        _block("layer3"),
        sizes=_CIFAR,
    ),
}
"""By the golden file's name."""


def reference(case: Case) -> Any:
    """The reference network, in float64 and evaluation mode, with seeded weights."""
    import torch

    _let_torchvision_load(torch)
    make = getattr(importlib.import_module(case.module), case.make)
    network = make(**{key: _resolved(value) for key, value in case.keywords.items()})
    state = network.state_dict()
    for name, value in state.items():
        if not name.endswith("num_batches_tracked"):
            value.copy_(torch.from_numpy(seeded.weight(name, tuple(value.shape))))
    return network.double().eval()


def _resolved(value: Any) -> Any:
    """What a dotted name stands for."""
    if isinstance(value, str) and value.startswith(("torch.", "torchvision.", "robustbench.")):
        module, _, name = value.rpartition(".")
        return getattr(importlib.import_module(module), name)
    return value


def _let_torchvision_load(torch: Any) -> None:
    """A torchvision built for another PyTorch lacks operators, which no network here uses."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float threshold) -> Tensor")
        _LIBRARIES.append(library)
        importlib.import_module("torchvision")


_LIBRARIES: list[Any] = []


def computed(case: Case, network: Any, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Logits, the layer's activation and the gradient of logit 7, as the reference has them."""
    import torch

    seen: dict[str, Any] = {}
    hook = network.get_submodule(case.layer[1]).register_forward_hook(
        lambda _module, _inputs, output: seen.update(out=output)
    )
    images = torch.from_numpy(networks.images(size).transpose(0, 3, 1, 2).copy()).requires_grad_()
    logits = network(images)
    hook.remove()
    logits = logits.reshape(logits.shape[0], -1)
    logits[0, 7].backward()
    found = {"logits": logits, "activation": seen["out"], "gradient": images.grad}
    return {
        name: channels_last(name, value.detach().numpy(), case) for name, value in found.items()
    }


def channels_last(name: str, array: np.ndarray, case: Case) -> np.ndarray:
    """(n, H, W, C) of PyTorch's (n, C, H, W)."""
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def main(arguments: list[str] | None = None) -> None:
    """Compares what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(CASES)}; all by default")
    parser.add_argument("--record", action="store_true", help="write the tests' golden files")
    parsed = parser.parse_args(arguments)
    for name in parsed.names or CASES:
        case = CASES[name]
        try:
            network = reference(case)
        except ImportError as error:
            print(f"{name}: left out ({error})")
            continue
        shapes = {
            entry: list(value.shape)
            for entry, value in network.state_dict().items()
            if not entry.endswith("num_batches_tracked")
        }
        about: dict[str, Any] = {"ours": case.ours, "config": case.config, "layer": case.layer[0]}
        about |= {"sizes": case.sizes, "shapes": shapes}
        golden: dict[str, np.ndarray] = {}
        for size in case.sizes:
            expected = computed(case, network, size)
            with jax.enable_x64(True):
                ours = networks.computed(about, size)
            away = {
                key: float(np.linalg.norm(ours[key] - value) / np.linalg.norm(value))
                for key, value in expected.items()
            }
            print(name, size, {key: f"{value:.1e}" for key, value in away.items()}, flush=True)
            for key, value in expected.items():
                golden |= networks.summary(f"{size[0]}x{size[1]}/{key}", value)
        if parsed.record and case.recorded:
            networks.save(name, about, golden)


if __name__ == "__main__":
    main()
