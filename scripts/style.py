"""The content of one picture in the style of another; a texture; or the grid of layers and ratios.

Command:  python scripts/style.py CONTENT STYLE [--model NAME] [--ratio 0.05 …] [--out FOLDER]
          python scripts/style.py --texture STYLE
          python scripts/style.py CONTENT STYLE --grid
Time:     two minutes at 128 pixels with a shipped network on two cores; VGG-19 at 256 pixels takes
          a second an evaluation.
Prints:   where the pictures are. Besides the result there are `steps.png` with intermediate
          pictures; for `--grid` one picture whose rows take style from ever more layers and whose
          columns are ratios of content to style.
CONTENT and STYLE are picture files that Pillow reads; MODEL is a name of `rvis.list_models()` or a
path that `rvis.load` reads (an architecture needs `--weights`). Ctrl-C is safe: the same command
goes on from there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

import rvis
from rvis import plots, style
from rvis.style.layers import defaults


def picture(path: Path, side: int | None, channels: int) -> np.ndarray:
    """A picture file, its longer side brought to `side` pixels, as the model takes it."""
    image = rvis.data.read_image(path)
    if side is not None:
        scale = side / max(image.shape[:2])
        size = (max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale)))
        image = rvis.data.read_image(path, size=size)
    return image if channels == 3 else image.mean(-1, keepdims=True)


def main(arguments: list[str] | None = None) -> int:
    """Paints and says where; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("pictures", nargs="+", type=Path, help="CONTENT STYLE …, or STYLE for a texture")
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
    p.add_argument("--scales", type=float, nargs="+", default=[1.0], help="such as 0.5 1")
    p.add_argument("--steps", type=int, default=300)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    p.add_argument("--out", type=Path, default=Path("out", "style"))
    a = p.parse_args(arguments)
    try:
        model = rvis.load(a.model, weights=a.weights)
        channels = model.input_shape[2]
        if a.texture != (len(a.pictures) == 1):
            raise ValueError("pictures: CONTENT and STYLE, or STYLE with --texture, were expected")
        stages = tuple(sorted({0, a.steps // 16, a.steps // 4, a.steps}))
        shared = {
            "pooling": a.pooling,
            "scales": a.scales,
            "tv": a.tv,
            "key": a.seed,
            "progress": not a.quiet,
            "steps": a.steps,
        }
        if a.texture:
            source = picture(a.pictures[0], a.side, channels)
            result = style.texture(
                model, source, snapshots=stages, checkpoint=a.out / "state", **shared
            )
        else:
            content = picture(a.pictures[0], a.side, channels)
            styles = [picture(path, a.style_side or a.side, channels) for path in a.pictures[1:]]
            shared |= {"ratio": a.ratio, "start": a.start, "colour": a.colour}
            if a.grid:
                layers = defaults(model)[0]
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
                plots.save(plots.grid(rows, titles=titles, row_titles=names), a.out / "grid.png")
                print(a.out / "grid.png")
                return 0
            result = style.transfer(
                model, content, styles, snapshots=stages, checkpoint=a.out / "state", **shared
            )
        result.save(a.out)
        plots.save(result.show(), a.out / "steps.png")
    except (ValueError, TypeError, OSError, FloatingPointError) as error:
        print(f"{p.prog}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{p.prog}: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    print(a.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
