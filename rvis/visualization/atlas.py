"""Pictures of activations: of every place of an image's layer, and of a whole data set's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Unpack

import jax.numpy as jnp
import numpy as np
import PIL.Image

from rvis import checks, gate, objectives
from rvis.analysis import ranking
from rvis.models.taps import record
from rvis.plotting import grids
from rvis.results import Result
from rvis.types import LOGITS, ArrayLike, Model, on_device
from rvis.visualization.pictures import visualize
from rvis.visualization.plan import Options, make_plan


@gate.public
def activation_grid(
    model: Model,
    images: ArrayLike,
    layer: str,
    *,
    cosine_power: float = 2.0,
    **options: Unpack[Options],
) -> Result:
    """What a layer sees at each place of an image: a picture of each activation vector.

    The picture of place (i, j) climbs dot·max(.1, cosine)^p of the layer's centre neuron with the
    vector that the image has there, all places in one sweep.

    Args:
      model: any model.
      images: one, (H, W, C) in [0, 1].
      layer: a name of `model.layers` with places.
      cosine_power: p, at least 0; see `objectives.direction`.
      **options: of `visualize`; 128 steps by default.

    Returns:
      A Result whose `images` are (h, w, H', W', C) for a layer of h × w places, and whose `scores`
      are (h, w, steps). `grids.grid(result.images, pad=0)` is the sheet.

    Raises:
      ValueError, TypeError: naming the argument, as `visualize`; `images`, for more than one;
        `layer`, for one without places; `facets`, for more than one.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis.visualization import activation_grid
      >>> model = rvis.load("mnist_cnn")
      >>> seen = activation_grid(model, np.zeros((28, 28, 1), np.float32), "pool2", steps=2)
      >>> seen.images.shape
      (7, 7, 28, 28, 1)

    Reference: Olah et al. 2018, The Building Blocks of Interpretability (distill);
      tensorflow/lucid, `notebooks/building-blocks/ActivationGrid.ipynb`.
    """
    single = checks.images("images", images, channels=model.input_shape[2])
    if len(single) != 1:
        raise ValueError(f"images: one was expected, given {len(single)}")
    _, draw = _drawing(model, layer, cosine_power, options)
    seen = np.asarray(record(model, single, layer)[layer][0])
    if seen.ndim != 3:
        raise ValueError(
            f"layer: one with places was expected, given {layer!r} of shape {seen.shape}"
        )
    height, width, channels = seen.shape
    found = draw(seen.reshape(-1, channels))

    def placed(array: np.ndarray) -> np.ndarray:
        return array.reshape(height, width, *array.shape[1:])

    labels = [f"{layer}@{row},{column}" for row in range(height) for column in range(width)]
    return dataclasses.replace(
        found,
        images=placed(found.images),
        scores=placed(found.scores),
        labels=placed(np.asarray(labels, object)),
        snapshots={step: placed(stage) for step, stage in found.snapshots.items()},
        dead=placed(found.dead),
        alpha=None if found.alpha is None else placed(found.alpha),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Atlas:
    """A map of what a layer does on a data set; see `activation_atlas`.

    Attributes:
      cells: (k, 2) int, row and column of each cell on the map.
      counts: (k,) int, how many activations lie in it.
      vectors: (k, C) the directions that were drawn: their mean.
      icons: the Result with a picture of each.
      shape: rows and columns of the whole map.
    """

    cells: np.ndarray
    counts: np.ndarray
    vectors: np.ndarray
    icons: Result
    shape: tuple[int, int]

    def show(self) -> PIL.Image.Image:
        """The map: each icon in its cell, white where too few activations lie."""
        pictures = self.icons.images
        sheet = np.ones((*self.shape, *pictures.shape[1:]), np.float32)
        sheet[self.cells[:, 0], self.cells[:, 1]] = pictures
        return grids.grid(sheet, pad=0, scale=1)


@gate.public
def activation_atlas(
    model: Model,
    layer: str,
    activations: ArrayLike,
    layout: ArrayLike,
    *,
    grid: int = 20,
    least: int = 6,
    cosine_power: float = 2.0,
    **options: Unpack[Options],
) -> Atlas:
    """A map of a layer: what it sees on a data set, laid out by likeness.

    Activation vectors (one an image, from a random place) are laid out in the plane by a method of
    your own, such as UMAP of their cosines; the map is cut into cells; and each cell that holds
    enough of them is drawn as the picture of their mean. The layout's 1st and 99th percentile along
    each axis, with a margin of a tenth, are the map's borders; what lies beyond is left out.

    Args:
      model: any model.
      layer: a name of `model.layers`.
      activations: (n, C) activation vectors of the layer.
      layout: (n, 2) where each lies: across, and up.
      grid: cells along each side.
      least: activations that a cell needs to be drawn.
      cosine_power: see `objectives.direction`; the centre neuron of the layer counts.
      **options: of `visualize`; 128 steps by default.

    Raises:
      ValueError, TypeError: naming the argument: another shape, NaN, no cell with enough
        activations; otherwise as `visualize`.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis.visualization import activation_atlas
      >>> model = rvis.load("mnist_cnn")
      >>> seen = np.random.default_rng(0).uniform(size=(50, 64))
      >>> atlas = activation_atlas(model, "conv2", seen, seen[:, :2], grid=2, steps=2)
      >>> int(atlas.counts.sum()), atlas.show().size
      (50, (56, 56))

    Reference: Carter et al. 2019, Activation Atlas (distill); tensorflow/lucid,
      `recipes/activation_atlas`.
    """
    shape, draw = _drawing(model, layer, cosine_power, options)
    vectors = _table("activations", activations, shape[-1])
    places = _table("layout", layout, 2)
    if len(places) != len(vectors):
        raise ValueError(f"layout: {len(vectors)} places were expected, given {len(places)}")
    checks.count("grid", grid)
    checks.count("least", least)
    low, high = np.percentile(places, (1, 99), axis=0)
    low, high = low - 0.1 * (high - low), high + 0.1 * (high - low)
    span = np.where(high > low, high - low, 1)
    across, up = np.floor((places - low) / span * grid).T.astype(int)
    inside = (across >= 0) & (across < grid) & (up >= 0) & (up < grid)
    number = ((grid - 1 - up) * grid + across)[inside]
    numbers, counts = np.unique(number, return_counts=True)
    numbers, counts = numbers[counts >= least], counts[counts >= least]
    if not len(numbers):
        raise ValueError(f"least: no cell holds {least} activations; a smaller grid may do")
    means = np.stack([vectors[inside][number == n].mean(0) for n in numbers])
    return Atlas(
        np.stack(np.divmod(numbers, grid), -1),
        counts,
        means.astype(np.float32),
        draw(means),
        (grid, grid),
    )


def _drawing(
    model: Model, layer: str, cosine_power: float, options: Options
) -> tuple[tuple[int, ...], Callable[[np.ndarray], Result]]:
    """The layer's shape, and what draws directions of it, of its centre neuron if it has places."""
    checks.choice("layer", layer, (*model.layers, LOGITS))
    checks.number("cosine_power", cosine_power, low=0)
    options = {"steps": 128, **options}
    if options.get("facets", 1) != 1:
        raise ValueError(f"facets: 1 was expected, given {options['facets']}")
    shown = make_plan(model, (layer,), **options).shown
    shape = ranking.layer_shape(model, layer, shown, argument="size")
    centre = [n // 2 for n in shape[:2]] if len(shape) == 3 else None

    def draw(vectors: np.ndarray) -> Result:
        rows = on_device(vectors, jnp.float32)
        objective = objectives.direction(layer, rows, cosine_power=cosine_power, position=centre)
        return visualize(model, objective, **options)

    return shape, draw


def _table(argument: str, given: ArrayLike, width: int) -> np.ndarray:
    table = np.asarray(checks.array(argument, given), np.float64)
    if table.ndim != 2 or not len(table) or table.shape[1] != width:
        raise ValueError(f"{argument}: (n, {width}) was expected, given shape {table.shape}")
    return table
