"""Every public function returns what it returned when `expected.json` was written."""

from __future__ import annotations

import pytest

from tests.characterization import kept
from tests.characterization.table import TABLE

EXPECTED = kept.load()


def test_each_entry_has_its_values():
    assert sorted(TABLE) == sorted(EXPECTED)


@pytest.mark.parametrize("name", TABLE)
def test_returns_what_it_did(name):
    call, expected = TABLE[name], EXPECTED[name]
    found = call.run()
    assert list(found) == list(expected)
    wrong = {
        key: kept.differences(array, expected[key], call.rtol, call.atol)
        for key, array in found.items()
    }
    lines = [f"{name}: {key}: {line}" for key, all_lines in wrong.items() for line in all_lines]
    assert not lines, "\n".join(lines)
