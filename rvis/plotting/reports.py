"""A layer as one static page: hover or tap a unit for its picture, its curve and real examples."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import json
import re
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
      ValueError, OSError: naming `path` or `entries`.

    Example:
      >>> import tempfile, numpy as np
      >>> from rvis.plotting import reports
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
        f'alt="Picture that maximises {html.escape(entry.label, quote=True)}">'
        f"<span>{html.escape(entry.label)}</span></button>"
        for i, entry in enumerate(entries)
    )
    foot = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>"
        for name, value in about.items()
    )
    template = resources.files("rvis.plotting").joinpath("layer.html").read_text("utf-8")
    page = fill(
        template,
        title=html.escape(title),
        policy=_policy(template),
        count=str(len(entries)),
        tiles=tiles,
        about=foot,
        data=script_data(data),
    )
    with files.atomic(target) as beside:
        beside.write_text(page, encoding="utf-8")
    return target


def fill(template: str, **parts: str) -> str:
    """A template's `{{name}}` replaced by HTML, all at once: it is not looked at again.

    Example:
      >>> from rvis.plotting import reports
      >>> reports.fill("<h1>{{title}}</h1>{{data}}", title="{{data}}", data="1")
      '<h1>{{data}}</h1>1'
    """
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


def script_data(value: object) -> str:
    r"""`value` as JSON that may stand inside a script element, whatever its texts hold.

    Example:
      >>> from rvis.plotting import reports
      >>> print(reports.script_data("</script>"))
      "\u003c/script>"
    """
    return json.dumps(value).replace("<", "\\u003c")


def _policy(template: str) -> str:
    """A Content-Security-Policy: this style, this script, pictures beside it, nothing else."""
    allowed = {}
    for tag in ("style", "script"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", template, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        allowed[tag] = f"{tag}-src 'sha256-{digest}'"
    # A page that is opened from a disk is no origin in every browser, hence the scheme.
    return (
        f"default-src 'none'; img-src 'self' file:; {allowed['style']}; {allowed['script']}; "
        "base-uri 'none'; form-action 'none'"
    )


def _curve(scores: np.ndarray) -> dict[str, object]:
    """At most 120 points in a box of 300×90, and the ends of the scale."""
    places = np.unique(np.linspace(0, len(scores) - 1, min(len(scores), 120)).round().astype(int))
    low, high = float(scores.min()), float(scores.max())
    span = high - low if high > low else 1.0
    x = 300 * places / max(len(scores) - 1, 1)
    y = 90 - 90 * (scores[places] - low) / span
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    return {"points": points, "low": f"{low:.4g}", "high": f"{high:.4g}", "steps": len(scores)}
