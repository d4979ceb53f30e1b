"""Groups of neurons: a layer's activations of an image as a few building blocks."""

from __future__ import annotations

import numpy as np

import rvis
from rvis import attribution, images
from rvis.concepts import groups
from scripts.gallery import networks
from scripts.gallery.base import Outcome, Part, Section, Tables, Verdict, both

Found = tuple[groups.Groups, attribution.Attribution]


def _blocks(
    network: str, place: str, photos: str, names: str, side: int, size: int, steps: int
) -> Found:
    model, image = networks.load(network), networks.photograph(photos, names, side)
    steep = images.Fourier((size, size, 3), decay=1.5)
    classes = np.argsort(-np.asarray(model(image[None]))[0])[:5]
    found = groups.factorize(
        model,
        image,
        place,
        k=6,
        classes=classes,
        draw=lambda model, goal: rvis.visualize(model, goal, image=steep, steps=steps),
    )
    copies = np.repeat(image[None], len(classes), axis=0)
    return found, attribution.layer_gradient_x_activation(model, copies, classes, layer=place)


def _weighed(found: Found) -> Outcome:
    blocks, whole = found
    assert whole.raw is not None
    sums = whole.raw.sum((1, 2, 3), dtype=np.float64)
    split = blocks.effects.sum(0) + blocks.rest
    rows = {f"group {j + 1}": row for j, row in enumerate(blocks.effects)}
    rows |= {"left out": blocks.rest, "all activations x gradient": sums}
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
    whole = table["all activations x gradient"]
    top = next(iter(whole))
    best = max((name for name in table if name.startswith("group")), key=lambda n: table[n][top])
    held = 1 - residual**2
    points = (held > 0.5, off < 1e-4)
    return Verdict(
        "yes" if all(points) else "in part" if any(points) else "no",
        f"Six groups hold {held:.0%} of the squared activations (residual {residual:.2f}); their "
        f"effects and that of the rest sum to activations times gradient to {off:.0e}; of "
        f"{whole[top]:.1f} for {top}, {best} has {table[best][top]:.1f} and the rest "
        f"{table['left out'][top]:.1f}. One picture; nothing is drawn at random.",
    )


def section(cast: networks.Cast) -> Section:
    """The section, drawn by these networks."""
    layers = {"googlenet_bvlc": "inception4d", "efficientnet_lite0": "blocks.4.2.act1"}
    name = networks.title(cast.inside)
    place = layers.get(name, "layer3")
    full = 224 if name in layers else 64
    return Section(
        name="groups",
        title="Neuron groups",
        claim="What a layer makes of an image falls into a few groups of neurons: each with its "
        "places, a picture of what it looks for and an effect on every class.",
        parts=(
            Part(
                name="blocks",
                caption=f"A photograph, its six groups in {place} of {name} in their colours, and "
                "what the groups leave out; then in each row one group: where it is, what it looks "
                "like, and what it gives to five logits.",
                alt="Coloured regions of an animal and its surroundings, beside each a texture or "
                "a piece of the animal, and bars for five classes.",
                draw=_blocks,
                tell=_weighed,
                numbers=both(network=cast.inside, place=place, photos=cast.photos)
                | both(names="labrador_retriever cat tabby", side=full)
                | {"size": (64, 128), "steps": (16, 128)},
            ),
        ),
        judge=_judge,
    )
