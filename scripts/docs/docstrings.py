"""Docstrings as mkdocstrings reads them: examples as code, sources as a paragraph."""

from __future__ import annotations

import re
from typing import Any

import griffe

_SOURCE = re.compile(r"^Reference:[ \t]*\n?((?:.+\n?)*)", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Brings the house's sections to those that griffe knows."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrites the docstring of every object that is read."""
        if obj.docstring is not None:
            obj.docstring.value = rewritten(obj.docstring.value)


def rewritten(text: str) -> str:
    r"""A docstring with "Examples:", and with its source as a paragraph.

    Example:
      >>> from scripts.docs import docstrings
      >>> print(docstrings.rewritten("Adds.\n\nReference: Euler 1748,\n  chapter 2."))
      Adds.
      <BLANKLINE>
      **Reference.** Euler 1748, chapter 2.
    """
    text = re.sub(r"^Example:[ \t]*$", "Examples:", text, flags=re.MULTILINE)
    return _SOURCE.sub(lambda m: f"**Reference.** {' '.join(m[1].split())}\n", text).rstrip()
