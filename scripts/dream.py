"""DeepDream on a photograph, and the film of a flight into it.

Command:  python scripts/dream.py IMAGE [--model NAME] [--layer LAYER] [--out FOLDER]
          python scripts/dream.py IMAGE --guide OTHER_IMAGE
          python scripts/dream.py IMAGE --frames 40
Time:     seconds for 256 pixels with a shipped network; minutes for a large photograph.
Prints:   where the picture (`dream.png`) or the film (`dream.webp`) is.
IMAGE is any picture file that Pillow reads. LAYER is a name of `model.layers`; several make one
picture each. Ctrl-C is safe: the same command goes on from there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

import rvis
from rvis.__main__ import reported
from rvis.plotting import films, grids


def picture(path: Path, side: int | None, channels: int) -> np.ndarray:
    """A picture file, its longer side brought to `side` pixels, as the model takes it."""
    image = rvis.data.read_image(path, longest=side)
    return image if channels == 3 else image.mean(-1, keepdims=True)


@reported(goes_on=True)
def main(arguments: list[str] | None = None) -> int:
    """Dreams and says where; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("image", type=Path)
    p.add_argument("--model", default="cifar10_resnet_robust")
    p.add_argument("--weights", help="a file of weights, for an architecture's name")
    p.add_argument("--layer", nargs="+", default=["layer4"], help="layer4 by default")
    p.add_argument(
        "--side", type=int, help="pixels of the longer side; the picture's own if absent"
    )
    p.add_argument("--guide", type=Path, help="a picture whose features are to be dreamt")
    p.add_argument("--octaves", type=int, default=4)
    p.add_argument("--scale", type=float, default=1.4)
    p.add_argument("--steps", type=int, default=10)
    p.add_argument("--step-size", type=float, default=1.5 / 255)
    p.add_argument("--frames", type=int, default=0, help="frames of a film that zooms in")
    p.add_argument("--tile", type=int, default=512, help="pixels seen at once")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    p.add_argument("--out", type=Path, default=Path("out", "dream"))
    a = p.parse_args(arguments)
    model = rvis.load(a.model, weights=a.weights)
    channels = model.input_shape[2]
    photo = picture(a.image, a.side, channels)
    guide = None if a.guide is None else picture(a.guide, a.side, channels)
    options = {
        "octaves": a.octaves,
        "scale": a.scale,
        "steps": a.steps,
        "step_size": a.step_size,
        "guide": guide,
        "tile": a.tile,
        "key": a.seed,
        "progress": not a.quiet,
    }
    written = []
    for layer in a.layer:
        name = "dream" if len(a.layer) == 1 else f"dream_{layer}"
        if a.frames:
            frames = rvis.visualization.zoom(model, photo, layer, frames=a.frames, **options).images
            written.append(a.out / f"{name}.webp")
            films.film([grids.to_pil(frame) for frame in frames], written[-1])
            continue
        state = a.out / f"state_{layer}"
        result = rvis.deepdream(model, photo, layer, checkpoint=state, **options)
        written.append(a.out / f"{name}.png")
        grids.save(grids.to_pil(np.asarray(result.images)), written[-1])
    for path in written:
        print(path)
    return 0


if __name__ == "__main__":
    rvis.keep_programs()
    sys.exit(main())
