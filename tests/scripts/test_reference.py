"""The API reference: all that is public stands in it, documented, escaped and linked."""

from __future__ import annotations

import collections
import html.parser
import inspect
import re

import pytest

import rvis
from scripts import reference as script
from scripts.docs import reference

VOID = {"meta", "input", "br", "img", "link"}


class Reader(html.parser.HTMLParser):
    """Ids, links, what is loaded from elsewhere, and whether every tag is closed."""

    def __init__(self):
        super().__init__()
        self.ids, self.links, self.loaded, self.open, self.text = [], [], [], [], {}

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given["href"]] if tag == "a" else []
        self.loaded += [given[name] for name in ("src", "srcset", "data") if name in given]
        self.loaded += [given["href"]] if tag == "link" else []
        if tag not in VOID:
            self.open.append((tag, given.get("id")))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for tag, anchor in self.open:
            if tag == "article":
                self.text[anchor] = self.text.get(anchor, "") + data


@pytest.fixture(scope="module")
def entries():
    return reference.entries()


@pytest.fixture(scope="module")
def page():
    return reference.page()


@pytest.fixture(scope="module")
def read(page):
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    return reader


def test_every_public_name_has_its_anchor(entries, read):
    assert {entry.anchor for names in entries.values() for entry in names} <= set(read.ids)


def test_what_rvis_names_is_an_entry_or_a_module(entries):
    top = {entry.name for entry in entries["rvis"]}
    for name in rvis.__all__:
        module = inspect.ismodule(getattr(rvis, name))
        assert (f"rvis.{name}" in entries) if module else (name in top)


def test_what_a_package_names_is_an_entry(entries):
    names = {entry.name for entry in entries["rvis.attacks"]}
    assert names == set(rvis.attacks.__all__)


def test_what_a_room_offers_beside_its_functions_is_there(entries):
    assert "rvis.inversion.Matching" in {entry.anchor for entry in entries["rvis.inversion"]}


def test_anchors_are_unique_and_links_lead_to_them(read):
    assert [name for name, n in collections.Counter(read.ids).items() if n > 1] == []
    assert {link for link in read.links if not link.startswith("#")} == set()
    assert {link[1:] for link in read.links} <= set(read.ids)


def test_every_function_and_class_is_documented(entries):
    assert [
        entry.anchor
        for names in entries.values()
        for entry in names
        if entry.kind != "value" and not entry.doc
    ] == []


def test_every_module_says_what_it_is_for(entries):
    assert [module for module, where in reference._modules().items() if not where.__doc__] == []


def test_one_thing_is_documented_once(entries):
    homes = collections.defaultdict(set)
    for names in entries.values():
        for entry in names:
            if entry.kind != "value":
                homes[id(entry.thing)].add(entry.home)
    assert all(len(found) == 1 for found in homes.values())
    assert {entry.name: entry.home for entry in entries["rvis.visualization"]}["deepdream"] == (
        "rvis.deepdream"
    )


def test_nothing_comes_from_elsewhere(page, read):
    assert read.loaded == []
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest", page)


def test_a_signature_has_types_defaults_and_keyword_only(read):
    text = read.text["rvis.attacks.pgd"]
    assert "model: Model" in text and "*," in text and "norm: str = 'linf'" in text
    assert ") → AttackResult" in text


def test_sections_methods_and_examples_are_there(read):
    text = read.text["rvis.Result"]
    assert "Attributes" in text and "one title a picture" in text
    assert "show() → PIL.Image.Image" in text and ">>> result.show().mode" in text


def test_a_value_is_shown_with_what_is_written_below_it(read):
    assert "The parameterizations by name." in read.text["rvis.images.KINDS"]
    assert "KINDS = {'fourier': …" in read.text["rvis.images.KINDS"]


def test_text_is_escaped():
    doc = 'Keeps a < b & "c" of `x <y>`.\n\nExample:\n  >>> print("<b>")\n  <b>'
    written = reference._documentation(doc, {}, (), ())
    assert "a &lt; b &amp; &quot;c&quot; of <code>x &lt;y&gt;</code>" in written
    assert "<b>" not in written and "&lt;b&gt;" in written


DOC = """A summary.

    y = x²

* one
  goes on
* two

Args:
  x: a number; see `other`,
    and `x`.
  **options: more.

Raises:
  TypeError, ValueError: naming it.

Sources: a paper."""


def test_a_docstring_has_its_parts():
    anchors = {"rvis.a.other": "rvis.a.other", "rvis.a.x": "rvis.a.x"}
    written = reference._documentation(DOC, anchors, ("rvis.a",), ("x",))
    assert "<p>A summary.</p><pre>y = x²</pre>" in written
    assert "<ul><li>one goes on</li><li>two</li></ul>" in written
    assert (
        '<dt><code>x</code></dt><dd><p>a number; see <a href="#rvis.a.other"><code>other</code></a>, '
        "and <code>x</code>.</p></dd>" in written
    )
    assert "<dt><code>**options</code></dt><dd><p>more.</p></dd>" in written
    assert "<dt><code>TypeError, ValueError</code></dt>" in written
    assert "<h4>Sources</h4><p>a paper.</p>" in written


def test_the_script_writes_one_page(tmp_path, capsys, page):
    assert script.main(["--out", str(tmp_path / "new")]) == 0
    assert (tmp_path / "new" / "index.html").read_text(encoding="utf-8") == page
    assert re.search(r"index.html: \d{3} names", capsys.readouterr().out)


def test_the_script_says_where_it_cannot_write(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert script.main(["--out", str(tmp_path / "file")]) == 2
    assert "could not be written" in capsys.readouterr().err


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^path: a name ending in \.html was expected"):
        reference.write(tmp_path / "page.txt")
