"""Tokens of transformers as grids: every layer with places has the shape (n, h, w, channels)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from rvis.types import Apply, Array, PyTree, Relu, Tap, identity

_MOST = 8
"""Tokens beside those of the places at most: a class token, a distilled one and registers."""


@dataclasses.dataclass(frozen=True)
class TokenGrid:
    """A transformer's `apply` whose tap sees the tokens of places as grids.

    A layer (n, tokens, d) is tapped as (n, h, w, d), without the tokens that stand before those of
    the places; the first of these, the class token, is a layer (n, d) of its own, `NAME.class`. A
    layer with an axis of heads beside that of tokens becomes a grid whose channels are heads × d.

    Attributes:
      inner: the network's own `apply`; whatever else is asked of this one is asked of it.
      patch: (height, width) in pixels of what one token stands for.
      before: tokens before those of the places.
    """

    inner: Any
    patch: tuple[int, int]
    before: int

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __call__(
        self, params: PyTree, images: Array, *, tap: Tap = identity, relu: Relu = jax.nn.relu
    ) -> Array:
        """Logits (n, classes) of images (n, H, W, C) in [0, 1]."""
        if tap is identity:
            return self.inner(params, images, tap=tap, relu=relu)
        height, width = (
            size // side for size, side in zip(images.shape[1:3], self.patch, strict=True)
        )
        tokens = self.before + height * width

        def tapped(name: str, x: Any) -> Any:
            axis = _axis(getattr(x, "shape", ()), tokens)
            if axis is None:
                return tap(name, x)
            rows = jnp.moveaxis(x, axis, 1)
            flat = rows.reshape(*rows.shape[:2], -1)
            ahead, places = flat[:, : self.before], flat[:, self.before :]
            grid = places.reshape(len(x), height, width, -1)
            new_grid, new_ahead = tap(name, grid), ahead
            if self.before:
                token = ahead[:, 0]
                new_token = tap(f"{name}.class", token)
                if new_token is not token:
                    new_ahead = ahead.at[:, 0].set(new_token)
            if new_grid is grid and new_ahead is ahead:
                return x
            both = jnp.concatenate([new_ahead, new_grid.reshape(places.shape)], 1)
            return jnp.moveaxis(both.reshape(rows.shape), 1, axis)

        return self.inner(params, images, tap=tapped, relu=relu)


def _axis(shape: Sequence[int], tokens: int) -> int | None:
    """Which axis of an activation, after that of images, counts the tokens."""
    if len(shape) == 3:
        return 1 if shape[1] == tokens else None
    if len(shape) == 4:
        return next((axis for axis in (1, 2) if shape[axis] == tokens), None)
    return None


def gridded(
    apply: Apply,
    layers: Sequence[tuple[str, tuple[int, ...]]],
    input_shape: tuple[int, int, int],
    grid: tuple[int, int] | None = None,
) -> Apply:
    """`apply` with its tokens as grids, where it has layers of tokens.

    Args:
      apply: of any network.
      layers: (name, shape for one image of `input_shape`), in order.
      input_shape: (H, W, C).
      grid: (h, w) of the tokens; by default that of a layer of patches before them, or square.

    Raises:
      ValueError: naming `grid`, where no layer has as many tokens.
    """
    counts = [shape[0] for _, shape in layers if len(shape) == 2]
    maps = [shape[:2] for _, shape in layers if len(shape) == 3]
    for tokens in sorted(set(counts), key=counts.count, reverse=True):
        root = math.isqrt(tokens)
        square = [(root, root)] if root > 2 or tokens - root**2 < 2 else []
        for height, width in [grid] if grid is not None else [*maps, *square]:
            before = tokens - height * width
            fits = min(height, width) > 1 and input_shape[0] >= height and input_shape[1] >= width
            if fits and 0 <= before <= _MOST:
                patch = input_shape[0] // height, input_shape[1] // width
                return TokenGrid(apply, patch, before)
    if grid is not None:
        raise ValueError(
            f"grid: as many places as a layer has tokens were expected, given {grid}; the layers "
            f"of tokens have {sorted(set(counts))}"
        )
    return apply
