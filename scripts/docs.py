"""Builds the documentation: guides, reference, evidence, examples, as a folder of static pages.

Command:  python scripts/docs.py [--notebooks] [--out out/site]
Time:     half a minute; --notebooks runs the six examples first, three minutes on two cores.
Prints:   where the first page is; a broken link or a name that is missing ends it (status 1).
The site needs nothing from the network: open FOLDER/index.html; to search it, too, serve it with
`python -m http.server -d FOLDER`. It wants the extra
`docs`. `mkdocs build --strict -f scripts/docs/mkdocs.yml` makes the same pages.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # where run as a file
from scripts.docs import notebooks


def main(arguments: list[str] | None = None) -> int:
    """Builds the site; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--notebooks", action="store_true", help="run the examples for their outputs")
    p.add_argument("--out", type=Path, default=Path("out", "site"))
    a = p.parse_args(arguments)
    for name in notebooks.names() if a.notebooks else ():
        print(notebooks.run(name), flush=True)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    command += ["-f", str(ROOT / "scripts" / "docs" / "mkdocs.yml"), "-d", str(a.out.resolve())]
    if subprocess.run(command, check=False).returncode:
        return 1
    print(a.out / "index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
