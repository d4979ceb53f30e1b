"""What an attack is asked for, checked before anything compiles, and what it gives back."""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image

from rvis import checks, files, plots
from rvis.results import describe
from rvis.types import LOGITS, Array, ArrayLike, KeyLike, Model, as_key, layer_shapes

NORMS = ("linf", "l2", "l1")
"""What an attack's radius can be measured in."""

MEASURES = (*NORMS, "rms")
"""What distances are measured in; "rms" is Szegedy et al. 2013's √(Σδ²/n)."""


def distances(images: ArrayLike, others: ArrayLike, norm: str) -> np.ndarray:
    """‖others − images‖ for each image, in units of the [0, 1] image.

    Args:
      images: (n, H, W, C).
      others: likewise.
      norm: "linf", "l2", "l1", or "rms" for √(Σδ²/(H·W·C)), the distortion of Szegedy et al. 2013
        (Intriguing properties of neural networks, section 4).

    Returns:
      (n,) float64.

    Raises:
      ValueError: naming `norm`.

    Example:
      >>> import numpy as np
      >>> from rvis.attacks import distances
      >>> black = np.zeros((1, 2, 2, 1))
      >>> [float(distances(black, black + 0.5, norm)[0]) for norm in ("linf", "l2", "l1", "rms")]
      [0.5, 1.0, 2.0, 0.5]
    """
    checks.choice("norm", norm, MEASURES)
    delta = np.asarray(others, np.float64) - np.asarray(images, np.float64)
    delta = np.abs(delta).reshape(len(delta), -1)
    if norm == "linf":
        return delta.max(1)
    if norm == "l1":
        return delta.sum(1)
    squares = np.square(delta)
    return np.sqrt(squares.mean(1) if norm == "rms" else squares.sum(1))


@dataclasses.dataclass(frozen=True, eq=False)
class AttackResult:
    """What an attack made of n images.

    Attributes:
      images: (n, H, W, C) float32 in [0, 1], the attacked ones; where the attack failed, its best
        attempt.
      originals: (n, H, W, C), what it started from.
      labels: (n,) the true classes, or the targets of a targeted attack.
      success: (n,) bool: classified otherwise than as the label, or as the target.
      predictions: (n,) what the model takes `images` for.
      clean: (n,) what it takes `originals` for.
      distances: (n,) ‖images − originals‖ in `norm`.
      iterations: (n,) steps until the model was first fooled, 0 where it was before the attack,
        −1 where it never was.
      losses: (n, steps) the maximised loss before each step; NaN where there was no such step.
      norm: the attack's.
      targeted: whether `labels` are targets.
      classes: the model's names for its classes, perhaps none.
      config: the arguments and package versions, as JSON-able values.
    """

    images: np.ndarray
    originals: np.ndarray
    labels: np.ndarray
    success: np.ndarray
    predictions: np.ndarray
    clean: np.ndarray
    distances: np.ndarray
    iterations: np.ndarray
    losses: np.ndarray
    norm: str
    targeted: bool = False
    classes: tuple[str, ...] = ()
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        """The share of images that were not fooled."""
        return float(1 - self.success.mean())

    def distance(self, norm: str) -> np.ndarray:
        """‖images − originals‖ in any norm, (n,); see `distances`."""
        return distances(self.originals, self.images, norm)

    def show(self, count: int = 12) -> PIL.Image.Image:
        """The first `count` images: original, difference amplified, and attacked, a row for each.

        Grey is no difference; a row's largest is black or white.
        """
        checks.count("count", count)
        rows = [self._row(i) for i in range(min(count, len(self.images)))]
        titles = ["original", "difference", "attacked"]
        return plots.grid(
            rows, titles=titles, row_titles=[self._story(i) for i in range(len(rows))]
        )

    def save(self, folder: str | Path) -> Path:
        """Writes a PNG an image, the grid of the first, the images and a JSON card into `folder`.

        Raises:
          OSError: naming the path, on a full disk or without permission.

        Example:
          >>> import tempfile, numpy as np, rvis
          >>> from rvis import attacks
          >>> model = rvis.load("mnist_cnn")
          >>> digit = np.full((28, 28, 1), 0.5, np.float32)
          >>> result = attacks.fgsm(model, digit, 3, norm="linf", eps=0.1)
          >>> with tempfile.TemporaryDirectory() as folder:
          ...     sorted(path.name for path in result.save(folder).iterdir())
          ['00000.png', 'attack.json', 'grid.png', 'images.npy']
        """
        place = Path(folder)
        names = []
        for i in range(len(self.images)):
            names.append(f"{i:05d}.png")
            plots.save(
                plots.grid(self._row(i), titles=self._titles(i), columns=3), place / names[i]
            )
        plots.save(self.show(), place / "grid.png")
        with files.atomic(place / "images.npy") as temporary, open(temporary, "wb") as stream:
            np.save(stream, self.images)
        card = {
            "images": names,
            "norm": self.norm,
            "targeted": self.targeted,
            "accuracy": self.accuracy,
            "labels": self.labels,
            "clean": self.clean,
            "predictions": self.predictions,
            "success": self.success,
            "distances": self.distances,
            "iterations": self.iterations,
            "config": dict(self.config),
        }
        files.write_json(place / "attack.json", card)
        return place

    def _name(self, number: int) -> str:
        return self.classes[number] if self.classes else f"class {number}"

    def _row(self, i: int) -> np.ndarray:
        delta = self.images[i] - self.originals[i]
        most = np.abs(delta).max()
        amplified = 0.5 + delta / (2 * most) if most > 0 else np.full_like(delta, 0.5)
        rows = np.stack([self.originals[i], amplified, self.images[i]])
        return np.clip(rows, 0, 1).astype(np.float32)

    def _titles(self, i: int) -> list[str]:
        most = float(np.abs(self.images[i] - self.originals[i]).max())
        scale = f"x {0.5 / most:.3g}" if most > 0 else "none"
        return [self._name(self.clean[i]), scale, self._name(self.predictions[i])]

    def _story(self, i: int) -> str:
        return f"{self._name(self.clean[i])} > {self._name(self.predictions[i])}"


@dataclasses.dataclass(frozen=True)
class Request:
    """Checked arguments that every attack shares, on the host.

    Attributes:
      model: without its names, as compiled programs know it.
      name: its own.
      classes: its names for its classes.
      images: (n, H, W, C) float32.
      labels: (n,) int32 true classes, or targets.
      targeted: which of the two.
      norm: one of `NORMS`.
      eps: (n,) float32, the radius for each image; at most that of a ball about any image that
        holds all others.
      key: a typed key.
      numbers: (n,) uint32, what is folded into it for each image.
      outputs: how many logits the model has.
    """

    model: Model
    name: str
    classes: tuple[str, ...]
    images: np.ndarray
    labels: np.ndarray
    targeted: bool
    norm: str
    eps: np.ndarray
    key: Array
    numbers: np.ndarray
    outputs: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return self.images.shape[1:]  # type: ignore[return-value]

    @property
    def keys(self) -> Array:
        """(n,) the images' own typed keys."""
        return own_keys(self.key, self.numbers)

    @functools.cached_property
    def clean(self) -> np.ndarray:
        """(n,) the model's classes of `images`; the first thing for which it is run."""
        return predict(self.model, self.images)

    @property
    def solved(self) -> np.ndarray:
        """Where the model is fooled already, (n,) bool."""
        return (self.clean == self.labels) == self.targeted

    def rows(self, rows: np.ndarray) -> Request:
        """The same for some of the images."""
        chosen = {name: getattr(self, name)[rows] for name in _EACH}
        some = dataclasses.replace(self, **chosen)
        vars(some)["clean"] = self.clean[rows]
        return some


_EACH = ("images", "labels", "eps", "numbers")


@jax.jit
def own_keys(key: Array, numbers: ArrayLike) -> Array:
    """A key with each of n numbers folded in."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)


def prepare(
    model: Model,
    images: ArrayLike,
    labels: Any,
    *,
    norm: str,
    eps: Any = np.inf,
    targeted: bool = False,
    key: KeyLike = 0,
    norms: Sequence[str] = NORMS,
) -> Request:
    """Checks what every attack takes.

    An image's key is folded from its bits, so that it meets the same chances alone and in any
    batch, and two images of a batch different ones.

    Args:
      model: any model.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      labels: (n,) or one class: true ones, or targets.
      norm: one of `norms`.
      eps: a number of at least 0, or (n,); inf for the whole of [0, 1].
      targeted: whether `labels` are targets.
      key: an int seed or a typed key.
      norms: those that the attack knows.

    Raises:
      TypeError, ValueError: naming the argument.
    """
    if not isinstance(model, Model):
        raise TypeError(f"model: an rvis.Model was expected, given {type(model).__name__}")
    batch = np.asarray(checks.images("images", images, channels=model.input_shape[2]))
    count = len(batch)
    shapes = layer_shapes(model, batch.shape[1:])
    if LOGITS not in shapes:
        raise ValueError(
            f"images: {model.name} takes images of {model.input_shape}, given {batch.shape[1:]}"
        )
    if not isinstance(targeted, (bool, np.bool_)):
        raise TypeError(f"targeted: True or False was expected, given {targeted!r}")
    classes = checks.integers("labels", labels, high=shapes[LOGITS][-1], what="the logits")
    if classes.shape not in ((), (1,), (count,)):
        raise ValueError(
            f"labels: one, or one for each of {count} images, was expected, given shape "
            f"{classes.shape}"
        )
    checks.choice("norm", norm, norms)
    root = as_key(key)
    return Request(
        model.unnamed(),
        model.name,
        model.classes,
        batch,
        np.broadcast_to(classes, count).astype(np.int32),
        bool(targeted),
        norm,
        np.minimum(per_image("eps", eps, count, finite=False), _widest(norm, batch[0].size)),
        root,
        np.asarray([zlib.crc32(image.tobytes()) for image in batch], np.uint32),
        shapes[LOGITS][-1],
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
    except (TypeError, ValueError) as error:
        raise TypeError(f"{argument}: a number was expected, given {value!r}") from error
    if array.shape not in ((), (1,), (count,)):
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


def lanes(shape: Sequence[int]) -> int:
    """How many images an attack computes side by side; a function of their size alone.

    On a CPU eight small ones fit the cache. The number is fixed, so that an image meets the same
    program, and to the bit the same result, alone and in any batch.

    Example:
      >>> from rvis.attacks.result import lanes
      >>> lanes((224, 224, 3)) <= lanes((32, 32, 3))
      True
    """
    pixels = shape[0] * shape[1]
    if jax.default_backend() == "cpu":
        return max(1, min(8, 8192 // pixels))
    return max(1, min(512, 2**22 // pixels))


def filled(count: int, width: int) -> Iterator[tuple[np.ndarray, int]]:
    """Rows 0 … count − 1 in groups of `width`, the last filled up, and how many of them count."""
    for first in range(0, count, width):
        yield np.minimum(np.arange(first, first + width), count - 1), min(width, count - first)


@jax.jit
def _logits(model: Model, images: Array) -> Array:
    return model.apply(model.params, images)


def logits(model: Model, images: np.ndarray) -> np.ndarray:
    """The logits (n, k) of (n, H, W, C), an image's the same to the bit alone and in any batch."""
    model = model.unnamed()
    found = [
        np.asarray(_logits(model, jnp.asarray(images[rows])))[:some]
        for rows, some in filled(len(images), lanes(images.shape[1:]))
    ]
    return np.concatenate(found)


def predict(model: Model, images: np.ndarray) -> np.ndarray:
    """The classes (n,) of (n, H, W, C); see `logits`."""
    return logits(model, images).argmax(-1).astype(np.int32)


def conclude(
    request: Request,
    images: ArrayLike,
    *,
    method: str,
    iterations: ArrayLike,
    losses: ArrayLike | None = None,
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
    predictions = predict(request.model, attacked)
    success = (predictions == request.labels) == request.targeted
    if losses is None:
        losses = np.zeros((len(attacked), 0), np.float32)
    config = describe(
        function=method,
        model=request.name,
        images=request.images,
        labels=request.labels,
        norm=request.norm,
        targeted=request.targeted,
        key=request.key,
        **options,
    )
    return AttackResult(
        attacked,
        request.images,
        request.labels,
        success,
        predictions,
        request.clean,
        distances(request.images, attacked, request.norm),
        np.where(success, np.asarray(iterations, np.int32), -1),
        np.asarray(losses),
        request.norm,
        request.targeted,
        request.classes,
        config,
    )
