"""One side of one row in a process of its own, timed when the other process waits.

Command:  python -m scripts.bench.worker ROW SIDE [DATA]
Prints:   a JSON object a line: at the start how long the first call took, with all compilation;
          then for each line read, the seconds and the figure of one more call; at the end of input
          the peak memory in bytes.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

from scripts.bench.rows import ROWS


def main(row: str, side: str, data: str | None = None) -> None:
    """Serves calls until the input ends."""
    (chosen,) = [one for one in ROWS if one.name == row]
    call = chosen.sides[side](None if data is None else Path(data))
    started = time.perf_counter()
    call()
    print(json.dumps({"first": time.perf_counter() - started}), flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        figure = call()
        print(json.dumps({"seconds": time.perf_counter() - started, "figure": figure}), flush=True)
    print(json.dumps({"memory": _peak()}), flush=True)


def _peak() -> int:
    """The peak memory in bytes. Linux's `ru_maxrss` begins with that of the parent."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    main(*sys.argv[1:])
