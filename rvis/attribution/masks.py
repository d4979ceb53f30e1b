"""Attribution by masks: what the score does when parts of the image are hidden."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks
from rvis.attribution.result import Attribution
from rvis.attribution.stream import Question, Score, Shape, ask, scores, stream
from rvis.results import describe
from rvis.types import Array, ArrayLike, KeyLike, Model, PyTree, as_key


@flax.struct.dataclass
class Windows:
    """f with one window hidden; its weight is 1 inside the window.

    Attributes:
      window: (2,) height and width.
      stride: (2,) steps down and across.
      columns: windows in a row.
      baseline: (H, W, C) what is put in the window.
    """

    window: Array
    stride: Array
    columns: Array
    baseline: Array
    kind: str = flax.struct.field(pytree_node=False, default="Windows")

    def shapes(self, shape: Shape) -> tuple[Shape, Shape]:
        return shape[:2], shape[:2]

    def __call__(
        self, key: Array, number: Array, image: Array, own: PyTree, score: Score
    ) -> tuple[Array, Array]:
        place = jnp.stack([number // self.columns, number % self.columns]) * self.stride
        rows, columns = (
            (jnp.arange(size) >= start) & (jnp.arange(size) < start + length)
            for size, start, length in zip(image.shape[:2], place, self.window, strict=True)
        )
        hidden = rows[:, None] & columns
        seen = jnp.where(hidden[..., None], self.baseline, image)
        return jnp.broadcast_to(score(seen), hidden.shape), hidden.astype(jnp.float32)


@flax.struct.dataclass
class RandomMasks:
    """f under a smooth random mask; its weight is the mask.

    Attributes:
      keep: probability that a cell of the grid is kept.
      baseline: (H, W, C) what is seen where the mask is 0.
      grid: cells a side.
    """

    keep: Array
    baseline: Array
    grid: int = flax.struct.field(pytree_node=False)
    kind: str = flax.struct.field(pytree_node=False, default="RandomMasks")

    def shapes(self, shape: Shape) -> tuple[Shape, Shape]:
        return shape[:2], shape[:2]

    def mask(self, key: Array, shape: Shape) -> Array:
        """One mask (H, W) in [0, 1]."""
        cells, shift = jax.random.split(key)
        kept = jax.random.bernoulli(cells, self.keep, (self.grid, self.grid))
        # One cell more than the image needs, so that the grid can be shifted by up to a cell.
        sizes = [-(-side // self.grid) for side in shape[:2]]
        whole = [(self.grid + 1) * size for size in sizes]
        smooth = jax.image.resize(kept.astype(jnp.float32), whole, "bilinear")
        corner = jax.random.randint(shift, (2,), 0, jnp.asarray(sizes))
        return jax.lax.dynamic_slice(smooth, corner, shape[:2])

    def __call__(
        self, key: Array, number: Array, image: Array, own: PyTree, score: Score
    ) -> tuple[Array, Array]:
        mask = self.mask(key, image.shape)
        seen = self.baseline + mask[..., None] * (image - self.baseline)
        return jnp.broadcast_to(score(seen), mask.shape), mask


def occlusion(
    model: Model,
    images: ArrayLike,
    target: Any,
    *,
    window: int | tuple[int, int] = 8,
    stride: int | tuple[int, int] = 4,
    baseline: ArrayLike = 0.0,
    chunk: int | None = None,
    progress: bool = True,
) -> Attribution:
    """f(x) less f with a sliding window hidden; a place takes the mean over its windows.

    Windows start at multiples of the stride until one reaches the border, over which the last may
    hang (so does captum's `Occlusion`, whose numbers these are).

    Args:
      model: any model.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      target: f: a class number (its logit), one for each image, or an objective of
        `rvis.objectives` (one, or one for each image).
      window: height and width in pixels, or one number for both.
      stride: steps down and across, or one number for both; at most the window.
      baseline: what hides: a number in [0, 1] or an image (H, W, C).
      chunk: images on the device at once; bounds memory, never changes maps (to the bit on a CPU).
      progress: a bar on a terminal.

    Returns:
      An `Attribution` with maps (n, H, W): how much the score falls.

    Raises:
      TypeError, ValueError: naming the argument, before anything is compiled.
      FloatingPointError: naming the images whose map is not finite.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attribution
      >>> model = rvis.load("mnist_cnn")
      >>> grey = np.full((28, 28, 1), 0.5, np.float32)
      >>> attribution.occlusion(model, grey, 3, window=7, stride=7).maps.shape
      (1, 28, 28)

    Reference: Zeiler & Fergus 2013, Visualizing and Understanding Convolutional Networks, section
      4.2.
    """
    question = ask(model, images, target, chunk=chunk)
    sides = question.shape[:2]
    windows = _pair("window", window, sides, "the image")
    steps = _pair("stride", stride, windows, "the window")
    rows, columns = (
        -(-(side - wide) // step) + 1
        for side, wide, step in zip(sides, windows, steps, strict=True)
    )
    sampler = Windows(
        jnp.asarray(windows, jnp.int32),
        jnp.asarray(steps, jnp.int32),
        jnp.int32(columns),
        _hidden(baseline, question),
    )
    moments = stream(
        sampler,
        model,
        question.objective,
        question.images,
        samples=rows * columns,
        key=jax.random.key(0),
        chunk=chunk,
        progress=progress,
        label=f"{model.name} occlusion",
    )
    reached = scores(model, question, chunk=chunk)
    return Attribution(
        maps=reached[:, None, None] - moments.mean,
        images=question.images,
        scores=reached,
        labels=question.labels,
        method="occlusion",
        config=describe(
            function="occlusion",
            model=model.name,
            target=target,
            window=windows,
            stride=steps,
            baseline=np.asarray(baseline),
        ),
    )


def rise(
    model: Model,
    images: ArrayLike,
    target: Any,
    *,
    samples: int = 4000,
    grid: int = 7,
    keep: float = 0.5,
    baseline: ArrayLike = 0.0,
    key: KeyLike = 0,
    chunk: int | None = None,
    progress: bool = True,
) -> Attribution:
    """E[f(x ⊙ M) | M(place) = 1] over smooth random masks M, less its mean over places.

    A mask is a grid of cells, each kept with probability `keep`, enlarged bilinearly by one cell
    more than the image needs and cut out at a random shift. The expectation (eq. 4) is estimated by
    Σ f·M / Σ M, with the masks drawn in the denominator where eq. 6 has their expectation: so a
    constant added to f changes nothing. The mean over places says nothing of where, and is taken
    away.

    Args:
      model: any model.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      target: see `occlusion`. The paper takes a class's probability.
      samples: masks.
      grid: cells a side.
      keep: probability that a cell is kept, in (0, 1).
      baseline: what is seen where a mask is 0: a number in [0, 1] or an image (H, W, C).
      key: an int seed or a typed key; mask i uses `fold_in(key, i)` and serves every image.
      chunk: images on the device at once; bounds memory, never changes maps (to the bit on a CPU).
      progress: a bar on a terminal.

    Returns:
      An `Attribution` with maps (n, H, W).

    Raises:
      TypeError, ValueError, FloatingPointError: as `occlusion`.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attribution
      >>> model = rvis.load("mnist_cnn")
      >>> grey = np.full((28, 28, 1), 0.5, np.float32)
      >>> attribution.rise(model, grey, 3, samples=32).maps.shape
      (1, 28, 28)

    Reference: Petsiuk et al. 2018, RISE, equations 4 and 6 and section 3.2.
    """
    question = ask(model, images, target, chunk=chunk)
    checks.count("samples", samples)
    checks.count("grid", grid)
    if grid > min(question.shape[:2]):
        raise ValueError(
            f"grid: at most {min(question.shape[:2])} cells for these images, given {grid}"
        )
    share = checks.number("keep", keep, above=0, high=1 - 1e-6)
    sampler = RandomMasks(jnp.float32(share), _hidden(baseline, question), grid)
    moments = stream(
        sampler,
        model,
        question.objective,
        question.images,
        samples=samples,
        key=as_key(key),
        chunk=chunk,
        progress=progress,
        label=f"{model.name} rise",
    )
    maps = np.asarray(moments.mean)
    return Attribution(
        maps=maps - maps.mean((1, 2), keepdims=True),
        images=question.images,
        scores=scores(model, question, chunk=chunk),
        labels=question.labels,
        method="rise",
        config=describe(
            function="rise",
            model=model.name,
            target=target,
            samples=samples,
            grid=grid,
            keep=share,
            baseline=np.asarray(baseline),
            key=as_key(key),
        ),
    )


def _pair(argument: str, given: Any, most: tuple[int, ...], what: str) -> tuple[int, int]:
    pair = (given, given) if isinstance(given, (int, np.integer)) else given
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise TypeError(f"{argument}: a number or a pair of them was expected, given {given!r}")
    for side, limit in zip(pair, most, strict=True):
        if checks.count(argument, side) > limit:
            raise ValueError(f"{argument}: at most {limit} ({what}) was expected, given {side}")
    return int(pair[0]), int(pair[1])


def _hidden(baseline: ArrayLike, question: Question) -> Array:
    """The baseline as one image (H, W, C)."""
    if np.ndim(baseline) == 0:
        level = checks.number("baseline", baseline, low=0, high=1)
        return jnp.full(question.shape, level, jnp.float32)
    if np.ndim(baseline) != 3:
        raise ValueError(
            f"baseline: a number or an image {question.shape} was expected, given shape "
            f"{np.shape(baseline)}"
        )
    return checks.images("baseline", baseline, shape=question.shape)[0]
