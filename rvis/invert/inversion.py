"""Reconstructing images from the code that a layer makes of them."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image

from rvis import checkpoints, checks, codes, core, images, objectives, plots, projections
from rvis import regularizers as penalties
from rvis.images import Parameterization, Pixel
from rvis.optimizers import Optimizer, adam
from rvis.receptive import receptive_field
from rvis.results import Result, describe
from rvis.transforms import Roll
from rvis.types import LOGITS, Array, ArrayLike, KeyLike, Model, as_key, layer_shapes

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
    """Reconstructions from a layer's code, beside what they are of.

    Attributes:
      originals: (n, H, W, C), or (H, W, C) for a single image.
      errors: (…) ‖Φ(x) − Φ₀‖ / ‖Φ₀‖ of each reconstruction as it is, without jitter; one for each
        of `images`.
      layer: whose code.
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
        return plots.grid(rows, titles=titles)


def invert(
    model: Model,
    images: ArrayLike,
    layer: str,
    *,
    alpha: float | None = None,
    tv: float | None = None,
    samples: int = 1,
    steps: int = 384,
    image: str | Parameterization | None = None,
    optimizer: Optimizer | None = None,
    jitter: int | None = None,
    key: KeyLike = 0,
    chunk: int | None = None,
    checkpoint: str | Path | None = None,
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
      progress: a bar on a terminal.

    Returns:
      An `Inversion` with `images` (n, samples, H, W, C), without the first axis for a single image
      and without the second for a single sample. Its `scores` are −‖Φ(x) − Φ₀‖² / ‖Φ₀‖².

    Raises:
      ValueError, TypeError: naming the argument, before anything is compiled.
      FloatingPointError: if a score becomes NaN.

    Example:
      >>> import numpy as np, rvis
      >>> from rvis.invert import invert
      >>> model = rvis.load("mnist_cnn")
      >>> digit = np.zeros((28, 28, 1), np.float32)
      >>> digit[6:22, 13:16] = 1
      >>> found = invert(model, digit, "conv1", samples=2, steps=12)
      >>> found.images.shape, found.errors.shape
      ((2, 28, 28, 1), (2,))

    Reference: Mahendran & Vedaldi, "Understanding Deep Image Representations by Inverting Them",
      CVPR 2015, arXiv:1412.0035, eq. 2; "Visualizing Deep Convolutional Neural Networks Using
      Natural Pre-images", IJCV 2016, arXiv:1512.02017; aravindhm/nnpreimage.
    """
    given = checks.images("images", images, channels=model.input_shape[2])
    count, shape = len(given), tuple(given.shape[1:])
    codes.check_layer(model, layer, shape)  # type: ignore[arg-type]
    for name, value in (("samples", samples), ("steps", steps)):
        checks.count(name, value)
    if chunk is not None:
        checks.count("chunk", chunk)
    alpha = ALPHA if alpha is None else checks.number("alpha", alpha, low=0)
    tv = TV[_third(model, layer)] if tv is None else checks.number("tv", tv, low=0)
    if jitter is None:
        jitter = _jitter(model, layer, shape)
    checks.count("jitter", jitter, low=0)
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
    pictures, scores = _reconstruct(
        model,
        np.asarray(given),
        layer,
        spec=spec,
        optimizer=optimizer,
        weights=(alpha, tv),
        samples=samples,
        steps=steps,
        reach=jitter,
        key=root,
        chunk=chunk,
        folder=None if checkpoint is None else Path(checkpoint),
        progress=progress,
    )
    wanted = np.repeat(codes.encode(model, np.asarray(given), layer), samples, 0)
    errors = codes.relative_errors(codes.encode(model, pictures, layer), wanted)
    batch = ((count,) if np.ndim(images) == 4 else ()) + ((samples,) if samples > 1 else ())

    def shaped(array: np.ndarray) -> np.ndarray:
        return array.reshape((*batch, *array.shape[1:]))

    return Inversion(
        shaped(pictures),
        shaped(scores),
        np.full(batch, layer, object),
        dead=shaped((scores.max(1) == scores.min(1)) & (steps > 1)),
        config=describe(
            function="invert",
            model=model.name,
            images=np.asarray(given),
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
        originals=np.asarray(given) if np.ndim(images) == 4 else np.asarray(given)[0],
        errors=shaped(errors),
        layer=layer,
    )


def _reconstruct(
    model: Model,
    given: np.ndarray,
    layer: str,
    *,
    spec: Parameterization,
    optimizer: Optimizer,
    weights: tuple[float, float],
    samples: int,
    steps: int,
    reach: int,
    key: Array,
    chunk: int | None,
    folder: Path | None,
    progress: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (n·samples, H, W, C) and scores (n·samples, steps)."""
    n, height, width, channels = given.shape
    total, size = n * samples, height * width * channels
    wanted = np.repeat(codes.encode(model, given, layer), samples, 0)
    problem = core.Problem(
        objectives.match(layer, wanted, many=True),
        (
            penalties.alpha_norm(weights[0] / size / _GREY**6, alpha=6),
            penalties.total_variation(weights[1] / size / _SLOPE**2, beta=2),
        ),
        projections.Box() if isinstance(spec, Pixel) else None,
    ).broadcast(total)
    rough = steps - steps // 6
    phases = [(rough, 1.0, (Roll(reach),) if reach else ()), (steps - rough, 0.1, ())]
    about = checkpoints.fingerprint(
        (given, problem, core.Ascent(spec, optimizer), steps, reach, key),
        model.params,
        checkpoints.stable(model.apply),
    )
    position, told = None, []
    for phase, (length, rate, views) in enumerate(phases):
        if length == 0:
            continue
        own = optimizer.replace(learning_rate=optimizer.learning_rate * rate)  # type: ignore[attr-defined]
        parts, scores = [], np.empty((total, length), np.float32)
        stored = None if folder is None else folder / f"phase{phase}.npz"
        if stored is not None and stored.exists():
            like = np.zeros((total, 1, *given.shape[1:]), np.float32), scores
            (pictures, scores), _ = checkpoints.load(stored, like, expect=about)
            parts, scores = [np.asarray(pictures)], np.asarray(scores)
        else:
            ours = jax.random.fold_in(key, phase)
            numbers = jnp.tile(jnp.arange(samples), n)
            for outcome in core.drive(
                core.Ascent(spec, own, views=views),
                jax.vmap(functools.partial(jax.random.fold_in, ours))(numbers),
                model,
                problem,
                steps=length,
                position=position,
                width=core.width_for(spec.shape),
                chunk=chunk,
                checkpoint=None if folder is None else folder / f"phase{phase}",
                progress=progress,
                label=f"{layer}{'' if phase == 0 else ', fine'}",
            ):
                scores[outcome.rows.start : outcome.rows.stop] = outcome.info.score
                parts.append(outcome.images)
        pictures = np.concatenate(parts)
        told.append(scores)
        if phase == 0 and length < steps:
            if stored is not None and not stored.exists():
                checkpoints.save(stored, (pictures, scores), about={"fingerprint": about})
            position = jax.vmap(jax.vmap(spec.encode))(jnp.asarray(pictures))
    if folder is not None:
        (folder / "phase0.npz").unlink(missing_ok=True)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    return np.clip(pictures[:, 0], 0, 1), np.concatenate(told, 1)


def _third(model: Model, layer: str) -> int:
    """0, 1 or 2: in which third of the network a layer lies."""
    if layer == LOGITS:
        return 2
    return 3 * model.layers.index(layer) // len(model.layers)


def _jitter(model: Model, layer: str, shape: tuple[int, ...]) -> int:
    shapes = layer_shapes(model, shape)  # type: ignore[arg-type]
    upto = model.layers if layer == LOGITS else model.layers[: model.layers.index(layer) + 1]
    placed = [name for name in upto if len(shapes.get(name, ())) == 3]
    if not placed:
        return 0
    field = receptive_field(model, placed[-1], size=shape[:2])  # type: ignore[arg-type]
    return round(max(field.stride) / 4) // 2


def _parameterization(given: str | Parameterization, shape: tuple[int, ...]) -> Parameterization:
    kinds = ("fourier", "pixel", "pyramid")
    if isinstance(given, str):
        return images.named(checks.choice("image", given, kinds), shape)  # type: ignore[arg-type]
    # The fine steps go on from the rough ones' picture, which has to be written down.
    unfit = isinstance(given, (images.CPPN, images.MACO, images.RGBA))
    if unfit or not hasattr(given, "decode"):
        raise TypeError(
            f"image: {', '.join(map(repr, kinds))} or a parameterization of any picture was "
            f"expected, given {given!r}"
        )
    if given.shape != shape:
        raise ValueError(f"image: one of {shape} was expected, given {given.shape}")
    return given
