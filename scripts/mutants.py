"""Puts one wrong line after another into rvis and looks whether its tests notice.

Command:  python scripts/mutants.py [--only WORD …] [--out FILE.json]
Time:     some six seconds a mutant on two cores, a quarter of an hour for all.
Prints:   for each mutant of `scripts/mutants.toml` whether its tests killed it, which of them first
          and by what; exit status 1 where one survived. The tests run in a copy without any data
          set: before the mutants, as rvis is, where all have to pass.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "scripts" / "mutants.toml"
COPIED = ("rvis", "tests", "scripts", "weights", "pyproject.toml")
NOTICED = ("assert ", "AssertionError", "Failed: ", "ValueError", "FloatingPointError")
"""How the message of a kill begins: an assertion, a refusal that did not come, or one that did.

Of anything else, such as an ImportError, every test would fail: the mutant is no program.
"""
LONGEST = 600
"""Seconds after which tests are stopped."""


def table(path: Path = TABLE) -> list[dict[str, Any]]:
    """The mutants: each one's name, file, old and new text, and the tests that are to kill it."""
    return tomllib.loads(path.read_text(encoding="utf-8"))["mutant"]


def mutated(text: str, mutant: dict[str, Any]) -> str:
    """The file's text with the mutant's line in it, whose place there must be one of."""
    count = text.count(mutant["old"])
    if count != 1 or mutant["new"] == mutant["old"]:
        raise ValueError(f"{mutant['name']}: its text stands {count} times in {mutant['file']}")
    return text.replace(mutant["old"], mutant["new"])


def run(folder: Path, tests: Sequence[str], limit: float | None = LONGEST) -> dict[str, str]:
    """What the tests of a copy make of it: passed, killed (by a test, how) or an error."""
    report = folder / "report.xml"
    report.unlink(missing_ok=True)
    words = "-m pytest -q -x -n0 -p no:cacheprovider -o junit_logging=no".split()
    command = [sys.executable, *words, f"--junitxml={report}", *(f"tests/{test}" for test in tests)]
    # Compiled files are told from others by seconds, of which a mutant may take less than one.
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder / "cache"))
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=limit
        )
    except subprocess.TimeoutExpired:
        return {"outcome": "error", "message": f"not done after {limit} s"}
    cases = list(ET.parse(report).iter("testcase")) if report.exists() else []
    for case in cases:
        for kind in ("failure", "error"):
            if (bad := case.find(kind)) is not None:
                message = " ".join(bad.get("message", "").split())[:200]
                message = re.sub(r"/\S*/", "", message)  # of folders that are gone
                noticed = kind == "failure" and message.startswith(NOTICED)
                outcome = "killed" if noticed else "error"
                return {"outcome": outcome, "by": case.get("name", ""), "message": message}
    ran = [case for case in cases if case.find("skipped") is None]
    if done.returncode or len(ran) < len(tests):
        return {"outcome": "error", "message": " ".join((done.stdout + done.stderr).split())[-200:]}
    return {"outcome": "passed"}


def copied(folder: Path) -> None:
    """Puts what the tests need into a folder."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, folder / name)


def judged(folder: Path, mutant: dict[str, Any]) -> dict[str, Any]:
    """A row of the results: the mutant in the copy, which is then as it was."""
    path = folder / "rvis" / mutant["file"]
    text = path.read_text(encoding="utf-8")
    path.write_text(mutated(text, mutant), encoding="utf-8")
    begun = time.monotonic()
    try:
        found = run(folder, mutant["tests"])
    finally:
        path.write_text(text, encoding="utf-8")
    found["outcome"] = found["outcome"].replace("passed", "survived")
    about = {"name": mutant["name"], "file": mutant["file"]}
    return about | found | {"seconds": round(time.monotonic() - begun, 1)}


def main(arguments: list[str] | None = None) -> int:
    """Runs the table, prints and writes; the exit status."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--only", nargs="+", help="words, one of which is in the name or the file")
    p.add_argument("--out", type=Path, help="rows by name; those of other mutants are kept")
    a = p.parse_args(arguments)
    chosen = [
        mutant
        for mutant in table()
        if not a.only or any(word in f"{mutant['name']} {mutant['file']}" for word in a.only)
    ]
    if not chosen:
        print(f"--only: a word of scripts/mutants.toml was expected, given {a.only}")
        return 2
    rows = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        copied(folder)
        tests = dict.fromkeys(test for each in chosen for test in each["tests"])
        plain = run(folder, list(tests), limit=None)
        if plain["outcome"] != "passed":
            print(f"without any mutant: {plain}")
            return 2
        for number, mutant in enumerate(chosen, 1):
            row = judged(folder, mutant)
            rows.append(row)
            by = f" by {row['by']}" if "by" in row else ""
            print(f"{number}/{len(chosen)} {row['outcome']:8} {row['name']}{by}", flush=True)
            if row["outcome"] == "error":
                print(f"  {row['message']}", flush=True)
            if a.out:
                _written(a.out, rows)
    killed = sum(row["outcome"] == "killed" for row in rows)
    print(f"{killed} of {len(rows)} killed")
    return int(killed < len(rows))


def _written(path: Path, rows: list[dict[str, Any]]) -> None:
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    new = {row["name"]: row for row in (*before, *rows)}
    kept = [new[mutant["name"]] for mutant in table() if mutant["name"] in new]
    path.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
