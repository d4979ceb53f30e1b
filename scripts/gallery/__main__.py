"""The gallery from the command line.

Command:  python scripts/gallery.py --out FOLDER [--quick | --full] [--only NAME …]
Time:     under ten minutes on two cores; --quick under two; --full an hour or more.
Prints:   the page's place, and what failed (exit status 1). An interrupted command goes on where it
          stopped; what is there and as it would be made now is not made again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from scripts import gallery


def main(arguments: list[str] | None = None) -> int:
    """Makes the gallery and says where it is; the exit status."""
    p = argparse.ArgumentParser(
        prog="gallery",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    p.add_argument("--out", type=Path, default=Path("out"), metavar="FOLDER", help="default: out")
    size = p.add_mutually_exclusive_group()
    size.add_argument("--quick", dest="size", action="store_const", const="quick")
    size.add_argument("--full", dest="size", action="store_const", const="full")
    names = " ".join(section.name for section in gallery.SECTIONS)
    p.add_argument("--only", nargs="+", default=[], metavar="NAME", help=f"sections: {names}")
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    a = p.parse_args(arguments)
    try:
        failed = gallery.make(
            a.out,
            gallery.SECTIONS,
            only=a.only,
            size=a.size or "default",
            progress=not a.quiet,
            report=lambda line: print(f"{p.prog}: {line}", file=sys.stderr),
        )
    except (ValueError, TypeError, OSError) as error:
        print(f"{p.prog}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{p.prog}: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    print(a.out / "index.html")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
