"""Parts of images as players: square patches, maps of segments, superpixels; and XRAI."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import ndimage

from rvis import checks, gate
from rvis.analysis.questions import ask
from rvis.attribution.integrated import integrated_gradients
from rvis.attribution.result import Attribution
from rvis.attribution.stream import answer
from rvis.types import ArrayLike, Model


def segment_maps(players: Any, images: np.ndarray) -> np.ndarray:
    """(n, H, W) int32 numbers of players from 0, without holes.

    Args:
      players: the side of square patches, a map (H, W) or one for each image (n, H, W).
      images: (n, H, W, C).

    Raises:
      TypeError, ValueError: naming `players`.

    Example:
      >>> import numpy as np
      >>> from rvis.attribution.segments import segment_maps
      >>> segment_maps(2, np.zeros((1, 2, 4, 3)))[0].tolist()
      [[0, 0, 1, 1], [0, 0, 1, 1]]
    """
    count, height, width = images.shape[:3]
    if np.ndim(players) == 0:
        side = checks.count("players", players)
        if side > max(height, width):
            raise ValueError(
                f"players: a patch's side of 1 to {max(height, width)} was expected, given {side}"
            )
        rows, columns = np.arange(height) // side, np.arange(width) // side
        flat = (rows[:, None] * (columns[-1] + 1) + columns).astype(np.int32)
        return np.broadcast_to(flat, (count, height, width))
    numbers = checks.integers("players", players, low=-checks.LARGEST)
    if numbers.shape not in ((height, width), (count, height, width)):
        raise ValueError(
            f"players: a map of shape {(height, width)} was expected, given {numbers.shape}"
        )
    maps = numbers.reshape(-1, height, width)
    own = [np.unique(one, return_inverse=True)[1].reshape(one.shape) for one in maps]
    return np.broadcast_to(np.stack(own).astype(np.int32), (count, height, width))


def spread_over(values: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """(n, H, W) maps of values (n, players), each spread evenly over its segment."""
    maps = [
        (own / np.maximum(np.bincount(where.ravel(), minlength=len(own)), 1))[where]
        for own, where in zip(values, segments, strict=True)
    ]
    return np.stack(maps).astype(np.float32)


@gate.public
def superpixels(images: ArrayLike, *, segments: int = 50, compactness: float = 10.0) -> np.ndarray:
    """SLIC superpixels as maps of players, by scikit-image.

    Args:
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      segments: about how many.
      compactness: how much nearness counts beside likeness of colour.

    Returns:
      (n, H, W) int32, or (H, W) of one image, numbered from 0.

    Raises:
      ImportError: naming the extra, where scikit-image is not installed.
      TypeError, ValueError: naming the argument.

    Example:
      >>> import numpy as np
      >>> from rvis import attribution
      >>> pictures = np.random.default_rng(0).random((1, 16, 16, 3), np.float32)
      >>> attribution.superpixels(pictures, segments=4).shape  # doctest: +SKIP
      (1, 16, 16)

    Reference: Achanta et al. 2012, SLIC Superpixels.
    """
    batch = np.asarray(checks.images("images", images))
    checks.count("segments", segments)
    near = checks.number("compactness", compactness, above=0)
    slic = checks.package("skimage.segmentation", "superpixels", "superpixels").slic
    maps = [
        slic(
            image if image.shape[-1] == 3 else image.mean(-1),
            n_segments=segments,
            compactness=near,
            start_label=0,
            channel_axis=-1 if image.shape[-1] == 3 else None,
        )
        for image in batch
    ]
    whole = np.stack(maps).astype(np.int32)
    return whole[0] if np.ndim(images) == 3 else whole


@gate.public
def xrai(
    model: Model,
    images: ArrayLike,
    target: Any,
    *,
    segments: ArrayLike | None = None,
    dilation: int | None = None,
    steps: int = 50,
    chunk: int | None = None,
    progress: bool = True,
) -> Attribution:
    """Regions in the order in which they bring most attribution for each place.

    Integrated gradients from black and from white are averaged, and of the channels the highest is
    taken. Then the segment whose places that are not yet covered have the highest mean comes next,
    and these places get that mean.

    Args:
      segments: (k, H, W) maps of segments at k scales, or (n, k, H, W) for each image; by default
        superpixels, about 6, 12, 25, 50 and 100 of them.
      dilation: by how many pixels segments are widened, so that they hold their edges; by default
        a 45th of the shorter side, the authors' 5 pixels at 224.
      steps: nodes of the integrals.

    All else as `integrated_gradients`; maps are (n, H, W), or (H, W) of one image.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import attribution
      >>> model = rvis.load("mnist_cnn")
      >>> digit = np.random.default_rng(0).random((28, 28, 1), np.float32)
      >>> halves = (np.arange(28) < 14)[None, None] * np.ones((1, 28, 1), int)
      >>> len(np.unique(attribution.xrai(model, digit, 3, segments=halves, dilation=0).maps))
      2

    Reference: Kapishnikov et al. 2019, XRAI, algorithm 1.
    """
    question = ask(model, images, target, chunk=chunk)
    shape, count = question.shape, len(question.images)
    if segments is None:
        own = [superpixels(question.images, segments=some) for some in (6, 12, 25, 50, 100)]
        scales = np.stack(own, 1)
    else:
        scales = checks.integers("segments", segments, low=-checks.LARGEST)
        if scales.shape[-2:] != shape[:2] or scales.ndim not in (3, 4):
            raise ValueError(
                f"segments: (k, {shape[0]}, {shape[1]}) was expected, given {scales.shape}"
            )
        scales = np.broadcast_to(scales, (count, *scales.shape[-3:]))
    wide = round(min(shape[:2]) / 45)
    if dilation is not None:
        wide = checks.count("dilation", dilation, low=0)
    run: dict[str, Any] = {"steps": steps, "tol": None, "chunk": chunk, "progress": progress}
    asked: Any = question
    parts = [
        integrated_gradients(model, asked, None, baseline=level, **run).maps.reshape(count, *shape)
        for level in (0.0, 1.0)
    ]
    warm = np.mean(parts, 0).max(-1)
    maps = np.stack([_ranked(one, own, wide) for one, own in zip(warm, scales, strict=True)])
    about: dict[str, Any] = {"steps": steps, "dilation": wide}
    return answer("xrai", question, maps, question.scores(), target=target, **about)


def _ranked(warm: np.ndarray, scales: np.ndarray, wide: int) -> np.ndarray:
    """The map of one image, by the segments of all scales."""
    reach = np.arange(-wide, wide + 1)
    disk = np.hypot(reach[:, None], reach) <= wide
    masks = [scale == number for scale in scales for number in np.unique(scale)]
    if wide:
        masks = [ndimage.binary_dilation(mask, disk) for mask in masks]
    places = [np.flatnonzero(mask) for mask in masks]
    values = warm.ravel().astype(np.float64)
    result, left = np.zeros(values.shape), np.ones(values.shape, bool)

    def gain(own: np.ndarray) -> float:
        rest = own[left[own]]
        return values[rest].mean() if len(rest) else -math.inf

    gains = [gain(own) for own in places]
    while left.any():
        best = int(np.argmax(gains))
        rest = places[best][left[places[best]]]
        result[rest], left[rest] = gains[best], False
        # Only segments that held one of these places have another mean now.
        taken = np.zeros(values.shape, bool)
        taken[rest] = True
        gains = [
            gain(own) if taken[own].any() else old for own, old in zip(places, gains, strict=True)
        ]
    return result.reshape(warm.shape).astype(np.float32)
