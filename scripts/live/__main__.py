"""The live window from the command line; see `scripts/live.py`."""

from __future__ import annotations

import argparse
import sys

import rvis
from rvis.__main__ import reported
from scripts.live import server

ABOUT = """A live window on a camera: what a layer of a network makes of each frame, in the browser.

Command:  python scripts/live.py MODEL [--layer LAYER] [--port 8000]
Time:     until Ctrl-C. The first frame of each layer waits some seconds for its program; then a
          32-pixel network answers tens of frames a second on one core.
Prints:   the address to open on this machine; no other machine can reach it. The page shows the
          frame as the network sees it, the five most probable classes, all channels of the layer
          and, of the chosen one, its map, gradient and deconvnet view. Arrow keys choose the
          channel, Page Up and Page Down the layer, P pauses, O makes the channel's own picture.
MODEL is a name of `rvis.list_models()` or a path that `rvis.load` reads (an architecture needs
`--weights`). Without a camera, the page takes a picture or a video from a file.

"""


@reported()
def main(arguments: list[str] | None = None) -> int:
    """Serves until it is interrupted; the exit status."""
    p = argparse.ArgumentParser(
        prog="live", description=ABOUT, formatter_class=argparse.RawTextHelpFormatter
    )
    p.add_argument("model")
    p.add_argument("--layer", help="shown first; by default the last with places")
    p.add_argument("--port", type=int, default=8000, help="0 takes any that is free")
    p.add_argument("--weights", help="a file of weights, for an architecture's name")
    a = p.parse_args(arguments)
    model = rvis.load(a.model, weights=a.weights)
    with server.Window(model, layer=a.layer, port=a.port) as window:
        print(f"{window.address} (Ctrl-C ends it)", flush=True)
        window.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
