"""DeepDream by depth, and towards a guide."""

from __future__ import annotations

import numpy as np

import rvis
from rvis.plotting import grids
from scripts.gallery import measures, networks
from scripts.gallery.base import Outcome, Part, Section, Tables, Verdict, both

_GROWTH = "squared activation, times that of the photograph"
_WAVES = "mean frequency of the change"
_PHOTO = "beagle cat"
_GUIDE = "monarch coffee"

Dreams = dict[str, np.ndarray]


def _dreams(
    network: str, layers: tuple[str, ...], photos: str, names: str, side: int, octaves: int
) -> Dreams:
    photograph = networks.photograph(photos, names, side)
    model, options = networks.load(network), {"octaves": octaves, "steps": 8}
    dreams = {name: rvis.deepdream(model, photograph, name, **options) for name in layers}
    return {"photograph": photograph} | {name: found.images for name, found in dreams.items()}


def _amplified(dreams: Dreams, network: str) -> Outcome:
    photograph, model, table = dreams["photograph"], networks.load(network), {}
    for name, dream in list(dreams.items())[1:]:
        before, after = (
            float(np.square(rvis.record(model, image[None], name)[name]).mean())
            for image in (photograph, dream)
        )
        table[name] = {
            _GROWTH: after / before,
            _WAVES: measures.centroid((dream - photograph)[None]),
        }
    pictures = list(dreams.values())
    return Outcome(grids.grid(pictures, titles=list(dreams), columns=3, scale=1), table)


def _guided(
    network: str, place: str, photos: str, names: str, other: str, side: int, octaves: int
) -> Dreams:
    photograph, guide = (networks.photograph(photos, some, side) for some in (names, other))
    model, options = networks.load(network), {"octaves": octaves, "steps": 8}
    free = rvis.deepdream(model, photograph, place, **options)
    led = rvis.deepdream(model, photograph, place, guide=guide, **options)
    return {"photograph": photograph, "free": free.images, "guide": guide, "guided": led.images}


def _led(dreams: Dreams, network: str, place: str) -> Outcome:
    model = networks.load(network)
    features = {
        name: np.asarray(rvis.record(model, image[None], place)[place]).reshape(-1, depth)
        for name, image in dreams.items()
        for depth in [rvis.layer_shapes(model)[place][-1]]
    }
    table = {
        name: {"share of energy in the guide's ten channels": _common(rows, features["guide"])}
        for name, rows in features.items()
    }
    names, pictures = list(dreams), list(dreams.values())
    return Outcome(grids.grid(pictures, titles=names, columns=4, scale=1), table)


def _common(rows: np.ndarray, guide: np.ndarray) -> float:
    """The share of energy in the channels that the guide excites most."""
    best = np.argsort(-np.square(guide).mean(0))[:10]
    energy = np.square(rows).mean(0)
    return float(energy[best].sum() / energy.sum())


def _judge(tables: Tables) -> Verdict:
    rows = list(tables["depth"].values())
    heights, waves = ([row[what] for row in rows] for what in (_GROWTH, _WAVES))
    amplified = min(heights) > 1
    free, led = (next(iter(tables["guided"][name].values())) for name in ("free", "guided"))
    told = (
        f"Squared activations grow by factors of {min(heights):.1f} to {max(heights):.1f}; the "
        f"change has a mean frequency of {waves[0]:.3f} cycles a pixel for the lowest layer and "
        f"{waves[-1]:.3f} for the highest. The ten channels that the guide excites most have "
        f"{led:.0%} of the energy in the guided dream, {free:.0%} in the free one."
    )
    points = (amplified, waves[-1] < waves[0], led > free)
    return Verdict("yes" if all(points) else "in part" if any(points) else "no", told)


def section(cast: networks.Cast) -> Section:
    """The section, drawn by these networks."""
    layers, deep = networks.depths(cast.trunk), networks.depths(cast.inside)[3]
    photograph = both(photos=cast.photos, names=_PHOTO)
    return Section(
        name="dream",
        title="DeepDream by depth",
        claim="Amplify what a layer sees in a photograph: low layers bring out strokes, high ones "
        "pieces of objects that are not there; led by another picture, pieces of that.",
        parts=(
            Part(
                name="depth",
                caption=f"A photograph and its dreams by layers of {networks.title(cast.trunk)}.",
                alt="A photograph of a dog, then the same overgrown with strokes, then meshes and "
                "spirals, then eyes, snouts and arches.",
                draw=_dreams,
                tell=lambda dreams: _amplified(dreams, cast.trunk),
                numbers=both(network=cast.trunk)
                | {"layers": ((layers[1], layers[3]), layers)}
                | photograph
                | {"side": (96, 240), "octaves": (1, 4)},
            ),
            Part(
                name="guided",
                caption=f"A photograph, its dream by {deep} of {networks.title(cast.inside)}, a "
                "guide, and the dream in which each place climbs to what it likes best in the "
                "guide.",
                alt="A photograph of a dog, the same overgrown with shapes, a second photograph, "
                "and the dog overgrown with pieces like that one's.",
                draw=_guided,
                tell=lambda dreams: _led(dreams, cast.inside, deep),
                numbers=both(network=cast.inside, place=deep)
                | photograph
                | both(other=_GUIDE)
                | {"side": (96, 240), "octaves": (1, 4)},
            ),
        ),
        judge=_judge,
    )
