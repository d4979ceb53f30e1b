"""Penalties on what a layer does, rather than on the image."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from rvis.objectives.base import Activations, Objective, kind_field
from rvis.objectives.vectors import OfLayer
from rvis.regularizers import Regularizer
from rvis.types import Array


@flax.struct.dataclass
class Penalty(OfLayer):
    """See `penalty`."""

    layer: str = flax.struct.field(pytree_node=False)
    regularizer: Any
    kind: str = kind_field("Penalty")

    def __call__(self, activations: Activations) -> Array:
        x = activations[self.layer]
        return -self.regularizer(x if x.ndim == 4 else x[:, None, None])

    def titles(self, classes: tuple[str, ...]) -> np.ndarray:
        return np.asarray(f"−{type(self.regularizer).__name__} of {self.layer}", object)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return ()

    def broadcast(self, count: int) -> Objective:
        return self.replace(  # type: ignore[attr-defined]
            regularizer=jax.tree.map(
                lambda leaf: jnp.broadcast_to(leaf, (count, *np.shape(leaf))), self.regularizer
            )
        )


def penalty(layer: str, regularizer: Regularizer) -> Penalty:
    """The negative of a regularizer of a layer's activations, to be added to an objective.

    `channel("layer3", 7) + penalty("layer1", total_variation(1e-3))` asks for a smooth `layer1`,
    with `l1(1e-3, about=0)` for a sparse one, with `lp_norm(1e-3, 2, about=0.5)` for one near .5.

    Args:
      layer: a name of `model.layers`.
      regularizer: of `rvis.regularizers`, or a pytree like them, called with (n, h, w, C); a dense
        layer is one of a single place.

    Raises:
      TypeError: naming `regularizer`, for what cannot be called.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis import regularizers
      >>> from rvis.objectives import penalty
      >>> sparse = penalty("fc", regularizers.l1(0.5, about=0))
      >>> float(sparse({"fc": jnp.array([[1.0, -3.0]])}))
      -2.0

    Reference: tensorflow/lucid, `optvis/objectives.py` (`total_variation`, `L1`, `L2`).
    """
    if not callable(regularizer) or not jax.tree.leaves(regularizer):
        raise TypeError(
            "regularizer: one of rvis.regularizers, or a pytree like them, was expected, given "
            f"{regularizer!r}"
        )
    return Penalty(layer, regularizer)
