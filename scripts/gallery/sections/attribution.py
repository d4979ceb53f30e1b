"""What a network saw: maps by gradients and masks, two classes in one picture, shares of a game."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

import rvis
from rvis import attribution
from rvis.analysis import metrics
from rvis.attribution import Attribution
from rvis.plotting import grids
from scripts.gallery import samples
from scripts.gallery.base import Outcome, Part, Section, Table, Tables, Verdict

_METHODS = ("gradient", "integrated", "SmoothGrad", "guided", "Grad-CAM", "occlusion")
_SHOWN = 3


# Two classes in one picture


def _cam(every: int) -> tuple[list[list[Attribution]], np.ndarray]:
    models = [rvis.load(name) for name in ("cifar10_resnet", "cifar10_resnet_robust")]
    pictures = samples.load("cifar10")
    left = np.arange(0, 400, every)
    right = left + 400
    pairs = np.concatenate([pictures.floats(left), pictures.floats(right)], axis=2)
    classes = pictures.labels[[left, right]]
    return [[attribution.grad_cam(m, pairs, side) for side in classes] for m in models], classes


def _halves(found: tuple[list[list[Attribution]], np.ndarray]) -> Outcome:
    maps, classes = found
    table = {}
    for name, sides in zip(("standard network", "robust network"), maps, strict=True):
        inside = np.stack([_inside(side.maps)[i] for i, side in enumerate(sides)])
        table[name] = {
            "share of the map in its class's half": float(inside.mean()),
            "maps mostly in it": float((inside > 0.5).mean()),
        }
    images = maps[0][0].images
    some = np.linspace(0, len(images) - 1, 5).astype(int)
    columns = [images[some]]
    for sides in maps:
        columns += [grids.overlay(images, side.maps, style="blend")[some] for side in sides]
    names = samples.load("cifar10").classes
    rows = [f"{names[classes[0, i]]}, {names[classes[1, i]]}" for i in some]
    titles = ["image", "standard, left", "right", "robust, left", "right"]
    shown = [_larger(row) for row in np.stack(columns, 1)]
    return Outcome(grids.grid(shown, row_titles=rows, titles=titles, scale=1), table)


def _inside(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The share of each map (n, H, W) in its left half, and in its right one."""
    half = maps.shape[2] // 2
    whole = np.maximum(maps.sum((1, 2)), 1e-12)
    return maps[:, :, :half].sum((1, 2)) / whole, maps[:, :, half:].sum((1, 2)) / whole


def _larger(images: np.ndarray) -> np.ndarray:
    return images.repeat(2, 1).repeat(2, 2)


# Methods


def _methods(steps: int, every: int) -> list[list[Attribution]]:
    models = [rvis.load(name) for name in ("cifar10_resnet", "cifar10_resnet_robust")]
    some = samples.load("cifar10").take(range(40, 800, every))
    x, y = some.floats(), some.labels
    return [
        [
            attribution.gradient(model, x, y),
            attribution.integrated_gradients(model, x, y, steps=steps, tol=None),
            attribution.smoothgrad(model, x, y, samples=steps),
            attribution.guided_backprop(model, x, y),
            attribution.grad_cam(model, x, y),
            attribution.occlusion(model, x, y, window=8, stride=4, baseline=0.5),
        ]
        for model in models
    ]


def _compared(found: list[list[Attribution]]) -> Outcome:
    table, drawn = {}, []
    for title, results in zip(("standard", "robust"), found, strict=True):
        x, path = results[0].images, results[1]
        assert path.gap is not None
        change = path.gap + path.maps.sum((1, 2, 3))
        table[f"{title} network"] = {
            "integrated gradients: gap": float(np.median(np.abs(path.gap / change)))
        }
        signed = ("integrated", "Grad-CAM", "occlusion")
        maps = [
            result.heatmaps("sum" if name in signed else "max")
            for name, result in zip(_METHODS, results, strict=True)
        ]
        drawn.append([x, *(grids.overlay(x, one, style="map") for one in maps)])
    rows = [[column[i] for column in columns] for i in range(_SHOWN) for columns in drawn]
    names = [title for _ in range(_SHOWN) for title in ("standard", "robust")]
    return Outcome(grids.grid(rows, titles=["image", *_METHODS], row_titles=names), table)


# Shapley values


def _shares(permutations: int, fine: int) -> tuple[Any, ...]:
    def game(present):
        return jnp.where(present.all(-1), 2.5, present.sum(-1))

    model = rvis.load("mnist_cnn_robust")
    some = samples.load("mnist").take(range(15, 300, 60))
    x, y = some.floats(), some.labels
    return (
        attribution.shapley(game, players=2),
        attribution.shapley_sampling(game, players=2, permutations=permutations),
        attribution.shapley(model, x, y, players=10, baseline="mean"),
        attribution.shapley_sampling(
            model, x, y, players=10, permutations=permutations, baseline="mean"
        ),
        attribution.shapley_sampling(model, x, y, players=4, permutations=fine, baseline="mean"),
    )


def _split(found: tuple[Any, ...]) -> Outcome:
    exact, sampled, parts, few, fine = found
    off = few.values - parts.values
    table = {
        "the lecture's game, all coalitions": _two(exact),
        "the lecture's game, random permutations": _two(sampled),
        "nine parts of an image, all coalitions": {"sum less v(all) - v(none)": _worst(parts.gap)},
        "nine parts of an image, random permutations": {
            "sum less v(all) - v(none)": _worst(few.gap),
            "off the exact values (RMS)": float(np.sqrt(np.square(off).mean())),
            "standard error told (RMS)": float(np.sqrt(np.square(few.errors).mean())),
        },
        "49 patches, random permutations": {
            "sum less v(all) - v(none)": _worst(fine.gap),
            "standard error told (RMS)": float(np.sqrt(np.square(fine.errors).mean())),
        },
    }
    columns = [parts.images]
    columns += [grids.overlay(parts.images, r.maps, style="map") for r in (parts, few, fine)]
    names = ["image", "9, all coalitions", "9, random permutations", "49, random permutations"]
    titles = [str(label) for label in parts.labels]
    return Outcome(grids.grid(columns, titles=titles, row_titles=names, scale=4), table)


def _two(shares: Any) -> dict[str, float]:
    return {
        "first player": float(shares.values[0]),
        "second player": float(shares.values[1]),
        "sum less v(all) - v(none)": _worst(shares.gap),
    }


def _worst(gaps: np.ndarray) -> float:
    return float(np.abs(gaps).max())


# Sanity


def _sanity(every: int) -> tuple[np.ndarray, list[metrics.SanityCheck]]:
    model = rvis.load("mnist_cnn")
    some = samples.load("mnist").take(range(5, 300, every))
    x, y = some.floats(), some.labels
    methods = (attribution.gradient, attribution.grad_cam, attribution.guided_backprop)
    return x, [metrics.sanity_check(model, method, x, y) for method in methods]


def _kept(found: tuple[np.ndarray, list[metrics.SanityCheck]]) -> Outcome:
    images, checks = found
    names = ("gradient", "Grad-CAM", "guided backpropagation")
    table: Table = {
        name: {
            f"down to {module}": float(np.nanmean(row))
            for module, row in zip(check.modules, check.signed, strict=True)
        }
        for name, check in zip(names, checks, strict=True)
    }
    number = len(images) // 2
    rows = []
    for check in checks:
        maps = check.maps[:, number]
        drawn = grids.overlay(np.ones((*maps.shape, 3)), maps, style="map")
        rows.append([np.broadcast_to(images[number], drawn[0].shape), *drawn])
    titles = ["image", "trained", *(name.split(".")[0] for name in checks[0].modules)]
    return Outcome(
        grids.grid(rows, titles=titles, row_titles=["gradient", "Grad-CAM", "guided"]), table
    )


def _judge(tables: Tables) -> Verdict:
    inside = [row["share of the map in its class's half"] for row in tables["cam"].values()]
    game = list(tables["shapley"].values())[:2]
    off = max(abs(row[who] - 1.25) for row in game for who in ("first player", "second player"))
    kept = {name: list(row.values()) for name, row in tables["sanity"].items()}
    # Down to fc1: the upper half of the network is noise.
    guided, plain, cam = (
        kept[name][1] for name in ("guided backpropagation", "gradient", "Grad-CAM")
    )
    points = (
        min(inside) > 0.75,
        off < 1e-6,
        guided > 0.5 > max(abs(plain), abs(cam)),
    )
    return Verdict(
        "yes" if all(points) else "in part" if any(points) else "no",
        f"{min(inside):.0%} to {max(inside):.0%} of a Grad-CAM map lies in its class's half; the "
        f"game's shares are 1.25 and 1.25 to within {off:.1g}; with the upper half of the network "
        f"noise, guided backpropagation keeps a correlation of {guided:.2f}, the gradient "
        f"{plain:.2f}, Grad-CAM {cam:.2f}.",
    )


SECTION = Section(
    name="attribution",
    title="What a network saw in an image",
    claim="Grad-CAM shows which part of an image speaks for a class. Shapley values share a score "
    "fairly: 1.25 each in the game of two that are worth 1 alone and 2.5 together. Not every map "
    "that looks right depends on what was learned: guided backpropagation does not.",
    parts=(
        Part(
            name="cam",
            caption="Two test images side by side in one picture, and the Grad-CAM maps of the "
            "class of either: in each network the left one's first, then the right one's. No pair "
            "was chosen; the networks were trained on single images.",
            alt="Pairs of small photographs; in nearly each of the heat maps beside them only the "
            "half with the class asked for is coloured.",
            draw=_cam,
            tell=_halves,
            numbers={"every": (20, 10, 1)},
        ),
        Part(
            name="methods",
            caption="Six maps of three images for their own class, for the standard network and "
            "below for the robust one. Red speaks for the class, blue against it; maps without a "
            "sign run from yellow to purple. The table has by how much integrated gradients miss "
            "the change of the logit that they share out, in the median.",
            alt="Rows of heat maps: noisy dots for the standard network's gradients, outlines of "
            "the thing for the robust network's, soft blobs for Grad-CAM, squares for occlusion.",
            draw=_methods,
            tell=_compared,
            numbers={"steps": (8, 16, 50), "every": (240, 240, 20)},
            quick=False,
        ),
        Part(
            name="shapley",
            caption="Five digits cut in nine parts: what each gives to the logit by all 512 "
            "coalitions, by random permutations, and then 49 patches by random permutations. Red "
            "is for the class, blue against it.",
            alt="Five digits, below each a map of nine coloured squares twice, nearly alike, and "
            "one of 49 squares that follows the stroke.",
            draw=_shares,
            tell=_split,
            numbers={"permutations": (16, 64, 1024), "fine": (4, 32, 1024)},
            quick=False,
        ),
        Part(
            name="sanity",
            caption="Maps of one digit while the standard network's layers are replaced by noise, "
            "from the logits down. The table has the mean rank correlation with the trained "
            "network's map.",
            alt="Three rows of five maps: the gradient's and Grad-CAM's change at once, guided "
            "backpropagation's keeps its outline for several columns.",
            draw=_sanity,
            tell=_kept,
            numbers={"every": (30, 10, 2)},
            quick=False,
        ),
    ),
    judge=_judge,
)
