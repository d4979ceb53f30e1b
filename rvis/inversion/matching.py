"""Driving a picture until a network represents it as it represents another."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image

from rvis import checks, engine, files, gate, objectives, projections, struct
from rvis.analysis import ranking, representations
from rvis.ascent import Ascent, AscentInfo, AscentState, Problem, watcher
from rvis.images import Pixel
from rvis.optimizers import steepest
from rvis.plotting import grids
from rvis.results import Result, describe
from rvis.types import Array, ArrayLike, KeyLike, Model, PyTree, as_key, on_device

_BALLS = {"l2": projections.L2Ball, "linf": projections.LinfBall}
_NOISE = 1 / 20
"""Standard deviation of the noise to start from (MadryLab/robust_representations)."""
_ALWAYS = 2**31 - 1
Watch = Callable[[int, np.ndarray, np.ndarray], Any]


@struct.dataclass
class Shortening:
    """An ascent whose learning rate falls in a straight line, to 0 after `steps` steps.

    Steps of one length would end on a circle about what they look for, not in it.

    Attributes:
      ascent: the step.
      steps: how many there are; a leaf.
    """

    ascent: Ascent
    steps: Array

    def init(self, key: Array, position: PyTree | None = None) -> AscentState:
        """See `rvis.ascent.Ascent`."""
        return self.ascent.init(key, position)

    def step(
        self, key: Array, state: AscentState, model: Model, problem: Problem
    ) -> tuple[AscentState, AscentInfo]:
        """One step up, shorter than the one before."""
        optimizer = self.ascent.optimizer
        passed = state.step.astype(jnp.float32) / jnp.asarray(self.steps, jnp.float32)
        rate = optimizer.learning_rate * (1 - passed)
        shorter = struct.replace(optimizer, learning_rate=rate)
        return struct.replace(self.ascent, optimizer=shorter).step(key, state, model, problem)

    def finish(self, state: AscentState, model: Model, problem: Problem) -> Array:
        """The pictures."""
        return self.ascent.images(state)


@dataclasses.dataclass(frozen=True, eq=False)
class Matching(Result):
    """Pictures x' with R(x') near R(x2), beside x1 and x2. (…) is (n,), or () for a single pair.

    Attributes:
      sources: (…, H, W, C) x1.
      targets: (…, H, W, C) x2; for interpolations the end of the path.
      starts: (…, H, W, C) where the steps began.
      distances: (…, steps + 1) ‖R(x) − R₀‖ / ‖R₀‖ before each step and after the last, R₀ = R(x2)
        or a point of a path.
      layer: R.
    """

    sources: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    targets: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    starts: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    distances: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    layer: str = ""

    @property
    def remaining(self) -> np.ndarray:
        """(…) ‖R(x') − R₀‖ over the distance at the start; 0 where that was 0."""
        first, last = self.distances[..., 0], self.distances[..., -1]
        return np.where(first > 0, last / np.where(first > 0, first, 1), 0)

    def to_source(self) -> dict[str, np.ndarray]:
        """How near the pictures are to x1: {"l2": (…) ‖x' − x1‖₂, "ssim": (…)}."""
        return self._nearness(self.sources)

    def to_target(self) -> dict[str, np.ndarray]:
        """How near the pictures are to x2: {"l2": (…) ‖x' − x2‖₂, "ssim": (…)}."""
        return self._nearness(self.targets)

    def _nearness(self, others: np.ndarray) -> dict[str, np.ndarray]:
        lead, shape = self.images.shape[:-3], self.images.shape[-3:]
        a, b = self.images.reshape(-1, *shape), others.reshape(-1, *shape)
        return {
            "l2": representations.distances(a, b).reshape(lead),
            "ssim": representations.ssim(a, b).reshape(lead),
        }

    def show(self) -> PIL.Image.Image:
        """A row for each pair: x1, where the steps began if elsewhere, x', x2."""
        shape = self.images.shape[-3:]
        columns = [("x1", self.sources), ("start", self.starts), ("x'", self.images)]
        if np.array_equal(self.sources, self.starts):
            del columns[1]
        columns.append(("x2", self.targets))
        flat = [array.reshape(-1, *shape) for _, array in columns]
        left = np.broadcast_to(self.remaining, self.images.shape[:-3]).reshape(-1)
        titles = []
        for share in left:
            titles += [f"x' {share:.1%}" if name == "x'" else name for name, _ in columns]
        return grids.grid(np.stack(flat, 1), titles=titles)


@gate.public
def match(
    model: Model,
    source: ArrayLike | None,
    target: ArrayLike,
    layer: str | None = None,
    *,
    start: str | ArrayLike = "source",
    step_size: float = 0.2,
    eps: float | None = None,
    norm: str = "l2",
    key: KeyLike = 0,
    steps: int = 1000,
    chunk: int | None = None,
    checkpoint: files.PathLike | None = None,
    callback: Watch | None = None,
    progress: bool = True,
) -> Matching:
    """Pictures that a network represents as it represents the targets, by steps from elsewhere.

    Minimises ‖R(x) − R(x2)‖ / ‖R(x2)‖ over x in [0, 1] with steps of a given length along the
    gradient, whatever its own length. On a standard network x' may look like x1 though
    R(x') ≈ R(x2); on an adversarially trained one it has to turn into x2.

    Args:
      model: any model.
      source: x1, (n, H, W, C) or (H, W, C), float32 in [0, 1]; None for where the steps begin.
      target: x2, as many of the same shape, or one for all.
      layer: R, a name of `model.layers` or "logits"; the penultimate one by default.
      start: "source", "noise" (mid-grey with Gaussian noise of σ .05, the same for every pair),
        "grey", or images.
      step_size: length of the first step in `norm`, in units of the [0, 1] image; it falls in a
        straight line to 0.
      eps: how far x may go from the start in `norm`; no bound by default.
      norm: "l2" or "linf" (steps along the gradient's sign).
      key: an int seed or a typed key, of the noise.
      steps: how many.
      chunk: pairs at once; bounds memory.
      checkpoint: a folder for the state of an interrupted run; the same call then goes on.
      callback: called as `callback(step, images, scores)` after each step; True ends the run.
      progress: a bar on a terminal.

    Returns:
      A `Matching` with `images` (n, H, W, C), or (H, W, C) for a single pair. Its `scores` are
      −(‖R(x) − R(x2)‖ / ‖R(x2)‖)².

    Raises:
      ValueError, TypeError: naming the argument, before anything is compiled.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis.inversion import match
      >>> model = rvis.load("mnist_cnn")
      >>> bar = np.zeros((28, 28, 1), np.float32)
      >>> bar[4:24, 13:16] = 1
      >>> found = match(model, bar, bar.swapaxes(0, 1), steps=8)
      >>> found.layer, found.distances.shape, bool(found.remaining < 1)
      ('relu3', (9,), True)

    Reference: Engstrom, Ilyas, Santurkar, Tsipras, Tran & Madry 2019, "Adversarial Robustness as a
      Prior for Learned Representations", arXiv:1906.00945, eq. 2 and section 4;
      MadryLab/robust_representations (there thousands of steps of length 1 at 224 pixels, within
      an eps of 1000 that binds nothing). There the last ReLU lets all of the gradient through;
      here any ReLU does so only where it would block all of it, since on the shipped networks the
      former leaves twice the distance after as many steps.
    """
    targets, shape = _images("target", target, model, None)
    sources = None if source is None else _images("source", source, model, shape)[0]
    starts = _starts(start, sources, model, shape, as_key(key))
    count = max(len(a) for a in (targets, sources, starts) if a is not None)
    for name, some in (("target", targets), ("source", sources), ("start", starts)):
        if some is not None and len(some) not in (1, count):
            raise ValueError(f"{name}: 1 or {count} images were expected, given {len(some)}")
    layer = representations.penultimate(model, shape) if layer is None else layer
    ranking.layer_shape(model, layer, shape)

    def references() -> np.ndarray:
        return _repeated(representations.encode(model, targets, layer), count)

    arguments = (source, target, () if isinstance(start, str) else start)
    single = all(value is None or np.ndim(value) in (1, 3) for value in arguments)
    return _matched(
        model,
        _repeated(starts if sources is None else sources, count),
        _repeated(targets, count),
        _repeated(starts, count),
        references,
        layer,
        steps=steps,
        step_size=step_size,
        eps=eps,
        norm=norm,
        chunk=chunk,
        checkpoint=checkpoint,
        callback=callback,
        progress=progress,
        batch=() if single else (count,),
        about={"function": "match", "start": start, "key": as_key(key)},
    )


@gate.public
def interpolate(
    model: Model,
    first: ArrayLike,
    second: ArrayLike,
    layer: str | None = None,
    *,
    frames: int = 9,
    **options: Any,
) -> Matching:
    """A path from one image to another that is straight in a network's representation.

    Frame k is matched to (1 − t)·R(x1) + t·R(x2) with t = k / (frames − 1), from x1. Frame 0 is x1
    itself. Steps shorten and everything depends smoothly on t, so neighbouring frames differ
    little.

    Args:
      model: any model.
      first: x1, (n, H, W, C) or (H, W, C), float32 in [0, 1].
      second: x2, likewise.
      layer: R, as in `match`.
      frames: how many, both ends included.
      **options: of `match`, but for `start` and `key`.

    Returns:
      A `Matching` with `images` (n, frames, H, W, C), or (frames, H, W, C) for a single pair.

    Raises:
      ValueError, TypeError: naming the argument.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis.inversion import interpolate
      >>> model = rvis.load("mnist_cnn")
      >>> bar = np.zeros((28, 28, 1), np.float32)
      >>> bar[4:24, 13:16] = 1
      >>> interpolate(model, bar, bar.swapaxes(0, 1), frames=3, steps=4).images.shape
      (3, 28, 28, 1)

    Reference: Engstrom et al. 2019, arXiv:1906.00945, section 4.1.
    """
    checks.count("frames", frames, low=2)
    for name in ("start", "key"):
        if name in options:
            raise TypeError(f"{name}: a path starts from its first image, given {options[name]!r}")
    ours, shape = _images("first", first, model, None)
    theirs, _ = _images("second", second, model, shape)
    count = max(len(ours), len(theirs))
    for name, some in (("first", ours), ("second", theirs)):
        if len(some) not in (1, count):
            raise ValueError(f"{name}: 1 or {count} images were expected, given {len(some)}")
    layer = representations.penultimate(model, shape) if layer is None else layer
    ranking.layer_shape(model, layer, shape)
    ours, theirs = _repeated(ours, count), _repeated(theirs, count)
    along = np.linspace(0, 1, frames, dtype=np.float32)[1:]

    def references() -> np.ndarray:
        ends = [representations.encode(model, some, layer)[:, None] for some in (ours, theirs)]
        t = along.reshape(-1, *(1,) * (ends[0].ndim - 2))
        return ((1 - t) * ends[0] + t * ends[1]).reshape(-1, *ends[0].shape[2:])

    lead = () if np.ndim(first) == np.ndim(second) == 3 else (count,)
    moved = _matched(
        model,
        np.repeat(ours, frames - 1, 0),
        np.repeat(theirs, frames - 1, 0),
        np.repeat(ours, frames - 1, 0),
        references,
        layer,
        batch=(*lead, frames - 1),
        about={"function": "interpolate", "frames": frames},
        **options,
    )
    changes: dict[str, Any] = {}
    for name in ("images", "sources", "targets", "starts"):
        values = getattr(moved, name)
        ahead = (theirs if name == "targets" else ours).reshape(*lead, 1, *shape)
        changes[name] = np.concatenate([ahead, values], len(lead))
    for name in ("distances", "scores", "labels", "dead"):
        values = getattr(moved, name)
        # Frame 0 is where it should be at every step.
        ahead = np.zeros_like(values, shape=(*lead, 1, *values.shape[len(lead) + 1 :]))
        changes[name] = np.concatenate([ahead, values], len(lead))
    titles = np.asarray([f"t {part:.2g}" for part in (0, *along)], object)
    changes["labels"] = np.broadcast_to(titles, changes["labels"].shape)
    return _Path(**{**_fields(moved), **changes})


class _Path(Matching):
    """A `Matching` whose pictures are the frames of paths."""

    def show(self) -> PIL.Image.Image:
        """A row for each path, and x2 at its end."""
        rows = self.images.reshape(-1, *self.images.shape[-4:])
        ends = self.targets.reshape(rows.shape)[:, :1]
        titles = [str(label) for label in self.labels.reshape(len(rows), -1)[0]]
        return grids.grid(np.concatenate([rows, ends], 1), titles=[*titles, "x2"])


def _fields(result: Matching) -> dict[str, Any]:
    return {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}


def _matched(
    model: Model,
    sources: np.ndarray,
    targets: np.ndarray,
    starts: np.ndarray,
    references: Callable[[], np.ndarray],
    layer: str,
    *,
    batch: tuple[int, ...],
    about: dict[str, Any],
    steps: int = 1000,
    step_size: float = 0.2,
    eps: float | None = None,
    norm: str = "l2",
    chunk: int | None = None,
    checkpoint: files.PathLike | None = None,
    callback: Watch | None = None,
    progress: bool = True,
) -> Matching:
    """Every start driven towards its reference."""
    checks.choice("norm", norm, _BALLS)
    checks.number("step_size", step_size, above=0)
    if eps is not None:
        checks.number("eps", eps, low=0)
    wanted = references()
    count, shape = len(starts), starts.shape[1:]
    bound: Any = projections.Box()
    if eps is not None:
        radius = on_device(eps, jnp.float32)
        bound = _BALLS[norm](on_device(starts)[:, None], jnp.broadcast_to(radius, (count,)))
    redirect_relu = _ALWAYS if getattr(model.apply, "takes_relu", True) else 0
    ascent = Ascent(Pixel(shape), steepest(step_size, norm=norm), redirect_relu=redirect_relu)
    algorithm = Shortening(ascent, on_device(steps, jnp.float32))
    problem = Problem(objectives.match(layer, wanted, many=True)).broadcast(count)
    if eps is None:
        bound = Problem(problem.objective, (), bound).broadcast(count).constraint
    problem = struct.replace(problem, constraint=bound)

    def shaped(array: np.ndarray) -> np.ndarray:
        return array.reshape((*batch, *array.shape[1:]))

    run = engine.run(
        algorithm,
        model,
        problem,
        jax.random.split(as_key(0), count),  # no step draws anything
        steps=steps,
        pixels=ascent.pixels,
        starts=starts[:, None],
        callback=watcher(callback, shaped),
        chunk=chunk,
        checkpoint=checkpoint,
        progress=progress,
        label=f"match {layer}",
    )
    pictures, scores = run.result[:, 0], run.info.score
    last = representations.relative_errors(representations.encode(model, pictures, layer), wanted)
    gone = np.sqrt(np.maximum(-scores.astype(np.float64), 0))
    apart = np.concatenate([gone, last[:, None]], 1)
    return Matching(
        shaped(pictures),
        shaped(scores),
        np.full(batch, "x'", object),
        dead=shaped((scores.max(1) == scores.min(1)) & (steps > 1)),
        config=describe(
            **about,
            model=model.name,
            source=sources,
            target=targets,
            layer=layer,
            steps=steps,
            step_size=step_size,
            eps=eps,
            norm=norm,
            remaining=shaped(last / np.where(gone[:, 0] > 0, gone[:, 0], 1)),
        ),
        sources=shaped(sources),
        targets=shaped(targets),
        starts=shaped(starts),
        distances=shaped(apart),
        layer=layer,
    )


def _images(
    argument: str, value: ArrayLike, model: Model, shape: tuple[int, int, int] | None
) -> tuple[np.ndarray, tuple[int, int, int]]:
    channels = model.input_shape[2] if shape is None else None
    images = np.asarray(checks.images(argument, value, channels=channels, shape=shape))
    return images, images.shape[1:]  # type: ignore[return-value]


def _starts(
    start: str | ArrayLike,
    sources: np.ndarray | None,
    model: Model,
    shape: tuple[int, int, int],
    key: Array,
) -> np.ndarray:
    if not isinstance(start, str):
        return _images("start", start, model, shape)[0]
    checks.choice("start", start, ("source", "noise", "grey"))
    if start == "source":
        if sources is None:
            raise ValueError("source: images were expected to start from, given None")
        return sources
    noise = Pixel(shape, sd=_NOISE if start == "noise" else 0).init(key)
    return np.clip(np.asarray(noise), 0, 1)[None]


def _repeated(array: np.ndarray, count: int) -> np.ndarray:
    return np.repeat(array, count, 0) if len(array) != count else array
