"""Images that look unlike and are the same to the network."""

from __future__ import annotations

import numpy as np

import rvis
from rvis.analysis import representations
from rvis.inversion import Matching
from rvis.plotting import grids
from scripts.gallery import samples
from scripts.gallery.base import Outcome, Part, Section, Table, Tables, Verdict


def _pairs(every: int, steps: int) -> list[Matching]:
    test, models = samples.load("cifar10"), ("cifar10_resnet", "cifar10_resnet_robust")
    x1 = test.floats(np.arange(3, 800, every))
    x2 = np.roll(x1, -len(x1) // 2, axis=0)
    return [rvis.match(rvis.load(name), x1, x2, steps=steps) for name in models]


def _moved(found: list[Matching]) -> Outcome:
    return _shown(found, ["x1", "x', standard", "x', robust", "x2"], found[0].sources)


def _noise(every: int, steps: int) -> list[Matching]:
    test, models = samples.load("cifar10"), ("cifar10_resnet", "cifar10_resnet_robust")
    x2 = test.floats(np.arange(3, 800, every))
    return [rvis.match(rvis.load(name), None, x2, start="noise", steps=steps) for name in models]


def _rebuilt(found: list[Matching]) -> Outcome:
    return _shown(found, ["start", "standard", "robust", "x2"], found[0].starts)


def _shown(found: list[Matching], names: list[str], first: np.ndarray) -> Outcome:
    rows = [first, *(one.images for one in found), found[0].targets]
    chosen = np.linspace(0, len(first) - 1, min(8, len(first))).astype(int)
    judge = rvis.load("cifar10_resnet_narrow")
    seen = [judge.classes[i] for row in rows for i in np.asarray(judge(row[chosen])).argmax(1)]
    picture = grids.grid(np.stack([row[chosen] for row in rows]), titles=seen, row_titles=names)
    return Outcome(picture, _figures(found))


def _figures(found: list[Matching]) -> Table:
    judge = rvis.load("cifar10_resnet_narrow")
    table = {}
    for name, one in zip(("standard", "robust"), found, strict=True):
        first, last = (np.asarray(judge(x)).argmax(1) for x in (one.starts, one.targets))
        seen = np.asarray(judge(one.images)).argmax(1)
        apart = representations.distances(one.starts, one.targets)
        table[name] = {
            "distance left in R": float(one.remaining.mean()),
            "L2 to the start": float(representations.distances(one.starts, one.images).mean()),
            "SSIM to the start": float(representations.ssim(one.starts, one.images).mean()),
            "SSIM to x2": float(one.to_target()["ssim"].mean()),
            "L2 to x2, of start": float((one.to_target()["l2"] / apart).mean()),
            "judge: class of the start": float((seen == first).mean()),
            "judge: class of x2": float((seen == last).mean()),
        }
    return table


def _judge(tables: Tables) -> Verdict:
    standard, robust = (tables["pairs"][name] for name in ("standard", "robust"))
    same = standard["distance left in R"] < 0.2
    keeps = standard["SSIM to the start"] > 0.5 and standard["SSIM to x2"] < 0.2
    gives = robust["SSIM to the start"] < standard["SSIM to the start"] / 1.5
    turns = robust["L2 to x2, of start"] < 0.95 and robust["SSIM to x2"] > 0.2
    return Verdict(
        "yes" if same and keeps and gives and turns else "in part" if same and keeps else "no",
        f"On the standard network {standard['distance left in R']:.0%} of the distance between "
        f"the representations is left, at an SSIM of "
        f"{standard['SSIM to the start']:.2f} to x1 and {standard['SSIM to x2']:.2f} to x2. The "
        f"robust network's ({robust['distance left in R']:.0%} left) has an SSIM of "
        f"{robust['SSIM to the start']:.2f} to x1 and {robust['SSIM to x2']:.2f} to x2, and lies "
        f"at {robust['L2 to x2, of start']:.2f} of x1's distance from x2 (standard: "
        f"{standard['L2 to x2, of start']:.2f}). A third network sees x2's class in "
        f"{standard['judge: class of x2']:.0%} of the standard and "
        f"{robust['judge: class of x2']:.0%} of the robust pictures.",
    )


SECTION = Section(
    name="matching",
    title="Unlike images, one representation",
    claim="For a standard network, an image can keep its look and yet be represented as quite "
    "another one: its features are not ours. To match a robust network's representation, the "
    "picture has to become the other one.",
    parts=(
        Part(
            name="pairs",
            caption="From x1 (top), steps that bring the representation before the last layer to "
            "that of x2 (bottom): on the standard network (second row) and the robust one (third "
            "row). Above each picture: what a third network sees.",
            alt="Four rows of eight pictures; the second looks like the first with noise, the "
            "third shows blurred shapes of the fourth.",
            draw=_pairs,
            tell=_moved,
            numbers={"every": (200, 100, 16), "steps": (60, 200, 1000)},
            quick=False,
        ),
        Part(
            name="noise",
            caption="The same from noise instead of x1: what each network's representation alone "
            "tells of x2.",
            alt="Four rows of eight pictures: grey noise, coloured noise, shapes like those of the "
            "last row, and photographs.",
            draw=_noise,
            tell=_rebuilt,
            numbers={"every": (200, 100, 16), "steps": (60, 150, 1000)},
            quick=False,
        ),
    ),
    judge=_judge,
)
