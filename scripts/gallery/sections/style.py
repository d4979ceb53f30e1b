"""Texture from one picture, and the grid of style against content."""

from __future__ import annotations

import numpy as np

from rvis import style
from rvis.analysis import metrics
from rvis.plotting import grids
from scripts.gallery import measures, networks
from scripts.gallery.base import Outcome, Part, Section, Tables, Verdict, both

_TEXTURES = ("pizza coffee brain_coral", "monarch")
_CONTENTS = ("king_penguin", "labrador_retriever cat tabby")


def _texture(
    network: str, photos: str, names: tuple[str, ...], side: int, steps: int
) -> list[tuple[np.ndarray, style.StyleResult]]:
    model = networks.load(network)
    images = [networks.photograph(photos, some, side) for some in names]
    stages = (0, steps // 4, steps)
    return [(x, style.texture(model, x, steps=steps, snapshots=stages)) for x in images]


def _woven(found: list[tuple[np.ndarray, style.StyleResult]]) -> Outcome:
    table, rows = {}, []
    for i, (image, result) in enumerate(found):
        first, last = -float(result.scores[0]), -float(result.scores[-1])
        table[f"texture {i + 1}"] = {
            "Gram loss of noise": first,
            "of the texture": last,
            "falls by, %": 100 * (1 - last / first),
        }
        rows.append([image, *list(result.snapshots.values())[:2], result.images])
    titles = ["picture", *(f"step {step}" for step in list(found[0][1].snapshots)[:2]), "texture"]
    return Outcome(grids.grid(rows, titles=titles), table)


def _grid(
    network: str,
    photos: str,
    contents: tuple[str, ...],
    painters: tuple[str, ...],
    ratios: list[float],
    side: int,
    steps: int,
) -> list[tuple[np.ndarray, np.ndarray, style.StyleResult]]:
    model, found = networks.load(network), []
    for content in contents:
        for painter in painters:
            picture, other = (networks.photograph(photos, x, side) for x in (content, painter))
            mixed = style.transfer(model, picture, other, ratio=ratios, steps=steps)
            found.append((picture, other, mixed))
    return found


def _mixed(found: list[tuple[np.ndarray, np.ndarray, style.StyleResult]]) -> Outcome:
    titles = [str(label) for label in found[0][2].labels]
    table = {
        title: measures.told(
            "content loss", metrics.mean([one.content_loss[i] for _, _, one in found])
        )
        | measures.told("style loss", metrics.mean([one.style_loss[i] for _, _, one in found]))
        for i, title in enumerate(titles)
    }
    rows = [[content, *one.images, painter] for content, painter, one in found]
    return Outcome(grids.grid(rows, titles=["content", *titles, "style"]), table)


def _judge(tables: Tables) -> Verdict:
    falls = [row["falls by, %"] for row in tables["texture"].values()]
    rows = list(tables["grid"].values())
    own, other = ([row[f"{kind} loss"] for row in rows] for kind in ("content", "style"))
    points = (min(falls) > 90, own == sorted(own), other == sorted(other, reverse=True))
    return Verdict(
        "yes" if all(points) else "in part" if any(points) else "no",
        f"The Gram loss of noise falls by {min(falls):.1f} to {max(falls):.1f} %. With ever less "
        f"weight on content its loss goes from {own[0]:.2f} to {own[-1]:.2f}, that of style from "
        f"{other[0]:.3f} to {other[-1]:.3f}, "
        f"{'both' if all(points[1:]) else 'not both'} at every step.",
    )


def section(cast: networks.Cast) -> Section:
    """The section, drawn by these networks."""
    name = networks.title(cast.trunk)
    by = both(network=cast.trunk, photos=cast.photos)
    small = {"side": (64, 128)}
    return Section(
        name="style",
        title="Texture and style",
        claim="What goes together in a picture's features, whatever the place, is its texture: "
        "noise with the same Gram matrices looks woven alike. Weighed against another picture's "
        "features in place it is style against content.",
        parts=(
            Part(
                name="texture",
                caption=f"Two pictures, and noise that gets their Gram matrices in {name}.",
                alt="Pictures, each beside coloured noise that turns into the same dots, ridges or "
                "wings at other places.",
                draw=_texture,
                tell=_woven,
                numbers=by | {"names": (_TEXTURES[:1], _TEXTURES)} | small | {"steps": (12, 80)},
            ),
            Part(
                name="grid",
                caption=f"Contents (left) in styles (right) by {name}, between them with a ratio "
                "of content to style that falls from column to column. The table has means.",
                alt="Rows of pictures: a photograph, then its thing in the other picture's colours "
                "and strokes, dissolving to the right, and the other picture.",
                draw=_grid,
                tell=_mixed,
                numbers=by
                | {"contents": (_CONTENTS[:1], _CONTENTS), "painters": (_TEXTURES[1:], _TEXTURES)}
                | {"ratios": ([1, 0.01], [1, 0.1, 0.01])}
                | small
                | {"steps": (16, 60)},
            ),
        ),
        judge=_judge,
        needs="So few steps of so small pictures tell little.",
    )
