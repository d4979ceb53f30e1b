"""Neuron groups: a layer's activations of an image as a few factors, seen, drawn and weighed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from rvis import checks, engine, gate, objectives
from rvis.analysis.questions import Score
from rvis.concepts.factors import nmf
from rvis.objectives import Objective
from rvis.plotting import grids
from rvis.results import describe, write
from rvis.types import LOGITS, Array, ArrayLike, KeyLike, Model, as_key, check_classes, layer_shapes

COLOURS = np.array(
    [(228, 87, 46), (23, 118, 182), (44, 160, 44), (227, 173, 0), (148, 82, 179), (0, 158, 152)]
)
"""Of the groups, 8 bits a channel; they repeat where there are more than six."""


@dataclasses.dataclass(frozen=True, eq=False)
class Groups:
    """The building blocks of one image in one layer.

    Attributes:
      image: (H, W, C) float32 in [0, 1].
      layer: its name.
      maps: (k, h, w) where each group is, strongest group first.
      vectors: (k, channels) what it is made of, of L2 length 1.
      icons: (k, H, W, C) a picture of each, or None.
      effects: (k, classes) Σ group vector · ∂logit/∂activations, what it gives to each logit.
      rest: (classes,) the same of what the groups leave out.
      classes: names of the columns.
      residual: ‖A − Σ maps ⊗ vectors‖ / ‖A‖.
      config: the arguments and versions, as JSON-able values.
    """

    image: np.ndarray
    layer: str
    maps: np.ndarray
    vectors: np.ndarray
    icons: np.ndarray | None
    effects: np.ndarray
    rest: np.ndarray
    classes: tuple[str, ...]
    residual: float
    config: dict[str, Any]

    def show(self) -> PIL.Image.Image:
        """The image, all groups in colour, and a row for each: where, its icon, its effects."""
        return _figure(self)

    def save(self, folder: str | Path) -> Path:
        """Writes a PNG of each icon, the arrays, a JSON card and the figure into `folder`.

        Raises:
          OSError: naming the path, on a full disk or without permission.
        """
        icons = () if self.icons is None else self.icons
        names = ("image", "maps", "vectors", "effects", "rest")
        fields = ("layer", "classes", "effects", "rest", "residual", "config")
        return write(
            folder,
            pictures=((f"group{i}", icon) for i, icon in enumerate(icons)),
            arrays={name: getattr(self, name) for name in names},
            figure=self.show(),
            card={name: getattr(self, name) for name in fields},
        )


@gate.public
def factorize(
    model: Model,
    image: ArrayLike,
    layer: str,
    k: int = 6,
    *,
    key: KeyLike = 0,
    start: str = "nndsvd",
    steps: int = 500,
    classes: Any = None,
    draw: Callable[[Model, Objective], Any] | None = None,
) -> Groups:
    """A layer's activations of one image as k groups of neurons.

    Args:
      model: any model.
      image: (H, W, C), float32 in [0, 1].
      layer: a name of `model.layers` with places and no negative activations (after a ReLU).
      k: groups.
      key, start, steps: as in `nmf`.
      classes: classes for the effects, by number or name; the five highest logits by default.
      draw: what draws the icons: a function of the model and k objectives (the groups' directions)
        whose result has `images` (k, H, W, C), such as `rvis.visualize`; without it there are none.

    Raises:
      TypeError, ValueError: naming the argument; `layer`, where an activation is negative.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis.concepts import groups
      >>> image = np.random.default_rng(0).random((28, 28, 1)).astype(np.float32)
      >>> found = groups.factorize(rvis.load("mnist_cnn"), image, "relu2", k=3)
      >>> found.maps.shape, found.vectors.shape, found.effects.shape
      ((3, 14, 14), (3, 64), (3, 5))

    Reference: Olah et al. 2018, The Building Blocks of Interpretability (distill).
    """
    batch = checks.images("image", image, channels=check_classes(model).input_shape[2])
    if len(batch) != 1:
        raise ValueError(f"image: one image was expected, given {len(batch)}")
    size = batch.shape[1:]
    checks.choice("layer", layer, model.layers)
    checks.choice("start", start, ("nndsvd", "random"))
    shapes = layer_shapes(model, size)  # type: ignore[arg-type]
    if len(shapes.get(layer, ())) != 3 or LOGITS not in shapes:
        raise ValueError(
            f"layer: one with places (h, w, c) was expected, given {layer!r} of shape "
            f"{shapes.get(layer)} for an image of {size}"
        )
    count = shapes[LOGITS][-1]
    if classes is None:
        classes = np.argsort(-np.asarray(model(batch))[0], kind="stable")[:5]
    chosen = checks.classes("classes", classes, model.classes, count=count).reshape(-1)
    if chosen.size == 0:
        raise ValueError("classes: at least one was expected, given none")
    images = np.broadcast_to(np.asarray(batch), (len(chosen), *size))
    options: dict[str, Any] = {"pixels": size[0] * size[1], "chunk": 1}
    problems = (objectives.logit(chosen), images)
    seen, gradients = engine.apply(_Effect(layer), model, problems, **options)
    activations, gradients = seen[0], gradients.astype(np.float64)
    if activations.min() < 0:
        raise ValueError(
            f"layer: one without negative activations, as after a ReLU, was expected, given "
            f"{layer!r} with {activations.min():.4g}"
        )
    factors = nmf(activations, k, key=key, start=start, steps=steps)
    maps = np.moveaxis(factors.maps, -1, 0)
    effects = np.einsum("khw,kc,ahwc->ka", maps, factors.vectors, gradients)
    left = activations - np.einsum("khw,kc->hwc", maps, factors.vectors)
    icons = None
    if draw is not None:
        icons = np.asarray(draw(model, objectives.direction(layer, factors.vectors)).images)
    names = model.classes or [f"class {number}" for number in range(count)]
    about: dict[str, Any] = {"model": model.name, "image": batch, "layer": layer, "k": k}
    about |= {"key": as_key(key), "start": start, "steps": steps, "classes": chosen}
    return Groups(
        image=np.asarray(batch[0]),
        layer=layer,
        maps=maps,
        vectors=factors.vectors,
        icons=icons,
        effects=effects,
        rest=np.einsum("hwc,ahwc->a", left, gradients),
        classes=tuple(names[number] for number in chosen),
        residual=factors.residual,
        config=describe(function="factorize", **about),
    )


@dataclasses.dataclass(frozen=True)
class _Effect:
    """A layer's activation, and the gradient of a logit with respect to it."""

    layer: str

    def __call__(self, model: Model, problem: tuple[Objective, Array]) -> tuple[Array, Array]:
        objective, image = problem
        return Score(model, objective).at(self.layer, image)[1:]


@gate.public
def coloured(image: ArrayLike, maps: ArrayLike, palette: np.ndarray = COLOURS) -> np.ndarray:
    """Groups in their colours over a pale grey copy of the image.

    Args:
      image: (H, W, C) float32 in [0, 1].
      maps: (k, h, w), not negative; enlarged bilinearly to the image.
      palette: (p, 3) colours, 8 bits a channel, over and over again.

    Returns:
      (H, W, 3) float32 in [0, 1]; the colours mix by the groups' strength, full at the largest.

    Example:
      >>> import numpy as np
      >>> from rvis.concepts.groups import coloured
      >>> coloured(np.ones((8, 8, 3), np.float32), np.ones((2, 4, 4))).shape
      (8, 8, 3)
    """
    shown, maps = np.asarray(checks.images("image", image))[0], np.asarray(maps)
    if maps.ndim != 3 or np.ndim(palette) != 2 or np.shape(palette)[-1] != 3:
        raise ValueError(
            f"maps, palette: (k, h, w) and (p, 3) were expected, given {maps.shape} and "
            f"{np.shape(palette)}"
        )
    height, width = shown.shape[:2]
    pale = 0.55 + 0.45 * shown.mean(-1, keepdims=True)
    shape = (len(maps), height, width)
    large = np.maximum(np.asarray(jax.image.resize(maps, shape, "linear")), 0)
    share = large / (maps.max() or 1)
    colours = palette[np.arange(len(maps)) % len(palette)] / 255
    strength = np.minimum(share.max(0), 1)[..., None]
    weights = large / np.maximum(large.sum(0), 1e-12)
    mixed = np.einsum("khw,kc->hwc", weights, colours)
    # Multiplied, so that the image's shapes show through the colour.
    return (pale * (1 - strength) + mixed * strength * pale).astype(np.float32)


_CELL = 128
_BAR = 150


def _figure(groups: Groups) -> PIL.Image.Image:
    font = PIL.ImageFont.load_default(12)
    k, pad, line = len(groups.maps), 6, 16
    row, left = max(_CELL, line * len(groups.classes)) + pad, 2 * (_CELL + pad) + pad
    size = (left + _BAR + 120, line + (k + 1) * row + line + pad)
    picture = PIL.Image.new("RGB", size, "white")
    draw = PIL.ImageDraw.Draw(picture)
    title = f"{groups.layer}, {k} groups, residual {groups.residual:.1%}"
    draw.text((pad, 2), title, fill="black", font=font)

    def paste(image: np.ndarray, column: int, y: int) -> None:
        cell = grids.to_pil(np.clip(image, 0, 1)).convert("RGB")
        scale = _CELL / max(cell.size)
        kind = PIL.Image.Resampling.NEAREST if scale > 1 else PIL.Image.Resampling.LANCZOS
        cell = cell.resize([max(1, round(scale * n)) for n in cell.size], kind)
        picture.paste(cell, (pad + column * (_CELL + pad), y))

    def bars(values: np.ndarray, colour: tuple[int, ...], y: int) -> None:
        middle = left + 110 + _BAR * 0.4
        for i, (name, value) in enumerate(zip(groups.classes, values, strict=True)):
            top = y + i * line
            draw.text((left + 104, top), name[:18], fill="black", font=font, anchor="ra")
            length = _BAR * 0.35 * abs(value) / largest
            ends = (middle, middle + length) if value > 0 else (middle - length, middle)
            draw.rectangle((ends[0], top + 3, ends[1], top + 12), fill=colour)
            draw.line((middle, top, middle, top + line), fill="black")
            draw.text(
                (left + 110 + _BAR, top), f"{value:+.2f}", fill="black", font=font, anchor="ra"
            )

    largest = max(np.abs(groups.effects).max(), np.abs(groups.rest).max(), 1e-12)
    y = line + pad
    paste(groups.image, 0, y)
    paste(coloured(groups.image, groups.maps), 1, y)
    bars(groups.rest, (150, 150, 150), y + line)
    draw.text((left, y - 2), "effects of what is left out", fill="black", font=font)
    for j in range(k):
        y += row
        colour = COLOURS[j % len(COLOURS)]
        paste(coloured(groups.image, groups.maps[j : j + 1], colour[None]), 0, y)
        if groups.icons is not None:
            paste(groups.icons[j], 1, y)
        bars(groups.effects[j], tuple(int(c) for c in colour), y)
    return picture
