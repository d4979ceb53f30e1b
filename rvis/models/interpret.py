"""A function's jaxpr, evaluated equation by equation, with other rules in the place of some.

`evaluate` takes rules by kind. The kind of an equation is the name of its primitive; but "relu" of
a maximum with 0 ("relu of the second", where the 0 comes first), "smooth" of another activation,
and "layer" of what `mark` has named. What is
called by an equation (`jit`, `remat`, the branches of `cond`, the body of `scan`) is entered where
a rule has work to do there, and otherwise runs as it is. So does every function with a gradient of
its own (`custom_jvp`, `custom_vjp`): that gradient is what its author wants.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from rvis.types import Array, PyTree, Relu, Tap

Rule = Callable[[JaxprEqn, list, Callable[[], list]], list]
"""`rule(equation, inputs, plain) -> outputs`; `plain()` are the outputs without a rule."""

_MARK = "rvis layer "
_INLINED = frozenset(
    ("jit", "pjit", "closed_call", "core_call", "remat2", "remat", "checkpoint", "custom_vmap_call")
)
_OWN_GRADIENT = frozenset(("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"))
_CURVED = frozenset(("tanh", "erf", "erfc", "logistic"))
_SHAPED = frozenset(("broadcast_in_dim", "reshape", "squeeze", "convert_element_type", "copy"))
_POINTWISE = _CURVED | frozenset(
    ("add", "sub", "mul", "div", "neg", "integer_pow", "square", "convert_element_type", "copy")
)
# What `jax.nn` calls its activations other than ReLU where it calls them by a `jit` of that name.
_SMOOTH = frozenset(
    "leaky_relu elu selu celu softplus squareplus mish hard_silu hard_swish silu swish gelu "
    "log_sigmoid".split()
)
# They hold a maximum with 0, and are no activations that gradients are to be rectified at.
NO_ACTIVATION = frozenset("clip hard_sigmoid hard_tanh _clip".split())
LOCAL = frozenset(("relu", "relu of the second", "smooth"))
"""Rules that may stand inside a loop: nothing leaves it by them."""


def mark(name: str, x: Array) -> Array:
    """A tap for functions that are going to be evaluated here: it names a layer."""
    return checkpoint_name(x, _MARK + name)


def numbered(tap: Tap) -> Tap:
    """`tap`, to which the calls after the first of one name come as "name:1", "name:2", ….

    Example:
      >>> from rvis.models.interpret import numbered
      >>> tap = numbered(lambda name, x: name)
      >>> tap("conv", 0), tap("conv", 0), tap("fc", 0)
      ('conv', 'conv:1', 'fc')
    """
    calls: dict[str, int] = {}

    def counted(name: str, x: Array) -> Array:
        calls[name] = calls.get(name, -1) + 1
        return tap(f"{name}:{calls[name]}" if calls[name] else name, x)

    return counted


def call(
    function: Callable[..., Any],
    arguments: Sequence[PyTree],
    *,
    tap: Tap | None,
    relu: Relu,
    layers: Sequence[str] = ("layer",),
) -> Any:
    """`function(*arguments)`, whose layers pass through `tap` and whose ReLUs are `relu`.

    The value is that of the function to the bit. `relu` takes the place of every maximum with 0
    (`jax.nn.relu`, and so within ReLU6). Of another activation (gelu, silu and what else is x·σ(x),
    leaky ReLU, elu, …) only what comes back is seen by it, as of a unit that is open, and the slope
    of the activation follows. Maxima with 0 of a variance or inside `jnp.clip` are left alone.

    Args:
      function: any traceable function.
      arguments: pytrees of arrays.
      tap: called at every layer; None for nowhere.
      relu: `jax.nn.relu` for the gradients of the function itself.
      layers: kinds of equations that are layers: "layer" is what `mark` names, "name" what
        `checkpoint_name` does, and any other the name of a primitive.

    Raises:
      ValueError: naming what lies where no rule reaches, such as a layer inside a loop; or naming
        `relu`, where the function has no activation.
    """
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
    rules: dict[str, Rule] = {}
    if tap is not None:
        rules = dict.fromkeys(layers, _tapped(numbered(tap)))
    if relu is not jax.nn.relu:
        if not holds(closed.jaxpr, LOCAL):
            raise ValueError(
                "relu: the model has no ReLU, gelu, silu or other known activation, so that no "
                "rule for its gradient can be put in"
            )
        rules |= {"relu": _with(relu, 0), "relu of the second": _with(relu, 1)}
        rules["smooth"] = _gated(relu)
    flat = evaluate(closed.jaxpr, closed.consts, jax.tree.leaves(arguments), rules)
    return jax.tree.unflatten(jax.tree.structure(shapes), flat)


def evaluate(
    jaxpr: Jaxpr, consts: Sequence[Any], inputs: Sequence[Any], rules: Mapping[str, Rule]
) -> list:
    """The outputs of a jaxpr, in which `rules` stand for equations of their kinds.

    Raises:
      ValueError: naming a kind that has a rule where none can be put in.
    """
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *inputs), strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for equation, kind in zip(jaxpr.eqns, kinds(jaxpr), strict=True):
        arguments = [read(atom) for atom in equation.invars]
        plain = functools.partial(bound, equation, arguments)
        if kind in rules:
            outputs = rules[kind](equation, arguments, plain)
        elif next(_within(equation, kind, rules), None) is None:
            outputs = plain()
        else:
            outputs = _entered(equation, kind, arguments, rules)
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def bound(equation: JaxprEqn, arguments: Sequence[Any]) -> list:
    """The outputs of one equation for these inputs."""
    parameters = equation.primitive.get_bind_params(equation.params)
    with equation.ctx.manager:
        outputs = equation.primitive.bind(*arguments, **parameters)
    return list(outputs) if equation.primitive.multiple_results else [outputs]


def _entered(equation: JaxprEqn, kind: str, arguments: list, rules: Mapping[str, Rule]) -> list:
    """The outputs of an equation that calls jaxprs, with the rules inside them."""
    parameters = equation.params
    inside = called(equation)
    leaving = {name: rule for name, rule in rules.items() if name not in LOCAL}
    if kind in _INLINED or (kind == "custom_jvp_call" and _clipping(inside[0][0])):
        return evaluate(*inside[0], arguments, rules)
    if kind in NO_ACTIVATION:
        return evaluate(*inside[0], arguments, leaving)
    escaping = [name for jaxpr, _ in inside for name in _names(jaxpr, leaving)]
    if escaping or kind not in ("scan", "cond"):
        what = f"layer {escaping[0]!r}" if escaping else "an activation"
        raise ValueError(
            f"{what} lies inside `{kind}`, where no tap or rule reaches it; put it outside, or "
            "unroll the loop"
        )
    if kind == "cond":
        index, *operands = arguments
        branches = [
            functools.partial(_flat, jaxpr, consts, rules=rules) for jaxpr, consts in inside
        ]
        return lax.switch(jnp.asarray(index, jnp.int32), branches, *operands)
    constants, carried = parameters["num_consts"], parameters["num_carry"]
    (jaxpr, consts), fixed = inside[0], arguments[:constants]

    def body(carry: list, slices: list) -> tuple[list, list]:
        outputs = evaluate(jaxpr, consts, [*fixed, *carry, *slices], rules)
        return outputs[:carried], outputs[carried:]

    end, stacked = lax.scan(
        body,
        arguments[constants : constants + carried],
        arguments[constants + carried :],
        length=parameters["length"],
        reverse=parameters["reverse"],
        unroll=parameters["unroll"],
    )
    return [*end, *stacked]


def _flat(jaxpr: Jaxpr, consts: Sequence, *operands: Any, rules: Mapping[str, Rule]) -> list:
    return evaluate(jaxpr, consts, operands, rules)


def _open(jaxpr: Any) -> tuple[Jaxpr, Sequence]:
    return (jaxpr.jaxpr, jaxpr.consts) if isinstance(jaxpr, ClosedJaxpr) else (jaxpr, ())


def called(equation: JaxprEqn) -> list[tuple[Jaxpr, Sequence]]:
    """The jaxprs that an equation calls, each with its constants."""
    return [_open(inner) for inner in _inner(equation)]


def _inner(equation: JaxprEqn) -> Iterator[Any]:
    for value in equation.params.values():
        for entry in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(entry, (Jaxpr, ClosedJaxpr)):
                yield entry


def holds(jaxpr: Jaxpr, wanted: Iterable[str]) -> bool:
    """Whether a jaxpr, or one that it calls, has an equation of one of the `wanted` kinds."""
    return next(_names(jaxpr, wanted), None) is not None


def _names(jaxpr: Jaxpr, wanted: Iterable[str]) -> Iterator[str]:
    """The names, else kinds, of what is of one of the `wanted` kinds in a jaxpr."""
    for equation, kind in zip(jaxpr.eqns, kinds(jaxpr), strict=True):
        if kind in wanted:
            yield layer_name(equation)
        else:
            yield from _within(equation, kind, wanted)


def _within(equation: JaxprEqn, kind: str, wanted: Iterable[str]) -> Iterator[str]:
    """`_names` of the jaxprs that an equation calls."""
    for jaxpr, _ in called(equation):
        # What has a gradient of its own keeps it, with the activations inside.
        kept = kind in NO_ACTIVATION or (kind in _OWN_GRADIENT and not _clipping(jaxpr))
        yield from _names(jaxpr, frozenset(wanted) - LOCAL if kept else wanted)


def layer_name(equation: JaxprEqn) -> str:
    """What a layer is called, else its kind."""
    name = equation.params["name"] if equation.primitive.name == "name" else None
    return equation.primitive.name if name is None else name.removeprefix(_MARK)


def _clipping(jaxpr: Jaxpr) -> bool:
    """Whether there are but maxima and minima, as in `jax.nn.relu` and `relu6`."""
    names = [e.primitive.name for e in jaxpr.eqns]
    nested = (_clipping(_open(inner)[0]) for e in jaxpr.eqns for inner in _inner(e))
    return set(names) <= {"jit", "pjit", "max", "min"} and all(nested)


@functools.lru_cache(maxsize=1024)
def kinds(jaxpr: Jaxpr) -> tuple[str, ...]:
    """The kind of every equation of a jaxpr; see above."""
    makers = {out: equation for equation in jaxpr.eqns for out in equation.outvars}
    users = collections.defaultdict(list)
    for equation in jaxpr.eqns:
        for atom in equation.invars:
            if not isinstance(atom, Literal):
                users[atom].append(equation)
    roots: dict[Any, tuple[Any, bool]] = {}

    def is_zero(atom: Any) -> bool:
        if isinstance(atom, Literal):
            return bool(np.ndim(atom.val) == 0 and atom.val == 0)
        maker: Any = makers.get(atom)
        shaped = maker is not None and maker.primitive.name in _SHAPED
        return shaped and is_zero(maker.invars[0])

    def rooted(variable: Any) -> bool:
        """Whether a square root is taken of it next: then it is a variance, no activation."""
        for equation in users[variable]:
            name = equation.primitive.name
            shifted = name == "add" and any(isinstance(i, Literal) for i in equation.invars)
            if name in ("rsqrt", "sqrt"):
                return True
            if (shifted or name in _SHAPED) and rooted(equation.outvars[0]):
                return True
        return False

    def root(atom: Any) -> tuple[Any, bool]:
        """What it is computed from place by place, and whether by way of a sigmoid."""
        maker: Any = None if isinstance(atom, Literal) else makers.get(atom)
        if maker is None or maker.primitive.name not in _POINTWISE:
            return atom, False
        if atom not in roots:
            operands = [i for i in maker.invars if not isinstance(i, Literal) and i.aval.shape]
            reached = [root(operand) for operand in operands]
            one = bool(reached) and all(r is reached[0][0] for r, _ in reached)
            curved = maker.primitive.name in _CURVED or any(c for _, c in reached)
            roots[atom] = (reached[0][0], curved) if one else (atom, False)
        return roots[atom]

    def kind(equation: Any) -> str:
        name = equation.primitive.name
        out: Any = equation.outvars[0] if equation.outvars else None
        if name == "name" and equation.params["name"].startswith(_MARK):
            return "layer"
        if name in ("jit", "pjit"):
            own = equation.params.get("name")
            return "smooth" if own in _SMOOTH else own if own in NO_ACTIVATION else name
        if name == "max" and jnp.issubdtype(out.aval.dtype, jnp.floating):
            zeros = [is_zero(atom) for atom in equation.invars]
            signal = equation.invars[zeros[0]]
            if sum(zeros) == 1 and signal.aval.shape == out.aval.shape and not rooted(out):
                return "relu of the second" if zeros[0] else "relu"
        if name == "mul" and not any(isinstance(atom, Literal) for atom in equation.invars):
            (one, curved), (two, other) = map(root, equation.invars)
            if one is two and curved != other:
                return "smooth"
        return name

    return tuple(map(kind, jaxpr.eqns))


def _tapped(tap: Tap) -> Rule:
    def rule(equation: Any, inputs: list, plain: Callable[[], list]) -> list:
        first, *rest = plain()
        return [tap(layer_name(equation), first), *rest]

    return rule


def _with(relu: Relu, signal: int) -> Rule:
    def rule(equation: Any, inputs: list, plain: Callable[[], list]) -> list:
        return [relu(inputs[signal]).astype(equation.outvars[0].aval.dtype)]

    return rule


def _gated(relu: Relu) -> Rule:
    def rule(equation: Any, inputs: list, plain: Callable[[], list]) -> list:
        (out,) = plain()
        still = lax.stop_gradient(out)
        return [valued(still, relu(out - still + jnp.ones((), out.dtype)))]

    return rule


@jax.custom_vjp
def valued(value: Array, way: Array) -> Array:
    """The value of one with the gradient of the other."""
    del way
    return value


valued.defvjp(lambda value, way: (value, None), lambda _, g: (jnp.zeros_like(g), g))
