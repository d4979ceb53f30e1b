"""A layer as one static page: hover or tap a unit for its picture, its curve and real examples."""

from __future__ import annotations

import dataclasses
import html
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

import numpy as np

from rvis import files
from rvis.files import PathLike


@dataclasses.dataclass(frozen=True)
class Entry:
    """What a page shows of one unit.

    Attributes:
      label: its title.
      picture: the large picture's place, relative to the page.
      scores: the objective over the steps.
      dead: whether it never moved.
      figures: {name: value} in the order of display.
      examples: place of a picture of the real images that excite it most; empty for none.
    """

    label: str
    picture: str
    scores: np.ndarray
    dead: bool = False
    figures: Mapping[str, str] = dataclasses.field(default_factory=dict)
    examples: str = ""


def layer_page(
    path: PathLike, entries: Sequence[Entry], *, title: str, about: Mapping[str, str]
) -> Path:
    """Writes the page, whole or not at all; it needs no server and nothing from outside its folder.

    Args:
      path: where to; it ends in ".html".
      entries: one for each unit, in the order of display.
      title: what the page is of.
      about: {name: value} of how it was made, shown at its foot.

    Raises:
      ValueError: naming `path` or `entries`.
      OSError: naming `path` and the reason, as in `rvis.files.atomic`.

    Example:
      >>> import tempfile, numpy as np
      >>> from rvis import reports
      >>> entry = reports.Entry("layer1:0", "units/unit00000.png", np.arange(4.0))
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     reports.layer_page(f"{folder}/index.html", [entry], title="layer1", about={}).name
      'index.html'
    """
    target = files.as_path("path", path)
    if target.suffix != ".html":
        raise ValueError(f"path: a name ending in .html was expected, given {str(target)!r}")
    if not entries:
        raise ValueError("entries: at least one unit was expected, given none")
    data = [
        {
            "label": entry.label,
            "picture": entry.picture,
            "curve": _curve(np.asarray(entry.scores, float)),
            "dead": bool(entry.dead),
            "figures": list(entry.figures.items()),
            "examples": entry.examples,
        }
        for entry in entries
    ]
    tiles = "\n".join(
        f'<button class="tile{" dead" if entry.dead else ""}" data-i="{i}">'
        f'<img loading="lazy" src="{html.escape(entry.picture, quote=True)}" '
        f'alt="{html.escape(_spoken(entry), quote=True)}">'
        f"<span>{html.escape(entry.label)}</span></button>"
        for i, entry in enumerate(entries)
    )
    foot = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>"
        for name, value in about.items()
    )
    template = resources.files("rvis").joinpath("templates", "layer.html").read_text("utf-8")
    page = (
        template.replace("{{title}}", html.escape(title))
        .replace("{{count}}", str(len(entries)))
        .replace("{{tiles}}", tiles)
        .replace("{{about}}", foot)
        # A label may hold "</script>".
        .replace("{{data}}", json.dumps(data).replace("<", "\\u003c"))
    )
    with files.atomic(target) as beside:
        beside.write_text(page, encoding="utf-8")
    return target


def _spoken(entry: Entry) -> str:
    state = " (never moved)" if entry.dead else ""
    return f"Picture that maximises {entry.label}{state}"


def _curve(scores: np.ndarray) -> dict[str, object]:
    """At most 120 points in a box of 300×90, and the ends of the scale."""
    places = np.unique(np.linspace(0, len(scores) - 1, min(len(scores), 120)).round().astype(int))
    low, high = float(scores.min()), float(scores.max())
    span = high - low if high > low else 1.0
    x = 300 * places / max(len(scores) - 1, 1)
    y = 90 - 90 * (scores[places] - low) / span
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    return {"points": points, "low": f"{low:.4g}", "high": f"{high:.4g}", "steps": len(scores)}
