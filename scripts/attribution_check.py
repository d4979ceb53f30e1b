"""Do LRP, CAMs and DeepLIFT agree with Zennit, pytorch-grad-cam and captum, at what cost?

Command:  python scripts/attribution_check.py [--networks resnet18 vgg16] [--size 64] [--rounds 3]
Time:     some minutes. Needs the `bench` extra, and zennit and grad-cam.
Prints:   for each network and method the relative difference ‖a − b‖ / ‖b‖ of the maps, both times
          (the median of `--rounds`, compilation apart) and their ratio, and the machine's load.
          Exit status 1 where a difference exceeds 1e-3, 3 where a package is missing.
Networks are torchvision's with seeded weights, and images are uniform noise: no data is needed.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

import rvis
from rvis import attribution

LAYERS = {"resnet18": ("layer4", "layer4"), "vgg16": ("relu5_3", "features.29")}
"""The CAMs' layer: ours, and theirs."""
COMPOSITES = {
    "epsilon_plus": "EpsilonPlus",
    "epsilon_plus_flat": "EpsilonPlusFlat",
    "epsilon_alpha2_beta1": "EpsilonAlpha2Beta1",
    "epsilon_alpha2_beta1_flat": "EpsilonAlpha2Beta1Flat",
}
CAMS = {
    "grad_cam": "GradCAM",
    "xgrad_cam": "XGradCAM",
    "hires_cam": "HiResCAM",
    "layer_cam": "LayerCAM",
}
Maps = Callable[[], np.ndarray]


def peers(
    name: str, network: Any, model: rvis.Model, images: np.ndarray, classes: np.ndarray
) -> dict[str, tuple[Maps, Maps]]:
    """{method: (ours, theirs)}, each a function that gives maps."""
    import captum.attr
    import pytorch_grad_cam
    import torch
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    from zennit import composites
    from zennit.attribution import Gradient
    from zennit.torchvision import ResNetCanonizer, VGGCanonizer

    mean, std = (np.asarray(v, np.float32) for v in (model.apply.mean, model.apply.std))  # type: ignore[attr-defined]
    x = torch.tensor(((images - mean) / std).transpose(0, 3, 1, 2))
    targets = torch.tensor(classes).long()
    quiet: dict[str, Any] = {"progress": False}

    def relevance(composite: str) -> Maps:
        canonizer = ResNetCanonizer if name.startswith("resnet") else VGGCanonizer

        def theirs() -> np.ndarray:
            plan = getattr(composites, COMPOSITES[composite])(canonizers=[canonizer()])
            with Gradient(network, plan) as attributor:
                start = lambda out: out * torch.nn.functional.one_hot(targets, out.shape[1])  # noqa: E731
                _, found = attributor(x, start)
            return found.detach().numpy().transpose(0, 2, 3, 1)

        return theirs

    def cam(kind: str) -> Maps:
        layer = network.get_submodule(LAYERS[name][1])

        def theirs() -> np.ndarray:
            with getattr(pytorch_grad_cam, kind)(network, [layer]) as method:
                return method(x, [ClassifierOutputTarget(int(c)) for c in classes])

        return theirs

    def scaled(maps: np.ndarray) -> np.ndarray:
        low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
        return (maps - low) / (high - low + 1e-7)

    def ours(method: str, **options: Any) -> np.ndarray:
        function = getattr(attribution, method)
        maps = function(model, images, classes, **quiet, **options).maps
        return scaled(maps) if method in CAMS else maps

    found: dict[str, tuple[Maps, Maps]] = {}
    for composite in COMPOSITES:
        own = functools.partial(ours, "lrp", composite=composite)
        found[f"lrp {composite}"] = own, relevance(composite)
    for method, kind in CAMS.items():
        found[method] = functools.partial(ours, method, layer=LAYERS[name][0]), cam(kind)

    def lifted() -> np.ndarray:
        grey = torch.tensor(((0.5 - mean) / std).reshape(1, 3, 1, 1)).expand_as(x)
        own = captum.attr.DeepLift(network).attribute(x, grey, target=targets)
        return own.detach().numpy().transpose(0, 2, 3, 1)

    if name.startswith("vgg"):  # torchvision's residual blocks use a ReLU twice, which it refuses
        found["deep_lift"] = functools.partial(ours, "deep_lift", baseline=0.5), lifted
    return found


def seconds(function: Maps, rounds: int) -> tuple[np.ndarray, float]:
    """What it gives, and its median time once it is warm."""
    maps, times = function(), []
    for _ in range(rounds):
        start = time.perf_counter()
        maps = function()
        times.append(time.perf_counter() - start)
    return maps, statistics.median(times)


def main(arguments: list[str] | None = None) -> int:
    """Compares and prints; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--networks", nargs="+", default=list(LAYERS), choices=list(LAYERS))
    p.add_argument("--methods", nargs="+", help="of those that it prints; all by default")
    p.add_argument("--size", type=int, default=64)
    p.add_argument("--images", type=int, default=2)
    p.add_argument("--rounds", type=int, default=3)
    a = p.parse_args(arguments)
    for package in ("torch", "torchvision", "captum", "zennit", "pytorch_grad_cam"):
        if importlib.util.find_spec(package) is None:
            print(f"{p.prog}: {package} is not installed", file=sys.stderr)
            return 3
    import torch
    import torchvision

    warnings.simplefilter("ignore")
    worst = 0.0
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    print("| network | method | difference | ours (s) | theirs (s) | ratio |")
    print("|---" * 6 + "|")
    for name in a.networks:
        torch.manual_seed(0)
        network = getattr(torchvision.models, name)().eval()
        state = {key: value.numpy() for key, value in network.state_dict().items()}
        for module in network.modules():
            if isinstance(module, torch.nn.ReLU):
                module.inplace = False
        model = rvis.load(name, weights=state)
        rng = np.random.default_rng(0)
        images = rng.random((a.images, a.size, a.size, 3), np.float32)
        classes = np.arange(a.images, dtype=np.int32)
        for method, (ours, theirs) in peers(name, network, model, images, classes).items():
            if a.methods and method not in a.methods:
                continue
            (first, fast), (second, slow) = seconds(ours, a.rounds), seconds(theirs, a.rounds)
            apart = float(np.linalg.norm(first - second) / np.linalg.norm(second))
            if method in CAMS and first.shape == second.shape:
                apart = float(np.abs(first - second).max())
            # captum's DeepLIFT is not complete where maxima follow ReLUs; only its time counts.
            worst = max(worst, 0.0 if method == "deep_lift" else apart)
            ratio = fast / slow
            print(
                f"| {name} | {method} | {apart:.1e} | {fast:.2f} | {slow:.2f} | {ratio:.2f} |",
                flush=True,
            )
    return int(worst > 1e-3)


if __name__ == "__main__":
    sys.exit(main())
