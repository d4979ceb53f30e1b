"""The page of a gallery: one static file that needs no server and nothing from elsewhere."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rvis import files, results
from rvis.plotting import reports
from scripts.gallery import measures
from scripts.gallery.base import PRELUDE, Part, Section, Table, Verdict

_MARKS = {"yes": "holds", "in part": "holds in part", "no": "does not hold"}


def stem(sections: Sequence[Section], section: Section, part: Part) -> str:
    """The name of a part's files, without their endings."""
    return f"{sections.index(section) + 1:02d}_{section.name}_{part.name}"


def write(
    place: Path,
    sections: Sequence[Section],
    cards: Mapping[str, Mapping[str, Any]],
    errors: Mapping[str, str],
    *,
    size: str,
) -> Path:
    """Writes `index.html` into a folder, whole or not at all.

    Args:
      place: the folder.
      sections: all of them, in the order of display.
      cards: {file stem: card} of the parts that are made.
      errors: {file stem: message} of the parts that failed.
      size: one of `SIZES`.

    Raises:
      OSError: naming the path.
    """
    verdicts = [verdict(sections, section, cards, size=size) for section in sections]
    seconds = sum(card["seconds"] for card in cards.values())
    template = Path(__file__).with_name("page.html").read_text("utf-8")
    blocks = "\n".join(
        _section(sections, section, told, cards, errors)
        for section, told in zip(sections, verdicts, strict=True)
    )
    contents = "\n".join(
        f'<li><a href="#{section.name}">{_text(section.title)}</a> {_mark(told)}</li>'
        for section, told in zip(sections, verdicts, strict=True)
    )
    version = results.describe()["versions"]["rvis"]
    made = f"{len(cards)} pictures, made in {_duration(seconds)}; {size} size"
    filled = reports.fill(
        template,
        contents=contents,
        made=f"rvis {version}: {made}.",
        prelude=_text(PRELUDE.rstrip()),
        sections=blocks,
    )
    with files.atomic(place / "index.html") as beside:
        beside.write_text(filled, "utf-8")
    return place / "index.html"


def verdict(
    sections: Sequence[Section],
    section: Section,
    cards: Mapping[str, Mapping[str, Any]],
    *,
    size: str,
) -> Verdict:
    """What the cards that there are say of a section's claim."""
    names = {part.name: stem(sections, section, part) for part in section.parts}
    tables = {n: cards[s]["table"] for n, s in names.items() if s in cards}
    return section.verdict(tables, size=size)


def _section(
    sections: Sequence[Section],
    section: Section,
    told: Verdict,
    cards: Mapping[str, Mapping[str, Any]],
    errors: Mapping[str, str],
) -> str:
    parts = []
    for part in section.parts:
        name = stem(sections, section, part)
        if name in cards:
            parts.append(_figure(name, part, cards[name]))
        elif name in errors:
            said = _text(errors[name])
            parts.append(f'<p class="failed">{_text(part.name)} failed: <code>{said}</code></p>')
        else:
            why = "not made" if part.quick else "left to the full run"
            parts.append(f'<p class="absent">{_text(part.name)}: {why}.</p>')
    number = sections.index(section) + 1
    return (
        f'<section id="{section.name}"><h2>{number}. {_text(section.title)} {_mark(told)}</h2>\n'
        f'<p class="claim">{_text(section.claim)}</p>\n'
        f'<p class="verdict">{_text(told.text)}</p>\n' + "\n".join(parts) + "\n</section>"
    )


def _figure(name: str, part: Part, card: Mapping[str, Any]) -> str:
    width, height = card["shape"]
    return (
        f'<figure><a href="{name}.png"><img src="{name}.png" alt="{_text(part.alt)}" '
        f'width="{width}" height="{height}" loading="lazy"></a>\n'
        f"<figcaption>{_text(part.caption)} <small>{_duration(card['seconds'])}</small>"
        f"</figcaption>\n"
        f"{_table(card['table'])}<pre><code>{_text(card['code'])}</code></pre></figure>"
    )


def _table(table: Table) -> str:
    """The figures, those of an interval in one cell."""
    if not table:
        return ""
    named = dict.fromkeys(name for row in table.values() for name in row)
    columns = [name for name in named if not name.endswith(measures.ENDS)]
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in columns)
    body = "".join(
        f'<tr><th scope="row">{_text(name)}</th>'
        + "".join(f"<td>{_cell(row, column)}</td>" for column in columns)
        + "</tr>"
        for name, row in table.items()
    )
    return f'<div class="wide"><table><tr><td></td>{head}</tr>{body}</table></div>\n'


def _cell(row: Mapping[str, float], column: str) -> str:
    ends = [_number(row[column + end]) for end in measures.ENDS if column + end in row]
    about = f" <small>[{', '.join(ends)}]</small>" if ends else ""
    return _number(row.get(column)) + about


def _mark(told: Verdict) -> str:
    kind = told.holds.replace(" ", "-")
    return f'<span class="mark {kind}">{_MARKS.get(told.holds, told.holds)}</span>'


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}".replace("-", "−")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _text(value: str) -> str:
    return html.escape(value, quote=True)
