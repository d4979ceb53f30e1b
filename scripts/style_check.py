"""Is rvis's style loss that of the papers, and how long does an evaluation take beside PyTorch?

Command:  python scripts/style_check.py [--side 256] [--repeats 5]
Time:     two minutes. Needs the `bench` extra (torch).
Prints:   a table: the relative differences of loss and gradient for maxima and averages, both sides
          in float64 (in float32 a unit within rounding of zero may fall to either side of its
          ReLU), and the median seconds of an evaluation (loss and gradient) in float32, rvis beside
          PyTorch with channels last. Exit status 1 where a difference exceeds 1e-4, 3 where a
          package is missing.
The network is VGG-16 with random weights. The PyTorch side is written from the formulas of Gatys et
al. 2015 and 2016, with sums for Gram matrices, and shares nothing but the weights.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import rvis
from rvis import core
from rvis.style.layers import contents, terms, textures
from rvis.style.synthesis import pooled

STYLE = {"relu1_1": 1e3, "relu2_1": 2e3, "relu3_1": 3e3, "relu4_1": 4e3, "relu5_1": 5e3}
CONTENT = {"relu4_2": 0.5}
STAGES = (2, 2, 3, 3, 3)


def torch_features(model: rvis.Model, average: bool, dtype: Any) -> Any:
    """{layer: activations} of (1, 3, H, W) in [0, 1], up to relu5_1, in PyTorch."""
    import torch
    from torch.nn import functional as F

    weights = model.params["params"]
    kernels = []
    entry = 0
    for convolutions in STAGES:
        for _ in range(convolutions):
            leaf = weights[f"features.{entry}"]
            kernel = torch.tensor(np.asarray(leaf["kernel"]).transpose(3, 2, 0, 1).copy())
            bias = torch.tensor(np.asarray(leaf["bias"]).copy())
            kernels.append((kernel.to(dtype), bias.to(dtype)))
            entry += 2
        entry += 1
    mean = torch.tensor(model.apply.mean, dtype=dtype).reshape(1, 3, 1, 1)  # type: ignore[attr-defined]
    std = torch.tensor(model.apply.std, dtype=dtype).reshape(1, 3, 1, 1)  # type: ignore[attr-defined]

    def features(x: Any) -> dict[str, Any]:
        x = (x - mean) / std
        found = {}
        supply = iter(kernels)
        for stage, convolutions in enumerate(STAGES, 1):
            for i in range(1, convolutions + 1):
                kernel, bias = next(supply)
                x = F.relu(F.conv2d(x, kernel, bias, padding=1))
                found[f"relu{stage}_{i}"] = x
                if (stage, i) == (5, 1):
                    return found
            x = F.avg_pool2d(x, 2) if average else F.max_pool2d(x, 2)
        return found

    return features


def torch_loss(features: Any, content: Any, style: Any) -> Any:
    """The total loss of Gatys et al. 2016, eq. 7, as a function of the picture."""
    import torch

    def gram(x: Any) -> Any:
        flat = x.reshape(x.shape[1], -1)
        return flat @ flat.T

    with torch.no_grad():
        goals = {name: gram(x) for name, x in features(style).items() if name in STYLE}
        held = {name: x for name, x in features(content).items() if name in CONTENT}

    def loss(x: Any) -> Any:
        seen = features(x)
        total = torch.zeros((), dtype=x.dtype)
        for name, weight in STYLE.items():
            _, n, height, width = seen[name].shape
            difference = gram(seen[name]) - goals[name]
            total = total + weight * difference.square().sum() / (4 * n**2 * (height * width) ** 2)
        for name, weight in CONTENT.items():
            total = total + weight / 2 * (seen[name] - held[name]).square().sum()
        return total

    return loss


@jax.jit
def evaluate(model: rvis.Model, problem: core.Problem, image: jax.Array) -> Any:
    """(total loss, its gradient) of one image, as the step computes them."""

    def cost(image: jax.Array) -> jax.Array:
        return -core.energy(image[None], jax.random.key(0), model, problem)[0]

    return jax.value_and_grad(cost)(image)


def seconds(call: Any, repeats: int) -> float:
    """The median time of a call, after one that warms up."""
    call()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def main(arguments: list[str] | None = None) -> int:
    """Compares and times; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--side", type=int, default=256)
    p.add_argument("--repeats", type=int, default=5)
    a = p.parse_args(arguments)
    if importlib.util.find_spec("torch") is None:
        print(f"{p.prog}: torch was expected; install rvis[bench]", file=sys.stderr)
        return 3
    import torch

    model = rvis.load("vgg16", weights="random", key=0)
    rng = np.random.default_rng(0)
    wrong = False
    print("| pooling | pixels | loss | gradient | rvis | PyTorch | ratio |")
    print("|---|---|---|---|---|---|---|")
    for pooling in ("max", "average"):
        network = pooled(model, pooling)
        for side in (64, a.side):
            pictures = rng.uniform(size=(3, side, side, 3)).astype(np.float32)
            picture, content, style = map(jnp.asarray, pictures)
            goal = textures(network, [style], [1.0], terms("style", STYLE, (), model))
            goal = goal + contents(network, content, terms("content", CONTENT, (), model))
            problem, bare = core.Problem(goal), network.unnamed()

            def torch_step(
                dtype: Any, pictures: np.ndarray = pictures, pooling: str = pooling
            ) -> Any:
                """A function that gives loss and gradient."""
                x, *others = (
                    torch.tensor(one.transpose(2, 0, 1)[None].copy(), dtype=dtype).contiguous(
                        memory_format=torch.channels_last
                    )
                    for one in pictures
                )
                loss = torch_loss(torch_features(model, pooling == "average", dtype), *others)
                x.requires_grad_()

                def step() -> tuple[float, np.ndarray]:
                    value = loss(x)
                    (gradient,) = torch.autograd.grad(value, x)
                    return value.item(), gradient[0].permute(1, 2, 0).numpy()

                return step

            def our_step(
                bare: Any = bare, problem: Any = problem, picture: Any = picture
            ) -> tuple[Any, Any]:
                return jax.block_until_ready(evaluate(bare, problem, picture))

            value, wanted = torch_step(torch.float64)()
            with jax.enable_x64(True):
                double = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), bare)
                loss, gradient = our_step(double, picture=jnp.asarray(picture, jnp.float64))
            off = abs(float(loss) / value - 1)
            turned = float(np.linalg.norm(gradient - wanted) / np.linalg.norm(wanted))
            wrong |= not (off <= 1e-4 and turned <= 1e-4)
            own, other = seconds(our_step, a.repeats), seconds(torch_step(torch.float32), a.repeats)
            print(
                f"| {pooling} | {side} | {off:.1e} | {turned:.1e} "
                f"| {own:.3f} s | {other:.3f} s | {own / other:.2f} |",
                flush=True,
            )
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
