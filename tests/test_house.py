"""The house: imports point down, and what one room does no other room does."""

from __future__ import annotations

import ast
import pathlib
import re

import pytest

import rvis

ROOT = pathlib.Path(rvis.__file__).parent

# From the ground up. What stands together may not import one another, but for the primitives.
GROUND = ("types", "struct", "checks", "files", "results", "gate")
LEVELS: tuple[tuple[str, ...], ...] = (
    GROUND,
    ("plotting", "data"),
    ("kernels",),
    ("engine",),
    (
        "ascent",
        "objectives",
        "images",
        "transforms",
        "regularizers",
        "optimizers",
        "projections",
        "post_step",
        "models",
    ),
    ("analysis",),
    (
        "visualization",
        "attacks",
        "evolve",
        "inversion",
        "style",
        "synthesis",
        "clip",
        "attribution",
        "concepts",
        "training",
    ),
    ("__main__",),
)
LEVEL = {room: i for i, rooms in enumerate(LEVELS) for room in rooms}
TASKS = LEVELS[-2]
# Arrows up that are followed inside functions alone: results draw, a model prepares photographs,
# and a WordNet id is looked up.
TOGETHER = {("results", "plotting"), ("types", "data"), ("checks", "data"), ("types", "models")}
TOGETHER |= {("gate", "engine")}


def modules():
    return sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def name(path):
    return str(path.relative_to(ROOT))


def room(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path):
    """The rooms that a module imports, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "rvis":
            parts = node.module.split(".")
            yield from [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("rvis."))


@pytest.mark.parametrize("path", modules(), ids=name)
def test_imports_point_down(path):
    here = room(path)
    for other in imported(path):
        if other != here and (here, other) not in TOGETHER:
            assert other in LEVEL, f"{name(path)} imports rvis.{other}, which has no place"
            assert LEVEL[other] <= LEVEL[here], f"{name(path)} imports rvis.{other}: an arrow up"
            assert here not in TASKS or other not in TASKS, f"{name(path)} imports a task: {other}"


def test_every_room_has_a_place():
    rooms = {room(path) for path in modules()}
    assert rooms == set(LEVEL)


@pytest.mark.parametrize("path", modules(), ids=name)
def test_no_file_outgrows_its_room(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 450
    assert ast.get_docstring(ast.parse(text)), "it does not say what the room is for"


LINES = 42_562
"""What there is. The aim is 26,000: lower it with every deletion."""


def test_the_house_grows_no_further():
    assert sum(path.read_text(encoding="utf-8").count("\n") for path in modules()) <= LINES


def uses(pattern):
    found = {}
    for path in modules():
        count = len(re.findall(pattern, path.read_text(encoding="utf-8")))
        if count:
            found[name(path)] = count
    return found


def test_the_engine_and_the_kernels_alone_know_the_machine():
    word = r"\b(default_backend|local_devices|ThreadPoolExecutor|local_device_count)\b"
    assert {found.split("/")[0] for found in uses(word)} <= {"engine", "kernels"}


@pytest.mark.parametrize("word", [r"\bparallel_map\(", r"\btqdm\("])
def test_the_engine_alone_runs_and_shows_work(word):
    assert set(uses(word)) <= ALLOWED[word] | {"engine/queue.py", "kernels/threads.py"}


ALLOWED = {
    r"\bparallel_map\(": set(),
    # Epochs and downloads are no steps of examples.
    r"\btqdm\(": {"training/loop.py"},
}

# Loops outside the engine, each with the reason why it is no loop over steps of examples.
LOOPS = {
    "attacks/geometry.py": "the root of an equation of one number",
    "ascent/tiles.py": "the tiles of one image, whose gradients are added up",
    "concepts/factors.py": "the alternating updates of a factorization",
    "evolve/cppn.py": "the nodes of one graph, which fire one after another",
    "ascent/lbfgs.py": "the two-loop recursion over remembered differences",
    "models/interpret.py": "the loops of somebody's own function",
    "style/tiles.py": "the windows of one picture, whose Gram matrices are added up",
}


def test_loops_over_steps_are_the_engines():
    found = uses(r"\blax\.(scan|fori_loop|while_loop)\(")
    outside = {path for path in found if path.split("/")[0] not in ("engine", "kernels")}
    assert outside == set(LOOPS)
    assert len(LOOPS) <= 10
