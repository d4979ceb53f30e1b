"""The table of wrong implementations fits the code, and its runner tells who notices."""

from __future__ import annotations

import ast

import pytest

from scripts import mutants

TABLE = mutants.table()


def test_there_are_many_and_each_has_a_name_of_its_own():
    assert len({mutant["name"] for mutant in TABLE}) == len(TABLE) >= 60


@pytest.mark.parametrize("file", sorted({mutant["file"] for mutant in TABLE}))
def test_every_text_stands_once_in_its_file(file):
    text = (mutants.ROOT / "rvis" / file).read_text(encoding="utf-8")
    for mutant in TABLE:
        if mutant["file"] == file:
            ast.parse(mutants.mutated(text, mutant))


def test_every_test_is_there():
    functions = {}
    for mutant in TABLE:
        assert mutant["tests"]
        for test in mutant["tests"]:
            path, name = test.split("[")[0].split("::")
            if path not in functions:
                tree = ast.parse((mutants.ROOT / "tests" / path).read_text(encoding="utf-8"))
                functions[path] = {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}
            assert name in functions[path], f"{mutant['name']}: {test}"


def test_a_text_that_is_not_there_once_is_named():
    for text in ("a", "b b"):
        with pytest.raises(ValueError, match="^wrong: its text stands . times in x.py"):
            mutants.mutated(text, {"name": "wrong", "file": "x.py", "old": "b", "new": "c"})


MUTANTS = {
    "killed": ("+", "-"),
    "survived": ("a + b", "b + a"),
    "error": ("return", "retrun"),
}


def test_the_runner_tells_a_kill_from_a_survivor_and_from_no_program(tmp_path):
    for folder in ("rvis", "tests"):
        (tmp_path / folder).mkdir()
    code = "def total(a, b):\n    return a + b\n"
    (tmp_path / "rvis" / "__init__.py").write_text("")
    (tmp_path / "rvis" / "sums.py").write_text(code)
    (tmp_path / "tests" / "test_sums.py").write_text(
        "from rvis.sums import total\n\n\ndef test_it_adds():\n    assert total(1, 2) == 3\n"
    )
    for outcome, (old, new) in MUTANTS.items():
        mutant = {"name": outcome, "file": "sums.py", "old": old, "new": new}
        row = mutants.judged(tmp_path, {**mutant, "tests": ["test_sums.py::test_it_adds"]})
        assert row["outcome"] == outcome, row
        assert (tmp_path / "rvis" / "sums.py").read_text() == code
    missing = mutants.run(tmp_path, ["test_sums.py::test_nothing"])
    assert missing["outcome"] == "error"
