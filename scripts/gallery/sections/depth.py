"""Filter plates by depth: patterns grow in size and complexity."""

from __future__ import annotations

import rvis
from rvis.analysis import metrics
from rvis.objectives import channel
from rvis.plotting import grids
from scripts.gallery import measures, networks
from scripts.gallery.base import Outcome, Part, Section, Tables, Verdict, both

_WAVES = "spectral centroid, cycles a pixel"


def _plates(
    network: str, layers: tuple[str, ...], units: tuple[int, ...], size: int, steps: int
) -> dict[str, rvis.Result]:
    model = networks.load(network)
    return {
        name: rvis.visualize(model, channel(name, units), size=size, steps=steps) for name in layers
    }


def _told(plates: dict[str, rvis.Result]) -> Outcome:
    table = {}
    for name, result in plates.items():
        waves = [measures.centroid(image[None]) for image in result.images[~result.dead]]
        table[name] = measures.told(_WAVES, metrics.mean(waves))
    rows = [list(result.images) for result in plates.values()]
    return Outcome(grids.grid(rows, row_titles=list(plates)), table)


def _judge(tables: Tables) -> Verdict:
    waves = {name: measures.read(row, _WAVES) for name, row in tables["plates"].items()}
    means = [wave.mean for wave in waves.values()]
    peak = max(waves, key=lambda name: waves[name].mean)
    after = means[list(waves).index(peak) :]
    falling = after == sorted(after, reverse=True) and len(after) > 1
    first, *_, last = waves
    why = "" if peak == first else f" It is highest in {peak}: colour filters ask for flat fills."
    return Verdict(
        "yes" if falling and peak == first else "in part" if means[-1] < max(means) else "no",
        f"The pictures' mean frequency is {waves[first]:.3f} cycles a pixel in {first} and "
        f"{waves[last]:.3f} in {last}, {'falling' if falling else 'not falling'} at every layer "
        f"from {peak} on.{why}",
    )


def section(cast: networks.Cast) -> Section:
    """The section, drawn by these networks."""
    layers = networks.depths(cast.trunk)
    chosen = (layers[1], layers[3]), layers
    some = (1, 3, 8)
    return Section(
        name="depth",
        title="Filter plates by depth",
        claim="From layer to layer, what channels look for grows from edges to textures to parts "
        "and objects: larger patterns, lower frequencies.",
        parts=(
            Part(
                name="plates",
                caption=f"Channels of layers of {networks.title(cast.trunk)}, the lowest at the "
                "top.",
                alt="Rows of pictures, from plain colours and fine stripes at the top to meshes, "
                "then spirals, eyes and shapes of things at the bottom.",
                draw=_plates,
                tell=_told,
                numbers=both(network=cast.trunk)
                | {
                    "layers": chosen,
                    "units": (some, (*some, 12)),
                    "size": (48, 180),
                    "steps": (16, 32),
                },
            ),
        ),
        judge=_judge,
        needs="Three units a layer of 48 pixels are too few to tell.",
    )
