"""What a call compiled is told with its result, and compiled programs are kept in a folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import rvis
from tests import toys

FOLDER = """
import json, jax, rvis
from tests import toys
print(rvis.keep_programs())
"""
PROGRAM = """
model = toys.pointwise()
found = rvis.visualize(model, rvis.objectives.channel("relu", 0), steps=2, progress=False)
print(json.dumps(found.config["compiled"]))
"""


def test_a_result_says_what_its_call_compiled(tmp_path):
    model, first = toys.pointwise(size=(11, 13)), rvis.objectives.channel("relu", 0)
    options = {"steps": 2, "progress": False}
    cold, warm = (rvis.visualize(model, first, **options).config["compiled"] for _ in range(2))
    assert cold["programs"] > 0 and cold["seconds"] > 0
    assert warm == {"programs": 0, "seconds": 0.0}
    rvis.sweep(model, "relu", [1], out=tmp_path, **options)
    told = json.loads((tmp_path / "sweep.json").read_text())["compiled"]
    assert told == {"programs": 0, "seconds": 0.0}


@pytest.mark.parametrize("named", [False, True])
def test_programs_are_kept_where_they_should_be(tmp_path, named):
    variables = {"RVIS_CACHE": str(tmp_path / "own")}
    if named:
        variables["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path / "named")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")} | variables
    command = [sys.executable, "-c", FOLDER + ("" if named else PROGRAM)]
    out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    folder, told, *_ = out.stdout.split("\n")
    assert folder == str(tmp_path / ("named" if named else "own/programs"))
    if not named:
        assert len(list((tmp_path / "own/programs").iterdir())) >= json.loads(told)["programs"] > 0
