"""What is an image best written down as? The parameterizations at the same budget.

Command:  python scripts/parameterizations.py DATA [--models …] [--layers …] [--out FOLDER]
Time:     5 minutes a network and layer on two cores.
Prints:   a table: for each parameterization the mean faithfulness percentile of its pictures (how
          many real images raise the channel less, shown without any transformation), their mean
          activation, and the share of energy above a quarter of a cycle a pixel, in each network
          and layer; and that share for the real images. With --out, the pictures as one sheet a
          network and layer.
DATA is what `rvis.data.load` reads.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

import rvis
from rvis import objectives, optimizers
from rvis.__main__ import reported
from rvis.plotting import grids

RATES = {"pixel": 0.05, "fourier": 0.05, "pyramid": 0.05, "cppn": 0.005, "maco": 0.3}
"""The learning rate of Adam for each parameterization."""


def fine(images: np.ndarray) -> np.ndarray:
    """(n,) the share of energy above .25 cycles a pixel, mean colours left out."""
    height, width = images.shape[1:3]
    energy = np.abs(np.fft.fft2(images - images.mean((1, 2), keepdims=True), axes=(1, 2))) ** 2
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    return energy[:, frequency > 0.25].sum((1, 2)) / np.maximum(energy.sum((1, 2, 3)), 1e-12)


@reported()
def main(arguments: list[str] | None = None) -> int:
    """Draws, ranks and prints; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("data", type=Path)
    p.add_argument("--models", nargs="+", default=["cifar10_resnet", "cifar10_resnet_robust"])
    p.add_argument("--layers", nargs="+", default=["layer2", "layer3"])
    p.add_argument("--images", nargs="+", default=[*RATES], choices=[*RATES])
    p.add_argument("--units", type=int, default=16, help="channels a layer, evenly spread")
    p.add_argument("--real", type=int, default=1000, help="real images, evenly spread")
    p.add_argument("--steps", type=int, default=256)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", type=Path, metavar="FOLDER")
    a = p.parse_args(arguments)
    test = rvis.data.load(a.data, "test")
    models = [rvis.load(name) for name in a.models]
    for model in models:
        for layer in a.layers:
            rvis.checks.choice("layers", layer, model.layers)
    real = test.floats(np.linspace(0, len(test) - 1, a.real).astype(int))
    places = [(model, layer) for model in models for layer in a.layers]
    rows: dict[str, list[str]] = {kind: [] for kind in a.images}
    for model, layer in places:
        width = rvis.layer_shapes(model)[layer][-1]
        objective = objectives.channel(layer, np.linspace(0, width - 1, a.units).astype(int))
        sheet = []
        for kind in a.images:
            result = rvis.visualize(
                model,
                objective,
                image=kind,
                optimizer=optimizers.adam(RATES[kind]),
                steps=a.steps,
                key=a.seed,
            )
            found = rvis.faithfulness(model, objective, result.images, real)
            rows[kind] += [
                f"{found.percentile.mean():.1f}",
                f"{found.activation.mean():.2f}",
                f"{fine(result.images).mean():.1%}",
            ]
            print(model.name, layer, kind, *rows[kind][-3:], file=sys.stderr, flush=True)
            sheet.append(result.images)
        if a.out is not None:
            titles = [str(title) for title in objective.titles(model.classes)]
            grid = grids.grid(np.stack(sheet), titles=titles, row_titles=a.images)
            grids.save(grid, a.out / f"{model.name}_{layer}.png")
    rows["real images"] = ["", "", f"{fine(real).mean():.1%}"] * len(places)
    heads = [f"{m.name} {layer}: percentile | activation | fine" for m, layer in places]
    print("| | " + " | ".join(heads) + " |")
    print("|---" * (1 + 3 * len(places)) + "|")
    for name, cells in rows.items():
        print(f"| {name} | " + " | ".join(cells) + " |")
    return 0


if __name__ == "__main__":
    rvis.keep_programs()
    sys.exit(main())
