"""MAP-Elites over a network's classes, in the one runner: a step is a generation."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
from jax import lax

from rvis import checks, core, objectives, plots, taps
from rvis.evolve.cppn import CPPN, Graph
from rvis.evolve.direct import Direct
from rvis.objectives import Objective
from rvis.results import Result, describe
from rvis.types import LOGITS, Array, KeyLike, Model, PyTree, Units, as_key, layer_shapes


@flax.struct.dataclass
class State:
    """What evolution carries from generation to generation.

    Attributes:
      step: generations done.
      genomes: the elites', leaves (cells, ...).
      fitness: (cells,) theirs, each in its own cell; −∞ before the first generation.
      children: leaves (batch, ...), bred and not yet tried.
    """

    step: Array
    genomes: PyTree
    fitness: Array
    children: PyTree


@flax.struct.dataclass
class Info:
    """What a generation tells: the elites' fitness, and the best that its children reached."""

    fitness: Array
    offspring: Array


@flax.struct.dataclass
class MapElites:
    """One generation: try every child in every cell, keep the best, breed.

    Attributes:
      encoding: what a genome is, and its operators' rates (leaves).
      cells: how many objectives the problem has.
      batch: children a generation, an even number.
      width: pictures that the network sees at once; None for all.

    Reference: Nguyen et al. 2014, section 2.3; Mouret & Clune 2015.
    """

    encoding: Direct | CPPN
    cells: int = flax.struct.field(pytree_node=False)
    batch: int = flax.struct.field(pytree_node=False)
    width: int | None = flax.struct.field(pytree_node=False, default=None)

    def init(self, key: Array, position: PyTree | None = None) -> State:
        """Random children, or given ones, before any was tried."""
        children = position
        if children is None:
            keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(self.batch))
            children = jax.vmap(self.encoding.init)(keys)
        empty = jax.tree.map(
            lambda leaf: jnp.zeros((self.cells, *leaf.shape[1:]), leaf.dtype), children
        )
        return State(jnp.int32(0), empty, jnp.full(self.cells, -jnp.inf), children)

    def step(
        self, key: Array, state: State, model: Model, problem: core.Problem
    ) -> tuple[State, Info]:
        """The next generation; see `core.Algorithm`."""
        scores = fitness(self.encoding, state.children, model, problem.objective, width=self.width)
        best = scores.argmax(0)
        reached = scores.max(0)
        better = reached > state.fitness

        def placed(old: Array, children: Array) -> Array:
            return jnp.where(better.reshape(-1, *(1,) * (old.ndim - 1)), children[best], old)

        genomes = jax.tree.map(placed, state.genomes, state.children)
        elite = jnp.where(better, reached, state.fitness)
        bred = self._bred(key, genomes)
        return State(state.step + 1, genomes, elite, bred), Info(elite, reached)

    def _bred(self, key: Array, genomes: PyTree) -> PyTree:
        """Children of pairs of elites, each pair drawn alike from all cells."""
        pairs = self.batch // 2
        choose, cross, mutate = jax.random.split(key, 3)
        chosen = jax.random.randint(choose, (2, pairs), 0, self.cells)
        one, other = (jax.tree.map(lambda leaf, i=i: leaf[i], genomes) for i in chosen)
        crossed = jax.vmap(self.encoding.cross)(jax.random.split(cross, pairs), one, other)
        children = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), *crossed)
        return jax.vmap(self.encoding.mutate)(jax.random.split(mutate, self.batch), children)

    def images(self, state: State) -> Array:
        """The elites' genomes, packed; `map_elites` draws them when the run has ended.

        They are what a run must not lose, and a picture does not tell its graph.
        """
        return jax.vmap(self.encoding.pack)(state.genomes)


def fitness(
    encoding: Direct | CPPN,
    genomes: PyTree,
    model: Model,
    objective: Objective,
    *,
    width: int | None = None,
) -> Array:
    """(n, cells) of n genomes under every objective, `width` at once; for traced code.

    Pieces are of one size, the last filled up, so that a genome's score is the same to the bit
    whichever company it is tried in.
    """
    count = jax.tree.leaves(genomes)[0].shape[0]
    width = min(width or count, count)
    filled = np.minimum(np.arange(-(-count // width) * width), count - 1).reshape(-1, width)

    def some(rows: Array) -> Array:
        pictures = jax.vmap(encoding.picture)(jax.tree.map(lambda leaf: leaf[rows], genomes))
        seen = taps.activations(model, pictures, objective.layers)

        def one(found: dict[str, Array]) -> Array:
            single = {layer: activation[None] for layer, activation in found.items()}
            return jax.vmap(lambda objective: objective(single))(objective)

        return jax.vmap(one)(seen)

    return lax.map(some, jnp.asarray(filled)).reshape(filled.size, -1)[:count]


@dataclasses.dataclass(frozen=True, eq=False)
class Evolution(Result):
    """What evolution gave: an elite a class, as a `Result` and with its genomes.

    `images` are (k, H, W, C); `scores` (k, generations) the probability of its class that each
    elite reached in each generation, which never falls; `snapshots` {generation: images}.

    Attributes:
      classes: (k,) the cells' classes.
      genomes: leaves (k, ...): pictures (k, H, W, C), or a `Graph`.
      encoding: what the genomes are.
    """

    classes: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int32))
    genomes: Any = None
    encoding: Direct | CPPN | None = None

    @property
    def confidences(self) -> np.ndarray:
        """(k,) the probability of its class that each elite has."""
        return self.scores[:, -1]

    def show(self) -> PIL.Image.Image:
        """The elites with their classes and confidences; snapshots, if any, as rows over time."""
        if self.snapshots:
            return super().show()
        titles = [
            f"{label}: {_percent(p)}"
            for label, p in zip(self.labels, self.confidences, strict=True)
        ]
        columns = min(10, len(self.images)) if len(self.images) <= 20 else None
        # Large enough for a class's name and its confidence.
        scale = -(-160 // max(self.images.shape[1:3]))
        return plots.grid(self.images, titles=titles, columns=columns, scale=scale)

    def drawn(self, size: int | tuple[int, int]) -> np.ndarray:
        """The elites' pictures at another size, (k, H, W, C): a graph can be drawn at any.

        Raises:
          ValueError: naming `encoding`, for genomes that are pictures.

        Example:
          >>> import rvis
          >>> model = rvis.load("mnist_cnn")
          >>> found = rvis.evolve.map_elites(model, encoding="cppn", generations=2, batch=4)
          >>> found.drawn(64).shape
          (10, 64, 64, 1)
        """
        if not isinstance(self.encoding, CPPN):
            raise ValueError("encoding: 'cppn' was expected; genomes that are pictures have a size")
        shape = (*checks.size("size", size), self.encoding.shape[2])
        return np.asarray(_drawn(self.encoding.replace(shape=shape), self.genomes))  # type: ignore[attr-defined]


def map_elites(
    model: Model,
    *,
    encoding: str | Direct | CPPN = "direct",
    classes: Units | None = None,
    generations: int = 200,
    batch: int = 200,
    key: KeyLike = 0,
    size: int | tuple[int, int] | None = None,
    snapshots: Iterable[int] = (),
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> Evolution:
    """Breeds, without gradients, a picture of each class of which the network is sure.

    Each class is a cell that keeps the picture of highest probability. Every generation draws pairs
    of parents from all cells, crosses and mutates them, and tries each child in every cell: it
    takes those where it is strictly better. The first generation is random.

    Args:
      model: any model.
      encoding: "direct", where pixels are genes and elites look like noise; "cppn", where graphs of
        sines, Gaussians, sigmoids and lines draw regular patterns; or one of `Direct` and `CPPN`
        with rates of your own.
      classes: their numbers; all by default.
      generations: how many, the random one included.
      batch: children a generation, an even number; 200 for MNIST and 400 for ImageNet in the paper.
      key: an int seed or a typed key.
      size: height and width in pixels, or one number for both; the model's own by default.
      snapshots: generations after which to keep the pictures.
      checkpoint: a folder for the state of an interrupted run; the same call then goes on.
      progress: a bar on a terminal.

    Returns:
      An `Evolution`.

    Raises:
      ValueError, TypeError: naming the argument, before anything is compiled.
      FloatingPointError: if a score becomes NaN.

    Example:
      >>> import rvis
      >>> found = rvis.evolve.map_elites(rvis.load("mnist_cnn"), generations=4, batch=8)
      >>> found.images.shape, found.scores.shape
      ((10, 28, 28, 1), (10, 4))

    Reference: Nguyen, Yosinski & Clune 2014, Deep Neural Networks are Easily Fooled.
    """
    height, width = model.input_shape[:2] if size is None else checks.size("size", size)
    shape = (height, width, model.input_shape[2])
    spec = _encoding(encoding, shape)
    checks.count("generations", generations)
    if checks.count("batch", batch, low=2) % 2:
        raise ValueError(f"batch: an even number was expected, given {batch}")
    marks = sorted(set(snapshots))
    for mark in marks:
        if checks.count("snapshots", mark) > generations:
            raise ValueError(
                f"snapshots: 1 to {generations} (generations) were expected, given {mark}"
            )
    objectives.check(objectives.logit(0), model, shape)
    known = layer_shapes(model, shape)[LOGITS][-1]
    if classes is None:
        cells = np.arange(known, dtype=np.int32)
    else:
        cells = checks.integers("classes", classes, high=known, what="the logits").reshape(-1)
        if not cells.size or len(set(cells.tolist())) < cells.size:
            raise ValueError(f"classes: different classes were expected, given {classes}")
    objective = objectives.probability(cells)
    piece = core.width_for(shape)
    algorithm = MapElites(spec, len(cells), batch, None if piece is None else 4 * piece)
    root = as_key(key)
    [outcome] = core.drive(
        algorithm,
        root[None],
        model,
        core.Problem(jax.tree.map(lambda leaf: leaf[None], objective)),
        steps=generations,
        snapshots=marks,
        checkpoint=checkpoint,
        progress=progress,
        label=f"{model.name}, {type(spec).__name__.lower()} genomes",
    )
    genomes = _unpacked(spec, outcome.images[0])
    config = describe(
        function="map_elites",
        model=model.name,
        encoding=spec,
        classes=cells,
        generations=generations,
        batch=batch,
        key=root,
        size=(height, width),
        snapshots=marks,
    )
    return Evolution(
        images=np.asarray(_drawn(spec, genomes)),
        scores=np.exp(np.asarray(outcome.info.fitness[0].T, np.float64)),
        labels=objective.titles(model.classes),
        snapshots={
            mark: np.asarray(_drawn(spec, _unpacked(spec, packed[0])))
            for mark, packed in outcome.snapshots.items()
        },
        config=config,
        classes=cells,
        genomes=genomes,
        encoding=spec,
    )


def roughness(images: Any) -> np.ndarray:
    """(n,) the share of each picture's variance in waves shorter than four pixels.

    Noise has 0.80 of it there, photographs and regular patterns little, a uniform picture 0.

    Args:
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].

    Raises:
      TypeError, ValueError: naming `images`.

    Example:
      >>> import numpy as np, rvis
      >>> noise = np.random.default_rng(0).random((1, 64, 64, 1))
      >>> round(float(rvis.evolve.roughness(noise)[0]), 1)
      0.8
    """
    batch = np.asarray(checks.images("images", images), np.float64)
    power = np.abs(np.fft.fft2(batch, axes=(1, 2))) ** 2
    power[:, 0, 0] = 0
    rows, columns = (np.fft.fftfreq(n) for n in batch.shape[1:3])
    fine = np.hypot(rows[:, None], columns) > 0.25
    total = power.sum((1, 2, 3))
    # What is left of a uniform picture is rounding.
    total = np.where(total > 1e-9 * np.square(batch).sum((1, 2, 3)), total, np.inf)
    return power[:, fine].sum((1, 2)) / total


def _encoding(given: str | Direct | CPPN, shape: tuple[int, int, int]) -> Direct | CPPN:
    if isinstance(given, str):
        checks.choice("encoding", given, ("direct", "cppn"))
        given = Direct(shape) if given == "direct" else CPPN(shape)
    if not isinstance(given, (Direct, CPPN)):
        raise TypeError(f"encoding: 'direct', 'cppn', Direct or CPPN was expected, given {given!r}")
    if tuple(given.shape) != shape:
        raise ValueError(f"encoding: pictures of {shape} were expected, given {given.shape}")
    if isinstance(given, CPPN):
        if shape[2] not in (1, 3):
            raise ValueError(f"encoding: CPPN draws 1 or 3 channels, not {shape[2]}")
        checks.count("hidden", given.hidden, low=1)
    rates = {}
    for field in dataclasses.fields(given):
        if field.metadata.get("pytree_node", True):
            top = np.inf if field.name.startswith("eta") else 1
            rate = checks.number(field.name, getattr(given, field.name), low=0, high=top)
            rates[field.name] = jnp.float32(rate)
    return given.replace(**rates)  # type: ignore[union-attr]


def _unpacked(encoding: Direct | CPPN, packed: np.ndarray) -> np.ndarray | Graph:
    if isinstance(encoding, Direct):
        return packed
    return jax.tree.map(np.asarray, jax.vmap(encoding.unpack)(jnp.asarray(packed)))


@jax.jit
def _drawn(encoding: Direct | CPPN, genomes: PyTree) -> Array:
    # One by one, so that a picture's bits do not depend on its company.
    return lax.map(encoding.picture, genomes)


def _percent(share: float) -> str:
    """Rounded down, so that 100 % means all."""
    return f"{np.floor(1e4 * share) / 100:.2f}%"
