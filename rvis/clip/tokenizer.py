"""From texts to token numbers: CLIP's byte-pair encoding, and whole words of a small vocabulary."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import hashlib
import html
import importlib
import json
import re
import unicodedata
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from rvis import checks, files, gate

START, END = "<|startoftext|>", "<|endoftext|>"
CLEANINGS = ("basic", "openai")
_PIECES = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
"""How CLIP's reference cuts a text into words."""
_WORD = re.compile(r"'(?:s|t|re|ve|m|ll|d)|([^\W\d_]+|\d)")
"""The same for whole words; a contraction has no group."""
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
      clean: how texts are cleaned, one of `CLEANINGS`.
      vocabulary: {token: number}.
      encoder: the `tokenizers.Tokenizer` that does the work.
    """

    digest: str
    context: int
    clean: str
    vocabulary: Mapping[str, int] = dataclasses.field(repr=False, compare=False)
    encoder: Any = dataclasses.field(repr=False, compare=False)

    def numbers(self, text: str) -> list[int]:
        """The token numbers of one text, without start, end and limit.

        Example:
          >>> from rvis.clip import tokenizer
          >>> small = tokenizer.byte_pairs({"a": 0, "b</w>": 1, "ab</w>": 2}, [("a", "b</w>")])
          >>> small.numbers("AB ab")
          [2, 2]
        """
        return self.encoder.encode(_openai(text) if self.clean == "openai" else text).ids

    def __call__(self, texts: str | Sequence[str]) -> np.ndarray:
        """(n, context) int32: start, text and end of each, then zeros.

        Raises:
          TypeError, ValueError: naming `texts`, for anything but strings.
        """
        rows = (self.numbers(text) for text in listed(texts))
        return _rows(rows, self.context, self.vocabulary[START], self.vocabulary[END])


def _openai(text: str) -> str:
    """A text as openai/CLIP cleans it."""
    try:
        fixed = importlib.import_module("ftfy").fix_text(text)
    except ImportError:
        fixed = unicodedata.normalize("NFC", text)  # the least that ftfy does
    return " ".join(html.unescape(html.unescape(fixed)).split()).lower()


@gate.public
def byte_pairs(
    vocabulary: Mapping[str, int],
    merges: Sequence[tuple[str, str]],
    *,
    context: int = 77,
    clean: str = "basic",
) -> BytePairs:
    """CLIP's byte-pair tokenizer from a vocabulary and its merges in order.

    Hugging Face's `tokenizers` does the work.

    Args:
      vocabulary: {token: number}; start and end are added behind it where they are missing.
      merges: pairs of tokens, the first to be merged first.
      context: tokens of a row, start and end included.
      clean: "basic", as Hugging Face's CLIP: composed (NFC), white space as single spaces, lower
        case; or "openai", as openai/CLIP: mended by `ftfy.fix_text` where ftfy is installed, HTML's
        `&amp;` and the like resolved twice, white space as single spaces, lower case.

    Raises:
      ValueError: naming `context`, below 3; `clean`; or `vocabulary`, whose numbers must differ,
        whose end must be the highest, and which must have the parts and results of all merges.
      ImportError: naming the extra, where `tokenizers` is not installed.

    Example:
      >>> from rvis.clip import tokenizer
      >>> tokenizer.byte_pairs({"a</w>": 0}, [], context=4)("a")
      array([[1, 0, 2, 0]], dtype=int32)

    Reference: Sennrich et al. 2015, algorithm 1; openai/CLIP, `simple_tokenizer.py`.
    """
    checks.count("context", context, low=3)
    checks.choice("clean", clean, CLEANINGS)
    tokens = dict(vocabulary)
    for special in (START, END):
        tokens.setdefault(special, 1 + max(tokens.values(), default=-1))
    if len(set(tokens.values())) < len(tokens) or max(tokens.values()) != tokens[END]:
        raise ValueError(
            f"vocabulary: numbers that differ, that of {END} the highest, were expected"
        )
    hf = checks.package("tokenizers", "clip", "CLIP's byte-pair encoding")
    if not all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in merges):
        raise TypeError("merges: pairs of tokens were expected, given others")
    pairs = [(first, second) for first, second in merges]
    try:
        model = hf.models.BPE(tokens, pairs, unk_token=END, end_of_word_suffix=_WORD_END)
    except Exception as error:  # the library raises plain exceptions
        raise ValueError(f"vocabulary: one that fits the merges was expected ({error})") from error
    encoder = hf.Tokenizer(model)
    white, expression = hf.Regex(r"\s+"), hf.Regex(_PIECES)
    cut = hf.pre_tokenizers.Split(expression, behavior="removed", invert=True)
    letters = hf.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    if clean == "basic":
        steps = hf.normalizers.NFC(), hf.normalizers.Replace(white, " "), hf.normalizers.Lowercase()
        encoder.normalizer = hf.normalizers.Sequence(list(steps))
    encoder.pre_tokenizer = hf.pre_tokenizers.Sequence([cut, letters])
    encoder.add_special_tokens([START, END])
    digest = hashlib.sha256(json.dumps([sorted(tokens.items()), pairs]).encode())
    return BytePairs(digest.hexdigest()[:16], context, clean, tokens, encoder)


@gate.public
def read_byte_pairs(
    path: files.PathLike, *, context: int = 77, clean: str | None = None
) -> BytePairs:
    r"""CLIP's byte-pair tokenizer from a vocabulary file.

    Args:
      path: OpenAI's `bpe_simple_vocab_16e6.txt.gz`; a Hugging Face `tokenizer.json`; or a folder
        with `vocab.json` and `merges.txt`, or with `tokenizer.json`.
      context: tokens of a row, start and end included.
      clean: as in `byte_pairs`; by default "openai" for OpenAI's file and "basic" for the others.

    Raises:
      ValueError: naming `path`, of a file that is missing, damaged or of another kind.
      ImportError: as `byte_pairs`.

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
    checks.count("context", context, low=3)
    if clean is not None:
        checks.choice("clean", clean, CLEANINGS)
    place = files.as_path("path", path)
    usual = "basic"
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
            vocabulary, usual = _numbered(merges), "openai"
        whole = all(len(pair) == 2 for pair in merges) and all(
            isinstance(number, int) for number in vocabulary.values()
        )
    except (OSError, EOFError, KeyError, TypeError, ValueError, AttributeError, zlib.error) as e:
        raise ValueError(f"path: a CLIP vocabulary was expected at {path} ({e})") from e
    if not whole or not merges:
        raise ValueError(f"path: a CLIP vocabulary was expected at {path}, found other lines")
    return byte_pairs(vocabulary, merges, context=context, clean=clean or usual)  # type: ignore[arg-type]


def _numbered(merges: list[tuple[str, ...]]) -> dict[str, int]:
    """OpenAI's order of tokens: a letter for each byte, these at a word's end, and the merges."""
    hf = checks.package("tokenizers", "clip", "CLIP's byte-pair encoding")
    # Its letters for bytes that cannot be printed have the numbers from 256 on.
    letters = sorted(hf.pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(letter + _WORD_END for letter in letters), *map("".join, merges)]
    return {token: number for number, token in enumerate(tokens)}


def _pairs(lines: list[str]) -> list[tuple[str, ...]]:
    """The merges in a file's lines, of which the first may tell the version."""
    return [tuple(line.split()) for line in lines[lines[0].startswith(("#", '"')) :] if line]


def _words(text: str) -> list[str]:
    """The words of a text in lower case: runs of letters and single digits."""
    return [word for word in _WORD.findall(unicodedata.normalize("NFC", text).lower()) if word]


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
            if not isinstance(word, str) or _words(word) != [word]:
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
            words = _words(text)
            for word in words:
                if word not in known:
                    checks.choice(f"texts: in {text!r}", word, self.words)
            rows.append([known[word] for word in words])
        return _rows(rows, self.context, 1, self.size - 1)


@functools.lru_cache(maxsize=16)
def _places(words: tuple[str, ...]) -> dict[str, int]:
    return {word: place for place, word in enumerate(words, 2)}
