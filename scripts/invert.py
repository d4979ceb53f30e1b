"""What each layer keeps of an image: reconstructions layer by layer, and their errors.

Command:  python scripts/invert.py MODEL IMAGE|DATA [--layers …] [--samples 2] [--out FOLDER]
Time:     two minutes for 20 images, 2 samples and 7 layers of a 32-pixel network on two cores.
Prints:   a table with a row for each layer: relative error of the code, the paper's normalised
          error, PSNR and SSIM to the original, how much samples differ among themselves (RMS of
          pixels, SSIM), the share nearer to its original than to any other image of the data; then
          whether PSNR falls and the spread grows with depth, and where the plates are:
          `figure.png` (the plate), `images/`, `arrays.npz` and `card.json`.
MODEL is a name of `rvis.list_models()` or a path that `rvis.load` reads (an architecture needs
`--weights`). IMAGE is any picture; DATA what `rvis.data.load` reads, of which `--count` are taken
evenly spread. Ctrl-C is safe: the same command goes on from there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

import rvis
from rvis.__main__ import reported
from rvis.inversion import LayerInversions, invert_layers

_COLUMNS = ("error", "normalised_error", "psnr", "ssim", "spread", "spread_ssim", "nearer")
_HEADS = ("code error", "normalised", "PSNR", "SSIM", "spread", "spread SSIM", "nearer")


def read(
    path: Path, split: str, count: int, shape: tuple[int, int, int]
) -> tuple[np.ndarray, rvis.data.Dataset | None]:
    """The images to invert (n, H, W, C), and the data set that they are of, if any."""
    if path.is_file() and path.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp", ".bmp"):
        image = rvis.data.read_image(path, size=shape[:2])
        image = image if shape[2] == 3 else image.mean(-1, keepdims=True)
        return np.clip(image, 0, 1)[None], None
    data = rvis.data.load(path, split, size=shape[:2])
    rvis.checks.count("--count", count)
    some = np.linspace(0, len(data) - 1, min(count, len(data))).astype(int)
    return np.asarray(data.floats(some)), data


def report(found: LayerInversions) -> None:
    """Prints the table and what it says of depth."""
    rows = found.table()
    width = max(len(row["layer"]) for row in rows)
    print(" " * width, *(f"{head:>11}" for head in _HEADS))
    for row in rows:
        cells = []
        for name in _COLUMNS:
            value = row[name]
            share = name in ("error", "normalised_error", "nearer")
            cells.append("-" if value is None else f"{value:.1%}" if share else f"{value:.3g}")
        print(f"{row['layer']:<{width}}", *(f"{cell:>11}" for cell in cells))
    if len(rows) < 3:
        return
    depth = np.arange(len(rows))[None]
    for name, words in (("psnr", "PSNR"), ("spread", "the spread")):
        values = np.asarray([row[name] for row in rows])[None]
        if np.isfinite(values).all():
            rank = rvis.analysis.metrics.spearman(depth, values).item()
            print(f"rank correlation of {words} with depth: {rank:+.2f}")


@reported(goes_on=True)
def main(arguments: list[str] | None = None) -> int:
    """Inverts, prints and draws; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("model")
    p.add_argument("images", type=Path, metavar="IMAGE|DATA")
    p.add_argument("--weights", help="a file of weights, for an architecture's name")
    p.add_argument("--split", default="test")
    p.add_argument("--count", type=int, default=20, help="images of a data set")
    p.add_argument("--layers", nargs="+", help="those that are not inside another by default")
    p.add_argument("--samples", type=int, default=2, help="reconstructions of each image")
    p.add_argument("--steps", type=int, default=384)
    p.add_argument("--image", help="fourier, pixel or pyramid")
    p.add_argument("--alpha", type=float, help="weight of the alpha-norm")
    p.add_argument("--tv", type=float, help="weight of the total variation; by depth by default")
    p.add_argument("--jitter", type=int, help="pixels; by the layer's stride by default")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    p.add_argument("--out", type=Path, help="out/MODEL_invert by default")
    a = p.parse_args(arguments)
    out = a.out or Path("out", f"{Path(a.model).name}_invert")
    model = rvis.load(a.model, weights=a.weights)
    images, data = read(a.images, a.split, a.count, model.input_shape)
    found = invert_layers(
        model,
        images,
        a.layers,
        samples=a.samples,
        references=data,
        checkpoint=out / "state",
        steps=a.steps,
        image=a.image,
        alpha=a.alpha,
        tv=a.tv,
        jitter=a.jitter,
        key=a.seed,
        progress=not a.quiet,
    )
    report(found)
    print(found.save(out) / "figure.png")
    return 0


if __name__ == "__main__":
    rvis.keep_programs()
    sys.exit(main())
