"""Every public function refuses by name what its arguments cannot be, before anything compiles."""

from __future__ import annotations

import random

import pytest

import rvis
from rvis import Model, checks, gate
from scripts import fuzz
from tests.test_grammar import EVERY, name

SEED, CALLS = 0, 2000


def test_two_thousand_wrong_calls_are_refused_by_name_and_compile_nothing():
    chosen = [each for each in fuzz.attempts() if not fuzz.is_fair(each)]
    random.Random(SEED).shuffle(chosen)
    with fuzz.elsewhere():
        found = [fuzz.tried(each) for each in chosen[:CALLS]]
    assert len(found) == CALLS
    assert [each for each in found if each.verdict != "refused"] == []


def test_every_argument_of_every_function_has_a_kind_and_a_right_value():
    """Where it fails for a function of yours: say in scripts/fuzz/ what is right and wrong."""
    for title, function in fuzz.functions().items():
        fuzz.right(title)
        for argument in fuzz.parameters(function):
            if f"{title}.{argument}" not in fuzz.LEFT:
                assert fuzz.kind(title, argument) in fuzz.WRONG, f"{title}: {argument}"


def test_every_public_function_is_tried():
    tried = set(fuzz.functions().values())
    left = {name(function) for function in EVERY if function not in tried}
    assert {each for each in left if not each.startswith("engine.")} <= set(INSIDE) | NOTHING


def test_the_exceptions_are_there():
    """A fair value, or a kind of its own, that no call meets is one too many."""
    met = {
        key
        for each in fuzz.attempts()
        for key in ((each.argument, each.value), tuple(each))
        if key in fuzz.FAIR
    }
    assert set(fuzz.FAIR) == met
    names = {f"{t}.{a}" for t, f in fuzz.functions().items() for a in fuzz.parameters(f)}
    assert set(fuzz.OTHERWISE) <= names


NOTHING = {"clip.load.list_clips", "models.registry.list_models"}
"""They take nothing."""
INSIDE = (
    "types.layer_shapes",
    "objectives.base.check",
    "objectives.targets.target",
    "transforms.views.apply",
    "transforms.views.draws",
    "transforms.views.frame",
)
"""What other functions call, and programs trace, or stands below the gate."""


@pytest.mark.parametrize("function", EVERY, ids=name)
def test_a_public_function_is_gated(function):
    gated = hasattr(function, "__wrapped__")
    if name(function) in (*INSIDE, *NOTHING):
        assert not gated, "an exception too many"
    elif not name(function).startswith("engine."):  # what algorithms are built of
        assert gated


def test_what_an_argument_is_annotated_with_decides_before_its_name():
    def draw(model: Model, alpha: bool, steps: int, pad: int, layer: str, labels: int | None):
        return None

    found = gate.kinds(draw)
    assert found["alpha"] is checks.flag and found["layer"] is checks.text
    assert found["model"] is gate.KINDS["model"] and found["steps"] is checks.count
    assert found["pad"] is found["labels"] is gate.TYPES["int"]
    with pytest.raises(ValueError, match="^steps: at least 1"):
        gate.public(draw)(steps=0)


def test_none_passes_where_it_is_the_default_or_among_the_types():
    with pytest.raises(TypeError, match="^chunk: an int was expected"):
        rvis.visualize(rvis.load("mnist_cnn", weights="random"), 3, chunk="x")
    with pytest.raises(TypeError, match="^key: an int seed"):
        rvis.visualize(rvis.load("mnist_cnn", weights="random"), 3, key=None)
    with pytest.raises(TypeError, match="^first: an array of numbers was expected"):
        rvis.analysis.metrics.spearman(None, [[1.0, 2.0]])
    assert rvis.layer_shapes(rvis.load("mnist_cnn", weights="random"), None)

    def tolerant(tol: float | None = 0.1):
        return tol

    assert gate.public(tolerant)(None) is None


def test_what_stands_without_its_name_is_checked_too():
    with pytest.raises(TypeError, match="^first: real numbers were expected"):
        rvis.analysis.metrics.spearman([[1j, 2.0]], [[1.0, 2.0]])


def test_what_is_infinite_as_float32_is_refused():
    with pytest.raises(ValueError, match="^second: finite numbers were expected"):
        rvis.analysis.metrics.spearman([[1.0, 2.0]], [[1e300, 2.0]])


def test_names_and_documentation_stay():
    assert rvis.visualize.__name__ == "visualize" and "Args:" in rvis.visualize.__doc__


def test_an_unknown_option_is_named_with_the_function_that_was_called():
    with pytest.raises(TypeError, match=r"^pgd\(\) got an unexpected keyword argument 'bogus'$"):
        rvis.attacks.pgd(rvis.load("mnist_cnn", weights="random"), None, 0, bogus=1)
