"""Why: few dimensions of data in many of pixels, and networks that are linear along a gradient."""

from __future__ import annotations

import numpy as np

import rvis
from rvis import attacks
from rvis.analysis import manifold, representations
from rvis.plotting import figures, grids
from scripts.gallery import samples
from scripts.gallery.base import Outcome, Part, Section, Tables, Verdict
from scripts.gallery.toy import Toy, toy


def _toy(points: int) -> Toy:
    return toy(points=points, attacked=24)


def _leaving(found: Toy) -> Outcome:
    fell = np.isfinite(found.off)
    table = {
        "two features": {
            "accuracy on the data": found.accuracy,
            "points attacked": len(found.off),
            "fell": int(fell.sum()),
            "path off the curve, median": float(np.median(found.off[fell])),
            "way along the curve, median": float(np.median(found.on[fell])),
        }
    }
    return Outcome(figures.picture(found.plot()), table)


def _dimension(k: int) -> dict[str, tuple[int, manifold.Dimension]]:
    photos = samples.load("cifar10").floats()
    sets = {
        "MNIST": samples.load("mnist").floats(),
        "CIFAR-10": photos,
        "animals of 64 pixels": samples.load("tiny_imagenet_animals").floats(),
        "noise as CIFAR-10": np.random.default_rng(0).random(photos.shape),
    }
    return {name: (x[0].size, manifold.intrinsic_dimension(x, k=k)) for name, x in sets.items()}


def _few(found: dict[str, tuple[int, manifold.Dimension]]) -> Outcome:
    table = {
        name: {
            "numbers in an image": size,
            "images": told.points,
            "dimension": told.value,
            "standard error": told.error,
            "numbers a dimension": size / told.value,
        }
        for name, (size, told) in found.items()
    }
    ax = figures.axes()
    line = [400, 20000]
    ax.plot(line, line, color="0.6", label="as many as numbers")
    for name, (size, told) in found.items():
        ax.errorbar(size, told.value, told.error, fmt="o", capsize=3, label=name)
    ax.set(
        xscale="log",
        yscale="log",
        xlim=line,
        ylim=(5, 20000),
        xlabel="numbers in an image",
        ylabel="intrinsic dimension",
    )
    ax.legend()
    return Outcome(figures.picture(ax), table)


def _linear(every: int) -> dict[str, manifold.LinearShift]:
    some = samples.load("cifar10").take(slice(None, None, every))
    models = [rvis.load(name) for name in ("cifar10_resnet", "cifar10_resnet_robust")]
    return {
        model.name: manifold.linear_shift(model, some.floats(), some.labels, 1 / 255)
        for model in models
    }


def _adding_up(found: dict[str, manifold.LinearShift]) -> Outcome:
    def size(changes: np.ndarray) -> np.ndarray:
        return np.sqrt(np.square(changes).mean(0))

    table = {}
    ax = figures.axes(size=(7, 4.5))
    for colour, model in zip(("C0", "C2"), found, strict=True):
        shift = found[model]
        kind = "robust" if model.endswith("robust") else "standard"
        told = {name: size(getattr(shift, name)) for name in ("predicted", "adversarial", "noise")}
        for name, look, size_of in (
            ("gradient's signs", "-", told["adversarial"]),
            ("prediction", "o", told["predicted"]),
            ("random signs", "--", told["noise"]),
        ):
            ax.plot(
                shift.dimensions,
                np.maximum(size_of, 1e-6),
                look,
                ms=4,
                color=colour,
                label=f"{kind}, {name}",
            )
        table[model] = {
            "predicted": float(told["predicted"][-1]),
            "adversarial": float(told["adversarial"][-1]),
            "random signs": float(told["noise"][-1]),
            "adversarial / predicted": float(told["adversarial"][-1] / told["predicted"][-1]),
            "adversarial / random": float(told["adversarial"][-1] / told["noise"][-1]),
        }
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="numbers of the image changed by 1/255",
        ylabel="change of the logit (root mean square)",
    )
    ax.legend(fontsize="small")
    return Outcome(figures.picture(ax), table)


def _away(every: int, steps: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    model, test = rvis.load("cifar10_resnet"), samples.load("cifar10")
    rows = np.random.default_rng(0).permutation(np.arange(0, 800, every))
    clean, rest = test.floats(rows), test.floats(np.setdiff1d(np.arange(800), rows))
    hit = attacks.bim(model, clean, test.labels[rows], eps=4 / 255, steps=steps).images
    noise = np.random.default_rng(1).standard_normal(clean.shape).astype(np.float32)
    noise *= np.sqrt(np.square(hit - clean).mean((1, 2, 3), keepdims=True))
    return {"clean": clean, "noise": np.clip(clean + noise, 0, 1), "adversarial": hit}, rest


def _off(made: tuple[dict[str, np.ndarray], np.ndarray]) -> Outcome:
    shown, rest = made
    model = rvis.load("cifar10_resnet")
    clean = shown["clean"]
    truth = np.asarray(model(clean)).argmax(1)
    table, titles = {}, []
    for name, images in shown.items():
        seen = np.asarray(model(images)).argmax(1)
        codes = [representations.encode(model, x, "avgpool") for x in (images, clean)]
        local = manifold.local_dimension(*codes, k=10)
        inside = manifold.local_dimension(images, clean, k=10)
        table[name] = {
            "class kept": float((seen == truth).mean()),
            "distance from the data's tangent": float(
                np.mean(manifold.distance_to_data(images, rest).residual)
            ),
            "local dimension, pixels": float(np.median(inside)),
            "local dimension, avgpool": float(np.nanmedian(local)),
        }
        titles += [model.classes[i] for i in seen[:8]]
    rows = np.stack([images[:8] for images in shown.values()])
    return Outcome(grids.grid(rows, titles=titles, row_titles=list(shown)), table)


def _judge(tables: Tables) -> Verdict:
    toy = tables["toy"]["two features"]
    off, on = toy["path off the curve, median"], toy["way along the curve, median"]
    said = (
        f"In the toy, steps of {off:.2f} off the curve do what takes {on:.2f} along it "
        f"({toy['fell']:.0f} of {toy['points attacked']:.0f} points fall, though accuracy on the "
        f"curve is {toy['accuracy on the data']:.0%})."
    )
    if "dimension" not in tables:
        return Verdict("in part" if off < on / 2 else "no", f"{said} The rest was not measured.")
    sets, linear = tables["dimension"], tables["linear"]["cifar10_resnet"]
    few = sets["noise as CIFAR-10"]["dimension"] / sets["CIFAR-10"]["dimension"]
    ratio, times = linear["adversarial / predicted"], linear["adversarial / random"]
    clean, noise, hit = (tables["distance"][name] for name in ("clean", "noise", "adversarial"))
    far = "distance from the data's tangent"
    local = "local dimension, avgpool"
    leave = [hit[name] > max(clean[name], noise[name]) for name in (far, local)]
    holds = [off < on / 2, few > 4, 0.5 < ratio < 2 and times > 5, *leave]
    return Verdict(
        "yes" if all(holds) else "in part" if any(holds) else "no",
        f"{said} CIFAR-10's images seem to have {sets['CIFAR-10']['dimension']:.0f} dimensions in "
        f"3,072 numbers (noise: {sets['noise as CIFAR-10']['dimension']:.0f}, itself far too few: "
        f"800 images see no more). Along the gradient's signs the logit moves {ratio:.2f} times "
        f"what linearity predicts, and {times:.0f} times what random signs do. Attacked images "
        f"lie {hit[far]:.2f} from the data's tangent, clean ones {clean[far]:.2f}, noise of equal "
        f"length {noise[far]:.2f}"
        + ("" if leave[0] else ": in pixels they are no farther from the data than noise is")
        + f"; before the last layer their local dimension is {hit[local]:.1f} (clean "
        f"{clean[local]:.1f}, noise {noise[local]:.1f}).",
    )


SECTION = Section(
    name="manifold",
    title="Why adversarial examples exist",
    claim="Images fill few of the dimensions that pixels have. A boundary need only be right on "
    "them, and may pass close by; and since a network is nearly linear along its gradient, many "
    "small changes add up to leave the data and cross it.",
    parts=(
        Part(
            name="toy",
            caption="A network that tells the inner from the outer half of a spiral (blue and "
            "orange; the boundary is grey). Black paths: from some of the points, steps against "
            "the class until it falls.",
            alt="A spiral of points in two colours on a background of two colours; short black "
            "paths leave the spiral sideways.",
            draw=_toy,
            tell=_leaving,
            numbers={"points": (400, 400, 400)},
        ),
        Part(
            name="dimension",
            caption="How many dimensions the sample images seem to have, by maximum likelihood "
            "from the distances of neighbours, against how many numbers an image has. The grey "
            "line is where all numbers would be free.",
            alt="A chart with three points far below a diagonal, and noise between.",
            draw=_dimension,
            tell=_few,
            numbers={"k": (20, 20, 20)},
            quick=False,
        ),
        Part(
            name="linear",
            caption="The change of the class's logit when more and more numbers of the image are "
            "changed by one level: along the gradient's signs (points: what linearity predicts), "
            "and by random signs.",
            alt="Rising lines on logarithmic axes; for each network the points of the prediction "
            "lie on the line of the gradient's signs, and random signs far below.",
            draw=_linear,
            tell=_adding_up,
            numbers={"every": (40, 20, 4)},
            quick=False,
        ),
        Part(
            name="distance",
            caption="Test images, the same with noise, and with an attack (4 levels, the "
            "noise is as long), each with the class that the standard network sees.",
            alt="Three rows of eight photographs that look alike; the third mostly carries "
            "other class names.",
            draw=_away,
            tell=_off,
            numbers={"every": (20, 8, 2), "steps": (5, 5, 10)},
            quick=False,
        ),
    ),
    judge=_judge,
)
