"""A live window on a camera: what a layer of a network makes of each frame, in the browser.

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

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where run as a file
from scripts.live.__main__ import main

if __name__ == "__main__":
    from rvis import keep_programs

    keep_programs()
    sys.exit(main())
