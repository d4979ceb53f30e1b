"""Writes the API reference: every public name of rvis with its docstring, as one static page.

Command:  python scripts/reference.py --out out/reference
Time:     a few seconds.
Prints:   one line: where the page is, and how many names it documents.
The page, index.html, needs no server and nothing from the network.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where run as a file
from scripts.docs import reference


def main(arguments: list[str] | None = None) -> int:
    """Reads the docstrings and writes the page; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--out", type=Path, default=Path("out/reference"), help="the page's folder")
    a = p.parse_args(arguments)
    try:
        page = reference.write(a.out / "index.html")
    except OSError as error:
        print(f"{p.prog}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    names = {entry.home for entries in reference.entries().values() for entry in entries}
    print(f"{page}: {len(names)} names")
    return 0


if __name__ == "__main__":
    sys.exit(main())
