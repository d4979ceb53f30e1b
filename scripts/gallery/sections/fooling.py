"""Adversarial examples: any image becomes any class by changes that nobody sees."""

from __future__ import annotations

import numpy as np

import rvis
from rvis import attacks
from rvis.analysis import representations
from rvis.plotting import figures, grids
from scripts.gallery import samples
from scripts.gallery.base import Outcome, Part, Section, Tables, Verdict

_LEVEL = 8 / 255
"""RMS below which a change is called small here: the radius that CIFAR-10 is attacked with."""


def _targeted(every: int, rounds: int, steps: int) -> attacks.AttackResult:
    model = rvis.load("cifar10_resnet")
    some = samples.load("cifar10").take(slice(3, 640, every))
    others = (some.labels + 1) % 10
    options = {"target": others, "binary_search_steps": rounds, "steps": steps}
    return attacks.lbfgs(model, some.floats(), some.labels, **options)


def _changed(result: attacks.AttackResult) -> Outcome:
    rows = np.linspace(0, len(result.images) - 1, min(8, len(result.images))).astype(int)
    before, after = result.originals[rows], result.images[rows]
    change = after - before
    most = np.maximum(np.abs(change).max((1, 2, 3), keepdims=True), 1e-9)
    titles = [
        *(result.classes[i] for i in result.clean[rows]),
        *(f"x {0.5 / m:.0f}" if m > 1e-9 else "none" for m in most.ravel()),
        *(result.classes[i] for i in result.predictions[rows]),
    ]
    picture = grids.grid(
        np.stack([before, 0.5 + change / (2 * most), after]),
        titles=titles,
        row_titles=["original", "change", "fooled"],
        scale=3,
    )
    return Outcome(picture, {"to another class": _figures(result)})


def _any(rounds: int, steps: int) -> attacks.AttackResult:
    model = rvis.load("cifar10_resnet")
    horse = samples.load("cifar10").floats([563])
    ten = np.repeat(horse, 10, axis=0)
    options = {"target": np.arange(10), "binary_search_steps": rounds, "steps": steps}
    return attacks.lbfgs(model, ten, "horse", **options)


def _all_ten(result: attacks.AttackResult) -> Outcome:
    size = 255 * result.distance("rms")
    told = zip(result.predictions, size, strict=True)
    titles = [f"{result.classes[i]} {far:.1f}" for i, far in told]
    assert result.target is not None
    names = [result.classes[i] for i in result.target]
    table = {"one image, ten classes": _figures(result)}
    table |= {name: {"RMS change / 255": float(far)} for name, far in zip(names, size, strict=True)}
    return Outcome(grids.grid(result.images, titles=titles, columns=5, scale=4), table)


def _figures(result: attacks.AttackResult) -> dict[str, float]:
    # What the network took for the target to begin with is no attack.
    asked = ~result.solved
    size = 255 * result.distance("rms")[asked]
    alike = representations.ssim(result.originals[asked], result.images[asked])
    return {
        "attacks": int(asked.sum()),
        "fooled": int(result.success[asked].sum()),
        "median RMS change / 255": float(np.median(size)),
        "largest": float(size.max()),
        "SSIM, median": float(np.median(alike)),
    }


def _elephant(steps: int) -> attacks.Fooling:
    model, animals = rvis.load("tiny_resnet"), samples.load("tiny_imagenet_animals")
    elephants = np.flatnonzero(animals.labels == animals.classes.index("African_elephant"))
    start, goldfish = animals.floats(elephants), ["goldfish"] * len(elephants)
    return attacks.fool(model, goldfish, start=start, confidence=0.99, steps=steps)


def _no_goldfish(result: attacks.Fooling) -> Outcome:
    alike = representations.ssim(result.starts, result.images)
    table = {
        f"elephant {i + 1}": {
            "goldfish before": float(chances[0]),
            "goldfish after": float(chances[-1]),
            "steps until it leads": int(since),
            "RMS change / 255": float(255 * far),
            "SSIM": float(same),
        }
        for i, (chances, since, far, same) in enumerate(
            zip(result.probabilities, result.since, result.distance("rms"), alike, strict=True)
        )
    }
    change = result.images - result.starts
    most = np.maximum(np.abs(change).max((1, 2, 3), keepdims=True), 1e-9)
    titles = [
        *(f"goldfish {chance:.1%}" for chance in result.probabilities[:, 0]),
        *(f"x {0.5 / m:.1f}" for m in most.ravel()),
        *(f"goldfish {chance:.1%}" for chance in result.probabilities[:, -1]),
    ]
    picture = grids.grid(
        np.stack([result.starts, 0.5 + change / (2 * most), result.images]),
        titles=titles,
        row_titles=["start", "change", "picture"],
        scale=3,
    )
    return Outcome(picture, table)


def _radius(every: int, steps: int) -> list[attacks.RobustnessCurve]:
    some = samples.load("cifar10").take(slice(None, None, every))
    images, labels, radii = some.floats(), some.labels, (0, 0.25, 0.5, 1.0, 2.0)
    models = rvis.load("cifar10_resnet_robust"), rvis.load("cifar10_resnet")
    return [
        attacks.robustness(model, images, labels, epsilons=radii, norm="l2", steps=steps)
        for model in models
    ]


def _curves(curves: list[attacks.RobustnessCurve]) -> Outcome:
    table = {
        curve.model: {
            f"L2 {eps:g}": float(share)
            for eps, share in zip(curve.epsilons, curve.accuracies, strict=True)
        }
        for curve in curves
    }
    ax = figures.axes()
    for curve in curves:
        curve.plot(ax)
    return Outcome(figures.picture(ax), table)


def _judge(tables: Tables) -> Verdict:
    rows = [
        tables["targeted"]["to another class"],
        tables["any_class"]["one image, ten classes"],
    ]
    fooled, asked = (sum(row[name] for row in rows) for name in ("fooled", "attacks"))
    largest = max(row["largest"] for row in rows)
    elephants = list(tables["elephant"].values())
    sure = sum(row["goldfish after"] >= 0.99 and row["SSIM"] > 0.9 for row in elephants)
    standard, robust = (tables["radius"][f"cifar10_resnet{kind}"] for kind in ("", "_robust"))
    all_fooled = fooled == asked and largest < 255 * _LEVEL
    holds = all_fooled and sure == len(elephants)
    return Verdict(
        "yes" if holds else "in part" if fooled > asked / 2 else "no",
        f"{fooled:.0f} of {asked:.0f} CIFAR-10 attacks end in the class asked for, the largest "
        f"change {largest:.1f} of 255 levels (RMS). {sure} of {len(elephants)} elephants are "
        f"goldfish with 99 % and keep an SSIM above .9, at RMS changes of up to "
        f"{max(row['RMS change / 255'] for row in elephants):.1f}. At L2 0.5 the standard "
        f"network keeps {standard['L2 0.5']:.0%} of the images, the robust one "
        f"{robust['L2 0.5']:.0%}.",
    )


SECTION = Section(
    name="fooling",
    title="Adversarial examples",
    claim="Changes too small to be seen turn any image into any class for the network: the "
    "picture stays what it was, and what the network is now sure of is not in it.",
    parts=(
        Part(
            name="targeted",
            caption="One image of each of eight classes with what the standard network takes it "
            "for (top), the change by the first attack, box-constrained L-BFGS, magnified as told "
            "(middle), and the changed image with its new class (bottom).",
            alt="Eight photographs, grey noise with some colour, and the same eight photographs, "
            "which look unchanged but carry other class names.",
            draw=_targeted,
            tell=_changed,
            numbers={"every": (80, 80, 8), "rounds": (4, 8, 12), "steps": (12, 15, 25)},
            quick=False,
        ),
        Part(
            name="any_class",
            caption="One horse, ten times: each picture is taken for the class above it; the "
            "number is the change it took, RMS in levels of 255 (0 where it was that class "
            "already).",
            alt="Ten pictures of a brown horse on grass that look the same, with the names of "
            "all ten classes above them.",
            draw=_any,
            tell=_all_ten,
            numbers={"rounds": (4, 5, 12), "steps": (12, 15, 25)},
            quick=False,
        ),
        Part(
            name="elephant",
            caption="Four elephants (top) on which the gradient asks for a goldfish until the "
            "network is 99 % sure; what was added, magnified as told (middle); and the result "
            "(bottom). This attack takes the first way up it finds, so that its changes are larger "
            "than the smallest that would do.",
            alt="Four photographs of elephants, coloured speckle, and the same elephants with a "
            "little coloured noise; no goldfish.",
            draw=_elephant,
            tell=_no_goldfish,
            numbers={"steps": (20, 30, 200)},
        ),
        Part(
            name="radius",
            caption="The share of test images that each network still gets right when an attack "
            "(PGD) may change them by so much.",
            alt="Two falling curves: the standard network's drops to zero at once, the robust "
            "one's slowly.",
            draw=_radius,
            tell=_curves,
            numbers={"every": (32, 32, 2), "steps": (10, 10, 40)},
            quick=False,
        ),
    ),
    judge=_judge,
)
