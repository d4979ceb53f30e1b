"""What a network saw: two classes in one picture, shares of a game, and whether maps need it."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from rvis import attribution
from rvis.analysis import metrics
from rvis.attribution import Attribution
from rvis.plotting import grids
from scripts.gallery import measures, networks
from scripts.gallery.base import Outcome, Part, Section, Tables, Verdict, both

_HALF = "share of the map in its class's half"
_SIGNED = ("integrated", "occlusion")
_METHODS = (
    "gradient",
    "integrated",
    "SmoothGrad",
    "guided",
    "Grad-CAM",
    "occlusion",
    "RISE",
)
_PAIRS = (
    "zebra tabby,strawberry coffee",
    "beagle cat,goldfish",
    "king_penguin,teapot ladybug",
    "monarch,sports_car astronaut",
)

Maps = list[dict[str, Attribution]]


def _two(
    network: str,
    methods: tuple[str, ...],
    photos: str,
    pairs: tuple[str, ...],
    side: int,
    steps: int,
    masks: int,
) -> Maps:
    model, found = networks.load(network), []
    for pair in pairs:
        halves = [networks.photograph(photos, name, side) for name in pair.split(",")]
        classes = np.asarray(model(np.stack(halves))).argmax(1)
        picture = np.repeat(np.concatenate(halves, axis=1)[None], 2, axis=0)
        window = {"window": side // 4, "stride": side // 8, "baseline": 0.5}
        asked = {
            "gradient": (attribution.gradient, {}),
            "integrated": (attribution.integrated_gradients, {"steps": steps, "tol": None}),
            "SmoothGrad": (attribution.smoothgrad, {"samples": steps}),
            "guided": (attribution.guided_backprop, {}),
            "Grad-CAM": (attribution.grad_cam, {}),
            "occlusion": (attribution.occlusion, window),
            "RISE": (attribution.rise, {"samples": masks}),
        }
        kinds = {name: asked[name] for name in methods}
        found.append(
            {name: ask(model, picture, classes, **more) for name, (ask, more) in kinds.items()}
        )
    return found


def _halves(found: Maps) -> Outcome:
    inside: dict[str, list[float]] = {}
    for maps in found:
        for name, result in maps.items():
            inside.setdefault(name, []).extend(_inside(name, result))
    table = {name: measures.told(_HALF, metrics.mean(some)) for name, some in inside.items()}
    rows = []
    for maps in found[:2]:
        images = next(iter(maps.values())).images
        columns = [images, *(_drawn(name, result) for name, result in maps.items())]
        rows += [[column[i] for column in columns] for i in (0, 1)]
    titles = ["picture", *table]
    names = ["left", "right"] * min(2, len(found))
    return Outcome(grids.grid(rows, titles=titles, row_titles=names, scale=1), table)


def _inside(name: str, result: Attribution) -> list[float]:
    """The shares of maps' positive parts: left of the first, right of the second."""
    maps = np.maximum(_flat(name, result), 0)
    if name == "RISE":  # masks leave an even background
        maps = maps - maps.min((1, 2), keepdims=True)
    half = maps.shape[2] // 2
    whole = np.maximum(maps.sum((1, 2)), 1e-12)
    left = maps[:, :, :half].sum((1, 2)) / whole
    return [float(left[0]), float(1 - left[1])]


def _flat(name: str, result: Attribution) -> np.ndarray:
    return result.heatmaps("sum" if name in (*_SIGNED, "Grad-CAM", "RISE") else "max")


def _drawn(name: str, result: Attribution) -> np.ndarray:
    return grids.overlay(
        result.images,
        _flat(name, result),
        style="blend" if name in ("Grad-CAM", "RISE", "occlusion") else "map",
    )


def _shares(
    network: str, photos: str, names: str, superpixels: bool, side: int, permutations: int
) -> tuple[Any, ...]:
    def game(present):
        return jnp.where(present.all(-1), 2.5, present.sum(-1))

    model, image = networks.load(network), networks.photograph(photos, names, side)[None]
    best = np.asarray(model(image)).argmax(1)
    pieces = attribution.superpixels(image, segments=24) if superpixels else side // 4
    return (
        attribution.shapley(game, players=2),
        attribution.shapley_sampling(game, players=2, permutations=permutations),
        *(
            attribution.shapley_sampling(
                model, image, best, players=some, permutations=permutations, baseline="mean"
            )
            for some in (side // 6, pieces)
        ),
    )


def _split(found: tuple[Any, ...]) -> Outcome:
    exact, sampled, *maps = found
    table = {"the lecture's game, all coalitions": _players(exact)}
    table["the same, random permutations"] = _players(sampled)
    for name, one in zip(("patches", "superpixels"), maps, strict=True):
        table[name] = {
            "players": float(np.shape(one.values)[-1]),
            "standard error (RMS)": float(np.sqrt(np.square(one.errors).mean())),
            "sum less v(all) - v(none)": float(np.abs(one.gap).max()),
        }
    images = maps[0].images
    columns = [images, *(grids.overlay(images, one.maps, style="map") for one in maps)]
    row = [column[0] for column in columns]
    return Outcome(grids.grid([row], titles=["picture", "patches", "superpixels"]), table)


def _players(shares: Any) -> dict[str, float]:
    return {
        "first player": float(shares.values[0]),
        "second player": float(shares.values[1]),
        "sum less v(all) - v(none)": float(np.abs(shares.gap).max()),
    }


def _sanity(
    network: str, photos: str, names: tuple[str, ...], side: int
) -> dict[str, dict[str, np.ndarray]]:
    model = networks.load(network)
    images = np.stack([networks.photograph(photos, some, side) for some in names])
    best = np.asarray(model(images)).argmax(1)
    modules = metrics.modules(model)[::-1]
    depths = {"trained": 0, "head noise": 1, "half": len(modules) // 2, "all": len(modules)}
    methods = {
        "gradient": attribution.gradient,
        "Grad-CAM": attribution.grad_cam,
        "guided": attribution.guided_backprop,
    }
    return {
        name: {
            depth: method(metrics.randomised(model, modules[:count]), images, best).maps
            for depth, count in depths.items()
        }
        for name, method in methods.items()
    }


def _kept(found: dict[str, dict[str, np.ndarray]]) -> Outcome:
    table, rows = {}, []
    for name, by in found.items():
        maps = {depth: one.sum(-1) if one.ndim == 4 else one for depth, one in by.items()}
        first = maps["trained"]
        table[name] = {
            depth: float(np.nanmean(metrics.spearman(one, first)))
            for depth, one in list(maps.items())[1:]
        }
        rows.append(
            [grids.overlay(np.ones((*one.shape, 3)), one, style="map")[0] for one in maps.values()]
        )
    titles = list(next(iter(found.values())))
    return Outcome(grids.grid(rows, titles=titles, row_titles=list(found)), table)


def _judge(tables: Tables) -> Verdict:
    two = {name: measures.read(row, _HALF) for name, row in tables["two"].items()}
    game = list(tables["shapley"].values())[:2]
    off = max(abs(row[who] - 1.25) for row in game for who in ("first player", "second player"))
    kept = {name: row["half"] for name, row in tables["sanity"].items()}
    guided, others = kept["guided"], max(abs(kept["gradient"]), abs(kept["Grad-CAM"]))
    points = (two["Grad-CAM"].mean > 0.65, off < 1e-6, guided > 0.3 > others)
    best = max(two, key=lambda name: two[name].mean)
    return Verdict(
        "yes" if all(points) else "in part" if any(points) else "no",
        f"{two['Grad-CAM']:.0%} of a Grad-CAM map lies in its class's half, most in that of "
        f"{best}: {two[best]:.0%}. The game's shares are 1.25 and 1.25 to within {off:.1g}. With "
        f"the upper half of the network noise, guided backpropagation keeps a rank correlation of "
        f"{guided:.2f}, the gradient {kept['gradient']:.2f}, Grad-CAM {kept['Grad-CAM']:.2f}.",
    )


def section(cast: networks.Cast) -> Section:
    """The section, drawn by these networks."""
    real = len(networks.load(cast.classifier).classes) == 1000
    name, by = networks.title(cast.classifier), both(network=cast.classifier, photos=cast.photos)
    return Section(
        name="attribution",
        title="What a network saw in an image",
        claim="Maps show which part of an image speaks for a class, and which for another class in "
        "the same picture. Shapley values share a score fairly: 1.25 each in the game of two that "
        "are worth 1 alone and 2.5 together. Not every map that looks right depends on what was "
        "learned: guided backpropagation does not.",
        parts=(
            Part(
                name="two",
                caption="Two photographs side by side as one picture, and maps of what speaks for "
                f"{name}'s class of the left one, below for that of the right one.",
                alt="Rows of heat maps of a picture of two things; in the upper row mostly the "
                "left half is coloured, in the lower one the right half.",
                draw=_two,
                tell=_halves,
                numbers=by
                | {"methods": (("gradient", "Grad-CAM", "occlusion"), _METHODS)}
                | {"pairs": (_PAIRS[:1], _PAIRS), "side": (96 if real else 64, 160 if real else 64)}
                | {"steps": (4, 16), "masks": (64, 256)},
            ),
            Part(
                name="shapley",
                caption="What each of 36 patches, and of some two dozen pieces of like colour, "
                "gives to the logit, by random permutations with the mean colour for what is "
                "absent. Red is for the class, blue against it.",
                alt="A photograph, and maps of coloured squares and of coloured pieces that follow "
                "its outlines.",
                draw=_shares,
                tell=_split,
                numbers=by
                | both(names="goldfish", superpixels=networks.installed())
                | {"side": (96 if real else 64, 160 if real else 64), "permutations": (4, 24)},
                quick=False,
            ),
            Part(
                name="sanity",
                caption="Maps of a photograph while the network's layers are replaced by noise, "
                "from the logits down. The table has the mean rank correlation with the trained "
                "network's map.",
                alt="Three rows of four maps: the gradient's and Grad-CAM's change at once, guided "
                "backpropagation's keeps its outline for longer.",
                draw=_sanity,
                tell=_kept,
                numbers=by
                | {
                    "names": (
                        ("zebra tabby",),
                        ("zebra tabby", "king_penguin", "goldfish", "monarch"),
                    )
                }
                | {"side": (96 if real else 64, 160 if real else 64)},
                quick=False,
            ),
        ),
        judge=_judge,
        needs="Shapley values and the sanity checks are left to it.",
    )
