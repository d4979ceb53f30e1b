"""What a unit responds to in real images, sent back to the pixels: deconvnet plates and filters."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
from jax import lax

from rvis import checks, engine, gate, struct
from rvis.analysis import ranking, receptive
from rvis.analysis.patches import TopActivations, cut, top_activations, unit_numbers
from rvis.data import Dataset
from rvis.models import taps
from rvis.plotting import grids
from rvis.results import describe, write
from rvis.types import Array, ArrayLike, Model, PyTree, Relu, Tap, Units, layer_shapes


@dataclasses.dataclass(frozen=True, eq=False)
class Reconstruction:
    """Activations sent back to the pixels; of one image without the axis n.

    Attributes:
      pixels: (n, H, W, C) float32, signed.
      values: (n,) the activations that were kept.
      positions: (n, 2) their rows and columns in the layer; 0 for a dense layer.
    """

    pixels: np.ndarray
    values: np.ndarray
    positions: np.ndarray


@gate.public
def reconstruct(
    model: Model,
    images: ArrayLike,
    layer: str,
    units: Units,
    *,
    positions: ArrayLike | None = None,
    chunk: int | None = None,
    progress: bool = True,
) -> Reconstruction:
    """One activation of each image, sent back to the pixels by a deconvolutional network.

    All other activations of the layer are zeroed. Then each pooling puts its values where the
    maximum was (the switches of this image), each ReLU rectifies what comes back, and each
    convolution applies its transposed filters. Local response normalisation (layers with
    `localresponsenorm` in their names) is passed over. A network without max-pooling has no
    switches: there the picture depends on the unit and its place alone.

    Args:
      model: one with ReLUs.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      layer: a name of `model.layers`.
      units: a channel's number, or (n,) of them.
      positions: (row, column) of the activation, or (n, 2); by default the channel's strongest.
      chunk: images on the device at once, a bound on memory.
      progress: a bar on a terminal.

    Returns:
      A `Reconstruction`, of the images' size.

    Raises:
      TypeError, ValueError: naming the argument; naming `relu`, for a model without any.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis.analysis import deconv
      >>> model = rvis.load("mnist_cnn")
      >>> images = np.random.default_rng(0).random((2, 28, 28, 1)).astype(np.float32)
      >>> deconv.reconstruct(model, images, "conv2", 7).pixels.shape
      (2, 28, 28, 1)

    Reference: Zeiler & Fergus 2013, Visualizing and Understanding Convolutional Networks, §2.1.
    """
    batch = np.asarray(checks.images("images", images, channels=model.input_shape[2]))
    n, height, width, channels = batch.shape
    single = np.ndim(images) == 3
    shape = ranking.layer_shape(model, layer, (height, width, channels))
    numbers = unit_numbers(units, shape, model, layer)
    if numbers.shape not in ((), (1,), (n,)):
        raise ValueError(f"units: one, or one for each of {n} images, was expected, given {units}")
    numbers = np.broadcast_to(numbers.reshape(-1), (n,))
    places = _places(positions, shape, n)
    signed, values, flat = engine.apply(
        _Reconstruct(layer),
        model,
        (batch, numbers, places),
        pixels=height * width,
        widest=4,
        chunk=chunk,
        progress=progress,
        label=f"{layer} to pixels",
    )
    columns = shape[1] if len(shape) == 3 else 1
    positions = np.stack(np.divmod(flat, columns), -1)
    return Reconstruction(*((x[0] if single else x) for x in (signed, values, positions)))


@dataclasses.dataclass(frozen=True)
class _Reconstruct:
    """Pixels, activation and flat place of one image; the strongest for a place below 0."""

    layer: str

    def __call__(
        self, model: Model, problem: tuple[Array, Array, Array]
    ) -> tuple[Array, Array, Array]:
        image, unit, place = problem

        passing = struct.replace(model, apply=_PassingNorms(model.apply))

        def forward(image: Array) -> Array:
            layers = (self.layer,)
            found = taps.activations(passing, image[None], layers, relu=taps.deconvnet_relu)
            return found[self.layer].reshape(-1, found[self.layer].shape[-1])

        activations, back = jax.vjp(forward, image)
        own = jnp.take(activations, unit, axis=1)
        place = jnp.where(place < 0, lax.argmax(own, 0, jnp.int32), place)
        kept = jnp.zeros_like(activations).at[place, unit].set(own[place])
        return back(kept)[0], own[place], place


class _PassingNorms(NamedTuple):
    """A model's `apply` whose local response normalisations pass gradients as they are."""

    apply: Any

    def __call__(self, params: PyTree, images: Array, *, tap: Tap, relu: Relu) -> Array:
        before: Array | None = None

        def passing(name: str, activation: Array) -> Array:
            nonlocal before
            if "localresponsenorm" in name.lower() and before is not None:
                activation = _straight(before, activation)
            before = tap(name, activation)
            return before

        return self.apply(params, images, tap=passing, relu=relu)


@jax.custom_vjp
def _straight(before: Array, after: Array) -> Array:
    """`after`, whose gradient goes to `before`."""
    return after


_straight.defvjp(lambda before, after: (after, None), lambda _, g: (g, jnp.zeros_like(g)))


@dataclasses.dataclass(frozen=True, eq=False)
class Plates:
    """For each unit the patches that excite it most, and what in them does.

    Attributes:
      top: the images, their places and patches.
      reconstructions: (m, k, h, w, C) float32, signed: the patches' parts of the reconstructions.
      config: the arguments and versions, as JSON-able values.
    """

    top: TopActivations
    reconstructions: np.ndarray
    config: dict[str, Any]

    def show(self) -> PIL.Image.Image:
        """A plate a unit: patches left (grey where they excite nothing), reconstructions right."""
        silent = (self.top.values == 0)[..., None, None, None]
        pairs = zip(np.where(silent, 0.5, self.top.patches), self.pictures, strict=True)
        plates = [np.concatenate([_mosaic(some) for some in pair], 1) for pair in pairs]
        return grids.grid(
            np.stack(plates),
            titles=[f"{self.top.layer}:{unit}" for unit in self.top.units],
            scale=max(1, 40 // max(self.top.patches.shape[2:4])),
        )

    @property
    def pictures(self) -> np.ndarray:
        """(m, k, h, w, C) in [0, 1]: each reconstruction about mid-grey, scaled to its largest."""
        return centred(self.reconstructions)

    def save(self, folder: str | Path) -> Path:
        """Writes a PNG of each reconstruction, the arrays, a JSON card and the figure.

        Raises:
          OSError: naming the path, on a full disk or without permission.
        """
        fields = ("layer", "units", "values", "indices", "positions", "corners")
        names = (
            f"{self.top.layer}_{unit}_{rank}"
            for unit in self.top.units
            for rank in range(self.pictures.shape[1])
        )
        flat = self.pictures.reshape(-1, *self.pictures.shape[2:])
        return write(
            folder,
            pictures=zip(names, flat, strict=True),
            arrays={"patches": self.top.patches, "reconstructions": self.reconstructions},
            figure=self.show(),
            card={**{name: getattr(self.top, name) for name in fields}, "config": self.config},
        )


@gate.public
def plates(
    model: Model,
    layer: str,
    units: Units,
    dataset: Dataset,
    k: int = 9,
    *,
    chunk: int | None = None,
    progress: bool = True,
) -> Plates:
    """Zeiler & Fergus's plates: the top k patches of each unit beside their reconstructions.

    Args:
      model: as in `reconstruct`.
      layer, units, dataset, k, chunk, progress: as in `top_activations`; 9 makes 3 × 3.

    Raises:
      TypeError, ValueError: naming the argument.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis.analysis import deconv
      >>> images = np.random.default_rng(0).integers(0, 256, (20, 28, 28, 1), np.uint8)
      >>> noise = rvis.data.Dataset(images, np.zeros(20, np.int32), ("noise",), "noise")
      >>> deconv.plates(rvis.load("mnist_cnn"), "conv1", [3, 4], noise).show().mode
      'RGB'

    Reference: Zeiler & Fergus 2013, figure 2.
    """
    top = top_activations(model, layer, units, dataset, k, chunk=chunk, progress=progress)
    m = len(top.units)
    found = reconstruct(
        model,
        dataset.floats(top.indices.reshape(-1)),
        layer,
        np.repeat(top.units, k),
        positions=top.positions.reshape(-1, 2),
        chunk=chunk,
        progress=progress,
    )
    window = top.patches.shape[2:4]
    corners = top.corners.reshape(-1, 2)
    parts = [cut(*pair, window) for pair in zip(found.pixels, corners, strict=True)]
    config = describe(
        function="plates", model=model.name, layer=layer, units=top.units, dataset=dataset.name, k=k
    )
    return Plates(top, np.stack(parts).reshape(m, k, *np.shape(parts[0])), config)


def _mosaic(images: np.ndarray) -> np.ndarray:
    """k pictures as one, as square as can be, with white gaps between them."""
    count, height, width, channels = images.shape
    side, gap = math.ceil(math.sqrt(count)), max(1, height // 16)
    cells = np.ones((-(-count // side) * side, height + gap, width + gap, channels), np.float32)
    cells[:count, gap:, gap:] = images
    rows = [np.concatenate(list(row), 1) for row in cells.reshape(-1, side, *cells.shape[1:])]
    return np.pad(np.concatenate(rows), ((0, gap), (0, gap), (0, 0)), constant_values=1)


@gate.public
def centred(signed: ArrayLike) -> np.ndarray:
    """Signed pictures in [0, 1]: 0 is mid-grey, each one's largest magnitude black or white.

    Args:
      signed: (..., H, W, C).

    Example:
      >>> import numpy as np
      >>> from rvis.analysis.deconv import centred
      >>> centred(np.array([-4.0, 0.0, 2.0]).reshape(1, 3, 1)).ravel().tolist()
      [0.0, 0.5, 0.75]
    """
    array = np.asarray(signed, np.float32)
    peak = np.abs(array).max((-3, -2, -1), keepdims=True)
    return 0.5 + array / np.where(peak > 0, 2 * peak, 1)


@dataclasses.dataclass(frozen=True, eq=False)
class Filters:
    """The filters of a first layer.

    Attributes:
      layer: its name.
      kernels: (filters, h, w, C): what a change of each pixel, in [0, 1], does to a unit.
    """

    layer: str
    kernels: np.ndarray

    @property
    def pictures(self) -> np.ndarray:
        """(filters, h, w, C) in [0, 1], each about mid-grey and scaled to its largest."""
        return centred(self.kernels)

    def show(self) -> PIL.Image.Image:
        """All filters as one grid."""
        return grids.grid(self.pictures, scale=max(1, 48 // max(self.kernels.shape[1:3])), pad=2)

    def save(self, folder: str | Path) -> Path:
        """Writes a PNG of each filter, the kernels, a JSON card and the figure into `folder`.

        Raises:
          OSError: naming the path, on a full disk or without permission.
        """
        return write(
            folder,
            pictures=enumerate(self.pictures),
            arrays={"kernels": self.kernels},
            figure=self.show(),
            card={"layer": self.layer},
        )


@gate.public
def first_layer_filters(model: Model) -> Filters:
    """The first convolution's filters, in the image's own colours.

    They are the gradient of the first layer's central units with respect to the image, so that they
    include the model's normalisation of its input.

    Args:
      model: one whose first layer with places is affine in the image.

    Returns:
      `Filters`, one a channel.

    Raises:
      ValueError: naming `model`, where that layer is not affine.

    Example:
      >>> import rvis
      >>> from rvis.analysis import deconv
      >>> deconv.first_layer_filters(rvis.load("mnist_cnn")).kernels.shape
      (32, 5, 5, 1)

    Reference: Krizhevsky et al. 2012, figure 3.
    """
    shapes = layer_shapes(model)
    layer = next((name for name in model.layers if len(shapes.get(name, ())) == 3), None)
    if layer is None:
        raise ValueError(f"model: {model.name} has no layer with places to look at")
    rng = np.random.default_rng(0)
    images = rng.random((2, *model.input_shape)).astype(np.float32)
    one, other = (np.asarray(_jacobian(model.unnamed(), x, layer=layer)) for x in images)
    if not np.allclose(one, other, rtol=1e-3, atol=1e-4 * np.abs(one).max()):
        raise ValueError(
            f"model: a first layer affine in the image was expected, given {layer!r} of "
            f"{model.name}, whose gradient changes with the image"
        )
    rows, columns = receptive.receptive_field(model, layer).window()
    return Filters(layer, one[:, rows, columns])


@partial(jax.jit, static_argnames="layer")
def _jacobian(model: Model, image: Array, *, layer: str) -> Array:
    """(channels, H, W, C): the gradient of each channel at the layer's centre."""

    def centre(image: Array) -> Array:
        found = taps.activations(model, image[None], (layer,))[layer][0]
        return found[found.shape[0] // 2, found.shape[1] // 2]

    values, back = jax.vjp(centre, image)
    # One channel at a time, since all gradients at once are large.
    return lax.map(lambda seed: back(seed)[0], jnp.eye(len(values), dtype=values.dtype))


def _places(positions: ArrayLike | None, shape: tuple[int, ...], count: int) -> np.ndarray:
    """(n,) flat places; −1 for the strongest."""
    if positions is None:
        return np.full(count, -1, np.int32)
    given = np.asarray(positions)
    if given.shape not in ((2,), (count, 2)):
        raise ValueError(
            f"positions: (row, column), or one for each of {count} images, was expected, given "
            f"shape {given.shape}"
        )
    height, width = shape[:2] if len(shape) == 3 else (1, 1)
    rows = checks.integers("positions", given[..., 0], high=height, what="the layer's rows")
    columns = checks.integers("positions", given[..., 1], high=width, what="the layer's columns")
    return np.broadcast_to(rows * width + columns, (count,)).astype(np.int32)
