"""Random views of an image, so that what is optimised does not hang on single pixels."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from rvis import checks
from rvis.types import Array, KeyLike, as_key

# A move is q ↦ turn·q + offset, read from the view into the picture, with q = row + i·column from
# the centre. Rotation and zoom are then one complex number, and moves compose by multiplication.
Move = tuple[Array, Array]


@dataclasses.dataclass(frozen=True)
class Jitter:
    """Shifts by whole pixels, uniformly in ±`pixels` along each axis.

    Raises:
      TypeError: naming `pixels`, for anything but an int.
      ValueError: naming it, below 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import transforms
      >>> image = jnp.zeros((1, 8, 8, 1)).at[0, 4, 4, 0].set(1.0)
      >>> seen = transforms.apply((transforms.Pad(2, fill=0.0), transforms.Jitter(2)), 0, image)
      >>> float(seen.max()), float(seen.sum())
      (1.0, 1.0)
    """

    pixels: int

    def __post_init__(self) -> None:
        _normalise(self, pixels=checks.count("pixels", self.pixels, low=0))

    def draw(self, key: Array) -> Move:
        """One move of those that `Jitter` chooses from."""
        shift = jax.random.randint(key, (2,), -self.pixels, self.pixels + 1).astype(jnp.float32)
        return jnp.complex64(1), -lax.complex(shift[0], shift[1])


@dataclasses.dataclass(frozen=True)
class Scale:
    """Zooms about the centre by one of `factors`; above 1 the picture grows.

    Raises:
      TypeError: naming `factors`, for anything but numbers.
      ValueError: naming it, when there is none, or one outside (0, 1e6].

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import transforms
      >>> image = jnp.arange(4.0).reshape(1, 1, 4, 1) / 4
      >>> transforms.apply((transforms.Scale((2,)),), 0, image)[0, 0, :, 0].tolist()
      [0.1875, 0.3125, 0.4375, 0.5625]
    """

    factors: tuple[float, ...]

    def __post_init__(self) -> None:
        _normalise(self, factors=_numbers("factors", self.factors, above=0, high=1e6))

    def draw(self, key: Array) -> Move:
        """One move of those that `Scale` chooses from."""
        return 1 / _choice(key, self.factors).astype(jnp.complex64), jnp.complex64(0)


@dataclasses.dataclass(frozen=True)
class Rotate:
    """Turns about the centre by one of `degrees`, anticlockwise.

    Raises:
      TypeError: naming `degrees`, for anything but numbers.
      ValueError: naming it, when there is none, or one outside [-360, 360].

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import transforms
      >>> image = jnp.array([[0.0, 1.0], [0.0, 0.0]])[None, :, :, None]
      >>> transforms.apply((transforms.Rotate((90,)),), 0, image)[0, :, :, 0].round(3).tolist()
      [[1.0, 0.0], [0.0, 0.0]]
    """

    degrees: tuple[float, ...]

    def __post_init__(self) -> None:
        _normalise(self, degrees=_numbers("degrees", self.degrees, low=-360, high=360))

    def draw(self, key: Array) -> Move:
        """One move of those that `Rotate` chooses from."""
        angle = jnp.deg2rad(_choice(key, self.degrees))
        return lax.complex(jnp.cos(angle), -jnp.sin(angle)), jnp.complex64(0)


@dataclasses.dataclass(frozen=True)
class Pad:
    """Puts a border of `pixels` in the grey level `fill` around the picture.

    The model still sees a frame of the image's own size, so the border shows only where a move
    brings it in; beyond it everything reads as `fill` too. A chain holds one `Pad` at most, and
    one without reads .5 outside the picture.

    Raises:
      TypeError: naming the argument, for anything but an int and a number.
      ValueError: naming it, for `pixels` below 0 or `fill` outside [0, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import transforms
      >>> chain = (transforms.Pad(9, fill=0.25), transforms.Scale((1e-3,)))
      >>> bool((transforms.apply(chain, 0, jnp.ones((1, 8, 8, 3)))[0, 0] == 0.25).all())
      True
    """

    pixels: int
    fill: float = 0.5

    def __post_init__(self) -> None:
        _normalise(self, pixels=checks.count("pixels", self.pixels, low=0))
        _normalise(self, fill=checks.number("fill", self.fill, low=0, high=1))


@dataclasses.dataclass(frozen=True)
class Roll:
    """Rolls the picture by whole pixels, uniformly in ±`pixels` along each axis; it wraps around.

    It is undone in the gradient, so that tiles and convolutions leave no seam in a fixed place. A
    chain may begin with one.

    Raises:
      TypeError: naming `pixels`, for anything but an int.
      ValueError: naming it, below 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import transforms
      >>> image = jnp.arange(16.0).reshape(1, 4, 4, 1) / 16
      >>> seen = transforms.apply((transforms.Roll(2),), 0, image)
      >>> bool((jnp.sort(seen.ravel()) == image.ravel()).all())
      True

    Reference: google/deepdream, `dream.ipynb` (`make_step`).
    """

    pixels: int

    def __post_init__(self) -> None:
        _normalise(self, pixels=checks.count("pixels", self.pixels, low=0))

    def rolled(self, key: Array, image: Array) -> Array:
        """One draw of (H, W, C)."""
        return jnp.roll(
            image, jax.random.randint(key, (2,), -self.pixels, self.pixels + 1), axis=(0, 1)
        )


@dataclasses.dataclass(frozen=True)
class Crop:
    """Takes away `pixels` of the border that a `Pad` earlier in the chain put there.

    The frame is the centre of the picture before and after, so it says where a recipe crops and
    moves nothing; a chain that would cut into the frame is refused by `apply`.

    Raises:
      TypeError: naming `pixels`, for anything but an int.
      ValueError: naming it, below 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import transforms
      >>> chain = (transforms.Pad(4), transforms.Jitter(4), transforms.Crop(4))
      >>> transforms.apply(chain, 0, jnp.ones((2, 8, 8, 3))).shape
      (2, 8, 8, 3)
    """

    pixels: int

    def __post_init__(self) -> None:
        _normalise(self, pixels=checks.count("pixels", self.pixels, low=0))


@dataclasses.dataclass(frozen=True)
class Noise:
    """Adds Gaussian noise of standard deviation `sd` to what the model sees, after all moves.

    The result is not clipped to [0, 1].

    Raises:
      TypeError: naming `sd`, for anything but a number.
      ValueError: naming it, outside [0, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import transforms
      >>> seen = transforms.apply((transforms.Noise(0.1),), 0, jnp.full((1, 64, 64, 3), 0.5))
      >>> round(float(seen.std()), 2)
      0.1
    """

    sd: float

    def __post_init__(self) -> None:
        _normalise(self, sd=checks.number("sd", self.sd, low=0, high=1))


Transform = Jitter | Scale | Rotate | Pad | Roll | Crop | Noise


def apply(transforms: Iterable[Transform], key: KeyLike, images: Array) -> Array:
    """A random view of each image, in a frame of the images' own size.

    All moves of the chain, in its order, become one similarity q ↦ Mq an image, and one bilinear
    resampling: out[q] = Σ_p hat(Mq − p) x[p] with hat(d) = max(0, 1−|d₁|)·max(0, 1−|d₂|), and
    `fill` where there is no pixel. A draw that moves by whole pixels only copies them bit for bit.

    The gradient is the exact adjoint as a sum over the few q around M⁻¹p, nine for the presets,
    so that no scatter is needed. Value and gradient on two CPU cores inside `lax.scan`: 1.0 ms for
    1×224² and .32 ms for 16×32², against 2.4 and 1.1 ms with the scatter of autodiff (1.9 and .9
    with planar images). The draws have no gradient, and forward-mode differentiation is not
    offered. Chains that zoom in more than about twice use the scatter, which is then the cheaper.

    Args:
      transforms: the chain, in order; empty for none.
      key: a typed key or an int seed. Image i draws for place t of the chain from
        fold_in(fold_in(key, i), t).
      images: (n, H, W, C) in [0, 1], float32; may be traced.

    Returns:
      (n, H, W, C) float32, in [0, 1] where the chain adds no noise.

    Raises:
      TypeError: naming `transforms`, for anything but transforms in a sequence, or `key`.
      ValueError: naming `transforms`, for a second `Pad`, or a `Crop` of more than was padded;
        naming `images`, for another rank.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import transforms
      >>> transforms.apply(transforms.lucid(32), 0, jnp.ones((2, 32, 32, 3))).shape
      (2, 32, 32, 3)

    Reference: tensorflow/lucid, `optvis/transform.py`, which resamples at each step and shows the
    model a frame whose size varies.
    """
    if not isinstance(transforms, Iterable):
        raise TypeError(f"transforms: a tuple of transforms was expected, given {transforms!r}")
    chain = tuple(transforms)
    fill = _fill(chain)
    if jnp.ndim(images) != 4:
        raise ValueError(f"images: (n, H, W, C) was expected, given shape {jnp.shape(images)}")
    if not chain:
        return images
    fold = jax.vmap(partial(jax.random.fold_in, as_key(key)))
    return jax.vmap(partial(_view, chain, fill))(fold(jnp.arange(images.shape[0])), images)


def lucid(size: int) -> tuple[Transform, ...]:
    """lucid's default chain, for images of `size` pixels.

    At 128 px: pad 12 in grey, jitter 8, zoom .90 to 1.10 by .02, rotate by one of −10 to 10 degrees
    and five further zeros, jitter 4. Pads and jitters shrink with smaller images (u = size/16: pad
    1.5 u, jitter u and u/2, rounded), so a 32-px network gets pad 3 and jitters 2 and 1; larger
    ones keep the numbers of 128 px.

    Jitter n is ±n pixels here; lucid's own crops n pixels at random, which is ±n/2.

    Raises:
      TypeError: naming `size`, for anything but an int.
      ValueError: naming it, below 1.

    Example:
      >>> from rvis import transforms
      >>> transforms.lucid(32)[:2]
      (Pad(pixels=3, fill=0.5), Jitter(pixels=2))

    Reference: tensorflow/lucid, `optvis/transform.py` (`standard_transforms`).
    """
    part = min(1, checks.count("size", size) / 128)
    return (
        Pad(round(12 * part)),
        Jitter(round(8 * part)),
        Scale(tuple(percent / 100 for percent in range(90, 111, 2))),
        Rotate((*range(-10, 11), *(0,) * 5)),
        Jitter(round(4 * part)),
    )


def distill(size: int) -> tuple[Transform, ...]:
    """The chain of the article "Feature Visualization", for images of `size` pixels.

    At 224 px: pad 16 in grey, jitter 16, zoom by 1, .975, 1.025, .95 or 1.05, rotate by −5 to 5
    degrees, jitter 8, crop the padding. Pads and jitters shrink in proportion with smaller images,
    so a 32-px network gets pad 2 and jitters 2 and 1; larger ones keep the numbers of 224 px.

    Jitter n is ±n pixels here; the article's code crops n pixels at random, which is ±n/2.

    Raises:
      TypeError: naming `size`, for anything but an int.
      ValueError: naming it, below 1.

    Example:
      >>> from rvis import transforms
      >>> transforms.distill(224)[2]
      Scale(factors=(1.0, 0.975, 1.025, 0.95, 1.05))

    Reference: Olah, Mordvintsev & Schubert, "Feature Visualization", Distill 2017, appendix.
    """
    part = min(1, checks.count("size", size) / 224)
    return (
        Pad(round(16 * part)),
        Jitter(round(16 * part)),
        Scale((1, 0.975, 1.025, 0.95, 1.05)),
        Rotate(tuple(range(-5, 6))),
        Jitter(round(8 * part)),
        Crop(round(16 * part)),
    )


def _normalise(instance: Any, **values: Any) -> None:
    # Equal descriptions must hash alike, whether a number came as int, float or NumPy scalar.
    for name, value in values.items():
        object.__setattr__(instance, name, value)


def _numbers(argument: str, given: Any, **bounds: float) -> tuple[float, ...]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"{argument}: a tuple of numbers was expected, given {given!r}")
    numbers = tuple(checks.number(argument, number, **bounds) for number in given)
    if not numbers:
        raise ValueError(f"{argument}: at least one number was expected, given none")
    return numbers


def _choice(key: Array, options: tuple[float, ...]) -> Array:
    return jnp.asarray(options, jnp.float32)[jax.random.randint(key, (), 0, len(options))]


def _fill(chain: tuple[Any, ...]) -> float:
    """What the chain reads outside the picture, once it is known to make sense."""
    border, fill = 0, None
    for place, transform in enumerate(chain):
        if not isinstance(transform, Transform):
            raise TypeError(f"transforms: a transform was expected, given {transform!r}")
        if isinstance(transform, Roll) and place:
            raise ValueError(f"transforms: Roll was expected in the first place, given {chain!r}")
        if isinstance(transform, Pad):
            if fill is not None:
                raise ValueError(f"transforms: one Pad at most was expected, given {chain!r}")
            border, fill = transform.pixels, transform.fill
        if isinstance(transform, Crop):
            if transform.pixels > border:
                raise ValueError(
                    f"transforms: Crop of at most the {border} pixels padded before it was "
                    f"expected, given {transform.pixels}"
                )
            border -= transform.pixels
    return 0.5 if fill is None else fill


def _view(chain: tuple[Transform, ...], fill: float, key: Array, image: Array) -> Array:
    """One view of one image (H, W, C)."""
    turn, offset, moves = jnp.complex64(1), jnp.complex64(0), False
    if isinstance(chain[0], Roll):
        image = chain[0].rolled(jax.random.fold_in(key, 0), image)
    for place, transform in enumerate(chain):
        if isinstance(transform, (Jitter, Scale, Rotate)):
            first, shift = transform.draw(jax.random.fold_in(key, place))
            turn, offset, moves = turn * first, turn * shift + offset, True
    if moves:
        window = math.ceil(2 * _reach(chain))
        if window <= _WIDEST:
            image = _gathered(fill, window, turn, offset, image)
        else:
            image = _bilinear(fill, turn, offset, image)
    for place, transform in enumerate(chain):
        if isinstance(transform, Noise):
            noise = jax.random.normal(jax.random.fold_in(key, place), image.shape, image.dtype)
            image = image + transform.sd * noise
    return image


def _reach(chain: tuple[Transform, ...]) -> float:
    """How far from M⁻¹p, along either axis, the q with hat(Mq − p) > 0 can lie.

    A square of half-side 1, turned by θ and zoomed by z, has half-extent z(|cos θ| + |sin θ|).
    """
    zoom, angle = 1.0, 0.0
    for transform in chain:
        if isinstance(transform, Scale):
            zoom *= max(transform.factors)
        if isinstance(transform, Rotate):
            angle += max(map(abs, transform.degrees))
    angle = math.radians(min(angle, 45))
    return zoom * (math.cos(angle) + math.sin(angle))


# With more than 5×5 candidates a pixel, gathering them is slower than the scatter.
_WIDEST = 5


def _sources(turn: Array, offset: Array, rows: Array, columns: Array, shape: Any) -> Move:
    """Row and column in the picture of each place of the view: M, written in array indices."""
    height, width = (shape[0] - 1) / 2, (shape[1] - 1) / 2
    u, v = rows - height, columns - width
    return (
        turn.real * u - turn.imag * v + (offset.real + height),
        turn.imag * u + turn.real * v + (offset.imag + width),
    )


def _places(shape: tuple[int, ...]) -> tuple[Array, Array]:
    rows = lax.broadcasted_iota(jnp.float32, (shape[0], 1), 0)
    return rows, lax.broadcasted_iota(jnp.float32, (1, shape[1]), 1)


def _bilinear(fill: float, turn: Array, offset: Array, image: Array) -> Array:
    """out[q] = Σ_p hat(Mq − p) x[p] for one image (H, W, C), as a gather of four neighbours."""
    height, width = image.shape[:2]
    row, column = _sources(turn, offset, *_places(image.shape), image.shape)
    # One row and column of `fill` stand for all that lie outside, so nothing needs a mask.
    row, column = jnp.clip(row, -1, height), jnp.clip(column, -1, width)
    top, left = jnp.floor(row), jnp.floor(column)
    down, right = (row - top)[..., None], (column - left)[..., None]
    padded = jnp.pad(image, ((1, 2), (1, 2), (0, 0)), constant_values=fill)
    first = (top.astype(jnp.int32) + 1) * (width + 3) + left.astype(jnp.int32) + 1

    def at(rows: int, columns: int) -> Array:
        return _take(padded, first + (rows * (width + 3) + columns))

    return (1 - down) * ((1 - right) * at(0, 0) + right * at(0, 1)) + down * (
        (1 - right) * at(1, 0) + right * at(1, 1)
    )


def _adjoint(window: int, turn: Array, offset: Array, g: Array) -> Array:
    """Σ_q hat(Mq − p) g[q] for each p: `_bilinear` turned round, as a gather of window² places."""
    height, width = g.shape[:2]
    rows, columns = _places(g.shape)
    inverse = 1 / turn
    row, column = _sources(inverse, -inverse * offset, rows, columns, g.shape)
    # The clip moves only windows that lie wholly outside, and leaves them in the border of zeros.
    row = jnp.floor(jnp.clip(row - window / 2, -window - 1, height - 1)) + 1
    column = jnp.floor(jnp.clip(column - window / 2, -window - 1, width - 1)) + 1
    padded = jnp.pad(g, ((window, window), (window, window), (0, 0)))
    stride = width + 2 * window
    first = (row.astype(jnp.int32) + window) * stride + column.astype(jnp.int32) + window
    down, right = _sources(turn, offset, row, column, g.shape)
    down, right = down - rows, right - columns
    total = jnp.zeros_like(g)
    for i in range(window):
        for j in range(window):
            vertical = 1 - jnp.abs(down + (turn.real * i - turn.imag * j))
            horizontal = 1 - jnp.abs(right + (turn.imag * i + turn.real * j))
            hat = jnp.maximum(vertical, 0) * jnp.maximum(horizontal, 0)
            total = total + hat[..., None] * _take(padded, first + (i * stride + j))
    return total


def _take(image: Array, index: Array) -> Array:
    """The pixels of (H, W, C) at flat indices, all of which are known to lie inside."""
    return image.reshape(-1, image.shape[-1]).at[index].get(mode="promise_in_bounds")


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _gathered(fill: float, window: int, turn: Array, offset: Array, image: Array) -> Array:
    del window
    return _bilinear(fill, turn, offset, image)


def _gathered_forward(
    fill: float, window: int, turn: Array, offset: Array, image: Array
) -> tuple[Array, Move]:
    del window
    return _bilinear(fill, turn, offset, image), (turn, offset)


def _gathered_backward(fill: float, window: int, move: Move, g: Array) -> tuple[None, None, Array]:
    del fill
    return None, None, _adjoint(window, *move, g)


_gathered.defvjp(_gathered_forward, _gathered_backward)
