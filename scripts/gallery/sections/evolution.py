"""Fooling by evolution: pictures bred without gradients, which look like nothing."""

from __future__ import annotations

import numpy as np

import rvis
from rvis import evolve
from rvis.analysis import manifold, metrics
from rvis.plotting import grids
from scripts.gallery import measures, networks, samples
from scripts.gallery.base import Outcome, Part, Section, Table, Tables, Verdict, both

_SURE, _SAME = "median confidence", "same class for another network"
_CLASSES = ("ostrich", "school bus", "starfish", "strawberry", "king penguin", "pizza")

Bred = dict[str, evolve.Evolution]


def _digits(generations: int, batch: int) -> Bred:
    return {
        encoding: evolve.map_elites(
            rvis.load("mnist_cnn"), encoding=encoding, generations=generations, batch_size=batch
        )
        for encoding in ("direct", "cppn")
    }


def _elites(bred: Bred) -> Outcome:
    digits = samples.load("mnist").floats()
    usual = np.median(
        manifold.distance_to_data(digits, digits, exclude=np.arange(len(digits))).nearest
    )
    table = _figures(bred)
    for name, found in bred.items():
        other = np.asarray(rvis.load("mnist_cnn_robust")(found.images)).argmax(1)
        away = manifold.distance_to_data(found.images, digits).nearest
        table[name] |= {"nearest digit, x that of a digit": float(np.median(away) / usual)}
        table[name] |= measures.told(_SAME, metrics.share(other == found.classes))
    return Outcome(_picture(bred), table)


def _imagenet(
    network: str,
    encodings: tuple[str, ...],
    classes: tuple[str, ...],
    size: int,
    generations: int,
    batch: int,
) -> Bred:
    return {
        encoding: evolve.map_elites(
            networks.load(network),
            list(classes),
            encoding=encoding,
            generations=generations,
            batch_size=batch,
            size=size,
        )
        for encoding in encodings
    }


def _nothing(bred: Bred, judges: tuple[str, ...]) -> Outcome:
    table = _figures(bred)
    for name, found in bred.items():
        names = [str(label) for label in found.labels]
        hits = [networks.seen(judge, found.images, names) for judge in judges]
        if hits:
            table[name] |= measures.told(_SAME, metrics.share(np.concatenate(hits)))
    return Outcome(_picture(bred), table)


def _figures(bred: Bred) -> dict[str, dict[str, float]]:
    return {
        name: {
            "pictures tried": found.scores.shape[1] * int(found.config["batch_size"]),
            _SURE: float(np.median(found.confidences)),
            "lowest": float(found.confidences.min()),
            "roughness (noise .8)": float(np.median(evolve.roughness(found.images))),
        }
        for name, found in bred.items()
    }


def _picture(bred: Bred) -> grids.Image.Image:
    titles = [
        f"{label}: {np.floor(1000 * p) / 10:.1f}%"
        for found in bred.values()
        for label, p in zip(found.labels, found.confidences, strict=True)
    ]
    rows = np.stack([found.images for found in bred.values()])
    return grids.grid(rows, titles=titles, row_titles=["pixels", "graphs"][: len(rows)])


def _said(table: Table) -> str:
    return " and ".join(f"{row[_SURE]:.4f} ({name})" for name, row in table.items())


def _judge(tables: Tables) -> Verdict:
    digits, real = tables["digits"], tables["imagenet"]
    sure = [row[_SURE] >= 0.99 for row in digits.values()]
    others = [row for table in (digits, real) for row in table.values() if _SAME in row]
    agreed = {name: measures.read(row, _SAME) for name, row in digits.items()}
    nothing = max(row[_SAME] for row in others) < 0.3
    best = max(real, key=lambda name: real[name][_SURE])
    return Verdict(
        "yes"
        if all(sure) and nothing and real[best][_SURE] > 0.8
        else "in part"
        if any(sure)
        else "no",
        f"Median confidence of digits {_said(digits)}, of ImageNet's classes {_said(real)} after "
        f"{real[best]['pictures tried']:,.0f} pictures tried. Another network sees the same digit "
        f"in {agreed['direct']:.0%} (pixels) and {agreed['cppn']:.0%} (graphs) of them, with 10 % "
        f"by chance." + ("" if nothing else " So not all look like nothing: some keep a stroke."),
    )


def section(cast: networks.Cast) -> Section:
    """The section, drawn by these networks."""
    real = len(networks.load(cast.classifier).classes) == 1000
    animals = ("goldfish", "monarch", "king_penguin", "ladybug", "brain_coral", "tabby")
    judges = tuple(one for one in cast.judges if one != cast.classifier)
    return Section(
        name="evolution",
        title="Fooling by evolution",
        claim="Evolution, which needs no gradient, breeds pictures that look like nothing at all "
        "and of which the network is nearly certain: one for every class, as noise or as regular "
        "patterns.",
        parts=(
            Part(
                name="digits",
                caption="The best picture of each digit with a network's confidence: where every "
                "pixel is a gene (top), and where genes are graphs of sines, Gaussians and lines "
                "(CPPN, bottom).",
                alt="Two rows of ten squares titled 0 to 9 with confidences: grey noise above, "
                "stripes, blobs and gradients below.",
                draw=_digits,
                tell=_elites,
                numbers={"generations": (20, 100), "batch": (60, 200)},
            ),
            Part(
                name="imagenet",
                caption=f"The same for classes of {networks.title(cast.classifier)}.",
                alt="Two rows of squares titled with classes: coloured noise above, coloured "
                "patterns below.",
                draw=_imagenet,
                tell=lambda bred: _nothing(bred, judges),
                numbers=both(network=cast.classifier)
                | {"encodings": (("direct",), ("direct", "cppn"))}
                | {"classes": ((_CLASSES if real else animals)[:3], _CLASSES if real else animals)}
                | {"size": (64, 128 if real else 64)}
                | {"generations": (8, 60), "batch": (8, 40)},
            ),
        ),
        judge=_judge,
        needs="Evolution needs its generations.",
    )
