"""Gives every argument of every public function wrong values, and looks at how each is refused.

Command:  python scripts/fuzz.py [--calls 10000] [--seed 0] [--only NAME …] [--out FILE.json]
Time:     some ten minutes for all on one core, half of which are right calls.
Prints:   every call that was not refused as it should be, and how many there were of each kind;
          exit status 1 where there is one.

A call is right where it raises TypeError, ValueError or OSError whose message begins with the name
of that argument, within ten seconds and before anything is compiled. First every function is called
rightly, and all numbers that it gives must be finite.
"""

from __future__ import annotations

import argparse
import collections
import random
import sys
import time
from pathlib import Path

from rvis import files
from scripts.fuzz.calls import attempts, called, elsewhere, functions, tried

GOOD = ("refused", "fair", "right")


def main(arguments: list[str] | None = None) -> int:
    """Runs and prints; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--calls", type=int, default=10**6, help="at most")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--only", nargs="+", help="functions, as they are printed")
    p.add_argument("--out", type=Path, help="a JSON file for the figures")
    a = p.parse_args(arguments)
    out = a.out and a.out.resolve()
    titles = a.only or list(functions())
    chosen = [each for each in attempts() if each.function in titles]
    random.Random(a.seed).shuffle(chosen)
    begun = time.monotonic()
    with elsewhere():
        verdicts = [called(title) for title in titles]
        verdicts += [tried(each) for each in chosen[: a.calls]]
    for v in sorted(verdicts):
        if v.verdict not in GOOD:
            print(f"{v.function}({v.argument}={v.value}): {v.verdict} {v.words}")
    counts = collections.Counter(v.verdict for v in verdicts)
    for verdict, count in counts.most_common():
        print(f"{count:6} {verdict}")
    bad = sum(count for verdict, count in counts.items() if verdict not in GOOD)
    if out:
        figures = {"functions": len(titles), "calls": len(verdicts), "seed": a.seed, "bad": bad}
        figures |= {"verdicts": dict(counts), "seconds": round(time.monotonic() - begun)}
        files.write_json(out, figures)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
