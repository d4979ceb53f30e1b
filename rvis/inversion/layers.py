"""Reconstructing images from the representation that a layer makes of them."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import PIL.Image

from rvis import checks, engine, files, gate, objectives, projections, regularizers, struct
from rvis.analysis import ranking, representations
from rvis.analysis.receptive import receptive_field
from rvis.ascent import Ascent, Problem, watcher
from rvis.images import CPPN, MACO, RGBA, Parameterization, Pixel, named
from rvis.optimizers import Optimizer, adam
from rvis.plotting import grids
from rvis.results import Result, describe
from rvis.transforms import Roll
from rvis.types import LOGITS, ArrayLike, KeyLike, Model, as_key, fold_each, layer_shapes, on_device

TV = (3e-5, 3e-4, 3e-3)
"""Weights of the total variation in the first, second and last third of a network's layers."""
ALPHA = 1e-5
"""Weight of the α-norm."""
_GREY = 80 / 255
"""A pixel's typical distance from mid-grey (nnpreimage, `get_defaults.m`: 80 of 255)."""
_SLOPE = _GREY / 6.5
"""A typical difference of neighbouring pixels (ibid.)."""
_RATE, _PIXEL_RATE = 0.1, 0.02


@dataclasses.dataclass(frozen=True, eq=False)
class Inversion(Result):
    """Reconstructions from a layer's representation, beside what they are of.

    Attributes:
      originals: (n, H, W, C), or (H, W, C) for a single image.
      errors: (…) ‖Φ(x) − Φ₀‖ / ‖Φ₀‖ of each reconstruction as it is, without jitter; one for each
        of `images`.
      layer: whose representation.
    """

    originals: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    errors: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(()))
    layer: str = ""

    def show(self) -> PIL.Image.Image:
        """A row for each image: the original, then its reconstructions with their errors."""
        originals = self.originals.reshape(-1, 1, *self.originals.shape[-3:])
        n = len(originals)
        rows = np.concatenate([originals, self.images.reshape(n, -1, *originals.shape[2:])], 1)
        titles = []
        for errors in self.errors.reshape(n, -1):
            titles += ["original", *(f"{self.layer} {error:.1%}" for error in errors)]
        return grids.grid(rows, titles=titles)


@gate.public
def invert(
    model: Model,
    images: ArrayLike,
    layer: str,
    *,
    alpha: float | None = None,
    tv: float | None = None,
    image: str | Parameterization | None = None,
    jitter: int | None = None,
    key: KeyLike = 0,
    steps: int = 384,
    samples: int = 1,
    optimizer: Optimizer | None = None,
    chunk: int | None = None,
    checkpoint: files.PathLike | None = None,
    callback: Callable[[int, np.ndarray, np.ndarray], Any] | None = None,
    progress: bool = True,
) -> Inversion:
    """Images that a layer sees as it sees the given ones: minimisers x of

        ‖Φ(x) − Φ₀‖² / ‖Φ₀‖² + alpha·R_α(x) + tv·R_V(x)

    with Φ the layer's activations and Φ₀ those of the given image. The penalties are scale-free, 1
    or so for a photograph of any size: R_α is the mean over pixels of (|x − ½|·255/80)⁶ and R_V
    that of (dx² + dy²)·(6.5·255/80)².

    All but the last sixth of the steps look at the picture through a random jitter, the rest
    without it at a tenth of the rate (300 and 50 in the authors' code). Adam with b1 = b2 = .9 is
    their step: momentum .9 over the root of squared gradients that fade by .9.

    Args:
      model: any model.
      images: (n, H, W, C) or (H, W, C), float32 in [0, 1], of any size that reaches the layer.
      layer: a name of `model.layers`, or "logits".
      alpha: at least 0; `ALPHA` by default.
      tv: at least 0; by default `TV`, for the third of the network in which the layer lies (×1, ×10
        and ×100 with depth).
      samples: independent reconstructions of each image, from different noise.
      steps: gradient steps.
      image: "fourier", "pixel", "pyramid" or a parameterization that can write any picture down. By
        default "pyramid" for layers of the first third of a network, which it brings back to the
        last pixel, and for grey, where its coarse octaves find whole strokes again when the units
        of single pixels are dead and have no gradient; else "fourier", which reaches lower errors
        in deep layers in as many steps, and smoother pictures.
      optimizer: of `rvis.optimizers`; the Adam above by default, at .1, for pixels .02.
      jitter: the largest shift in pixels; by default half of round(stride / 4), so that shifts
        range over as many pixels as the authors', with the stride of the last layer with places.
      key: an int seed or a typed key. Sample j of every image uses `fold_in(key, j)`, so that an
        image's reconstructions are the same alone and in any batch.
      chunk: reconstructions at once; bounds memory.
      checkpoint: a folder for the state of an interrupted run; the same call then goes on.
      callback: called as `callback(step, images, scores)` after each step; True ends the run.
      progress: a bar on a terminal.

    Returns:
      An `Inversion` with `images` (n, samples, H, W, C), without the first axis for a single image
      and without the second for a single sample. Its `scores` are −‖Φ(x) − Φ₀‖² / ‖Φ₀‖².

    Raises:
      ValueError, TypeError: naming the argument, before anything is compiled.
      FloatingPointError: if a score becomes NaN.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis.inversion import invert
      >>> model = rvis.load("mnist_cnn")
      >>> digit = np.zeros((28, 28, 1), np.float32)
      >>> digit[6:22, 13:16] = 1
      >>> found = invert(model, digit, "conv1", samples=2, steps=3)
      >>> found.images.shape, found.errors.shape
      ((2, 28, 28, 1), (2,))

    Reference: Mahendran & Vedaldi, "Understanding Deep Image Representations by Inverting Them",
      CVPR 2015, arXiv:1412.0035, eq. 2; "Visualizing Deep Convolutional Neural Networks Using
      Natural Pre-images", IJCV 2016, arXiv:1512.02017; aravindhm/nnpreimage.
    """
    originals = checks.images("images", images, channels=model.input_shape[2])
    count, height, width, channels = originals.shape
    shape = (height, width, channels)
    ranking.layer_shape(model, layer, shape)
    for name, value in (("samples", samples), ("steps", steps)):
        checks.count(name, value)
    alpha = ALPHA if alpha is None else checks.number("alpha", alpha, low=0)
    tv = TV[_third(model, layer)] if tv is None else checks.number("tv", tv, low=0)
    if jitter is None:
        jitter = _jitter(model, layer, shape)
    if image is None:
        early = _third(model, layer) == 0
        image = "pyramid" if early or shape[2] != 3 else "fourier"
    spec = _parameterization(image, shape)
    if optimizer is None:
        optimizer = adam(_PIXEL_RATE if isinstance(spec, Pixel) else _RATE, b2=0.9)
    elif not isinstance(optimizer, Optimizer):
        raise TypeError(
            f"optimizer: one of rvis.optimizers, such as adam(0.1), was expected, given "
            f"{optimizer!r}"
        )
    root = as_key(key)
    total, size = count * samples, math.prod(shape)
    batch = ((count,) if np.ndim(images) == 4 else ()) + ((samples,) if samples > 1 else ())

    def shaped(array: np.ndarray) -> np.ndarray:
        return array.reshape((*batch, *array.shape[1:]))

    representation = representations.encode(model, np.asarray(originals), layer)
    references = np.repeat(representation, samples, 0)
    problem = Problem(
        objectives.match(layer, references, many=True),
        (
            regularizers.alpha_norm(alpha / size / _GREY**6, alpha=6),
            regularizers.total_variation(tv / size / _SLOPE**2, beta=2),
        ),
        projections.Box() if isinstance(spec, Pixel) else None,
    ).broadcast(total)
    rough = steps - steps // 6
    views = (Roll(jitter),) if jitter else ()

    def climb(carry: engine.Carry, folder: Path | None, *, fine: bool) -> engine.Carry:
        """The rough steps from noise, or the fine ones from their pictures: (pictures, scores)."""
        pictures, scores = carry
        length = steps - rough if fine else rough
        if length == 0 or scores.shape[1] < fine * rough:  # the callback has ended the run
            return carry
        encode = jax.vmap(jax.vmap(spec.encode))
        rate = optimizer.learning_rate * on_device(0.1 if fine else 1.0, np.float32)
        ascent = Ascent(
            spec, struct.replace(optimizer, learning_rate=rate), views=() if fine else views
        )
        stage = jax.random.fold_in(root, on_device(int(fine)))
        run = engine.run(
            ascent,
            model,
            problem,
            fold_each(stage, np.tile(np.arange(samples), count)),
            steps=length,
            pixels=ascent.pixels,
            starts=encode(on_device(pictures)[:, None]) if fine else None,
            callback=watcher(callback, shaped, scores),
            chunk=chunk,
            checkpoint=folder,
            progress=progress,
            label=f"{layer}{', fine' if fine else ''}",
        )
        return run.result[:, 0], np.concatenate([scores, run.info.score], 1)

    pictures, scores = engine.in_stages(
        [functools.partial(climb, fine=fine) for fine in (False, True)],
        (np.zeros((total, *shape), np.float32), np.zeros((total, 0), np.float32)),
        about=(originals, problem, Ascent(spec, optimizer), steps, jitter, root, model.unnamed()),
        checkpoint=checkpoint,
    )
    pictures = np.clip(pictures, 0, 1)
    errors = representations.relative_errors(
        representations.encode(model, pictures, layer), references
    )

    return Inversion(
        shaped(pictures),
        shaped(scores),
        np.full(batch, layer, object),
        dead=shaped((scores.max(1) == scores.min(1)) & (steps > 1)),
        config=describe(
            function="invert",
            model=model.name,
            images=np.asarray(originals),
            layer=layer,
            alpha=alpha,
            tv=tv,
            samples=samples,
            steps=steps,
            image=spec,
            optimizer=optimizer,
            jitter=jitter,
            key=root,
            errors=shaped(errors),
        ),
        originals=np.asarray(originals) if np.ndim(images) == 4 else np.asarray(originals)[0],
        errors=shaped(errors),
        layer=layer,
    )


def _third(model: Model, layer: str) -> int:
    """0, 1 or 2: in which third of the network a layer lies."""
    if layer == LOGITS:
        return 2
    return 3 * model.layers.index(layer) // len(model.layers)


def _jitter(model: Model, layer: str, shape: tuple[int, int, int]) -> int:
    shapes = layer_shapes(model, shape)
    upto = model.layers if layer == LOGITS else model.layers[: model.layers.index(layer) + 1]
    placed = [name for name in upto if len(shapes.get(name, ())) == 3]
    if not placed:
        return 0
    field = receptive_field(model, placed[-1], size=shape[:2])
    return round(max(field.stride) / 4) // 2


def _parameterization(
    image: str | Parameterization, shape: tuple[int, int, int]
) -> Parameterization:
    kinds = ("fourier", "pixel", "pyramid")
    if isinstance(image, str):
        return named(checks.choice("image", image, kinds), shape)
    # The fine steps go on from the rough ones' picture, which has to be written down.
    unfit = isinstance(image, (CPPN, MACO, RGBA))
    if unfit or not hasattr(image, "decode"):
        raise TypeError(
            f"image: {', '.join(map(repr, kinds))} or a parameterization of any picture was "
            f"expected, given {image!r}"
        )
    if image.shape != shape:
        raise ValueError(f"image: one of {shape} was expected, given {image.shape}")
    return image
