"""Attribution by masks: what the score does when parts of the image are hidden."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks, gate, struct
from rvis.analysis.questions import Score, Shape, ask, one_baseline
from rvis.attribution import stream
from rvis.attribution.result import Attribution
from rvis.attribution.segments import segment_maps
from rvis.attribution.stream import Callback, Moments, answer
from rvis.files import PathLike
from rvis.types import Array, ArrayLike, KeyLike, Model, PyTree, as_key, on_device


@struct.dataclass
class Windows:
    """f with one window hidden by the image's baseline; its weight is 1 inside the window.

    Attributes:
      window: (2,) height and width.
      stride: (2,) steps down and across.
      columns: windows in a row.
    """

    window: Array
    stride: Array
    columns: Array

    def shapes(self, shape: Shape) -> tuple[Shape, Shape]:
        return shape[:2], shape[:2]

    def __call__(
        self, key: Array, number: Array, image: Array, own: PyTree, score: Score
    ) -> tuple[Array, Array]:
        place = jnp.stack([number // self.columns, number % self.columns]) * self.stride
        sides = (jnp.arange(side, dtype=jnp.int32) for side in image.shape[:2])
        rows, columns = (
            (numbers >= start) & (numbers < start + length)
            for numbers, start, length in zip(sides, place, self.window, strict=True)
        )
        hidden = rows[:, None] & columns[None]
        seen = jnp.where(hidden[..., None], own, image)
        return jnp.broadcast_to(score(seen), hidden.shape), hidden.astype(jnp.float32)


@struct.dataclass
class RandomMasks:
    """f of the image under a smooth random mask, beside its baseline; the mask is the weight.

    Attributes:
      keep: probability that a cell of the grid is kept.
      grid: cells a side.
    """

    keep: Array
    grid: int = struct.static()

    def shapes(self, shape: Shape) -> tuple[Shape, Shape]:
        return shape[:2], shape[:2]

    def mask(self, key: Array, shape: Shape) -> Array:
        """One mask (H, W) in [0, 1]."""
        cells, shift = jax.random.split(key)
        kept = jax.random.bernoulli(cells, jnp.float32(self.keep), (self.grid, self.grid))
        # One cell more than the image needs, so that the grid can be shifted by up to a cell.
        sizes = [-(-side // self.grid) for side in shape[:2]]
        whole = [(self.grid + 1) * size for size in sizes]
        smooth = jax.image.resize(kept.astype(jnp.float32), whole, "bilinear")
        corner = jax.random.randint(shift, (2,), 0, jnp.asarray(sizes, jnp.int32), jnp.int32)
        return jax.lax.dynamic_slice(smooth, corner, shape[:2])

    def __call__(
        self, key: Array, number: Array, image: Array, own: PyTree, score: Score
    ) -> tuple[Array, Array]:
        mask = self.mask(key, image.shape)
        seen = own + mask[..., None] * (image - own)
        return jnp.broadcast_to(score(seen), mask.shape), mask


@struct.dataclass
class Segments:
    """f with one segment hidden, or with each kept with probability `keep`; the mask is the weight.

    `own` is the image's baseline and its map of segments.
    """

    players: int = struct.static()
    keep: Array | None = None

    def shapes(self, shape: Shape) -> tuple[Shape, Shape]:
        return shape[:2], shape[:2]

    def __call__(
        self, key: Array, number: Array, image: Array, own: PyTree, score: Score
    ) -> tuple[Array, Array]:
        baseline, segments = own
        if self.keep is None:
            weight = segments == number
            kept = ~weight
        else:
            weight = kept = jax.random.bernoulli(key, self.keep, (self.players,))[segments]
        seen = jnp.where(kept[..., None], image, baseline)
        return jnp.broadcast_to(score(seen), kept.shape), weight.astype(jnp.float32)


@gate.public
def occlusion(
    model: Model,
    images: ArrayLike,
    target: Any,
    *,
    window: int | tuple[int, int] = 8,
    stride: int | tuple[int, int] = 4,
    players: ArrayLike | None = None,
    baseline: str | ArrayLike = 0.0,
    chunk: int | None = None,
    checkpoint: PathLike | None = None,
    callback: Callback | None = None,
    progress: bool = True,
) -> Attribution:
    """f(x) less f with a sliding window hidden; a place takes the mean over its windows.

    Windows start at multiples of the stride until one reaches the border, over which it may hang.

    Args:
      model: any model.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      target: f: a class number (its logit), one for each image, or an objective of
        `rvis.objectives` (one, or one for each image).
      window: height and width in pixels, or one number for both.
      stride: steps down and across, or one number for both; at most the window.
      players: segments to hide in the place of windows: an integer map (H, W), or one for each
        image (n, H, W), such as `superpixels` gives.
      baseline: what hides: a number in [0, 1], "mean" of each image's pixels, "blur" (a Gaussian
        with σ an eighth of the shorter side) or an image (H, W, C).
      chunk: images on the device at once; bounds memory, never changes maps (to the bit on a CPU).
      checkpoint: a folder for the state of interrupted work; the same call then goes on.
      callback: `callback(step, maps, scores)` is called as the windows add up, with how many there
        are, the maps so far and f(x); where it returns True the work ends with these maps.
      progress: a bar on a terminal.

    Returns:
      An `Attribution` with maps (n, H, W), or (H, W) of one image: how much the score falls.

    Raises:
      TypeError, ValueError: naming the argument, before anything is compiled.
      FloatingPointError: naming the images whose map is not finite.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attribution
      >>> model = rvis.load("mnist_cnn")
      >>> grey = np.full((28, 28, 1), 0.5, np.float32)
      >>> attribution.occlusion(model, grey, 3, window=7, stride=7).maps.shape
      (28, 28)

    Reference: Zeiler & Fergus 2013, Visualizing and Understanding Convolutional Networks, section
      4.2.
    """
    question = ask(model, images, target, chunk=chunk, callback=callback)
    hidden: Any = one_baseline(baseline, question.images)
    about: dict[str, Any] = {"baseline": baseline}
    sampler: Any
    if players is None:
        sides = question.shape[:2]
        windows = _within("window", window, sides, "the image")
        steps = _within("stride", stride, windows, "the window")
        rows, columns = (
            -(-(side - wide) // step) + 1
            for side, wide, step in zip(sides, windows, steps, strict=True)
        )
        samples = rows * columns
        at = (on_device(windows, jnp.int32), on_device(steps, jnp.int32))
        sampler = Windows(*at, on_device(columns, jnp.int32))
        about |= {"window": windows, "stride": steps}
    else:
        segments = segment_maps(players, question.images)
        samples = int(segments.max()) + 1
        sampler, hidden = Segments(samples), (hidden, segments)
    scores = question.scores()
    maps = stream.mean(
        sampler,
        question,
        samples=samples,
        key=as_key(0),
        own=hidden,
        maps=lambda moments: scores[:, None, None] - moments.mean,
        chunk=chunk,
        checkpoint=checkpoint,
        callback=callback,
        progress=progress,
        label="occlusion",
    )
    return answer("occlusion", question, maps, scores, target=target, **about)


@gate.public
def rise(
    model: Model,
    images: ArrayLike,
    target: Any,
    *,
    grid: int = 7,
    keep: float = 0.5,
    players: ArrayLike | None = None,
    baseline: str | ArrayLike = 0.0,
    key: KeyLike = 0,
    samples: int = 4000,
    chunk: int | None = None,
    checkpoint: PathLike | None = None,
    callback: Callback | None = None,
    progress: bool = True,
) -> Attribution:
    """E[f(x ⊙ M) | M(place) = 1] over smooth random masks M, less its mean over places.

    A mask is a grid of cells, each kept with probability `keep`, enlarged bilinearly and shifted at
    random. The expectation (eq. 4) is estimated by Σ f·M / Σ M, so that a constant added to f
    changes nothing.

    Args:
      model: any model.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      target: see `occlusion`. The paper takes a class's probability.
      grid: cells a side.
      keep: probability that a cell is kept, in (0, 1).
      players: segments that are kept or hidden in the place of cells; see `occlusion`.
      baseline: what is seen where a mask is 0; see `occlusion`.
      key: an int seed or a typed key; mask i uses `fold_in(key, i)` and serves every image.
      samples: masks.
      chunk, checkpoint, callback, progress: see `occlusion`.

    Returns:
      An `Attribution` with maps (n, H, W), or (H, W) of one image.

    Raises:
      TypeError, ValueError, FloatingPointError: as `occlusion`.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attribution
      >>> model = rvis.load("mnist_cnn")
      >>> grey = np.full((28, 28, 1), 0.5, np.float32)
      >>> attribution.rise(model, grey, 3, samples=32).maps.shape
      (28, 28)

    Reference: Petsiuk et al. 2018, RISE, equations 4 and 6 and section 3.2.
    """
    question = ask(model, images, target, chunk=chunk, callback=callback)
    checks.count("grid", grid)
    if players is None and grid > min(question.shape[:2]):
        raise ValueError(
            f"grid: at most {min(question.shape[:2])} cells for these images, given {grid}"
        )
    share = checks.number("keep", keep, above=0, high=1 - 1e-6)
    hidden: Any = one_baseline(baseline, question.images)
    sampler: Any = RandomMasks(on_device(share, jnp.float32), grid)
    if players is not None:
        segments = segment_maps(players, question.images)
        sampler = Segments(int(segments.max()) + 1, jnp.float32(share))
        hidden = (hidden, segments)
    maps = stream.mean(
        sampler,
        question,
        samples=samples,
        key=as_key(key),
        own=hidden,
        maps=_about_the_mean,
        chunk=chunk,
        checkpoint=checkpoint,
        callback=callback,
        progress=progress,
        label="rise",
    )
    about: dict[str, Any] = {"samples": samples, "grid": grid, "keep": share, "baseline": baseline}
    return answer(
        "rise", question, maps, question.scores(), target=target, key=as_key(key), **about
    )


def _about_the_mean(moments: Moments) -> np.ndarray:
    maps = np.asarray(moments.mean)
    return maps - maps.mean((1, 2), keepdims=True)


def _within(argument: str, given: Any, most: tuple[int, ...], what: str) -> tuple[int, int]:
    pair = checks.size(argument, given)
    for side, limit in zip(pair, most, strict=True):
        if side > limit:
            raise ValueError(f"{argument}: at most {limit} ({what}) was expected, given {side}")
    return pair
