"""The examples: short, without anything from outside, and naming only what rvis has."""

from __future__ import annotations

import ast
import inspect
import pathlib
import re
import runpy
import subprocess
import sys

import PIL.Image
import pytest

import rvis

FOLDER = pathlib.Path(__file__).parents[2] / "scripts" / "examples"
EXAMPLES = sorted(path.stem for path in FOLDER.glob("*.py"))


def tree(name):
    return ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))


def imported(module):
    """{name: what of rvis it stands for} of a script's imports."""
    names = {}
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "rvis":
            source = rvis
            for part in node.module.split(".")[1:]:
                source = getattr(source, part)
            names |= {a.asname or a.name: getattr(source, a.name) for a in node.names}
        elif isinstance(node, ast.Import):
            names |= {a.name: rvis for a in node.names if a.name == "rvis"}
    return names


def found(node, names):
    """(what a dotted name of rvis stands for, whether it is one); AttributeError where there is none."""
    if isinstance(node, ast.Name):
        return names.get(node.id), node.id in names
    if isinstance(node, ast.Attribute):
        owner, known = found(node.value, names)
        if known and (inspect.ismodule(owner) or inspect.isclass(owner)):
            return getattr(owner, node.attr), True
    return None, False


def test_all_are_there():
    assert EXAMPLES == [
        "attacks",
        "attribution",
        "feature_visualization",
        "image_synthesis",
        "robust_beside_standard",
        "your_own_network",
    ]


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_is_short_and_opens_with_its_command(name):
    text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 70
    assert f"python scripts/examples/{name}.py --out" in ast.get_docstring(tree(name))
    assert text.count("# %%") >= 3
    assert "shared" not in text and "http" not in text


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_compiles_and_names_what_rvis_has(name):
    module = tree(name)
    compile(module, name, "exec")
    names = imported(module)
    assert "rvis" in names
    for node in ast.walk(module):
        if isinstance(node, ast.Attribute):
            found(node, names)


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_gives_functions_arguments_that_they_take(name):
    module = tree(name)
    names = imported(module)
    checked = 0
    for node in ast.walk(module):
        if isinstance(node, ast.Call):
            function, known = found(node.func, names)
            if known and callable(function):
                keywords = {keyword.arg: None for keyword in node.keywords}
                inspect.signature(function).bind(*node.args, **keywords)
                checked += 1
    assert checked >= 5


def test_a_missing_name_would_be_seen():
    module = ast.parse("import rvis\nrvis.attacks.pgdd(1)")
    with pytest.raises(AttributeError, match="pgdd"):
        found(module.body[1].value.func, imported(module))


def test_a_network_of_one_s_own_is_trained_and_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        sys, "argv", ["your_own_network.py", "-f", "kernel.json", "--out", str(tmp_path)]
    )
    runpy.run_path(str(FOLDER / "your_own_network.py"), run_name="__main__")
    assert "accuracy 100%" in capsys.readouterr().out
    pictures = {path.name: PIL.Image.open(path).size for path in tmp_path.glob("*.png")}
    assert sorted(pictures) == ["attack.png", "attribution.png", "classes.png"]
    assert all(min(size) > 40 for size in pictures.values())


@pytest.mark.parametrize("name", ["sweep_slurm", "sweep_tpu_pod"])
def test_recipes_of_many_machines_are_bash_around_python(name):
    file = FOLDER / f"{name}.sh"
    subprocess.run(["bash", "-n", str(file)], check=True)
    told = subprocess.run(["bash", str(file), "one"], capture_output=True, text=True)
    assert told.returncode == 2 and "expected, given: one" in told.stderr
    program = re.search(r"import sys.*?== 0\)\n", file.read_text(encoding="utf-8"), re.DOTALL)
    compile(program.group(), name, "exec")
