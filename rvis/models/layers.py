"""Layers equal to the stock ones, whose input gradients are fast inside `lax.scan` on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial, reduce
from typing import Any, Protocol

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero

from rvis.models import winograd
from rvis.models.winograd import Pads

Pair = tuple[int, int]
_NHWC = ("NHWC", "HWIO", "NHWC")
_SPEC = lax.conv_dimension_numbers((1, 1, 1, 1), (1, 1, 1, 1), _NHWC)


def _stock(x: jax.Array, w: jax.Array, strides: Pair, pads: Pads, precision: Any) -> jax.Array:
    return lax.conv_general_dilated(
        x, w, strides, pads, dimension_numbers=_NHWC, precision=precision
    )


as_written = jax.make_user_context(False)
"""`with as_written(True)`: what is traced in there keeps the stock operations, for those who read
programs, and for whom a place must not feel by rounding what lies outside its field."""


side_by_side = jax.make_user_context(1)
"""`with side_by_side(n)`: what is traced in there is mapped over n examples by `jax.vmap`, which
hides their number."""


shapes_alone = jax.make_user_context(False)
"""`with shapes_alone(True)`: of the kernels that are made in there nobody wants the values, and no
random number is traced for them."""


def _by_winograd(x: jax.Array, w: jax.Array, strides: Pair, pads: Pads, precision: Any) -> int:
    """How many examples at once; 0 for none."""
    if as_written.value or strides != (1, 1) or precision is not None:
        return 0
    beside = side_by_side.value
    count = beside * x.shape[0]
    many = winograd.group((count, *x.shape[1:]), pads, w)
    # Those that are mapped over are computed at once.
    return many if beside == 1 else x.shape[0] * (many == count)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _conv(x: jax.Array, w: jax.Array, strides: Pair, pads: Pads, precision: Any) -> jax.Array:
    many = _by_winograd(x, w, strides, pads, precision)
    if many:
        return winograd.convolve(x, w, pads, many, transposed=False)
    return _stock(x, w, strides, pads, precision)


@flax.struct.dataclass
class _Convolved:
    """What the gradient of a convolution is made from, and of which of the two it is wanted."""

    x: jax.Array
    w: jax.Array
    wanted: tuple[bool, bool] = flax.struct.field(pytree_node=False)


def _conv_forward(x, w, strides, pads, precision):
    y = _conv(x.value, w.value, strides, pads, precision)
    return y, _Convolved(x.value, w.value, (x.perturbed, w.perturbed))


def _conv_backward(strides, pads, precision, convolved, g):
    if isinstance(g, SymbolicZero):
        return None, None
    x, w = convolved.x, convolved.w
    of_input, of_kernel = convolved.wanted
    return (
        _input_gradient(g, w, x.shape, strides, pads, precision) if of_input else None,
        _kernel_gradient(x, g, w.shape, strides, pads, precision) if of_kernel else None,
    )


# Tracing what nobody wants, for XLA to throw away, takes as long as tracing the network.
_conv.defvjp(_conv_forward, _conv_backward, symbolic_zeros=True)


def _input_gradient(g, w, shape, strides, pads, precision):
    if _by_products(g, w, strides, precision):
        return _scattered(g, w, shape, strides, pads)
    return _gathered(g, w, shape, strides, pads, precision)


_TAPS, _THICK = 9, 16
"""Cells of a kernel at most, and channels at least, for what every cell gives to be added up."""


def _by_products(g, w, strides, precision) -> bool:
    """Whether `_scattered` is the faster: mostly in a third to two thirds of the time."""
    kh, kw, *channels = w.shape
    if jax.default_backend() != "cpu" or as_written.value or precision is not None:
        return False
    if w.dtype not in (jnp.float32, jnp.float64):
        return False
    if not 1 < kh * kw <= _TAPS or min(channels) < _THICK:
        return False
    places = side_by_side.value * np.prod(g.shape[:3])
    # For few places a wide kernel takes as long to turn, or to be read, as it does to multiply.
    wide = bool(np.prod(channels) >= winograd.PER_PLACE * places)
    return wide or (min(strides) > 1 and channels[0] <= 2 * channels[1])


def _scattered(g, w, shape, strides, pads):
    """One product of matrices for all cells of the kernel, each then added where it falls."""
    (n, down, across, _), (kh, kw, cin, cout) = g.shape, w.shape
    products = lax.dot_general(g, w.reshape(-1, cout), (((3,), (1,)), ((), ())))
    products = products.reshape(n, down, across, kh, kw, cin)
    tall, wide = (size + sum(pad) for size, pad in zip(shape[1:3], pads, strict=True))

    def placed(i: int, j: int) -> jax.Array:
        left = tall - i - strides[0] * (down - 1) - 1, wide - j - strides[1] * (across - 1) - 1
        around = [(i, left[0], strides[0] - 1), (j, left[1], strides[1] - 1)]
        zero = jnp.zeros((), products.dtype)
        return lax.pad(products[..., i, j, :], zero, [(0, 0, 0), *around, (0, 0, 0)])

    dx = reduce(jnp.add, (placed(i, j) for i in range(kh) for j in range(kw)))
    (top, _), (start, _) = pads
    return dx[:, top : top + shape[1], start : start + shape[2]]


def _gathered(g, w, shape, strides, pads, precision):
    """The transposed convolution as a plain one, then depth-to-space.

    With t = i + pad = s·q + r, dx[t] = Σ_m g[q − m] w[s·m + r]: for each phase r a stride-1
    convolution of g, and all phases at once are its output channels. XLA:CPU runs a plain
    convolution on its fast path in a `while` body too, which it does not for the transposed form;
    and a 7×7/2 stem becomes a 4×4 convolution to 12 channels.
    """
    phases, firsts, sizes, paddings = [], [], [], []
    for axis in (0, 1):
        k, s, low, n = w.shape[axis], strides[axis], pads[axis][0], shape[axis + 1]
        taps = -(-k // s)
        phases.append(min(k, s))
        # The first q whose pixels are not all of the padding.
        first = min(low // s, taps - 1)
        firsts.append(low - first * s)
        sizes.append(-(-(n + low) // s) - first)
        paddings.append((taps - 1 - first, first + sizes[-1] - g.shape[axis + 1]))
    around: Any = tuple(paddings)
    many = _by_winograd(g, w, strides, around, precision)
    if many:
        dx = winograd.convolve(g, w, around, many, transposed=True)
    else:
        dx = _stock(g, _turned(w, strides), (1, 1), around, precision)
    if strides != (1, 1):
        dx = dx.reshape(g.shape[0], *sizes, *phases, shape[-1])
        skipped = [(0, s - p) for s, p in zip(strides, phases, strict=True)]
        dx = jnp.pad(dx, [(0, 0)] * 3 + skipped + [(0, 0)])
        dx = dx.transpose(0, 1, 3, 2, 4, 5)
        dx = dx.reshape(
            g.shape[0], *(q * s for q, s in zip(sizes, strides, strict=True)), shape[-1]
        )
    top, left = firsts
    return dx[:, top : top + shape[1], left : left + shape[2]]


_WIDE = 2**16
"""Weights a tap from which turning a kernel takes a tenth of a convolution's time."""


def _turned(w, strides):
    """(taps, taps, out, phases·in) of a kernel (kh, kw, in, out): its taps flipped."""
    kh, kw, cin, cout = w.shape
    if strides == (1, 1) and kh * kw <= 9 and cin * cout >= _WIDE:
        # XLA:CPU transposes large matrices one by one several times as fast as all in one.
        cells = [w[i, j].T for i in reversed(range(kh)) for j in reversed(range(kw))]
        return jnp.stack(cells).reshape(kh, kw, cout, cin)
    if strides == (1, 1):
        return lax.rev(w, (0, 1)).transpose(0, 1, 3, 2)
    for axis in (0, 1):
        k, s = w.shape[2 * axis], strides[axis]
        taps, phases = -(-k // s), min(k, s)
        extra = [(0, 0)] * w.ndim
        extra[2 * axis] = (0, taps * phases - k)
        w = jnp.pad(w, extra)
        w = w.reshape(*w.shape[: 2 * axis], taps, phases, *w.shape[2 * axis + 1 :])
    # Now (taps, phase, taps, phase, in, out).
    w = w[::-1, :, ::-1].transpose(0, 2, 5, 1, 3, 4)
    return w.reshape(*w.shape[:3], -1)


_PART = 2**19
"""Floats of the input that the kernel gradient takes at once: 2 MB stay in a core's cache."""


def _kernel_gradient(x, g, shape, strides, pads, precision):
    """For each kernel cell, Σ over sub-batches of (shifted input)ᵀ · g.

    On a CPU up to twice as fast as the stock form, which it equals to rounding and which serves
    large kernels, whose many cells would take long to compile.
    """
    kh, kw, cin, cout = shape
    n, oh, ow, _ = g.shape
    if jax.default_backend() != "cpu" or kh * kw > 9:
        kernel = jnp.zeros(shape, x.dtype)
        return jax.vjp(lambda w: _stock(x, w, strides, pads, precision), kernel)[1](g)[0]
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    parts = next(p for p in range(min(max(1, x.size // _PART), n), 0, -1) if n % p == 0)
    tall, wide = (s * (size - 1) + 1 for s, size in zip(strides, (oh, ow), strict=True))

    def body(total, pair):
        x, g = pair
        cells = [
            x[:, i : i + tall : strides[0], j : j + wide : strides[1]].reshape(-1, cin).T @ g
            for i in range(kh)
            for j in range(kw)
        ]
        return total + jnp.stack(cells), None

    x = x.reshape(parts, n // parts, *x.shape[1:])
    total, _ = lax.scan(
        body, jnp.zeros((kh * kw, cin, cout), g.dtype), (x, g.reshape(parts, -1, cout))
    )
    return total.reshape(shape)


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
    preferred_element_type: Any = None,
) -> jax.Array:
    """`lax.conv_general_dilated` with a fast input gradient, for `flax.linen.Conv`.

    Two-dimensional NHWC/HWIO convolutions without groups and dilation take the fast gradient; all
    others are handed to the stock operation unchanged.

    Example:
      >>> import flax.linen as nn
      >>> from rvis.models import layers
      >>> conv = nn.Conv(8, (3, 3), conv_general_dilated=layers.conv_general_dilated)
    """
    plain = (
        lhs.ndim == 4
        and set(lhs_dilation or (1,)) == {1}
        and set(rhs_dilation or (1,)) == {1}
        and feature_group_count == 1
        and batch_group_count == 1
        and preferred_element_type is None
        and dimension_numbers is not None
        and lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers) == _SPEC
    )
    pads: Sequence[tuple[int, int]] = ()
    if plain and isinstance(padding, str):
        pads = lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], window_strides, padding)
    elif not isinstance(padding, str):
        pads = padding
    if not plain or min(min(pair) for pair in pads) < 0:
        return lax.conv_general_dilated(
            lhs,
            rhs,
            window_strides,
            padding,
            lhs_dilation,
            rhs_dilation,
            dimension_numbers,
            feature_group_count,
            batch_group_count,
            precision,
            preferred_element_type,
        )
    strides = (int(window_strides[0]), int(window_strides[1]))
    (top, bottom), (left, right) = pads
    return _conv(lhs, rhs, strides, ((top, bottom), (left, right)), precision)


def window_pads(
    size: int, window: int, stride: int, padding: int, *, ceil: bool
) -> tuple[int, int]:
    """(low, high) padding of a pooling window as PyTorch's `padding` and `ceil_mode` mean it.

    With `ceil`, a window may hang over the end, but none starts in the padding beyond it.

    Example:
      >>> from rvis.models.layers import window_pads
      >>> window_pads(112, 3, 2, 0, ceil=True)
      (0, 1)
    """
    span = size + 2 * padding - window
    out = (-(-span // stride) if ceil else span // stride) + 1
    if ceil and (out - 1) * stride >= size + padding:
        out -= 1
    return padding, max(0, (out - 1) * stride + window - size - padding)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _max_pool(x: jax.Array, window: Pair, strides: Pair, pads: Pads) -> jax.Array:
    around = ((0, 0), *pads, (0, 0))
    lowest = np.asarray(-jnp.inf, x.dtype)
    overlapping = window[0] > strides[0] and window[1] > strides[1]
    fitting = all(
        size + sum(pad) >= side for size, pad, side in zip(x.shape[1:3], pads, window, strict=True)
    )
    if jax.default_backend() == "cpu" and overlapping and fitting and not as_written.value:
        # Two to four times as fast there as the windowed form.
        x = lax.pad(x, lowest, tuple((a, b, 0) for a, b in around))
        for axis in (1, 2):
            x = lax.optimization_barrier(_highest(x, axis, window[axis - 1], strides[axis - 1]))
        return x
    return lax.reduce_window(x, lowest, lax.max, (1, *window, 1), (1, *strides, 1), around)


def _highest(x: jax.Array, axis: int, window: int, stride: int) -> jax.Array:
    """The maxima of the windows along one axis."""
    last = x.shape[axis] - window
    return reduce(
        jnp.maximum,
        (lax.slice_in_dim(x, i, i + last + 1, stride, axis) for i in range(window)),
    )


def _max_pool_forward(x, window, strides, pads):
    y = _max_pool(x, window, strides, pads)
    return y, (x, y)


def _max_pool_backward(window, strides, pads, residual, g):
    """Each window's gradient goes to the first of its inputs that equals its maximum."""
    x, y = residual
    padded = lax.pad(
        x, np.asarray(-jnp.inf, x.dtype), ((0, 0, 0), *((a, b, 0) for a, b in pads), (0, 0, 0))
    )
    if window == strides:
        dx = _apart(padded, y, g, window)
    else:
        dx = _overlapping(padded, y, g, window, strides)
    top, left = pads[0][0], pads[1][0]
    return (dx[:, top : top + x.shape[1], left : left + x.shape[2]],)


def _apart(x, y, g, window):
    """For windows beside one another, without a sum: a fifth of a step on digits' networks."""
    n, height, width, c = x.shape
    a, b = window
    tall, wide = a * y.shape[1], b * y.shape[2]
    cells = x[:, :tall, :wide].reshape(n, y.shape[1], a, y.shape[2], b, c)
    found = jnp.zeros(y.shape, bool)
    rows = []
    for i in range(a):
        row = []
        for j in range(b):
            hit = (cells[:, :, i, :, j] == y) & ~found
            found = found | hit
            row.append(jnp.where(hit, g, np.zeros((), g.dtype)))
        rows.append(jnp.stack(row, 3))
    dx = jnp.stack(rows, 2).reshape(n, tall, wide, c)
    return jnp.pad(dx, ((0, 0), (0, height - tall), (0, width - wide), (0, 0)))


def _overlapping(padded, y, g, window, strides):
    """Each phase of the input, pixels a stride apart, sums what its few windows send to it."""
    n, height, width, c = padded.shape
    spans = [s * (size - 1) + 1 for s, size in zip(strides, y.shape[1:3], strict=True)]
    cells = window[0] * window[1]
    first = jnp.full(y.shape, cells, jnp.int32)
    for k in reversed(range(cells)):
        i, j = divmod(k, window[1])
        seen = lax.slice(padded, (0, i, j, 0), (n, i + spans[0], j + spans[1], c), (1, *strides, 1))
        first = jnp.where(seen == y, k, first)
    # Or XLA looks for the maximum again for each of the terms below.
    first = lax.optimization_barrier(first.astype(jnp.uint8 if cells < 255 else jnp.int32))
    reach = [(size - 1) // s for size, s in zip(window, strides, strict=True)]
    counts = [-(-size // s) for size, s in zip((height, width), strides, strict=True)]
    around = [(r, count - size) for r, count, size in zip(reach, counts, y.shape[1:3], strict=True)]
    first, g = (
        lax.pad(
            array,
            np.array(empty, array.dtype),
            ((0, 0, 0), *((a, b, 0) for a, b in around), (0, 0, 0)),
        )
        for array, empty in ((first, cells), (g, 0))
    )
    phases = []
    for r in range(strides[0]):
        for s in range(strides[1]):
            total = jnp.zeros((n, *counts, c), g.dtype)
            for i in range(r, window[0], strides[0]):
                for j in range(s, window[1], strides[1]):
                    top, left = reach[0] - i // strides[0], reach[1] - j // strides[1]
                    rows, columns = slice(top, top + counts[0]), slice(left, left + counts[1])
                    hit = first[:, rows, columns] == i * window[1] + j
                    total = total + jnp.where(hit, g[:, rows, columns], np.zeros((), g.dtype))
            phases.append(total)
    if len(phases) == 1:
        return phases[0][:, :height, :width]
    dx = jnp.stack(lax.optimization_barrier(phases)).reshape(*strides, n, *counts, c)
    dx = dx.transpose(2, 3, 0, 4, 1, 5).reshape(
        n, counts[0] * strides[0], counts[1] * strides[1], c
    )
    return dx[:, :height, :width]


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def max_pool(
    x: jax.Array,
    window: int,
    stride: int,
    *,
    padding: int | str | Pads = 0,
    ceil: bool = False,
) -> jax.Array:
    """Max-pooling of (n, H, W, C), whose gradient compares shifted windows with the maximum.

    Args:
      x: (n, H, W, C).
      window: side of the square window.
      stride: step of the window.
      padding: cells of −inf at each border (PyTorch's meaning), "SAME", "VALID", or pads.
      ceil: with a number as padding, whether a last partial window counts (`ceil_mode`).

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from rvis.models.layers import max_pool
      >>> x = jnp.array([[1., 3.], [2., 3.]])[None, :, :, None]
      >>> jax.grad(lambda x: max_pool(x, 2, 2).sum())(x)[0, :, :, 0].tolist()
      [[0.0, 1.0], [0.0, 0.0]]
    """
    return _max_pool(x, (window, window), (stride, stride), _pads(x, window, stride, padding, ceil))


def avg_pool(
    x: jax.Array,
    window: int,
    stride: int,
    *,
    padding: int | str | Pads = 0,
    ceil: bool = False,
    count_padding: bool = True,
) -> jax.Array:
    """Average-pooling of (n, H, W, C); `count_padding` as PyTorch's `count_include_pad`."""
    pads = _pads(x, window, stride, padding, ceil)
    return nn.avg_pool(x, (window, window), (stride, stride), pads, count_include_pad=count_padding)


class Pool(Protocol):
    """What `max_pool` is called with; another pooling can be put in its place."""

    def __call__(
        self,
        x: jax.Array,
        window: int,
        stride: int,
        *,
        padding: int | str | Pads = 0,
        ceil: bool = False,
    ) -> jax.Array: ...


def average_instead(
    x: jax.Array,
    window: int,
    stride: int,
    *,
    padding: int | str | Pads = 0,
    ceil: bool = False,
) -> jax.Array:
    """The mean of each of the windows that `max_pool` takes the maximum of, without the padding."""
    return avg_pool(x, window, stride, padding=padding, ceil=ceil, count_padding=False)


def _pads(x: jax.Array, window: int, stride: int, padding: int | str | Pads, ceil: bool) -> Pads:
    if isinstance(padding, str):
        pads = lax.padtype_to_pads(x.shape[1:3], (window, window), (stride, stride), padding)
        return tuple(pads)  # type: ignore[return-value]
    if isinstance(padding, int):
        return tuple(window_pads(n, window, stride, padding, ceil=ceil) for n in x.shape[1:3])  # type: ignore[return-value]
    return padding


def adaptive_avg_pool(x: jax.Array, size: int) -> jax.Array:
    """PyTorch's `AdaptiveAvgPool2d(size)`: cell i averages [⌊i·n/size⌋, ⌈(i+1)·n/size⌉).

    As a product with one averaging matrix an axis, so that any input size works.
    """
    for axis in (1, 2):
        x = jnp.moveaxis(jnp.tensordot(_averaging(x.shape[axis], size), x, (1, axis)), 0, axis)
    return x


def _averaging(n: int, size: int) -> np.ndarray:
    rows = np.zeros((size, n), np.float32)
    for i in range(size):
        start, stop = i * n // size, -(-(i + 1) * n // size)
        rows[i, start:stop] = 1 / (stop - start)
    return rows


def flatten(x: jax.Array) -> jax.Array:
    """(n, H, W, C) to (n, C·H·W), in PyTorch's channel-first order so that its weights fit."""
    return x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)


class Conv(nn.Module):
    """A convolution with the fast input gradient; padding in cells, as in PyTorch."""

    features: int
    kernel: int
    stride: int = 1
    padding: int | str | Pads = 0
    bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        padding = self.padding
        if isinstance(padding, int):
            padding = ((padding, padding), (padding, padding))
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        # Of a kernel that is there Flax traces the initializer all the same, for its shape.
        drawn = not (shapes_alone.value or self.has_variable("params", "kernel"))
        init = nn.initializers.he_normal() if drawn else nn.initializers.zeros
        w = self.param("kernel", init, shape)
        y = conv_general_dilated(
            x, w.astype(x.dtype), (self.stride, self.stride), padding, dimension_numbers=_NHWC
        )
        if self.bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,)).astype(x.dtype)
        return y
