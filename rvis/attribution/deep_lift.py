"""DeepLIFT: every activation's difference from a baseline's, shared out by multipliers.

Each value of the network is held for the image and for the baseline, with one way back for its
difference, or two: for what positive and what negative contributions make of it.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import JaxprEqn

from rvis import checks, gate, struct
from rvis.analysis.questions import Score, Shape, ask, baselines
from rvis.attribution import stream
from rvis.attribution.equations import (
    MOVES,
    POINTWISE,
    PRODUCTS,
    SUMS,
    Live,
    Walk,
    activations,
    raw,
)
from rvis.attribution.result import Attribution
from rvis.attribution.stream import Callback, answer
from rvis.files import PathLike
from rvis.models import interpret
from rvis.types import Array, ArrayLike, Model, as_key

_POOLS = frozenset(("rvis_max_pool", "reduce_window_max", "reduce_max", "reduce_min"))


@dataclasses.dataclass(eq=False)
class Pair(Live):
    """A value of the image (`now`) and of the baseline.

    Attributes:
      ways: the difference (rescale); or its positive and its negative part (reveal-cancel). What
        flows back to them are multipliers.
    """

    start: Any = None
    ways: tuple[Array, ...] = ()

    def way(self, i: int) -> Array:
        return self.ways[i]

    @property
    def total(self) -> Array:
        return sum(self.ways[1:], self.ways[0])


def _ratio(top: Array, bottom: Array, otherwise: Array) -> Array:
    near = jnp.abs(bottom) < 1e-7
    return jnp.where(near, otherwise, top / jnp.where(near, 1, bottom))


class Differences(Walk):
    """One evaluation of a network for an image and a baseline."""

    def __init__(self, cancel: bool):
        self.cancel = cancel

    def equation(
        self, name: str, kind: str, equation: JaxprEqn, inputs: list, live: list
    ) -> list | None:
        one, alone = live[0], len(live) == 1

        def at(*values: Any) -> list:
            return interpret.bound(equation, values)

        if name == "activation" or (name in POINTWISE and name != "neg" and alone):
            return [self._function(at, inputs, one)]
        if name == "div" and not isinstance(inputs[0], Live):
            return [self._function(at, inputs, one)]
        if name in ("add", "add_any", "sub") and alone:
            sign = -1 if name == "sub" and inputs[1] is one else 1
            return [self._pair(at, inputs, self._signed(one.ways, sign))]
        if name in ("add", "add_any", "sub"):
            second = self._signed(inputs[1].ways, -1 if name == "sub" else 1)
            ways = tuple(a + b for a, b in zip(inputs[0].ways, second, strict=True))
            return [self._pair(at, inputs, ways)]
        if name in ("mul", "dot_general", "conv_general_dilated", "rvis_conv") and not alone:
            return [self._product(at, *inputs)]
        if name == "div" and not alone:
            inverse = self._function(lambda x: [1 / x], [inputs[1]], inputs[1])
            return [self._product(lambda a, b: [a * b], inputs[0], inverse)]
        if name in ("mul", "div", "neg", *PRODUCTS):
            return [self._weighed(name, at, inputs, one)]
        if name in _POOLS:
            return [self._pooled(at, one)]
        if name in MOVES - {"max", "min", "sort"} or name in SUMS:
            return self._moved(at, inputs)
        return None

    def sliced(self, x: Pair, i: int) -> Pair:
        return Pair(x.now[i], x.start[i], tuple(way[i] for way in x.ways))

    def stacked(self, column: Sequence[Any]) -> Pair:
        return jax.tree.map(lambda *rows: jnp.stack(rows), *column)

    def _pair(self, at: Callable[..., list], inputs: list, ways: tuple[Array, ...]) -> Pair:
        start = [value.start if isinstance(value, Pair) else raw(value) for value in inputs]
        (now,), (before,) = at(*map(raw, inputs)), at(*start)
        wide = tuple(jnp.broadcast_to(way, now.shape) for way in ways)
        return Pair(lax.stop_gradient(now), lax.stop_gradient(before), wide)

    def _signed(self, ways: tuple[Array, ...], sign: int) -> tuple[Array, ...]:
        return ways if sign > 0 else tuple(-way for way in reversed(ways))

    def _split(self, pair: Pair, way: Array) -> Pair:
        """A pair whose difference has one way, in as many parts as there are."""
        if not self.cancel:
            return dataclasses.replace(pair, ways=(way,))
        change = pair.now - pair.start
        parts = (jnp.where(change > 0, way, 0), jnp.where(change < 0, way, 0))
        held = (jnp.maximum(change, 0), jnp.minimum(change, 0))
        ways = tuple(interpret.valued(v, w) for v, w in zip(held, parts, strict=True))
        return dataclasses.replace(pair, ways=ways)

    def _function(self, at: Callable[..., list], inputs: list, x: Pair) -> Pair:
        """Of one number: the rescale rule, or RevealCancel."""

        def f(number: Any) -> Array:
            return at(*(number if value is x else raw(value) for value in inputs))[0]

        pair = self._pair(at, inputs, ())
        slope = jax.jvp(f, (x.now,), (jnp.ones_like(x.now),))[1]
        if not self.cancel:
            factor = _ratio(pair.now - pair.start, x.now - x.start, slope)
            return dataclasses.replace(pair, ways=(factor * x.ways[0],))
        up, down = map(lax.stop_gradient, x.ways)
        none, high, low, both = (f(x.start + by) for by in (0 * up, up, down, up + down))
        held = (high - none + both - low) / 2, (low - none + both - high) / 2
        ways = tuple(
            interpret.valued(value, _ratio(value, change, slope) * way)
            for value, change, way in zip(held, (up, down), x.ways, strict=True)
        )
        return dataclasses.replace(pair, ways=ways)

    def _product(self, at: Callable[..., list], a: Pair, b: Pair) -> Pair:
        """Of two variables: Δ(ab) = b̄ Δa + ā Δb, with the means of image and baseline."""
        pair = self._pair(at, [a, b], ())
        (first,) = at(a.total, (b.now + b.start) / 2)
        (second,) = at((a.now + a.start) / 2, b.total)
        return self._split(pair, first + second)

    def _weighed(self, name: str, at: Callable[..., list], inputs: list, x: Pair) -> Pair:
        """By constants: of positive contributions positive ones become, by positive weights."""

        def by(way: Array, change: Callable[[Any], Any]) -> Array:
            return at(*(way if value is x else change(raw(value)) for value in inputs))[0]

        if not self.cancel:
            return self._pair(at, inputs, (by(x.ways[0], lambda w: w),))
        if name == "neg":
            return self._pair(at, inputs, self._signed(x.ways, -1))
        if name == "div":
            (other,) = (raw(value) for value in inputs if value is not x)
            return self._weighed("mul", lambda a, b: [a * b], [x, 1 / other], x)
        up, down = (lambda w: jnp.maximum(w, 0)), (lambda w: jnp.minimum(w, 0))
        p, q = x.ways
        return self._pair(at, inputs, (by(p, up) + by(q, down), by(p, down) + by(q, up)))

    def _pooled(self, at: Callable[..., list], x: Pair) -> Pair:
        """Maxima: the way up to the higher one goes to where it is, the rest whence it came."""
        pair = self._pair(at, [x], ())
        change = x.now - x.start
        unit = x.total * jnp.where(change == 0, 0, 1 / jnp.where(change == 0, 1, change))

        def f(number: Array) -> Array:
            return at(number)[0]

        to, whence = (jax.jvp(f, (place,), (unit,))[1] for place in (x.now, x.start))
        higher = jnp.maximum(pair.now, pair.start)
        return self._split(pair, (higher - pair.start) * to + (pair.now - higher) * whence)

    def _moved(self, at: Callable[..., list], inputs: list) -> list:
        def values(pick: Callable[[Pair], Any], constant: Callable[[Any], Any]) -> list:
            return at(*(pick(v) if isinstance(v, Pair) else constant(raw(v)) for v in inputs))

        def none(constant: Any) -> Any:
            floating = jnp.issubdtype(jnp.result_type(constant), jnp.floating)
            return jnp.zeros_like(constant) if floating else constant

        now = values(lambda v: v.now, lambda c: c)
        start = values(lambda v: v.start, lambda c: c)
        count = 1 + self.cancel
        ways = [values(operator.methodcaller("way", i), none) for i in range(count)]
        rows = zip(now, start, zip(*ways, strict=True), strict=True)
        return [Pair(a, b, way) for a, b, way in rows]


jax.tree_util.register_dataclass(Pair, ["now", "start", "ways"], [])


@struct.dataclass
class _Lifted:
    """What every value of an image gives to f(x) − f(x′), for one of its baselines (b, H, W, C).

    In one row, and after it the two ends, so that nothing is computed for them alone.
    """

    cancel: bool = struct.static()

    def shapes(self, shape: Shape) -> tuple[Shape, Shape]:
        return (math.prod(shape) + 2,), ()

    def __call__(
        self, key: Array, number: Array, image: Array, own: Array, score: Score
    ) -> tuple[Array, Array]:
        start = own[number]
        evaluated = activations(score.model, score.objective, image[None])
        change = image - start
        held = (jnp.maximum(change, 0), jnp.minimum(change, 0)) if self.cancel else (change,)

        def differences(ways: tuple[Array, ...]) -> tuple[dict, tuple[dict, dict]]:
            pair = Pair(image[None], start[None], tuple(way[None] for way in ways))
            ends = evaluated(Differences(self.cancel), pair)
            total, now, before = {}, {}, {}
            for name, value in ends.items():
                total[name], now[name], before[name] = value.total, value.now, value.start
            return total, (now, before)

        _, back, (now, before) = jax.vjp(differences, held, has_aux=True)
        middle = jax.tree.map(lambda a, b: (a + b) / 2, now, before)
        (multipliers,) = back(jax.grad(score.objective.__call__)(middle))
        shares = [m * part for m, part in zip(multipliers, held, strict=True)]
        ends = jnp.stack([score.objective(now), score.objective(before)])
        return jnp.concatenate([sum(shares[1:], shares[0]).ravel(), ends]), jnp.float32(1)


@gate.public
def deep_lift(
    model: Model,
    images: ArrayLike,
    target: Any,
    *,
    baseline: str | ArrayLike = 0.0,
    rule: str = "rescale",
    chunk: int | None = None,
    checkpoint: PathLike | None = None,
    callback: Callback | None = None,
    progress: bool = True,
) -> Attribution:
    """DeepLIFT: what each value of the image gives to f(x) − f(x′), by multipliers Δy / Δx.

    Products of two variables share Δ(ab) = b̄Δa + āΔb, maxima give to the places of both maxima. So
    maps are complete on transformers too, and `gap` is rounding.

    Args:
      model: any model.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      target: f: a class number (its logit), one for each image, or an objective of
        `rvis.objectives` (one, or one for each image), linear in activations.
      baseline: x′: a number in [0, 1], "mean" of each image's pixels, "blur" (a Gaussian with σ an
        eighth of the shorter side), an image (H, W, C); or several (b, H, W, C), over which the
        mean is taken (DeepSHAP).
      rule: "rescale", or "reveal_cancel", where positive and negative contributions have
        multipliers of their own.
      chunk: images on the device at once; bounds memory, never changes maps (to the bit on a CPU).
      checkpoint: a folder for the state of interrupted work; the same call then goes on.
      callback: `callback(step, maps, scores)` is called as baselines add up; True ends the work.
      progress: a bar on a terminal.

    Returns:
      An `Attribution` with maps (n, H, W, C), or (H, W, C) of one image, and the `gap`.

    Raises:
      TypeError, ValueError: naming the argument, before anything is compiled; or an operation of
        the network for which there is no rule.
      FloatingPointError: naming the images whose map is not finite.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attribution
      >>> model = rvis.load("mnist_cnn")
      >>> grey = np.full((28, 28, 1), 0.5, np.float32)
      >>> bool(abs(attribution.deep_lift(model, grey, 3).gap) < 1e-3)
      True

    Reference: Shrikumar et al. 2017, Learning Important Features Through Propagating Activation
      Differences, sections 3.5.2 and 3.5.3; Lundberg & Lee 2017 (several baselines).
    """
    question = ask(model, images, target, chunk=chunk, callback=callback)
    checks.choice("rule", rule, ("rescale", "reveal_cancel"))
    starts = baselines(baseline, question.images)
    ends = np.zeros((0, 2))

    def parted(moments: stream.Moments) -> np.ndarray:
        nonlocal ends
        rows = np.asarray(moments.mean)
        ends = rows[:, -2:]
        return rows[:, :-2].reshape(-1, *question.shape)

    maps = stream.mean(
        _Lifted(rule == "reveal_cancel"),
        question,
        samples=starts.shape[1],
        key=as_key(0),
        own=starts,
        maps=parted,
        chunk=chunk,
        checkpoint=checkpoint,
        callback=callback,
        progress=progress,
        label="deep_lift",
    )
    scores, absent = ends.T
    about: dict[str, Any] = {"gap": scores - absent - maps.sum((1, 2, 3)), "target": target}
    return answer("deep_lift", question, maps, scores, baseline=baseline, rule=rule, **about)
