"""Pictures that a network takes for a class: "an elephant that must become a tiger shark".

Command:  python scripts/fool.py MODEL --class NAME [NAME …] [--start FILE] [--beside MODEL …]
Time:     seconds a class for a 32-pixel network on two cores.
Prints:   for each network and class what the network thought at the start and at the end, the step
          after which the class led, how far the picture is from its start, and whether anything of
          the class can have appeared; then where the figure is. `fool.png` has a row for each class
          and network: the start, the picture on the way and at the end with the probability of the
          class, and what was added (grey is nothing, amplified to the full range). A folder for
          each network holds its pictures by themselves.
FILE is a picture, cut at its centre to the network's size, or a data set that `rvis.data.load`
reads, with `--index`; without one the pictures start from noise, or from `--start grey`. NAME is
one of the network's classes; a network without names has numbers. MODEL is a name of
`rvis.list_models()` or a path that `rvis.load` reads. Ctrl-C is safe: the same command goes on from
there.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import rvis
from rvis import attacks, regularizers, transforms
from rvis.__main__ import reported
from rvis.analysis import metrics
from rvis.plotting import grids

STILL = 0.9
"""The structural similarity to the start above which a picture counts as the same."""


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


def started(a: argparse.Namespace, shape: tuple[int, int, int]) -> str | np.ndarray:
    """What `attacks.fool` starts from."""
    if a.index is None and a.start in ("noise", "grey"):
        return cast("str", a.start)
    return read(Path(a.start), a.index, shape)


def fooled(model: rvis.Model, a: argparse.Namespace) -> attacks.Fooling:
    """The classes' pictures on one network."""
    classes = [int(name) if name.isdigit() and not model.classes else name for name in a.classes]
    return attacks.fool(
        model,
        classes,
        start=started(a, model.input_shape),
        objective=a.objective,
        confidence=a.confidence,
        eps=a.eps,
        norm=a.norm,
        steps=a.steps,
        transforms=transforms.lucid(min(model.input_shape[:2])) if a.transforms else (),
        regularizers=[regularizers.total_variation(a.tv)] if a.tv else (),
        optimizer=rvis.optimizers.steepest(a.step_size, norm="mean_abs"),
        snapshots=way(a.steps),
        key=a.seed,
        checkpoint=a.out / f"state_{model.name}",
        progress=not a.quiet,
    )


def way(steps: int) -> list[int]:
    """The steps that the figure shows on the way."""
    return sorted({max(1, steps // part) for part in (50, 10, 2)} - {steps})


def stories(model: rvis.Model, result: attacks.Fooling) -> list[str]:
    """For each class what happened, in words."""
    before = np.asarray(model(result.starts)).argmax(1)
    # The least of the channels, so that a patch of new colour counts.
    pairs = zip(np.moveaxis(result.starts, -1, 0), np.moveaxis(result.images, -1, 0), strict=True)
    side = min(11, *result.images.shape[1:3])
    window = side - (side % 2 == 0)
    alike = np.min([metrics.structural_similarity(*pair, window=window) for pair in pairs], 0)
    told = []
    for i, (name, since) in enumerate(zip(result.labels, result.since, strict=True)):
        first = model.classes[before[i]] if model.classes else f"class {before[i]}"
        chances = result.probabilities[i]
        led = "never led" if since < 0 else f"led after {since} steps"
        text = (
            f"{model.name} takes the start for {first} ({name}: {chances[0]:.2%}). At the end it "
            f"is {chances[-1]:.2%} sure of {name}, which {led}. L2 distance "
            f"{result.distance()[i]:.2f}, structural similarity to the start {alike[i]:.3f}: "
        )
        if alike[i] < STILL:
            text += f"another picture; whether it shows {name} is for the eye to say."
        elif chances[-1] > 0.5:
            text += f"no {name} has appeared, and yet the network is sure."
        else:
            text += f"no {name} has appeared, and the network saw none."
        told.append(text)
    return told


def figure(result: attacks.Fooling, told: list[str], scale: int | None) -> Image.Image:
    """Start, way, end and what was added, a row for each class, and the words beneath."""
    cells, titles = [], []
    for i, chances in enumerate(result.probabilities):
        added = result.images[i] - result.starts[i]
        most = float(np.abs(added).max())
        shown = {0: result.starts[i]} | {s: x[i] for s, x in result.snapshots.items()}
        shown[len(chances) - 1] = result.images[i]
        cells += [*shown.values(), np.clip(0.5 + added / (2 * most if most else 1), 0, 1)]
        titles += [f"{step}: {chances[step]:.1%}" for step in shown]
        titles.append(f"added x {0.5 / most:.3g}" if most else "nothing added")
    height, width = cells[0].shape[:2]
    picture = grids.grid(
        cells,
        titles=titles,
        row_titles=[str(name) for name in result.labels],
        columns=len(cells) // len(told),
        scale=-(-144 // max(height, width)) if scale is None else scale,
    )
    font = cast("ImageFont.FreeTypeFont", ImageFont.load_default(14))
    letters = int(picture.width / font.getlength("n"))
    lines = [line for text in told for line in textwrap.wrap(text, letters)]
    line = sum(font.getmetrics()) + 2
    whole = Image.new("RGB", (picture.width, picture.height + line * len(lines) + 12), "white")
    whole.paste(picture, (0, 0))
    draw = ImageDraw.Draw(whole)
    for i, text in enumerate(lines):
        draw.text((6, picture.height + 4 + i * line), text, "black", font)
    return whole


def stacked(pictures: list[Image.Image]) -> Image.Image:
    """One above the other."""
    size = max(p.width for p in pictures), sum(p.height for p in pictures)
    whole, top = Image.new("RGB", size, "white"), 0
    for picture in pictures:
        whole.paste(picture, (0, top))
        top += picture.height
    return whole


@reported(goes_on=True)
def main(arguments: list[str] | None = None) -> int:
    """Draws and says where; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("model")
    p.add_argument("--class", dest="classes", nargs="+", required=True, metavar="NAME")
    p.add_argument("--beside", nargs="*", default=[], metavar="MODEL", help="other networks")
    p.add_argument("--start", default="noise", metavar="FILE", help="or noise, or grey")
    p.add_argument("--index", type=int, help="of a test picture, where FILE is a data set")
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
    drawn = []
    for given in (a.model, *a.beside):
        model = rvis.load(given)
        result = fooled(model, a)
        told = stories(model, result)
        print("\n".join(told), flush=True)
        result.save(a.out / model.name)
        drawn.append(figure(result, told, a.scale))
    grids.save(stacked(drawn), a.out / "fool.png")
    print(a.out / "fool.png")
    return 0


if __name__ == "__main__":
    rvis.keep_programs()
    sys.exit(main())
