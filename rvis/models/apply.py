"""What makes a module a model: its `apply`, with a tap at every layer, and the layers' names."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import numpy as np
from flax.core.tracers import current_trace

from rvis.kernels.pooling import Pool, unpadded_avg_pool
from rvis.types import Apply, Array, Model, PyTree, Relu, Tap, flat_shapes, identity, traced

if TYPE_CHECKING:
    from flax import nnx

Floats = tuple[float, ...]

_INFERENCE = {"train": False, "training": False, "is_training": False, "deterministic": True}


def normalised(images: Array, mean: Floats, std: Floats) -> Array:
    """(images − mean) / std, in the images' precision."""
    return (images - np.asarray(mean, images.dtype)) / np.asarray(std, images.dtype)


def _inputs(images: Array | tuple[Array, ...], mean: Floats, std: Floats) -> tuple[Array, ...]:
    """What a module is called with: images normalised, or several inputs as they are."""
    return images if isinstance(images, tuple) else (normalised(images, mean, std),)


def takes(module: object, keyword: str) -> bool:
    """Whether a module's `__call__` takes something from outside."""
    return keyword in inspect.signature(type(module).__call__).parameters


def _keywords(module: object, tap: Tap, relu: Relu, **more: Any) -> dict[str, Any]:
    """The keywords of `module.__call__` that rvis knows the values of."""
    given = {**_INFERENCE, "tap": tap, "relu": relu, **more}
    accepted = inspect.signature(type(module).__call__).parameters
    if relu is not jax.nn.relu and "relu" not in accepted:
        raise ValueError(
            f"relu: {type(module).__name__} applies its own, so that a rule for its gradient "
            "cannot be put in; give its __call__ a keyword `relu` and use it there"
        )
    return {name: value for name, value in given.items() if name in accepted}


def _at_this_level(tap: Tap) -> Callable[[str, Any], Any]:
    """`tap` for arrays of the trace that it is made in; all else passes as it is.

    What a tap records inside `nn.scan`, `nn.remat` or `nn.jit` could not leave it.
    """
    level = current_trace()

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
    """

    module: nn.Module
    mean: Floats = (0.0,)
    std: Floats = (1.0,)
    pool: Pool | None = None

    @property
    def takes_relu(self) -> bool:
        """Whether a rule for the ReLU's gradient can be put in."""
        return takes(self.module, "relu")

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
        pooling = {} if self.pool is None else {"pool": self.pool}
        keywords = _keywords(self.module, tap, relu, **pooling)
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


@dataclasses.dataclass(frozen=True)
class NnxApply:
    """The `apply` of a Flax NNX module, as `LinenApply` is that of a Linen one.

    The module is put together inside the trace of `graphdef`, which `nnx.split` gives, and the
    weights, an `nnx.State`, in evaluation mode.
    """

    graphdef: nnx.GraphDef
    takes_relu: bool
    mean: Floats = (0.0,)
    std: Floats = (1.0,)

    def __call__(
        self, params: PyTree, images: Array, *, tap: Tap = identity, relu: Relu = jax.nn.relu
    ) -> Array:
        """Logits (n, classes) of images (n, H, W, C) in [0, 1]."""
        from flax import nnx  # slow to import, and seldom needed

        module = nnx.merge(self.graphdef, params)
        module.eval()
        keywords = _keywords(module, tap, relu)
        if "tap" not in keywords:
            tap = _at_this_level(tap)
            for path, child in list(nnx.iter_modules(module)):
                if path and callable(child):
                    _tap_output(child, functools.partial(tap, ".".join(map(str, path))))
        return module(*_inputs(images, self.mean, self.std), **keywords)


def _tap_output(module: nnx.Module, tap: Callable[[Any], Any]) -> None:
    """Has `module` pass what it returns through `tap`."""
    original = type(module)

    def call(self: nnx.Module, *args: Any, **kwargs: Any) -> Any:
        return tap(original.__call__(self, *args, **kwargs))

    # Python looks `__call__` up on the class; one that derives from it keeps the module's nature.
    module.__class__ = type(original.__name__, (original,), {"__call__": call})


def assemble(
    apply: Apply,
    params: PyTree,
    input_shape: tuple[int, int, int],
    classes: tuple[str, ...],
    name: str,
) -> Model:
    """A model whose layers are what its `tap` is called with, found by tracing."""
    try:
        traces, shape = traced(apply, *flat_shapes(params), input_shape)
    except Exception as error:  # a stranger's network can raise anything
        raise ValueError(
            f"module: with these weights it cannot be applied to images of shape {input_shape} "
            f"({reason(error)})"
        ) from error
    layers = tuple(name for name, _ in traces)
    if len(shape) != 2:
        raise ValueError(f"module: logits (n, classes) were expected of it, given shape {shape}")
    twice = sorted({layer for layer in layers if layers.count(layer) > 1})
    if twice:
        raise ValueError(f"module: every layer needs a name of its own, given twice: {twice}")
    if classes and len(classes) != shape[1]:
        raise ValueError(f"classes: {shape[1]} names were expected, given {len(classes)}")
    return Model(params, apply, layers, input_shape, classes, name)


def reason(error: Exception) -> str:
    """The first line of an error of Flax or JAX, which can have very many."""
    return (str(error) or type(error).__name__).splitlines()[0][:300]
