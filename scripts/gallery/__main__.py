"""The gallery from the command line.

Command:  python scripts/gallery.py [--quick | --full] [--only NAME …] [--photos FOLDER]
          [--networks FOLDER] [--out FOLDER]
Time:     under ten minutes on two cores; --quick under two; --full an hour or more.
Prints:   the page's place, and what failed (exit status 1). An interrupted command goes on where it
          stopped; what is there and as it would be made now is not made again.
The first section is of real networks, those of the extra `imagenet`; --networks adds those of a
folder: files named as an architecture (`resnet50.safetensors`, `googlenet_bvlc.pth`), and folders
that `rvis.load` reads. --photos has the photographs that it looks at, scikit-image's by default.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from scripts import gallery
from scripts.gallery import networks
from scripts.gallery.sections import real


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
    p.add_argument("--photos", default="", metavar="FOLDER", help="photographs of yours")
    p.add_argument("--networks", default="", metavar="FOLDER", help="networks of yours")
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    a = p.parse_args(arguments)
    installed = networks.installed()
    if not installed:
        print(f"{p.prog}: {networks.WITHOUT}", file=sys.stderr)
    try:
        first = real.section(photos=a.photos, folder=a.networks, installed=installed)
        failed = gallery.make(
            a.out,
            (first, *gallery.SECTIONS[1:]),
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
