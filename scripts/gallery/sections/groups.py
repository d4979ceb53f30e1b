"""Groups of neurons: a layer's activations of an image as a few building blocks."""

from __future__ import annotations

import numpy as np

import rvis
from rvis import attribution
from rvis.concepts import groups
from scripts.gallery import samples
from scripts.gallery.base import Outcome, Part, Section, Tables, Verdict


def _blocks(steps: int) -> tuple[groups.Groups, attribution.Attribution]:
    model = rvis.load("cifar10_resnet_robust")
    image = samples.load("cifar10").floats([620])
    classes = np.array([4, 5, 7, 8, 9])
    found = groups.factorize(
        model,
        image,
        "layer3",
        k=6,
        classes=classes,
        draw=lambda model, goal: rvis.visualize(model, goal, steps=steps),
    )
    copies = image.repeat(len(classes), axis=0)
    whole = attribution.layer_gradient_x_activation(model, copies, classes, layer="layer3")
    return found, whole


def _weighed(found: tuple[groups.Groups, attribution.Attribution]) -> Outcome:
    blocks, whole = found
    assert whole.raw is not None
    sums = whole.raw.sum((1, 2, 3), dtype=np.float64)
    split = blocks.effects.sum(0) + blocks.rest
    rows = {f"group {j + 1}": row for j, row in enumerate(blocks.effects)}
    rows |= {
        "left out": blocks.rest,
        "all activations x gradient": sums,
        "sum less that": split - sums,
    }
    table = {
        name: dict(zip(blocks.classes, map(float, row), strict=True)) for name, row in rows.items()
    }
    table["size of what is left out"] = {"relative": blocks.residual}
    table["sum less all"] = {"relative": float(np.abs(split - sums).max() / np.abs(sums).max())}
    return Outcome(blocks.show(), table)


def _judge(tables: Tables) -> Verdict:
    table = tables["blocks"]
    residual = table["size of what is left out"]["relative"]
    off = table["sum less all"]["relative"]
    top = max(table["all activations x gradient"], key=table["all activations x gradient"].get)
    held = 1 - residual**2
    points = (held > 0.5, off < 1e-4)
    return Verdict(
        "yes" if all(points) else "in part" if any(points) else "no",
        f"Six groups hold {held:.0%} of the squared activations (residual {residual:.2f}); "
        f"their effects and that of the rest sum to activations times gradient to {off:.0e}; of "
        f"{table['all activations x gradient'][top]:.1f} for {top} the rest has "
        f"{table['left out'][top]:.1f}.",
    )


SECTION = Section(
    name="groups",
    title="Neuron groups",
    claim="What a layer makes of an image falls into a few groups of neurons: each with its "
    "places, a picture of what it looks for and an effect on every class.",
    parts=(
        Part(
            name="blocks",
            caption="An image of a horse, its six groups in layer3 of the robust network in their "
            "colours, and what the groups leave out; then in each row one group: where it is, what "
            "it looks like, and what it gives to five logits.",
            alt="Coloured regions of a horse and its surroundings, beside each a texture and bars "
            "for deer, dog, horse, ship and truck.",
            draw=_blocks,
            tell=_weighed,
            numbers={"steps": (16, 96, 512)},
        ),
    ),
    judge=_judge,
)
