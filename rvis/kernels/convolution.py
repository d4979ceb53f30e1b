"""Two-dimensional convolutions whose values and gradients are fast on a CPU.

The convolution and its two gradients are three bilinear operations; each is the derivative of the
others, so that derivatives of every order and in both directions use them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.interpreters import ad

from rvis.kernels import depthwise, windows, winograd
from rvis.kernels.primitives import define, usable
from rvis.kernels.windows import Pads, Pair, placed, shifted

LAYOUT = ("NHWC", "HWIO", "NHWC")
_SPEC = lax.conv_dimension_numbers((1, 1, 1, 1), (1, 1, 1, 1), LAYOUT)


class Options(NamedTuple):
    """How a kernel moves over an image."""

    strides: Pair
    pads: Pads
    groups: int = 1
    precision: Any = None


def _stock(x, w, *, options):
    return lax.conv_general_dilated(
        x,
        w,
        options.strides,
        options.pads,
        dimension_numbers=LAYOUT,
        feature_group_count=options.groups,
        precision=options.precision,
    )


def _stock_input_gradient(g, w, *, size, options):
    x = jax.ShapeDtypeStruct((g.shape[0], *size, w.shape[2] * options.groups), g.dtype)
    return jax.linear_transpose(lambda x: _stock(x, w, options=options), x)(g)[0]


def _stock_kernel_gradient(x, g, *, size, options):
    w = jax.ShapeDtypeStruct((*size, x.shape[3] // options.groups, g.shape[3]), x.dtype)
    return jax.linear_transpose(lambda w: _stock(x, w, options=options), w)(g)[0]


def _fast(x, w, *, options):
    if depthwise.chosen(w.shape, options.groups):
        return depthwise.convolve(x, w, options.strides, options.pads)
    examples = _by_winograd(x, w, options)
    if examples:
        return winograd.convolve(x, w, options.pads, examples, transposed=False)
    return _sound(x, w, options=options)


def _sound(x, w, *, options):
    """The stock form, but that neither the result nor the kernel has a side longer than the input.

    XLA:CPU gives the former to Eigen, which errs in blocks while a second program runs (jaxlib
    0.10.2), and takes 6 to 80 times as long for the latter. Behind a barrier padding is an input.
    """
    sides = zip(x.shape[1:3], options.pads, w.shape[:2], strict=True)
    if all(n >= k and (options.groups > 1 or sum(pad) < k) for n, pad, k in sides):
        return _stock(x, w, options=options)
    around = ((0, 0, 0), *((low, high, 0) for low, high in options.pads), (0, 0, 0))
    x = lax.optimization_barrier(lax.pad(x, np.zeros((), x.dtype), around))
    return _stock(x, w, options=options._replace(pads=((0, 0), (0, 0))))


def _fast_input_gradient(g, w, *, size, options):
    if depthwise.chosen(w.shape, options.groups):
        strides, pads, channels = options.strides, options.pads, options.groups
        return depthwise.input_gradient(g, w, size, strides, pads, channels)
    if options.groups > 1:
        return _stock_input_gradient(g, w, size=size, options=options)
    if _by_products(g, w, options):
        return _scattered(g, w, size, options)
    return _gathered(g, w, size, options)


def _fast_kernel_gradient(x, g, *, size, options):
    if depthwise.chosen((*size, x.shape[3] // options.groups, g.shape[3]), options.groups):
        return depthwise.kernel_gradient(x, g, size, options.strides, options.pads)
    # The many cells of a large kernel would take long to compile.
    if options.groups > 1 or size[0] * size[1] > 9:
        return _stock_kernel_gradient(x, g, size=size, options=options)
    return _by_cells(x, g, size, options)


def _sides(x: Any) -> Pair:
    return x.aval.shape[1:3]


def _cells(w: Any) -> Pair:
    return w.aval.shape[:2]


def _output_shape(x, w, *, options):
    windows = zip(x[1:3], w[:2], options.strides, options.pads, strict=True)
    sides = (max(0, (n + sum(pad) - k) // stride + 1) for n, k, stride, pad in windows)
    return (x[0], *sides, w[3])


_CONV = define("rvis_conv", _output_shape, stock=_stock, cpu=_fast, over_examples=(0,))
_INPUT_GRADIENT = define(
    "rvis_conv_input_gradient",
    lambda g, w, *, size, options: (g[0], *size, w[2] * options.groups),
    stock=_stock_input_gradient,
    cpu=_fast_input_gradient,
    over_examples=(0,),
)
_KERNEL_GRADIENT = define(
    "rvis_conv_kernel_gradient",
    lambda x, g, *, size, options: (*size, x[3] // options.groups, g[3]),
    stock=_stock_kernel_gradient,
    cpu=_fast_kernel_gradient,
    over_examples=(),
)

ad.defbilinear(
    _CONV,
    lambda y, x, w, options: _INPUT_GRADIENT.bind(y, w, size=_sides(x), options=options),
    lambda y, x, w, options: _KERNEL_GRADIENT.bind(x, y, size=_cells(w), options=options),
)
ad.defbilinear(
    _INPUT_GRADIENT,
    lambda x, y, w, size, options: _CONV.bind(x, w, options=options),
    lambda x, y, w, size, options: _KERNEL_GRADIENT.bind(x, y, size=_cells(w), options=options),
)
ad.defbilinear(
    _KERNEL_GRADIENT,
    lambda w, x, y, size, options: _INPUT_GRADIENT.bind(y, w, size=_sides(x), options=options),
    lambda w, x, y, size, options: _CONV.bind(x, w, options=options),
)


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    *,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    precision: Any = None,
    **others: Any,
) -> jax.Array:
    """`lax.conv_general_dilated`, faster on a CPU.

    It covers two-dimensional NHWC/HWIO convolutions without dilation. Those with `others` of its
    arguments, and all on other devices, are the stock operation.
    `flax.linen.Conv(8, (3, 3), conv_general_dilated=conv_general_dilated)` uses it.
    """
    if precision is None:
        # The gradients are traced outside of the context that asks for it.
        precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    covered = (
        lhs.ndim == 4
        and all(set(np.ravel(value)) == {1} for value in others.values() if value is not None)
        and dimension_numbers is not None
        and lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers) == _SPEC
        and lhs.shape[3] == rhs.shape[2] * feature_group_count
        and usable(lhs, rhs)
    )
    pads: Sequence[tuple[int, int]] = ()
    if covered and isinstance(padding, str):
        pads = lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], window_strides, padding)
    elif not isinstance(padding, str):
        pads = padding
    if not covered or min(min(pair) for pair in pads) < 0:
        return lax.conv_general_dilated(
            lhs,
            rhs,
            window_strides,
            padding,
            dimension_numbers=dimension_numbers,
            feature_group_count=feature_group_count,
            precision=precision,
            **others,
        )
    strides, vertical, horizontal = (
        (int(first), int(second)) for first, second in (window_strides, *pads)
    )
    options = Options(strides, (vertical, horizontal), feature_group_count, precision)
    return _CONV.bind(lhs, rhs, options=options)


def _by_winograd(x, w, options) -> int:
    """How many examples Winograd's convolution takes at once; 0 for none."""
    if options.strides != (1, 1) or options.groups > 1 or options.precision is not None:
        return 0
    return winograd.group(x.shape, options.pads, w)


_CELLS, _THICK = 9, 16
"""Cells of a kernel at most, and channels at least, for `_scattered`."""


def _by_products(g, w, options) -> bool:
    """Whether `_scattered` is faster than `_gathered`."""
    kh, kw, *channels = w.shape
    if w.dtype not in (jnp.float32, jnp.float64) or options.precision is not None:
        return False
    if not 1 < kh * kw <= _CELLS or min(channels) < _THICK:
        return False
    places = np.prod(g.shape[:3])
    # For few places it takes as long to transpose a wide kernel, or to read it, as to multiply.
    wide = bool(np.prod(channels) >= winograd.PER_PLACE * places)
    return wide or (min(options.strides) > 1 and channels[0] <= 2 * channels[1])


def _scattered(g, w, size, options):
    """The input gradient: one matrix product for all cells of the kernel, then a sum of shifts.

    Where it is chosen, 1.2 to 12 times as fast in a loop as `_gathered` (jaxlib 0.11.2).
    """
    (n, down, across, _), (kh, kw, cin, cout) = g.shape, w.shape
    products = lax.dot_general(g, w.reshape(-1, cout), (((3,), (1,)), ((), ())))
    products = products.reshape(n, down, across, kh, kw, cin)
    padded = windows.padded_size(size, options.pads)
    terms = (
        placed(products[..., i, j, :], (i, j), padded, options.strides)
        for i, j in windows.cells((kh, kw))
    )
    return windows.cropped(reduce(jnp.add, terms), size, options.pads)


def _gathered(g, w, size, options):
    """The input gradient: a plain convolution of the cotangent, then depth-to-space.

    With t = i + pad = s·q + r, dx[t] = Σ_m g[q − m] w[s·m + r]. For each phase r that is a
    convolution of g with stride 1, and the phases are its output channels: a 7×7/2 stem becomes a
    4×4 convolution to 12 channels. XLA:CPU has no fast form of the transposed convolution inside
    loops: 9 to 310 times as fast (jaxlib 0.11.2).
    """
    strides, pads = options.strides, options.pads
    phases, firsts, sizes, paddings = [], [], [], []
    for axis in (0, 1):
        k, s, low, n = w.shape[axis], strides[axis], pads[axis][0], size[axis]
        taps = -(-k // s)
        phases.append(min(k, s))
        # The first q that has a pixel outside the padding.
        first = min(low // s, taps - 1)
        firsts.append(low - first * s)
        sizes.append(-(-(n + low) // s) - first)
        paddings.append((taps - 1 - first, first + sizes[-1] - g.shape[axis + 1]))
    plain = options._replace(strides=(1, 1), pads=tuple(paddings))
    examples = _by_winograd(g, w, plain) if strides == (1, 1) else 0
    if examples:
        dx = winograd.convolve(g, w, plain.pads, examples, transposed=True)
    else:
        dx = _sound(g, _turned(w, strides), options=plain)
    if strides != (1, 1):
        dx = dx.reshape(g.shape[0], *sizes, *phases, -1)
        skipped = [(0, s - p) for s, p in zip(strides, phases, strict=True)]
        dx = jnp.pad(dx, [(0, 0)] * 3 + skipped + [(0, 0)])
        dx = dx.transpose(0, 1, 3, 2, 4, 5)
        sides = (q * s for q, s in zip(sizes, strides, strict=True))
        dx = dx.reshape(g.shape[0], *sides, dx.shape[-1])
    top, left = firsts
    return dx[:, top : top + size[0], left : left + size[1]]


_WIDE = 2**16
"""Weights a cell from which it takes a tenth of a convolution's time to transpose a kernel."""


def _turned(w, strides):
    """The kernel (taps, taps, out, phases·in) of `_gathered`, of a kernel (kh, kw, in, out)."""
    kh, kw, cin, cout = w.shape
    if strides == (1, 1) and kh * kw <= 9 and cin * cout >= _WIDE:
        # XLA:CPU transposes large matrices one by one up to 4 times as fast (jaxlib 0.11.2).
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
"""Floats of the input that `_by_cells` takes at once: 2 MB stay in a core's cache."""


def _by_cells(x, g, size, options):
    """The kernel gradient: for each cell (shifted input)ᵀ · cotangent, summed over sub-batches.

    9 to 900 times as fast as the stock form in a loop (jaxlib 0.11.2).
    """
    (kh, kw), cin, cout = size, x.shape[3], g.shape[3]
    n, oh, ow, _ = g.shape
    x = jnp.pad(x, ((0, 0), *options.pads, (0, 0)))
    parts = next(p for p in range(max(1, min(x.size // _PART, n)), 0, -1) if n % p == 0)

    def body(total, pair):
        x, g = pair
        inputs = (shifted(x, cell, (oh, ow), options.strides) for cell in windows.cells(size))
        return total + jnp.stack([one.reshape(-1, cin).T @ g for one in inputs]), None

    x = x.reshape(parts, n // parts, *x.shape[1:])
    total, _ = lax.scan(
        body, jnp.zeros((kh * kw, cin, cout), g.dtype), (x, g.reshape(parts, -1, cout))
    )
    return total.reshape(kh, kw, cin, cout)
