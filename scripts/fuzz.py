"""Gives every argument of every public function wrong values, and looks at how each is refused.

Command:  python scripts/fuzz.py [--calls 10000] [--seed 0] [--only NAME …] [--out FILE.json]
Time:     some ten minutes for all on one core, half of which are right calls.
Prints:   every call that was not refused as it should be, and how many there were of each kind;
          exit status 1 where there is one.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where run as a file
from scripts.fuzz.__main__ import main

if __name__ == "__main__":
    from rvis import keep_programs

    keep_programs()
    sys.exit(main())
