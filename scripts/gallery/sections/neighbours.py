"""What a network takes for alike, beside what is alike in pixels."""

from __future__ import annotations

import numpy as np

from rvis.analysis import metrics, neighbours
from rvis.plotting import grids
from scripts.gallery import measures, networks, samples
from scripts.gallery.base import Outcome, Part, Section, Tables, Verdict, both

_SHOWN = 6
_OWN = "nearest three of the query's class"

Found = dict[str, np.ndarray]


def _nearest(network: str, small: str, side: int, every: int) -> Found:
    animals = samples.load("tiny_imagenet_animals")
    own = np.arange(0, len(animals), every)
    pixels = animals.floats().reshape(len(animals), -1)
    distances = np.stack([np.linalg.norm(pixels - pixels[i], axis=1) for i in own])
    found = {"queries": own, "pixels": distances.argsort(axis=1, kind="stable")[:, 1:7]}
    for name, size in ((small, 64), (network, side)):
        data, model = samples.enlarged("tiny_imagenet_animals", size), networks.load(name)
        # The representation: what stands before the logits.
        layer = model.layers[-2]
        some = data.floats(own)
        found[name] = neighbours.nearest(model, some, data, layer, k=6, exclude=own).indices
    return found


def _shown(found: Found) -> Outcome:
    animals, own = samples.load("tiny_imagenet_animals"), found["queries"]
    wanted = animals.labels[own][:, None]
    table = {}
    for name, near in list(found.items())[1:]:
        share = (animals.labels[near[:, :3]] == wanted).mean(1)
        table[networks.title(name)] = measures.told(_OWN, metrics.mean(share))
    table["by chance"] = {_OWN: 3 / (len(animals) - 1)}
    rows = []
    for i in np.linspace(0, len(own) - 1, _SHOWN).astype(int):
        best = list(found.values())[-1][i]
        beside = [animals.floats([own[i]]), animals.floats(best), np.ones((1, 64, 64, 3))]
        rows.append(np.concatenate([*beside, animals.floats(found["pixels"][i])]))
    titles = ["query", "network", *[""] * 5, "", "pixels", *[""] * 5]
    return Outcome(grids.grid(np.stack(rows), titles=titles, scale=1, pad=3), table)


def _judge(tables: Tables) -> Verdict:
    share = {name: measures.read(row, _OWN) for name, row in tables["nearest"].items()}
    *small, best = [name for name in share if name not in ("pixels", "by chance")]
    apart = share[best].low > share["pixels"].high
    beside = "".join(f" ({name}: {share[name]:.0%})" for name in small)
    return Verdict(
        "yes" if apart else "in part" if share[best].mean > share["pixels"].mean else "no",
        f"Of the nearest three, {share[best]:.0%} are of the query's class to {best}{beside}, "
        f"{share['pixels']:.0%} in pixels, {share['by chance'].mean:.1%} by chance.",
    )


def section(cast: networks.Cast) -> Section:
    """The section, drawn by these networks."""
    return Section(
        name="neighbours",
        title="What a network takes for alike",
        claim="In the last representation R(x) the nearest images show the same thing, though they "
        "differ in every pixel; nearest in pixels are images of like brightness and layout.",
        parts=(
            Part(
                name="nearest",
                caption="A query in each row, its six nearest of 203 other photographs (three of "
                f"its class are among them) in the last representation of "
                f"{networks.title(cast.classifier)}, and its six nearest in pixels.",
                alt="Rows of small pictures: beside each query animals of the same kind, and "
                "further right all kinds with the same colours.",
                draw=_nearest,
                tell=_shown,
                numbers=both(network=cast.classifier, small="tiny_resnet_robust")
                | {"side": (96, 224), "every": (8, 1)},
            ),
        ),
        judge=_judge,
    )
