"""Many calls in one process, in threads, and in another process with four devices."""

from __future__ import annotations

import concurrent.futures
import gc
import multiprocessing
import os
import threading
import tracemalloc

import jax
import numpy as np
import pytest

import rvis
from rvis import attacks, attribution, objectives, transforms
from rvis.engine import programs, queue
from tests import toys
from tests.engine.test_queue import count

MODEL = toys.pointwise()
QUIET = {"progress": False}
LAYER = objectives.layer("relu")


def drawn(number):
    return np.random.default_rng(0).random((1 + number % 2, 6, 8, 3), dtype=np.float32)


def attacked(number):
    return attacks.pgd(MODEL, drawn(number), 1, eps=0.1, norm="l2", steps=2, **QUIET).images


def calls(number):
    """Results of an attack, an explanation and a picture whose sizes depend on the number."""
    images, side = drawn(number), 6 + number % 2
    return (
        attacked(number),
        attribution.smoothgrad(MODEL, images, 0, samples=2, **QUIET).maps,
        rvis.visualize(
            MODEL, LAYER, size=side, steps=2, transforms=(transforms.Jitter(1),), **QUIET
        ).images,
    )


@pytest.mark.parametrize("count", [100, pytest.param(200, marks=pytest.mark.slow)])
def test_calls_leave_nothing_behind(count):
    shapes = 2
    for number in range(2 * shapes):
        calls(number)
    gc.collect()
    compiled, arrays = programs.advance._cache_size(), len(jax.live_arrays())
    tracemalloc.start()
    try:
        for number in range(2 * shapes):
            calls(number)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(count // 3):
            calls(number)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert programs.advance._cache_size() == compiled
    assert len(jax.live_arrays()) <= arrays
    assert grown < 500 * count  # a picture that each call left behind would be 19,200 bytes alone


def test_four_threads_give_what_one_gives():
    alone = calls(1)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for found in pool.map(calls, [1] * 4):
            for one, other in zip(found, alone, strict=True):
                np.testing.assert_array_equal(one, other)


def there(number):
    """What a process of its own finds."""
    return jax.device_count(), attacked(number)


@pytest.fixture
def elsewhere(monkeypatch):
    """A pool of one process, which has four devices."""
    flags = os.environ.get("XLA_FLAGS", "")
    monkeypatch.setenv("XLA_FLAGS", f"{flags} --xla_force_host_platform_device_count=4")
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        yield pool


def test_a_process_that_is_spawned_works_on_four_devices(elsewhere):
    devices, found = elsewhere.submit(there, 2).result(timeout=100)
    assert devices == 4
    np.testing.assert_allclose(found, attacked(2), rtol=1e-3, atol=1e-5)


def met():
    """Sums of eight examples on four devices, each program's results taken where both have some."""
    meeting, leave = threading.Barrier(2, timeout=60), queue.Group.leave

    def together(self, leaving, stopped):
        if len(leaving):
            meeting.wait()
        return leave(self, leaving, stopped)

    queue.Group.leave = together  # in a process of its own
    return count(rows=slice(8), pixels=2**16, widest=1).result["sum"]


def test_two_programs_take_turns_on_other_devices(elsewhere):
    here = count(rows=slice(8)).result["sum"]
    np.testing.assert_allclose(elsewhere.submit(met).result(timeout=100), here, rtol=1e-6)
