"""What concepts do to classes: by gradient, by leaving them out, and image by image with maps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image

from rvis import checks, engine, gate, kernels
from rvis.analysis.metrics import spearman
from rvis.analysis.questions import Score, ask
from rvis.concepts.dictionary import Concepts, attach, check_concepts
from rvis.models import taps
from rvis.objectives import Objective
from rvis.plotting import grids
from rvis.results import describe, write
from rvis.types import Array, ArrayLike, Model, Units, check_classes


@dataclasses.dataclass(frozen=True, eq=False)
class Effects:
    """What m concepts give to each logit, in the mean of some images.

    Attributes:
      numbers: (m,) the concepts.
      gradient: (m, classes) Σ over the places of concept × ∂logit/∂concept.
      ablation: (m, classes) the logit less the logit without the concept.
      correlation: (m,) Spearman's, of the two over the classes.
    """

    numbers: np.ndarray
    gradient: np.ndarray
    ablation: np.ndarray
    correlation: np.ndarray


@gate.public
def effects(
    model: Model,
    concepts: Concepts,
    images: ArrayLike,
    numbers: Units | None = None,
    *,
    chunk: int | None = None,
    progress: bool = True,
) -> Effects:
    """What concepts give to all logits, by gradient × activation and by ablation.

    Args:
      model: any classifier.
      concepts: of one of its layers.
      images: (n, H, W, C) that all concepts are looked for in, or (m, n, H, W, C), each concept's
        own, such as its top images; float32 in [0, 1].
      numbers: (m,) concepts; all by default.
      chunk: images at once, a bound on memory.
      progress: a bar on a terminal.

    Raises:
      TypeError, ValueError: naming the argument.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import concepts
      >>> model, directions = rvis.load("mnist_cnn"), concepts.channels("relu2", 64)
      >>> images = np.random.default_rng(0).random((2, 28, 28, 1)).astype(np.float32)
      >>> concepts.effects(model, directions, images, [3, 5]).ablation.shape
      (2, 10)
    """
    check_classes(model)
    check_concepts(model, concepts)
    chosen = concepts.numbers(numbers)
    given = np.asarray(images)
    if given.ndim not in (4, 5) or (given.ndim == 5 and len(given) != len(chosen)):
        raise ValueError(
            f"images: (n, H, W, C), or ({len(chosen)}, n, H, W, C), was expected, given shape "
            f"{given.shape}"
        )
    flat = given.reshape(-1, *given.shape[-3:])
    batch = np.asarray(checks.images("images", flat, channels=model.input_shape[2]))
    check_concepts(model, concepts, batch.shape[1:])
    batch = np.broadcast_to(batch.reshape(given.shape), (len(chosen), *given.shape[-4:]))
    both, by_t = attach(model, concepts), _ByStrength(f"{concepts.layer}.concepts")
    options: dict[str, Any] = {"pixels": int(np.prod(batch.shape[2:4])), "chunk": chunk}
    found = []
    for number, own in engine.counted(
        list(zip(chosen, batch, strict=True)), "effects", progress=progress
    ):
        problems = (own, np.full(len(own), number, np.int32))
        found.append([leaf.mean(0) for leaf in engine.apply(by_t, both, problems, **options)])
    gradient, ablation = (np.stack(part) for part in zip(*found, strict=True))
    return Effects(chosen, gradient, ablation, spearman(gradient, ablation))


@dataclasses.dataclass(frozen=True)
class _ByStrength:
    """How all logits change where one concept is t times as strong: their slope at t = 1, and
    those at 1 less those at 0.
    """

    layer: str

    def __call__(self, model: Model, problem: tuple[Array, Array]) -> tuple[Array, Array]:
        image, number = problem

        def logits(t: Array) -> Array:
            def tap(name: str, z: Array) -> Array:
                if name != self.layer:
                    return z
                return z.at[..., number].multiply(t)

            return model.apply(model.params, image[None], tap=tap, relu=jax.nn.relu)[0]

        one = jnp.ones((), image.dtype)
        # One forward derivative has all classes; the kernels know backward ones alone.
        with kernels.stock():
            whole, slope = jax.jvp(logits, (one,), (one,))
            return slope, whole - logits(jnp.zeros_like(one))


@dataclasses.dataclass(frozen=True, eq=False)
class Relevance:
    """Which concepts a score came from, in each of n images; of one image without the axis n.

    Attributes:
      images: (n, H, W, C).
      labels: (n,) titles of the targets.
      scores: (n,) f(x).
      relevances: (n, k) what each concept gives: Σ over the places of concept × ∂f/∂concept.
      rest: (n,) the same of what the concepts leave out of the activations.
      numbers: (n, t) the concepts of the largest magnitudes, largest first.
      maps: (n, t, H, W) where their relevance is in the layer, enlarged.
      pixels: (n, t, H, W) input × gradient of their relevance: what in the image is behind it.
      names: of all concepts.
      config: the arguments and versions, as JSON-able values.
    """

    images: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    relevances: np.ndarray
    rest: np.ndarray
    numbers: np.ndarray
    maps: np.ndarray
    pixels: np.ndarray
    names: tuple[str, ...]
    config: Mapping[str, Any]

    def show(self) -> PIL.Image.Image:
        """Two rows an image: its concepts' maps, with their numbers and relevances, and pixels."""
        images = self.images.reshape(-1, *self.images.shape[-3:])
        t = self.numbers.shape[-1]
        shape = (len(images), t, *images.shape[1:3])
        numbers, relevances = self.numbers.reshape(-1, t), self.relevances.reshape(len(images), -1)
        rows, titles = [], []
        for i, label in enumerate(np.reshape(self.labels, -1)):
            picture = np.broadcast_to(images[i], (t, *images.shape[1:]))
            plain = grids.overlay(images[i : i + 1], np.zeros((1, *shape[2:])), style="beside")
            plain = plain[:, :, : shape[3]]
            for name, maps in (("maps", self.maps), ("pixels", self.pixels)):
                style = "blend" if name == "maps" else "map"
                shown = grids.overlay(picture, maps.reshape(shape)[i], style=style)
                rows.append(np.concatenate([plain, shown]))
                each = [f"{c}: {relevances[i, c]:+.2g}" for c in numbers[i]]
                titles += [str(label), *(each if name == "maps" else [""] * t)]
        return grids.grid(np.stack(rows), titles=titles)

    def save(self, folder: str | Path) -> Path:
        """Writes a PNG of each map, the arrays, a JSON card and the figure into `folder`.

        Raises:
          OSError: naming the path, on a full disk or without permission.
        """
        maps = self.maps.reshape(-1, *self.maps.shape[-2:])
        names = [self.names[number] for number in self.numbers.reshape(-1)]
        drawn = grids.overlay(np.zeros((*maps.shape, 1), np.float32), maps, style="map")
        arrays = ("images", "scores", "relevances", "rest", "numbers", "maps", "pixels")
        return write(
            folder,
            pictures=zip(names, drawn, strict=True),
            arrays={name: getattr(self, name) for name in arrays},
            figure=self.show(),
            card={"labels": list(map(str, np.reshape(self.labels, -1))), "config": self.config},
        )


@gate.public
def relevance(
    model: Model,
    images: ArrayLike,
    target: Any,
    concepts: Concepts,
    *,
    count: int = 5,
    chunk: int | None = None,
    progress: bool = True,
) -> Relevance:
    """How much each concept of a layer gives to a score, image by image, with maps.

    By gradient × activation: what all concepts and the rest give sums to that of the whole layer.

    Args:
      model: any model.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      target: a class number or name, a list of either, or an objective.
      concepts: of one of the model's layers, with places.
      count: concepts of each image that get maps.
      chunk: images at once, a bound on memory.
      progress: a bar on a terminal.

    Raises:
      TypeError, ValueError: naming the argument.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import concepts
      >>> image = np.random.default_rng(0).random((28, 28, 1)).astype(np.float32)
      >>> directions = concepts.channels("relu2", 64)
      >>> found = concepts.relevance(rvis.load("mnist_cnn"), image, 3, directions, count=2)
      >>> found.relevances.shape, found.maps.shape
      ((64,), (2, 28, 28))

    Reference: Achtibat et al. 2023, From attribution maps to human-understandable explanations
      through Concept Relevance Propagation, with gradient × input for its rule.
    """
    question = ask(model, images, target, chunk=chunk)
    if len(check_concepts(model, concepts, question.shape)) != 3:
        raise ValueError(
            f"concepts: of a layer with places were expected, given {concepts.layer!r}"
        )
    if checks.count("count", count) > len(concepts):
        raise ValueError(f"count: at most {len(concepts)} was expected, given {count}")
    scores, relevances, rest, numbers, maps, pixels = engine.apply(
        _Relevance(concepts.layer, count),
        attach(model, concepts),
        (question.objective, question.images),
        pixels=question.pixels,
        widest=4,
        chunk=chunk,
        progress=progress,
        label="relevance",
    )
    config = describe(
        function="relevance", model=model.name, target=target, layer=concepts.layer, count=count
    )
    names = tuple(concepts.named(i) for i in range(len(concepts)))
    shaped = question.shaped
    return Relevance(
        shaped(question.images),
        shaped(question.labels),
        shaped(scores),
        shaped(relevances),
        shaped(rest),
        shaped(numbers),
        shaped(maps),
        shaped(pixels),
        names,
        config,
    )


@dataclasses.dataclass(frozen=True)
class _Relevance:
    """All of one image; the model is one with concepts attached."""

    layer: str
    count: int

    def __call__(self, model: Model, problem: tuple[Objective, Array]) -> tuple[Array, ...]:
        objective, image = problem
        own = f"{self.layer}.concepts"
        score, seen, slopes = Score(model, objective).at_layers((self.layer, own), image)
        each = seen[own] * slopes[own]
        relevances = each.sum((0, 1))
        whole = (seen[self.layer] * slopes[self.layer]).sum()
        _, numbers = jax.lax.top_k(jnp.abs(relevances), self.count)
        small = jnp.moveaxis(each[..., numbers], -1, 0)
        shape = (self.count, *image.shape[:2])
        maps = jax.image.resize(small, shape, "bilinear", antialias=False)

        def relevant(image: Array) -> Array:
            z = taps.activations(model, image[None], (own,))[own][0]
            return (z * jax.lax.stop_gradient(slopes[own]))[..., numbers].sum((0, 1))

        _, back = jax.vjp(relevant, image)
        seeds = jnp.eye(self.count, dtype=image.dtype)
        pixels = jax.lax.map(lambda seed: (back(seed)[0] * image).sum(-1), seeds)
        return score, relevances, whole - relevances.sum(), numbers, maps, pixels
