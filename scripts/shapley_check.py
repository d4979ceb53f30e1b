"""Shapley sampling beside captum's: the same values to the same standard error, in what time?

Command:  python scripts/shapley_check.py DATA [--model cifar10_resnet] [--permutations 25]
          [--rounds 5] (with the `bench` extra; `taskset -c 0` for one core)
Time:     about 5 minutes on one core.
Prints:   a table. captum's ShapleyValueSampling draws `--permutations` of the 8×8 patches of one
          CIFAR-10 image, on a PyTorch twin with our own parameters, at several sizes of its batch;
          rvis draws permutations until its standard error is no larger. The calls take turns, so
          that a drift of the machine meets all of them; medians. Below it the largest difference of
          the two libraries' values in joint standard errors, and how often rvis's 95 % intervals
          hold the values of a game in which each of 64 players seldom matters.
DATA is what `rvis.data.load` reads. Exit status 1 where the twins or the values disagree.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from captum.attr import ShapleyValueSampling
from torch.nn import functional

import rvis
from rvis.__main__ import reported
from rvis.attribution import shapley_sampling

SIDE = 4


class Twin(torch.nn.Module):
    """The CIFAR residual network in PyTorch, with the parameters of ours."""

    def __init__(self, model: rvis.Model) -> None:
        super().__init__()
        self.variables = model.params
        self.mean, self.std = (
            torch.tensor(np.asarray(numbers, np.float32)).reshape(1, 3, 1, 1)
            for numbers in (model.apply.mean, model.apply.std)  # type: ignore[attr-defined]
        )
        self.weights: dict[str, torch.Tensor] = {}
        self._take(model.params["params"], "")
        self._take(model.params["batch_stats"], "")

    def _take(self, tree: Mapping[str, Any], prefix: str) -> None:
        for name, value in tree.items():
            if isinstance(value, Mapping):
                self._take(value, f"{prefix}{name}/")
                continue
            array = np.asarray(value)
            if array.ndim == 4:
                array = array.transpose(3, 2, 0, 1)
            self.weights[prefix + name] = torch.tensor(np.ascontiguousarray(array))

    def _conv(self, x: torch.Tensor, name: str, stride: int = 1) -> torch.Tensor:
        kernel = self.weights[f"{name}/kernel"]
        return functional.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        mean, var, scale, bias = (
            self.weights[f"{name}/{part}"] for part in ("mean", "var", "scale", "bias")
        )
        return functional.batch_norm(x, mean, var, scale, bias, eps=1e-5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (n, 10) of images (n, 3, 32, 32) in [0, 1]."""
        x = (x - self.mean) / self.std
        x = torch.relu(self._norm(self._conv(x, "conv1"), "bn1"))
        for stage in range(1, 5):
            name, stride = f"layer{stage}.0", 1 if stage == 1 else 2
            y = torch.relu(self._norm(self._conv(x, f"{name}/conv1", stride), f"{name}/bn1"))
            y = self._norm(self._conv(y, f"{name}/conv2"), f"{name}/bn2")
            if f"{name}/downsample.0/kernel" in self.weights:
                x = self._conv(x, f"{name}/downsample.0", stride)
                x = self._norm(x, f"{name}/downsample.1")
            x = torch.relu(x + y)
        return x.mean((2, 3)) @ self.weights["fc/kernel"] + self.weights["fc/bias"]


def patches(attribution: torch.Tensor) -> np.ndarray:
    """One value a patch, of captum's map (1, 3, H, W)."""
    return attribution[0, 0, ::SIDE, ::SIDE].reshape(-1).double().numpy()


def rms(errors: np.ndarray) -> float:
    """Root mean square over the players."""
    return float(np.sqrt(np.square(errors).mean()))


@reported()
def main(arguments: list[str] | None = None) -> int:
    """Measures and prints; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("data", type=Path)
    p.add_argument("--model", default="cifar10_resnet")
    p.add_argument("--image", type=int, default=3, help="its number in the test set")
    p.add_argument("--permutations", type=int, default=25, help="of captum; 25 is its default")
    p.add_argument("--batches", type=int, nargs="+", default=[1, 8, 16, 32, 64])
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument(
        "--single", type=int, default=100, help="permutations that captum's error is taken from"
    )
    a = p.parse_args(arguments)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch.set_num_threads(cores or 1)
    model = rvis.load(a.model)
    test = rvis.data.load(a.data, "test")
    image, label = test.floats([a.image])[0], int(test.labels[a.image])
    twin = Twin(model).eval()
    theirs = torch.tensor(image.transpose(2, 0, 1)[None])
    with torch.no_grad():
        apart = float(np.abs(twin(theirs).numpy() - np.asarray(model(image))).max())
    print(f"{a.model}, image {a.image}, {cores} core(s); logits of the twins differ by {apart:.1e}")
    good = apart < 1e-3
    side = image.shape[0] // SIDE
    mask = torch.arange(side * side).reshape(1, 1, side, side)
    mask = mask.repeat_interleave(SIDE, 2).repeat_interleave(SIDE, 3)
    absent = torch.tensor(image.mean((0, 1))).reshape(1, 3, 1, 1).expand(1, 3, *image.shape[:2])
    captum = ShapleyValueSampling(twin)

    def captums(drawn: int, batch: int) -> np.ndarray:
        return patches(
            captum.attribute(
                theirs,
                baselines=absent,
                target=label,
                feature_mask=mask,
                n_samples=drawn,
                perturbations_per_eval=batch,
            )
        )

    def ours(drawn: int, key: int = 0) -> Any:
        return shapley_sampling(
            model,
            image,
            label,
            players=SIDE,
            permutations=drawn,
            baseline="mean",
            key=key,
            progress=False,
        )

    torch.manual_seed(0)
    single = np.stack([captums(1, 32) for _ in range(a.single)])
    theirs_error = single.std(0, ddof=1) / np.sqrt(a.single)
    wanted = rms(theirs_error) * np.sqrt(a.single / a.permutations)
    pilot = ours(a.single)
    needed = 2 * int(np.ceil(pilot.permutations / 2 * (rms(pilot.errors) / wanted) ** 2))
    reached = rms(pilot.errors) * np.sqrt(pilot.permutations / needed)
    z = (pilot.values - single.mean(0)) / np.hypot(pilot.errors, theirs_error)
    rows: dict[str, Callable[[], Any]] = {
        f"captum, perturbations_per_eval={batch}": partial(captums, a.permutations, batch)
        for batch in a.batches
    }
    rows["rvis"] = partial(ours, needed)
    times: dict[str, list[float]] = {name: [] for name in rows}
    for turn in range(a.rounds + 1):
        for name, call in rows.items():
            started = time.perf_counter()
            call()
            if turn:
                times[name].append(time.perf_counter() - started)
    base = float(np.median(times["rvis"]))
    print(f"| | permutations | standard error | seconds | times rvis |\n|{'---|' * 5}")
    for name, taken in times.items():
        median = float(np.median(taken))
        own = name == "rvis"
        drawn, error = (needed, reached) if own else (a.permutations, wanted)
        print(f"| {name} | {drawn} | {error:.4f} | {median:.2f} | {median / base:.1f} |")
    print(
        f"values differ by at most {np.abs(z).max():.1f} joint standard errors (rms {rms(z):.2f})"
    )
    held = coverage(a.rounds)
    print(
        f"95 % intervals hold {held:.1%} of the values of a game where each player seldom matters"
    )
    good &= bool(np.abs(z).max() < 5) and held >= 0.9
    return int(not good)


def coverage(rounds: int) -> float:
    """How often intervals at a tolerance of .1 and after 128 permutations hold 1/64."""

    def any_(present: jax.Array) -> jax.Array:
        return present.any(-1).astype(jnp.float32)

    inside = []
    for key in range(10 * rounds):
        for stop in ({"tolerance": 0.1}, {"permutations": 128}):
            low, high = shapley_sampling(
                any_, players=64, key=key, progress=False, **stop
            ).intervals()
            inside.append((low <= 1 / 64) & (high >= 1 / 64))
    return float(np.mean(inside))


if __name__ == "__main__":
    rvis.keep_programs()
    sys.exit(main())
