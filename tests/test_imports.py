"""What `import rvis` brings, what it leaves for the first use, and whose the names are."""

from __future__ import annotations

import ast
import inspect
import pathlib
import pickle
import pkgutil
import subprocess
import sys

import pytest

import rvis


def printed(code: str) -> list[str]:
    """The words that `code` prints in a fresh interpreter."""
    command = [sys.executable, "-c", code]
    root = pathlib.Path(__file__).parents[1]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    return run.stdout.split()


def test_a_bare_import_brings_nothing_slow():
    found = set(printed("import rvis, sys; print(*sys.modules)"))
    assert {name for name in found if name.startswith("rvis.")} == set()
    assert found & {"jax", "flax", "optax", "numpy", "scipy", "PIL", "tqdm"} == set()


THREADS = """
import sys, threading, rvis
sys.setswitchinterval(1e-5)
told = []
def use(name):
    try:
        told.append(callable(getattr(rvis, name)))
    except BaseException as error:
        told.append(type(error).__name__)
names = ("load", "visualize", "record", "deepdream")
threads = [threading.Thread(target=use, args=(name,)) for name in names]
[thread.start() for thread in threads], [thread.join() for thread in threads]
print(*told)
"""


def test_threads_may_use_it_first_at_the_same_time():
    assert printed(THREADS) == ["True"] * 4


def test_a_first_picture_needs_neither_nnx_nor_other_tasks():
    code = "import rvis, sys; rvis.load, rvis.visualize, rvis.objectives; print(*sys.modules)"
    found = set(printed(code))
    assert {"rvis.models.registry", "rvis.visualization", "rvis.objectives"} <= found
    tasks = {f"rvis.{name}" for name in ("attacks", "clip", "evolve", "style", "training")}
    assert found & ({"flax.nnx", "scipy"} | tasks) == set()


def test_no_function_has_the_name_of_a_module_beside_it():
    modules = {module.name for module in pkgutil.iter_modules(rvis.__path__)}
    assert not modules & set(rvis._PLACES)


def test_a_name_can_be_replaced_and_put_back(monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(rvis, "match", len)
        assert rvis.match("ab") == 2
    assert inspect.isfunction(rvis.match)
    assert pickle.loads(pickle.dumps(rvis.match)) is rvis.match


def test_every_public_name_is_there_and_listed():
    assert set(rvis.__all__) <= set(dir(rvis))
    for name in rvis.__all__:
        found = getattr(rvis, name)
        assert inspect.ismodule(found) or getattr(found, "__name__", None) == name


def test_type_checkers_read_the_same_places():
    (typed,) = [
        node
        for node in ast.parse(pathlib.Path(rvis.__file__).read_text(encoding="utf-8")).body
        if isinstance(node, ast.If)
    ]
    found = {
        alias.name: f"{line.module}.{alias.name}"
        for line in typed.body
        if isinstance(line, ast.ImportFrom)
        for alias in line.names
    }
    places = {
        name: f"rvis.{place}.{name}" if (place := rvis._PLACES.get(name)) else f"rvis.{name}"
        for name in rvis.__all__
    }
    assert found == places


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'rvis' has no attribute 'visualise'"):
        rvis.visualise  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'visualise'"):
        exec("from rvis import visualise")


def test_an_error_inside_a_room_is_not_an_unknown_name(monkeypatch):
    monkeypatch.delitem(vars(rvis), "plotting", raising=False)
    for name in [name for name in sys.modules if name.startswith("rvis.plotting")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ModuleNotFoundError, match="PIL"):
        rvis.plotting  # noqa: B018
