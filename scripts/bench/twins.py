"""The peers' side of the benchmarks: the same networks in PyTorch, from the same weights."""

from __future__ import annotations

import sys
import types
from typing import Any

import numpy as np

import rvis
from rvis.models.families import googlenet
from rvis.models.weights import convert

ARCHITECTURES = ("alexnet", "vgg16", "resnet18", "resnet50", "googlenet", "inceptionv1")
TIMM = ("efficientnet_lite0", "mobilenetv2_100", "convnext_tiny", "vit_small_patch16_224")
"""Names that timm has too, whose networks and weights' names ours share."""
SHIPPED = {
    "cifar10_resnet": "layer4",
    "cifar10_resnet_robust": "layer4",
    "mnist_cnn": "pool2",
    "mnist_cnn_robust": "pool2",
}
"""Networks that come with rvis, and Grad-CAM's layer in each."""


def lucent() -> Any:
    """The package lucent, whose only need of torchvision is its class `Normalize`.

    torchvision has no build for every platform on which torch has one. Where it is absent, a
    module of that name with the same class (x − mean) / std stands in for it.
    """
    try:
        import torchvision  # noqa: F401
    except ImportError:
        import torch

        class Normalize(torch.nn.Module):
            def __init__(self, mean: Any, std: Any) -> None:
                super().__init__()
                self.mean, self.std = (
                    torch.tensor(values).reshape(-1, 1, 1) for values in (mean, std)
                )

            def forward(self, x: Any) -> Any:
                return (x - self.mean) / self.std

        package = types.ModuleType("torchvision")
        for name in ("transforms", "models"):
            module = types.ModuleType(f"torchvision.{name}")
            setattr(package, name, module)
            sys.modules[f"torchvision.{name}"] = module
        package.transforms.Normalize = Normalize
        sys.modules["torchvision"] = package
    import lucent.modelzoo
    import lucent.optvis.objectives
    import lucent.optvis.param
    import lucent.optvis.render
    import lucent.optvis.transform

    return lucent


def twin(model: rvis.Model, *, redirected: bool = False) -> Any:
    """`model` in torch; it takes (n, C, H, W) in [0, 1] and gives the logits.

    Args:
      model: of one of `ARCHITECTURES` or `TIMM`, or a `cifar_resnet` or `mnist_cnn`.
      redirected: whether InceptionV1 has lucent's ReLU, which lets a tenth of a blocked gradient
        through, as `lucent.modelzoo` has it by default.

    Raises:
      ValueError: naming the model, for another architecture.
    """
    import torch
    from torch import nn

    class Logits(nn.Module):
        """In the place of lucent's softmax."""

        def forward(self, x: Any, dim: int = 1) -> Any:
            return x

    apply: Any = model.apply
    known = {"AlexNet": _alexnet, "VGG": _vgg, "ResNet": _resnet, "GoogLeNet": _googlenet}
    known["MnistCNN"] = _digits
    kind = type(apply.module).__name__
    if kind == "InceptionV1":
        network = lucent().modelzoo.inceptionv1(pretrained=False, redirected_ReLU=redirected)
        network.softmax2 = Logits()
    elif model.name in TIMM:
        import timm

        network = timm.create_model(model.name)
    elif kind in known:
        network = known[kind](apply.module)
    else:
        raise ValueError(f"model: one of {', '.join(known)} was expected, given {kind}")
    state = convert.from_variables(model.params)
    tensors = {name: torch.tensor(np.asarray(value)) for name, value in state.items()}
    missing, surplus = network.load_state_dict(tensors, strict=False)
    assert not surplus, surplus
    assert all(name.endswith("num_batches_tracked") for name in missing), missing

    class Normalised(nn.Module):
        def __init__(self, network: Any) -> None:
            super().__init__()
            shape = (1, -1, 1, 1)
            self.register_buffer("mean", torch.tensor(apply.mean).reshape(shape))
            self.register_buffer("std", torch.tensor(apply.std).reshape(shape))
            self.network = network

        def forward(self, x: Any) -> Any:
            return self.network((x - self.mean) / self.std)

    return Normalised(network).eval().requires_grad_(False)


def _alexnet(module: Any) -> Any:
    from torch import nn

    class AlexNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            relu, pool = nn.ReLU(), nn.MaxPool2d(3, 2)
            self.features = nn.Sequential(
                *(nn.Conv2d(3, 64, 11, 4, 2), relu, pool),
                *(nn.Conv2d(64, 192, 5, 1, 2), relu, pool),
                *(nn.Conv2d(192, 384, 3, 1, 1), relu),
                *(nn.Conv2d(384, 256, 3, 1, 1), relu),
                *(nn.Conv2d(256, 256, 3, 1, 1), relu, pool),
            )
            self.avgpool = nn.AdaptiveAvgPool2d(6)
            drop = nn.Dropout()
            self.classifier = nn.Sequential(
                *(drop, nn.Linear(9216, 4096), relu),
                *(drop, nn.Linear(4096, 4096), relu),
                nn.Linear(4096, module.classes),
            )

        def forward(self, x: Any) -> Any:
            return self.classifier(self.avgpool(self.features(x)).flatten(1))

    return AlexNet()


def _vgg(module: Any) -> Any:
    from torch import nn

    class VGG(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers: list[Any] = []
            inside = 3
            for convolutions, width in zip(module.stages, module.widths, strict=True):
                for _ in range(convolutions):
                    layers += [nn.Conv2d(inside, width, 3, 1, 1), nn.ReLU()]
                    inside = width
                layers.append(nn.MaxPool2d(2))
            self.features = nn.Sequential(*layers)
            self.avgpool = nn.AdaptiveAvgPool2d(7)
            relu, drop, dense = nn.ReLU(), nn.Dropout(), module.dense
            self.classifier = nn.Sequential(
                *(nn.Linear(inside * 49, dense), relu, drop),
                *(nn.Linear(dense, dense), relu, drop),
                nn.Linear(dense, module.classes),
            )

        def forward(self, x: Any) -> Any:
            return self.classifier(self.avgpool(self.features(x)).flatten(1))

    return VGG()


def _resnet(module: Any) -> Any:
    from torch import nn

    cifar, grown = module.stem == "cifar", 4 if module.bottleneck else 1

    class Block(nn.Module):
        def __init__(self, inside: int, width: int, stride: int) -> None:
            super().__init__()
            shapes = [(inside, width, 3, stride), (width, width, 3, 1)]
            if module.bottleneck:
                shapes = [
                    (inside, width, 1, 1),
                    (width, width, 3, stride),
                    (width, 4 * width, 1, 1),
                ]
            self.depth = len(shapes)
            for i, (before, after, kernel, step) in enumerate(shapes, 1):
                conv = nn.Conv2d(before, after, kernel, step, kernel // 2, bias=False)
                self.add_module(f"conv{i}", conv)
                self.add_module(f"bn{i}", nn.BatchNorm2d(after))
            self.relu = nn.ReLU(inplace=True)
            self.downsample = nn.Sequential()
            if stride != 1 or inside != grown * width:
                short = nn.Conv2d(inside, grown * width, 1, stride, bias=False)
                self.downsample = nn.Sequential(short, nn.BatchNorm2d(grown * width))

        def forward(self, x: Any) -> Any:
            y = x
            for i in range(1, self.depth + 1):
                y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
                y = self.relu(y) if i < self.depth else y
            return self.relu(y + self.downsample(x))

    class ResNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            inside = module.widths[0]
            kernel, stride, padding = (3, 1, 1) if cifar else (7, 2, 3)
            self.conv1 = nn.Conv2d(3, inside, kernel, stride, padding, bias=False)
            self.bn1, self.relu = nn.BatchNorm2d(inside), nn.ReLU(inplace=True)
            self.maxpool = nn.Identity() if cifar else nn.MaxPool2d(3, 2, 1)
            stages = []
            for s, (blocks, width) in enumerate(zip(module.stages, module.widths, strict=True)):
                parts = []
                for b in range(blocks):
                    parts.append(Block(inside, width, 2 if s and not b else 1))
                    inside = grown * width
                self.add_module(f"layer{s + 1}", nn.Sequential(*parts))
                stages.append(f"layer{s + 1}")
            self.stages = stages
            self.fc = nn.Linear(inside, module.classes)

        def forward(self, x: Any) -> Any:
            x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
            for stage in self.stages:
                x = getattr(self, stage)(x)
            return self.fc(x.mean((2, 3)))

    return ResNet()


def _googlenet(module: Any) -> Any:
    import torch
    from torch import nn

    class Convolved(nn.Module):
        def __init__(self, inside: int, width: int, kernel: int, stride: int = 1) -> None:
            super().__init__()
            self.conv = nn.Conv2d(inside, width, kernel, stride, kernel // 2, bias=False)
            self.bn, self.relu = nn.BatchNorm2d(width, eps=1e-3), nn.ReLU(inplace=True)

        def forward(self, x: Any) -> Any:
            return self.relu(self.bn(self.conv(x)))

    class Inception(nn.Module):
        def __init__(self, inside: int, channels: tuple[int, ...]) -> None:
            super().__init__()
            one, three_in, three, five_in, five, pooled = channels
            self.branch1 = Convolved(inside, one, 1)
            self.branch2 = nn.Sequential(
                Convolved(inside, three_in, 1), Convolved(three_in, three, 3)
            )
            self.branch3 = nn.Sequential(Convolved(inside, five_in, 1), Convolved(five_in, five, 3))
            self.branch4 = nn.Sequential(
                nn.MaxPool2d(3, 1, 1, ceil_mode=True), Convolved(inside, pooled, 1)
            )

        def forward(self, x: Any) -> Any:
            parts = (self.branch1, self.branch2, self.branch3, self.branch4)
            return torch.cat([part(x) for part in parts], 1)

    class GoogLeNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            pool = nn.MaxPool2d(3, 2, ceil_mode=True)
            self.conv1, self.maxpool1 = Convolved(3, 64, 7, 2), pool
            self.conv2, self.conv3, self.maxpool2 = (
                Convolved(64, 64, 1),
                Convolved(64, 192, 3),
                pool,
            )
            order = ["conv1", "maxpool1", "conv2", "conv3", "maxpool2"]
            inside = 192
            for block, channels in googlenet._BLOCKS.items():
                self.add_module(f"inception{block}", Inception(inside, channels))
                order.append(f"inception{block}")
                inside = channels[0] + channels[2] + sum(channels[4:])
                if block in googlenet._POOL_AFTER:
                    name, window = googlenet._POOL_AFTER[block]
                    self.add_module(name, nn.MaxPool2d(window, 2, ceil_mode=True))
                    order.append(name)
            self.order = order
            self.fc = nn.Linear(inside, module.classes)

        def forward(self, x: Any) -> Any:
            for name in self.order:
                x = getattr(self, name)(x)
            return self.fc(x.mean((2, 3)))

    return GoogLeNet()


def _digits(module: Any) -> Any:
    from torch import nn

    class Digits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            one, two = module.widths
            self.conv1, self.relu1 = nn.Conv2d(1, one, 5, padding=2), nn.ReLU()
            self.pool1, self.pool2 = nn.MaxPool2d(2), nn.MaxPool2d(2)
            self.conv2, self.relu2 = nn.Conv2d(one, two, 5, padding=2), nn.ReLU()
            self.fc1, self.relu3 = nn.Linear(49 * two, module.dense), nn.ReLU()
            self.fc2 = nn.Linear(module.dense, module.classes)

        def forward(self, x: Any) -> Any:
            x = self.pool1(self.relu1(self.conv1(x)))
            x = self.pool2(self.relu2(self.conv2(x)))
            return self.fc2(self.relu3(self.fc1(x.flatten(1))))

    return Digits()
