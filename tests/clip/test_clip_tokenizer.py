"""Tokenizers: the public reference's numbers for 200 texts, files of every kind, refusals."""

from __future__ import annotations

import copy
import gzip
import json
import pickle
import sys
import types

import numpy as np
import pytest

from rvis import clip
from rvis.clip import tokenizer
from tests.golden import clip_tokenizer as golden

GOLDEN = json.loads(golden.FILE.read_text())
MERGES = [tuple(line.split(" ")) for line in GOLDEN["merges"]]
VOCABULARY = golden.vocabulary(MERGES)


@pytest.fixture(scope="module")
def ours():
    return clip.byte_pairs(VOCABULARY, MERGES)


def test_200_texts_get_the_reference_s_numbers(ours):
    assert len(GOLDEN["texts"]) == 200
    rows = ours(GOLDEN["texts"])
    assert rows.shape == (200, 77) and rows.dtype == np.int32
    for text, row, expected in zip(GOLDEN["texts"], rows, GOLDEN["ids"], strict=True):
        assert row.tolist() == expected + [0] * (77 - len(expected)), text


def test_a_long_text_keeps_its_end(ours):
    row = ours("very " * 200)[0]
    assert row[0] == VOCABULARY[tokenizer.START] and row[-1] == VOCABULARY[tokenizer.END]
    assert (row == VOCABULARY[tokenizer.END]).sum() == 1


def test_every_form_of_file_gives_the_same(ours, tmp_path):
    lines = ["#version: 0.2", *GOLDEN["merges"], ""]
    (tmp_path / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "vocab.json").write_text(json.dumps(VOCABULARY))
    assert clip.read_byte_pairs(tmp_path) == ours
    one = tmp_path / "tokenizer.json"
    model = {"vocab": VOCABULARY, "merges": GOLDEN["merges"]}
    one.write_text(json.dumps({"model": model, "added_tokens": []}))
    assert clip.read_byte_pairs(one) == ours
    packed = tmp_path / "bpe.txt.gz"
    packed.write_bytes(gzip.compress("\n".join(lines).encode()))
    # OpenAI numbers the bytes in another order than that of the golden vocabulary.
    again = clip.read_byte_pairs(packed)
    assert len(again.vocabulary) == len(VOCABULARY)
    assert again.vocabulary["!"] == 0 and again.vocabulary["!</w>"] == 256
    assert again.vocabulary["".join(MERGES[0])] == 512
    assert again.numbers("A cat") == again.numbers("a  CAT ")
    assert again.clean == "openai" and ours.clean == "basic"
    assert clip.read_byte_pairs(packed, clean="basic").clean == "basic"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("none.json", None),
        ("broken.json", b"{"),
        ("other.json", b"[1, 2]"),
        ("no_vocabulary.json", b'{"model": {"merges": []}}'),
        ("broken.txt.gz", b"\x1f\x8b broken"),
        ("prose.txt", b"once upon a time\n"),
        ("empty.txt", b""),
    ],
)
def test_what_is_no_vocabulary_is_refused(name, content, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="path: a CLIP vocabulary"):
        clip.read_byte_pairs(tmp_path / name)


def test_both_cleanings_by_name(ours, monkeypatch):
    openai = clip.byte_pairs(VOCABULARY, MERGES, clean="openai")
    assert openai != ours and openai.vocabulary == ours.vocabulary
    text = " A  &amp;amp;\tB &lt;b&gt; cafe\u0301"
    monkeypatch.setitem(sys.modules, "ftfy", None)
    assert openai.numbers(text) == ours.numbers("a & b <b> café")
    assert ours.numbers(text) == ours.numbers("a &amp;amp; b &lt;b&gt; café")
    # OpenAI lowers whole texts, so that a sigma at a word's end has its own letter.
    assert openai.numbers("ΑΣ") == ours.numbers("ας") != ours.numbers("ΑΣ")
    mended = types.SimpleNamespace(fix_text=lambda text: text.replace("Ã©", "é"))
    monkeypatch.setitem(sys.modules, "ftfy", mended)
    assert openai.numbers("cafÃ©") == ours.numbers("café")


def test_a_tokenizer_survives_a_copy_and_a_pickle(ours):
    for again in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert again == ours and hash(again) == hash(ours)
        assert again.numbers("a cat") == ours.numbers("a cat")


def test_without_tokenizers_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r'needs tokenizers: pip install "rvis\[clip\]"'):
        clip.byte_pairs(VOCABULARY, MERGES)
    (tmp_path / "bpe.txt").write_text("a b</w>\n")
    with pytest.raises(ImportError, match=r"rvis\[clip\]"):
        clip.read_byte_pairs(tmp_path / "bpe.txt")
    assert clip.Words(("a", "red"), 4)("a red").shape == (1, 4)


def test_words():
    words = clip.Words(("a", "red", "circle"), 6)
    assert words(["A RED, circle!", "red"]).tolist() == [[1, 2, 3, 4, 5, 0], [1, 3, 5, 0, 0, 0]]
    assert words("a a a a a a a")[0].tolist() == [1, 2, 2, 2, 2, 5]
    assert hash(words) == hash(clip.Words(["a", "red", "circle"], 6))


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: clip.Words(("a", "red"), 6)("a rad"), ValueError, "texts.*'rad'.*'red'"),
        (lambda: clip.Words(("a",), 6)([]), ValueError, "texts: at least one"),
        (lambda: clip.Words(("a",), 6)([3]), TypeError, "texts: strings.*3"),
        (lambda: clip.Words(("a", "a"), 6), ValueError, "words"),
        (lambda: clip.Words(("a", "Red"), 6), ValueError, "words: .*'Red'"),
        (lambda: clip.Words(("a", "t-shirt"), 6), ValueError, "words: .*'t-shirt'"),
        (lambda: clip.Words(("a",), 2), ValueError, "context"),
        (lambda: clip.byte_pairs({"a": 0}, [], context=2), ValueError, "context"),
        (lambda: clip.byte_pairs({"a": 9, tokenizer.END: 1}, []), ValueError, "vocabulary"),
        (lambda: clip.byte_pairs({"a": 0, "b": 0}, []), ValueError, "vocabulary"),
        (lambda: clip.byte_pairs({"a": 0}, [("a", "b")]), ValueError, "vocabulary: .*merges"),
        (lambda: clip.byte_pairs({"a": 0}, [], clean="opnai"), ValueError, "clean: .*'openai'"),
    ],
)
def test_refusals_name_the_argument(call, error, says):
    with pytest.raises(error, match=says):
        call()
