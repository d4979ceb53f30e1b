"""MAP-Elites over a network's classes on the engine: one example, whose steps are generations."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
from jax import lax

from rvis import checks, engine, files, gate, objectives, struct
from rvis.ascent import Problem
from rvis.engine import policy
from rvis.evolve.cppn import CPPN, Graph
from rvis.evolve.direct import Direct
from rvis.models import taps
from rvis.objectives import Objective
from rvis.plotting import grids
from rvis.results import Result, describe
from rvis.types import LOGITS, Array, KeyLike, Model, PyTree, as_key, layer_shapes, on_device


@struct.dataclass
class State:
    """What evolution carries from generation to generation.

    Attributes:
      step: generations done.
      genomes: the elites', leaves (cells, ...).
      fitness: (cells,) theirs, each in its own cell; −∞ before the first generation.
      children: leaves (batch_size, ...), bred and not yet tried.
    """

    step: Array
    genomes: PyTree
    fitness: Array
    children: PyTree


@struct.dataclass
class Info:
    """What a generation tells: the elites' fitness, and the best that its children reached."""

    fitness: Array
    offspring: Array


@struct.dataclass
class MapElites:
    """One generation: try every child in every cell, keep the best, breed.

    Attributes:
      encoding: what a genome is, and its operators' rates (leaves).
      cells: how many objectives the problem has.
      batch_size: children a generation, an even number.
      width: pictures that the network sees at once; None for all.

    Reference: Nguyen et al. 2014, section 2.3; Mouret & Clune 2015.
    """

    encoding: Direct | CPPN
    cells: int = struct.static()
    batch_size: int = struct.static()
    width: int | None = struct.static(default=None)

    def init(self, key: Array, position: PyTree | None = None) -> State:
        """Random children, or given ones, before any was tried."""
        children = position
        if children is None:
            numbers = jnp.arange(self.batch_size, dtype=jnp.int32)
            keys = jax.vmap(partial(jax.random.fold_in, key))(numbers)
            children = jax.vmap(self.encoding.init)(keys)
        empty = jax.tree.map(
            lambda leaf: jnp.zeros((self.cells, *leaf.shape[1:]), leaf.dtype), children
        )
        return State(jnp.int32(0), empty, jnp.full(self.cells, -jnp.inf, jnp.float32), children)

    def step(self, key: Array, state: State, model: Model, problem: Problem) -> tuple[State, Info]:
        """The next generation; see `Algorithm`."""
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
        pairs = self.batch_size // 2
        choose, cross, mutate = jax.random.split(key, 3)
        chosen = jax.random.randint(choose, (2, pairs), 0, self.cells, jnp.int32)
        one, other = (jax.tree.map(lambda leaf, i=i: leaf[i], genomes) for i in chosen)
        crossed = jax.vmap(self.encoding.cross)(jax.random.split(cross, pairs), one, other)
        children = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), *crossed)
        return jax.vmap(self.encoding.mutate)(jax.random.split(mutate, self.batch_size), children)

    def finish(self, state: State, model: Model, problem: Problem) -> PyTree:
        """The elites' genomes."""
        return state.genomes


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

        def one(activations: dict[str, Array]) -> Array:
            single = {layer: activation[None] for layer, activation in activations.items()}
            return jax.vmap(lambda objective: objective(single))(objective)

        return jax.vmap(one)(seen)

    # One step of one example: its children are too many for the cache of a CPU at once.
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
        return grids.grid(self.images, titles=titles, columns=columns, scale=scale)

    def drawn(self, size: int | tuple[int, int]) -> np.ndarray:
        """The elites' pictures at another size, (k, H, W, C): a graph can be drawn at any.

        Raises:
          ValueError: naming `encoding`, for genomes that are pictures.

        Example:
          >>> import rvis
          >>> model = rvis.load("mnist_cnn")
          >>> found = rvis.evolve.map_elites(model, encoding="cppn", generations=2, batch_size=4)
          >>> found.drawn(64).shape
          (10, 64, 64, 1)
        """
        if not isinstance(self.encoding, CPPN):
            raise ValueError("encoding: 'cppn' was expected; genomes that are pictures have a size")
        shape = (*checks.size("size", size), self.encoding.shape[2])
        return _drawn(struct.replace(self.encoding, shape=shape), self.genomes)


@gate.public
def map_elites(
    model: Model,
    target: Any = None,
    *,
    encoding: str | Direct | CPPN = "direct",
    generations: int = 200,
    batch_size: int = 200,
    size: int | tuple[int, int] | None = None,
    key: KeyLike = 0,
    checkpoint: files.PathLike | None = None,
    snapshots: Iterable[int] = (),
    callback: Callable[[int, np.ndarray, np.ndarray], Any] | None = None,
    progress: bool = True,
) -> Evolution:
    """Breeds, without gradients, a picture of each class of which the network is sure.

    Each class is a cell that keeps the picture of highest probability. Every generation draws pairs
    of parents from all cells, crosses and mutates them, and tries each child in every cell: it
    takes those where it is strictly better. The first generation is random.

    Args:
      model: any model.
      target: a class's number or name, or a list of different ones; all classes by default.
      encoding: "direct", where pixels are genes and elites look like noise; "cppn", where graphs of
        sines, Gaussians, sigmoids and lines draw regular patterns; or one of `Direct` and `CPPN`
        with rates of your own.
      generations: how many, the random one included.
      batch_size: children a generation, an even number; 200 for MNIST and 400 for ImageNet in the
        paper.
      size: height and width in pixels, or one number for both; the model's own by default.
      key: an int seed or a typed key.
      checkpoint: a folder for the state of an interrupted run; the same call then goes on.
      snapshots: generations after which to keep the pictures.
      callback: called as `callback(generation, images, scores)` with the elites after each
        generation; True ends the run.
      progress: a bar on a terminal.

    Returns:
      An `Evolution`.

    Raises:
      ValueError, TypeError: naming the argument, before anything is compiled.
      FloatingPointError: if a score becomes NaN.

    Example:
      >>> import rvis
      >>> found = rvis.evolve.map_elites(rvis.load("mnist_cnn"), generations=4, batch_size=8)
      >>> found.images.shape, found.scores.shape
      ((10, 28, 28, 1), (10, 4))

    Reference: Nguyen, Yosinski & Clune 2014, Deep Neural Networks are Easily Fooled.
    """
    height, width = model.input_shape[:2] if size is None else checks.size("size", size)
    shape = (height, width, model.input_shape[2])
    spec = _encoding(encoding, shape)
    if checks.count("batch_size", batch_size, low=2) % 2:
        raise ValueError(f"batch_size: an even number was expected, given {batch_size}")
    marks = sorted(set(snapshots))
    for mark in marks:
        if checks.count("snapshots", mark) > generations:
            raise ValueError(
                f"snapshots: 1 to {generations} (generations) were expected, given {mark}"
            )
    objectives.check(objectives.logit(0), model, shape)
    if target is None:
        target = range(layer_shapes(model, shape)[LOGITS][-1])
    objective = objectives.target("target", target, model, shape, kind=objectives.probability)
    if not isinstance(objective, objectives.Probability):
        raise TypeError(f"target: numbers or names of classes were expected, given {target!r}")
    cells = np.atleast_1d(np.asarray(objective.unit))
    if len(set(cells.tolist())) < cells.size:
        raise ValueError(f"target: different classes were expected, given {target!r}")
    objective = objectives.probability(cells)
    pictures = min(batch_size, policy.side_by_side(height * width, widest=16))
    root = as_key(key)

    def watch(step: int, genomes: PyTree, info: Info) -> Any:
        assert callback is not None
        return callback(step, _drawn(spec, _first(genomes)), _scores(info))

    run = engine.run(
        MapElites(spec, len(cells), batch_size, pictures),
        model,
        Problem(jax.tree.map(lambda leaf: leaf[None], objective)),
        root[None],
        steps=generations,
        pixels=batch_size * height * width,
        snapshots=marks,
        callback=None if callback is None else watch,
        checkpoint=checkpoint,
        progress=progress,
        label=f"{model.name}, {type(spec).__name__.lower()} genomes",
    )
    genomes = _first(run.result)
    config = describe(
        function="map_elites",
        model=model.name,
        encoding=spec,
        target=cells,
        generations=generations,
        batch_size=batch_size,
        key=root,
        size=(height, width),
        snapshots=marks,
    )
    return Evolution(
        images=_drawn(spec, genomes),
        scores=_scores(run.info),
        labels=objective.titles(model.classes),
        snapshots={mark: _drawn(spec, _first(kept)) for mark, kept in run.snapshots.items()},
        config=config,
        classes=cells,
        genomes=genomes,
        encoding=spec,
    )


@gate.public
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


def _encoding(encoding: str | Direct | CPPN, shape: tuple[int, int, int]) -> Direct | CPPN:
    if isinstance(encoding, str):
        checks.choice("encoding", encoding, ("direct", "cppn"))
        encoding = Direct(shape) if encoding == "direct" else CPPN(shape)
    if not isinstance(encoding, (Direct, CPPN)):
        raise TypeError(
            f"encoding: 'direct', 'cppn', Direct or CPPN was expected, given {encoding!r}"
        )
    if tuple(encoding.shape) != shape:
        raise ValueError(f"encoding: pictures of {shape} were expected, given {encoding.shape}")
    if isinstance(encoding, CPPN):
        if shape[2] not in (1, 3):
            raise ValueError(f"encoding: CPPN draws 1 or 3 channels, not {shape[2]}")
        checks.count("hidden", encoding.hidden, low=1)
    rates = {}
    for field in dataclasses.fields(encoding):
        if not field.metadata.get("static"):
            top = np.inf if field.name.startswith("eta") else 1
            rate = checks.number(field.name, getattr(encoding, field.name), low=0, high=top)
            rates[field.name] = on_device(rate, jnp.float32)
    return struct.replace(encoding, **rates)


def _first(genomes: PyTree) -> PyTree:
    """Those of the run's one example."""
    return jax.tree.map(lambda leaf: leaf[0], genomes)


def _scores(info: Info) -> np.ndarray:
    """(k, generations) probabilities."""
    return np.exp(np.asarray(info.fitness[0].T, np.float64))


@dataclasses.dataclass(frozen=True)
class _Painter:
    """What draws one graph, without the rates, which are no structure."""

    shape: tuple[int, int, int]
    hidden: int

    def __call__(self, model: None, genome: Graph) -> Array:
        return CPPN(self.shape, self.hidden).picture(genome)


def _drawn(encoding: Direct | CPPN, genomes: PyTree) -> np.ndarray:
    """(k, H, W, C) pictures of genomes."""
    if isinstance(encoding, Direct):
        return np.asarray(genomes)
    height, width, _ = encoding.shape
    painter = _Painter(encoding.shape, encoding.hidden)
    return engine.apply(painter, None, genomes, pixels=height * width)


def _percent(share: float) -> str:
    """Rounded down, so that 100 % means all."""
    return f"{np.floor(1e4 * share) / 100:.2f}%"
