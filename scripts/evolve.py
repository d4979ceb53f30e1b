"""Pictures bred without gradients until a network is sure of them: noise and regular patterns.

Command:  python scripts/evolve.py MODEL [MODEL …] [--encoding direct cppn] [--out FOLDER]
Time:     half a minute for each model and encoding with an MNIST network on two cores.
Prints:   a table with a row for each model and encoding: the median and the lowest confidence over
          the classes, the pictures' median roughness (0.8 is white noise) and the seconds taken;
          then the files. A folder `MODEL_ENCODING` holds the elites, their grid with classes and
          confidences, the scores of all generations and a JSON card; `curves.png` shows the medians
          over the generations.
MODEL is a name of `rvis.list_models()` or a path that `rvis.load` reads (an architecture needs
`--weights`). Ctrl-C is safe: the same command goes on from there.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

import rvis
from rvis import evolve
from rvis.__main__ import reported
from rvis.plotting import figures


@reported(goes_on=True)
def main(arguments: list[str] | None = None) -> int:
    """Breeds and says where; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("model", nargs="+")
    p.add_argument("--weights", help="a file of weights, for an architecture's name")
    p.add_argument("--encoding", nargs="+", default=["direct", "cppn"])
    p.add_argument("--generations", type=int, default=200)
    p.add_argument("--batch-size", type=int, default=200, help="children a generation")
    p.add_argument("--classes", type=int, nargs="+", help="their numbers; all if absent")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    p.add_argument("--out", type=Path, default=Path("out", "evolve"))
    a = p.parse_args(arguments)
    curves, written = {}, []
    models = [rvis.load(name, weights=a.weights) for name in a.model]
    print("| model | encoding | median | lowest | roughness | seconds |")
    print("|---|---|---|---|---|---|")
    for model in models:
        for encoding in a.encoding:
            place = a.out / f"{model.name}_{encoding}"
            started = time.perf_counter()
            found = evolve.map_elites(
                model,
                a.classes,
                encoding=encoding,
                generations=a.generations,
                batch_size=a.batch_size,
                key=a.seed,
                checkpoint=place / "state",
                progress=not a.quiet,
            )
            seconds = time.perf_counter() - started
            sure = found.confidences
            print(
                f"| {model.name} | {encoding} | {np.median(sure):.5f} | {sure.min():.5f} | "
                f"{np.median(evolve.roughness(found.images)):.2f} | {seconds:.0f} |",
                flush=True,
            )
            written.append(found.save(place) / "figure.png")
            number = np.arange(1, a.generations + 1)
            doubt = 1 - np.median(found.scores, 0)
            # Single precision knows no probability closer to 1.
            curves[f"{model.name}, {encoding}"] = number, np.maximum(doubt, 1e-7)
    written.append(a.out / "curves.png")
    ax = figures.axes()
    for name, (number, doubt) in curves.items():
        ax.plot(number, doubt, label=name)
    ax.set(yscale="log", xlabel="generation", ylabel="1 − median confidence")
    ax.legend()
    figures.save(ax, written[-1])
    for path in written:
        print(path)
    return 0


if __name__ == "__main__":
    rvis.keep_programs()
    sys.exit(main())
