"""What an attack is asked for, checked before anything compiles, and its result put together."""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypedDict

import jax
import numpy as np

from rvis import checks, engine, struct
from rvis.attacks.result import NORMS, AttackResult, distances
from rvis.results import describe
from rvis.types import (
    LOGITS,
    Array,
    ArrayLike,
    KeyLike,
    Model,
    as_key,
    check_classes,
    fold_each,
    layer_shapes,
    on_device,
)

Callback = Callable[[int, np.ndarray, np.ndarray], Any]
"""Called with the steps made, the images so far and the losses before each step; True ends it."""


class Options(TypedDict, total=False):
    """How an attack is run: what all of them take alike; see `rvis.attacks.pgd`."""

    chunk: int | None
    checkpoint: str | Path | None
    callback: Callback | None
    progress: bool


class _Special(TypedDict, total=False):
    quantize: bool
    eot: int


class BallOptions(_Special, Options, total=False):
    """The same, of attacks that can look at images in 8 bits, and through several draws."""


@dataclasses.dataclass(frozen=True)
class Request:
    """Checked arguments that every attack shares, on the host.

    Attributes:
      model: without its names, as compiled programs know it.
      name: its own.
      classes: its names for its classes.
      images: (n, H, W, C) float32.
      labels: (n,) int32 true classes.
      target: (n,) int32 classes to reach; None where it is enough to leave the labels.
      norm: one of `NORMS`.
      eps: (n,) float32, the radius for each image; at most that of a ball about any image that
        holds all others.
      key: a typed key.
      numbers: (n,) uint32, what is folded into it for each image.
      outputs: how many logits the model has.
      single: whether one image was given, without a leading axis.
    """

    model: Model
    name: str
    classes: tuple[str, ...]
    images: np.ndarray
    labels: np.ndarray
    target: np.ndarray | None
    norm: str
    eps: np.ndarray
    key: Array
    numbers: np.ndarray
    outputs: int
    single: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return self.images.shape[1:]  # type: ignore[return-value]

    @property
    def pixels(self) -> int:
        """What the engine goes by: an image, and as many places that an attack remembers."""
        return 2 * self.shape[0] * self.shape[1]

    @property
    def targeted(self) -> bool:
        """Whether there are targets."""
        return self.target is not None

    @property
    def unit(self) -> np.ndarray:
        """(n,) the class to reach, or that to leave."""
        return self.labels if self.target is None else self.target

    @functools.cached_property
    def logits(self) -> np.ndarray:
        """(n, k) the model's logits of `images`; the first thing for which it is run."""
        return logits_of(self.model, self.images)

    @property
    def clean(self) -> np.ndarray:
        """(n,) the classes of the largest."""
        return self.logits.argmax(-1).astype(np.int32)

    @property
    def solved(self) -> np.ndarray:
        """Where the model is fooled already, (n,) bool."""
        return (self.clean == self.unit) == self.targeted

    def keys(self, attempt: int = 0) -> Array:
        """(n,) the images' own typed keys for an attempt."""
        return _keys(self.key, on_device(self.numbers), on_device(attempt))

    def rows(self, rows: np.ndarray) -> Request:
        """The same for some of the images."""
        chosen = {name: getattr(self, name)[rows] for name in _EACH}
        if self.target is not None:
            chosen["target"] = self.target[rows]
        some = dataclasses.replace(self, **chosen)
        if "logits" in vars(self):
            vars(some)["logits"] = self.logits[rows]
        return some


_EACH = ("images", "labels", "eps", "numbers")


@jax.jit
def _keys(key: Array, numbers: Array, attempt: int) -> Array:
    """A key with each of n numbers, and then an attempt, folded in."""
    return jax.vmap(jax.random.fold_in, (0, None))(fold_each(key, numbers), attempt)


def prepare(
    model: Model,
    images: ArrayLike,
    labels: Any,
    *,
    norm: str,
    eps: Any = np.inf,
    target: Any = None,
    key: KeyLike = 0,
    norms: Sequence[str] = NORMS,
) -> Request:
    """Checks what every attack takes.

    An image's key is folded from its bits, so that it meets the same chances alone and in any
    batch, and two images of a batch different ones.

    Args:
      model: any model.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      labels: the true classes, numbers or names: one, or (n,).
      norm: one of `norms`.
      eps: a number of at least 0, or (n,); inf for the whole of [0, 1].
      target: classes to reach, as `labels`; None to leave the labels.
      key: an int seed or a typed key.
      norms: those that the attack knows.

    Raises:
      TypeError, ValueError: naming the argument.
    """
    check_classes(model, least=2)
    batch = np.asarray(checks.images("images", images, channels=model.input_shape[2]))
    count = len(batch)
    shapes = layer_shapes(model, batch.shape[1:])
    if LOGITS not in shapes:
        raise ValueError(
            f"images: {model.name} takes images of {model.input_shape}, given {batch.shape[1:]}"
        )
    outputs = shapes[LOGITS][-1]

    def classes(argument: str, value: Any) -> np.ndarray:
        numbers = checks.classes(argument, value, model.classes, count=outputs)
        if numbers.shape not in ((), (count,)):
            raise ValueError(
                f"{argument}: one class, or one for each of {count} images, was expected, given "
                f"shape {numbers.shape}"
            )
        return np.broadcast_to(numbers, count)

    checks.choice("norm", norm, norms)
    radii = per_image("eps", eps, count, finite=False)
    return Request(
        model.unnamed(),
        model.name,
        model.classes,
        batch,
        classes("labels", labels),
        None if target is None else classes("target", target),
        norm,
        np.minimum(radii, _widest(norm, batch[0].size)),
        as_key(key),
        np.asarray([zlib.crc32(image.tobytes()) for image in batch], np.uint32),
        outputs,
        np.ndim(images) == 3,
    )


def _widest(norm: str, size: int) -> np.float32:
    """The radius at which a ball about any image holds all others."""
    return np.float32({"linf": 1, "l2": np.sqrt(size), "l1": size}[norm])


def per_image(
    argument: str, value: Any, count: int, *, low: float = 0.0, finite: bool = True
) -> np.ndarray:
    """`value` as (count,) float32 of at least `low`, from one number or one for each image.

    Raises:
      TypeError, ValueError: naming the argument.
    """
    if np.ndim(value) == 0 and (finite or isinstance(value, (bool, str)) or value is None):
        return np.full(count, checks.number(argument, value, low=low), np.float32)
    try:
        array = np.asarray(value, np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"{argument}: a number was expected, given {value!r}") from error
    if array.shape not in ((), (count,)):
        raise ValueError(
            f"{argument}: one number, or one for each of {count} images, was expected, given shape "
            f"{array.shape}"
        )
    wrong = array[~(array >= low) | (finite & np.isinf(array))]
    if wrong.size:
        raise ValueError(
            f"{argument}: numbers of at least {low:g} were expected, given {wrong.flat[0]}"
        )
    return np.broadcast_to(array, count).copy()


_DRAWS = 32


@dataclasses.dataclass(frozen=True)
class Drawing:
    """The `apply` of a network that is a function of a key, with keys among its parameters.

    Attributes:
      apply: takes `key=` beside what every `apply` does, and says so by an attribute `takes_key`.
      draws: how many keys an attack's step averages over.
    """

    apply: Any
    draws: int = 1

    def __call__(self, params: Any, images: Array, **options: Any) -> Array:
        params, key = params
        return self.apply(params, images, key=key, **options)


def draws(model: Model) -> bool:
    """Whether a network says that it is a function of a key."""
    return bool(getattr(model.apply, "takes_key", False))


def drawing(model: Model, eot: int) -> Model:
    """A network that draws as attacks know it, with so many draws a step; any other as it is."""
    return struct.replace(model, apply=Drawing(model.apply, eot)) if draws(model) else model


def bound(model: Model, key: Array) -> Model:
    """One draw of the network that `drawing` gave."""
    return struct.replace(model, params=(model.params, key))


def image_logits(model: Model, image: Array) -> Array:
    """The logits (k,) of one image; of a network that draws, their mean over 32 fixed draws."""
    if not draws(model):
        return model.apply(model.params, image[None])[0]
    network = drawing(model, 1)

    def one(key: Array) -> Array:
        some = bound(network, key)
        return some.apply(some.params, image[None])[0]

    return jax.vmap(one)(jax.random.split(jax.random.key(0), _DRAWS)).mean(0)


def logits_of(model: Model, images: np.ndarray) -> np.ndarray:
    """The logits (n, k) of (n, H, W, C), an image's the same alone and in any batch.

    Raises:
      FloatingPointError: naming `model` and the images, where a logit is NaN or infinite.
    """
    pixels = images.shape[1] * images.shape[2]
    return engine.apply(image_logits, model, images, pixels=pixels)


def predict(model: Model, images: np.ndarray) -> np.ndarray:
    """The classes (n,) of the largest logits; see `logits_of`."""
    return logits_of(model, images).argmax(-1).astype(np.int32)


def watch(
    request: Request,
    callback: Callback | None,
    pictures: Callable[[Any], np.ndarray],
    *,
    rows: np.ndarray | None = None,
    images: np.ndarray | None = None,
    before: int = 0,
) -> Callable[[int, Any, np.ndarray], Any] | None:
    """A caller's callback as the engine takes it.

    Args:
      request: of all images.
      callback: the caller's.
      pictures: the images (m, H, W, C) of what the engine's examples give.
      rows: which of the images the engine's examples are; all by default.
      images: those of the others; the originals by default.
      before: steps that were made before the run.
    """
    if callback is None:
        return None
    rest = request.images if images is None else images
    chosen = np.arange(len(rest)) if rows is None else rows

    def called(step: int, found: Any, losses: np.ndarray) -> Any:
        assert callback is not None
        whole = np.array(rest)
        whole[chosen] = pictures(found)
        scores = np.full((len(whole), losses.shape[1]), np.nan, np.float32)
        scores[chosen] = losses
        if request.single:
            whole, scores = whole[0], scores[0]
        return callback(before + step, whole, scores)

    return called


def failure(rows: np.ndarray) -> Callable[[list[int]], str]:
    """What is said of the images of these numbers whose loss became NaN."""

    def said(examples: list[int]) -> str:
        return (
            f"loss: became NaN or infinite for images {rows[examples].tolist()}; a model with "
            "finite logits and gradients there would be right"
        )

    return said


def conclude(
    request: Request,
    images: np.ndarray,
    *,
    method: str,
    iterations: ArrayLike,
    losses: np.ndarray | None = None,
    **options: Any,
) -> AttackResult:
    """The result of an attack that made `images` of those of the request.

    Args:
      request: what was asked for.
      images: (n, H, W, C) attacked.
      method: the attack's name.
      iterations: (n,) steps until first fooled; where the result does not fool, −1 is put.
      losses: (n, steps); none by default.
      **options: what `config` tells of beside the arguments that all attacks share.
    """
    attacked = np.asarray(images, np.float32)
    levels = np.round(255 * attacked) / np.float32(255)
    predictions, coarse = (predict(request.model, some) for some in (attacked, levels))
    success, rounded = ((p == request.unit) == request.targeted for p in (predictions, coarse))
    if losses is None:
        losses = np.zeros((len(attacked), 0), np.float32)
    arrays = (
        attacked,
        request.images,
        request.labels,
        success,
        predictions,
        request.clean,
        distances(request.images, attacked, request.norm),
        np.where(success, np.asarray(iterations, np.int32), -1),
        losses,
        rounded,
        request.target,
    )
    if request.single:
        arrays = tuple(None if array is None else array[0] for array in arrays)  # type: ignore[assignment]
    config = describe(
        function=method,
        model=request.name,
        images=request.images,
        labels=request.labels,
        target=request.target,
        norm=request.norm,
        key=request.key,
        **options,
    )
    return AttackResult(*arrays, norm=request.norm, classes=request.classes, config=config)  # type: ignore[arg-type]
