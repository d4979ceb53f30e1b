"""Networks of Equinox and of Keras on JAX as models; neither package is imported before."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap

from rvis import checks, gate
from rvis.models.adapters import keywords
from rvis.models.apply import MODES, Call, Floats, Refusal, reason
from rvis.models.functions import FunctionApply
from rvis.models.interpret import numbered
from rvis.models.outputs import Output, adapted
from rvis.models.settings import checked_shape, copied, floats
from rvis.types import Array, Model, Tap

if TYPE_CHECKING:
    import equinox
    import keras


@dataclasses.dataclass(frozen=True)
class EquinoxFunction:
    """An Equinox module of one image (C, H, W) as a function of arrays and images (n, H, W, C).

    Attributes:
      structure: of the module and its state, as a pytree.
      rest: its leaves that are no arrays, None elsewhere.
      stateful: whether it takes a state and hands it on.
      call: further keywords.
    """

    structure: Any
    rest: tuple[Any, ...]
    stateful: bool
    call: Call

    def __call__(self, arrays: list[Array], images: Array, *, tap: Tap | None = None) -> Any:
        """The outputs for images; channels come last in them, and in what `tap` sees."""
        return jax.vmap(functools.partial(self._one, arrays, tap))(images)

    def _one(self, arrays: list[Array], tap: Tap | None, image: Array) -> Any:
        own = iter(arrays)
        leaves = [next(own) if leaf is None else leaf for leaf in self.rest]
        module, state = jax.tree.unflatten(self.structure, leaves)
        number = _names()
        for path, child in _submodules(module):
            modes = {name for name in MODES if isinstance(vars(child).get(name), bool)}
            vars(child).update({name: MODES[name] for name in modes})
            if path and tap is not None and callable(child):
                marked = functools.partial(_marked, tap, number, path, image.ravel()[0])
                vars(child)["_rvis_marked"] = marked
                kind: Any = type(child)
                object.__setattr__(child, "__class__", _tapping(kind))
        x = jnp.moveaxis(image, -1, 0)
        if not self.stateful:
            return _channels_last(module(x, **dict(self.call)))
        before = jax.tree.leaves(state)
        out, after = module(x, state, **dict(self.call))
        pairs = zip(before, jax.tree.leaves(after), strict=True)
        if any(old is not new for old, new in pairs):
            raise Refusal(
                "module: it changes its state when it is called: it runs in training mode; "
                "equinox.nn.inference_mode reaches attributes `inference` alone"
            )
        return _channels_last(out)


def _names() -> Callable[[str, Array], str]:
    """The name of a layer's call from that of the layer; see `numbered`."""
    return numbered(lambda name, x: name)  # type: ignore[arg-type, return-value]


def _submodules(module: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, module) of an Equinox module and all below it."""
    import equinox

    if isinstance(module, equinox.nn.State):
        return
    if isinstance(module, equinox.Module):
        yield path, module
        below = {field.name: vars(module).get(field.name) for field in dataclasses.fields(module)}
    elif isinstance(module, Mapping):
        below = {str(key): value for key, value in module.items()}
    elif isinstance(module, (list, tuple)):
        below = {str(i): value for i, value in enumerate(module)}
    else:
        return
    for name, value in below.items():
        yield from _submodules(value, f"{path}.{name}" if path else name)


@functools.lru_cache(maxsize=256)
def _tapping(original: Any) -> type:
    """The class that derives from a module's, and marks what its instances return."""

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        out = original.__call__(self, *args, **kwargs)  # type: ignore[operator]
        marked = vars(self).get("_rvis_marked", lambda x: x)
        first, rest = (out[0], out[1:]) if isinstance(out, tuple) and out else (out, None)
        first = marked(first) if isinstance(first, jax.Array) else first
        return first if rest is None else (first, *rest)

    return type(original.__name__, (original,), {"__call__": call, "__doc__": original.__doc__})


def _marked(
    tap: Tap, number: Callable[[str, Array], str], path: str, anchor: Array, x: Array
) -> Array:
    """`x`, of one image, through a tap that sees it of all images.

    `jax.vmap` may put the axis of images anywhere, and none where `x` is the same for all; a rule
    of its own puts it first. `anchor` is a number of the image; `number` gives the layer's name.
    """
    layer = functools.partial(tap, number(path, x))

    @custom_vmap
    def marking(x: Array, anchor: Array) -> Array:
        del anchor
        return _as_last(layer, x)

    @marking.def_vmap
    def rule(size: int, batched: list, x: Array, anchor: Array) -> tuple[Array, bool]:
        x = x if batched[0] else jnp.broadcast_to(x, (size, *x.shape))
        return marking(x, anchor), True

    return marking(x, anchor)


def _as_last(function: Callable[[Array], Array], x: Array) -> Array:
    """A function of maps (n, h, w, c) on maps (n, c, h, w)."""
    if x.ndim != 4:
        return function(x)
    return jnp.moveaxis(function(jnp.moveaxis(x, 1, -1)), -1, 1)


def _channels_last(out: Any) -> Any:
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, -1) if x.ndim == 3 else x, out)


@gate.public
def from_equinox(
    module: equinox.Module,
    *,
    input_shape: tuple[int, int, int],
    state: Any = None,
    classes: tuple[str, ...] = (),
    mean: Floats = (0.0,),
    std: Floats = (1.0,),
    name: str = "model",
    call: Mapping[str, Any] | None = None,
    output: Output = None,
    kind: str | None = None,
    grid: tuple[int, int] | None = None,
) -> Model:
    """A model from anybody's Equinox module, which takes one image (C, H, W), as Equinox's do.

    Its layers are the outputs of every submodule, named by their paths ("layers.0"), and seen with
    the axis of images first and channels last: (n, h, w, c). It is used in evaluation mode, by
    `equinox.nn.inference_mode`. ReLU rules are put in as by `rvis.from_function`; all other
    arguments are those of `from_linen`. Maps (c, h, w) that it gives are (n, h, w, c) of the model.

    Args:
      module: maps a normalised image (C, H, W) to logits (classes,).
      input_shape: (H, W, C) it was trained at, channels last as everywhere in rvis.
      state: the `equinox.nn.State` of a module that is called with one (BatchNorm).

    Raises:
      ImportError: naming the extra, where Equinox is not installed.
      TypeError, ValueError: naming the argument, as `from_linen` and `from_nnx` do.

    Example:
      >>> import equinox as eqx, jax, rvis
      >>> one, two = jax.random.split(jax.random.key(0))
      >>> net = eqx.nn.Sequential([
      ...     eqx.nn.Conv2d(3, 4, 3, key=one), eqx.nn.Lambda(jax.nn.relu),
      ...     eqx.nn.Lambda(lambda x: x.mean((1, 2))), eqx.nn.Linear(4, 2, key=two)])
      >>> model = rvis.from_equinox(net, input_shape=(8, 8, 3))
      >>> rvis.layer_shapes(model)["layers.0"]
      (6, 6, 4)
    """
    eqx = checks.package("equinox", "equinox", "from_equinox")
    if not isinstance(module, eqx.Module):
        raise TypeError(f"module: an equinox.Module was expected, given {type(module).__name__}")
    shape = checked_shape(input_shape)
    leaves, structure = jax.tree.flatten((eqx.nn.inference_mode(module), state))
    kept = tuple(None if isinstance(leaf, (jax.Array, np.ndarray)) else leaf for leaf in leaves)
    function = EquinoxFunction(structure, kept, state is not None, keywords(module, call))
    try:
        hash(function)
    except TypeError as error:
        raise ValueError(f"module: its fields must hash ({reason(error)})") from error
    arrays = [copied(leaf) for leaf, rest in zip(leaves, kept, strict=True) if rest is None]
    return adapted(
        FunctionApply(function, floats("mean", mean, shape[2]), floats("std", std, shape[2])),
        arrays,
        shape,
        classes=classes,
        name=name,
        output=output,
        kind=kind,
        grid=grid,
    )


_TRACING = threading.RLock()
"""Keras's layers are marked one trace at a time."""


@dataclasses.dataclass(frozen=True)
class KerasFunction:
    """A Keras model as a function of its variables and of images (n, H, W, C)."""

    model: Any
    first: bool
    call: Call

    def __call__(
        self, variables: tuple[list, list], images: Array, *, tap: Tap | None = None
    ) -> Any:
        """The outputs for images; channels come last in them, and in what `tap` sees."""
        x = jnp.moveaxis(images, -1, 1) if self.first else images
        with _TRACING:
            layers = [] if tap is None else list(_layers(self.model))
            number = _names()
            try:
                for path, layer in layers:
                    wrapped = functools.partial(self._tapped, layer.call, path, tap, number)
                    object.__setattr__(layer, "call", wrapped)
                out, after = self.model.stateless_call(*variables, x, **dict(self.call))
            finally:
                for _, layer in layers:
                    vars(layer).pop("call", None)
        if any(before is not leaf for before, leaf in zip(variables[1], after, strict=True)):
            raise Refusal(
                "module: it changes its state when it is called, so that it runs in training mode"
            )
        return (
            jax.tree.map(lambda x: jnp.moveaxis(x, 1, -1) if x.ndim == 4 else x, out)
            if (self.first)
            else out
        )

    def _tapped(
        self, call: Callable, path: str, tap: Any, number: Any, *args: Any, **kwargs: Any
    ) -> Any:
        out = call(*args, **kwargs)
        if not isinstance(out, jax.Array):
            return out
        layer = functools.partial(tap, number(path, out))
        return _as_last(layer, out) if self.first else layer(out)


def _layers(model: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, layer) of every layer below a Keras model, by its name; one that is twice, once."""
    reached = set()
    for layer in model._flatten_layers(include_self=False, recursive=False):
        name = f"{path}.{layer.name}" if path else layer.name
        for place, child in ((name, layer), *_layers(layer, name)):
            if id(child) not in reached and type(child).__name__ != "InputLayer":
                reached.add(id(child))
                yield place, child


@gate.public
def from_keras(
    module: keras.Model,
    *,
    input_shape: tuple[int, int, int] | None = None,
    classes: tuple[str, ...] = (),
    mean: Floats = (0.0,),
    std: Floats = (1.0,),
    name: str | None = None,
    call: Mapping[str, Any] | None = None,
    output: Output = None,
    kind: str | None = None,
    grid: tuple[int, int] | None = None,
) -> Model:
    """A model from anybody's Keras 3 model on the JAX backend; the model itself is left as it is.

    Its layers are those of Keras, by their names ("conv2d", "encoder.block1"). The weights are
    those that it holds now, and it is called with `training=False`. ReLU rules are put in as by
    `rvis.from_function`; all other arguments are those of `from_linen`. For one that takes
    [0, 255], `std=(1 / 255,)` multiplies by 255.

    Args:
      module: maps normalised images to logits, without a softmax or sigmoid at the end. One with
        channels first is given images so, and shows its layers channels last.
      input_shape: (H, W, C) it was trained at; by default its own.

    Raises:
      ImportError: naming the extra, where Keras is not installed.
      TypeError, ValueError: naming the argument, such as a model of another backend, or one that
        ends in a softmax.

    Example:
      >>> import os
      >>> os.environ["KERAS_BACKEND"] = "jax"
      >>> import keras, rvis
      >>> net = keras.Sequential([
      ...     keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
      ...     keras.layers.GlobalAveragePooling2D(name="mean"), keras.layers.Dense(2, name="out")])
      >>> rvis.from_keras(net).layers
      ('conv', 'mean', 'out')
    """
    package = checks.package("keras", "keras", "from_keras")
    if package.backend.backend() != "jax":
        raise ValueError(
            f"module: Keras on JAX was expected, given its backend {package.backend.backend()!r}; "
            'set the environment variable KERAS_BACKEND to "jax" before Keras is imported'
        )
    if not isinstance(module, package.Model):
        raise TypeError(f"module: a keras.Model was expected, given {type(module).__name__}")
    if not module.built:
        raise ValueError("module: a model with weights was expected; call it once on images")
    layers = [layer for _, layer in _layers(module)]
    first = any(getattr(layer, "data_format", "") == "channels_first" for layer in layers)
    if input_shape is None:
        own = tuple(getattr(module, "input_shape", None) or ())[1:]
        input_shape = (*own[1:], own[0]) if first and own else own  # type: ignore[assignment]
    shape = checked_shape(input_shape)
    ending = layers[-1] if layers else module
    activation = getattr(getattr(ending, "activation", None), "__name__", "")
    if output is None and kind in (None, "logits") and activation in ("softmax", "sigmoid"):
        raise ValueError(
            f"module: logits were expected of it, but its layer {ending.name!r} ends in a "
            f"{activation}; set that layer's `activation` to None (classifier_activation=None)"
        )
    accepted = inspect.signature(module.call).parameters
    modes = {name: value for name, value in MODES.items() if name in accepted}
    more = dict(keywords(module, call)) if call is not None else {}
    function = KerasFunction(module, first, tuple(sorted((modes | more).items())))
    held = module.trainable_variables, module.non_trainable_variables
    variables = tuple([copied(variable.value) for variable in some] for some in held)
    return adapted(
        FunctionApply(function, floats("mean", mean, shape[2]), floats("std", std, shape[2])),
        variables,
        shape,
        classes=classes,
        name=module.name if name is None else name,
        output=output,
        kind=kind,
        grid=grid,
    )
