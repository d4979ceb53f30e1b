"""Adversarial examples in the plane: a boundary that is right on the data and leaves them."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from rvis import checks
from rvis.plotting import figures
from rvis.types import Array, KeyLike, as_key

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TURNS, _INNER, _OUTER = 1.75, 0.25, 1.0
_REACH = 1.2
"""The figure shows the square of ± this."""


@dataclasses.dataclass(frozen=True, eq=False)
class Toy:
    """A network that tells the halves of a curve in the plane apart, and where it breaks.

    Attributes:
      points: (n, 2) the data, on the curve.
      labels: (n,) 0 on the inner half, 1 on the outer.
      along: (n,) the places of the points, as lengths along the curve.
      probabilities: (g, g) of class 1 on a grid over the square of ±1.2, first row on top.
      accuracy: on the points.
      starts: (m, 2) the points that are attacked.
      paths: (m, steps + 1, 2) from each, steps against the classification; NaN after it has fallen.
      off: (m,) how long the path was until the classification fell; NaN if it never did.
      on: (m,) how far along the curve the nearest point of the other class lies.
    """

    points: np.ndarray
    labels: np.ndarray
    along: np.ndarray
    probabilities: np.ndarray
    accuracy: float
    starts: np.ndarray
    paths: np.ndarray
    off: np.ndarray
    on: np.ndarray

    def plot(self, ax: Axes | None = None) -> Axes:
        """The points on the network's probabilities, with the paths that leave the curve.

        Args:
          ax: the axes to draw into; those of a new figure by default.

        Returns:
          The axes.

        Raises:
          ImportError: naming the extra, where matplotlib is not installed.
        """
        ax = figures.axes(ax, size=(6.4, 4.6))
        g = len(self.probabilities)
        line = np.linspace(-_REACH, _REACH, g)
        behind = ax.pcolormesh(
            line, line[::-1], self.probabilities, cmap="RdBu_r", vmin=0, vmax=1, alpha=0.45
        )
        ax.contour(line, line[::-1], self.probabilities, levels=[0.5], colors="0.2")
        for i, (name, colour) in enumerate((("inner half", "C0"), ("outer half", "C3"))):
            ax.plot(*self.points[self.labels == i].T, "o", ms=2.5, color=colour, label=name)
        ax.plot(*self.starts.T, "o", ms=4, color="black", label="attacked")
        # Each path is a column; the first alone has a name in the legend.
        paths = ax.plot(*self.paths.T, color="black", lw=1.5)
        paths[0].set_label("adversarial steps")
        ax.figure.colorbar(behind, ax=ax, label="probability of the outer half")
        ax.set(
            xlim=(-_REACH, _REACH),
            ylim=(-_REACH, _REACH),
            aspect="equal",
            xlabel="first feature",
            ylabel="second feature",
        )
        ax.legend(loc="upper right", fontsize="small")
        return ax


def toy(
    *,
    points: int = 400,
    attacked: int = 24,
    hidden: int = 64,
    steps: int = 1000,
    step_size: float = 0.01,
    grid: int = 220,
    key: KeyLike = 0,
) -> Toy:
    """Trains a small network on two features and walks against its gradient.

    The data lie on a spiral: the manifold, of one dimension, in a plane of two. The classes are its
    inner and outer halves, so that along the curve they meet in one place only. The network must
    put its boundary between the turns, off the data, and comes near to points that are far from the
    other class along the curve: a short step that leaves the curve changes the answer.

    Args:
      points: how many, evenly along the curve.
      attacked: how many of them to attack, evenly too.
      hidden: units in each of two layers of ReLUs.
      steps: of full-batch Adam, learning rate 0.01.
      step_size: the length of an adversarial step; there are 60.
      grid: points of the probabilities' grid a side.
      key: an int seed or a typed key, for the weights.

    Returns:
      A `Toy`; its `plot()` is the figure.

    Raises:
      TypeError, ValueError: naming the argument.

    Example:
      >>> from scripts.gallery.toy import toy
      >>> found = toy(points=80, attacked=8, steps=400)
      >>> found.paths.shape
      (8, 61, 2)

    Reference: Tanay & Griffin 2016, A boundary tilting perspective; Stutz et al. 2019,
    Disentangling adversarial robustness and generalization (on and off the manifold).
    """
    for name, value in (("hidden", hidden), ("steps", steps), ("grid", grid)):
        checks.count(name, value, low=2)
    checks.count("points", points, low=4)
    if checks.count("attacked", attacked) > points:
        raise ValueError(f"attacked: at most {points} (points) were expected, given {attacked}")
    length = checks.number("step_size", step_size, above=0)
    places, along = _spiral(points)
    labels = (np.arange(points) >= points // 2).astype(np.int32)
    weights = _fitted(as_key(key), places, labels, hidden=hidden, steps=steps)
    line = np.linspace(-_REACH, _REACH, grid, dtype=np.float32)
    plane = np.stack(np.meshgrid(line, line[::-1]), -1)
    chosen = np.linspace(0, points - 1, attacked).round().astype(int)
    paths, fell = map(
        np.asarray, _walked(weights, places[chosen], labels[chosen], jnp.float32(length))
    )
    taken = np.where(fell.any(1), fell.argmax(1), paths.shape[1])
    after = np.arange(paths.shape[1]) > taken[:, None]
    middle = (along[points // 2 - 1] + along[points // 2]) / 2
    return Toy(
        places,
        labels,
        along,
        np.asarray(jax.nn.sigmoid(_margin(weights, plane))),
        float(((np.asarray(_margin(weights, places)) > 0) == labels).mean()),
        places[chosen],
        np.where(after[..., None], np.nan, paths),
        np.where(fell.any(1), taken * length, np.nan),
        np.abs(along[chosen] - middle),
    )


def _spiral(count: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, 2) evenly spaced along a spiral, and the lengths along it."""
    turn = np.linspace(0, 1, 20001)
    radius = _INNER + (_OUTER - _INNER) * turn
    fine = radius[:, None] * np.stack(
        [np.cos(2 * np.pi * _TURNS * turn), np.sin(2 * np.pi * _TURNS * turn)], 1
    )
    length = np.append(0, np.cumsum(np.linalg.norm(np.diff(fine, axis=0), axis=1)))
    along = np.linspace(0, length[-1], count)
    places = np.stack([np.interp(along, length, fine[:, i]) for i in (0, 1)], 1)
    return places.astype(np.float32), along


def _margin(weights: list[tuple[Array, Array]], x: Array | np.ndarray) -> Array:
    """(...) the logit of class 1 at (..., 2)."""
    values = jnp.asarray(x, jnp.float32)
    for i, (matrix, bias) in enumerate(weights):
        bias = jnp.expand_dims(bias, range(values.ndim - 1))
        values = (jax.nn.relu(values) if i else values) @ matrix + bias
    return values[..., 0]


@partial(jax.jit, static_argnames=("hidden", "steps"))
def _fitted(
    key: Array, points: Array, labels: Array, *, hidden: int, steps: int
) -> list[tuple[Array, Array]]:
    sizes = (2, hidden, hidden, 1)
    weights = [
        (jax.random.normal(k, (a, b), jnp.float32) * (2 / a) ** 0.5, jnp.zeros(b, jnp.float32))
        for k, a, b in zip(jax.random.split(key, 3), sizes[:-1], sizes[1:], strict=True)
    ]
    adam = optax.adam(0.01)

    def loss(weights: list[tuple[Array, Array]]) -> Array:
        return optax.sigmoid_binary_cross_entropy(_margin(weights, points), labels).mean()

    def body(carry: tuple, _: None) -> tuple[tuple, None]:
        weights, state = carry
        change, state = adam.update(jax.grad(loss)(weights), state)
        return (optax.apply_updates(weights, change), state), None

    (weights, _), _ = lax.scan(body, (weights, adam.init(weights)), length=steps)
    return weights


@jax.jit
def _walked(
    weights: list[tuple[Array, Array]], starts: Array, labels: Array, length: Array
) -> tuple[Array, Array]:
    """(m, 61, 2) the places of 60 steps, and (m, 61) whether the network is wrong there."""
    sign = 2 * labels - 1

    def body(x: Array, _: None) -> tuple[Array, tuple[Array, Array]]:
        margin, slope = jax.vmap(jax.value_and_grad(partial(_margin, weights)))(x)
        norm = jnp.linalg.norm(slope, axis=1, keepdims=True)
        step = -sign[:, None] * slope / jnp.where(norm > 0, norm, 1)
        return x + length * step, (x, margin * sign < 0)

    _, (paths, wrong) = lax.scan(body, starts, length=61)
    return paths.swapaxes(0, 1), wrong.swapaxes(0, 1)
