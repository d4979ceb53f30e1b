"""What makes a module a model: its `apply`, with a tap at every layer, and the layers' names."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import numpy as np
from flax.core.tracers import current_trace

from rvis import checks
from rvis.kernels.pooling import Pool, unpadded_avg_pool
from rvis.models.interpret import LOCAL, holds, mark, numbered
from rvis.models.interpret import call as interpreted
from rvis.models.tokens import gridded
from rvis.types import Apply, Array, Model, PyTree, Relu, Tap, flat_shapes, identity, traced

if TYPE_CHECKING:
    from flax import nnx

Floats = tuple[float, ...]

Call = tuple[tuple[str, Any], ...]
"""Keywords that a module is called with, beside those that rvis knows the values of."""

MODES = {
    "train": False,
    "training": False,
    "is_training": False,
    "deterministic": True,
    "inference": True,
}
"""What evaluation is called, as keywords and as attributes."""


def normalised(images: Array, mean: Floats, std: Floats) -> Array:
    """(images − mean) / std, in the images' precision."""
    shift, scale = (np.asarray(part, images.dtype).reshape(1, 1, 1, -1) for part in (mean, std))
    return (images - shift) / scale


def _inputs(images: Array | tuple[Array, ...], mean: Floats, std: Floats) -> tuple[Array, ...]:
    """What a module is called with: images normalised, or several inputs as they are."""
    return images if isinstance(images, tuple) else (normalised(images, mean, std),)


def takes(module: object, keyword: str) -> bool:
    """Whether a module's `__call__` takes something from outside."""
    return keyword in inspect.signature(type(module).__call__).parameters


def _keywords(module: object, call: Call, tap: Tap, relu: Relu, **more: Any) -> dict[str, Any]:
    """The keywords of `module.__call__`: those that rvis knows the values of, then the user's."""
    given = {**MODES, "tap": tap, "relu": relu, **more}
    accepted = inspect.signature(type(module).__call__).parameters
    return {name: value for name, value in given.items() if name in accepted} | dict(call)


def _at_this_level(tap: Tap) -> Callable[[str, Any], Any]:
    """`tap` for arrays of the trace that it is made in; all else passes as it is.

    What a tap records inside `nn.scan`, `nn.remat` or `nn.jit` could not leave it.
    """
    level, tap = current_trace(), numbered(tap)

    def passed(name: str, out: Any) -> Any:
        here = isinstance(out, jax.Array) and current_trace() == level
        return tap(name, out) if here else out

    return passed


@dataclasses.dataclass(frozen=True)
class LinenApply:
    """The `apply` of a Flax Linen module: normalises images, then calls the module with a tap.

    It hashes by value, as Linen modules do by their fields. A module whose `__call__` takes `tap=`
    and `relu=` is given them. Any other is tapped at the output of every submodule's `__call__`.

    Attributes:
      module: any Linen module that maps (n, H, W, C) to logits (n, classes).
      mean: subtracted from the images, one number or one a channel.
      std: what they are divided by then.
      pool: what takes the place of `pooling.max_pool` wherever the module pools; None for nothing.
      call: keywords that the module is called with besides.
      activations: whether it has some that a rule can be put in for, though it takes no `relu`.
    """

    module: nn.Module
    mean: Floats = (0.0,)
    std: Floats = (1.0,)
    pool: Pool | None = None
    call: Call = ()
    activations: bool = False

    @property
    def takes_relu(self) -> bool:
        """Whether a rule for the ReLU's gradient can be put in."""
        return self.activations or takes(self.module, "relu")

    @property
    def takes_pool(self) -> bool:
        """Whether another pooling can take the place of maxima."""
        return takes(self.module, "pool")

    def with_average_pooling(self) -> LinenApply:
        """The same network with averages in the place of maxima (Gatys 2015)."""
        if not self.takes_pool:
            raise ValueError(
                f"pooling: {type(self.module).__name__} pools by itself, so that averages cannot "
                "be put in; give its __call__ a keyword `pool` and use it there"
            )
        return dataclasses.replace(self, pool=unpadded_avg_pool)

    def __call__(
        self, params: PyTree, images: Array, *, tap: Tap = identity, relu: Relu = jax.nn.relu
    ) -> Array:
        """Logits (n, classes) of images (n, H, W, C) in [0, 1]."""
        if relu is not jax.nn.relu and not _uses_relu(self, *flat_shapes((params, images))):
            return ruled(self, params, images, tap, relu)
        pooling = {} if self.pool is None else {"pool": self.pool}
        keywords = _keywords(self.module, self.call, tap, relu, **pooling)
        inputs = _inputs(images, self.mean, self.std)
        logits: Any
        if "tap" in keywords:
            logits = self.module.apply(params, *inputs, **keywords)
            return logits
        tap = _at_this_level(tap)

        def tapped(call: Callable[..., Any], args: tuple, kwargs: dict, context: Any) -> Any:
            out = call(*args, **kwargs)
            layer = context.method_name == "__call__" and context.module.path
            return tap(".".join(layer), out) if layer else out

        with nn.intercept_methods(tapped):
            logits = self.module.apply(params, *inputs, **keywords)
        return logits

    @property
    def takes_train(self) -> bool:
        """Whether the module can be put in training mode."""
        return takes(self.module, "train")

    def train(self, params: PyTree, images: Array) -> tuple[Array, PyTree]:
        """Logits in training mode, and the collections that change then (batch statistics)."""
        x = normalised(images, self.mean, self.std)
        changing = [name for name in params if name != "params"]
        return self.module.apply(params, x, train=True, mutable=changing)


@functools.lru_cache(maxsize=256)
def _uses_relu(apply: LinenApply, structure: Any, leaves: tuple) -> bool:
    """Whether a module hands its activations to the `relu` that it takes; one of gelu does not."""
    calls = []

    def noted(x: Array) -> Array:
        calls.append(x.shape)
        return jax.nn.relu(x)

    def forward(params: PyTree, images: Array) -> Array:
        keywords = _keywords(apply.module, apply.call, identity, noted)
        out: Any = apply.module.apply(params, *_inputs(images, apply.mean, apply.std), **keywords)
        return out

    # An image may be too small for the last layers; the first ones tell.
    with contextlib.suppress(Exception):
        if takes(apply.module, "relu"):
            jax.eval_shape(forward, *jax.tree.unflatten(structure, leaves))
    return bool(calls)


@dataclasses.dataclass(frozen=True)
class NnxApply:
    """The `apply` of a Flax NNX module, as `LinenApply` is that of a Linen one.

    The module is put together inside the trace of `graphdef`, which `nnx.split` gives, and the
    weights, an `nnx.State`, in evaluation mode: by its `eval()`, and by the attributes of `MODES`
    that it or a submodule has. One whose state changes all the same is refused.
    """

    graphdef: nnx.GraphDef
    takes_relu: bool
    mean: Floats = (0.0,)
    std: Floats = (1.0,)
    call: Call = ()

    def __call__(
        self, params: PyTree, images: Array, *, tap: Tap = identity, relu: Relu = jax.nn.relu
    ) -> Array:
        """Logits (n, classes) of images (n, H, W, C) in [0, 1]."""
        from flax import nnx  # slow to import, and seldom needed

        module = nnx.merge(self.graphdef, params)
        if relu is not jax.nn.relu and not takes(module, "relu"):
            return ruled(self, params, images, tap, relu)
        module.eval()
        for _, child in nnx.iter_modules(module):
            modes = {name for name in MODES if isinstance(vars(child).get(name), bool)}
            vars(child).update({name: MODES[name] for name in modes})
        keywords = _keywords(module, self.call, tap, relu)
        if "tap" not in keywords:
            tap = _at_this_level(tap)
            for path, child in list(nnx.iter_modules(module)):
                if path and callable(child):
                    _tap_output(child, functools.partial(tap, ".".join(map(str, path))))
        before = jax.tree_util.tree_leaves_with_path(nnx.state(module))
        out = module(*_inputs(images, self.mean, self.std), **keywords)
        after = dict(jax.tree_util.tree_leaves_with_path(nnx.state(module)))
        changed = [path for path, leaf in before if after.get(path) is not leaf]
        if changed:
            place = ".".join(str(getattr(key, "key", key)) for key in changed[0][:-1])
            raise Refusal(
                f"module: its `{place}` changes when it is called: it runs in training mode, or "
                "draws random numbers; give its keyword for evaluation by call={…}, or set the "
                "attribute that it goes by"
            )
        return out


def _tap_output(module: nnx.Module, tap: Callable[[Any], Any]) -> None:
    """Has `module` pass what it returns through `tap`."""
    original = type(module)

    def call(self: nnx.Module, *args: Any, **kwargs: Any) -> Any:
        return tap(original.__call__(self, *args, **kwargs))

    # Python looks `__call__` up on the class; one that derives from it keeps the module's nature.
    module.__class__ = type(original.__name__, (original,), {"__call__": call})


class Refusal(ValueError):
    """Of a network that runs, and would be wrong; the message names the argument."""


def ruled(apply: Apply, params: PyTree, images: Array, tap: Tap, relu: Relu) -> Array:
    """What `apply` gives, with another gradient of the activations that it applies by itself."""

    def marked(params: PyTree, images: Array) -> Array:
        return apply(params, images, tap=mark)

    return interpreted(marked, (params, images), tap=tap, relu=relu)


@functools.lru_cache(maxsize=256)
def has_activations(
    apply: Apply, structure: Any, leaves: tuple, shape: tuple[int, int, int]
) -> bool:
    """Whether a network has activations that `ruled` finds; arguments as of `traced`."""
    params = jax.tree.unflatten(structure, leaves)
    images = jax.ShapeDtypeStruct((1, *shape), np.float32)
    return holds(jax.make_jaxpr(lambda *arguments: apply(*arguments))(params, images).jaxpr, LOCAL)


def assemble(
    apply: Apply,
    params: PyTree,
    input_shape: tuple[int, int, int],
    classes: tuple[str, ...],
    name: str,
    *,
    kind: str | None = None,
    argument: str = "module",
    grid: tuple[int, int] | None = None,
) -> Model:
    """A model whose layers are what its `tap` is called with, found by tracing; tokens as grids."""
    checks.process()
    try:
        traces, shape = traced(apply, *flat_shapes(params), input_shape)
    except Refusal:
        raise
    except Exception as error:  # a stranger's network can raise anything
        raise ValueError(
            f"{argument}: with these weights it cannot be applied to images of shape {input_shape} "
            f"({reason(error)})"
        ) from error
    seen = gridded(apply, traces, input_shape, grid)
    if seen is not apply:
        apply = seen
        traces, shape = traced(apply, *flat_shapes(params), input_shape)
    layers = tuple(name for name, _ in traces)
    kind = kind or ("maps" if len(shape) == 4 else "logits")
    if len(shape) != (4 if kind == "maps" else 2):
        raise ValueError(
            f"{argument}: {EXPECTED[kind]} were expected of it, given shape {shape}; output= "
            "chooses from several, or is a function that makes one array of them"
        )
    twice = sorted({layer for layer in layers if layers.count(layer) > 1})
    if twice:
        raise ValueError(f"{argument}: every layer needs a name of its own, given twice: {twice}")
    if classes and len(classes) != shape[-1]:
        raise ValueError(f"classes: {shape[-1]} names were expected, given {len(classes)}")
    return Model(params, apply, layers, input_shape, classes, name, kind=kind)


EXPECTED = {
    "logits": "logits (n, classes)",
    "embedding": "embeddings (n, d)",
    "maps": "maps (n, h, w, c)",
}
"""The kinds of outputs, and their shapes."""


def reason(error: Exception) -> str:
    """The first line of an error of Flax or JAX, which can have very many."""
    return (str(error) or type(error).__name__).splitlines()[0][:300]
