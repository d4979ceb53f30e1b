"""A few test images of a data set, small enough to be shipped, for the gallery and the examples.

Command:  python scripts/gather_samples.py DATA --each 80 --out scripts/gallery/data/NAME.zip
Time:     seconds.
Prints:   how many images of how many classes, and the size of the archive.
DATA is a zip of images SPLIT/CLASS/NAME.jpg, whose files are taken as they are, or what else
`rvis.data.load` reads, whose images are written as PNG. The first of every class are taken.
"""

from __future__ import annotations

import argparse
import io
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import rvis
from rvis import files
from rvis.__main__ import reported
from rvis.plotting import grids

_WHEN = (1980, 1, 1, 0, 0, 0)
"""The date of every member, so that the same images make the same archive."""


def stored(path: Path, split: str) -> Iterator[tuple[str, str, bytes]]:
    """(class, name, content) of the images of one split of a zip, in the order of names."""
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            parts = name.split("/")
            if len(parts) >= 3 and parts[-3] == split and parts[-1]:
                yield parts[-2], parts[-1], archive.read(name)


def drawn(path: Path, split: str) -> Iterator[tuple[str, str, bytes]]:
    """(class, name, content) of the images of one split of any other data set, as PNG."""
    found = rvis.data.load(path, split)
    for i, label in enumerate(found.labels):
        stream = io.BytesIO()
        grids.to_pil(found.floats([i])[0]).save(stream, format="PNG", optimize=True)
        yield found.classes[label], f"{i:05d}.png", stream.getvalue()


@reported()
def main(arguments: list[str] | None = None) -> int:
    """Chooses, writes and prints; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("data", type=Path)
    p.add_argument("--split", default="test")
    p.add_argument("--each", type=int, required=True, help="images of every class")
    p.add_argument("--out", type=Path, required=True, metavar="FILE.zip")
    a = p.parse_args(arguments)
    taken: Counter[str] = Counter()
    images = stored if zipfile.is_zipfile(a.data) else drawn
    with files.atomic(a.out) as beside, zipfile.ZipFile(beside, "w") as archive:
        for label, name, content in images(a.data, a.split):
            if taken[label] < a.each:
                taken[label] += 1
                archive.writestr(zipfile.ZipInfo(f"test/{label}/{name}", _WHEN), content)
        if not taken:
            raise ValueError(f"data: no images of the split {a.split!r} in {a.data}")
    print(f"{taken.total()} images of {len(taken)} classes, {a.out.stat().st_size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
