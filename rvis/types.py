"""The words every room shares: a model is a pytree, a result is arrays with what made them."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks, struct

Array = jax.Array
ArrayLike = jax.typing.ArrayLike
PyTree = Any
Units = ArrayLike | Sequence[int]
"""One number of a unit (or of a row and a column), or many."""
KeyLike = jax.Array | int
"""A typed PRNG key (`jax.random.key(0)`) or an int seed."""

Tap = Callable[[str, Array], Array]
"""`tap(layer_name, activation) -> activation`, called at every named layer of a model."""

Relu = Callable[[Array], Array]


def identity(name: str, activation: Array) -> Array:
    """The tap that changes nothing."""
    del name
    return activation


class Apply(Protocol):
    """What a model's `apply` must do; it must hash by value so that equal models share programs."""

    def __hash__(self) -> int: ...

    def __call__(
        self, params: PyTree, images: Array, *, tap: Tap = identity, relu: Relu = jax.nn.relu
    ) -> Array:
        """Logits (n, classes) of `images` (n, H, W, C) in [0, 1]."""


@struct.dataclass
class Model:
    """A vision network as a pytree: its weights are leaves, everything else is structure.

    It passes through `jax.jit` as an argument, so two models of one architecture share programs.

    Attributes:
      params: the weights, any pytree.
      apply: `apply(params, images, *, tap, relu) -> logits`; images are (n, H, W, C) float32 in
        [0, 1] and are normalised inside. It must hash by value (a module-level function, or a
        frozen dataclass with `__call__`).
      layers: the names that `tap` is called with, in order of execution.
      input_shape: (H, W, C) that the network was trained at.
      classes: one name a logit; empty where unknown.
      name: what to call it in titles and messages.
      preparation: how photographs are brought to `input_shape` (`rvis.data.Preparation`).
      kind: what it gives: "logits" (n, classes), or an "embedding" (n, d) or "maps" (n, h, w, c),
        by which no classes are told apart. "logits" is the layer's name in any case.

    Example:
      >>> import jax, jax.numpy as jnp, rvis
      >>> def apply(params, images, *, tap=lambda name, x: x, relu=jax.nn.relu):
      ...     hidden = tap("hidden", relu(images.mean((1, 2)) @ params["hidden"]))
      ...     return hidden @ params["out"]
      >>> params = {"hidden": jnp.eye(3, 4), "out": jnp.ones((4, 2))}
      >>> model = rvis.Model(params, apply, layers=("hidden",), input_shape=(8, 8, 3))
      >>> model(jnp.ones((5, 8, 8, 3))).shape
      (5, 2)
    """

    params: PyTree
    apply: Apply = struct.static()
    layers: tuple[str, ...] = struct.static()
    input_shape: tuple[int, int, int] = struct.static()
    classes: tuple[str, ...] = struct.static(default=())
    name: str = struct.static(default="model")
    preparation: Any = struct.static(default=None)
    kind: str = struct.static(default="logits")

    def __call__(self, images: ArrayLike) -> Array:
        """Logits (n, classes) of images (n, H, W, C) or (H, W, C), floating point in [0, 1].

        Raises:
          TypeError, ValueError: naming `images`, for any others.
        """
        batch = checks.images("images", images, channels=self.input_shape[2])
        return _logits(self.unnamed(), batch)

    def unnamed(self) -> Model:
        """The same model without its names, as compiled programs know it."""
        return struct.replace(self, name="", classes=(), preparation=None)

    def astype(self, dtype: str | None = None, *, precision: str | None = None) -> Model:
        """The same network computing in another number format, or with other products.

        Images, activations, scores, optimizers and means stay float32.

        Args:
          dtype: "float32", "bfloat16" or "float16", of the weights and inside the network; None
            to leave it.
          precision: of matrix products and convolutions on accelerators, as JAX names it:
            "highest", "float32", "tensorfloat32" or "bfloat16"; None for the device's default.

        Raises:
          ValueError: naming the argument.

        Example:
          >>> import jax, jax.numpy as jnp, rvis
          >>> half = rvis.load("mnist_cnn").astype("bfloat16")
          >>> jax.tree.leaves(half.params)[0].dtype, half(jnp.zeros((28, 28, 1))).dtype
          (dtype(bfloat16), dtype('float32'))
        """
        from rvis.models import precision as precisions  # which is above this room

        if dtype is not None:
            checks.choice("dtype", dtype, precisions.DTYPES)
        if precision is not None:
            checks.choice("precision", precision, precisions.PRECISIONS)
        inner = self.apply
        if isinstance(inner, precisions.InPrecision):
            dtype, precision = dtype or inner.dtype, precision or inner.precision
            inner = inner.inner
        params = self.params if dtype is None else precisions.cast(self.params, dtype)
        apply = precisions.InPrecision(inner, dtype, precision)
        return struct.replace(self, params=params, apply=apply)

    def prepare(self, pictures: Any, *, fit: str = "crop") -> np.ndarray:
        """Photographs of any size as the network takes them, resized and cut as in its evaluation.

        A compiled program knows one size alone; here all get the network's.

        Args:
          pictures: a path, a picture of Pillow or an array ((H, W, C) or (H, W), uint8 or float in
            [0, 1]); a list of such, (n, H, W, C), or a folder, whose pictures come by name.
            Pictures in files are turned by their EXIF orientation.
          fit: "crop" resizes the shorter side and cuts out the centre, as in the evaluation;
            "pad" shows all of the picture within grey margins; "squash" ignores its proportions.

        Returns:
          (n, H, W, C) float32 in [0, 1], or (H, W, C) of a single picture.

        Raises:
          TypeError, ValueError, FileNotFoundError: naming `pictures` or `fit`.

        Example:
          >>> import numpy as np, rvis
          >>> model = rvis.load("mnist_cnn")
          >>> model.prepare([np.zeros((90, 60, 3)), np.ones((28, 28))][1:]).shape
          (1, 28, 28, 1)
        """
        return self._preparation()(pictures, self.input_shape, fit=fit)

    def restore(self, maps: Any, pictures: Any, *, fit: str = "crop") -> Any:
        """Maps of prepared pictures laid over the whole photographs; what was cut off gets zeros.

        Args:
          maps: (n, h, w) or (n, h, w, c), of the prepared pictures, at any resolution; without
            the first axis for a single picture.
          pictures: what `prepare` was given.
          fit: likewise.

        Returns:
          A list of arrays, (H, W) or (H, W, c) as each photograph is large; one array for a
          single picture.

        Raises:
          TypeError, ValueError, FileNotFoundError: naming `maps`, `pictures` or `fit`.

        Example:
          >>> import numpy as np, rvis
          >>> model = rvis.load("mnist_cnn")
          >>> model.restore(np.ones((7, 7)), np.zeros((90, 60))).shape
          (90, 60)
        """
        return self._preparation().restore(maps, pictures, self.input_shape, fit=fit)

    def _preparation(self) -> Any:
        if self.preparation is not None:
            return self.preparation
        from rvis.data.preparation import Preparation  # Pillow is slow to import

        return Preparation()


def check_model(model: Any, argument: str = "model") -> Model:
    """`model`, if it is one.

    Raises:
      TypeError: naming the argument and what makes a model of a network, for anything else.
    """
    checks.process()
    if isinstance(model, Model):
        return model
    kind = type(model).__name__
    given = f"str {model!r}" if isinstance(model, str) else kind
    raise TypeError(
        f"{argument}: an rvis.Model was expected, given {given}; rvis.load(NAME) has those that "
        "are shipped, rvis.from_linen(module, variables, …) makes one of a Flax Linen module, "
        "rvis.from_nnx, from_equinox and from_keras of others, and rvis.from_function(function, "
        "params, input_shape) of any function"
    )


def check_classes(model: Any, *, least: int = 1) -> Model:
    """`model`, if its output is the logits of `least` classes or more.

    Raises:
      TypeError, ValueError: naming `model`, with what serves instead.
    """
    if check_model(model).kind != "logits":
        raise ValueError(
            f"model: logits of classes were expected, but {model.name} gives {model.kind}; give an "
            "objective in the place of a class, such as rvis.objectives.channel('logits', 0), and "
            "use what needs no classes"
        )
    if least > 1 and layer_shapes(model).get(LOGITS) == (1,):
        raise ValueError(
            f"model: two classes or more were expected, but {model.name} has one logit; "
            "rvis.from_linen and its like make two of it"
        )
    return model


@jax.jit
def _logits(model: Model, images: Array) -> Array:
    return model.apply(model.params, images)


LOGITS = "logits"
"""The name under which every model's output can be asked for, beside its own layers."""


def layer_shapes(model: Model, shape: tuple[int, int, int] | None = None) -> dict[str, tuple]:
    """The shape of every layer's activation for one image, without running the model.

    Args:
      model: any model.
      shape: (H, W, C) of the image; the model's own by default.

    Returns:
      {layer: shape without the batch axis}, "logits" included. Layers that an image of this shape
      cannot reach, such as dense ones of a network without global pooling, are left out.

    Raises:
      TypeError, ValueError: naming `model`, or `size` where it reaches none.

    Example:
      >>> import rvis
      >>> rvis.layer_shapes(rvis.load("mnist_cnn"), (40, 60, 1))["pool2"]
      (10, 15, 64)
    """
    check_model(model)
    size = model.input_shape if shape is None else shape
    if not isinstance(size, (tuple, list)) or len(size) != 3:
        raise ValueError(f"shape: (H, W, C) was expected, given {shape!r}")
    size = tuple(checks.count("shape", side) for side in size)  # type: ignore[assignment]
    layers, out, failed = _reached(model.apply, *flat_shapes(model.params), size)
    if failed and not layers:
        raise ValueError(
            f"size: {model.name} cannot take an image of shape {size}; its own is "
            f"{model.input_shape} ({failed})"
        )
    return dict(layers) if failed else {**dict(layers), LOGITS: out[1:]}


def flat_shapes(params: PyTree) -> tuple[Any, tuple[jax.ShapeDtypeStruct, ...]]:
    """The structure of a pytree and the shapes of its leaves, which hash."""
    leaves, structure = jax.tree.flatten(params)
    arrays = (leaf if hasattr(leaf, "dtype") else np.asarray(leaf) for leaf in leaves)
    return structure, tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in arrays)


Layers = tuple[tuple[str, tuple[int, ...]], ...]
"""Each layer's name and the shape of its activation for one image, in order."""


def _trace(
    apply: Apply, structure: Any, leaves: tuple, shape: tuple[int, int, int], layers: list
) -> tuple[int, ...]:
    """The shape of what a model makes of one image; its layers are put into `layers` on the way."""

    def tap(name: str, activation: Array) -> Array:
        if not hasattr(activation, "shape"):
            kind = type(activation).__name__
            raise TypeError(f"layer {name!r}: an array was expected of it, given {kind}")
        layers.append((name, activation.shape[1:]))
        return activation

    def forward(params: PyTree, images: Array) -> Array:
        return apply(params, images, tap=tap)

    params = jax.tree.unflatten(structure, leaves)
    out = jax.eval_shape(forward, params, jax.ShapeDtypeStruct((1, *shape), jnp.float32))
    return tuple(getattr(out, "shape", ()))


@functools.lru_cache(maxsize=256)
def traced(
    apply: Apply, structure: Any, leaves: tuple, shape: tuple[int, int, int]
) -> tuple[Layers, tuple[int, ...]]:
    """A network's layers, and the shape of what it makes of one image; only success is kept."""
    layers: list = []
    out = _trace(apply, structure, leaves, shape, layers)
    return tuple(layers), out


@functools.lru_cache(maxsize=256)
def _reached(
    apply: Apply, structure: Any, leaves: tuple, shape: tuple[int, int, int]
) -> tuple[Layers, tuple[int, ...], str]:
    """As `traced`, and of a network that cannot take the image how far it comes, and why."""
    layers: list = []
    # A stranger's network can raise anything of an image that is too small for it. The layers
    # before are there all the same.
    try:
        found, out = traced(apply, structure, leaves, shape)
        reason = ""
    except Exception as error:
        reason = str(error) or type(error).__name__
        with contextlib.suppress(Exception):
            _trace(apply, structure, leaves, shape, layers)
        found, out = tuple(layers), ()
    for i, (name, activation) in enumerate(found):
        if 0 in activation:
            return found[:i], (), f"layer {name!r} would have the shape {activation}"
    return found, out, reason


def as_key(key: KeyLike) -> Array:
    """A typed PRNG key from such a key, an old one of uint32, or a seed of at most 64 bits."""
    if isinstance(key, (int, np.integer)) and not isinstance(key, bool):
        if not -(2**63) <= key < 2**63:
            raise ValueError(f"key: a seed of at most 64 bits was expected, given {key}")
        with jax.transfer_guard("allow"):  # a seed is put on the device on purpose
            return jax.random.key(int(key))
    if isinstance(key, (jax.Array, np.ndarray)):
        if key.dtype == np.uint32 and key.shape == jax.random.PRNGKey(0).shape:
            return jax.random.wrap_key_data(jax.device_put(key))
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
            if key.shape == ():
                return key
            raise TypeError(f"key: one typed key was expected, given an array of shape {key.shape}")
    raise TypeError(
        f"key: an int seed or a typed key such as jax.random.key(0) was expected, given {key!r}"
    )


def on_device(value: Any, dtype: Any = None) -> Array:
    """`jnp.asarray` said aloud: JAX's guard of transfers forbids those that it makes by itself."""
    if isinstance(value, jax.Array):
        return jnp.asarray(value, dtype)
    return jax.device_put(np.asarray(value, dtype))


def fold_each(key: Array, numbers: Any) -> Array:
    """(n,) keys from one: `fold_in(key, number)` for each of (n,) numbers, in one program."""
    return _folded(key, on_device(numbers))


@jax.jit
def _folded(key: Array, numbers: Array) -> Array:
    return jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)
