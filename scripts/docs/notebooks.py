"""The examples as pages: their cells, and what these printed and drew when they were last run."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import io
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "scripts" / "examples"
OUT = ROOT / "scripts" / "results" / "notebooks"
"""Where the outputs of runs are kept, which the site takes up."""


def cells(text: str) -> list[tuple[bool, str]]:
    r"""The cells of a script: (whether it is prose, what it holds); the docstring is left out.

    Example:
      >>> cells('"About."\n# %%\nx = 1\n# %% [markdown]\n# Prose.')
      [(False, 'x = 1'), (True, 'Prose.')]
    """
    found = []
    for part in re.split(r"^# %%", text, flags=re.MULTILINE)[1:]:
        head, _, body = part.partition("\n")
        prose = head.strip() == "[markdown]"
        if prose:
            body = re.sub(r"^# ?", "", body, flags=re.MULTILINE)
        elif head.strip():
            found.append((True, head.strip()))
        found.append((prose, body.strip()))
    return found


def run(name: str, out: Path = OUT) -> Path:
    """Runs an example and keeps what each cell printed and drew.

    A picture is what the last line of a cell gives, or what the cell wrote right under its folder.

    Args:
      name: of a file of scripts/examples, without its ending.
      out: where to keep NAME.json and the pictures.

    Returns:
      The JSON's path.
    """
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob(f"{name}_*.png"):
        old.unlink()
    space: dict[str, Any] = {"__name__": "__main__"}
    before, outputs = sys.argv, []
    with tempfile.TemporaryDirectory() as folder:
        sys.argv = [f"{name}.py", "--out", folder]
        try:
            for i, (prose, body) in enumerate(cells(text)):
                shown = {"text": "", "pictures": []} if prose else _cell(body, space, Path(folder))
                pictures = []
                for j, picture in enumerate(shown.pop("pictures")):
                    file = out / f"{name}_{i}_{j}.png"
                    picture.save(file, optimize=True)
                    pictures.append(file.name)
                outputs.append({**shown, "pictures": pictures})
        finally:
            sys.argv = before
    kept = {"source": _digest(text), "outputs": outputs}
    file = out / f"{name}.json"
    file.write_text(json.dumps(kept, indent=1), encoding="utf-8")
    return file


def _cell(body: str, space: dict[str, Any], work: Path) -> dict[str, Any]:
    tree = ast.parse(body)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    old = set(work.glob("*.png"))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "cell", "exec"), space)
        value = None
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), space)
    pictures = [value] if isinstance(value, Image.Image) else []
    pictures += [Image.open(path) for path in sorted(set(work.glob("*.png")) - old)]
    return {"text": printed.getvalue(), "pictures": pictures}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def names() -> list[str]:
    """The examples."""
    return sorted(path.stem for path in EXAMPLES.glob("*.py"))


def pages() -> dict[str, str]:
    """The pages as Markdown, with outputs where `run` has left them for this very source.

    Example:
      >>> from scripts.docs import notebooks
      >>> list(notebooks.pages())[0]
      'notebooks/attacks.md'
    """
    return {f"notebooks/{name}.md": _page(name) for name in names()}


def _page(name: str) -> str:
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    about = ast.get_docstring(ast.parse(text)) or ""
    parts = [f"# {name.replace('_', ' ').capitalize()}", about.splitlines()[0]]
    parts.append(f"```bash\npython scripts/examples/{name}.py --out out/{name}\n```")
    outputs = _outputs(name, text)
    for i, (prose, body) in enumerate(cells(text)):
        parts.append(body if prose else f"```python\n{body}\n```")
        for output in [] if outputs is None else outputs[i : i + 1]:
            if output["text"]:
                parts.append(f"```text\n{output['text'].rstrip()}\n```")
            parts += [f"![What the cell draws]({picture})" for picture in output["pictures"]]
    return "\n\n".join(parts) + "\n"


def _outputs(name: str, text: str) -> list[dict[str, Any]] | None:
    file = OUT / f"{name}.json"
    kept = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return kept["outputs"] if kept.get("source") == _digest(text) else None


def pictures() -> list[Path]:
    """The pictures that the pages show."""
    shown = re.findall(r"\]\((\w+\.png)\)", "".join(pages().values()))
    return [OUT / name for name in shown]
