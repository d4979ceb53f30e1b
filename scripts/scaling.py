"""How cost grows with the size of pictures, with their number, steps, permutations and devices.

Command:  python scripts/scaling.py [size batch units steps permutations devices] [--out FOLDER]
Time:     eight minutes on two cores.
Prints:   a table for each: seconds, after a call that compiled, and seconds for each unit of what
          grows; below it, how many times as much a unit costs at the end as where it cost least,
          which is more than 1 where cost grows faster than what it is for. Writes a plot of each
          (`size.png` …, both axes logarithmic), all of them on one sheet, and `scaling.json`.
Devices are simulated on the cores there are, so that more of them show what dealing out costs, and
gain nothing. All is of `cifar10_resnet`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

import rvis
from rvis import attribution, files, objectives
from rvis.__main__ import reported
from rvis.plotting import figures
from rvis.visualization import Options

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MODEL = "cifar10_resnet"


class Axis(NamedTuple):
    """What grows, in what unit its cost is given, and the call whose cost it is."""

    values: tuple[int, ...]
    unit: str
    units: Callable[[int], float]
    call: Callable[[int], object]


def draw(units: int = 1, *, size: int = 32, steps: int = 16) -> object:
    """Pictures of so many channels, one after another in the same order."""
    options: Options = {"size": size, "steps": steps, "progress": False}
    chosen = np.arange(units) % 256
    return rvis.visualize(rvis.load(MODEL), objectives.channel("layer4", chosen), **options)


def explain(images: int) -> object:
    """The gradient of the first class's logit at so many images."""
    pictures = np.random.default_rng(0).uniform(size=(images, 32, 32, 3)).astype(np.float32)
    return attribution.gradient(rvis.load(MODEL), pictures, 0, progress=False)


def share_out(permutations: int) -> object:
    """Shapley values of the patches of 8×8 pixels by so many permutations."""
    picture = np.random.default_rng(0).uniform(size=(32, 32, 3)).astype(np.float32)
    model = rvis.load(MODEL)
    return attribution.shapley_sampling(
        model, picture, 0, players=8, permutations=permutations, progress=False
    )


AXES = {
    "size": Axis((32, 64, 128, 256, 512), "kilopixel", lambda n: n**2 / 1e3,
                 lambda n: draw(size=n, steps=8)),
    "batch": Axis((1, 4, 16, 64, 256), "image", float, explain),
    "units": Axis((1, 8, 64, 512), "unit", float, draw),
    "steps": Axis((64, 256, 1024, 4096), "step", float, lambda n: draw(steps=n)),
    "permutations": Axis((4, 16, 64, 256), "permutation", float, share_out),
    "devices": Axis((1, 2, 4, 8), "sweep of 64", lambda n: 1.0, lambda n: draw(64)),
}  # fmt: skip


def seconds(name: str, value: int, rounds: int) -> float:
    """The median of some calls after the first."""
    call = AXES[name].call
    call(value)
    spent = []
    for _ in range(rounds):
        started = time.perf_counter()
        call(value)
        spent.append(time.perf_counter() - started)
    return statistics.median(spent)


def measured(name: str, rounds: int) -> list[float]:
    """The seconds for every value, in a process of their own; for devices one each."""
    groups = [[v] for v in AXES[name].values] if name == "devices" else [list(AXES[name].values)]
    found = []
    for values in groups:
        flags = os.environ.get("XLA_FLAGS", "")
        if name == "devices":
            flags += f" --xla_force_host_platform_device_count={values[0]}"
        words = [name, "--rounds", str(rounds), "--child", *map(str, values)]
        done = subprocess.run(
            [sys.executable, __file__, *words],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "XLA_FLAGS": flags.strip()},
        )
        if done.returncode:
            raise ChildProcessError(done.stderr.splitlines()[-1].partition(": ")[2])
        found += json.loads(done.stdout.splitlines()[-1])
    return found


def report(name: str, found: Sequence[float]) -> None:
    """Prints the table of one axis."""
    axis = AXES[name]
    costs = [s / axis.units(v) for s, v in zip(found, axis.values, strict=True)]
    print(f"\n| {name} | seconds | milliseconds per {axis.unit} |\n|---|---|---|")
    for value, spent, cost in zip(axis.values, found, costs, strict=True):
        print(f"| {value} | {spent:.3g} | {1e3 * cost:.3g} |")
    print(f"\nat the end {costs[-1] / min(costs):.2f} times the least", flush=True)


def plot(name: str, found: Sequence[float], ax: Axes | None = None) -> Axes:
    """The plot of one axis, beside growth in proportion from where a unit costs least."""
    axis = AXES[name]
    x = np.asarray(axis.values, float)
    units = np.asarray([axis.units(v) for v in axis.values])
    least = min(np.asarray(found) / units)
    ax = figures.axes(ax)
    ax.plot(x, least * units, color="0.7", label="in proportion")
    ax.plot(x, found, "o-", ms=4, color="C0", label="measured")
    ax.set(xscale="log", yscale="log", xlabel=name, ylabel="seconds")
    ax.legend()
    return ax


@reported()
def main(arguments: list[str] | None = None) -> int:
    """Measures, prints and draws; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("what", nargs="*", default=[*AXES])
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--out", type=Path, default=Path("out", "scaling"))
    p.add_argument("--child", type=int, nargs="+", help=argparse.SUPPRESS)
    a = p.parse_args(arguments)
    for name in a.what:
        rvis.checks.choice("what", name, (*AXES,))
    if a.child:
        print(json.dumps([seconds(a.what[0], value, a.rounds) for value in a.child]))
        return 0
    table = {}
    for name in a.what:
        found = measured(name, a.rounds)
        report(name, found)
        table[name] = {"values": AXES[name].values, "seconds": found}
        figures.save(plot(name, found), a.out / f"{name}.png")
    columns = min(3, len(table))
    rows = -(-len(table) // columns)
    sheet = figures.figure(size=(5 * columns, 3.5 * rows))
    for i, (name, told) in enumerate(table.items(), 1):
        plot(name, told["seconds"], sheet.add_subplot(rows, columns, i))
    figures.save(sheet.axes[0], a.out / "sheet.png")
    files.write_json(a.out / "scaling.json", table)
    print(f"\n{a.out}")
    return 0


if __name__ == "__main__":
    rvis.keep_programs()
    sys.exit(main())
