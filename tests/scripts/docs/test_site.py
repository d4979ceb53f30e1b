"""The site: every public name once, every figure from a file, every link to something."""

from __future__ import annotations

import collections
import re

import pytest

import rvis
from scripts.docs import api, evidence, notebooks, sources
from tests.scripts.docs import reduced as small

DOCS = small.ROOT / "scripts" / "docs"
PAGES = DOCS / "pages"
WRITTEN = {
    str(path.relative_to(PAGES)): path.read_text(encoding="utf-8") for path in PAGES.rglob("*.md")
}
MADE = {
    **notebooks.pages(),
    **api.pages(),
    "networks.md": evidence.networks(),
    "evidence.md": evidence.page(),
    "changelog.md": (small.ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
}
ALL = WRITTEN | MADE
README = small.ROOT / "README.md"


def test_every_public_name_stands_on_one_page():
    places = collections.Counter(
        name
        for text in api.pages().values()
        for name in re.findall(r"^      heading: (\S+)$", text, re.MULTILINE)
    )
    assert set(places.values()) == {1}
    homes, known = api.entries(), api.modules()
    assert set(places) == set(homes.values())
    assert all(f"rvis.{name}" in homes or f"rvis.{name}" in known for name in rvis.__all__)


@pytest.mark.parametrize("room", sorted(api.modules()))
def test_what_a_room_names_is_an_entry(room):
    module, homes = api.modules()[room], api.entries()
    for name in getattr(module, "__all__", ()):
        if f"{room}.{name}" not in api.modules():
            assert f"{room}.{name}" in homes


def test_a_name_that_two_rooms_offer_is_documented_once():
    homes = api.entries()
    assert homes["rvis.visualization.deepdream"] == homes["rvis.deepdream"] == "rvis.deepdream"
    assert homes["rvis.images.estimate"] == "rvis.images.statistics.estimate"


def test_every_public_function_and_class_is_documented():
    def thing(full):
        module, _, name = full.rpartition(".")
        return getattr(api.modules()[module], name)

    bare = [full for full in api.entries() if callable(thing(full)) and not thing(full).__doc__]
    assert bare == []


def linked(text):
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"\]\(([^)\s]+)\)", text)


@pytest.mark.parametrize("page", sorted(set(ALL) - {"changelog.md"}))
def test_links_lead_somewhere(page):
    for link in linked(ALL[page]):
        if link.startswith(("http", "#")):
            continue
        target = (PAGES / page).parent / link.partition("#")[0]
        name = str(target.resolve().relative_to(PAGES))
        known = name in ALL or name.startswith("notebooks/")
        assert known or (small.ROOT / "scripts" / name).exists(), link


def test_all_pages_are_in_the_contents():
    contents = (DOCS / "mkdocs.yml").read_text(encoding="utf-8").partition("nav:")[2]
    listed = set(re.findall(r"[\w/]+\.md", contents))
    assert listed == {page for page in ALL if not page.startswith(("api/", "notebooks/"))}


FIGURE = re.compile(r"\d ?(%|ms\b|GB\b|MB\b|seconds\b|minutes\b)")


@pytest.mark.parametrize("page", sorted(WRITTEN))
def test_no_figure_is_typed_into_a_page(page):
    prose = re.sub(r"^```.*?^```", "", WRITTEN[page], flags=re.MULTILINE | re.DOTALL)
    assert not FIGURE.search(prose)


def test_every_figure_has_a_command_whose_script_is_there():
    records = evidence.load("recorded")["records"]
    commands = [command for record in records for command in record["commands"]]
    assert all(record["commands"] and record["topic"] in evidence.TOPICS for record in records)
    commands += [line for line in evidence.page().splitlines() if line.startswith("python ")]
    for command in commands:
        script = command.replace("python -m scripts.bench.", "python scripts/bench/").split()[1]
        script = script if script.endswith(".py") else f"{script}.py"
        assert (small.ROOT / script).is_file(), command


def test_every_file_of_results_is_shown_or_read_by_a_script():
    page = evidence.page()
    for name in evidence.BENCHES:
        for row in evidence.load(name)["rows"]:
            assert f"| {row} |" in page


def test_a_benchmark_s_medians_are_those_of_its_file():
    rows = evidence.load("cpu_bare")["rows"]["alexnet, 224 px, batch 4"]
    ours = sorted(rows["rvis"]["seconds"])[1] * 1e3
    (line,) = [each for each in evidence.page().splitlines() if each.startswith("| alexnet, 224")]
    assert f"| {ours:.4g} |" in line


def test_concepts_are_those_of_their_file():
    lines = evidence.page().splitlines()
    for each in evidence.load("concepts")["autoencoders"]:
        head = f"| `{each['model']}`, `{each['layer']}` | {each['images']:,} |"
        (line,) = [x for x in lines if x.startswith(head)]
        assert f"| {each['explained']:.3f} |" in line and f"{each['interval'][1]:.3f}]" in line


def test_cards_are_those_of_the_weights():
    page = MADE["networks.md"]
    for name, card in evidence.cards().items():
        assert f"### {name}" in page and f"{card['accuracy']:.1%}" in page
        assert card["sha256"] in page
    assert "{{" not in page


def test_the_tests_that_the_comparison_names_are_there():
    texts = {path.name: path.read_text() for path in (small.ROOT / "tests").rglob("test_*.py")}
    named = re.findall(r"`(test_\w+\.py)((?:::\w+)?)`", WRITTEN["comparison.md"])
    assert len(named) > 40
    for file, test in named:
        assert file in texts and (not test or f"def {test[2:]}(" in texts[file]), (file, test)


def test_a_table_escapes_its_cells():
    assert evidence.table(["a"], [["x|y"]]) == "| a |\n|---|\n| x\\|y |"


DOC = "Adds.\n\nExample:\n  >>> 1 + 1\n  2\n\nReference: Euler 1748,\n  chapter 2."


def test_docstrings_have_the_sections_that_are_known():
    docstrings = pytest.importorskip("scripts.docs.docstrings", reason="the extra docs")
    found = docstrings.rewritten(DOC)
    assert "Examples:\n  >>> 1 + 1" in found
    assert found.endswith("**Reference.** Euler 1748, chapter 2.")


def test_definitions_come_whole_with_the_imports_that_they_use(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    text = (
        "import os\nimport re\n\n\n@property\ndef one():\n    return re\n\n\nTWO = 2\nTHREE = 3\n"
    )
    (tmp_path / "file.py").write_text(text)
    found = sources.code("file.py", ["one", "TWO"])
    assert "import re\n" in found and "import os" not in found and "THREE" not in found
    assert "@property\ndef one():\n    return re\n\n\nTWO = 2" in found
    with pytest.raises(KeyError, match="four"):
        sources.code("file.py", ["four"])


EXAMPLE = '''"""What is one and one?"""

# %%
import numpy as np
from PIL import Image

# %% [markdown]
# **Adding.**

# %%
print(1 + 1)
Image.fromarray(np.zeros((4, 4), np.uint8))
'''


def test_a_notebook_shows_what_its_cells_printed_and_drew(tmp_path, monkeypatch):
    monkeypatch.setattr(notebooks, "EXAMPLES", tmp_path)
    monkeypatch.setattr(notebooks, "OUT", tmp_path / "out")
    (tmp_path / "adding.py").write_text(EXAMPLE)
    assert "```text" not in notebooks.pages()["notebooks/adding.md"]
    notebooks.run("adding", tmp_path / "out")
    page = notebooks.pages()["notebooks/adding.md"]
    assert "**Adding.**" in page and "```text\n2\n```" in page
    assert [path.name for path in notebooks.pictures()] == ["adding_2_0.png"]
    assert all(path.exists() for path in notebooks.pictures())
    (tmp_path / "adding.py").write_text(EXAMPLE.replace("1 + 1", "1 + 2"))
    assert "```text" not in notebooks.pages()["notebooks/adding.md"]  # they are of another source


def test_the_readme_is_short_and_its_links_lead_somewhere():
    text = README.read_text(encoding="utf-8")
    assert text.count("\n") <= 200
    for link in linked(text):
        path, _, part = link.partition("#")
        assert (small.ROOT / path).exists(), link
        if part:
            page = (small.ROOT / path).read_text(encoding="utf-8") if path else text
            titles = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
            assert part in [re.sub(r"[^\w -]", "", t).lower().replace(" ", "-") for t in titles]


def test_the_version_stands_in_one_place():
    version = rvis.__version__
    assert f"## [{version}]" in MADE["changelog.md"]
    assert f"\nversion: {version}\n" in (small.ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert 'dynamic = ["version"]' in (small.ROOT / "pyproject.toml").read_text(encoding="utf-8")
