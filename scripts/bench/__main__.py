"""The benchmarks from the command line; see `scripts/bench.py`."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import rvis
from rvis import engine, files, images, objectives, optimizers, projections, transforms
from rvis.__main__ import reported
from rvis.ascent import Ascent, Problem
from rvis.types import Array, Model
from scripts.bench import machine
from scripts.bench.rows import ROWS, Row

ABOUT = """How fast is rvis beside its peers, and how near to what the machine can do?

Command:  python scripts/bench.py [GROUP …] [--data CIFAR10] [--rounds 5] [--json FILE]
          python scripts/bench.py step-ratio
          python scripts/bench.py startup
Time:     a minute or two a row on two cores. The peers come with the `bench` extra; for lucent and
          torchattacks also
          `pip install --no-deps torch-lucent kornia==0.4.1 torchattacks` (torchvision, which they
          ask for, is not needed) and `pip install decorator ipython`.
Prints:   a table a group: the median milliseconds of each side with their quartiles, the ratio, the
          peak memory, the first call with all compilation, and the share of the machine's measured
          rates that rvis reaches. A peer that is not installed is left out, which is said.
          Exit status 1 where two sides that should agree do not, or a goal is missed.
          `step-ratio` is what a step inside the scan costs beside a bare gradient of the same
          batch; `startup` what importing takes, and the first picture cold and with the
          compilation cache.
GROUP is bare, step, sweep, dream, attacks, attribution or shapley; all of them by default. Each
side has a process of its own; they make their calls in turn, so that a drift of the machine meets
both, and keep the memory that they free unless GLIBC_TUNABLES says otherwise. Weights are the same
on both sides: seeded ones of the six architectures, shipped ones of the CIFAR networks. With
--data, an image folder or CIFAR's batches, attacks and attributions have test images; noise
otherwise.
"""


ROOT = Path(__file__).resolve().parents[2]
# What is freed stays with the process, as the documentation advises; glibc alone reads it.
KEEPS = "glibc.malloc.arena_max=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184"
PACKAGES = ("jax", "jaxlib", "flax", "torch", "torch-lucent", "captum", "foolbox", "torchattacks")


class Side:
    """A worker process that makes a call whenever it is told to."""

    def __init__(self, row: Row, name: str, data: Path | None) -> None:
        words = [sys.executable, "-m", "scripts.bench.worker", row.name, name]
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            words if data is None else [*words, str(data.resolve())],
            cwd=ROOT,
            # Threads of torch that wait for work by spinning would take it from the other side.
            env={
                "GLIBC_TUNABLES": KEEPS,
                **os.environ,
                "OMP_WAIT_POLICY": "PASSIVE",
                "KMP_BLOCKTIME": "0",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )
        self.first: float = self._told()["first"]

    def _told(self) -> dict[str, float]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        self.errors.seek(0)
        raise ChildProcessError(self.errors.read().strip().splitlines()[-1])

    def call(self) -> dict[str, float]:
        """{seconds, figure} of one more call."""
        assert self.process.stdin is not None
        print("again", file=self.process.stdin, flush=True)
        return self._told()

    def close(self) -> float:
        """The peak memory in bytes."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        peak = self._told()["memory"]
        self.process.wait()
        self.errors.close()
        return peak


def measure(row: Row, data: Path | None, rounds: int) -> dict[str, Any]:
    """{side: seconds, figure, first, memory, or why there are none}."""
    found: dict[str, Any] = {}
    sides: dict[str, Side] = {}
    for name in row.sides:
        try:
            sides[name] = Side(row, name, data)
        except ChildProcessError as error:
            if name == "rvis" or "ModuleNotFoundError" not in str(error):
                raise
            found[name] = {"absent": str(error)}
    calls: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            calls[name].append(side.call())
    for name, side in sides.items():
        found[name] = {
            "seconds": [told["seconds"] for told in calls[name]],
            "figure": calls[name][-1]["figure"],
            "first": side.first,
            "memory": side.close(),
        }
    return {name: found[name] for name in row.sides}


def line(row: Row, found: Mapping[str, Any], top: machine.Ceiling) -> tuple[list[str], list[str]]:
    """The table's lines of a row, and what is amiss."""
    own = np.array(found["rvis"]["seconds"])
    lines, amiss = [], []
    for i, (name, told) in enumerate(found.items()):
        if "absent" in told:
            lines.append(f"| {row.name} | {name} | not installed | | | | | |")
            continue
        low, middle, high = 1e3 * np.quantile(told["seconds"], [0.25, 0.5, 0.75]) / row.count
        ratio = float(np.median(own / np.array(told["seconds"])))
        reached = ""
        if name == "rvis" and row.cost is not None:
            reached = f"{top.seconds(row.cost()) / np.median(own):.0%}"
        lines.append(
            f"| {row.name} | {name} | {middle:.3g} [{low:.3g}, {high:.3g}] "
            f"| {'' if name == 'rvis' else f'{ratio:.2f}'} | {told['memory'] / 1e9:.2f} "
            f"| {told['first']:.1f} | {reached} | {row.unit} |"
        )
        if row.tolerance is not None and name != "rvis":
            apart = abs(found["rvis"]["figure"] / told["figure"] - 1)
            if apart > row.tolerance:
                amiss.append(f"{row.name}: the figures of rvis and {name} differ by {apart:.1e}")
        if row.goal is not None and i == 1 and ratio > row.goal:
            amiss.append(f"{row.name}: {ratio:.2f} of {name}'s time, not {row.goal:.2f}")
    return lines, amiss


def compare(groups: Sequence[str], data: Path | None, rounds: int, store: Path | None) -> int:
    """Prints the tables; 1 where something is amiss."""
    top = machine.ceiling()
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"{jax.devices()[0].device_kind}: products {top.flops / 1e9:.0f} GFLOP/s, "
        f"copies {top.bytes / 1e9:.1f} GB/s\n"
    )
    print("| row | side | ms a unit [quartiles] | rvis takes | GB | first, s | of floor | unit |")
    print("|---|---|---|---|---|---|---|---|")
    results, amiss = {}, []
    for row in ROWS:
        if row.group not in groups:
            continue
        results[row.name] = measure(row, data, rounds)
        lines, wrong = line(row, results[row.name], top)
        print("\n".join(lines), flush=True)
        amiss += wrong
    if store is not None:
        versions = {}
        for package in PACKAGES:
            try:
                versions[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                continue
        about = {
            "date": datetime.date.today().isoformat(),
            "python": platform.python_version(),
            "versions": versions,
            "device": jax.devices()[0].device_kind,
            "cores": os.cpu_count(),
            "ceiling": top._asdict(),
            "rows": results,
        }
        store.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(store, about)
    print("\n" + "\n".join(amiss or ["every goal is met"]))
    return int(bool(amiss))


_FIRST_PICTURE = (
    "import rvis; m = rvis.load('cifar10_resnet'); "
    "rvis.visualize(m, rvis.objectives.channel('layer3', 0), steps=64, progress=False)"
)


def startup(rounds: int) -> int:
    """Times of whole processes; 1 where a goal is missed."""
    with tempfile.TemporaryDirectory() as folder:
        rows: dict[str, tuple[str, str]] = {
            "import jax, flax, optax": ("import jax, flax, optax", ""),
            "import rvis": ("import rvis", ""),
            "first picture, cold": (_FIRST_PICTURE, ""),
            "first picture, with the cache": (_FIRST_PICTURE, str(Path(folder, "programs"))),
        }
        times: dict[str, list[float]] = {name: [] for name in rows}
        for turn in range(rounds + 1):
            for name, (code, cache) in rows.items():
                env = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
                # As for what is installed: no module is compiled anew at every start.
                env.pop("PYTHONDONTWRITEBYTECODE", None)
                env["PYTHONPYCACHEPREFIX"] = str(Path(folder, "bytecode"))
                if cache:
                    env |= {"JAX_COMPILATION_CACHE_DIR": cache}
                    env |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
                started = time.perf_counter()
                subprocess.run([sys.executable, "-c", code], check=True, env=env, cwd=ROOT)
                if turn:
                    times[name].append(time.perf_counter() - started)
    medians = {name: float(np.median(taken)) for name, taken in times.items()}
    print("| | seconds |\n|---|---|")
    for name, seconds in medians.items():
        print(f"| {name} | {seconds:.2f} |")
    bare, own, cold, warm = medians.values()
    print(f"\nimport rvis takes {own / bare:.2f} × the time of its packages")
    return int(own > 1.2 * bare or cold > 10 or warm > 3)


@jax.jit
def bare(model: Model, batch: Array, units: Array) -> Array:
    """The gradient of one channel's logit for each image, and nothing else."""

    def score(batch: Array) -> Array:
        logits = model.apply(model.params, batch)
        return jnp.take_along_axis(logits, units[:, None], 1).sum()

    return jax.grad(score)(batch)


def step_ratio(name: str, size: int, batch: int, rounds: int, steps: int = 8) -> int:
    """A step of the plain ascent, and of `visualize`'s, inside the scan, beside `bare`."""
    model = rvis.load(name, weights="random")
    shape = (size, size, model.input_shape[2])
    units = jnp.arange(batch)
    keys = jax.random.split(jax.random.key(0), batch)
    pictures = jax.random.uniform(jax.random.key(1), (batch, *shape))
    objective = objectives.logit(np.arange(batch))
    problems = {
        "plain step in the scan": (
            Ascent(images.Pixel(shape), optimizers.steepest(0.5)),
            Problem(objective, (), projections.Box()),
        ),
        "default step in the scan": (
            Ascent(
                images.Fourier(shape),
                optimizers.adam(),
                views=transforms.lucid(size),
                redirect_relu=16,
            ),
            Problem(objective),
        ),
    }
    run = jax.jit(partial(engine.traced, steps=steps))
    rows = {"bare forward and backward": lambda: bare(model, pictures, units)}
    for title, (ascent, problem) in problems.items():
        many = problem.broadcast(batch)

        def climb(ascent: Ascent = ascent, many: Problem = many) -> Array:
            return run(ascent, model, many, keys)

        rows[title] = climb
    times: dict[str, list[float]] = {title: [] for title in rows}
    for turn in range(rounds + 1):
        for title, call in rows.items():
            count = steps if title.startswith("bare") else 1
            started = time.perf_counter()
            for _ in range(count):
                jax.block_until_ready(call())
            if turn:
                times[title].append((time.perf_counter() - started) / steps)
    base = float(np.median(times["bare forward and backward"]))
    print(f"{name}, {size} px, batch {batch}, {jax.default_backend()}, jax {jax.__version__}")
    print("| | ms a step | ratio |")
    print("|---|---|---|")
    for title, taken in times.items():
        median = float(np.median(taken))
        print(f"| {title} | {1e3 * median:.0f} | {median / base:.2f} |")
    return 0


@reported()
def main(arguments: list[str] | None = None) -> int:
    """Measures and prints; the exit status."""
    groups = tuple(dict.fromkeys(row.group for row in ROWS))
    p = argparse.ArgumentParser(description=ABOUT, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("what", nargs="*", metavar="GROUP", default=list(groups))
    p.add_argument("--data", type=Path, help="CIFAR-10, for attacks and attributions")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--json", type=Path, help="where to keep all that was measured")
    p.add_argument("--model", default="resnet18", help="of step-ratio; its weights are random")
    p.add_argument("--size", type=int, default=64, help="of step-ratio")
    p.add_argument("--batch", type=int, default=8, help="of step-ratio")
    a = p.parse_args(arguments)
    for what in a.what:
        rvis.checks.choice("GROUP", what, (*groups, "step-ratio", "startup"))
    if "step-ratio" in a.what:
        return step_ratio(a.model, a.size, a.batch, a.rounds)
    if "startup" in a.what:
        return startup(a.rounds)
    return compare(a.what, a.data, a.rounds, a.json)


if __name__ == "__main__":
    sys.exit(main())
