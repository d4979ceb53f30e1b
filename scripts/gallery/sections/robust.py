"""A robust network beside a standard one: what their gradients and their units look like."""

from __future__ import annotations

import numpy as np

import rvis
from rvis import attribution, evolve, optimizers
from rvis.analysis import metrics
from rvis.objectives import channel, probability
from rvis.plotting import grids
from scripts.gallery import samples
from scripts.gallery.base import Outcome, Part, Section, Tables, Verdict


def _gradients(every: int) -> list[attribution.Attribution]:
    some = samples.load("cifar10").take(slice(3, None, every))
    models = rvis.load("cifar10_resnet"), rvis.load("cifar10_resnet_robust")
    return [attribution.gradient(model, some.floats(), some.labels) for model in models]


def _seen(found: list[attribution.Attribution]) -> Outcome:
    images = found[0].images
    centred = images - images.mean((1, 2, 3), keepdims=True)
    length = np.sqrt(np.square(centred).sum((1, 2, 3)))
    sharp = _edges(images)
    table = {}
    for name, one in zip(("standard", "robust"), found, strict=True):
        table[name] = {
            "cosine of image and gradient": float(
                (metrics.alignment(centred, one.maps) / length).mean()
            ),
            "rank correlation with edges": float(
                metrics.spearman(one.heatmaps("max"), sharp).mean()
            ),
            "fine share of the gradient": float(_fine(one.maps).mean()),
        }
    chosen = np.linspace(0, len(images) - 1, 8).astype(int)
    rows = [images[chosen]]
    for one in found:
        some = one.maps[chosen]
        most = np.percentile(np.abs(some), 99.5, axis=(1, 2, 3), keepdims=True)
        rows.append(np.clip(0.5 + some / (2 * most), 0, 1))
    picture = grids.grid(np.stack(rows), row_titles=["image", "standard", "robust"])
    return Outcome(picture, table)


def _edges(images: np.ndarray) -> np.ndarray:
    """(n, H, W) length of the differences between neighbours of the grey image (Sobel)."""
    grey = np.pad(images.mean(-1), ((0, 0), (1, 1), (1, 1)), "edge")
    down, across = grey[:, 2:] - grey[:, :-2], grey[:, :, 2:] - grey[:, :, :-2]
    rows = across[:, :-2] + 2 * across[:, 1:-1] + across[:, 2:]
    columns = down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:]
    return np.hypot(rows, columns)


def _fine(maps: np.ndarray) -> np.ndarray:
    """(n,) the share of the energy in waves shorter than four pixels."""
    low, high = (f((1, 2, 3), keepdims=True) for f in (maps.min, maps.max))
    return evolve.roughness(((maps - low) / (high - low)).astype(np.float32))


def _units(units: int, steps: int) -> list[rvis.Result]:
    objective = channel("layer4", np.linspace(0, 255, units).astype(int))
    plain = {"image": "pixel", "transforms": (), "optimizer": optimizers.steepest(0.5, norm="l2")}
    return [
        rvis.visualize(rvis.load(name), objective, steps=steps, **plain)
        for name in ("cifar10_resnet", "cifar10_resnet_robust")
    ]


def _drawn(found: list[rvis.Result]) -> Outcome:
    table = _shares(found)
    photos = samples.load("cifar10").floats(np.arange(0, 800, 8))
    table["test images"] = {"fine share": float(np.median(evolve.roughness(photos)))}
    picture = grids.grid(
        np.stack([one.images[:8] for one in found]),
        titles=[str(label) for label in found[0].labels[:8]],
        row_titles=["standard", "robust"],
    )
    return Outcome(picture, table)


def _classes(steps: int) -> list[rvis.Result]:
    plain = {"image": "pixel", "transforms": (), "optimizer": optimizers.steepest(0.5, norm="l2")}
    return [
        rvis.visualize(rvis.load(name), probability(range(10)), steps=steps, **plain)
        for name in ("cifar10_resnet", "cifar10_resnet_robust")
    ]


def _recognised(found: list[rvis.Result]) -> Outcome:
    judge = rvis.load("cifar10_resnet_narrow")
    table, titles = _shares(found), []
    for name, one in zip(("standard", "robust"), found, strict=True):
        seen = np.asarray(judge(one.images)).argmax(1)
        table[name]["third network sees the class"] = float((seen == np.arange(10)).mean())
        titles += [judge.classes[i] for i in seen]
    rows = [one.images[some] for some in (slice(5), slice(5, 10)) for one in found]
    titles = titles[:5] + titles[10:15] + titles[5:10] + titles[15:]
    picture = grids.grid(rows, titles=titles, row_titles=["standard", "robust"] * 2, scale=4)
    return Outcome(picture, table)


def _shares(found: list[rvis.Result]) -> dict[str, dict[str, float]]:
    return {
        name: {"fine share": float(np.median(evolve.roughness(one.images)))}
        for name, one in zip(("standard", "robust"), found, strict=True)
    }


def _judge(tables: Tables) -> Verdict:
    standard, robust = (tables["gradients"][name] for name in ("standard", "robust"))
    cosine, edges = "cosine of image and gradient", "rank correlation with edges"
    ahead = [robust[name] > 2 * standard[name] for name in (cosine, edges)]
    said = (
        f"The gradient's cosine with the image is {robust[cosine]:.3f} on the robust network and "
        f"{standard[cosine]:.3f} on the standard one; the rank correlation of its size with the "
        f"image's edges is {robust[edges]:.2f} and {standard[edges]:.2f}."
    )
    if "units" in tables:
        fine = [tables["units"][name]["fine share"] for name in ("robust", "standard")]
        photos = tables["units"]["test images"]["fine share"]
        ahead.append(fine[0] < fine[1] / 2)
        said += (
            f" Waves shorter than four pixels have {fine[0]:.0%} of the variance in the robust "
            f"network's units, {fine[1]:.0%} in the standard one's and {photos:.0%} in test images."
        )
    if "classes" in tables:
        seen = [
            tables["classes"][name]["third network sees the class"]
            for name in ("robust", "standard")
        ]
        said += (
            f" A third network sees the class in {seen[0]:.0%} of the robust network's class "
            f"pictures and in {seen[1]:.0%} of the standard one's"
            f"{'.' if seen[0] > seen[1] + 0.2 else ': unlike the eye, it cannot tell them.'}"
        )
    return Verdict("yes" if all(ahead) else "in part" if any(ahead) else "no", said)


SECTION = Section(
    name="robust",
    title="A robust network beside a standard one",
    claim="Trained against attacks, a network has gradients that look like the image, and each "
    "coordinate of its representation looks like something, without any regularizer; a standard "
    "network's gradients and units look like noise.",
    parts=(
        Part(
            name="gradients",
            caption="Test images, and the gradients of their class's logit, as they are (grey is "
            "zero): standard network (middle) and robust one (bottom).",
            alt="Eight photographs; below them grey fields of coloured noise, and below these "
            "fields in which the outlines of the photographs can be seen.",
            draw=_gradients,
            tell=_seen,
            numbers={"every": (20, 4, 1)},
        ),
        Part(
            name="units",
            caption="Channels of the last block, from noise by steps along the gradient and "
            "nothing else.",
            alt="Two rows of eight pictures: noise in the first, shapes with smooth colours in the "
            "second.",
            draw=_units,
            tell=_drawn,
            numbers={"units": (4, 8, 64), "steps": (30, 60, 200)},
            quick=False,
        ),
        Part(
            name="classes",
            caption="All ten classes in the same way, airplane to deer above and dog to truck "
            "below, with what a third, standard network sees in each.",
            alt="Four rows of five pictures: coloured noise in the first and third, recognisable "
            "animals and vehicles in the others.",
            draw=_classes,
            tell=_recognised,
            numbers={"steps": (30, 60, 200)},
            quick=False,
        ),
    ),
    judge=_judge,
)
