"""Inversion layer by layer: the plate, and what each layer keeps and forgets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from rvis import checks, engine, files, gate
from rvis.analysis import ranking, representations
from rvis.data import Dataset
from rvis.inversion.layers import invert
from rvis.plotting import grids
from rvis.results import describe, write
from rvis.types import ArrayLike, Model, layer_shapes

_NO_MATTER = ("progress", "chunk", "callback")
"""Options on which pictures do not depend."""
_REFERENCES = 200
"""Reference images, evenly spread, which say how far apart representations usually are."""


@dataclasses.dataclass(frozen=True, eq=False)
class LayerInversions:
    """Reconstructions of n images from L layers, s of each, and what became of them.

    Attributes:
      layers: L names, in order of execution.
      originals: (n, H, W, C) float32 in [0, 1].
      images: (L, n, s, H, W, C) float32 in [0, 1].
      errors: (L, n, s) ‖Φ − Φ₀‖ / ‖Φ₀‖.
      normalised_errors: (L, n, s) ‖Φ − Φ₀‖² over the mean squared distance of two references, as
        the paper reports it.
      psnr: (L, n, s) in dB, to the original.
      ssim: (L, n, s) to the original.
      spread: (L, n) root mean squared difference of pixels between two reconstructions, the mean
        over pairs; NaN where s is 1.
      spread_ssim: (L, n) SSIM of two reconstructions, the mean over pairs.
      neighbours: (L, n, s) number of the reference image nearest in pixels, other than the
        original; empty without references.
      neighbour_distances: (L, n, s) ‖x − neighbour‖₂.
      config: the arguments and versions, as JSON-able values.
    """

    layers: tuple[str, ...]
    originals: np.ndarray
    images: np.ndarray
    errors: np.ndarray
    normalised_errors: np.ndarray
    psnr: np.ndarray
    ssim: np.ndarray
    spread: np.ndarray
    spread_ssim: np.ndarray
    neighbours: np.ndarray
    neighbour_distances: np.ndarray
    config: Mapping[str, Any]

    def table(self) -> list[dict[str, Any]]:
        """One row a layer: the means over images and samples.

        "nearer" is the share of reconstructions that are nearer to their original than to any
        reference image, in pixels; None without references.
        """
        rows = []
        gaps = self.images - self.originals[:, None]
        gap = np.sqrt(np.square(gaps, dtype=np.float64).sum((3, 4, 5)))
        for i, layer in enumerate(self.layers):
            row: dict[str, Any] = {"layer": layer}
            row["error"] = float(self.errors[i].mean())
            row["normalised_error"] = float(self.normalised_errors[i].mean())
            for name in ("psnr", "ssim", "spread", "spread_ssim"):
                row[name] = float(getattr(self, name)[i].mean())
            row["nearer"] = None
            if self.neighbours.size:
                row["nearer"] = float((gap[i] < self.neighbour_distances[i]).mean())
            rows.append(row)
        return rows

    def show(self, image: int | None = None) -> PIL.Image.Image:
        """The plate: a row for each layer below the original.

        Args:
          image: with a column for each sample of this image; or None, with a column for each image
            and its first sample.

        Raises:
          ValueError, TypeError: naming `image`, out of range.
        """
        if image is None:
            top, rows = self.originals, self.images[:, :, 0]
        else:
            n = len(self.originals)
            number = int(checks.integers("image", image, high=n, what="the originals"))
            rows = self.images[:, number]
            top = self.originals[number : number + 1]
        return grids.grid([top, *rows], row_titles=["original", *self.layers])

    def save(self, folder: str | Path) -> Path:
        """Writes a PNG of each reconstruction, the arrays, a JSON card and the plate.

        Raises:
          OSError: naming the path, on a full disk or without permission.
        """
        fields = ("errors", "normalised_errors", "psnr", "ssim", "spread", "spread_ssim")
        each = {name: getattr(self, name) for name in fields}
        each |= {"neighbours": self.neighbours, "neighbour_distances": self.neighbour_distances}
        names = [
            f"{layer}_image{i}_sample{j}"
            for layer in self.layers
            for i in range(self.images.shape[1])
            for j in range(self.images.shape[2])
        ]
        flat = self.images.reshape(-1, *self.images.shape[3:])
        return write(
            folder,
            pictures=zip(names, flat, strict=True),
            arrays={"images": self.images, "originals": self.originals, **each},
            figure=self.show(),
            card={
                "table": self.table(),
                "layers": self.layers,
                **each,
                "config": dict(self.config),
            },
        )


@gate.public
def invert_layers(
    model: Model,
    images: ArrayLike,
    layers: Sequence[str] | None = None,
    *,
    samples: int = 2,
    references: Dataset | None = None,
    checkpoint: files.PathLike | None = None,
    **options: Any,
) -> LayerInversions:
    """Reconstructions from layer after layer, and how much of the image each still holds.

    Args:
      model: any model.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      layers: names of `model.layers`; by default those that are not inside another (`layer1`, but
        not `layer1.0.conv1`).
      samples: independent reconstructions of each image; their spread needs 2.
      references: real images of the same size: the pixels' nearest neighbours, and what errors are
        compared with (200 of them, evenly spread). Without them the images themselves serve for the
        latter.
      checkpoint: a folder for the state of an interrupted run; the same call then goes on.
      **options: of `invert`.

    Returns:
      `LayerInversions`.

    Raises:
      ValueError, TypeError: naming the argument, before anything is compiled.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis.inversion import invert_layers
      >>> model = rvis.load("mnist_cnn")
      >>> digits = np.random.default_rng(0).random((2, 28, 28, 1), np.float32)
      >>> found = invert_layers(model, digits, ["conv1", "pool1"], steps=3)
      >>> [row["layer"] for row in found.table()], found.images.shape
      (['conv1', 'pool1'], (2, 2, 2, 28, 28, 1))

    Reference: Mahendran & Vedaldi 2014, figures 6 and 7, table 3.
    """
    originals = np.asarray(checks.images("images", images, channels=model.input_shape[2]))
    shape: tuple[int, int, int] = originals.shape[1:]  # type: ignore[assignment]
    chosen = _outermost(model, shape) if layers is None else _ordered(model, layers, shape)
    if references is not None:
        ranking.check_dataset("references", references, model)
        if references.images.shape[1:] != shape:
            raise ValueError(
                f"references: images of {shape} were expected, given {references.images.shape[1:]}"
            )

    def reconstruct(
        carry: engine.Carry, folder: Path | None, *, layer: str
    ) -> tuple[np.ndarray, ...]:
        """The pictures of one more layer."""
        found = invert(model, originals, layer, samples=samples, checkpoint=folder, **options)
        return *carry, found.images.reshape(len(originals), samples, *shape)

    kept = {name: value for name, value in options.items() if name not in _NO_MATTER}
    pictures = np.stack(
        engine.in_stages(
            [partial(reconstruct, layer=layer) for layer in chosen],
            (),
            about=(originals, chosen, samples, repr(describe(**kept)), model.unnamed()),
            checkpoint=checkpoint,
        )
    )
    flat = pictures.reshape(len(chosen), -1, *shape)
    measured: dict[str, list[np.ndarray]] = {name: [] for name in _MEASURES}
    for layer, some in zip(chosen, flat, strict=True):
        measures = _measured(model, np.repeat(originals, samples, 0), layer, some, references)
        for name, values in zip(_MEASURES, measures, strict=True):
            measured[name].append(values.reshape(len(originals), samples))
    spreads = np.asarray([[representations.spread(some) for some in layer] for layer in pictures])
    near, far = _nearest(originals, pictures, references)
    config = describe(
        function="invert_layers",
        model=model.name,
        images=originals,
        layers=chosen,
        samples=samples,
        references=None if references is None else references.name,
        **kept,
    )
    return LayerInversions(
        chosen,
        originals,
        pictures,
        **{name: np.stack(values) for name, values in measured.items()},
        spread=spreads[..., 0],
        spread_ssim=spreads[..., 1],
        neighbours=near,
        neighbour_distances=far,
        config=config,
    )


def _outermost(model: Model, shape: tuple[int, int, int]) -> tuple[str, ...]:
    names = [name for name in model.layers if name in layer_shapes(model, shape)]
    inside = {name for name in names for other in names if name.startswith(f"{other}.")}
    return tuple(name for name in names if name not in inside)


def _ordered(model: Model, layers: Sequence[str], shape: tuple[int, int, int]) -> tuple[str, ...]:
    if isinstance(layers, str) or not len(layers):
        raise TypeError(f"layers: a list of layers' names was expected, given {layers!r}")
    reached = layer_shapes(model, shape)
    for layer in layers:
        checks.choice("layers", layer, reached)
    return tuple(name for name in reached if name in layers)


_MEASURES = ("errors", "normalised_errors", "psnr", "ssim")


def _measured(
    model: Model,
    originals: np.ndarray,
    layer: str,
    pictures: np.ndarray,
    references: Dataset | None,
) -> tuple[np.ndarray, ...]:
    """`_MEASURES` of as many pictures as originals, which stand there once for each sample."""
    expected = representations.encode(model, originals, layer)
    reached = representations.encode(model, pictures, layer)
    others = expected[np.unique(originals, axis=0, return_index=True)[1]]
    if references is not None:
        some = np.linspace(0, len(references) - 1, min(_REFERENCES, len(references)))
        others = representations.encode(model, references.floats(some.astype(int)), layer)
    usual = representations.mean_squared_distance(others)
    return (
        representations.relative_errors(reached, expected),
        np.square(representations.distances(reached, expected)) / usual,
        representations.psnr(pictures, originals),
        representations.ssim(pictures, originals),
    )


def _nearest(
    given: np.ndarray, pictures: np.ndarray, references: Dataset | None
) -> tuple[np.ndarray, np.ndarray]:
    """The number of each picture's nearest reference but its original, and the distance to it."""
    if references is None:
        return np.zeros(0, int), np.zeros(0)
    lead = pictures.shape[:3]
    flat = pictures.reshape(np.prod(lead), -1).astype(np.float64)
    squares = np.square(flat).sum(1)[:, None]
    originals = np.floor(255 * given + 0.5).astype(np.uint8).reshape(len(given), -1)
    best, least = np.zeros(len(flat), int), np.full(len(flat), np.inf)
    for numbers, piece in ranking.pieces(references):
        here = piece[: len(numbers)].reshape(len(numbers), -1).astype(np.float64)
        apart = squares - 2 * flat @ here.T + np.square(here).sum(1)
        stored = references.images[numbers.start : numbers.stop].reshape(len(numbers), -1)
        same = (originals[:, None] == stored).all(-1)
        apart[np.broadcast_to(same[None, :, None], (*lead, len(numbers))).reshape(apart.shape)] = (
            np.inf
        )
        nearest = apart.argmin(1)
        value = apart[np.arange(len(flat)), nearest]
        best = np.where(value < least, nearest + numbers.start, best)
        least = np.minimum(value, least)
    return best.reshape(lead), np.sqrt(np.maximum(least, 0)).reshape(lead)
