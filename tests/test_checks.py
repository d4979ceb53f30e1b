"""Every refusal names the argument, what was given and what would be right."""

from __future__ import annotations

import numpy as np
import pytest

from rvis import checks


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ("mixed4", ["mixed4a", "mixed4b", "conv"], "did you mean .*'mixed4a'"),
        ("RELU1_1", ["relu1_1", "pool"], "did you mean 'relu1_1'"),
        ("zzz", ["a", "b"], "it can be one of 'a', 'b'"),
        (3, ["a"], "it can be one of 'a'"),
    ],
)
def test_choice_offers_the_nearest(given, options, message):
    with pytest.raises(ValueError, match=f"name: unknown .*; {message}"):
        checks.choice("name", given, options)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (float("nan"), ValueError, "rate: a number in"),
        (-1, ValueError, r"rate: a number in \[0, inf\] was expected, given -1"),
        ("1", TypeError, "rate: a number was expected, given '1'"),
        (True, TypeError, "rate: a number"),
        (None, TypeError, "rate: a number"),
    ],
)
def test_number(value, error, message):
    with pytest.raises(error, match=message):
        checks.number("rate", value, low=0)


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (1.0, TypeError), (True, TypeError)])
def test_count(value, error):
    with pytest.raises(error, match="steps: "):
        checks.count("steps", value)


def test_integers_name_the_one_that_is_wrong():
    with pytest.raises(ValueError, match="unit: 0 to 7 of layer 'a' were expected, given 9"):
        checks.integers("unit", [1, 9, 2], high=8, what="layer 'a'")


def test_images_of_another_size():
    with pytest.raises(ValueError, match=r"start: \(4, 4, 3\) an image was expected"):
        checks.images("start", np.zeros((2, 5, 4, 3), np.float32), shape=(4, 4, 3))


def test_images_become_float32_batches():
    assert checks.images("images", np.zeros((5, 4, 3))).dtype == np.float32
    assert checks.images("images", np.zeros((5, 4, 3))).shape == (1, 5, 4, 3)
