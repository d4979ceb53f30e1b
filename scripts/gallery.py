"""Two lectures on what networks have learned, reproduced: one page of claims, pictures and figures.

Command:  python scripts/gallery.py [--quick] [--only NAME …] [--out FOLDER]
Time:     16 to 25 minutes on two idle cores, by their speed; two to four with --quick.
Prints:   the page's place, and what failed. See `python -m gallery --help`: it is the same.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where run as a file
from scripts.gallery.__main__ import main

if __name__ == "__main__":
    from rvis import keep_programs

    keep_programs()
    sys.exit(main())
