"""A function of two compiled forms behaves as one of `jax.jit`."""

import copy
import itertools
import pickle
import threading
import time

import jax
import jax.numpy as jnp
import pytest

from rvis import core
from rvis.compilation import abreast, jit, merged


@jit
def double(x):
    return 2 * x


def test_alone_it_is_compiled_once():
    double.clear_cache()
    assert [float(double(jnp.float32(x))) for x in (1, 2)] == [2, 4]
    assert double._cache_size() == 1


@pytest.mark.skipif(
    not hasattr(double, "_plain") or jax.default_backend() != "cpu",
    reason="one form with this jaxlib, or on this device",
)
@pytest.mark.parametrize(("cores", "form"), [(1, "_plain"), (2, "_outermost")])
def test_the_cores_choose_the_form(monkeypatch, cores, form):
    monkeypatch.setattr("rvis.compilation.cores", lambda: cores)
    double.clear_cache()
    double(jnp.float32(1))
    assert getattr(double, form)._cache_size() == 1


def closure(x):
    """Of one argument that nobody traces, and a number that somebody may."""
    return jit(lambda y: x * y)(jnp.float32(3))


INSIDE = {
    "jit": lambda: jax.jit(lambda x: double(x) + double(2.0))(1.0),
    "grad": lambda: 3 * jax.grad(double)(1.0),
    "vmap": lambda: jax.vmap(double)(jnp.full(2, 3.0))[0],
    "scan": lambda: jax.lax.scan(lambda x, _: (double(x) + 2, None), 2.0, None, length=1)[0],
    "a closure, grad": lambda: 2 * jax.grad(closure)(1.0),
    "a closure, jvp": lambda: 2 * jax.jvp(closure, (1.0,), (1.0,))[1],
    "a closure, jit": lambda: jax.jit(closure)(2.0),
}


@pytest.mark.parametrize("inside", INSIDE.values(), ids=INSIDE)
def test_it_may_stand_in_other_transformations(inside):
    assert float(inside()) == 6


def test_it_is_pickled_by_name():
    assert pickle.loads(pickle.dumps(core.run)) is core.run
    assert copy.deepcopy(core.run) is core.run


@pytest.mark.parametrize("cores", [1, 2])
@pytest.mark.parametrize("items", [1, 3])
def test_work_abreast_is_of_one_form_and_in_order(monkeypatch, cores, items):
    monkeypatch.setattr("rvis.compilation.cores", lambda: cores)
    double.clear_cache()
    made = abreast(lambda x: float(double(jnp.float32(x))), range(items))
    assert made == [2 * x for x in range(items)]
    assert getattr(double, "_plain", double)._cache_size() == 1 == double._cache_size()


def test_work_abreast_runs_side_by_side(monkeypatch):
    monkeypatch.setattr("rvis.compilation.cores", lambda: 2)
    if jax.default_backend() == "cpu":
        meet = threading.Barrier(2, timeout=10)
        assert len(abreast(lambda _: meet.wait(), range(2))) == 2


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
def test_work_abreast_stays_under_a_context_of_jax(monkeypatch, within):
    monkeypatch.setattr("rvis.compilation.cores", lambda: 2)
    with within():
        threads = abreast(lambda _: threading.current_thread(), range(2))
    assert set(threads) == {threading.main_thread()}


@pytest.mark.parametrize("cores", [1, 2])
def test_an_error_in_work_abreast_is_raised_and_leaves_nothing(monkeypatch, cores):
    monkeypatch.setattr("rvis.compilation.cores", lambda: cores)
    with pytest.raises(ZeroDivisionError):
        abreast(lambda x: 1 / x, [1, 0, 2])
    monkeypatch.setattr("rvis.compilation.cores", lambda: 2)
    double.clear_cache()
    double(jnp.float32(1))
    if jax.default_backend() == "cpu":
        assert getattr(double, "_outermost", double)._cache_size() == 1


def counted(first: int, count: int):
    """Numbers, each through a compiled program."""
    for i in range(first, first + count):
        yield int(double(jnp.float32(i))) // 2


@pytest.mark.parametrize("cores", [1, 2, 3])
def test_merged_gives_all_in_the_order_of_each(monkeypatch, cores):
    monkeypatch.setattr("rvis.compilation.cores", lambda: cores)
    double.clear_cache()
    found = list(merged([counted(0, 5), counted(10, 2), counted(20, 0)]))
    assert sorted(found) == [0, 1, 2, 3, 4, 10, 11]
    assert [i for i in found if i < 10] == [0, 1, 2, 3, 4]
    assert getattr(double, "_plain", double)._cache_size() == 1 == double._cache_size()


@pytest.mark.parametrize("cores", [1, 2])
def test_an_error_in_a_merged_source_is_raised_and_ends_the_others(monkeypatch, cores):
    monkeypatch.setattr("rvis.compilation.cores", lambda: cores)
    given = []

    def endless():
        while True:
            given.append(1)
            yield 0

    def failing():
        yield 0
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(merged([failing(), endless()]))
    before = len(given)
    time.sleep(0.05)
    assert len(given) == before


@pytest.mark.parametrize("cores", [1, 2])
def test_who_stops_reading_stops_the_sources(monkeypatch, cores):
    monkeypatch.setattr("rvis.compilation.cores", lambda: cores)
    source = merged([itertools.count(), itertools.count()])
    assert next(source) == 0
    threads = threading.active_count()
    source.close()
    assert threading.active_count() <= threads - (cores > 1 and jax.default_backend() == "cpu")
