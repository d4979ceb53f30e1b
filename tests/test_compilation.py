"""A function of two compiled forms behaves as one of `jax.jit`."""

import copy
import pickle

import jax
import jax.numpy as jnp
import pytest

from rvis import core
from rvis.compilation import jit


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
