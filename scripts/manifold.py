"""How many dimensions data have, and how adversarial examples leave them.

Command:  python scripts/manifold.py DATA [DATA …] [--model MODEL …] [--out FOLDER]
Time:     five minutes on two cores for MNIST or CIFAR-10.
Prints:   a table of the intrinsic dimension of each data set, by maximum likelihood and by two
          neighbours, with standard errors, k and the numbers of points; for each model, the
          dimension of its layers and the median local dimension of clean, noisy and adversarial
          images in them. Writes `toy.png` (two features, a boundary that leaves the data),
          `linear_MODEL.png` (the shift of a logit over the number of pixels changed) and
          `distance.png` (how far attacked images lie from the training data) into FOLDER.
DATA is what `rvis.data.load` reads. Noise has the length of the adversarial change. Without
`--model`, the shipped standard and robust networks for the first data set's shape are looked at.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

import rvis
from rvis import attacks
from rvis.__main__ import reported
from rvis.analysis import manifold, representations
from rvis.data import Dataset
from rvis.plotting import figures
from scripts.gallery.toy import toy

SHIPPED = {
    (28, 28, 1): ("mnist_cnn", "mnist_cnn_robust"),
    (32, 32, 3): ("cifar10_resnet", "cifar10_resnet_robust"),
}
EPS = {(28, 28, 1): 0.1, (32, 32, 3): 8 / 255}


def dimensions(data: Dataset, k: int, sample: int) -> str:
    """A data set's row."""
    points = data.floats()
    mle = manifold.intrinsic_dimension(points, k=k, sample=sample)
    two = manifold.intrinsic_dimension(points, method="twonn", sample=sample)
    return (
        f"| {data.name} | {mle.value:.1f} ± {mle.error:.1f} | {two.value:.1f} ± {two.error:.1f} | "
        f"{k} | {mle.sample} of {mle.points} | {mle.duplicates} |"
    )


def noise_like(images: np.ndarray, attacked: np.ndarray, seed: int) -> np.ndarray:
    """Images with noise of the attack's length, inside [0, 1]."""
    change = attacked - images
    noise = np.random.default_rng(seed).standard_normal(images.shape)
    lengths = (np.sqrt(np.square(x).sum((1, 2, 3), keepdims=True)) for x in (change, noise))
    wanted, given = lengths
    return np.clip(images + noise * (wanted / given), 0, 1).astype(np.float32)


def layers(model: rvis.Model, test: Dataset, a: argparse.Namespace) -> list[str]:
    """A model's table."""
    # Local dimensions are taken in batches, which must not be of one class each.
    rows = np.random.default_rng(a.seed).permutation(len(test))[: a.images]
    clean, labels = test.floats(rows), test.labels[rows]
    eps = EPS.get(model.input_shape, 8 / 255) if a.eps is None else a.eps
    hit = attacks.bim(model, clean, labels, eps=eps, progress=not a.quiet).images
    shown = {"clean": clean, "noisy": noise_like(clean, hit, a.seed), "adversarial": hit}
    lines = [
        f"{model.name}: {len(rows)} images, k = {a.k}, Linf {eps:.3g}",
        "",
        f"| layer | dimension | {' | '.join(f'local, {name}' for name in shown)} |",
        "|---|---|---|---|---|",
    ]
    for layer in model.layers:
        codes = {name: representations.encode(model, x, layer) for name, x in shown.items()}
        found = manifold.intrinsic_dimension(codes["clean"], k=a.k)
        local = [manifold.local_dimension(x, codes["clean"], k=a.k) for x in codes.values()]
        cells = [f"{np.nanmedian(values):.1f}" for values in local]
        lines.append(f"| {layer} | {found.value:.1f} ± {found.error:.1f} | {' | '.join(cells)} |")
    return lines


def away(models: list[rvis.Model], data: Dataset, test: Dataset, a: argparse.Namespace) -> dict:
    """{name: (ε, mean distance)} of attacked images from the training data's tangents."""
    rows = np.linspace(0, len(test) - 1, min(100, len(test))).astype(int)
    clean, labels = test.floats(rows), test.labels[rows]
    train = data.floats(np.linspace(0, len(data) - 1, min(a.near, len(data))).astype(int))
    most = EPS.get(models[0].input_shape, 8 / 255) * 3
    sizes = most * np.arange(7) / 6
    lines = {}
    for model in models:
        found = [attacks.bim(model, clean, labels, eps=e, progress=False).images for e in sizes]
        shaken = [
            noise_like(clean, x, a.seed) if e else clean for x, e in zip(found, sizes, strict=True)
        ]
        for name, path in (("adversarial", found), ("noise", shaken)):
            off = manifold.distance_to_data(np.stack(path), train, k=a.k)
            lines[f"{model.name}, {name}"] = sizes, off.residual.mean(1)
    return lines


@reported()
def main(arguments: list[str] | None = None) -> int:
    """Measures, prints and draws; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("data", type=Path, nargs="+")
    p.add_argument("--model", nargs="+")
    p.add_argument("--k", type=int, default=20, help="neighbours")
    p.add_argument("--sample", type=int, default=1000, help="points whose neighbours are sought")
    p.add_argument("--images", type=int, default=500, help="test images for the layers")
    p.add_argument("--near", type=int, default=10000, help="training images to lie far from")
    p.add_argument("--eps", type=float, help="of the attack; 0.1 for MNIST, 8/255 for CIFAR-10")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--quiet", action="store_true", help="no progress bars")
    p.add_argument("--out", type=Path, default=Path("out", "manifold"))
    a = p.parse_args(arguments)
    figures.save(toy(key=a.seed).plot(), a.out / "toy.png")
    sets = [rvis.data.load(path, "train") for path in a.data]
    names = a.model or SHIPPED.get(sets[0].images.shape[1:], ())
    models = [rvis.load(name) for name in names]
    print("| data | maximum likelihood | two neighbours | k | points | duplicates |")
    print("|---|---|---|---|---|---|")
    for data in sets:
        print(dimensions(data, a.k, a.sample), flush=True)
    written = [a.out / "toy.png"]
    if models:
        test = rvis.data.load(a.data[0], "test")
        for model in models:
            print("", *layers(model, test, a), sep="\n", flush=True)
        lines = away(models, sets[0], test, a)
        ax = figures.axes()
        for name, (sizes, distances) in lines.items():
            ax.plot(sizes, distances, "o-", ms=4, label=name)
        ax.set(xlabel="size of the change (L∞)", ylabel="distance from the data's tangent (L2)")
        ax.legend()
        figures.save(ax, a.out / "distance.png")
        some = test.floats(np.linspace(0, len(test) - 1, min(50, len(test))).astype(int))
        eps = EPS.get(models[0].input_shape, 8 / 255)
        for model in models:
            top = np.asarray(model(some)).argmax(1).astype(np.int32)
            shift = manifold.linear_shift(model, some, top, eps, key=a.seed)
            figures.save(shift.plot(), a.out / f"linear_{model.name}.png")
            written.append(a.out / f"linear_{model.name}.png")
        written.append(a.out / "distance.png")
    for path in written:
        print(path)
    return 0


if __name__ == "__main__":
    rvis.keep_programs()
    sys.exit(main())
