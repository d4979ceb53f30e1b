"""A page to browse concepts by: pictures, examples with maps, effects on classes, names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from rvis import checks, files, gate
from rvis.analysis import ranking
from rvis.analysis.faithful import faithfulness
from rvis.analysis.patches import cut, windows
from rvis.concepts.dictionary import Concepts, attach, check_concepts, class_names
from rvis.concepts.influence import effects
from rvis.concepts.scores import Measures, measure
from rvis.data import Dataset
from rvis.objectives import Objective, channel
from rvis.plotting import grids, reports
from rvis.results import describe
from rvis.types import ArrayLike, Model, Units

Embed = Callable[[Any], ArrayLike]


@gate.public
def label(
    pictures: ArrayLike,
    texts: Sequence[str],
    *,
    encode_image: Embed,
    encode_text: Embed,
) -> tuple[tuple[str, ...], np.ndarray]:
    """Names concepts by the texts that are nearest to their top images.

    A text's mean similarity over all concepts is subtracted, since some texts are near to
    everything.

    Args:
      pictures: (m, k, H, W, C) each concept's top images or patches, as `encode_image` takes them.
      texts: a list of words.
      encode_image: of (n, H, W, C) pictures; such as `partial(rvis.clip.encode_image, clip)`.
      encode_text: of the texts; such as `partial(rvis.clip.encode_text, clip)`.

    Returns:
      One text a concept, and by how much its similarity is above its mean.

    Raises:
      ValueError: naming the argument.

    Example:
      >>> import numpy as np
      >>> from rvis import concepts
      >>> words = {"dark": (1, 0), "bright": (0, 1)}
      >>> def encode_image(x):
      ...     level = x.mean((1, 2, 3))
      ...     return np.stack([1 - level, level], 1)
      >>> pictures = np.stack([np.zeros((2, 4, 4, 3)), np.ones((2, 4, 4, 3))])
      >>> encode_text = lambda texts: np.array([words[text] for text in texts])
      >>> embed = {"encode_image": encode_image, "encode_text": encode_text}
      >>> concepts.label(pictures, list(words), **embed)[0]
      ('dark', 'bright')

    Reference: Oikarinen & Weng 2023, CLIP-Dissect, whose softer similarities are left out.
    """
    given, listed = np.asarray(pictures), list(texts)
    if given.ndim != 5:
        raise ValueError(f"pictures: (m, k, H, W, C) was expected, given shape {given.shape}")
    if not listed:
        raise ValueError("texts: at least one was expected, given none")
    seen = np.asarray(encode_image(given.reshape(-1, *given.shape[2:])))
    vectors = seen.reshape(*given.shape[:2], -1).mean(1)
    similarity = vectors @ np.asarray(encode_text(listed)).T
    if len(given) > 1:
        similarity = similarity - similarity.mean(0)
    best = similarity.argmax(1)
    return tuple(listed[i] for i in best), np.take_along_axis(similarity, best[:, None], 1)[:, 0]


@gate.public
def report(
    model: Model,
    concepts: Concepts,
    dataset: Dataset,
    folder: files.PathLike,
    numbers: Units | None = None,
    *,
    measures: Measures | None = None,
    draw: Callable[[Model, Objective], Any] | None = None,
    name: Callable[[np.ndarray], Sequence[str]] | None = None,
    chunk: int | None = None,
    progress: bool = True,
) -> Path:
    """Writes a page to browse concepts by, as `rvis.sweep` does for a layer's channels.

    Each concept has its picture, its top images with maps, the patches at which it was strongest,
    and figures: how often it is on, its share of the variance, the purity of its top images, what
    it gives to classes by gradient and by ablation and the rank correlation of the two, and, where
    there is a picture, how faithful it is.

    Args:
      model: any classifier.
      concepts: of one of its layers, with places.
      dataset: labelled images that the model takes.
      folder: where to; "index.html" is the page.
      numbers: (m,) concepts; all by default.
      measures: of these concepts and this data, where `measure` was called before.
      draw: what draws the pictures: a function of the model and m objectives whose result has
        `images` (m, H, W, C) and `scores` (m, steps), such as `rvis.visualize`; without it the
        strongest image stands in.
      name: gives one name a concept for its top images (m, k, H, W, C), such as `label`.
      chunk: images at once, a bound on memory.
      progress: a bar on a terminal.

    Returns:
      The page's path.

    Raises:
      TypeError, ValueError, OSError: naming the argument.

    Example:
      >>> import numpy as np, rvis, tempfile
      >>> from rvis import concepts
      >>> images = np.random.default_rng(0).integers(0, 256, (12, 28, 28, 1), np.uint8)
      >>> noise = rvis.data.Dataset(images, np.zeros(12, np.int32), ("noise",), "noise")
      >>> model, directions = rvis.load("mnist_cnn"), concepts.channels("relu2", 64)
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     concepts.report(model, directions, noise, folder, [3, 5]).name
      'index.html'
    """
    place = files.as_path("folder", folder)
    size = dataset.images.shape[1:]
    if len(check_concepts(model, concepts, size)) != 3:
        raise ValueError(
            f"concepts: of a layer with places were expected, given {concepts.layer!r}"
        )
    chosen, names = concepts.numbers(numbers), class_names(model)
    checks.function("draw", draw)
    if measures is None:
        k = min(9, len(dataset))
        measures = measure(model, concepts, dataset, k, chunk=chunk, progress=progress)
    if len(measures.values) != len(concepts):
        raise ValueError(f"measures: of {len(concepts)} concepts were expected")
    top = measures.indices[chosen]
    images = dataset.floats(top.reshape(-1)).reshape(*top.shape, *size)
    given = effects(model, concepts, images, chosen, chunk=chunk, progress=progress)
    corners, window = windows(model, concepts.layer, measures.positions[chosen], size)
    drawn = None if draw is None else draw(model, concepts.objective(chosen))
    judged = None
    if drawn is not None:
        readings = channel(f"{concepts.layer}.readings", chosen)
        both = attach(model, concepts)
        judged = faithfulness(both, readings, drawn.images, dataset, chunk=chunk)
    titles = [concepts.named(number) for number in chosen]
    if name is not None:
        titles = [f"{a}: {b}" for a, b in zip(titles, name(images), strict=True)]
    entries = []
    for i, number in enumerate(chosen):
        maps = _maps(model, concepts, images[i])[..., number]
        maps = np.asarray(jax.image.resize(np.maximum(maps, 0), images.shape[1:4], "linear"))
        patches = np.stack([cut(*pair, window) for pair in zip(images[i], corners[i], strict=True)])
        blended = grids.overlay(images[i], maps, style="blend")
        grids.save(_sheet(blended, patches), place / "concepts" / f"{number:05d}_real.png")
        picture = images[i, 0] if drawn is None else drawn.images[i]
        grids.save(grids.to_pil(np.clip(picture, 0, 1)), place / "concepts" / f"{number:05d}.png")
        figures = {
            "on at": f"{measures.frequency[number]:.2%} of the places",
            "variance": f"{measures.variance[number]:.2%}",
            "commonest class": f"{dataset.classes[measures.commonest[number]]}, "
            f"{measures.purity[number]:.0%} of the top images",
            "gives, by gradient": _largest(given.gradient[i], names),
            "gives, by ablation": _largest(given.ablation[i], names),
            "their rank correlation": f"{given.correlation[i]:.2f}",
        }
        if judged is not None:
            figures["picture above real images"] = f"{judged.percentile[i]:.1f} %"
            figures["its rank among concepts"] = str(judged.rank[i])
        entries.append(
            reports.Entry(
                titles[i],
                f"concepts/{number:05d}.png",
                measures.values[number][::-1] if drawn is None else drawn.scores[i],
                bool(measures.values[number, 0] <= 0),
                figures,
                f"concepts/{number:05d}_real.png",
            )
        )
    config = describe(function="report", model=model.name, layer=concepts.layer, numbers=chosen)
    told = {
        "data": f"{dataset.name}, {len(dataset)} images",
        "explained variance": f"{measures.explained:.3f}",
        "concepts on at a place": f"{measures.active:.1f} of {len(concepts)}",
        "rank correlation of effects by gradient and by ablation": (
            f"{given.correlation.mean():.3f} in the mean of {len(chosen)} concepts"
        ),
        "versions": str(config["versions"]),
    }
    files.write_json(place / "card.json", {**config, **told, "correlation": given.correlation})
    title = f"{model.name}: concepts of {concepts.layer}"
    return reports.layer_page(place / "index.html", entries, title=title, about=told)


def _maps(model: Model, concepts: Concepts, images: np.ndarray) -> np.ndarray:
    """(n, h, w, k) on the host."""
    activations = ranking.each(ranking.Activations(concepts.layer), model, images)
    return np.asarray(concepts(activations))


def _largest(row: np.ndarray, names: Sequence[str], count: int = 3) -> str:
    """The classes to which a concept gives most, up or down."""
    order = np.argsort(-np.abs(row), kind="stable")[:count]
    return ", ".join(f"{names[i]} {row[i]:+.2f}" for i in order)


_CELL = 112


def _sheet(blended: np.ndarray, patches: np.ndarray) -> Image.Image:
    """Top images with maps to the left, patches to the right, three in a row."""
    sheets = [
        grids.spritemap(
            [np.asarray(grids.to_pil(x).convert("RGB").resize((_CELL, _CELL))) / 255 for x in part],
            columns=3,
        )
        for part in (blended, patches)
    ]
    both = Image.new("RGB", (sum(s.width for s in sheets) + 8, sheets[0].height), "white")
    for sheet, x in zip(sheets, (0, sheets[0].width + 8), strict=True):
        both.paste(sheet, (x, 0))
    return both
