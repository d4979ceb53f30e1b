"""Makes pictures of sentences through CLIP's encoders, and has a second CLIP judge them.

Command:  python scripts/invert_clip.py "a small red circle on the left" ["another sentence" …]
          python scripts/invert_clip.py --test 40 --judge FOLDER
Time:     seconds a picture with the shipped CLIP; the test, a few minutes on two cores.
Prints:   each sentence with the cosine of its picture. With `--test`, for as many sentences about
          held-out combinations of colour, shape and place, with and without augmentations: how
          often the judge ranks the right sentence first, and how often the dominant colour at the
          named place is right, measured on pixels. The folder has the pictures, a sheet and the
          table.
A CLIP is a name of `rvis.clip.list_clips()` or a path that `rvis.clip.load` reads.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from rvis import clip, files
from rvis.__main__ import reported
from rvis.analysis import metrics
from rvis.plotting import grids

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where run as a file
from scripts.clip_scenes import scenes


def held_out_sentences(count: int, seed: int) -> tuple[list[str], scenes.Facts]:
    """Different sentences of one shape, its colour and its place, with their facts."""
    rng = np.random.default_rng(seed)
    every = scenes.HELD_OUT
    if not 0 < count <= len(every):
        raise ValueError(f"test: 1 to {len(every)} sentences were expected, given {count}")
    chosen = [every[i] for i in rng.permutation(len(every))[:count]]
    sizes = rng.choice((0, 2), count)
    facts = {
        fact: np.asarray([scenes.VALUES[fact].index(values[i]) for values in chosen])
        for i, fact in enumerate(("colour", "shape", "position"))
    }
    texts = [
        f"a {scenes.VALUES['size'][size]} {colour} {shape} {scenes.POSITIONS[place][0]}"
        for (colour, shape, place), size in zip(chosen, sizes, strict=True)
    ]
    return texts, facts


def dominant_colours(images: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """The colour that most of each picture's named place is nearest to.

    Every pixel within a sixth of the side of the place's middle votes for the colour of the palette
    whose hue is nearest, with the weight of its chroma (how far it is from grey).

    Args:
      images: (n, H, W, 3) in [0, 1].
      positions: (n,) numbers of places.

    Returns:
      (n,) numbers of colours.
    """
    palette = np.asarray([rgb for rgb, _ in scenes.COLOURS.values()])
    side = images.shape[1]
    axis = (np.arange(side) + 0.5) / side
    found = []
    for image, place in zip(images, positions, strict=True):
        middle = 0.5 + 0.28 * (np.asarray(divmod(int(place), 3)) - 1)
        near = np.hypot(axis[:, None] - middle[0], axis[None] - middle[1]) < 1 / 6
        pixels = image[near]
        chroma = pixels.max(1) - pixels.min(1)
        apart = np.linalg.norm(pixels[:, None] - palette, axis=2)
        votes = np.zeros(len(palette))
        np.add.at(votes, apart.argmin(1), chroma)
        found.append(votes.argmax())
    return np.asarray(found)


@reported()
def main(arguments: list[str] | None = None) -> int:
    """Makes, judges and draws; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("texts", nargs="*", metavar="TEXT")
    p.add_argument("--clip", nargs="+", default=["scenes"], help="one, or several to average")
    p.add_argument("--tokenizer", help="a vocabulary, for weights that come without")
    p.add_argument("--judge", help="a CLIP of another seed")
    p.add_argument("--test", type=int, metavar="N", help="judge N held-out sentences")
    p.add_argument("--negative", help="a text to keep away from")
    p.add_argument("--samples", type=int, default=4, help="of which the nearest counts")
    p.add_argument("--steps", type=int, default=240)
    p.add_argument("--sizes", type=int, nargs="+", help="sides that the picture grows through")
    p.add_argument("--image", default="fourier", help="fourier or pixel")
    p.add_argument("--copies", type=int, default=8)
    p.add_argument("--plain", action="store_true", help="without augmentations")
    p.add_argument("--tv", type=float, default=0.5)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    p.add_argument("--out", type=Path, default=Path("out", "clip"))
    a = p.parse_args(arguments)
    if bool(a.texts) == bool(a.test):
        raise ValueError("texts: sentences, or --test N, were expected")
    if a.test and not a.judge:
        raise ValueError("judge: a CLIP of another seed was expected beside --test")
    towers = [clip.load(name, tokenizer=a.tokenizer) for name in a.clip]
    texts, facts = held_out_sentences(a.test, a.seed) if a.test else (a.texts, {})
    judge = clip.load(a.judge, tokenizer=a.tokenizer) if a.judge else None
    augmentations = {"with augmentations": clip.Augment(), "without": None}
    if not a.test:
        kind = "without" if a.plain else "with augmentations"
        augmentations = {kind: augmentations[kind]}
    rows, pictures = [], []
    for kind, augment in augmentations.items():
        found = clip.invert(
            towers,
            texts,
            negative=a.negative,
            samples=a.samples,
            key=a.seed,
            sizes=a.sizes,
            steps=a.steps,
            image=a.image,
            copies=a.copies,
            augment=augment,
            tv=a.tv,
            progress=not a.quiet,
        )
        found.save(a.out / kind.replace(" ", "_"))
        # Of several samples the one that the encoder itself likes best.
        flat = found.images.reshape(len(texts), a.samples, *found.images.shape[-3:])
        cosines = found.similarities.reshape(len(texts), a.samples)
        best = flat[np.arange(len(texts)), cosines.argmax(1)]
        pictures.append(best)
        row = {"pictures": kind, "cosine": f"{cosines.max(1).mean():.3f}"}
        if judge is not None:
            side = judge.config.image_size
            if best.shape[1] != side:
                raise ValueError(f"sizes: {side}, what the judge sees, was expected at the end")
            seen = clip.encode_image(judge, best) @ clip.encode_text(judge, texts).T
            first = seen.argmax(1) == np.arange(len(texts))
            row[f"judge ranks first of {len(texts)}"] = f"{metrics.share(first):.1%}"
        if a.test:
            colours = dominant_colours(best, facts["position"])
            row["colour right at the place"] = f"{metrics.share(colours == facts['colour']):.1%}"
        rows.append(row)
        if not a.test:
            for text, cosine in zip(texts, cosines.max(1), strict=True):
                print(f"{cosine:.3f}  {text}")
    lines = ["| " + " | ".join(rows[0]) + " |", "|---" * len(rows[0]) + "|"]
    lines += ["| " + " | ".join(row.values()) + " |" for row in rows]
    table = "\n".join(lines) + "\n"
    files.write_text(a.out / "table.md", table)
    sheet = grids.grid(np.stack(pictures, 1), titles=list(augmentations), row_titles=texts)
    grids.save(sheet, a.out / "sheet.png")
    print(table + str(a.out / "sheet.png"))
    return 0


if __name__ == "__main__":
    from rvis import keep_programs

    keep_programs()
    sys.exit(main())
