"""Is rvis's style loss that of the papers, how far does it fall, what does it cost?

Command:  python scripts/style_check.py {torch,descent,memory} [--side PIXELS] [--tile PIXELS]
Time:     torch two minutes (it needs the `bench` extra), descent five, memory two.
Prints:   torch: the relative differences of loss and gradient for maxima and averages, both sides
          in float64 (in float32 a unit within rounding of zero may fall to either side of its
          ReLU), and the median seconds of an evaluation (loss and gradient) in float32, rvis beside
          PyTorch with channels last. Exit status 1 where a difference exceeds 1e-4, 3 where a
          package is missing.
          descent: by how much 500 evaluations lower the Gram loss of noise on both CIFAR networks,
          for a texture and for a transfer, and whether the total ever rose. Exit status 1
          where a texture's fall is below 99 % or a total rose.
          memory: the most memory that a transfer of --size (1024 768) takes on VGG-16, whole or in
          windows of --tile. Exit status 1 above 6 GB.
The network of `torch` and `memory` is VGG-16 with random weights. The PyTorch side is written from
the formulas of Gatys et al. 2015 and 2016, with sums for Gram matrices, and shares nothing but the
weights. The pictures of `descent` are those that `scripts/style.py` draws.
"""

from __future__ import annotations

import argparse
import importlib.util
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import rvis
from rvis.ascent import Problem, energy
from rvis.style.climb import StyleResult
from rvis.style.layers import contents, pooled, terms, textures

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where run as a file
from scripts.style import brushwork, landscape

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
def evaluate(model: rvis.Model, problem: Problem, image: jax.Array) -> Any:
    """(total loss, its gradient) of one image, as the step computes them."""

    def cost(image: jax.Array) -> jax.Array:
        return -energy(image[None], jax.random.key(0), model, problem)[0]

    return jax.value_and_grad(cost)(image)


def seconds(calls: Sequence[Callable[[], Any]], repeats: int) -> np.ndarray:
    """(repeats, calls) times, taken in turn after one round that warms up."""
    times = np.zeros((repeats + 1, len(calls)))
    for row in times:
        for i, call in enumerate(calls):
            started = time.perf_counter()
            call()
            row[i] = time.perf_counter() - started
    return times[1:]


def compare(largest: int, repeats: int) -> int:
    """The table of differences and times; 1 where a difference is too large."""
    import torch

    model = rvis.load("vgg16", weights="random", key=0)
    rng = np.random.default_rng(0)
    wrong = False
    print("| pooling | pixels | loss | gradient | rvis | PyTorch | ratio |")
    print("|---|---|---|---|---|---|---|")
    for pooling in ("max", "average"):
        network = pooled(model, pooling)
        for side in (64, largest):
            pictures = rng.uniform(size=(3, side, side, 3)).astype(np.float32)
            picture, content, style = map(jnp.asarray, pictures)
            goal = textures(network, [style], [1.0], terms("style", STYLE, (), model))
            goal = goal + contents(network, content, terms("content", CONTENT, (), model))[0]
            problem, bare = Problem(goal), network.unnamed()

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
            turned = float(np.linalg.norm(np.asarray(gradient) - wanted) / np.linalg.norm(wanted))
            wrong |= not (off <= 1e-4 and turned <= 1e-4)
            times = seconds((our_step, torch_step(torch.float32)), repeats)
            own, other = np.median(times, 0)
            ratio = np.median(times[:, 0] / times[:, 1])
            print(
                f"| {pooling} | {side} | {off:.1e} | {turned:.1e} "
                f"| {own:.3f} s | {other:.3f} s | {ratio:.2f} |",
                flush=True,
            )
    return int(wrong)


def descent(side: int) -> int:
    """The table of falls; 1 where one is too small or a total rose."""
    wrong = False
    print("| network | task | Gram loss of noise | after 500 | fall | total rose |")
    print("|---|---|---|---|---|---|")
    for name in ("cifar10_resnet", "cifar10_resnet_robust"):
        model = rvis.load(name)
        content, picture = landscape(side, 3), brushwork(side, 3)
        texture = rvis.style.texture(model, picture, histogram=False, progress=False)
        # The same layers, pooling and start, without content: what the transfer's Gram loss was.
        blank = rvis.style.transfer(
            model, content, picture, ratio=0, start="noise", steps=1, progress=False
        )
        mixed = rvis.style.transfer(
            model, content, picture, ratio=0.03, start="noise", progress=False
        )
        rows: list[tuple[str, float, StyleResult]] = [
            ("texture", -float(texture.scores[0]), texture),
            ("transfer, ratio .03", -float(blank.scores[0]), mixed),
        ]
        for task, before, result in rows:
            after = float(result.style_loss)
            rose = bool((np.diff(result.scores) < 0).any())
            fall = 1 - after / before
            wrong |= rose or (result is texture and fall < 0.99)
            print(
                f"| {name} | {task} | {before:.3g} | {after:.3g} | {fall:.2%} "
                f"| {'yes' if rose else 'no'} |",
                flush=True,
            )
    return int(wrong)


def memory(size: Sequence[int], tile: int | None) -> int:
    """The peak of this process over a transfer; 1 where that is above 6 GB."""
    width, height = size
    model = rvis.load("vgg16", weights="random", key=0)
    content, style = np.random.default_rng(0).uniform(size=(2, height, width, 3)).astype(np.float32)
    started = time.perf_counter()
    rvis.style.transfer(model, content, style, tile=tile, steps=2, progress=False)
    spent = time.perf_counter() - started
    # Linux counts in KiB.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    seen = "whole" if tile is None else f"in windows of {tile}"
    print(
        f"{width}×{height} {seen}, VGG-16, 2 evaluations and compilation: {peak:.2f} GB, "
        f"{spent:.0f} s"
    )
    return int(peak > 6)


def main(arguments: list[str] | None = None) -> int:
    """Compares, times and weighs; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("what", choices=("torch", "descent", "memory"))
    p.add_argument("--side", type=int, help="256 for torch, 96 for descent, by default")
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--size", type=int, nargs=2, default=[1024, 768], metavar=("WIDTH", "HEIGHT"))
    p.add_argument("--tile", type=int, help="side of the windows of memory; none by default")
    a = p.parse_args(arguments)
    if a.what == "memory":
        return memory(a.size, a.tile)
    if a.what == "descent":
        return descent(a.side or 96)
    if importlib.util.find_spec("torch") is None:
        print(f"{p.prog}: torch was expected; install rvis[bench]", file=sys.stderr)
        return 3
    return compare(a.side or 256, a.repeats)


if __name__ == "__main__":
    rvis.keep_programs()
    sys.exit(main())
