"""What mkdocs is given beside the written pages: pictures, the reference, tables, notebooks."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # mkdocs loads this file by its path
from mkdocs.structure.files import File, Files

from scripts.docs import api, evidence, notebooks, sources


def generated() -> dict[str, str]:
    """Every page that is made and not written: {path: Markdown}."""
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    return {
        **api.pages(),
        **notebooks.pages(),
        "networks.md": evidence.networks(),
        "evidence.md": evidence.page(),
        "changelog.md": changes,
    }


def on_config(config: Any) -> Any:
    """Spells out the parts of the contents whose pages are made."""
    parts = {
        "api": [f"api/{name}.md" for name in ("index", *api.TOPICS)],
        "notebooks": list(notebooks.pages()),
    }
    config.nav = [
        {title: parts.get(inside, inside) if isinstance(inside, str) else inside}
        if isinstance(entry, dict)
        else entry
        for entry in config.nav
        for title, inside in (entry.items() if isinstance(entry, dict) else [("", "")])
    ]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Adds the made pages, and the pictures from where they are."""
    for name, text in generated().items():
        files.append(File.generated(config, name, content=text))
    places = {f"notebooks/{path.name}": path for path in notebooks.pictures()}
    places |= {f"pictures/{path.name}": path for path in (ROOT / "scripts/pictures").glob("*.png")}
    for name, path in sorted(places.items()):
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Puts in definitions of tested files: `{{ code tests/file.py Name name }}`."""
    wanted = r"\{\{ code (\S+) ([\w ]+) \}\}"
    return re.sub(wanted, lambda m: sources.code(m[1], m[2].split()), markdown)
