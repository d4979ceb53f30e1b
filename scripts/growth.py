"""How the cost of a sweep grows with its units, and the memory of DeepDream with the photograph.

Command:  python scripts/growth.py [--model cifar10_resnet] [--layer layer3] [--units 32 64 128]
          python scripts/growth.py --dream 4000 3000
Time:     two minutes on two cores for the sweeps; ten for the dream.
Prints:   a table: seconds and seconds a unit (compilation apart), programs compiled, and the peak
          memory of a process that made the sweep into a folder; or the peak memory of DeepDream on
          a photograph of so many pixels.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np

import rvis
from rvis import engine
from rvis.__main__ import reported
from rvis.visualization import Options


def sweep(model: str, layer: str, units: int, steps: int) -> dict[str, float]:
    """One sweep in this process, after one of a single chunk that compiles its program."""
    network = rvis.load(model)
    with tempfile.TemporaryDirectory() as folder:
        options: Options = {"steps": steps, "progress": False}
        rvis.sweep(network, layer, range(4), out=f"{folder}/first", **options)
        started = time.perf_counter()
        rvis.sweep(network, layer, range(units), out=f"{folder}/all", **options)
        seconds = time.perf_counter() - started
    programs = engine.run._cache_size()  # type: ignore[attr-defined]
    return {"seconds": seconds, "programs": programs, "memory": peak()}


def dream(model: str, layer: str, size: tuple[int, int], octaves: int) -> dict[str, float]:
    """One dream of one step an octave on a photograph-like picture."""
    network = rvis.load(model)
    rng = np.random.default_rng(0)
    coarse = rng.uniform(size=(size[0] // 50, size[1] // 50, 3)).astype(np.float32)
    picture = np.repeat(np.repeat(coarse, 50, 0), 50, 1)
    started = time.perf_counter()
    rvis.deepdream(network, picture, layer, octaves=octaves, steps=1, progress=False)
    return {"seconds": time.perf_counter() - started, "memory": peak()}


def peak() -> float:
    """The most memory that this process ever held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def child(*words: object) -> dict[str, float]:
    """The script in a process of its own, so that its peak is its own."""
    command = [sys.executable, __file__, "--child", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ChildProcessError(done.stderr.splitlines()[-1].partition(": ")[2])
    return json.loads(done.stdout.splitlines()[-1])


@reported()
def main(arguments: list[str] | None = None) -> int:
    """Measures and prints; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--model", default="cifar10_resnet")
    p.add_argument("--layer", default="layer3")
    p.add_argument("--units", type=int, nargs="+", default=[32, 64, 128])
    p.add_argument("--steps", type=int, default=64)
    p.add_argument("--dream", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"))
    p.add_argument("--octaves", type=int, default=2)
    p.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    a = p.parse_args(arguments)
    if a.child:
        if a.dream:
            print(json.dumps(dream(a.model, a.layer, tuple(a.dream), a.octaves)))
        else:
            print(json.dumps(sweep(a.model, a.layer, a.units[0], a.steps)))
        return 0
    common = ("--model", a.model, "--layer", a.layer)
    if a.dream:
        found = child(*common, "--dream", *a.dream, "--octaves", a.octaves)
        pixels = a.dream[0] * a.dream[1] / 1e6
        print(f"DeepDream on {pixels:.1f} megapixels: peak {found['memory'] / 1024:.2f} GB, ")
        print(f"{found['seconds']:.0f} s for {a.octaves} octaves of one step")
        return 0
    print("| units | seconds | seconds a unit | programs | peak memory, MB |")
    print("|---|---|---|---|---|")
    for units in a.units:
        found = child(*common, "--units", units, "--steps", a.steps)
        print(
            f"| {units} | {found['seconds']:.1f} | {found['seconds'] / units:.3f} | "
            f"{found['programs']:.0f} | {found['memory']:.0f} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    rvis.keep_programs()
    sys.exit(main())
