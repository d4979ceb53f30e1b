"""What an attack gives back, and how far apart images are."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from rvis import checks, gate
from rvis.plotting import grids
from rvis.results import write
from rvis.types import ArrayLike

NORMS = ("linf", "l2", "l1")
"""What an attack's radius can be measured in."""

MEASURES = (*NORMS, "rms")
"""What distances are measured in; "rms" is Szegedy et al. 2013's √(Σδ²/n)."""


@gate.public
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
    given = {"images": np.asarray(images), "others": np.asarray(others)}
    for name, array in given.items():
        if array.dtype.kind not in "fV":
            raise TypeError(f"{name}: floats in [0, 1] were expected, given {array.dtype}")
        checks.finite(name, array)
    own, moved = (array.astype(np.float64) for array in given.values())
    if own.shape != moved.shape or own.ndim < 2:
        raise ValueError(f"others: {own.shape} was expected, given shape {moved.shape}")
    delta = moved - own
    delta = np.abs(delta).reshape(len(delta), -1)
    if norm == "linf":
        return delta.max(1)
    if norm == "l1":
        return delta.sum(1)
    squares = np.square(delta)
    return np.sqrt(squares.mean(1) if norm == "rms" else squares.sum(1))


@dataclasses.dataclass(frozen=True, eq=False)
class AttackResult:
    """What an attack made of n images; of one image (H, W, C), all of it without the axis n.

    Attributes:
      images: (n, H, W, C) float32 in [0, 1], the attacked ones; where the attack failed, its best
        attempt.
      originals: (n, H, W, C), what it started from.
      labels: (n,) the true classes.
      success: (n,) bool: classified otherwise than as the label, or as the target.
      predictions: (n,) what the model takes `images` for.
      clean: (n,) what it takes `originals` for.
      distances: (n,) ‖images − originals‖ in `norm`.
      iterations: (n,) steps until the model was first fooled, 0 where it was before the attack,
        −1 where it never was.
      losses: (n, steps) the maximised loss before each step; NaN where there was no such step.
      rounded: (n,) bool: the same as `success` of the images in 8 bits, as they are saved.
      target: (n,) the classes to reach; None where it is enough to leave the labels.
      norm: the attack's.
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
    rounded: np.ndarray
    target: np.ndarray | None = None
    norm: str = "linf"
    classes: tuple[str, ...] = ()
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def targeted(self) -> bool:
        """Whether there are targets."""
        return self.target is not None

    @property
    def solved(self) -> np.ndarray:
        """(n,) bool, whether `originals` themselves fool the model."""
        if self.target is None:
            return self.clean != self.labels
        return self.clean == self.target

    @property
    def accuracy(self) -> float:
        """The share of images that were not fooled."""
        return float((~np.asarray(self.success)).mean())

    def distance(self, norm: str) -> np.ndarray:
        """‖images − originals‖ in any norm, (n,); see `distances`."""
        batch = self._batched()
        found = distances(batch.originals, batch.images, norm)
        return found.reshape(self.images.shape[:-3])

    def _batched(self) -> AttackResult:
        """The same with the axis n, where it is of one image."""
        if self.images.ndim == 4:
            return self
        whole: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, (np.ndarray, np.generic)):
                whole[field.name] = np.asarray(value)[None]
        return dataclasses.replace(self, **whole)

    def show(self, count: int = 12) -> PIL.Image.Image:
        """The first `count` images: original, difference amplified, and attacked, a row for each.

        Grey is no difference; a row's largest is black or white.
        """
        checks.count("count", count)
        self = self._batched()
        rows = [self._row(i) for i in range(min(count, len(self.images)))]
        titles = ["original", "difference", "attacked"]
        return grids.grid(
            rows, titles=titles, row_titles=[self._story(i) for i in range(len(rows))]
        )

    def save(self, folder: str | Path) -> Path:
        """Writes a PNG of each attacked image, the arrays, a JSON card and the figure.

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
          ['arrays.npz', 'card.json', 'figure.png', 'images']
        """
        self = self._batched()
        told = self.told()
        arrays = {name: getattr(self, name) for name in ("images", "originals", "losses")}
        arrays |= {name: value for name, value in told.items() if isinstance(value, np.ndarray)}
        return write(
            folder,
            pictures=zip(map(self._name, self.predictions), self.images, strict=True),
            arrays=arrays,
            figure=self.show(),
            card={
                "norm": self.norm,
                "targeted": self.targeted,
                "accuracy": self.accuracy,
                **told,
                "config": dict(self.config),
            },
        )

    def told(self) -> dict[str, Any]:
        """What the card says of the images beside what it says of all."""
        names = ("labels", "clean", "predictions", "success", "rounded", "distances", "iterations")
        return {name: getattr(self, name) for name in names}

    def _name(self, number: int) -> str:
        return self.classes[number] if self.classes else f"class {number}"

    def _row(self, i: int) -> np.ndarray:
        delta = self.images[i] - self.originals[i]
        most = np.abs(delta).max()
        amplified = 0.5 + delta / (2 * most) if most > 0 else np.full_like(delta, 0.5)
        rows = np.stack([self.originals[i], amplified, self.images[i]])
        return np.clip(rows, 0, 1).astype(np.float32)

    def _story(self, i: int) -> str:
        return f"{self._name(self.clean[i])} > {self._name(self.predictions[i])}"
