"""Definitions out of tested files, as the page on extending shows them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def code(path: str, names: list[str]) -> str:
    """The imports of a file and some of its definitions, as they stand there.

    Raises:
      KeyError: naming a definition that the file has not.
    """
    text = (ROOT / path).read_text(encoding="utf-8")
    lines = text.splitlines()
    parts, wanted = [], set(names)
    for node in ast.parse(text).body:
        above = [decorator.lineno for decorator in getattr(node, "decorator_list", ())]
        block = "\n".join(lines[min(above, default=node.lineno) - 1 : node.end_lineno])
        targets = [getattr(node, "name", "")]
        if isinstance(node, ast.Assign):
            targets = [t.id for t in node.targets if isinstance(t, ast.Name)]
        if wanted & set(targets):
            wanted -= set(targets)
            parts.append(f"\n\n{block}")
        elif isinstance(node, ast.Import | ast.ImportFrom):
            parts.append(block)
    if wanted:
        raise KeyError(f"{path} does not define {', '.join(sorted(wanted))}")
    body = "\n".join(parts)
    used = re.sub(r"^(import|from) .*$", "", body, flags=re.MULTILINE)
    kept = [line for line in body.splitlines() if not _unused(line, used)]
    return "```python\n" + re.sub(r"\n{4,}", "\n\n\n", "\n".join(kept)).strip() + "\n```"


def _unused(line: str, used: str) -> bool:
    """Whether a line imports one name that nothing below it uses."""
    found = re.fullmatch(r"(?:import|from) .*?(\w+)", line)
    return found is not None and not re.search(rf"\b{found[1]}\b", used)
