"""Programs as wide as a device's memory holds; the memory is simulated."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from rvis import engine, struct
from rvis.engine import memory, programs, queue
from tests.engine.test_queue import Counting, count


@struct.dataclass
class Wide:
    """Its state has 2^15 numbers, 128 KB."""

    def init(self, key, start):
        return jax.random.normal(key, (2**15,), "float32")

    def step(self, key, state, model, problem):
        return 2 * state, state.sum()

    def finish(self, state, model, problem):
        return state[:3]


def run(number=9, **options):
    keys = jax.random.split(jax.random.key(0), number)
    return engine.run(
        Wide(), None, np.zeros(number), keys, steps=2, pixels=2**20, progress=False, **options
    )


@pytest.fixture
def widths(monkeypatch):
    """The widths of the programs that were run."""
    seen = []
    advance = queue.Group.advance

    def noted(self):
        seen.append(self.work.policy.width)
        return advance(self)

    monkeypatch.setattr(queue.Group, "advance", noted)
    return seen


@pytest.mark.parametrize(("kilobytes", "most"), [(192, 1), (1280, 8), (128000, 16)])
def test_a_program_is_as_wide_as_fits(monkeypatch, widths, kilobytes, most):
    expected = run().result
    widths.clear()
    monkeypatch.setattr(memory, "free", lambda: kilobytes * 2**10)
    result = run().result
    (width,) = set(widths)
    assert width & (width - 1) == 0 and width <= most, "a power of two, not beyond the examples"
    np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_twice_as_wide_would_not_fit(monkeypatch, widths):
    monkeypatch.setattr("rvis.kernels.threads.cores", lambda: 2)
    monkeypatch.setattr(memory, "free", lambda: 3200 * 2**10)
    run(64)
    (width,) = set(widths)
    taken = [programs.advance.lower(*a, **k).compile().memory_analysis() for a, k in shapes(width)]
    # One program computes while another holds its state.
    bytes_ = [
        2 * (n.argument_size_in_bytes + n.output_size_in_bytes - n.alias_size_in_bytes)
        + n.temp_size_in_bytes
        for n in taken
    ]
    assert bytes_[0] <= 2560 * 2**10 < bytes_[1]


def shapes(width):
    """The arguments of the programs of that width and of twice that."""
    for each in (width, 2 * width):
        keys = np.zeros((each, 2), np.uint32)
        state = jax.ShapeDtypeStruct((each, 2**15), "float32")
        arguments = Wide(), keys, np.zeros(each, np.int32), state, None, np.zeros(each)
        options = {"implementation": "threefry2x32", "width": each, "piece": 2, "mesh": None}
        yield (*arguments, np.int32(1), np.int32(1)), options


@pytest.mark.parametrize("holds", [1, 2])
def test_a_full_memory_halves_the_width_and_goes_on(monkeypatch, widths, holds):
    expected = count(Counting(), pixels=64).result["sum"]
    assert widths[-1] > holds
    advance = queue.Group.advance

    def full(self):
        if self.work.policy.width > holds:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating")
        return advance(self)

    monkeypatch.setattr(queue.Group, "advance", full)
    widths.clear()
    result = count(Counting(), pixels=64).result["sum"]
    assert widths[-1] == holds
    np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_what_does_not_fit_alone_is_an_error(monkeypatch):
    def full(self):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating")

    monkeypatch.setattr(queue.Group, "advance", full)
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
        count(Counting(), pixels=64)
