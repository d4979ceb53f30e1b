"""A layer's activations over a data set, a few images at once, from the network or from a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.lib import format as npy

from rvis import checks, engine, files, gate
from rvis.analysis import ranking
from rvis.concepts.dictionary import Concepts
from rvis.concepts.factors import clustered, factorized, principal
from rvis.data import Dataset
from rvis.engine import checkpoints
from rvis.types import KeyLike, Model, as_key


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """Where activations come from.

    Attributes:
      model, layer, dataset: whose.
      shape: of the layer for one image, (h, w, C) or (C,).
      stored: (n, *shape) float16, where they are in a file.
    """

    model: Model
    layer: str
    dataset: Dataset
    shape: tuple[int, ...]
    stored: np.ndarray | None = None

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        """(m, h, w, C) float32 of some images; h and w are 1 for a dense layer."""
        if self.stored is not None:
            found = np.asarray(self.stored[numbers], np.float32)
        else:
            images = self.dataset.floats(numbers)
            found = ranking.each(ranking.Activations(self.layer), self.model, images, many=True)
        return found if found.ndim == 4 else found[:, None, None]

    @property
    def places(self) -> int:
        """How many activation vectors an image has."""
        return int(np.prod(self.shape[:-1]))

    def pieces(
        self, *, chunk: int | None = None, progress: bool = True
    ) -> Iterator[tuple[range, np.ndarray]]:
        """(numbers, activations) of all images, some megabytes at once."""
        size = chunk or max(16, 2**22 // (self.places * self.shape[-1]))
        starts = range(0, len(self.dataset), size)
        for first in engine.counted(starts, f"{self.model.name} {self.layer}", progress=progress):
            numbers = range(first, min(first + size, len(self.dataset)))
            yield numbers, self.rows(np.asarray(numbers))


def source(
    model: Model,
    layer: str,
    dataset: Dataset,
    *,
    store: files.PathLike | None = None,
    chunk: int | None = None,
    progress: bool = True,
) -> Source:
    """Checked activations; with `store` they are computed once and kept in that file as float16.

    Raises:
      TypeError, ValueError: naming the argument; `store`, for a file of other activations.
    """
    ranking.check_dataset("dataset", dataset, model)
    shape = ranking.layer_shape(model, layer, dataset.images.shape[1:], argument="dataset")
    if len(shape) not in (1, 3):
        raise ValueError(f"layer: (h, w, C) or (C,) was expected, given {layer!r} of shape {shape}")
    if chunk is not None:
        checks.count("chunk", chunk)
    found = Source(model, layer, dataset, shape)
    if store is None:
        return found
    path = files.as_path("store", store)
    if path.suffix != ".npy":
        raise ValueError(f"store: a name ending in .npy was expected, given {str(path)!r}")
    card, about = path.with_suffix(".txt"), ""
    about = checkpoints.fingerprint(model.params, model.apply, layer, dataset.images)
    if not path.exists():
        with files.atomic(path) as beside, open(beside, "wb") as stream:
            header = {"descr": "<f2", "fortran_order": False}
            npy.write_array_header_1_0(stream, {**header, "shape": (len(dataset), *shape)})
            for _, piece in found.pieces(chunk=chunk, progress=progress):
                stream.write(np.ascontiguousarray(piece, "<f2").tobytes())
            files.write_text(card, about)
    if not card.exists() or card.read_text(encoding="utf-8") != about:
        raise ValueError(f"store: {path} holds other activations; delete it or choose another")
    return dataclasses.replace(found, stored=np.load(path, mmap_mode="r"))


METHODS = {"nmf": factorized, "pca": principal, "kmeans": clustered}
_CROP = 2 / 7
"""The side of a crop as a share of the image's: CRAFT's 64 of 224 pixels."""


@gate.public
def fit(
    model: Model,
    layer: str,
    dataset: Dataset,
    k: int,
    *,
    method: str = "nmf",
    crops: int = 0,
    key: KeyLike = 0,
    steps: int = 200,
    chunk: int | None = None,
    progress: bool = True,
) -> Concepts:
    """A layer's concepts over a data set, by a factorization or by clusters.

    Args:
      model: any model.
      layer: a name of `model.layers`; for "nmf" one without negative activations.
      dataset: of images that the model takes; all of their activations are in memory.
      k: how many concepts.
      method: "nmf", "pca", or "kmeans".
      crops: random square windows of each image, two sevenths of its side, each enlarged to the
        whole and averaged over the places, as CRAFT does; with 0 each place of each image counts
        by itself.
      key: of crops and of random starts.
      steps: rounds of "nmf" and "kmeans" at most.
      chunk: images at once, a bound on memory.
      progress: a bar on a terminal.

    Raises:
      TypeError, ValueError: naming the argument.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import concepts
      >>> images = np.random.default_rng(0).integers(0, 256, (6, 28, 28, 1), np.uint8)
      >>> noise = rvis.data.Dataset(images, np.zeros(6, np.int32), ("noise",), "noise")
      >>> concepts.fit(rvis.load("mnist_cnn"), "relu2", noise, 5).decode.vectors.shape
      (5, 64)

    Reference: Fel et al. 2022, CRAFT: Concept Recursive Activation FacTorization, section 3.1.
    """
    checks.choice("method", method, METHODS)
    root = as_key(key)
    from_data = source(model, layer, dataset, chunk=chunk)
    size = len(dataset) * (crops or from_data.places)
    if checks.count("k", k) > min(size, from_data.shape[-1] if method != "kmeans" else size):
        raise ValueError(f"k: fewer concepts were expected of {size} activations, given {k}")
    parts = []
    for numbers, piece in from_data.pieces(chunk=chunk, progress=progress) if not crops else ():
        del numbers
        parts.append(piece.reshape(-1, piece.shape[-1]))
    if crops:
        rng = np.random.default_rng(np.asarray(jax.random.key_data(root)).tolist())
        for _, images in ranking.pieces(dataset, chunk=chunk):
            cut = _cropped(np.repeat(images, crops, 0), rng)
            found = ranking.each(ranking.Activations(layer), model, cut, many=True)
            parts.append(found.reshape(len(found), -1, found.shape[-1]).mean(1))
    rows = np.concatenate(parts)
    if method == "nmf" and rows.min() < 0:
        raise ValueError(
            f"layer: one without negative activations, as after a ReLU, was expected for 'nmf', "
            f"given {layer!r} with {rows.min():.4g}"
        )
    options: dict[str, Any] = {"key": jax.random.fold_in(root, 1), "steps": steps}
    return METHODS[method](rows, k, layer, **options)


def _cropped(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random window of each image, enlarged to its whole size."""
    n, height, width, channels = images.shape
    side = max(1, round(_CROP * min(height, width)))
    tops = rng.integers(0, height - side + 1, n)
    lefts = rng.integers(0, width - side + 1, n)
    windows = np.stack(
        [x[t : t + side, s : s + side] for x, t, s in zip(images, tops, lefts, strict=True)]
    )
    shape = (n, height, width, channels)
    return np.clip(np.asarray(jax.image.resize(jnp.asarray(windows), shape, "linear")), 0, 1)
