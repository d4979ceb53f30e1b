"""Fooling by evolution: pictures bred without gradients, which look like nothing."""

from __future__ import annotations

import numpy as np

import rvis
from rvis import evolve
from rvis.analysis import manifold
from rvis.plotting import grids
from scripts.gallery import samples
from scripts.gallery.base import Outcome, Part, Section, Table, Tables, Verdict


def _direct(generations: int, batch: int) -> list[evolve.Evolution]:
    models = rvis.load("mnist_cnn"), rvis.load("mnist_cnn_robust")
    return [
        evolve.map_elites(model, encoding="direct", generations=generations, batch_size=batch)
        for model in models
    ]


def _cppn(generations: int, batch: int) -> list[evolve.Evolution]:
    models = rvis.load("mnist_cnn"), rvis.load("mnist_cnn_robust")
    return [
        evolve.map_elites(model, encoding="cppn", generations=generations, batch_size=batch)
        for model in models
    ]


def _elites(bred: list[evolve.Evolution]) -> Outcome:
    titles = [
        f"{label}: {np.floor(1000 * p) / 10:.1f}%"
        for found in bred
        for label, p in zip(found.labels, found.confidences, strict=True)
    ]
    picture = grids.grid(
        np.stack([found.images for found in bred]),
        titles=titles,
        row_titles=["standard", "robust"],
        scale=3,
    )
    return Outcome(picture, _figures(bred))


def _figures(bred: list[evolve.Evolution]) -> Table:
    digits = samples.load("mnist").floats()
    own = np.arange(len(digits))
    usual = np.median(manifold.distance_to_data(digits, digits, exclude=own).nearest)
    names = "mnist_cnn", "mnist_cnn_robust"
    table = {}
    for i, (name, found) in enumerate(zip(names, bred, strict=True)):
        other = np.asarray(rvis.load(names[1 - i])(found.images)).argmax(1)
        away = manifold.distance_to_data(found.images, digits).nearest
        table[name] = {
            "pictures tried": found.scores.shape[1] * int(found.config["batch_size"]),
            "median confidence": float(np.median(found.confidences)),
            "lowest": float(found.confidences.min()),
            "roughness (noise .8)": float(np.median(evolve.roughness(found.images))),
            "nearest digit, x that of a digit": float(np.median(away) / usual),
            "same class for the other network": float((other == found.classes).mean()),
        }
    return table


def _judge(tables: Tables) -> Verdict:
    rows = {
        f"{name}, {encoding}": tables[encoding][name]
        for name in ("mnist_cnn", "mnist_cnn_robust")
        for encoding in ("direct", "cppn")
    }
    sure = [row["median confidence"] >= 0.99 for row in rows.values()]
    agreed = {
        encoding: np.mean(
            [row["same class for the other network"] for row in tables[encoding].values()]
        )
        for encoding in ("direct", "cppn")
    }
    tried = " or ".join(sorted({f"{row['pictures tried']:,.0f}" for row in rows.values()}))
    told = ", ".join(f"{row['median confidence']:.4f} ({name})" for name, row in rows.items())
    # What a second network takes for the class as well is not quite nothing.
    nothing = max(agreed.values()) < 0.3
    return Verdict(
        "yes" if all(sure) and nothing else "in part" if any(sure) else "no",
        f"Median confidence over ten classes after {tried} pictures tried: {told}. In what was "
        f"bred for one network the other sees the same class in {agreed['direct']:.0%} (pixels) "
        f"and {agreed['cppn']:.0%} (graphs) of the pictures, with 10 % by chance."
        + ("" if nothing else " So they do not all look like nothing: some keep a stroke."),
    )


SECTION = Section(
    name="evolution",
    title="Fooling by evolution",
    claim="Evolution, which needs no gradient, breeds pictures that look like nothing at all and "
    "of which the network is nearly certain: one for every class, as noise or as regular "
    "patterns.",
    parts=(
        Part(
            name="direct",
            caption="The best picture of each class where every pixel is a gene, with the "
            "network's confidence: bred for the standard network (top) and for the robust one "
            "(bottom).",
            alt="Two rows of ten squares of grey noise, titled 0 to 9 with confidences.",
            draw=_direct,
            tell=_elites,
            numbers={"generations": (20, 100, 200), "batch": (100, 100, 200)},
            quick=False,
        ),
        Part(
            name="cppn",
            caption="The same where genes are graphs of sines, Gaussians and lines (CPPN), "
            "which draw regular patterns: some with a stroke of the digit, some without.",
            alt="Two rows of ten squares with stripes, blobs and gradients, titled 0 to 9 with "
            "confidences.",
            draw=_cppn,
            tell=_elites,
            numbers={"generations": (20, 50, 200), "batch": (100, 100, 200)},
            quick=False,
        ),
    ),
    judge=_judge,
)
