"""Every public function refuses by name what its arguments cannot be, from one table of kinds."""

from __future__ import annotations

import inspect
import types

import numpy as np
import pytest

import rvis
from rvis import gate
from tests.test_grammar import EVERY, keywords, name

WRONG = {
    "model": [None, "mnist_cnn", 3, types, len, np.zeros(3)],
    "progress": [None, "yes", 1, np.ones(3)],
    "steps": [0, -1, 1.5, float("nan"), "x", True, 2**31, 10**400, [1], object()],
    "key": [None, "x", 1.5, 2**70, True, object(), np.zeros(3)],
    "callback": [3, "x", np.zeros(3)],
    "checkpoint": [3, object(), ["a"], "a\0b", np.zeros(3), f"{__file__}/inside"],
    "snapshots": ["x", 3, [-1], [0.5]],
    "transforms": ["x", 3, [3], object()],
    "dataset": [None, "x", np.zeros((2, 8, 8, 3))],
    "maps": ["x", object(), [[1.0], [2.0, 3.0]], np.array(["a"]), np.zeros(3, complex)],
    "layer": [3, object(), [3], np.zeros(3)],
    "clip": [None, "scenes", 3, types, len, np.zeros(3)],
    "texts": [3, object(), "\ud800", ["a", 3]],
}
"""Of each kind one name, and what is wrong for it."""


def wrong(argument):
    (values,) = [
        values for name, values in WRONG.items() if gate.KINDS[name] is gate.KINDS[argument]
    ]
    return values


GATED = [function for function in EVERY if hasattr(function, "__wrapped__")]
CASES = [
    (function, argument)
    for function in GATED
    for argument in (*inspect.signature(function).parameters, *keywords(function))
    if argument in gate.KINDS
]


@pytest.mark.parametrize(
    ("function", "argument"),
    dict.fromkeys(CASES),
    ids=lambda x: x if isinstance(x, str) else name(x),
)
def test_what_cannot_be_is_refused_before_anything_else(function, argument):
    for value in wrong(argument):
        if value is not None:
            with pytest.raises((TypeError, ValueError, OSError), match=f"^{argument}: "):
                function(**{argument: value})


def test_all_of_the_table_is_tried():
    assert set(gate.KINDS) - {argument for _, argument in CASES} == set()


BELOW = ("types", "engine", "plotting", "data")
"""Rooms that the gate stands on."""
INSIDE = (
    "objectives.base.check",
    "objectives.targets.target",
    "post_step.apply",
    "transforms.views.apply",
    "transforms.views.draws",
    "transforms.views.frame",
    # A game may stand in a model's place.
    "attribution.shapley.shapley",
    "attribution.shapley.shapley_sampling",
    "attribution.regression.kernel_shap",
    "attribution.regression.lime",
    "attribution.regression.shapley_interactions",
)
"""What other functions call, and programs trace; and what takes more than the gate knows."""


@pytest.mark.parametrize("function", EVERY, ids=name)
def test_a_public_function_with_such_arguments_is_gated(function):
    if function.__module__.split(".")[1] in BELOW or name(function) in INSIDE:
        pytest.skip("its checks are its own")
    arguments = {*inspect.signature(function).parameters, *keywords(function)} & set(gate.KINDS)
    assert not arguments or hasattr(function, "__wrapped__"), arguments


def test_none_passes_where_it_is_the_default():
    with pytest.raises(TypeError, match="^chunk: an int was expected"):
        rvis.visualize(rvis.load("mnist_cnn", weights="random"), 3, chunk="x")
    with pytest.raises(TypeError, match="^key: an int seed"):
        rvis.visualize(rvis.load("mnist_cnn", weights="random"), 3, key=None)
    with pytest.raises(TypeError, match="^first: an array of numbers was expected"):
        rvis.analysis.metrics.spearman(None, [[1.0, 2.0]])
    assert rvis.layer_shapes(rvis.load("mnist_cnn", weights="random"), None)


def test_what_stands_without_its_name_is_checked_too():
    with pytest.raises(TypeError, match="^first: real numbers were expected"):
        rvis.analysis.metrics.spearman([[1j, 2.0]], [[1.0, 2.0]])


def test_names_and_documentation_stay():
    assert rvis.visualize.__name__ == "visualize" and "Args:" in rvis.visualize.__doc__
