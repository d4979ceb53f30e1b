"""What the gallery is made of: sections that claim, and parts that draw and measure."""

from __future__ import annotations

import dataclasses
import inspect
import textwrap
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from PIL import Image

SIZES = ("quick", "full")
"""How much work a run takes on."""

HOLDS = ("yes", "in part", "no", "needs the full run", "not measured", "failed")
"""What can be said of a claim."""

PRELUDE = """\
import jax
import jax.numpy as jnp
import numpy as np
import rvis
from rvis import attacks, attribution, clip, evolve, images, objectives, optimizers
from rvis import regularizers, style, synthesis
from rvis.analysis import deconv, manifold, metrics, neighbours, receptive
from rvis.concepts import groups
from rvis.models import taps
from scripts.clip_scenes import scenes
from scripts.gallery import networks, samples
from scripts.gallery.toy import toy
from rvis.objectives import channel, direction, diversity, layer, logit, neuron, probability
"""
"""What the code of every part takes for granted."""

Table = Mapping[str, Mapping[str, float]]
"""{row: {column: figure}}."""

Tables = Mapping[str, Table]
"""{part: table}."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a part has shown.

    Attributes:
      picture: it.
      table: the figures measured on it; empty for none.
    """

    picture: Image.Image
    table: Table


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the figures say of a claim.

    Attributes:
      holds: one of `HOLDS`.
      text: a sentence with the figures that decide.
    """

    holds: str
    text: str


@dataclasses.dataclass(frozen=True)
class Part:
    """One picture, the code that makes it and the figures measured on it.

    Attributes:
      name: short, of its file too.
      caption: what is seen, row by row.
      alt: the picture in words, for who does not see it.
      draw: makes what is shown. Its body is the code that the page prints; its parameters are
        `numbers`, and what else it names is in `PRELUDE`.
      tell: picture and figures of what `draw` returned.
      numbers: {parameter: (quick, full)}.
      quick: whether a quick run makes it.
    """

    name: str
    caption: str
    alt: str
    draw: Callable[..., Any]
    tell: Callable[[Any], Outcome]
    numbers: Mapping[str, tuple[Any, Any]] = dataclasses.field(default_factory=dict)
    quick: bool = True

    def arguments(self, size: str) -> dict[str, Any]:
        """{parameter: number} of `draw`."""
        return {name: two[SIZES.index(size)] for name, two in self.numbers.items()}

    def code(self, size: str) -> str:
        """The body of `draw` with its numbers in front, to be run after `PRELUDE`."""
        lines, _ = inspect.getsourcelines(self.draw)
        first = next(i for i, line in enumerate(lines) if line.rstrip().endswith(":"))
        body = textwrap.dedent("".join(lines[first + 1 :])).strip()
        given = "\n".join(f"{name} = {value!r}" for name, value in self.arguments(size).items())
        body = "\n".join(
            line.removeprefix("return ") if line.startswith("return ") else line
            for line in body.splitlines()
        )
        return f"{given}\n{body}" if given else body


@dataclasses.dataclass(frozen=True)
class Section:
    """A claim, and the parts that put it to the test.

    Attributes:
      name: short, to choose it by.
      title: its heading.
      claim: what the lecture says, in our words.
      parts: in the order of display.
      judge: from {part: table} what the figures say; may look up parts that a run left out.
      needs: why the figures of a quick run decide nothing, where they do not.
    """

    name: str
    title: str
    claim: str
    parts: tuple[Part, ...]
    judge: Callable[[Tables], Verdict]
    needs: str = ""

    def verdict(self, tables: Tables, *, size: str = "full") -> Verdict:
        """`judge`, or "not measured" where figures that it needs were not made.

        Where `judge` itself fails the claim is "failed": that must not cost the other sections.
        """
        missing = [part.name for part in self.parts if part.name not in tables]
        unknown = Verdict("not measured", f"Not made in this run: {', '.join(missing)}.")
        if not tables:
            return unknown
        try:
            told = self.judge(tables)
            if size == "quick" and self.needs:
                return Verdict("needs the full run", f"{self.needs} So far: {told.text}")
            return told
        except Exception as error:
            if missing and isinstance(error, KeyError):
                needed = size == "quick" and self.needs
                return Verdict("needs the full run", self.needs) if needed else unknown
            said = "".join(traceback.format_exception_only(error)).strip()
            return Verdict("failed", f"The figures could not be judged: {said}")


def both(**numbers: Any) -> dict[str, tuple[Any, Any]]:
    """Parameters that are the same in a quick run and in a full one."""
    return {name: (value, value) for name, value in numbers.items()}
