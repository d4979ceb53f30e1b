"""From edges to objects in one network; what can be asked of it; what keeps noise out."""

from __future__ import annotations

import numpy as np

import rvis
from rvis import images, objectives, regularizers
from rvis.analysis import metrics
from rvis.objectives import channel, diversity, layer, logit, neuron, probability
from rvis.plotting import grids
from scripts.gallery import measures, networks, samples
from scripts.gallery.base import Outcome, Part, Section, Tables, Verdict, both

_FINE = "energy above a quarter of a cycle a pixel"
_RANK = "share of 51 photographs below"
_COSINE = "Gram cosine of the four"
_ACTIVE = "activation of the channel"
_UNIT = 11
_KINDS = ("neuron", "channel", "layer", "logit", "probability")
_REMEDIES = ("none", "total variation", "transforms", "Fourier", "both")


def _levels(
    network: str, layers: tuple[str, ...], units: tuple[int, ...], size: int, steps: int
) -> dict[str, rvis.Result]:
    model = networks.load(network)
    steep = images.Fourier((size, size, 3), decay=1.5)
    return {
        name: rvis.visualize(model, channel(name, units), image=steep, steps=steps)
        for name in layers
    }


def _ranked(levels: dict[str, rvis.Result], network: str) -> Outcome:
    model = networks.load(network)
    animals = samples.load("tiny_imagenet_animals").floats()[::4]
    table = {}
    for name, result in levels.items():
        units = [int(str(label).rsplit(":", 1)[1]) for label in result.labels]
        real = measures.resized(animals, result.images.shape[1])
        judged = rvis.faithfulness(model, channel(name, units), result.images, real)
        table[name] = {_RANK: float(judged.percentile.mean() / 100)}
        table[name]["pictures above all"] = int((judged.percentile == 100).sum())
        table[name]["pictures"] = len(units)
    rows = [list(result.images) for result in levels.values()]
    return Outcome(grids.grid(rows, row_titles=list(levels)), table)


def _asked(
    network: str, kinds: tuple[str, ...], place: str, unit: int, name: str, size: int, steps: int
) -> dict[str, rvis.Result]:
    model = networks.load(network)
    steep = images.Fourier((size, size, 3), decay=1.5)
    number = model.classes.index(name)
    asked = {
        "neuron": neuron(place, unit),
        "channel": channel(place, unit),
        "layer": layer(place),
        "logit": logit(number),
        "probability": probability(number),
    }
    return {kind: rvis.visualize(model, asked[kind], image=steep, steps=steps) for kind in kinds}


def _answered(found: dict[str, rvis.Result]) -> Outcome:
    table = {}
    for name, result in found.items():
        scores = np.squeeze(result.scores)
        # The ascent climbs the logarithm of a probability.
        scores = np.exp(scores) if name == "probability" else scores
        table[name] = {"of noise": float(scores[0]), "at the end": float(scores[-1])}
    return Outcome(grids.grid([[r.images for r in found.values()]], titles=list(found)), table)


def _regularized(
    network: str,
    remedies: tuple[str, ...],
    place: str,
    units: tuple[int, ...],
    size: int,
    steps: int,
) -> dict[str, rvis.Result]:
    model, asked = networks.load(network), channel(place, units)
    steep = images.Fourier((size, size, 3), decay=1.5)
    bare = {"size": size, "image": "pixel", "transforms": ()}
    kinds = {
        "none": bare,
        "total variation": {**bare, "regularizers": (regularizers.total_variation(0.25),)},
        "transforms": {"size": size, "image": "pixel"},
        "Fourier": {"image": steep, "transforms": ()},
        "both": {"image": steep},
    }
    return {kind: rvis.visualize(model, asked, steps=steps, **kinds[kind]) for kind in remedies}


def _held_back(found: dict[str, rvis.Result]) -> Outcome:
    table = {}
    for name, result in found.items():
        fine = [measures.fine(image[None]) for image in result.images]
        table[name] = measures.told(_FINE, metrics.mean(fine))
    real = samples.load("tiny_imagenet_animals").floats()[::4]
    real = measures.resized(real, next(iter(found.values())).images.shape[1])
    fine = [measures.fine(image[None]) for image in real]
    table["photographs"] = measures.told(_FINE, metrics.mean(fine))
    rows = [list(result.images) for result in found.values()]
    return Outcome(grids.grid(rows, row_titles=list(found)), table)


def _four(
    network: str, place: str, unit: int, weight: float, size: int, steps: int
) -> list[rvis.Result]:
    model, asked = networks.load(network), channel(place, [unit])
    steep = images.Fourier((size, size, 3), decay=1.5)
    return [
        rvis.visualize(model, asked + w * diversity(place), image=steep, facets=4, steps=steps)
        for w in (0.0, weight)
    ]


def _differing(found: list[rvis.Result], network: str, place: str) -> Outcome:
    model, table = networks.load(network), {}
    for name, result in zip(("without", "with diversity"), found, strict=True):
        seen = rvis.record(model, result.images[0], place)[place]
        table[name] = {
            _COSINE: float(objectives.gram_cosine(seen)),
            _ACTIVE: float(seen[..., _UNIT].mean()),
        }
    rows = [list(result.images[0]) for result in found]
    return Outcome(grids.grid(rows, row_titles=list(table)), table)


def _more(network: str, place: str, units: tuple[int, ...], size: int, steps: int) -> rvis.Result:
    steep = images.Fourier((size, size, 3), decay=1.5)
    return rvis.visualize(networks.load(network), channel(place, units), image=steep, steps=steps)


def _plain(result: rvis.Result) -> Outcome:
    table = {
        str(label): {"of noise": float(scores[0]), "at the end": float(scores[-1])}
        for label, scores in zip(result.labels, result.scores, strict=True)
    }
    return Outcome(grids.grid([list(result.images)], titles=list(table)), table)


def _judge(tables: Tables) -> Verdict:
    levels = tables["levels"].values()
    above, drawn = (sum(row[what] for row in levels) for what in ("pictures above all", "pictures"))
    best = metrics.share(np.arange(drawn) < above)
    fine = {name: measures.read(row, _FINE) for name, row in tables["regularization"].items()}
    helped = sum(fine[name].mean < fine["none"].mean for name in list(fine)[1:-1])
    alone, spread = tables["facets"].values()
    falls, kept = 1 - spread[_COSINE] / alone[_COSINE], spread[_ACTIVE] / alone[_ACTIVE]
    points = (best.low > 0.5, helped == len(fine) - 2, falls > 0.1 and kept > 0.5)
    return Verdict(
        "yes" if all(points) else "in part" if any(points) else "no",
        f"{best:.0%} of {drawn} pictures excite their channel more than every one of 51 "
        f"photographs does. Without regularization {fine['none']:.0%} of the energy is fine "
        f"detail, with Fourier images and transforms {fine['both']:.0%} (photographs: "
        f"{fine['photographs']:.0%}); {helped} of {len(fine) - 2} remedies lower it. Asked to "
        f"differ, four pictures' Gram cosine falls by {falls:.0%} and they keep {kept:.0%} of the "
        f"activation.",
    )


def section(cast: networks.Cast) -> Section:
    """The section, drawn by these networks."""
    network, layers = cast.inside, networks.depths(cast.inside)
    name, model = networks.title(network), networks.load(network)
    class_name = "king penguin" if "king penguin" in model.classes else "king_penguin"
    small = {"size": (64, 128)}
    own = both(network=network, place=layers[3])
    return Section(
        name="inside",
        title="From edges to objects, and what can be asked",
        claim="One network's layers go from edges to textures, patterns, parts and objects. The "
        "same ascent asks for a neuron, a channel, a layer or a class. Without regularization a "
        "picture fills with high-frequency noise. And one unit has several facets.",
        parts=(
            Part(
                name="levels",
                caption=f"Channels of five layers of {name}, from the lowest (top) to the highest. "
                "The table has how many of 51 photographs excite the channel less.",
                alt="Rows of pictures: stripes, then textures, then patterns such as scales and "
                "grids, then eyes and curves, then pieces of animals and things.",
                draw=_levels,
                tell=lambda levels: _ranked(levels, network),
                numbers=both(network=network)
                | {
                    "layers": ((layers[1], layers[3]), layers),
                    "units": ((11, 14), (2, 5, 8, 11, 14)),
                    **small,
                    "steps": (24, 128),
                },
            ),
            Part(
                name="objectives",
                caption=f"One unit of {layers[3]} of {name} as a neuron and as a channel; all of "
                "the layer; and a class as logit and as probability.",
                alt="Five pictures: a spot of pattern, the pattern everywhere, a mixture, and two "
                "of a penguin in pieces.",
                draw=_asked,
                tell=_answered,
                numbers=own
                | both(kinds=_KINDS, unit=_UNIT, name=class_name)
                | {**small, "steps": (24, 128)},
                quick=False,
            ),
            Part(
                name="regularization",
                caption=f"Channels of one layer of {name} (columns) with nothing but the "
                "gradient, with a penalty on total variation, with random transforms, in Fourier "
                "space, and with the last two together (rows).",
                alt="Five rows of pictures: speckled noise at the top, smoother textures further "
                "down.",
                draw=_regularized,
                tell=_held_back,
                numbers=both(network=network)
                | {"remedies": (("none", "both"), _REMEDIES)}
                | {"place": (layers[1], layers[2])}
                | {"units": ((2, 11, 14), (2, 5, 11, 14)), **small, "steps": (16, 96)},
                quick=False,
            ),
            Part(
                name="facets",
                caption=f"Four pictures of one channel of {layers[3]} of {name}, made together, "
                "without and with a term that asks them to differ.",
                alt="Two rows of four pictures. Those above are alike; those below differ in "
                "colour and arrangement.",
                draw=_four,
                tell=lambda found: _differing(found, network, layers[3]),
                numbers=own | both(unit=_UNIT, weight=60.0) | {**small, "steps": (16, 128)},
                quick=False,
            ),
            *(
                Part(
                    name=networks.title(path),
                    caption=f"Channels of {networks.middle(networks.load(path))} of "
                    f"{networks.title(path)}, a network of yours.",
                    alt="Coloured pictures in a row: textures and parts of things.",
                    draw=_more,
                    tell=_plain,
                    numbers=both(network=path, place=networks.middle(networks.load(path)))
                    | {"units": ((2, 5), (2, 5, 8, 11)), "size": (64, 128), "steps": (24, 96)},
                )
                for path in cast.more
            ),
        ),
        judge=_judge,
        needs="Objectives, regularization and facets are left to it.",
    )
