"""AutoAttack beside torchattacks' on the same weights and images, and minima beside foolbox's.

Command:  python -m scripts.bench.autoattack DATA [DATA …] [--robust FILE] [--images 200] [--times]
          python -m scripts.bench.autoattack DATA --minima 100
Time:     two hours on two idle cores. Needs the `bench` extra and torchattacks.
Prints:   for each network the accuracy after each attack, theirs and ours, and the seconds of both;
          with --minima instead the medians of FAB, FMN, DDN and HopSkipJump on so many digits,
          beside torchattacks' FAB and foolbox's others. `--out` holds the same as JSON; what it
          has is not measured again, so that the same command goes on.
DATA is what `rvis.data.load` reads; FILE the weights of RobustBench's ResNet-4b.
torchattacks' AutoAttack gives its FAB 10 steps and its APGD 10; here both have the official 100,
FAB-T its nine targets and Square the official schedule. Our time holds compilation, or what JAX's
cache leaves of it. --times says that the machine did nothing else.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
import unittest.mock
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import rvis
from rvis import attacks, files
from rvis.models.weights import convert
from scripts.bench.twins import twin

room = importlib.import_module("rvis.attacks.autoattack")  # not the function of this name
SETTINGS = {
    "mnist_cnn_robust": ("linf", 0.3),
    "cifar10_resnet_robust": ("l2", 0.5),
    "cifar10_resnet4b_adv": ("linf", 2 / 255),
}
ORDER = ("clean", "apgd-ce", "apgd-t", "fab-t", "square")
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
    network: Any, images: np.ndarray, labels: np.ndarray, norm: str, eps: float
) -> tuple[dict[str, int], dict[str, float]]:
    """How many hold after each of their attacks, which see what holds, and its seconds."""
    x, y = tensors(images, labels)
    held = network(x).argmax(1) == y
    counts, seconds = {"clean": int(held.sum())}, {}
    for name, attack in theirs(network, norm, eps).items():
        rows = held.nonzero()[:, 0]
        seconds[name] = 0.0
        if len(rows):
            moved, seconds[name] = timed(partial(attack, x[rows], y[rows]))
            held[rows] = network(moved).argmax(1) == y[rows]
        counts[name] = int(held.sum())
        print(f"  torchattacks {name}: {counts[name]} hold, {seconds[name]:.1f} s", flush=True)
    return counts, seconds


def compare(
    name: str, model: rvis.Model, network: Any, images: np.ndarray, labels: np.ndarray
) -> dict[str, Any]:
    """How many images hold after each attack, and its seconds, ours and theirs."""
    norm, eps = SETTINGS[name]
    seconds: dict[str, float] = dict.fromkeys(ORDER[1:], 0.0)
    official = room.run_plan

    def watched(*arguments: Any, label: str, **options: Any) -> Any:
        found, seconds[label] = timed(partial(official, *arguments, label=label, **options))
        fooled = int(found.success.sum())
        print(f"  rvis {label}: {fooled} fooled, {seconds[label]:.1f} s", flush=True)
        return found

    ours = partial(attacks.autoattack, model, norm=norm, eps=eps, progress=False)
    with unittest.mock.patch.object(room, "run_plan", watched):
        found, whole = timed(partial(ours, images, labels))
    held = {each: round(share * len(images)) for each, share in found.accuracies.items()}
    counts, spent = after_each(network, images, labels, norm, eps)
    return {
        "images": len(images),
        "rvis": held,
        "torchattacks": counts,
        "rvis_seconds": {**seconds, "whole": whole},
        "torchattacks_seconds": {**spent, "whole": sum(spent.values())},
    }


def following(first: int, count: int, batch: int) -> np.ndarray:
    """The numbers of the batch after the first images, so that any number of batches is fair.

    Example:
      >>> from scripts.bench.autoattack import following
      >>> [following(first, 10, 4).tolist() for first in (0, 4, 8)]
      [[0, 3, 6, 9], [1, 4, 7, 2], [5, 8]]
    """
    steps = -(-count // batch)
    return np.concatenate([np.arange(i, count, steps) for i in range(steps)])[first : first + batch]


def added(one: Any, other: Any) -> Any:
    """The sums of two trees of numbers."""
    if isinstance(one, dict):
        return {key: added(one[key], other[key]) for key in one}
    return one + other


def medians(
    images: np.ndarray, right: np.ndarray, norm: str, moved: Any, fooled: Any, own: Any
) -> list[float]:
    """Theirs and ours, of the images that the model gets right; inf for what was not fooled."""
    moved = moved.numpy().transpose(0, 2, 3, 1)
    distances = attacks.distances(images, moved, norm), attacks.distances(images, own.images, norm)
    pairs = zip((np.asarray(fooled), own.success), distances, strict=True)
    return [float(np.median(np.where(ok, d, np.inf)[right])) for ok, d in pairs]


def minima(
    model: rvis.Model, images: np.ndarray, labels: np.ndarray, rows: dict[str, Any]
) -> Iterator[None]:
    """Median distances beside foolbox's and torchattacks'; adds what is not in the rows."""
    import foolbox
    import torchattacks

    x, y = tensors(images, labels)
    network = twin(model)
    boxed = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
    right = np.asarray(model(images)).argmax(1) == labels
    quiet: dict[str, Any] = {"progress": False}

    def theirs(attack: Any) -> tuple[Any, Any]:
        _, moved, fooled = attack(boxed, x, y, epsilons=None)
        return moved, fooled.numpy()

    def torchfab(norm: str) -> tuple[Any, Any]:
        moved = torchattacks.FAB(network, norm=NAMES[norm], eps=1e3, steps=100)(x, y)
        return moved, network(moved).argmax(1).numpy() != labels

    fmn, arrays = foolbox.attacks.fast_minimum_norm, (model, images, labels)
    pairs: dict[str, tuple[Callable[[], Any], Callable[..., Any]]] = {
        "ddn l2": (partial(theirs, foolbox.attacks.DDNAttack()), attacks.ddn),
        "fmn l2": (partial(theirs, fmn.L2FMNAttack()), attacks.fmn),
        "fmn linf": (
            partial(theirs, fmn.LInfFMNAttack(max_stepsize=10.0)),
            partial(attacks.fmn, norm="linf", step_size=10.0),
        ),
        "fmn l1": (partial(theirs, fmn.L1FMNAttack()), partial(attacks.fmn, norm="l1")),
        "fab l2": (partial(torchfab, "l2"), partial(attacks.fab, norm="l2")),
        "fab linf": (partial(torchfab, "linf"), partial(attacks.fab, norm="linf")),
    }
    for name, (other, own) in pairs.items():
        if name in rows:
            continue
        result, spent = timed(partial(own, *arrays, **quiet))
        (moved, fooled), seconds = timed(other)
        found = medians(images, right, result.norm, moved, fooled, result)
        rows[name] = {"peer": found[0], "rvis": found[1], "seconds": [seconds, spent]}
        print(f"{name}: peer {found[0]:.4f}, rvis {found[1]:.4f}", flush=True)
        yield
    for norm in ("l2", "linf"):
        if f"hop_skip_jump {norm}" not in rows:
            rows[f"hop_skip_jump {norm}"] = jumps(boxed, *arrays, right, norm)
            yield


def jumps(
    network: Any,
    model: rvis.Model,
    images: np.ndarray,
    labels: np.ndarray,
    right: np.ndarray,
    norm: str,
    rounds: int = 8,
) -> dict[str, Any]:
    """HopSkipJump beside foolbox's from the same images, with no more queries than any of its."""
    import foolbox
    import torch

    x, y = tensors(images, labels)
    taken = np.asarray(model(images)).argmax(1)
    other = np.asarray([int(np.flatnonzero(taken != label)[0]) for label in labels])
    queries: list[int] = []
    asked = network._model

    def counted(some: Any) -> Any:
        queries[-1] += len(some)
        return asked(some)

    network._model = counted
    attack = foolbox.attacks.HopSkipJumpAttack(steps=rounds, constraint=norm)
    parts = []
    for i, start in enumerate(other):
        queries.append(0)
        if right[i]:
            begun = x[start : start + 1]
            parts.append(attack.run(network, x[i : i + 1], y[i : i + 1], starting_points=begun))
        else:
            parts.append(x[i : i + 1])
    network._model = asked
    moved = torch.cat(parts)
    fooled = network(moved).argmax(1).numpy() != labels
    steps = int(min(q for q, ok in zip(queries, right, strict=True) if ok))
    own = attacks.hop_skip_jump(
        model, images, labels, norm=norm, start=images[other], steps=steps, progress=False
    )
    found = medians(images, right, norm, moved, fooled, own)
    asked_for = int(np.median(np.asarray(queries)[right]))
    print(f"hop_skip_jump {norm}: foolbox {found[0]:.4f} with {asked_for} queries, ", end="")
    print(f"rvis {found[1]:.4f} with {steps}", flush=True)
    return {"peer": found[0], "rvis": found[1], "queries": [asked_for, steps]}


def main(arguments: list[str] | None = None) -> int:
    """Compares, writes and prints; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("data", type=Path, nargs="+")
    p.add_argument("--robust", type=Path, help="weights of cifar10_resnet4b_adv")
    p.add_argument("--models", nargs="+", default=list(SETTINGS), choices=SETTINGS)
    p.add_argument("--images", type=int, default=200, help="test images, evenly spread")
    p.add_argument("--batch", type=int, default=25, help="images at once")
    p.add_argument("--batches", type=int, default=10**6, help="at most so many in this call")
    p.add_argument("--minima", type=int, help="compare minimal distances of so many digits")
    p.add_argument("--times", action="store_true", help="the machine does nothing else")
    p.add_argument("--out", type=Path, default=Path("scripts", "results", "autoattack.json"))
    a = p.parse_args(arguments)
    import torch

    report = json.loads(a.out.read_text(encoding="utf-8")) if a.out.exists() else {}
    sets = [rvis.data.load(path, "test") for path in a.data]

    def some(shape: tuple[int, ...], count: int) -> tuple[np.ndarray, np.ndarray] | None:
        """So many test images of a shape, evenly spread, and their labels."""
        for data in sets:
            if data.images.shape[1:] == shape:
                chosen = np.linspace(0, len(data) - 1, count).astype(int)
                return np.asarray(data.floats(chosen)), data.labels[chosen]
        return None

    if a.minima:
        model = rvis.load("mnist_cnn")
        chosen = some(model.input_shape, a.minima)
        if chosen is None:
            print("DATA: images of 28 pixels were expected", file=sys.stderr)
            return 2
        for _ in minima(model, *chosen, report.setdefault("minima", {})):
            files.write_json(a.out, report)
        return 0
    for name in a.models:
        public = name == "cifar10_resnet4b_adv"
        if public and a.robust is None:
            print(f"{name}: left out without --robust", file=sys.stderr)
            continue
        model = rvis.load(name, weights=a.robust) if public else rvis.load(name)
        chosen = some(model.input_shape, a.images)
        if chosen is None:
            continue
        network = plain(model) if public else twin(model)
        rows = report.setdefault("times" if a.times else "accuracies", {})
        about = {"norm": SETTINGS[name][0], "eps": SETTINGS[name][1]}
        about |= {"cores": len(os.sched_getaffinity(0)), "threads": torch.get_num_threads()}
        for _ in range(a.batches):
            first = rows.get(name, {}).get("images", 0)
            if first >= a.images:
                break
            part = following(first, a.images, a.batch)
            row = compare(name, model, network, chosen[0][part], chosen[1][part])
            before = rows.get(name, {})
            row = added(row, {key: before[key] for key in row}) if before else row
            rows[name] = {**row, **about}
            files.write_json(a.out, report)
            print(name, json.dumps(rows[name]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
