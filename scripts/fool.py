"""Pictures that a network takes for a class: "an elephant that must become a tiger shark".

Command:  python scripts/fool.py MODEL [IMAGE] --class NAME [NAME …] [--beside MODEL] [--out FOLDER]
Time:     seconds a class for a 32-pixel network on two cores.
Prints:   for each network and class the probability at the start and at the end, the step after
          which the class led, and how far the picture is from its start; then where the figure is.
          `fool.png` has a row for each class: the start, and for each network the picture that it
          is sure of and what was added (grey is nothing, amplified to the full range). A folder
          for each network holds its pictures by themselves.
IMAGE is a picture file, or a data set that `rvis.data.load` reads, with `--index`; without one the
pictures start from noise, or from `--start grey`. MODEL is a name of `rvis.list_models()` or a path
that `rvis.load` reads. Ctrl-C is safe: the same command goes on from there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

import rvis
from rvis import attacks, plots, regularizers, transforms


def read(path: Path, index: int | None, shape: tuple[int, int, int]) -> np.ndarray:
    """The picture as the model takes it, (H, W, C) in [0, 1]."""
    if index is not None:
        pictures = rvis.data.load(path, "test").images
        rvis.checks.integers("--index", index, high=len(pictures), what=str(path))
        image = np.asarray(pictures[index], np.float32) / 255
        if image.shape != shape:
            raise ValueError(f"--index: pictures of {shape} were expected, given {image.shape}")
        return image
    image = rvis.data.read_image(path, size=shape[:2])
    if shape[2] == 1:
        image = (image @ np.asarray([0.299, 0.587, 0.114], np.float32))[..., None]
    return np.clip(image, 0, 1)


def fooled(model: rvis.Model, start: str | np.ndarray, a: argparse.Namespace) -> attacks.Fooling:
    """The classes' pictures on one network; prints what it took."""
    classes = [int(name) if name.isdigit() and not model.classes else name for name in a.classes]
    result = attacks.fool(
        model,
        classes,
        start=start,
        objective=a.objective,
        confidence=a.confidence,
        eps=a.eps,
        norm=a.norm,
        steps=a.steps,
        transforms=transforms.lucid(min(model.input_shape[:2])) if a.transforms else (),
        regularizers=[regularizers.total_variation(a.tv)] if a.tv else (),
        optimizer=rvis.optimizers.steepest(a.step_size, norm="mean_abs"),
        key=a.seed,
        checkpoint=a.out / f"state_{model.name}",
        progress=not a.quiet,
    )
    for name, chances, since, distance in zip(
        result.labels, result.probabilities, result.since, result.distance(), strict=True
    ):
        led = "never led" if since < 0 else f"led after {since} steps"
        print(
            f"{model.name}: {name} from {chances[0]:.2%} to {chances[-1]:.2%}, {led}, "
            f"L2 distance {distance:.2f}"
        )
    return result


def figure(results: list[attacks.Fooling], names: list[str], a: argparse.Namespace) -> Path:
    """Draws the starts, and beside them what each network is sure of."""
    rows = []
    for i in range(len(results[0].images)):
        row = [results[0].starts[i]]
        for result in results:
            added = result.images[i] - result.starts[i]
            most = np.abs(added).max()
            row += [result.images[i], np.clip(0.5 + added / (2 * most if most else 1), 0, 1)]
        rows.append(row)
    titles = ["start"]
    for name in names:
        # A cell has room for a word.
        titles += [name.split("_")[-1], "added"]
    file = a.out / "fool.png"
    labels = [str(label) for label in results[0].labels]
    plots.save(plots.grid(rows, titles=titles, row_titles=labels, scale=a.scale), file)
    return file


def main(arguments: list[str] | None = None) -> int:
    """Draws and says where; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("model")
    p.add_argument("image", type=Path, nargs="?")
    p.add_argument("--class", dest="classes", nargs="+", required=True, metavar="NAME")
    p.add_argument("--beside", nargs="*", default=[], metavar="MODEL", help="other networks")
    p.add_argument("--index", type=int, help="of a test picture, where IMAGE is a data set")
    p.add_argument("--start", choices=("noise", "grey"), default="noise", help="without IMAGE")
    p.add_argument("--objective", choices=("probability", "logit"), default="probability")
    p.add_argument(
        "--confidence", type=float, help="the probability at which a picture is done, such as .99"
    )
    p.add_argument("--eps", type=float, help="distance from the start that is not exceeded")
    p.add_argument("--norm", choices=("linf", "l2", "l1"), default="l2", help="of --eps")
    p.add_argument("--steps", type=int, default=200)
    p.add_argument("--step-size", type=float, default=0.002, help="a pixel's mean change a step")
    p.add_argument("--tv", type=float, default=0.0, help="weight of the total variation")
    p.add_argument("--transforms", action="store_true", help="random views, as lucid's")
    p.add_argument("--scale", type=int, help="by how much the figure is enlarged")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    p.add_argument("--out", type=Path, default=Path("out", "fool"))
    a = p.parse_args(arguments)
    try:
        results, names = [], []
        for given in (a.model, *a.beside):
            model = rvis.load(given)
            if a.index is not None and a.image is None:
                raise ValueError("--index: it was expected beside IMAGE, a data set")
            start = a.start if a.image is None else read(a.image, a.index, model.input_shape)
            results.append(fooled(model, start, a))
            names.append(model.name)
            results[-1].save(a.out / model.name)
        if len({result.images.shape for result in results}) > 1:
            raise ValueError("--beside: networks of one input shape were expected")
        file = figure(results, names, a)
    except (ValueError, TypeError, OSError, ImportError, FloatingPointError) as error:
        print(f"{p.prog}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{p.prog}: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
