"""AutoAttack beside torchattacks' on the same weights and images, and minima beside foolbox's.

Command:  python -m scripts.bench.autoattack DATA [DATA …] [--robust FILE] [--images 200]
Time:     an hour on two idle cores. Needs the `bench` extra and torchattacks.
Prints:   for each network a row for each attack: the accuracy after it, theirs and ours, and the
          seconds of both; then the medians of DDN, FMN and HopSkipJump on 100 digits beside
          foolbox's. `--out` holds the same as JSON, with the machine's load at the start and end.
DATA is what `rvis.data.load` reads; FILE the weights of RobustBench's ResNet-4b.
torchattacks' AutoAttack gives its FAB 10 steps and its APGD 10; here both have the official 100,
FAB-T its nine targets and Square the official schedule.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import rvis
from rvis import attacks, files
from rvis.models.weights import convert
from scripts.captum_check import twin

SETTINGS = {
    "mnist_cnn_robust": ("linf", 0.3),
    "cifar10_resnet_robust": ("l2", 0.5),
    "cifar10_resnet4b_adv": ("linf", 2 / 255),
}
NAMES = {"linf": "Linf", "l2": "L2"}


def theirs(network: Any, norm: str, eps: float) -> dict[str, Any]:
    """torchattacks' attacks with the official parameters, in the official order."""
    import torchattacks

    shared = {"norm": NAMES[norm], "eps": eps, "seed": 0}
    return {
        "apgd-ce": torchattacks.APGD(network, steps=100, n_restarts=1, loss="ce", **shared),
        "apgd-t": torchattacks.APGDT(network, steps=100, n_restarts=1, rho=0.75, **shared),
        "fab-t": torchattacks.FAB(network, steps=100, n_restarts=1, multi_targeted=True, **shared),
        "square": torchattacks.Square(
            network, n_queries=5000, n_restarts=1, resc_schedule=False, **shared
        ),
    }


def plain(model: rvis.Model) -> Any:
    """`cifar10_resnet4b_adv` in torch, which `twin` does not know."""
    import torch
    from torch.nn import functional

    apply: Any = model.apply
    state = {
        name: torch.tensor(np.asarray(value))
        for name, value in convert.from_variables(model.params).items()
    }
    mean, std = (torch.tensor(v).reshape(1, -1, 1, 1) for v in (apply.mean, apply.std))

    class Plain(torch.nn.Module):
        def convolved(self, x: Any, name: str, stride: int = 1, padding: int = 1) -> Any:
            weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
            return functional.conv2d(x, weight, bias, stride, padding)

        def forward(self, x: Any) -> Any:
            x = functional.relu(self.convolved((x - mean) / std, "conv1", 2))
            for name in ("layer1.0", "layer1.1", "layer2.0", "layer2.1"):
                stride = 2 if name.endswith("0") else 1
                y = functional.relu(self.convolved(x, f"{name}.conv1", stride))
                y = self.convolved(y, f"{name}.conv2")
                if stride == 2:
                    x = self.convolved(x, f"{name}.shortcut.0", 2, 0)
                x = functional.relu(x + y)
            x = functional.linear(x.flatten(1), state["linear1.weight"], state["linear1.bias"])
            x = functional.relu(x)
            return functional.linear(x, state["linear2.weight"], state["linear2.bias"])

    return Plain().eval()


def tensors(images: np.ndarray, labels: np.ndarray) -> tuple[Any, Any]:
    """The same in torch's order of axes."""
    import torch

    return torch.tensor(images.transpose(0, 3, 1, 2).copy()), torch.tensor(labels).long()


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What the work gives, and the seconds that it took."""
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def after_each(
    network: Any, images: np.ndarray, labels: np.ndarray, norm: str, eps: float, batch: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Accuracy after each of their attacks, which see what holds, and its seconds."""
    import torch

    x, y = tensors(images, labels)

    def right(x: Any, y: Any) -> Any:
        return torch.cat([network(part).argmax(1) for part in x.split(batch)]) == y

    held = right(x, y)
    accuracies, seconds = {"clean": float(held.float().mean())}, {}
    for name, attack in theirs(network, norm, eps).items():
        rows = held.nonzero()[:, 0]

        def work(attack: Any = attack, rows: Any = rows) -> Any:
            parts = [attack(x[some], y[some]) for some in rows.split(batch)]
            return torch.cat(parts) if parts else x[:0]

        moved, seconds[name] = timed(work)
        held[rows] = right(moved, y[rows])
        accuracies[name] = float(held.float().mean())
        print(f"  theirs {name}: {accuracies[name]:.3f}, {seconds[name]:.1f} s", flush=True)
    return accuracies, seconds


def minima(model: rvis.Model, images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Median distances beside foolbox's, of images that the model gets right."""
    import foolbox

    x, y = tensors(images, labels)
    network = foolbox.PyTorchModel(twin(model), bounds=(0, 1), device="cpu")
    right = np.asarray(model(images)).argmax(1) == labels
    quiet: dict[str, Any] = {"progress": False}
    pairs = {
        "ddn l2": (
            foolbox.attacks.DDNAttack(),
            lambda: attacks.ddn(model, images, labels, **quiet),
        ),
        "fmn l2": (
            foolbox.attacks.L2FMNAttack(),
            lambda: attacks.fmn(model, images, labels, **quiet),
        ),
        "fmn linf": (
            foolbox.attacks.LInfFMNAttack(max_stepsize=10.0),
            lambda: attacks.fmn(model, images, labels, norm="linf", step_size=10.0, **quiet),
        ),
        "fmn l1": (
            foolbox.attacks.L1FMNAttack(),
            lambda: attacks.fmn(model, images, labels, norm="l1", **quiet),
        ),
    }
    rows = {}
    for name, (other, own) in pairs.items():
        result, spent = timed(own)
        (_, moved, fooled), seconds = timed(partial(other, network, x, y, epsilons=None))
        moved = moved.numpy().transpose(0, 2, 3, 1)
        distance = attacks.distances(images, moved, result.norm)
        medians = [
            float(np.median(np.where(ok, d, np.inf)[right]))
            for ok, d in ((fooled.numpy(), distance), (result.success, result.distances))
        ]
        rows[name] = {"foolbox": medians[0], "rvis": medians[1], "seconds": [seconds, spent]}
        print(f"{name}: foolbox {medians[0]:.4f}, rvis {medians[1]:.4f}", flush=True)
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Compares, writes and prints; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("data", type=Path, nargs="+")
    p.add_argument("--robust", type=Path, help="weights of cifar10_resnet4b_adv")
    p.add_argument("--models", nargs="+", default=list(SETTINGS), choices=SETTINGS)
    p.add_argument("--images", type=int, default=200, help="test images, evenly spread")
    p.add_argument("--batch", type=int, default=100, help="of torchattacks")
    p.add_argument(
        "--minima", type=int, default=100, help="digits for minimal distances; 0 for none"
    )
    p.add_argument("--threads", type=int, help="of torch; as many as it takes by default")
    p.add_argument("--out", type=Path, default=Path("scripts", "results", "autoattack.json"))
    a = p.parse_args(arguments)
    import torch

    torch.set_num_threads(a.threads or torch.get_num_threads())
    report: dict[str, Any] = {
        "images": a.images,
        "load": [os.getloadavg()],
        "threads": torch.get_num_threads(),
    }
    report["networks"] = {}
    sets = [rvis.data.load(path, "test") for path in a.data]
    for name in a.models:
        if name == "cifar10_resnet4b_adv" and a.robust is None:
            print(f"{name}: left out without --robust", file=sys.stderr)
            continue
        ours = name in rvis.list_models() and name != "cifar10_resnet4b_adv"
        model = rvis.load(name) if ours else rvis.load(name, weights=a.robust)
        network = twin(model) if ours else plain(model)
        norm, eps = SETTINGS[name]
        for data in sets:
            if data.images.shape[1:] != model.input_shape:
                continue
            chosen = np.linspace(0, len(data) - 1, a.images).astype(int)
            images, labels = np.asarray(data.floats(chosen)), data.labels[chosen]
            print(f"{name}, {norm}, eps {eps:.4g}", flush=True)
            found, spent = timed(
                partial(
                    attacks.autoattack, model, images, labels, norm=norm, eps=eps, progress=False
                )
            )
            print(found.table(), f"\n  ours {spent:.1f} s", flush=True)
            others, seconds = after_each(network, images, labels, norm, eps, a.batch)
            report["networks"][name] = {
                "norm": norm,
                "eps": eps,
                "rvis": found.accuracies,
                "torchattacks": others,
                "rvis_seconds": spent,
                "torchattacks_seconds": {**seconds, "whole": sum(seconds.values())},
            }
            files.write_json(a.out, report)
    digits = [data for data in sets if data.images.shape[1:] == (28, 28, 1)]
    if a.minima and digits:
        chosen = np.linspace(0, len(digits[0]) - 1, a.minima).astype(int)
        images, labels = np.asarray(digits[0].floats(chosen)), digits[0].labels[chosen]
        report["minima"] = minima(rvis.load("mnist_cnn"), images, labels)
    report["load"].append(os.getloadavg())
    files.write_json(a.out, report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
