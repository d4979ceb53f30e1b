"""The compiled programs that every run is made of: begin, refill, advance, finish."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from rvis.engine.algorithm import Algorithm
from rvis.types import Array, Model, PyTree

_Slots = tuple[PyTree, Array, PyTree, Array]
"""Of slots: their states, the steps that they made, what these told, and who is done."""


def _spread(mesh: Mesh | None, dealt: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, each device with its share of the slots of the first `dealt` arguments."""
    if mesh is None:
        return function
    share, whole = PartitionSpec(*mesh.axis_names), PartitionSpec()

    def spread(*arguments: Any) -> Any:
        # Examples never talk to one another: each device runs the program that one would alone.
        specs = tuple(share if i < dealt else whole for i in range(len(arguments)))
        return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=share, check_vma=False)(
            *arguments
        )

    return spread


@partial(jax.jit, static_argnames=("implementation", "apart"))
def begin(
    algorithm: Algorithm, keys: Array, starts: PyTree, *, implementation: str, apart: bool = False
) -> PyTree:
    """The first states of all slots; `apart` for one after another, see `Policy`."""
    keys = jax.random.wrap_key_data(keys, impl=implementation)
    if apart:
        return lax.map(lambda each: algorithm.init(*each), (keys, starts))
    return jax.vmap(algorithm.init, (0, None if starts is None else 0))(keys, starts)


@partial(jax.jit, donate_argnames="old")
def refill(fresh: Array, new: PyTree, old: PyTree) -> PyTree:
    """Rows of `new` where fresh, else those of `old`."""

    def rows(a: Array, b: Array) -> Array:
        return jnp.where(fresh.reshape(-1, *(1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(rows, new, old)


@partial(
    jax.jit,
    static_argnames=("implementation", "width", "piece", "mesh"),
    donate_argnames="state",
)
def advance(
    algorithm: Any,
    keys: Array,
    made: Array,
    state: PyTree,
    model: Model,
    problems: Any,
    steps: Array,
    busy: Array,
    *,
    implementation: str,
    width: int,
    piece: int,
    mesh: Mesh | None,
) -> _Slots:
    """All slots `steps` steps further, of at most `piece`.

    Args:
      algorithm: see `Algorithm`.
      keys: of the slots' examples, as numbers.
      made: steps that each has made.
      state: theirs; donated.
      model: shared by all.
      problems: theirs.
      steps: how many; traced, as is
      busy: how many groups of slots there are examples in.
      implementation: of the keys.
      width: slots in a group, computed side by side.
      piece: room for what steps tell, leaves of shape (slots, piece, …).
      mesh: see `Policy`.
    """
    stops = hasattr(algorithm, "done")

    def rows(keys: Array, made: Array, state: PyTree, problems: Any, shared: PyTree) -> _Slots:
        algorithm, model, steps, busy = shared

        def once(key: Array, made: Array, state: PyTree, problem: Any) -> tuple[PyTree, PyTree]:
            key = jax.random.fold_in(jax.random.wrap_key_data(key, impl=implementation), made)
            return algorithm.step(key, state, model, problem)

        # Traced once for the shapes of what a step tells, and for the steps.
        once = jax.jit(once)
        first = jax.tree.map(lambda leaf: leaf[0], (keys, made, state, problems))
        _, info = jax.eval_shape(once, *first)
        blank = jax.tree.map(lambda leaf: jnp.zeros((piece, *leaf.shape), leaf.dtype), info)

        def ended(state: PyTree, some: Array) -> Array:
            return jax.vmap(algorithm.done)(state) if stops else jnp.zeros(len(some), bool)

        def together(keys: Array, made: Array, state: PyTree, problems: Any) -> _Slots:
            """One group; it ends its piece where all of its examples are done."""

            def unfinished(carried: tuple[Any, ...]) -> Array:
                i, _, _, _, done = carried
                return (i < steps) & ~done.all()

            def body(carried: tuple[Any, ...]) -> tuple[Any, ...]:
                i, state, made, info, done = carried

                def example(
                    key: Array, made: Array, state: PyTree, problem: Any, done: Array
                ) -> tuple[PyTree, PyTree]:
                    following, told = once(key, made, state, problem)
                    if stops:
                        following = jax.tree.map(partial(jnp.where, done), state, following)
                    return following, told

                state, told = jax.vmap(example)(keys, made, state, problems, done)
                info = jax.tree.map(lambda all_, one: all_.at[:, i].set(one), info, told)
                made = made + (~done).astype(made.dtype)
                return i + 1, state, made, info, ended(state, made)

            told = jax.tree.map(lambda leaf: jnp.zeros((len(keys), *leaf.shape), leaf.dtype), blank)
            start = jnp.zeros_like(steps), state, made, told, ended(state, made)
            # A loop of one round would be compiled as a loop.
            _, *slots = body(start) if piece == 1 else lax.while_loop(unfinished, body, start)
            return tuple(slots)  # type: ignore[return-value]

        groups = keys.shape[0] // width
        if groups == 1:
            return together(keys, made, state, problems)

        def group(i: Array, carried: _Slots) -> _Slots:
            def some(tree: PyTree) -> PyTree:
                cut = partial(lax.dynamic_slice_in_dim, slice_size=width)
                return jax.tree.map(lambda leaf: cut(leaf, i * width), tree)

            state, made, _, _ = carried
            found = together(*some((keys, made, state, problems)))
            put = partial(lax.dynamic_update_slice_in_dim, axis=0)
            return jax.tree.map(lambda all_, one: put(all_, one, i * width), carried, found)

        told = jax.tree.map(lambda leaf: jnp.zeros((keys.shape[0], *leaf.shape), leaf.dtype), blank)
        stopped = jnp.zeros(keys.shape[0], bool)
        return lax.fori_loop(0, busy, group, (state, made, told, stopped))

    shared = (algorithm, model, steps, busy)
    return _spread(mesh, 4, rows)(keys, made, state, problems, shared)


@partial(jax.jit, static_argnames=("stopped",))
def finish(
    algorithm: Any, rows: Array, state: PyTree, model: Model, problems: Any, *, stopped: bool
) -> PyTree:
    """The results of some slots, of one group's width."""
    state, problems = jax.tree.map(lambda leaf: leaf[rows], (state, problems))
    if stopped and hasattr(algorithm, "stopped"):
        return jax.vmap(algorithm.stopped)(state)
    if not hasattr(algorithm, "finish"):
        return state
    return jax.vmap(algorithm.finish, (0, None, 0))(state, model, problems)


def traced(
    algorithm: Any, model: Model, problems: Any, keys: Array, starts: PyTree = None, *, steps: int
) -> PyTree:
    """A whole run inside a larger program, such as an attack in a step of training.

    Args:
      algorithm: see `Algorithm`; it cannot end early.
      model: shared by all.
      problems: leaves of shape (n, …), as the results.
      keys: (n,) typed keys.
      starts: leaves of shape (n, …), or None.
      steps: of each.
    """
    state = jax.vmap(algorithm.init, (0, None if starts is None else 0))(keys, starts)

    def body(made: Array, state: PyTree) -> PyTree:
        def once(key: Array, state: PyTree, problem: Any) -> PyTree:
            return algorithm.step(jax.random.fold_in(key, made), state, model, problem)[0]

        return jax.vmap(once)(keys, state, problems)

    state = lax.fori_loop(0, steps, body, state)
    return jax.vmap(algorithm.finish, (0, None, 0))(state, model, problems)
