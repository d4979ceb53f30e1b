"""The content of one picture in the style of another; a texture; or the grid of layers and ratios.

Command:  python scripts/style.py [CONTENT STYLE …] [--model NAME] [--ratio 0.05 …] [--out FOLDER]
          python scripts/style.py --texture STYLE
          python scripts/style.py CONTENT STYLE --grid
Time:     two minutes at 128 pixels with a shipped network on two cores; VGG-19 at 256 pixels takes
          a second an evaluation.
Prints:   where the pictures are. `figure.png` has intermediate pictures; for `--grid` there is one
          picture whose rows take style from ever more layers and whose columns are ratios of
          content to style.
CONTENT and STYLE are picture files that Pillow reads; without any, a landscape and brushwork that
the script draws serve. MODEL is a name of `rvis.list_models()` or a
path that `rvis.load` reads (an architecture needs `--weights`). Ctrl-C is safe: the same command
goes on from there; of a grid, with the row that was interrupted and those before it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw

import rvis
from rvis import style
from rvis.__main__ import reported
from rvis.plotting import grids
from rvis.style.layers import defaults


def picture(path: Path, side: int | None, channels: int) -> np.ndarray:
    """A picture file, its longer side brought to `side` pixels, as the model takes it."""
    image = rvis.data.read_image(path, longest=side)
    return image if channels == 3 else image.mean(-1, keepdims=True)


def landscape(side: int, channels: int) -> np.ndarray:
    """A drawn house between hills under the sun."""
    drawn = PIL.Image.new("RGB", (512, 512), "#9fc5e8")
    pen = PIL.ImageDraw.Draw(drawn)
    pen.ellipse([(380, 40), (470, 130)], fill="#ffd966")
    pen.ellipse([(-200, 260), (330, 700)], fill="#6a994e")
    pen.ellipse([(180, 300), (760, 760)], fill="#386641")
    pen.rectangle([(170, 230), (330, 370)], fill="#f4f1de")
    pen.polygon([(145, 235), (250, 145), (355, 235)], fill="#bc4749")
    pen.rectangle([(230, 290), (275, 370)], fill="#5c4033")
    for x in (190, 290):
        pen.rectangle([(x, 255), (x + 28, 285)], fill="#457b9d")
    return _array(drawn, side, channels)


def brushwork(side: int, channels: int, seed: int = 0) -> np.ndarray:
    """Drawn strokes in blue and yellow along a swirling field."""
    rng = np.random.default_rng(seed)
    drawn = PIL.Image.new("RGB", (512, 512), "#1d3557")
    pen = PIL.ImageDraw.Draw(drawn)
    palette = ("#14213d", "#1d3557", "#274c77", "#6096ba", "#a3cef1", "#fca311", "#ffd166")
    for x, y in rng.uniform(-20, 532, (5000, 2)):
        angle = 3 * np.sin(x / 90) + 3 * np.cos(y / 80)
        half = 14 * np.array([np.cos(angle), np.sin(angle)])
        ends = [(x - half[0], y - half[1]), (x + half[0], y + half[1])]
        tone = (np.sin(x / 70 + np.cos(y / 60)) + 1) / 2 + rng.normal(0, 0.12)
        shade = palette[int(np.clip(tone * len(palette), 0, len(palette) - 1))]
        pen.line(ends, fill=shade, width=int(rng.integers(3, 8)))
    return _array(drawn, side, channels)


def _array(drawn: PIL.Image.Image, side: int, channels: int) -> np.ndarray:
    image = np.asarray(drawn.resize((side, side), PIL.Image.Resampling.BOX), np.float32) / 255
    return image if channels == 3 else image.mean(-1, keepdims=True)


@reported(goes_on=True)
def main(arguments: list[str] | None = None) -> int:
    """Paints and says where; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("pictures", nargs="*", type=Path, help="CONTENT STYLE …, or STYLE for a texture")
    p.add_argument("--texture", action="store_true")
    p.add_argument("--grid", action="store_true")
    p.add_argument("--model", default="cifar10_resnet_robust")
    p.add_argument("--weights", help="a file of weights, for an architecture's name")
    p.add_argument("--side", type=int, default=128, help="pixels of the longer side")
    p.add_argument("--style-side", type=int, help="of the style; as the content by default")
    p.add_argument("--ratio", type=float, nargs="+", default=[0.03], help="content to style")
    p.add_argument("--tv", type=float, default=0.0)
    p.add_argument("--start", default="content", choices=("content", "noise", "style"))
    p.add_argument("--colour", default="style", choices=("style", "histogram", "luminance"))
    p.add_argument("--pooling", default="max", choices=("max", "average"))
    p.add_argument("--tile", type=int, help="see larger pictures in windows of so many pixels")
    p.add_argument("--scales", type=float, nargs="+", default=[1.0], help="such as 0.5 1")
    p.add_argument("--steps", type=int, default=300)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    p.add_argument("--out", type=Path, default=Path("out", "style"))
    a = p.parse_args(arguments)
    model = rvis.load(a.model, weights=a.weights)
    channels = model.input_shape[2]
    if a.pictures and a.texture != (len(a.pictures) == 1):
        raise ValueError("pictures: CONTENT and STYLE, or STYLE with --texture, were expected")
    side = a.style_side or a.side
    styles = [picture(path, side, channels) for path in a.pictures[not a.texture :]]
    styles = styles or [brushwork(side, channels)]
    part = max(1, a.steps // 16)
    a.steps = part * max(1, a.steps // part)
    stages = tuple(sorted({0, part, min(4 * part, a.steps), a.steps}))
    shared = {
        "pooling": a.pooling,
        "scales": a.scales,
        "tile": a.tile,
        "tv": a.tv,
        "key": a.seed,
        "progress": not a.quiet,
        "steps": a.steps,
    }
    if a.texture:
        result = style.texture(
            model, styles[0], snapshots=stages, checkpoint=a.out / "state", **shared
        )
    else:
        content = landscape(a.side, channels)
        if a.pictures:
            content = picture(a.pictures[0], a.side, channels)
        shared |= {"ratio": a.ratio, "start": a.start, "colour": a.colour}
        if a.grid:
            layers = defaults("model", model)[0]
            rows = [
                style.transfer(
                    model,
                    content,
                    styles,
                    style_layers=layers[: i + 1],
                    checkpoint=a.out / f"state{i}",
                    **shared,
                ).images
                for i in range(len(layers))
            ]
            titles = [f"{ratio:g}" for ratio in a.ratio]
            names = [f"to {name}" for name in layers]
            grids.save(grids.grid(rows, titles=titles, row_titles=names), a.out / "grid.png")
            print(a.out / "grid.png")
            return 0
        result = style.transfer(
            model, content, styles, snapshots=stages, checkpoint=a.out / "state", **shared
        )
    result.save(a.out)
    print(a.out)
    return 0


if __name__ == "__main__":
    rvis.keep_programs()
    sys.exit(main())
