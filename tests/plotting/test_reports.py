"""The page of a layer: nothing that a name holds becomes markup, and nothing foreign may run."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import re

import numpy as np
import pytest

from rvis.plotting import reports

HOSTILE = [
    "{{data}} onload=alert(1) x",
    '{{tiles}}" onerror="alert(1)',
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "&lt;b&gt; \\u003cb",
]


class Elements(html.parser.HTMLParser):
    """The elements of a page as (name, attributes), and its texts."""

    def __init__(self, page):
        super().__init__()
        self.found, self.texts = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)


def page_of(name, tmp_path):
    entry = reports.Entry(name, f"{name}.png", np.arange(3.0), figures={name: name}, examples=name)
    path = reports.layer_page(tmp_path / "p.html", [entry], title=name, about={name: name})
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_shown_as_it_is_and_nothing_more(name, tmp_path):
    page = page_of(name, tmp_path)
    shown, plain = Elements(page), Elements(page_of("name", tmp_path))
    assert [tag for tag, _ in shown.found] == [tag for tag, _ in plain.found]
    assert [set(attributes) for _, attributes in shown.found] == [
        set(attributes) for _, attributes in plain.found
    ]
    (image,) = [attributes for tag, attributes in shown.found if tag == "img"]
    assert image["src"] == f"{name}.png" and image["alt"] == f"Picture that maximises {name}"
    assert shown.texts.count(name) == 5  # title, heading, tile, and both in the foot
    data = re.search(r'<script id="data"[^>]*>(.*?)</script>', page, re.DOTALL)[1]
    (unit,) = json.loads(data)
    assert unit["label"] == unit["examples"] == name and unit["figures"] == [[name, name]]


def test_the_policy_allows_this_page_and_nothing_else(tmp_path):
    page = page_of("name", tmp_path)
    (policy,) = [a["content"] for tag, a in Elements(page).found if "http-equiv" in a]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'" and rules["img-src"] == "'self' file:"
    for tag in ("style", "script"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"
    # What the policy would forbid is not there.
    assert not re.search(r"\sstyle=|\son\w+=", page)


def test_a_template_is_filled_once():
    assert reports.fill("{{a}} {{b}}", a="{{b}}", b="{{a}}") == "{{b}} {{a}}"
    with pytest.raises(KeyError, match="b"):
        reports.fill("{{a}} {{b}}", a="")
