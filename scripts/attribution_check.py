"""Do maps and judges agree with captum's, Zennit's, pytorch-grad-cam's, Quantus's, at what cost?

Command:  python scripts/attribution_check.py [GROUP …] [--methods …] [--rounds 3] [--json FILE]
Time:     ten minutes on one core; some seconds a row. Needs the `bench` extra.
Prints:   for each network and method the relative difference ‖a − b‖ / ‖b‖, or in standard errors
          where both sides draw, both times (the median of `--rounds`, compilation apart) and their
          ratio. Exit status 1 where a difference exceeds 1e-3, or 5 standard errors, but where the
          definitions are not the same, which is said; 3 where a package is missing.
GROUP is gradients, zennit, cams, captum, tokens, regressions, quantus or race; all by default.
Networks are torchvision's and timm's with seeded weights, or shipped ones, and images are noise: no
data is needed. `race` is the time of KernelSHAP to captum's error.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import importlib.util
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import rvis
from rvis import files
from scripts.bench import coalitions, judges, maps

PACKAGES = ("torch", "torchvision", "timm", "captum", "zennit", "grad-cam", "quantus")
GROUPS = ("gradients", "zennit", "cams", "captum", "tokens", "regressions", "quantus", "race")
BOUND, ERRORS = 1e-3, 5.0


def rows(groups: list[str], size: int, images: int) -> Iterator[maps.Row]:
    """All that is compared."""
    if "gradients" in groups:
        yield from maps.gradients()
    of_networks = [group for group in ("zennit", "cams", "captum") if group in groups]
    for name in maps.LAYERS if of_networks else ():
        one = maps.case(name, size, images)
        for group in of_networks:
            yield from getattr(maps, group)(one)
    if "tokens" in groups:
        yield from maps.tokens(size, images)
    if "regressions" in groups:
        yield from coalitions.regressions()
    if "quantus" in groups:
        yield from judges.quantus()


def apart(row: maps.Row, first: np.ndarray, second: np.ndarray) -> float:
    """The relative difference, or that in standard errors."""
    if not row.sampled:
        return float(np.linalg.norm(first - second) / np.linalg.norm(second))
    squared = second.var(0, ddof=1) / len(second)
    mean = first
    if first.shape == second.shape:
        mean, squared = first.mean(0), squared + first.var(0, ddof=1) / len(first)
    return float((np.abs(mean - second.mean(0)) / np.sqrt(squared)).max())


def measured(row: maps.Row, rounds: int) -> dict[str, Any]:
    """One row's numbers; the calls take turns."""
    sides, times = (row.ours, row.theirs), ([], [])  # type: ignore[var-annotated]
    first, second = (np.asarray(side(), np.float64) for side in sides)
    for _ in range(rounds):
        for side, taken in zip(sides, times, strict=True):
            start = time.perf_counter()
            side()
            taken.append(time.perf_counter() - start)
    found: dict[str, Any] = {
        "peer": row.peer,
        "network": row.network,
        "method": row.method,
        "difference": apart(row, first, second),
        "in": "standard errors" if row.sampled else "relative",
        "differ": row.differ,
        "note": row.note,
    }
    if rounds:
        ours, theirs = (statistics.median(taken) for taken in times)
        found |= {"seconds": [ours, theirs], "ratio": ours / theirs}
    return found


def race(rounds: int, samples: int, batches: tuple[int, ...] = (16, 64, 256)) -> dict[str, Any]:
    """The time in which KernelSHAP has no larger error than captum's, of 16 players."""
    import captum.attr
    import torch

    one, draws = coalitions.patches(4, 4), 12
    exact = one.ours("shapley")

    def error(estimates: list[np.ndarray]) -> float:
        return float(np.sqrt(np.mean(np.square(np.stack(estimates) - exact))))

    def own(samples: int, keys: range) -> float:
        return error([one.ours("kernel_shap", samples=samples, key=key) for key in keys])

    method = captum.attr.KernelShap(one.network)
    estimates = []
    for seed in range(draws):
        torch.manual_seed(seed)
        estimates.append(one.theirs(method, samples))
    wanted, needed, reached = error(estimates), 16, np.inf
    while reached > wanted and needed < 2**16:
        needed = int(np.ceil(needed * 1.25 / 2)) * 2
        reached = own(needed, range(draws))
        if reached <= wanted:  # perhaps by luck: what counts are draws that chose nothing
            reached = own(needed, range(draws, 4 * draws))
    times: dict[Any, list[float]] = {name: [] for name in ("rvis", *batches)}
    for turn in range(rounds + 1):
        for name, taken in times.items():
            start = time.perf_counter()
            if name == "rvis":
                one.ours("kernel_shap", samples=needed)
            else:
                one.theirs(method, samples, name)
            if turn:
                taken.append(time.perf_counter() - start)
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    ours = medians.pop("rvis")
    best = min(medians, key=medians.__getitem__)
    return {
        "players": one.count,
        "samples": [needed, samples],
        "errors": [reached, wanted],
        "seconds": [ours, medians[best]],
        "perturbations_per_eval": best,
        "ratio": ours / medians[best],
    }


def write(file: Path | None, found: dict[str, Any]) -> None:
    """What there is so far, where a file is wanted."""
    if file is not None:
        files.write_json(file, found)


def main(arguments: list[str] | None = None) -> int:
    """Compares and prints; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("groups", nargs="*", metavar="GROUP", help=", ".join(GROUPS))
    p.add_argument("--methods", nargs="+", help="of those that it prints; all by default")
    p.add_argument("--size", type=int, default=64)
    p.add_argument("--images", type=int, default=2)
    p.add_argument("--rounds", type=int, default=3, help="0 for no times")
    p.add_argument("--samples", type=int, default=1000, help="of captum's KernelSHAP in the race")
    p.add_argument("--json", type=Path, help="a file for the numbers")
    a = p.parse_args(arguments)
    for group in a.groups:
        if group not in GROUPS:
            p.error(f"GROUP: one of {', '.join(GROUPS)} was expected, given {group!r}")
    for package in PACKAGES:
        if importlib.util.find_spec(package.replace("grad-cam", "pytorch_grad_cam")) is None:
            print(f"{p.prog}: {package} is not installed; the `bench` extra is", file=sys.stderr)
            return 3
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch.set_num_threads(cores or 1)
    warnings.simplefilter("ignore")
    found: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "cores": cores,
        "device": platform.processor() or platform.machine(),
        "versions": {name: importlib.metadata.version(name) for name in ("jax", *PACKAGES)},
        "size": a.size,
        "images": a.images,
        "rows": [],
    }
    good = True
    print("| peer | network | method | difference | ours (s) | theirs (s) | ratio |")
    print("|---" * 7 + "|")
    for row in rows(a.groups or list(GROUPS), a.size, a.images):
        if a.methods and row.method not in a.methods:
            continue
        own = measured(row, a.rounds)
        found["rows"].append(own)
        bound = ERRORS if row.sampled else BOUND
        fails = not row.differ and not own["difference"] <= bound
        good &= not fails
        about = f"{own['difference']:.1f} se" if row.sampled else f"{own['difference']:.1e}"
        words = " (another definition)" if row.differ else " FAILS" if fails else ""
        times = [f"{taken:.3f}" for taken in own.get("seconds", ())] or ["", ""]
        ratio = f"{own['ratio']:.2f}" if a.rounds else ""
        print(
            f"| {row.peer} | {row.network} | {row.method} | {about}{words} | "
            f"{' | '.join(times)} | {ratio} |",
            flush=True,
        )
        write(a.json, found)
    if "race" in (a.groups or GROUPS) and a.rounds and not a.methods:
        found["race"] = race(a.rounds, a.samples)
        print(", ".join(f"{name}: {value}" for name, value in found["race"].items()))
        write(a.json, found)
    return int(not good)


if __name__ == "__main__":
    rvis.keep_programs()
    sys.exit(main())
