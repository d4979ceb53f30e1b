"""From a sentence to a picture, through CLIP's encoders alone."""

from __future__ import annotations

import numpy as np

import rvis
from rvis import clip
from rvis.analysis import metrics
from rvis.plotting import grids
from scripts.clip_scenes import scenes
from scripts.gallery import measures, networks
from scripts.gallery.base import Outcome, Part, Section, Tables, Verdict

_COLUMNS = 4


def _sentences(
    sizes: tuple[int, ...], steps: int, copies: int, count: int
) -> tuple[np.ndarray, clip.Inversion]:
    encoders = rvis.clip.load("scenes")
    texts = [
        f"a large {colour} {shape} {scenes.POSITIONS[place][0]}"
        for colour, shape, place in scenes.HELD_OUT[:: 48 // count][:count]
    ]
    found = rvis.clip.invert(encoders, texts, sizes=sizes, steps=steps, copies=copies)
    seen = rvis.clip.encode_image(encoders, found.images)
    return seen @ rvis.clip.encode_text(encoders, texts).T, found


def _told(made: tuple[np.ndarray, clip.Inversion]) -> Outcome:
    similarities, found = made
    n = len(similarities)
    facts = scenes.HELD_OUT[:: 48 // n][:n]
    places = [tuple(scenes.POSITIONS).index(place) for _, _, place in facts]
    colours = [tuple(scenes.COLOURS)[i] for i in _dominant(found.images, places)]
    right = [seen == colour for seen, (colour, _, _) in zip(colours, facts, strict=True)]
    own = np.diag(similarities)
    others = similarities[~np.eye(n, dtype=bool)]
    table = {
        "pictures": measures.told("colour right at the place", metrics.share(right))
        | {
            "by chance": 1 / len(scenes.COLOURS),
            "cosine with its own sentence": float(own.mean()),
            "with the others": float(others.mean()),
            "own sentence nearest": float((similarities.argmax(1) == np.arange(n)).mean()),
        }
    }
    titles = [f"{colour} {shape}, {place}" for colour, shape, place in facts]
    return Outcome(grids.grid(found.images, titles=titles, columns=_COLUMNS, scale=5), table)


def _dominant(images: np.ndarray, places: list[int]) -> np.ndarray:
    """The number of the colour that most of each picture's named place is nearest to.

    Every pixel within a sixth of the side of the place's middle votes with its chroma.
    """
    palette = np.asarray([rgb for rgb, _ in scenes.COLOURS.values()])
    side = images.shape[1]
    axis = (np.arange(side) + 0.5) / side
    found = []
    for image, place in zip(images, places, strict=True):
        middle = 0.5 + 0.28 * (np.asarray(divmod(place, 3)) - 1)
        pixels = image[np.hypot(axis[:, None] - middle[0], axis[None] - middle[1]) < 1 / 6]
        nearest = np.linalg.norm(pixels[:, None] - palette, axis=2).argmin(1)
        votes = np.bincount(nearest, np.ptp(pixels, axis=1), len(palette))
        found.append(votes.argmax())
    return np.asarray(found)


def _beside(steps: int) -> dict[str, clip.Inversion]:
    encoders = rvis.clip.load("scenes")
    texts = [
        f"a large {colour} circle in the centre" for colour in ("red", "green", "blue", "yellow")
    ]
    return {
        "augmented": rvis.clip.invert(encoders, texts, sizes=48, steps=steps, copies=2),
        "as it is": rvis.clip.invert(encoders, texts, sizes=48, steps=steps, augment=None),
    }


def _compared(made: dict[str, clip.Inversion]) -> Outcome:
    table = {}
    for kind, found in made.items():
        fine = [measures.fine(image[None]) for image in np.asarray(found.images)]
        table[kind] = measures.told("energy in fine detail", metrics.mean(fine))
    rows = [list(found.images) for found in made.values()]
    return Outcome(grids.grid(rows, row_titles=list(made), scale=2), table)


def _judge(tables: Tables) -> Verdict:
    row = tables["sentences"]["pictures"]
    right, first = measures.read(row, "colour right at the place"), row["own sentence nearest"]
    # A sentence tells a shape too, which is not measured, so that the claim never holds in full.
    return Verdict(
        "in part" if right.low > row["by chance"] or first > 0.8 else "no",
        f"In {right:.0%} of the pictures the colour told is the dominant one at the place told "
        f"(chance {row['by chance']:.0%}); {first:.0%} are nearest to their own sentence, with a "
        f"cosine of {row['cosine with its own sentence']:.2f} against "
        f"{row['with the others']:.2f} with the others. Shapes were not measured.",
    )


def section(cast: networks.Cast) -> Section:
    """The section; no other network plays in it."""
    del cast
    return Section(
        name="clip",
        title="From a sentence to a picture",
        claim="A sentence alone, through the gradient of an image encoder that was trained beside "
        "a text encoder, becomes a picture of what it says.",
        parts=(
            Part(
                name="sentences",
                caption='Pictures climbed from noise towards sentences such as "a large red circle '
                'in the top left", by a small CLIP trained on drawn scenes, none of which had '
                "these combinations of colour, shape and place. The cosines are that CLIP's own.",
                alt="Pictures of one colour patch each, at the place that the title tells.",
                draw=_sentences,
                tell=_told,
                numbers={
                    "sizes": ((48,), (16, 32, 48)),
                    "steps": (60, 120),
                    "copies": (2, 4),
                    "count": (4, 12),
                },
            ),
            Part(
                name="beside",
                caption="A red, a green, a blue and a yellow circle in the centre, with and "
                "without augmentations: what is climbed without them is noisier.",
                alt="Two rows of four pictures: coloured patches, and the same among noise.",
                draw=_beside,
                tell=_compared,
                numbers={"steps": (24, 120)},
                quick=False,
            ),
        ),
        judge=_judge,
        needs="So few steps often miss the colour.",
    )
