"""Work on several cores at once gives what it gives in turn."""

import threading

import jax
import jax.numpy as jnp
import pytest

from rvis import kernels
from rvis.kernels.threads import parallel_map


@jax.jit
def double(x):
    return 2 * x


@pytest.mark.parametrize("cores", [1, 2])
@pytest.mark.parametrize("items", [1, 3])
def test_results_are_in_order(monkeypatch, cores, items):
    monkeypatch.setattr("rvis.kernels.threads.cores", lambda: cores)
    made = parallel_map(lambda x: float(double(jnp.float32(x))), range(items))
    assert made == [2 * x for x in range(items)]


@pytest.mark.parametrize("stock", [True, False])
def test_threads_know_the_switch(monkeypatch, stock):
    monkeypatch.setattr("rvis.kernels.threads.cores", lambda: 2)
    with kernels.stock(stock):
        assert parallel_map(lambda _: kernels.enabled(), range(2)) == [not stock] * 2


def test_two_items_run_at_once(monkeypatch):
    monkeypatch.setattr("rvis.kernels.threads.cores", lambda: 2)
    if jax.default_backend() == "cpu":
        meet = threading.Barrier(2, timeout=10)
        assert len(parallel_map(lambda _: meet.wait(), range(2))) == 2


@pytest.mark.parametrize(
    "within",
    [
        lambda: jax.enable_x64(True),
        lambda: jax.debug_nans(True),
        lambda: jax.debug_infs(True),
        lambda: jax.threefry_partitionable(False),
        lambda: jax.default_device(jax.devices()[0]),
        lambda: jax.set_mesh(jax.make_mesh((1,), ("a",))),
    ],
    ids=["x64", "nans", "infs", "threefry", "device", "mesh"],
)
def test_work_stays_under_a_context_of_jax(monkeypatch, within):
    monkeypatch.setattr("rvis.kernels.threads.cores", lambda: 2)
    with within():
        threads = parallel_map(lambda _: threading.current_thread(), range(2))
    assert set(threads) == {threading.main_thread()}


@pytest.mark.parametrize("cores", [1, 2])
def test_an_error_in_one_item_is_raised(monkeypatch, cores):
    monkeypatch.setattr("rvis.kernels.threads.cores", lambda: cores)
    with pytest.raises(ZeroDivisionError):
        parallel_map(lambda x: 1 / x, [1, 0, 2])
