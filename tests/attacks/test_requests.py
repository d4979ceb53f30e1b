"""What every attack refuses before it compiles, from one table."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from rvis import attacks
from tests import toys
from tests.attacks import small

NEEDED = {
    "eps": 0.1,
    "size": 2,
    "sigma": 0.1,
    "epsilons": (0.1,),
    "high": 0.1,
    "attack": attacks.pgd,
    "target": 0,
}
EVERY = [
    function
    for function in (getattr(attacks, name) for name in attacks.__all__)
    if inspect.isfunction(function) and "model" in inspect.signature(function).parameters
]


def call(function, model, **changed):
    """A call on three images with the least that the function needs."""
    given = {"images": small.images(3)[0], "labels": 0, **NEEDED}
    parameters = inspect.signature(function).parameters
    needed = {
        name: given[name]
        for name, parameter in parameters.items()
        if name in given and parameter.default is inspect.Parameter.empty
    }
    return function(model, **{**needed, **changed}, progress=False)


def test_all_attacks_are_tried():
    assert len(EVERY) >= 21


@pytest.mark.parametrize("function", EVERY, ids=lambda f: f.__name__)
def test_a_network_of_one_logit_is_refused_with_what_serves(function):
    one = toys.linear(np.ones((np.prod(small.SHAPE), 1)), small.SHAPE)
    with pytest.raises(ValueError, match="^model: two classes or more .* make two of it"):
        call(function, one)


LABELLED = [f for f in EVERY if "labels" in inspect.signature(f).parameters]


@pytest.mark.parametrize("function", LABELLED, ids=lambda f: f.__name__)
@pytest.mark.parametrize("labels", [[0], [0, 1], "nothing", 5, -1, 0.5, None])
def test_labels_are_one_class_or_one_for_each_image(function, labels):
    with pytest.raises((TypeError, ValueError), match="^labels: "):
        call(function, small.network(), labels=labels)


TARGETED = [f for f in LABELLED if "target" in inspect.signature(f).parameters]


@pytest.mark.parametrize("function", TARGETED, ids=lambda f: f.__name__)
@pytest.mark.parametrize("target", [[0], "nothing", 5])
def test_a_target_is_one_class_or_one_for_each_image(function, target):
    with pytest.raises((TypeError, ValueError), match="^target: "):
        call(function, small.network(), target=target)
