"""What a step costs beside the network's own passes, and what accelerators would need for it.

    python scripts/bench/roofline.py [--only WORD] [--json FILE]

Nothing is compiled or run: operations are XLA's count (`cost_analysis`) of what a call would run,
on stock operations. Takes a minute and a half. Writes scripts/results/roofline.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import rvis
from rvis import attacks, attribution, files, kernels, objectives
from rvis.models import taps
from scripts.bench import machine
from scripts.bench.unrun import unrun

RESULTS = Path(__file__).resolve().parents[1] / "results" / "roofline.json"
FAMILIES = {
    "mnist_cnn": "fc1",
    "cifar_resnet": "layer4",
    "alexnet": "relu5",
    "vgg16": "relu5_3",
    "resnet50": "layer4",
    "googlenet": "inception4c",
    "inceptionv1": "mixed4a",
    "squeezenet1_1": "fire8",
    "efficientnet_lite0": "blocks.5",
    "densenet121": "denseblock3",
    "convnext_tiny": "stages.2",
    "vit_small_patch16_224": "blocks.8",
}
"""{a network of each family: the layer whose channel is drawn}."""


class Chip(NamedTuple):
    """What its maker publishes a second: operations in dense bfloat16, bytes of memory and link."""

    flops: float
    memory: float
    link: float


CHIPS = {
    "H200": Chip(989e12, 4.8e12, 450e9),
    "TPU v5e": Chip(197e12, 819e9, 200e9),
}
"""NVIDIA's data sheet of the H200 (half of what it says with sparsity; NVLink one way); Google
Cloud's page of the TPU v5e."""


def counted(lowered: Any) -> float:
    """XLA's count of the operations of a lowered program, each loop's body once."""
    return float(lowered.cost_analysis()["flops"])


def passes(model: rvis.Model, goal: Any, size: int) -> tuple[float, float]:
    """Operations of a bare forward pass of one image, and of a forward and backward one."""

    def score(image: jax.Array) -> jax.Array:
        return goal(taps.activations(model, image[None], goal.layers))

    image = jax.ShapeDtypeStruct((size, size, model.input_shape[2]), jnp.float32)
    return counted(jax.jit(score).lower(image)), counted(jax.jit(jax.grad(score)).lower(image))


def program(call: Callable[[], Any], name: str) -> float:
    """Operations for one example of the step `name` that a call would run."""
    with unrun() as seen:
        call()
    traced, width, _ = seen[name]
    return counted(traced.lower()) / width


def fourier(shape: tuple[int, int, int]) -> float:
    """XLA's count of an image's two transforms of Fourier, a step's there and back.

    It counts those of real numbers as if they were complex, several times what they take.
    """
    height, width, channels = shape
    plane = jax.ShapeDtypeStruct((channels, height, width), jnp.float32)
    return 2 * counted(jax.jit(jnp.fft.rfft2).lower(plane))


def families(only: str) -> list[dict[str, Any]]:
    """A step of `visualize`, by its defaults and plain, beside the network's two passes."""
    rows = []
    for name, layer in FAMILIES.items():
        if only not in name:
            continue
        model = rvis.load(name, weights="random")
        size = model.input_shape[0]
        goal = objectives.channel(layer, 0)
        forward, both = passes(model, goal, size)
        draw = partial(rvis.visualize, model, goal, size=size, steps=2, progress=False)
        grey = np.full(model.input_shape, 0.5, np.float32)
        explain = partial(attribution.gradient, model, grey, goal, progress=False)
        plain = {"image": "pixel", "transforms": (), "optimizer": rvis.optimizers.steepest(0.5)}
        rows.append(
            {
                "network": name,
                "layer": layer,
                "pixels": size,
                "forward": forward,
                "forward and backward": both,
                "visualize": program(draw, "step.Ascent") / both,
                "plain ascent": program(partial(draw, **plain), "step.Ascent") / both,
                "gradient": program(explain, "gradients._Gradient") / both,
                "transforms of Fourier": fourier(model.input_shape) / both,
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


class Method(NamedTuple):
    """A call on one image, its step, and the passes that the method itself asks of a step."""

    call: Callable[[rvis.Model, np.ndarray], Any]
    name: str
    forward: int = 1
    backward: int = 1
    why: str = ""


QUIET: dict[str, Any] = {"progress": False}
LAST = "its last image is looked at again, so that it can stop there"
METHODS = {
    "deepdream": Method(
        lambda m, x: rvis.deepdream(m, x, "layer3", octaves=1, steps=2, **QUIET), "step.Ascent"
    ),
    "invert": Method(lambda m, x: rvis.invert(m, x, "layer3", steps=2, **QUIET), "step.Ascent"),
    "style": Method(
        lambda m, x: rvis.style.texture(m, x, layers=["layer3"], size=224, steps=2, **QUIET),
        "lbfgs.BoxLBFGS",
    ),
    "pgd": Method(lambda m, x: attacks.pgd(m, x, 0, eps=0.1, steps=3, **QUIET), "gradient.PGD"),
    "apgd": Method(lambda m, x: attacks.apgd(m, x, 0, eps=0.1, steps=6, **QUIET), "apgd.APGD"),
    "mi_fgsm": Method(
        lambda m, x: attacks.mi_fgsm(m, x, 0, eps=0.1, steps=3, **QUIET), "gradient.Momentum"
    ),
    "deepfool": Method(
        lambda m, x: attacks.deepfool(m, x, 0, steps=3, **QUIET), "deepfool.DeepFool", 2, 9, LAST
    ),
    "fab": Method(
        lambda m, x: attacks.fab(m, x, 0, eps=0.1, steps=3, **QUIET), "fab.FAB", 2, 9, LAST
    ),
    "fmn": Method(lambda m, x: attacks.fmn(m, x, 0, steps=3, **QUIET), "minimum_norm.MinimumNorm"),
    "carlini_wagner": Method(
        lambda m, x: attacks.carlini_wagner(m, x, 0, steps=3, **QUIET), "minimal.Search"
    ),
    "square": Method(
        lambda m, x: attacks.square(m, x, 0, eps=0.1, steps=3, **QUIET), "square.Square", 1, 0
    ),
    "integrated_gradients": Method(
        lambda m, x: attribution.integrated_gradients(m, x, 0, tol=None, **QUIET), "stream.Mean"
    ),
    "smoothgrad": Method(
        lambda m, x: attribution.smoothgrad(m, x, 0, samples=4, **QUIET), "stream.Mean"
    ),
    "occlusion": Method(
        lambda m, x: attribution.occlusion(m, x, 0, window=32, stride=32, **QUIET),
        "stream.Mean",
        1,
        0,
    ),
    "rise": Method(lambda m, x: attribution.rise(m, x, 0, samples=4, **QUIET), "stream.Mean", 1, 0),
    "grad_cam": Method(
        lambda m, x: attribution.grad_cam(m, x, 0, layer="layer4", **QUIET),
        "cam.AtLayers",
        1,
        0,
        "the gradient goes back to the last convolution alone",
    ),
    "shapley_sampling": Method(
        lambda m, x: attribution.shapley_sampling(
            m, x, 0, players=32, permutations=4, baseline="mean", **QUIET
        ),
        "coalitions.Permutations",
        1,
        0,
    ),
}


def methods(only: str) -> list[dict[str, Any]]:
    """A step of each on one image of ResNet-18, beside the passes that the method asks for."""
    model = rvis.load("resnet18", weights="random")
    image = np.full(model.input_shape, 0.5, np.float32)
    rows = []
    for name, method in METHODS.items():
        if only not in name:
            continue
        layer = "layer3" if name in ("deepdream", "invert", "style") else "logits"
        goal = objectives.layer(layer) if layer == "layer3" else objectives.logit(0)
        forward, both = passes(model, goal, 224)
        asked = method.forward * forward + method.backward * (both - forward)
        found = program(partial(method.call, model, image), method.name)
        rows.append(
            {
                "method": name,
                "forward": method.forward,
                "backward": method.backward,
                "ratio": found / asked,
                "why": method.why,
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def inceptionv1(steps: int = 512, size: int = 224) -> dict[str, Any]:
    """How long pictures of all channels of InceptionV1 take at published peaks, by devices.

    A unit's step goes as far as its layer. The time is the larger of operations at the peak and of
    bytes at the memory's rate: those that convolutions and products read and write in bfloat16, by
    batches of 32 of which weights are read once. Devices share the units and talk to none other:
    all that is sent are the weights, once.
    """
    model = rvis.load("inceptionv1", weights="random")
    shapes = rvis.layer_shapes(model)
    blocks = [name for name in model.layers if name[:5] in ("conv2", "mixed") and "_" not in name]
    weights = 2 * sum(leaf.size for leaf in jax.tree.leaves(model.params))
    batch, units, rows = 32, 0, []
    for layer in blocks:
        cost = machine.gradient(model, layer, batch, size)
        units += shapes[layer][-1]
        rows.append((shapes[layer][-1], cost.flops / batch, cost.bytes / 2 / batch))
    found: dict[str, Any] = {"units": units, "steps": steps, "pixels": size, "layers": len(rows)}
    for name, chip in CHIPS.items():
        hours = {}
        for devices in (1, 2, 4, 8, 16, 32, 64, 128, 256):
            seconds = weights / chip.link if devices > 1 else 0.0
            for count, flops, moved in rows:
                share = -(-count // devices)
                seconds += share * steps * max(flops / chip.flops, moved / chip.memory)
            hours[str(devices)] = seconds
        found[name] = {"seconds by devices": hours, **chip._asdict()}
    return found


def main(arguments: list[str] | None = None) -> int:
    """Counts, prints a line a row, and writes; the exit status."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--only", default="", help="networks and methods whose name has this word")
    p.add_argument("--json", type=Path, default=RESULTS)
    a = p.parse_args(arguments)
    with kernels.stock():
        found: dict[str, Any] = {
            "jax": jax.__version__,
            "families": families(a.only),
            "methods": methods(a.only),
            "all of InceptionV1": inceptionv1(),
        }
    if not a.only:
        files.write_json(a.json, found)
    most = max(
        [row["visualize"] - row["transforms of Fourier"] for row in found["families"]]
        + [row[c] for row in found["families"] for c in ("plain ascent", "gradient")]
        + [row["ratio"] for row in found["methods"]]
    )
    print(f"at most {most:.2f} × the network's own passes, but for transforms of Fourier")
    return int(most > 1.1)


if __name__ == "__main__":
    sys.exit(main())
