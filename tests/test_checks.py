"""Every refusal names the argument, what was given and what would be right."""

from __future__ import annotations

import jax
import jax.numpy as jnp
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


@pytest.mark.parametrize("fill", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_one_number_that_is_not_finite_among_many_is_refused(fill, kind, dtype):
    # XLA:CPU drops NaN in a minimum over so many.
    many = kind(jnp.full((2, 48, 48, 3), 0.5, dtype).at[1, 40, 3, 2].set(fill))
    with pytest.raises(ValueError, match="images: values in .* were expected, given NaN"):
        checks.images("images", many)
    with pytest.raises(ValueError, match="images: values in .* were expected, given NaN"):
        checks.images("images", kind(jnp.full((2, 48, 48, 3), fill, dtype)))


def test_images_inside_a_jitted_function_of_the_users():
    held = jnp.full((1, 4, 4, 3), 0.5)

    @jax.jit
    def closing_over_one(scale):
        return checks.images("images", held).sum() * scale

    assert float(closing_over_one(2.0)) == 48
    assert jax.jit(lambda x: checks.images("images", x))(held).shape == held.shape
    broken = held.at[0, 0, 0, 0].set(np.nan)
    with pytest.raises(ValueError, match="images: values in"):
        jax.jit(lambda scale: checks.images("images", broken) * scale)(2.0)


@pytest.mark.parametrize("given", [None, object(), "picture", [[1.0], [1.0, 2.0]], {}])
def test_what_is_no_array_is_refused_by_name(given):
    with pytest.raises(TypeError, match="images: an array"):
        checks.images("images", given)
    with pytest.raises(TypeError, match="unit: integers were expected"):
        checks.integers("unit", given)
    with pytest.raises(TypeError, match="rate: a number was expected"):
        checks.number("rate", given)
    with pytest.raises(TypeError, match="steps: an int was expected"):
        checks.count("steps", given)


@pytest.mark.parametrize("given", [2**32 + 3, 2**31, 2**70, -1])
def test_integers_do_not_wrap(given):
    for value in (given, [0, given]):
        with pytest.raises(ValueError, match=f"unit: 0 to .* were expected, given {given}"):
            checks.integers("unit", value)


@pytest.mark.parametrize("given", [2**31, 10**400])
def test_counts_and_numbers_have_an_end(given):
    with pytest.raises(ValueError, match="steps: less than"):
        checks.count("steps", given)
    with pytest.raises(ValueError, match="rate: a number in"):
        checks.number("rate", given, high=1)


def test_text_that_no_file_could_hold():
    assert checks.text("name", "ä") == "ä"
    with pytest.raises(ValueError, match=r"name: text was expected, given '\\ud800'"):
        checks.text("name", "\ud800")
    with pytest.raises(TypeError, match="name: a str was expected, given 3"):
        checks.text("name", 3)


def test_images_become_float32_batches():
    assert checks.images("images", np.zeros((5, 4, 3))).dtype == np.float32
    assert checks.images("images", np.zeros((5, 4, 3))).shape == (1, 5, 4, 3)


@pytest.mark.parametrize(
    "given", [None, object(), 1.5, [0.5], True, [True], [[1], [0, 1]], {"a": 1}, jnp.ones(2)]
)
def test_what_is_no_class_is_named(given):
    with pytest.raises(TypeError, match="target: a class number or name, or a list of them"):
        checks.classes("target", given, ("a", "b"), count=2)


@pytest.mark.parametrize("given", [2, 2**70, [0, -1], np.int64(2**32)])
def test_a_class_out_of_range_is_named(given):
    with pytest.raises(ValueError, match="target: 0 to 1 of the logits were expected, given"):
        checks.classes("target", given, ("a", "b"), count=2)


def test_classes_by_number_and_name():
    names = ("ant", "bee", "cow")
    for given in (["cow", 0], ("cow", np.int32(0)), np.array(["cow", "ant"]), jnp.array([2, 0])):
        assert checks.classes("target", given, names, count=3).tolist() == [2, 0]
    assert checks.classes("target", "bee", names, count=3).shape == ()
    assert checks.classes("target", range(2), names, count=3).tolist() == [0, 1]
    assert checks.classes("target", [["ant"], ["bee"]], names, count=3).shape == (2, 1)
