"""Writes what the calls of the table return now: `python -m tests.characterization.record [NAMES]`.

Without names all entries are written, and those that the table no longer has are dropped. A value
that changes on purpose belongs in CHANGES.md.
"""

from __future__ import annotations

import os
import sys
import time


def main(names: list[str]) -> None:
    # The tests' own flags: other flags round otherwise.
    from tests.conftest import QUICK

    os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *QUICK]).strip()
    from tests.characterization import kept, table

    unknown = set(names) - set(table.TABLE)
    if unknown:
        sys.exit(f"no such entries: {', '.join(sorted(unknown))}")
    expected = {name: arrays for name, arrays in kept.load().items() if name in table.TABLE}
    for name in names or table.TABLE:
        start = time.perf_counter()
        found = table.TABLE[name].run()
        expected[name] = {key: kept.summary(array) for key, array in found.items()}
        print(f"{name}: {len(found)} arrays, {time.perf_counter() - start:.1f} s", flush=True)
    kept.save(expected)


if __name__ == "__main__":
    main(sys.argv[1:])
