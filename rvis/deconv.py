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
from tqdm import tqdm

from rvis import checks, files, plots, receptive, taps
from rvis.data import Dataset
from rvis.patches import TopActivations, cut, layer_shape, top_activations, unit_numbers
from rvis.results import describe
from rvis.types import Array, ArrayLike, Model, PyTree, Relu, Tap, Units, layer_shapes


@dataclasses.dataclass(frozen=True, eq=False)
class Reconstruction:
    """Activations sent back to the pixels.

    Attributes:
      pixels: (n, H, W, C) float32, signed.
      values: (n,) the activations that were kept.
      positions: (n, 2) their rows and columns in the layer; 0 for a dense layer.
    """

    pixels: np.ndarray
    values: np.ndarray
    positions: np.ndarray


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
    convolution applies its transposed filters; batch normalisation its scale. Local response
    normalisation (layers with `localresponsenorm` in their names) is passed over. A network without
    max-pooling has no switches: there the picture depends on the unit and its place alone.

    Args:
      model: one that takes `relu=`; see `Model.apply`.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1].
      layer: a name of `model.layers`.
      units: a channel's number, or (n,) of them.
      positions: (row, column) of the activation, or (n, 2); by default the channel's strongest.
      chunk: images at once, a bound on memory; 64 small ones by default.
      progress: a bar on a terminal.

    Returns:
      A `Reconstruction`, of the images' size.

    Raises:
      TypeError, ValueError: naming the argument; naming `relu`, for a model that applies its own.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import deconv
      >>> model = rvis.load("mnist_cnn")
      >>> images = np.random.default_rng(0).random((2, 28, 28, 1)).astype(np.float32)
      >>> deconv.reconstruct(model, images, "conv2", 7).pixels.shape
      (2, 28, 28, 1)

    Reference: Zeiler & Fergus 2013, Visualizing and Understanding Convolutional Networks, §2.1.
    """
    batch = np.asarray(checks.images("images", images, channels=model.input_shape[2]))
    n, height, width, channels = batch.shape
    shape = layer_shape(model, layer, (height, width, channels))
    numbers = unit_numbers(units, shape, layer)
    if numbers.shape not in ((), (1,), (n,)):
        raise ValueError(f"units: one, or one for each of {n} images, was expected, given {units}")
    numbers = np.broadcast_to(numbers.reshape(-1), (n,))
    places = _places(positions, shape, n)
    if chunk is None:
        room, most = (2**16, 64) if jax.default_backend() == "cpu" else (2**23, 256)
        chunk = min(most, max(1, room // (height * width)))
    size = min(checks.count("chunk", chunk), n)
    found = []
    disable = None if progress else True
    with tqdm(total=n, desc=f"{layer} to pixels", disable=disable, leave=False) as bar:
        for first in range(0, n, size):
            rows = np.minimum(np.arange(first, first + size), n - 1)
            part = _reconstruct(
                model.unnamed(), batch[rows], numbers[rows], places[rows], layer=layer
            )
            count = min(size, n - first)
            found.append(tuple(np.asarray(leaf)[:count] for leaf in part))
            bar.update(count)
    signed, values, flat = (np.concatenate(leaves) for leaves in zip(*found, strict=True))
    columns = shape[1] if len(shape) == 3 else 1
    return Reconstruction(signed, values, np.stack(np.divmod(flat, columns), -1))


@partial(jax.jit, static_argnames="layer")
def _reconstruct(
    model: Model, images: Array, units: Array, places: Array, *, layer: str
) -> tuple[Array, Array, Array]:
    """Pixels, activations and flat places of n images; the strongest for places below 0."""
    passing = model.replace(apply=_PassingNorms(model.apply))  # type: ignore[attr-defined]

    def one(image: Array, unit: Array, place: Array) -> tuple[Array, Array, Array]:
        def forward(image: Array) -> Array:
            found = taps.activations(passing, image[None], (layer,), relu=taps.deconvnet_relu)
            return found[layer].reshape(-1, found[layer].shape[-1])

        activations, back = jax.vjp(forward, image)
        own = jnp.take(activations, unit, axis=1)
        place = jnp.where(place < 0, own.argmax(), place)
        kept = jnp.zeros_like(activations).at[place, unit].set(own[place])
        return back(kept)[0], own[place], place

    return jax.vmap(one)(images, units, places)


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
    del before
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
        """A labelled grid with one plate a unit: patches left, reconstructions right.

        A patch that does not excite its unit (activation 0) means nothing, and is grey.
        """
        silent = (self.top.values == 0)[..., None, None, None]
        pairs = zip(np.where(silent, 0.5, self.top.patches), self.pictures, strict=True)
        return plots.grid(
            np.stack([_plate(*pair) for pair in pairs]),
            titles=[f"{self.top.layer}:{unit}" for unit in self.top.units],
            scale=max(1, 40 // max(self.top.patches.shape[2:4])),
        )

    @property
    def pictures(self) -> np.ndarray:
        """(m, k, h, w, C) in [0, 1]: each reconstruction about mid-grey, scaled to its largest."""
        return centred(self.reconstructions)

    def save(self, folder: str | Path) -> Path:
        """Writes `plates.png`, the arrays and a JSON card into `folder`.

        Raises:
          OSError: naming the path, on a full disk or without permission.
        """
        place = Path(folder)
        plots.save(self.show(), place / "plates.png")
        with files.atomic(place / "plates.npz") as beside, open(beside, "wb") as stream:
            np.savez(stream, patches=self.top.patches, reconstructions=self.reconstructions)
        card = {
            name: getattr(self.top, name)
            for name in ("layer", "units", "values", "indices", "positions", "corners")
        }
        files.write_json(place / "plates.json", {**card, "config": self.config})
        return place


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
      layer: as in `top_activations`.
      units: as in `top_activations`.
      dataset: as in `top_activations`.
      k: as in `top_activations`; 9 makes 3 × 3.
      chunk: images at once, a bound on memory.
      progress: a bar on a terminal.

    Returns:
      `Plates`.

    Raises:
      TypeError, ValueError: naming the argument.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis import deconv
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


def _plate(patches: np.ndarray, pictures: np.ndarray) -> np.ndarray:
    """k patches left and k pictures right, each as square as can be, as one image."""
    side = math.ceil(math.sqrt(len(patches)))
    gap = max(1, patches.shape[1] // 16)
    return np.concatenate([_mosaic(patches, side, gap), _mosaic(pictures, side, gap)], axis=1)


def _mosaic(images: np.ndarray, columns: int, gap: int) -> np.ndarray:
    _, height, width, channels = images.shape
    rows = -(-len(images) // columns)
    sheet = np.ones((rows * (height + gap) + gap, columns * (width + gap) + gap, channels))
    for i, image in enumerate(images):
        top, left = (
            gap + j * (n + gap) for j, n in zip(divmod(i, columns), (height, width), strict=True)
        )
        sheet[top : top + height, left : left + width] = image
    return sheet.astype(np.float32)


def centred(signed: ArrayLike) -> np.ndarray:
    """Signed pictures in [0, 1]: 0 is mid-grey, each one's largest magnitude black or white.

    Args:
      signed: (..., H, W, C).

    Example:
      >>> import numpy as np
      >>> from rvis.deconv import centred
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
        return plots.grid(self.pictures, scale=max(1, 48 // max(self.kernels.shape[1:3])), pad=2)


def first_layer_filters(model: Model) -> Filters:
    """The first convolution's filters, in the image's own colours.

    They are the gradient of the first layer's central units with respect to the image, so that they
    include the model's normalisation of its input and need no knowledge of its parameters' names.

    Args:
      model: one whose first layer with places is affine in the image.

    Returns:
      `Filters`, one a channel.

    Raises:
      ValueError: naming `model`, where that layer is not affine.

    Example:
      >>> import rvis
      >>> from rvis import deconv
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
