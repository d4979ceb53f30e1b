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


_KINDS = ("standard", "adversarially trained")
_COLOUR, _SHAPE = "colour right at the place", "shape told by its outline"


def _sentences(
    sizes: tuple[int, ...], steps: int, copies: int, count: int
) -> tuple[clip.Inversion, clip.Inversion]:
    texts = [
        f"a large {colour} {shape} {scenes.POSITIONS[place][0]}"
        for colour, shape, place in scenes.HELD_OUT[:: 48 // count][:count]
    ]
    standard = rvis.clip.invert(
        rvis.clip.load("scenes"), texts, sizes=sizes, steps=steps, copies=copies
    )
    robust = rvis.clip.invert(
        rvis.clip.load("scenes_robust"), texts, sizes=sizes, steps=steps, copies=copies
    )
    return standard, robust


def _told(made: tuple[clip.Inversion, clip.Inversion]) -> Outcome:
    n = len(made[0].images)
    facts = scenes.HELD_OUT[:: 48 // n][:n]
    names = [f"{colour} {shape}, {place}" for colour, shape, place in facts]
    places = [tuple(scenes.POSITIONS).index(place) for _, _, place in facts]
    shapes = [tuple(scenes.SHAPES).index(shape) for _, shape, _ in facts]
    table = {}
    for kind, found in zip(_KINDS, made, strict=True):
        colours = [tuple(scenes.COLOURS)[i] for i in _dominant(found.images, places)]
        right = [seen == colour for seen, (colour, _, _) in zip(colours, facts, strict=True)]
        outlines = [_outline(*told) for told in zip(found.images, facts, places, strict=True)]
        fine = [measures.fine(image[None]) for image in np.asarray(found.images)]
        table[kind] = (
            measures.told(_COLOUR, metrics.share(right))
            | measures.told(_SHAPE, metrics.share(np.equal(outlines, shapes)))
            | measures.told("energy in fine detail", metrics.mean(fine))
        )
    table["by chance"] = {_COLOUR: 1 / len(scenes.COLOURS), _SHAPE: 1 / len(scenes.SHAPES)}
    images, titles = [], []
    for first in range(0, n, _COLUMNS):
        for kind, found in zip(_KINDS, made, strict=True):
            images += list(found.images[first : first + _COLUMNS])
            some = names[first : first + _COLUMNS]
            titles += some if kind == "standard" else [kind] * len(some)
    return Outcome(grids.grid(images, titles=titles, columns=_COLUMNS, scale=4), table)


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


def _outline(image: np.ndarray, facts: tuple[str, str, str], place: int, draws: int = 200) -> int:
    """The number of the shape whose masks at the place are nearest to what has the told colour.

    No network judges: the chroma of the pixels of that colour is correlated with drawn masks.
    """
    palette = np.asarray([rgb for rgb, _ in scenes.COLOURS.values()])
    nearest = np.linalg.norm(image[:, :, None] - palette, axis=3).argmin(2)
    seen = np.ptp(image, axis=2) * (nearest == tuple(scenes.COLOURS).index(facts[0]))
    shapes = np.arange(len(scenes.SHAPES)).repeat(draws)
    large = tuple(scenes.SIZES).index("large")
    others = {"position": place, "size": large, "colour": 0, "count": 0, "background": 0}
    drawn = {name: np.full_like(shapes, value) for name, value in others.items()}
    drawn["shape"] = shapes
    _, masks = scenes.draw(np.random.default_rng(0), drawn, image.shape[0])
    masks = masks.reshape(len(masks), -1) - masks.mean((1, 2))[:, None]
    alike = masks @ (seen - seen.mean()).ravel() / np.linalg.norm(masks, axis=1)
    return int(alike.reshape(-1, draws).max(1).argmax())


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
    table = tables["sentences"]
    chance, rows = table["by chance"], [table[kind] for kind in _KINDS]
    colours = [measures.read(row, _COLOUR) for row in rows]
    shapes = [measures.read(row, _SHAPE) for row in rows]
    shown = all(x.low > chance[_COLOUR] for x in colours)
    told = max(x.low for x in shapes) > chance[_SHAPE]
    return Verdict(
        "yes" if shown and told else "in part" if shown or told else "no",
        f"The colour told is the dominant one at the place told in {colours[0]:.0%} of the "
        f"pictures of the standard CLIP and in {colours[1]:.0%} of those of the one trained on "
        f"adversarial images (chance {chance[_COLOUR]:.0%}). The outline is nearest to the "
        f"shape told in {shapes[0]:.0%} and {shapes[1]:.0%} (chance {chance[_SHAPE]:.0%}).",
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
                "these combinations of colour, shape and place; below each row the same sentences "
                "by a CLIP whose image tower was trained on adversarial images too.",
                alt="Pairs of rows: pictures of one colour patch each, at the place that the title "
                "tells.",
                draw=_sentences,
                tell=_told,
                numbers={
                    "sizes": ((48,), (16, 32, 48)),
                    "steps": (32, 120),
                    "copies": (1, 4),
                    "count": (2, 12),
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
