"""Makes what is missing of a gallery, part by part, and writes its page after each."""

from __future__ import annotations

import hashlib
import inspect
import json
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

import rvis
from rvis import checks, files
from rvis.plotting import grids
from scripts.gallery import page
from scripts.gallery.base import SIZES, Outcome, Part, Section


def make(
    out: files.PathLike,
    sections: Sequence[Section],
    *,
    only: Sequence[str] = (),
    size: str = "full",
    progress: bool = True,
    report: Callable[[str], None] = print,
) -> int:
    """Makes the parts that are not there yet, or not as they would be made now.

    A part is a PNG and a JSON of figures; it is made again if either is missing, was altered, or
    comes from other code, numbers or versions. A part that fails is shown as failed and the others
    go on.

    Args:
      out: the folder of the page, its pictures and its figures.
      sections: all of them; the page shows those not chosen as they are.
      only: names of the sections to make; all by default.
      size: one of `SIZES`.
      progress: a bar on a terminal.
      report: takes a line for everything that failed.

    Returns:
      How many parts failed, and claims that could not be judged.

    Raises:
      ValueError: naming `only` or `size`.
      OSError: naming the path, where the folder cannot be written.

    Example:
      >>> import tempfile
      >>> from scripts import gallery
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     gallery.make(folder, [])
      0
    """
    names = [section.name for section in sections]
    for name in only:
        checks.choice("only", name, names)
    checks.choice("size", size, SIZES)
    place = files.as_path("out", out)
    chosen = [
        (section, part)
        for section in sections
        if not only or section.name in only
        for part in section.parts
        if size == "full" or part.quick
    ]
    errors: dict[str, str] = {}
    cards = _found(place, sections, size)
    page.write(place, sections, cards, errors, size=size)
    todo = {page.stem(sections, section, part): (section, part) for section, part in chosen}
    todo = {stem: found for stem, found in todo.items() if stem not in cards}
    # Quick parts take a core as long to be traced as both to run: one is traced while another runs.
    pool = ThreadPoolExecutor(2)
    ahead = {
        stem: pool.submit(_made, part, size) for stem, (_, part) in todo.items() if size == "quick"
    }
    bar = tqdm(todo.items(), disable=None if progress else True, leave=False)
    try:
        for stem, (section, part) in bar:
            bar.set_description(f"{section.name}: {part.name}")
            begun = time.perf_counter()
            try:
                made = ahead[stem].result() if ahead else _made(part, size)
            except Exception as error:
                errors[stem] = "".join(traceback.format_exception_only(error)).strip()
                report(f"failed: {section.name}, {part.name}: {errors[stem]}")
            else:
                seconds = time.perf_counter() - begun
                cards[stem] = _store(place / stem, part, size, made, seconds)
            page.write(place, sections, cards, errors, size=size)
            if not ahead:
                # XLA maps memory for every program; a process may have 65,530 maps in Linux.
                jax.clear_caches()
    finally:
        bar.close()
        pool.shutdown(cancel_futures=True)
    for section in {section.name: section for section, _ in chosen}.values():
        told = page.verdict(sections, section, cards, size=size)
        if told.holds == "failed":
            errors[section.name] = told.text
            report(f"failed: {section.name}: {told.text}")
    return len(errors)


def _found(place: Path, sections: Sequence[Section], size: str) -> dict[str, dict[str, Any]]:
    """{file stem: card} of the parts that are there."""
    cards = {}
    for section in sections:
        for part in section.parts:
            stem = page.stem(sections, section, part)
            card = _current(place / stem, part, size)
            if card is not None:
                cards[stem] = card
    return cards


def _current(stem: Path, part: Part, size: str) -> dict[str, Any] | None:
    """The card of a part as it would be made now, or None."""
    try:
        card = json.loads(stem.with_suffix(".json").read_text())
        picture = hashlib.sha256(stem.with_suffix(".png").read_bytes()).hexdigest()
    except (OSError, ValueError):
        return None
    same = isinstance(card, dict) and card.get("made_by") == _made_by(part, size)
    return card if same and card.get("picture") == picture else None


def _made(part: Part, size: str) -> Outcome:
    return part.tell(part.draw(**part.arguments(size)))


def _store(stem: Path, part: Part, size: str, outcome: Outcome, seconds: float) -> dict[str, Any]:
    grids.save(outcome.picture, stem.with_suffix(".png"))
    card = {
        "table": {row: dict(cells) for row, cells in outcome.table.items()},
        "code": part.code(size),
        "shape": outcome.picture.size,
        "seconds": round(seconds, 1),
        "picture": hashlib.sha256(stem.with_suffix(".png").read_bytes()).hexdigest(),
        "made_by": _made_by(part, size),
    }
    files.write_json(stem.with_suffix(".json"), card)
    return card


def _made_by(part: Part, size: str) -> str:
    """Tells apart what is made by other code, other numbers or another version."""
    modules = (inspect.getmodule(function) for function in (part.draw, part.tell))
    source = [inspect.getsource(module) for module in dict.fromkeys(modules) if module is not None]
    versions = rvis.results.describe()["versions"]
    whole = json.dumps(
        [source, part.name, part.arguments(size), versions], sort_keys=True, default=repr
    )
    return hashlib.sha256(whole.encode()).hexdigest()
