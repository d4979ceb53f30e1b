"""Do rvis's attributions agree with captum's on the same weights?

Command:  python scripts/captum_check.py [DATA] [--models …] [--images 4]
Time:     half a minute. Needs the `bench` extra (torch and captum).
Prints:   a table: for each network and method the largest relative difference ‖a − b‖ / ‖b‖ of
          any image's map. Exit status 1 where one exceeds 1e-3, 3 where a package is missing.
DATA is what `rvis.data.load` reads, a twentieth of noise added; without it, and for networks of
another shape, the images are uniform noise.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import rvis
from rvis import attribution
from rvis.models.weights import convert

LAYERS = {
    "cifar10_resnet": "layer4",
    "cifar10_resnet_robust": "layer4",
    "mnist_cnn": "pool2",
    "mnist_cnn_robust": "pool2",
}
"""The networks compared, and Grad-CAM's layer in each."""


def twin(model: rvis.Model) -> Any:
    """The same network in torch, from the same weights; it takes (n, C, H, W) in [0, 1]."""
    import torch
    from torch import nn

    class Normalised(nn.Module):
        def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
            super().__init__()
            self.mean = torch.tensor(mean).reshape(1, -1, 1, 1)
            self.std = torch.tensor(std).reshape(1, -1, 1, 1)

        def forward(self, x: Any) -> Any:
            return (x - self.mean) / self.std

    class Block(nn.Module):
        def __init__(self, inside: int, width: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(inside, width, 3, stride, 1, bias=False)
            self.bn1, self.relu1 = nn.BatchNorm2d(width), nn.ReLU()
            self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
            self.bn2, self.relu2 = nn.BatchNorm2d(width), nn.ReLU()
            self.downsample = nn.Sequential()
            if stride != 1 or inside != width:
                short = nn.Conv2d(inside, width, 1, stride, bias=False)
                self.downsample = nn.Sequential(short, nn.BatchNorm2d(width))

        def forward(self, x: Any) -> Any:
            y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
            return self.relu2(y + self.downsample(x))

    class ResNet(nn.Module):
        def __init__(self, stages: tuple[int, ...], widths: tuple[int, ...], classes: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
            self.bn1, self.relu = nn.BatchNorm2d(widths[0]), nn.ReLU()
            inside = widths[0]
            for s, (blocks, width) in enumerate(zip(stages, widths, strict=True), 1):
                parts = [
                    Block(inside if b == 0 else width, width, 2 if s > 1 and b == 0 else 1)
                    for b in range(blocks)
                ]
                self.add_module(f"layer{s}", nn.Sequential(*parts))
                inside = width
            self.fc = nn.Linear(inside, classes)
            self.depth = len(stages)

        def forward(self, x: Any) -> Any:
            x = self.relu(self.bn1(self.conv1(x)))
            for s in range(1, self.depth + 1):
                x = getattr(self, f"layer{s}")(x)
            return self.fc(x.mean((2, 3)))

    class Digits(nn.Module):
        def __init__(self, widths: tuple[int, int], dense: int, classes: int) -> None:
            super().__init__()
            self.conv1, self.relu1 = nn.Conv2d(1, widths[0], 5, padding=2), nn.ReLU()
            self.pool1, self.pool2 = nn.MaxPool2d(2), nn.MaxPool2d(2)
            self.conv2, self.relu2 = nn.Conv2d(widths[0], widths[1], 5, padding=2), nn.ReLU()
            self.fc1, self.relu3 = nn.Linear(49 * widths[1], dense), nn.ReLU()
            self.fc2 = nn.Linear(dense, classes)

        def forward(self, x: Any) -> Any:
            x = self.pool1(self.relu1(self.conv1(x)))
            x = self.pool2(self.relu2(self.conv2(x)))
            return self.fc2(self.relu3(self.fc1(x.flatten(1))))

    apply: Any = model.apply
    module = apply.module
    if type(module).__name__ == "ResNet" and module.stem == "cifar" and not module.bottleneck:
        network: Any = ResNet(module.stages, module.widths, module.classes)
    elif type(module).__name__ == "MnistCNN":
        network = Digits(module.widths, module.dense, module.classes)
    else:
        raise ValueError(f"models: a cifar_resnet or mnist_cnn was expected, given {model.name!r}")
    state = {
        name: torch.tensor(value) for name, value in convert.from_variables(model.params).items()
    }
    missing, surplus = network.load_state_dict(state, strict=False)
    assert not surplus, surplus
    assert all(name.endswith("num_batches_tracked") for name in missing), missing
    return nn.Sequential(Normalised(apply.mean, apply.std), network).eval()


def compare(model: rvis.Model, images: np.ndarray) -> dict[str, float]:
    """{method: largest relative difference of an image's map}."""
    import captum.attr
    import torch

    network = twin(model)
    layer = LAYERS.get(model.name, "layer4" if model.input_shape[2] == 3 else "pool2")
    inside = getattr(network[1], layer)
    x = torch.tensor(images.transpose(0, 3, 1, 2), requires_grad=True)
    classes = np.asarray(model(images)).argmax(1).astype(np.int32)
    target = torch.tensor(classes).long()
    channels = images.shape[-1]
    box = {"sliding_window_shapes": (channels, 6, 5), "strides": (channels, 4, 3)}
    theirs: dict[str, Callable[[], Any]] = {
        "gradient": lambda: captum.attr.Saliency(network).attribute(x, target, abs=False),
        "input_x_gradient": lambda: captum.attr.InputXGradient(network).attribute(x, target),
        "integrated_gradients": lambda: captum.attr.IntegratedGradients(network).attribute(
            x, 0.5, target, n_steps=50, method="gausslegendre", internal_batch_size=100
        ),
        "guided_backprop": lambda: captum.attr.GuidedBackprop(network).attribute(x, target),
        "deconvnet": lambda: captum.attr.Deconvolution(network).attribute(x, target),
        "grad_cam": lambda: captum.attr.LayerGradCam(network, inside).attribute(
            x, target, relu_attributions=True
        ),
        "layer_gradient_x_activation": lambda: captum.attr.LayerGradientXActivation(
            network, inside
        ).attribute(x, target),
        "occlusion": lambda: captum.attr.Occlusion(network).attribute(
            x, target=target, baselines=0.25, perturbations_per_eval=16, **box
        ),
    }
    options: dict[str, dict[str, Any]] = {
        "integrated_gradients": {"baseline": 0.5, "tol": None},
        "grad_cam": {"layer": layer},
        "layer_gradient_x_activation": {"layer": layer},
        "occlusion": {"window": (6, 5), "stride": (4, 3), "baseline": 0.25},
    }
    found = {}
    for method, peer in theirs.items():
        function = getattr(attribution, method)
        ours = function(model, images, classes, progress=False, **options.get(method, {}))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it hooks the ReLUs
            reference = peer().detach().numpy().transpose(0, 2, 3, 1)
        map_ = ours.maps if ours.raw is None else ours.raw
        if map_.ndim == 3:
            reference = reference[..., 0]
        apart = np.linalg.norm((map_ - reference).reshape(len(x), -1), axis=1)
        size = np.linalg.norm(reference.reshape(len(x), -1), axis=1)
        found[method] = float((apart / np.where(size == 0, 1, size)).max())
    return found


def main(arguments: list[str] | None = None) -> int:
    """Compares and prints; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("data", type=Path, nargs="?")
    p.add_argument("--models", nargs="+", default=list(LAYERS))
    p.add_argument("--images", type=int, default=4)
    p.add_argument("--tolerance", type=float, default=1e-3)
    a = p.parse_args(arguments)
    for package in ("torch", "captum"):
        if importlib.util.find_spec(package) is None:
            print(f"{p.prog}: {package} is not installed; the `bench` extra is", file=sys.stderr)
            return 3
    try:
        models = [rvis.load(name) for name in a.models]
        data = None if a.data is None else rvis.data.load(a.data, "test")
        table = {}
        for model in models:
            noise = np.random.default_rng(0).random((a.images, *model.input_shape), np.float32)
            images = noise
            if data is not None and data.images.shape[1:] == model.input_shape:
                # Saturated pixels make ties under max-pooling, where rounding decides the gradient.
                images = 0.95 * np.asarray(data.floats(np.arange(a.images))) + 0.05 * noise
            table[model.name] = compare(model, images)
    except (ValueError, TypeError, OSError) as error:
        print(f"{p.prog}: {error}", file=sys.stderr)
        return 2
    methods = list(next(iter(table.values())))
    print(f"| network | {' | '.join(methods)} |")
    print("|" + "---|" * (1 + len(methods)))
    for name, found in table.items():
        print(f"| {name} | {' | '.join(f'{found[method]:.1e}' for method in methods)} |")
    worst = max(max(found.values()) for found in table.values())
    return int(worst > a.tolerance)


if __name__ == "__main__":
    sys.exit(main())
