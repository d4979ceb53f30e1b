"""ImageNet's classes: a thousand names and ids, each once."""

from __future__ import annotations

import re

import pytest

from rvis import checks
from rvis.data import imagenet


def test_a_thousand_names_and_ids_each_once():
    names, ids = imagenet.classes(), imagenet.wordnet_ids()
    assert len(names) == len(ids) == len(set(ids)) == 1000
    assert len({name.lower() for name in names}) == 1000
    assert list(ids) == sorted(ids) and all(re.fullmatch(r"n\d{8}", id) for id in ids)


KNOWN = {0: "tench", 1: "goldfish", 9: "ostrich", 281: "tabby", 340: "zebra", 999: "toilet tissue"}
TOLD_APART = {134: "crane (bird)", 517: "crane (machine)", 638: "maillot", 639: "tank suit"}


@pytest.mark.parametrize("number", KNOWN | TOLD_APART)
def test_names_stand_where_the_logits_are(number):
    assert imagenet.classes()[number] == (KNOWN | TOLD_APART)[number]


def test_labels_by_name_and_by_wordnet_id():
    assert imagenet.index("african_elephant") == imagenet.index("African elephant") == 386
    assert imagenet.index("n02123045") == imagenet.index("Tabby") == 281
    with pytest.raises(ValueError, match="label: unknown 'golden retriver'; did you mean 'golden"):
        imagenet.index("golden retriver")


def test_targets_can_be_wordnet_ids():
    given = ["n01518878", "zebra", 3]
    assert checks.classes("target", given, imagenet.classes(), count=1000).tolist() == [9, 340, 3]
    with pytest.raises(ValueError, match="target: unknown 'n01518878'"):
        checks.classes("target", "n01518878", ("bee", "ant"), count=2)
