"""ImageNet's 1,000 classes: their WordNet ids, and a name for each that no other has."""

from __future__ import annotations

import functools
import pathlib

from rvis import checks


@functools.cache
def _table() -> dict[str, str]:
    lines = (pathlib.Path(__file__).parent / "imagenet.txt").read_text(encoding="utf-8").split("\n")
    return dict(line.split(" ", 1) for line in lines if line)  # type: ignore[misc]


def classes() -> tuple[str, ...]:
    """The names in the order of the logits: WordNet's first word for each.

    Names that WordNet has twice are told apart: "crane (bird)" and "crane (machine)", "Cardigan
    Welsh corgi" and "cardigan", "maillot" and "tank suit".

    Example:
      >>> from rvis.data import imagenet
      >>> imagenet.classes()[9], len(set(imagenet.classes()))
      ('ostrich', 1000)
    """
    return tuple(_table().values())


def wordnet_ids() -> tuple[str, ...]:
    """WordNet's ids in the order of the logits.

    Example:
      >>> from rvis.data import imagenet
      >>> imagenet.wordnet_ids()[9]
      'n01518878'
    """
    return tuple(_table())


def index(label: str) -> int:
    """The number of a class.

    Args:
      label: its name, in any case and with spaces, hyphens or underscores, or its WordNet id.

    Raises:
      ValueError: naming `label`, with the nearest names.

    Example:
      >>> from rvis.data import imagenet
      >>> imagenet.index("golden_retriever"), imagenet.index("n02099601")
      (207, 207)
    """
    if label in _table():
        return list(_table()).index(label)
    plain = {_plain(name): i for i, name in enumerate(classes())}
    found = plain.get(_plain(str(label)))
    # Names that differ in their case alone there are not.
    return classes().index(checks.choice("label", label, classes())) if found is None else found


def _plain(name: str) -> str:
    return name.lower().replace("_", " ").replace("-", " ")
