"""The gallery from the command line.

Command:  python scripts/gallery.py [--quick] [--only NAME …] [--photos FOLDER] [--networks FOLDER]
          [--out FOLDER]
Time:     16 to 25 minutes on two idle cores; --quick, a small version of every section, two to
          four, and less where its programs were compiled before.
Prints:   the page's place, and what failed (exit status 1). An interrupted command goes on where it
          stopped; what is there and as it would be made now is not made again.
The extra `imagenet` brings real networks and photographs, without which small networks stand in.
--networks adds those of a folder: files named as an architecture (`resnet50.safetensors`,
`googlenet_bvlc.pth`), and folders that `rvis.load` reads. GoogLeNet is then looked into, and
networks of ImageNet's classes judge what others made. --photos has photographs named by what they
show (`school_bus.jpg`), scikit-image's and small animals by default.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import jax

from rvis.__main__ import reported
from scripts import gallery
from scripts.gallery import networks


@reported(goes_on=True)
def main(arguments: list[str] | None = None) -> int:
    """Makes the gallery and says where it is; the exit status."""
    p = argparse.ArgumentParser(
        prog="gallery",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    p.add_argument("--out", type=Path, default=Path("out"), metavar="FOLDER", help="default: out")
    p.add_argument("--quick", action="store_true", help="smaller pictures, fewer steps")
    names = " ".join(gallery.NAMES)
    p.add_argument("--only", nargs="+", default=[], metavar="NAME", help=f"sections: {names}")
    p.add_argument("--photos", default="", metavar="FOLDER", help="photographs of yours")
    p.add_argument("--networks", default="", metavar="FOLDER", help="networks of yours")
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    a = p.parse_args(arguments)
    if a.quick:
        compile_fast()
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    extra = networks.installed()
    if not extra:
        print(f"{p.prog}: {networks.WITHOUT}", file=sys.stderr)
    cast = networks.cast(folder=a.networks, photos=a.photos, extra=extra)
    failed = gallery.make(
        a.out,
        gallery.sections(cast),
        only=a.only,
        size="quick" if a.quick else "full",
        progress=not a.quiet,
        report=lambda line: print(f"{p.prog}: {line}", file=sys.stderr),
    )
    print(a.out / "index.html")
    return 1 if failed else 0


def compile_fast() -> None:
    """Leaves out optimizations of programs, which take longer than a quick run's few steps gain.

    Half of the time to compile is LLVM's, and most of the rest XLA's emitters of fusions. XLA stops
    at a flag that it does not know, so that only versions that know them get them.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if jax.__version_info__ < (0, 11) and "optimization_level" not in flags:
        fast = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
        os.environ["XLA_FLAGS"] = f"{flags} {fast}".strip()


if __name__ == "__main__":
    sys.exit(main())
