"""Certificates: radii within which a network smoothed by noise provably keeps its class."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import betainc, ndtri

from rvis import checks, engine, gate, struct
from rvis.attacks.request import prepare
from rvis.engine.policy import samples_for
from rvis.plotting import figures
from rvis.results import describe, wilson, write
from rvis.types import Array, ArrayLike, KeyLike, Model

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclasses.dataclass(frozen=True, eq=False)
class Certificates:
    """What is proved of n images, each statement wrong with probability α at most.

    Attributes:
      radii: (n,) L2 radii within which the smoothed network keeps its class; 0 where it abstains.
      predictions: (n,) its classes; −1 where it abstains.
      labels: (n,) the true ones.
      probabilities: (n,) lower bounds on the probability of the class under noise.
      counts: (n, k) how often each class was seen in the second sample.
      sigma: the noise's standard deviation.
      model: the network's name.
      config: the arguments and package versions, as JSON-able values.
    """

    radii: np.ndarray
    predictions: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    counts: np.ndarray
    sigma: float
    model: str
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def abstained(self) -> np.ndarray:
        """(n,) bool, where no class is proved to be the most likely one."""
        return np.asarray(self.predictions) < 0

    def accuracy(self, radius: Any) -> np.ndarray:
        """The share of images that are right within a radius, certified; of any shape."""
        right = np.where(self.predictions == self.labels, self.radii, -1.0)
        return (np.atleast_1d(right) >= np.asarray(radius)[..., None]).mean(-1)

    def interval(self, radius: Any) -> tuple[np.ndarray, np.ndarray]:
        """The accuracy's 95 % interval over draws of images (Wilson's)."""
        return wilson(self.accuracy(radius), np.size(self.radii))

    def plot(self, ax: Axes | None = None) -> Axes:
        """Certified accuracy against the radius, with the 95 % intervals as a band.

        Args:
          ax: the axes to draw into; those of a new figure by default.
        """
        ax = figures.axes(ax)
        radii = np.linspace(0, 1.05 * max(float(np.max(self.radii)), 1e-3), 200)
        name = f"{self.model}, σ = {self.sigma:g}, {np.size(self.radii)} images"
        (line,) = ax.plot(radii, 100 * self.accuracy(radii), label=name)
        low, high = self.interval(radii)
        ax.fill_between(radii, 100 * low, 100 * high, color=line.get_color(), alpha=0.15, lw=0)
        ax.set(xlabel="L2 radius (pixels in [0, 1])", ylabel="certified accuracy (%)")
        ax.set(ylim=(0, 100), xlim=(0, radii[-1]))
        ax.legend()
        return ax

    def save(self, folder: str | Path) -> Path:
        """Writes the arrays, a JSON card and the plot into `folder`; see `rvis.results.write`."""
        names = ("radii", "predictions", "labels", "probabilities", "counts")
        arrays = {name: getattr(self, name) for name in names}
        card = {name: arrays[name] for name in names[:4]}
        card |= {"sigma": self.sigma, "model": self.model, "config": dict(self.config)}
        return write(folder, arrays=arrays, card=card, plot=self.plot)


@struct.dataclass
class Votes:
    """Counts classes under noise; a step is a block of draws.

    Attributes:
      sigma: of the noise.
      first: how many draws only choose the class.
      total: how many there are in all.
      block: of a step.
      classes: how many there are.
    """

    sigma: Array
    first: Array
    total: Array
    block: int = struct.static()
    classes: int = struct.static()

    def init(self, key: Array, start: Any) -> tuple[Array, Array]:
        """How many blocks there were, and no votes (2, k)."""
        return jnp.int32(0), jnp.zeros((2, self.classes), jnp.int32)

    def step(
        self, key: Array, state: tuple[Array, Array], model: Model, image: Array
    ) -> tuple[tuple[Array, Array], tuple[()]]:
        """The votes of one block of draws."""
        step, votes = state
        noise = jax.random.normal(key, (self.block, *image.shape), jnp.float32)
        seen = model.apply(model.params, image[None] + self.sigma * noise).argmax(-1)
        number = step * self.block + jnp.arange(self.block, dtype=jnp.int32)
        part = jnp.where(number < self.first, 0, 1)
        return (step + 1, votes.at[part, seen].add((number < self.total).astype(jnp.int32))), ()

    def finish(self, state: tuple[Array, Array], model: Model, image: Array) -> Array:
        """The votes (2, k)."""
        return state[1]


def lower_bound(successes: ArrayLike, draws: int, alpha: float) -> np.ndarray:
    """Clopper and Pearson's lower bound on a probability, in float64.

    Args:
      successes: of `draws` independent trials, any shape.
      draws: how many.
      alpha: how likely the bound is to be too high, at most.

    Example:
      >>> from rvis.attacks.certify import lower_bound
      >>> float(lower_bound(100, 100, 0.001).round(6)), 0.001 ** (1 / 100)
      (0.933254, 0.933254300796991)
    """
    counts = np.asarray(successes, np.float64)
    with jax.enable_x64(True):
        low, high = np.zeros_like(counts), np.ones_like(counts)
        for _ in range(60):
            middle = (low + high) / 2
            # P(Bin(draws, p) ≥ successes), which grows with p.
            tail = np.asarray(betainc(np.maximum(counts, 1), draws - counts + 1, middle))
            small = tail <= alpha
            low, high = np.where(small, middle, low), np.where(small, high, middle)
    return np.where(counts > 0, low, 0.0)


@gate.public
def certify(
    model: Model,
    images: ArrayLike,
    labels: Any,
    *,
    sigma: float,
    alpha: float = 0.001,
    selection: int = 100,
    key: KeyLike = 0,
    samples: int = 10_000,
    chunk: int | None = None,
    checkpoint: str | Path | None = None,
    callback: Callable[[int, np.ndarray, np.ndarray], Any] | None = None,
    progress: bool = True,
) -> Certificates:
    """L2 radii within which the network smoothed by Gaussian noise provably keeps its class.

    The smoothed network's class is what the network makes most often of x + N(0, σ²), unclipped.
    `selection` draws choose the class c; `samples` more bound its probability from below by p, with
    Clopper and Pearson's interval. Where p > ½ the class is c within σ·Φ⁻¹(p); else the smoothed
    network abstains. Each statement is wrong with probability α at most.

    Args:
      model: any model; one trained on noise has something to show.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      labels: the true classes, by number or name: one, or (n,).
      sigma: σ, above 0, in units of the [0, 1] image.
      alpha: in (0, 1).
      selection: draws that choose the class.
      key: an int seed or a typed key; an image's is folded from its bits.
      samples: draws that bound its probability. The largest radius that can be proved is
        σ·Φ⁻¹(α^{1/samples}).
      chunk: images at once; bounds memory, never changes results.
      checkpoint: a folder in which an interrupted run leaves its state, and from which the same
        call goes on. It is removed when the run has ended.
      callback: `callback(step, images, votes)` is called between blocks of draws, with the votes so
        far (n, 2, k). Where it returns True the run ends, with fewer draws and so smaller radii.
      progress: a bar on a terminal.

    Returns:
      `Certificates`, with the certified accuracy at any radius.

    Raises:
      TypeError, ValueError: naming the argument, before anything is compiled.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attacks
      >>> model = rvis.load("mnist_cnn")
      >>> digits = np.full((2, 28, 28, 1), 0.5, np.float32)
      >>> found = attacks.certify(model, digits, [3, 8], sigma=0.25, samples=100)
      >>> found.radii.shape
      (2,)

    Reference: Cohen, Rosenfeld & Kolter 2019, Certified adversarial robustness via randomized
      smoothing, theorem 1 and section 3.2.2 (CERTIFY).
    """
    checks.number("sigma", sigma, above=0)
    checks.number("alpha", alpha, above=0)
    if not alpha < 1:
        raise ValueError(f"alpha: a number below 1 was expected, given {alpha}")
    checks.count("selection", selection)
    request = prepare(model, images, labels, norm="l2", key=key)
    total = selection + samples
    block = samples_for(request.pixels // 2, total)
    algorithm = Votes(
        jnp.float32(sigma), jnp.int32(selection), jnp.int32(total), block, request.outputs
    )
    watched = None
    if callback is not None:
        watched = partial(_watched, callback, request.images, request.single)
    votes = engine.run(
        algorithm,
        request.model,
        request.images,
        request.keys(),
        steps=-(-total // block),
        pixels=request.pixels // 2 * block,
        chunk=chunk,
        checkpoint=checkpoint,
        callback=watched,
        progress=progress,
        label="certify",
    ).result
    chosen, counts = votes[:, 0].argmax(1), votes[:, 1]
    hits = counts[np.arange(len(counts)), chosen]
    bound = np.asarray(
        [lower_bound(h, max(int(n), 1), alpha) for h, n in zip(hits, counts.sum(1), strict=True)]
    )
    with jax.enable_x64(True):
        radii = np.where(bound > 0.5, sigma * np.asarray(ndtri(np.maximum(bound, 0.5))), 0.0)
    predictions = np.where(bound > 0.5, chosen, -1).astype(np.int32)
    arrays = (radii, predictions, request.labels, bound, counts)
    if request.single:
        arrays = tuple(array[0] for array in arrays)  # type: ignore[assignment]
    config = describe(
        function="certify",
        model=request.name,
        images=request.images,
        labels=request.labels,
        sigma=sigma,
        alpha=alpha,
        selection=selection,
        samples=samples,
        key=request.key,
    )
    return Certificates(*arrays, float(sigma), request.name, config)


def _watched(
    callback: Callable[..., Any], images: np.ndarray, single: bool, step: int, votes: Any, _: Any
) -> Any:
    return callback(step, images[0], votes[0]) if single else callback(step, images, votes)
