"""Gram matrices and distances to a content, summed window by window: memory that stays bounded."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rvis import struct
from rvis.analysis.receptive import receptive_field
from rvis.models import taps
from rvis.objectives.texture import feature_products
from rvis.types import Apply, Array, Model, PyTree, Relu, Tap, identity, layer_shapes

Span = tuple[int, int]


def gram_of(layer: str) -> str:
    """The name under which a network in windows gives a layer's Gram matrix, (n, C, C)."""
    return f"Gram matrix of {layer}"


def distance_in(layer: str) -> str:
    """Likewise, a layer's squared distance to the content's activations, (n,)."""
    return f"distance in {layer}"


class _Axis(NamedTuple):
    """One axis of a picture, cut into windows of `side` pixels.

    Attributes:
      starts: the first pixel of each.
      counted: for each window and layer, the places that count there, as (first, last + 1).
    """

    side: int
    starts: tuple[int, ...]
    counted: tuple[tuple[Span, ...], ...]


class _Seen(NamedTuple):
    """A layer in one window: its features (n, h, w, C), which count (h, w, 1), its first place."""

    features: Array
    counts: Array
    corner: tuple[Array, Array]


@dataclasses.dataclass(frozen=True)
class Cut:
    """How a network sees a large picture: in windows in which every place sees all that it would.

    A place counts in the first window that holds its receptive field, so that sums over the windows
    are those over the whole picture.

    Attributes:
      apply: the network's.
      layers: those that are read.
      strides: of each, (rows, columns).
      places: of each in the whole picture, (h, w, C).
      rows, columns: the windows.
    """

    apply: Apply
    layers: tuple[str, ...]
    strides: tuple[Span, ...]
    places: tuple[tuple[int, int, int], ...]
    rows: _Axis
    columns: _Axis

    def windows(self) -> tuple[np.ndarray, np.ndarray]:
        """(windows, 2) first pixels, and (windows, layers, 2, 2) the rows and columns counted."""
        both = [(y, x) for y in range(len(self.rows.starts)) for x in range(self.across)]
        corners = [(self.rows.starts[y], self.columns.starts[x]) for y, x in both]
        counted = [
            list(zip(self.rows.counted[y], self.columns.counted[x], strict=True)) for y, x in both
        ]
        return np.asarray(corners, np.int32), np.asarray(counted, np.int32)

    @property
    def across(self) -> int:
        """Windows in a row."""
        return len(self.columns.starts)

    def see(
        self,
        params: PyTree,
        images: Array,
        window: tuple[Array, Array],
        relu: Relu = jax.nn.relu,
    ) -> dict[str, _Seen]:
        """Each layer in one of the `windows` of `images` (n, H, W, C)."""
        corner, counted = window
        shape = (images.shape[0], self.rows.side, self.columns.side, images.shape[-1])
        zero = jnp.zeros_like(corner[0])
        part = lax.dynamic_slice(images, (zero, corner[0], corner[1], zero), shape)
        network = Model(params, self.apply, self.layers, shape[1:])
        found = taps.activations(network, part, self.layers, relu=relu)
        seen = {}
        for i, name in enumerate(self.layers):
            features = found[name]
            down, across = self.strides[i]
            first = corner[0] // down, corner[1] // across
            rows, columns = (
                (counted[i, axis, 0] <= numbers) & (numbers < counted[i, axis, 1])
                for axis, numbers in enumerate(
                    first[axis] + jnp.arange(features.shape[1 + axis], dtype=jnp.int32)
                    for axis in (0, 1)
                )
            )
            seen[name] = _Seen(features, (rows[:, None] & columns[None])[..., None], first)
        return seen


def cut(model: Model, layers: Sequence[str], size: tuple[int, int], tile: int | None) -> Cut | None:
    """Windows of at most `tile` pixels a side, or None where the whole picture fits in one.

    Raises:
      ValueError: naming `tile`, where a layer sees too much of a picture for windows of that size.
    """
    if tile is None or max(size) <= tile:
        return None
    names = tuple(dict.fromkeys(layers))
    shape = (*size, model.input_shape[2])
    fields = {name: receptive_field(model, name, size=size) for name in names}
    for name, field in fields.items():
        if any(step < 1 or step % 1 for step in field.stride):
            raise ValueError(
                f"tile: layers whose places lie whole numbers of pixels apart were expected, but "
                f"{name!r} of {model.name} is not one; None sees the whole picture at once"
            )
    axes = []
    for axis in (0, 1):
        spans = [(field.rows, field.columns)[axis] for field in fields.values()]
        steps = [int(field.stride[axis]) for field in fields.values()]
        found = _axis(spans, steps, size[axis], tile)
        if found is None:
            widest = max(fields, key=lambda name: fields[name].size[axis])
            raise ValueError(
                f"tile: windows wider than the {fields[widest].size[axis]} pixels that a place of "
                f"{widest!r} sees, and than all below it need, were expected, given {tile}"
            )
        axes.append(found)
    rows, columns = axes
    part = {
        name: receptive_field(model, name, size=(rows.side, columns.side))
        for name in names
        if name in layer_shapes(model, (rows.side, columns.side, shape[2]))
    }
    for i, (name, field) in enumerate(fields.items()):
        seen = part.get(name)
        same = seen is not None and all(
            _agree(i, window, whole, own, int(step))
            for window, whole, own, step in (
                (rows, field.rows, seen.rows, field.stride[0]),
                (columns, field.columns, seen.columns, field.stride[1]),
            )
        )
        if not same:
            raise ValueError(
                f"tile: layers that see the same pixels in a window as in the picture were "
                f"expected, but {name!r} of {model.name} does not in {size} and windows of "
                f"{(rows.side, columns.side)}; None sees the whole at once"
            )
    whole = layer_shapes(model, shape)
    strides = tuple((int(f.stride[0]), int(f.stride[1])) for f in fields.values())
    return Cut(model.apply, names, strides, tuple(whole[name] for name in names), rows, columns)


def _agree(
    layer: int, axis: _Axis, whole: Sequence[Span], inside: Sequence[Span], step: int
) -> bool:
    """Whether the places of a layer that count see in each window what they do in the picture."""
    for start, counted in zip(axis.starts, axis.counted, strict=True):
        for place in range(*counted[layer]):
            here = place - start // step
            if not 0 <= here < len(inside):
                return False
            if (inside[here][0] + start, inside[here][1] + start) != whole[place]:
                return False
    return True


def _axis(
    spans: Sequence[Sequence[Span]], steps: Sequence[int], length: int, tile: int
) -> _Axis | None:
    """As few windows as hold the receptive fields `spans` of all places; None where none can.

    Windows begin at multiples of every stride given and are as long as the picture up to such a
    multiple, so that paddings and poolings fall into them as they do into the picture, unless some
    layer below has a stride of its own; `cut` looks at what places then see.
    """
    grid = math.lcm(*steps)
    side = min(length, tile - (tile - length) % grid)
    if side < 1:
        return None
    start, starts, counted = 0, [], []
    done = [0] * len(spans)
    while True:
        ends = [
            len(span) if start + side == length else sum(last <= start + side for _, last in span)
            for span in spans
        ]
        starts.append(start)
        counted.append(tuple(zip(done, ends, strict=True)))
        done = ends
        if all(last == len(span) for span, last in zip(spans, done, strict=True)):
            return _Axis(side, tuple(starts), tuple(counted))
        first = min(span[i][0] for span, i in zip(spans, done, strict=True) if i < len(span))
        after = min(first // grid * grid, length - side)
        if after <= start:
            return None
        start = after


@dataclasses.dataclass(frozen=True)
class _Sums:
    """The `apply` of a network whose layers are what texture and content are judged by.

    Its weights are those of the network, and {layer: (h, w, C)} of the content.
    """

    cut: Cut
    grams: tuple[str, ...]
    contents: tuple[str, ...]

    def __call__(
        self,
        params: PyTree,
        images: Array,
        *,
        tap: Tap = identity,
        relu: Relu = jax.nn.relu,
    ) -> Array:
        weights, targets = params

        def part(window: Any) -> dict[str, Array]:
            seen = self.cut.see(weights, images, window, relu)
            found = {}
            for name in self.grams:
                features, counts, _ = seen[name]
                flat = jnp.where(counts, features, 0).reshape(len(images), -1, features.shape[-1])
                found[gram_of(name)] = feature_products(flat)
            for name in self.contents:
                features, counts, corner = seen[name]
                place = (*corner, jnp.zeros_like(corner[0]))
                target = lax.dynamic_slice(targets[name], place, features.shape[1:])
                apart = jnp.where(counts, features - target[None], 0)
                found[distance_in(name)] = jnp.square(apart).sum((1, 2, 3))
            return found

        # Kept from one window to the next are sums alone: on the way back each is seen again.
        @functools.partial(jax.checkpoint, prevent_cse=False)
        def add(sums: dict[str, Array], window: Any) -> tuple[dict[str, Array], None]:
            return jax.tree.map(jnp.add, sums, part(window)), None

        windows = self.cut.windows()
        first = jax.tree.map(lambda leaf: leaf[0], windows)
        nothing = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(part, first)
        )
        sums, _ = lax.scan(add, nothing, windows)
        places = dict(zip(self.cut.layers, self.cut.places, strict=True))
        for name in self.grams:
            height, width, _ = places[name]
            tap(gram_of(name), sums[gram_of(name)] / (height * width))
        for name in self.contents:
            tap(distance_in(name), sums[distance_in(name)])
        return jnp.zeros((len(images), 1), jnp.float32)


def judged(
    model: Model, cut: Cut, grams: Sequence[str], targets: Mapping[str, Array] | None = None
) -> Model:
    """The network with `gram_of(…)` and `distance_in(…)` for layers, for one size of pictures.

    Args:
      model: what it was cut from.
      cut: of the layers named here.
      grams: layers whose Gram matrices are wanted.
      targets: {layer: (h, w, C)}, what `features` found of a content.
    """
    kept = dict(targets or {})
    return struct.replace(
        model,
        params=(model.params, kept),
        apply=_Sums(cut, tuple(grams), tuple(kept)),
        layers=(*map(gram_of, grams), *map(distance_in, kept)),
    )


@functools.partial(jax.jit, static_argnames="cut")
def features(model: Model, cut: Cut, image: Array) -> dict[str, Array]:
    """{layer: (h, w, C)} of one picture (H, W, C), seen window by window."""

    def put(maps: dict[str, Array], window: Any) -> tuple[dict[str, Array], None]:
        changed = {}
        for name, seen in cut.see(model.params, image[None], window).items():
            place = (*seen.corner, jnp.zeros_like(seen.corner[0]))
            found = seen.features[0]
            before = lax.dynamic_slice(maps[name], place, found.shape)
            found = jnp.where(seen.counts, found, before).astype(before.dtype)
            changed[name] = lax.dynamic_update_slice(maps[name], found, place)
        return changed, None

    empty = {
        name: jnp.zeros(shape, image.dtype)
        for name, shape in zip(cut.layers, cut.places, strict=True)
    }
    return lax.scan(put, empty, cut.windows())[0]
