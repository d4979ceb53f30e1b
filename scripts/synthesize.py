"""Makes and changes images with one classifier, and has another network judge them.

Command:  python scripts/synthesize.py DATA --judge MODEL [--model MODEL] [--standard MODEL]
Time:     about a quarter of an hour for networks of 32 pixels on two cores, nearly all of it for
          inpainting (720 steps); `--images 20 --changed 5` takes two minutes.
Prints:   three tables (generation, inpainting, super-resolution): in how many pictures the judge
          sees the class (with a 95 % interval), in how many of the same pictures shrunk to a
          quarter and enlarged again, where fine texture is gone and the form alone can tell, and
          the peak signal-to-noise ratio to the original.
          The folder has a sheet for each task and network, and the tables as JSON.
DATA is what `rvis.data.load` reads; the models are names of `rvis.list_models()` or paths that
`rvis.load` reads, all of the same classes. The judge must share nothing with the other two.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import jax
import numpy as np
import PIL.Image
import PIL.ImageDraw

import rvis
from rvis import files, synthesis
from rvis.__main__ import reported
from rvis.analysis import metrics, representations
from rvis.plotting import grids

LOOKS = {
    "ship": ("#87b5d9", [("#1f3f66", [(4, 20), (28, 20), (24, 26), (8, 26)], "polygon"),
                         ("#f2f2f2", [(10, 14), (22, 20)], "rectangle"),
                         ("#b03020", [(14, 8), (17, 14)], "rectangle")]),
    "automobile": ("#b9b9b9", [("#b02020", [(3, 16), (29, 23)], "rectangle"),
                               ("#b02020", [(9, 16), (12, 10), (21, 10), (25, 16)], "polygon"),
                               ("#101010", [(6, 20), (12, 26)], "ellipse"),
                               ("#101010", [(20, 20), (26, 26)], "ellipse")]),
    "airplane": ("#9cc4ee", [("#e8e8e8", [(3, 15), (29, 18)], "rectangle"),
                             ("#d0d0d0", [(13, 16), (9, 27), (14, 27), (19, 16)], "polygon"),
                             ("#d0d0d0", [(3, 15), (3, 8), (8, 15)], "polygon")]),
    "horse": ("#8db36b", [("#6b4423", [(8, 12), (23, 19)], "rectangle"),
                          ("#6b4423", [(22, 12), (24, 5), (29, 9), (25, 14)], "polygon"),
                          ("#6b4423", [(9, 19), (11, 28)], "rectangle"),
                          ("#6b4423", [(19, 19), (21, 28)], "rectangle")]),
}  # fmt: skip
"""Drawings of a background and flat shapes on a grid of 32, for sketch-to-image."""


def sketches(size: tuple[int, int]) -> tuple[np.ndarray, list[str]]:
    """The drawings as images of (height, width), and their classes."""
    drawn = []
    for background, shapes in LOOKS.values():
        picture = PIL.Image.new("RGB", (256, 256), background)
        pen = PIL.ImageDraw.Draw(picture)
        for colour, points, shape in shapes:
            getattr(pen, shape)([(8 * x, 8 * y) for x, y in points], fill=colour)
        small = picture.resize(size[::-1], PIL.Image.Resampling.BOX)
        drawn.append(np.asarray(small, np.float32) / 255)
    return np.stack(drawn), list(LOOKS)


def shrunk(images: np.ndarray, factor: int) -> np.ndarray:
    """(n, h, w, C): the means of squares of so many pixels."""
    n, height, width, channels = images.shape
    blocks = images.reshape(n, height // factor, factor, width // factor, factor, channels)
    return blocks.mean((2, 4))


def enlarged(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bicubically, in [0, 1]."""
    shape = (len(images), *size, images.shape[-1])
    return np.clip(jax.image.resize(images, shape, "cubic"), 0, 1)


class Court:
    """The judge's verdicts, collected into tables."""

    def __init__(self, judge: rvis.Model) -> None:
        self.judge = judge
        self.tables: dict[str, list[dict[str, object]]] = {}

    def __call__(
        self,
        table: str,
        name: str,
        images: np.ndarray,
        labels: np.ndarray,
        originals: np.ndarray | None = None,
    ) -> None:
        """Adds a row."""
        row: dict[str, object] = {
            "pictures": name,
            "class seen by the judge": self.share(images, labels),
            "without fine texture": self.share(
                enlarged(shrunk(images, 4), images.shape[1:3]), labels
            ),
        }
        if originals is not None:
            same = np.array_equal(images, originals)
            row["PSNR"] = "" if same else f"{representations.psnr(images, originals).mean():.2f} dB"
        self.tables.setdefault(table, []).append(row)

    def share(self, images: np.ndarray, labels: np.ndarray) -> str:
        """In how many of the images it sees the labels."""
        parts = np.array_split(images, -(-len(images) // 50))
        seen = np.concatenate([np.asarray(self.judge(part)).argmax(-1) for part in parts])
        return f"{metrics.share(seen == labels):.1%}"

    def markdown(self) -> str:
        """All tables."""
        lines = []
        for title, rows in self.tables.items():
            lines += [
                f"\n{title}\n",
                "| " + " | ".join(rows[0]) + " |",
                "|---" * len(rows[0]) + "|",
            ]
            lines += ["| " + " | ".join(map(str, row.values())) + " |" for row in rows]
        return "\n".join(lines)


def holes(count: int, size: tuple[int, int], seed: int) -> np.ndarray:
    """(n, H, W): a square of three eighths of the side at a random place of each image."""
    rng = np.random.default_rng(seed)
    side = 3 * min(size) // 8
    masks = np.zeros((count, *size), np.float32)
    for mask in masks:
        row, column = (rng.integers(0, length - side + 1) for length in size)
        mask[row : row + side, column : column + side] = 1
    return masks


@reported()
def main(arguments: list[str] | None = None) -> int:
    """Makes, judges and draws; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("data", type=Path)
    p.add_argument("--model", default="cifar10_resnet_robust", help="the robust network")
    p.add_argument("--standard", default="cifar10_resnet", help="one to compare with")
    p.add_argument("--judge", required=True, help="a third one, trained from another start")
    p.add_argument("--images", type=int, default=200, help="to generate")
    p.add_argument("--changed", type=int, default=50, help="of the data, to fill in and enlarge")
    p.add_argument("--factor", type=int, default=4, help="of super-resolution")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--shown", type=int, default=10, help="pictures a sheet")
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    p.add_argument("--out", type=Path, help="out/MODEL_synthesis by default")
    a = p.parse_args(arguments)
    out = a.out or Path("out", f"{Path(a.model).name}_synthesis")
    court = Court(rvis.load(a.judge))
    models = {"robust": rvis.load(a.model), "standard": rvis.load(a.standard)}
    size, bar = models["robust"].input_shape[:2], not a.quiet
    data = rvis.data.load(a.data, "test", size=size)
    classes = models["robust"].classes
    if data.classes != classes or court.judge.classes != classes:
        raise ValueError("data, judge: the classes of the model were expected, given others")
    chosen = np.linspace(0, len(data) - 1, a.changed).astype(int)
    images, labels = data.floats(chosen), data.labels[chosen]
    masks = holes(len(images), size, a.seed)
    if any(length % a.factor for length in size):
        raise ValueError(f"factor: a divisor of {size} was expected, given {a.factor}")
    low = shrunk(images, a.factor)
    bicubic = enlarged(low, size)
    wanted = np.arange(a.images, dtype=np.int32) % len(classes)
    generation, inpainting = "Generation", "Inpainting"
    enlarging = f"Super-resolution ({a.factor}×)"
    court(inpainting, "original", images, labels, images)
    court(enlarging, "original", images, labels, images)
    court(enlarging, "bicubic", bicubic, labels, images)
    for kind, model in models.items():
        made = {}
        made["generate"] = synthesis.generate(model, wanted, key=a.seed, progress=bar)
        court(generation, kind, made["generate"].images, wanted)
        if kind == "robust":
            court(generation, "seeds alone", made["generate"].starts, wanted)
        for told, given in (("class told", labels), ("own guess", None)):
            filled = synthesis.inpaint(model, images, masks, given, progress=bar)
            large = synthesis.super_resolve(model, low, a.factor, given, progress=bar)
            if kind == "robust" and given is not None:
                court(inpainting, "mean fill", filled.starts, labels, images)
                court(enlarging, "blocks", large.starts, labels, images)
            court(inpainting, f"{kind}, {told}", filled.images, labels, images)
            court(enlarging, f"{kind}, {told}", large.images, labels, images)
            if given is not None:
                made |= {"inpaint": filled, "super_resolve": large}
        few = images[: a.shown]
        others = (labels[: a.shown] + 1) % len(classes)
        made["translate"] = synthesis.translate(model, few, others, progress=bar)
        half = np.zeros(size)
        half[:, size[1] // 2 :] = 1
        made["paint"] = synthesis.paint(model, few, half, others, progress=bar)
        if set(LOOKS) <= set(classes):
            drawings, names = sketches(size)
            made["sketch"] = synthesis.sketch(model, drawings, names, progress=bar)
        for task, result in made.items():
            rows = np.stack([result.starts, result.images], 1)[: a.shown].swapaxes(0, 1)
            titles = [str(label) for label in result.labels[: a.shown]]
            sheet = grids.grid(rows, titles=titles, row_titles=["start", "picture"])
            grids.save(sheet, out / f"{task}_{kind}.png")
    files.write_json(out / "tables.json", court.tables)
    print(court.markdown())
    print(f"\n{out}")
    return 0


if __name__ == "__main__":
    rvis.keep_programs()
    sys.exit(main())
