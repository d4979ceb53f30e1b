"""From texts to token numbers: CLIP's byte-pair encoding, and whole words of a small vocabulary."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import hashlib
import itertools
import json
import re
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from rvis import checks, files

START, END = "<|startoftext|>", "<|endoftext|>"
_WHITE = re.compile("[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")
_SPECIAL = re.compile(f"({re.escape(START)}|{re.escape(END)})")
_CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
_WORD_END = "</w>"
_MERGES = 49152 - 256 - 2
"""How many of the merges in OpenAI's file its vocabulary has."""


class Tokenizer(Protocol):
    """What turns texts into rows of token numbers; it must hash by value."""

    @property
    def context(self) -> int:
        """Tokens of a row, start and end included."""

    def __hash__(self) -> int: ...

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """(n, context) int32, each row start, text, end, zeros."""


def clean(text: str) -> str:
    r"""Text as CLIP reads it: composed (NFC), white space as single spaces, lower case.

    Example:
      >>> from rvis.clip.tokenizer import clean
      >>> clean("  A Photo\tof a CAFÉ ")
      'a photo of a café'
    """
    composed = _WHITE.sub(" ", unicodedata.normalize("NFC", text))
    # Letter by letter, as the reference does: a whole word's final sigma would differ.
    return "".join(letter.lower() for letter in composed).strip(" ")


def pieces(text: str) -> Iterator[str]:
    r"""The words of a clean text: contractions, runs of letters, single digits, runs of the rest.

    The reference's expression `'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+`, read off
    Unicode's categories.

    Example:
      >>> from rvis.clip.tokenizer import pieces
      >>> list(pieces("it's 10 o'clock?!"))
      ['it', "'s", '1', '0', 'o', "'", 'clock', '?!']
    """
    kinds = [" " if _WHITE.match(letter) else unicodedata.category(letter)[0] for letter in text]
    kinds = [kind if kind in "LN " else "P" for kind in kinds]
    start = 0
    while start < len(text):
        stop, kind = start + 1, kinds[start]
        found = next((c for c in _CONTRACTIONS if text.startswith(c, start)), None)
        if found:
            stop = start + len(found)
        elif kind in "LP":
            while stop < len(text) and kinds[stop] == kind:
                stop += 1
        if kind != " ":
            yield text[start:stop]
        start = stop


@functools.cache
def _letters() -> dict[int, str]:
    """A printable letter for every byte (Radford 2019, `bytes_to_unicode`)."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    shown += range(ord("®"), ord("ÿ") + 1)
    hidden = [byte for byte in range(256) if byte not in shown]
    return {byte: chr(byte) for byte in shown} | {
        byte: chr(256 + place) for place, byte in enumerate(hidden)
    }


def _rows(numbers: Iterable[list[int]], context: int, start: int, end: int) -> np.ndarray:
    """Rows of start, text and end; a long text loses its tail, never its end."""
    rows = [[start, *row[: context - 2], end] for row in numbers]
    return np.asarray([row + [0] * (context - len(row)) for row in rows], np.int32)


def listed(texts: str | Sequence[str], argument: str = "texts") -> list[str]:
    """One text or several as a list.

    Raises:
      TypeError: naming the argument, for anything but strings.
      ValueError: naming it, where there is none.
    """
    if not isinstance(texts, Iterable):
        raise TypeError(f"{argument}: strings were expected, given {texts!r}")
    several = [texts] if isinstance(texts, str) else list(texts)
    if not several:
        raise ValueError(f"{argument}: at least one text was expected, given none")
    for text in several:
        if not isinstance(text, str):
            raise TypeError(f"{argument}: strings were expected, given {text!r}")
    return several


@dataclasses.dataclass(frozen=True)
class BytePairs:
    """CLIP's byte-pair encoding with a vocabulary of yours; see `byte_pairs`.

    Attributes:
      digest: of the vocabulary and the merges, by which tokenizers are compared.
      context: tokens of a row, start and end included.
      vocabulary: {token: number}.
      ranks: {pair: how early it is merged}.
    """

    digest: str
    context: int
    vocabulary: Mapping[str, int] = dataclasses.field(repr=False, compare=False)
    ranks: Mapping[tuple[str, str], int] = dataclasses.field(repr=False, compare=False)

    def numbers(self, text: str) -> list[int]:
        """The token numbers of one text, without start, end and limit.

        Example:
          >>> from rvis.clip import tokenizer
          >>> small = tokenizer.byte_pairs({"a": 0, "b": 1, "ab</w>": 2}, [("a", "b</w>")])
          >>> small.numbers("AB ab")
          [2, 2]
        """
        unknown = self.vocabulary[END]
        found: list[int] = []
        for part in _SPECIAL.split(text):
            if part in (START, END):
                found.append(self.vocabulary[part])
                continue
            for piece in pieces(clean(part)):
                tokens = self._merged("".join(_letters()[byte] for byte in piece.encode()))
                found += [self.vocabulary.get(token, unknown) for token in tokens]
        return found

    def _merged(self, word: str) -> list[str]:
        tokens = [*word[:-1], word[-1] + _WORD_END]
        while len(tokens) > 1:
            pairs = list(itertools.pairwise(tokens))
            best = min(pairs, key=lambda pair: self.ranks.get(pair, len(self.ranks)))
            if best not in self.ranks:
                break
            merged, i = [], 0
            while i < len(tokens):
                both = tuple(tokens[i : i + 2]) == best
                merged.append("".join(best) if both else tokens[i])
                i += 1 + both
            tokens = merged
        return tokens

    def __call__(self, texts: str | Sequence[str]) -> np.ndarray:
        """(n, context) int32: start, text and end of each, then zeros.

        Raises:
          TypeError, ValueError: naming `texts`, for anything but strings.
        """
        rows = (self.numbers(text) for text in listed(texts))
        return _rows(rows, self.context, self.vocabulary[START], self.vocabulary[END])


def byte_pairs(
    vocabulary: Mapping[str, int],
    merges: Sequence[tuple[str, str]],
    *,
    context: int = 77,
) -> BytePairs:
    """CLIP's byte-pair tokenizer from a vocabulary and its merges in order.

    Args:
      vocabulary: {token: number}; start and end are added behind it where they are missing.
      merges: pairs of tokens, the first to be merged first.
      context: tokens of a row, start and end included.

    Raises:
      ValueError: naming `context`, below 3, or `vocabulary`, whose numbers must differ and whose
        end must be the highest.

    Example:
      >>> from rvis.clip import tokenizer
      >>> tokenizer.byte_pairs({"a</w>": 0}, [], context=4)("a")
      array([[1, 0, 2, 0]], dtype=int32)

    Reference: Sennrich et al. 2015, algorithm 1; openai/CLIP, `simple_tokenizer.py`.
    """
    checks.count("context", context, low=3)
    tokens = dict(vocabulary)
    for special in (START, END):
        tokens.setdefault(special, 1 + max(tokens.values(), default=-1))
    if len(set(tokens.values())) < len(tokens) or max(tokens.values()) != tokens[END]:
        raise ValueError(
            f"vocabulary: numbers that differ, that of {END} the highest, were expected"
        )
    ranks = {tuple(pair): rank for rank, pair in enumerate(merges)}
    digest = hashlib.sha256(json.dumps([sorted(tokens.items()), list(merges)]).encode())
    return BytePairs(digest.hexdigest()[:16], context, tokens, ranks)  # type: ignore[arg-type]


def read_byte_pairs(path: files.PathLike, *, context: int = 77) -> BytePairs:
    r"""CLIP's byte-pair tokenizer from a vocabulary file.

    Args:
      path: OpenAI's `bpe_simple_vocab_16e6.txt.gz`; a Hugging Face `tokenizer.json`; or a folder
        with `vocab.json` and `merges.txt`, or with `tokenizer.json`.
      context: tokens of a row, start and end included.

    Raises:
      ValueError: naming `path`, of a file that is missing, damaged or of another kind.

    Example:
      >>> import json, pathlib, tempfile
      >>> from rvis.clip import tokenizer
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     place = pathlib.Path(folder)
      ...     _ = (place / "merges.txt").write_text("#version: 0.2\na b</w>\n")
      ...     _ = (place / "vocab.json").write_text(json.dumps({"a": 0, "b</w>": 1, "ab</w>": 2}))
      ...     tokenizer.read_byte_pairs(place).numbers("ab ab")
      [2, 2]
    """
    place = files.as_path("path", path)
    try:
        if place.is_dir() and not (place / "vocab.json").is_file():
            place = place / "tokenizer.json"
        if place.is_dir():
            vocabulary = json.loads((place / "vocab.json").read_text(encoding="utf-8"))
            merges = _pairs((place / "merges.txt").read_text(encoding="utf-8").split("\n"))
        elif place.suffix == ".json":
            stored = json.loads(place.read_text(encoding="utf-8"))
            vocabulary = dict(stored["model"]["vocab"])
            for token in stored.get("added_tokens", ()):
                vocabulary.setdefault(token["content"], token["id"])
            lines = stored["model"]["merges"]
            merges = [tuple(x.split(" ")) if isinstance(x, str) else tuple(x) for x in lines]
        else:
            data = place.read_bytes()
            text = (gzip.decompress(data) if place.suffix == ".gz" else data).decode()
            merges = _pairs(text.split("\n")[: 1 + _MERGES])
            letters = [_letters()[byte] for byte in sorted(_letters(), key=_openai_order)]
            tokens = [*letters, *(letter + _WORD_END for letter in letters)]
            tokens += ["".join(pair) for pair in merges]
            vocabulary = {token: number for number, token in enumerate(tokens)}
        whole = all(len(pair) == 2 for pair in merges) and all(
            isinstance(number, int) for number in vocabulary.values()
        )
    except (OSError, EOFError, KeyError, TypeError, ValueError, AttributeError, zlib.error) as e:
        raise ValueError(f"path: a CLIP vocabulary was expected at {path} ({e})") from e
    if not whole or not merges:
        raise ValueError(f"path: a CLIP vocabulary was expected at {path}, found other lines")
    return byte_pairs(vocabulary, merges, context=context)  # type: ignore[arg-type]


def _openai_order(byte: int) -> tuple[bool, int]:
    return ord(_letters()[byte]) > 255, byte


def _pairs(lines: list[str]) -> list[tuple[str, ...]]:
    """The merges in a file's lines, of which the first may tell the version."""
    return [tuple(line.split()) for line in lines[lines[0].startswith(("#", '"')) :] if line]


@dataclasses.dataclass(frozen=True)
class Words:
    """Whole words of a small vocabulary; what it does not know it refuses.

    Numbers are 0 for padding, 1 for the start, 2 … for the words in their order, and the highest
    for the end. Punctuation between words is passed over.

    Attributes:
      words: the vocabulary, in lower case.
      context: tokens of a row, start and end included.

    Raises:
      ValueError: naming `words`, where one comes twice or no text can hold it, or `context`, below
        3.

    Example:
      >>> from rvis.clip.tokenizer import Words
      >>> Words(("a", "red", "circle"), context=6)("A red circle.")
      array([[1, 2, 3, 4, 5, 0]], dtype=int32)
    """

    words: tuple[str, ...]
    context: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "words", tuple(self.words))
        checks.count("context", self.context, low=3)
        if len(set(self.words)) < len(self.words):
            raise ValueError("words: different words were expected, given one twice")
        for word in self.words:
            whole = isinstance(word, str) and [*pieces(clean(word))] == [word]
            if not whole or not word[0].isalnum():
                raise ValueError(f"words: words in lower case were expected, given {word!r}")

    @property
    def size(self) -> int:
        """How many numbers there are, padding, start and end included."""
        return len(self.words) + 3

    def __call__(self, texts: str | Sequence[str]) -> np.ndarray:
        """(n, context) int32: start, words and end of each, then zeros.

        Raises:
          TypeError: naming `texts`, for anything but strings.
          ValueError: naming `texts`, for a word that is not of the vocabulary (with the nearest).
        """
        known = _places(self.words)
        rows = []
        for text in listed(texts):
            words = [piece for piece in pieces(clean(text)) if piece[0].isalnum()]
            for word in words:
                if word not in known:
                    checks.choice(f"texts: in {text!r}", word, self.words)
            rows.append([known[word] for word in words])
        return _rows(rows, self.context, 1, self.size - 1)


@functools.lru_cache(maxsize=16)
def _places(words: tuple[str, ...]) -> dict[str, int]:
    return {word: place for place, word in enumerate(words, 2)}
