"""Gram matrices: which features of a layer go together, wherever in the image they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from rvis import checks, gate, struct
from rvis.objectives.base import Activations, OfLayer, as_floats
from rvis.types import Array, ArrayLike


@gate.public
def gram_matrix(activations: ArrayLike) -> Array:
    """G_ij, the mean over places of feature i times feature j.

    Args:
      activations: (h, w, C) or (n, h, w, C).

    Returns:
      (C, C) or (n, C, C). Gatys et al. 2015 sum over the M = h·w places; the mean lets images of
      different sizes be compared.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis.objectives import gram_matrix
      >>> gram_matrix(jnp.array([[[1.0, 2.0]], [[3.0, 0.0]]])).tolist()
      [[5.0, 1.0], [1.0, 2.0]]

    Reference: Gatys, Ecker & Bethge 2015, Texture synthesis using convolutional neural networks,
      eq. 1.
    """
    if np.ndim(activations) not in (3, 4):
        raise ValueError(
            "activations: (h, w, C) or (n, h, w, C) was expected, given shape "
            f"{np.shape(activations)}"
        )
    x = jnp.asarray(activations)
    flat = x.reshape(*x.shape[:-3], -1, x.shape[-1])
    return feature_products(flat) / flat.shape[-2]


@jax.custom_jvp
def feature_products(x: Array) -> Array:
    """XᵀX, (..., C, C), of features (..., places, C).

    Its gradient X(Ḡ + Ḡᵀ) is one product, where two would be found without the symmetry.
    """
    return jnp.swapaxes(x, -1, -2) @ x


@feature_products.defjvp
def _feature_products_slope(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (tangent,) = primals, tangents
    half = jnp.swapaxes(x, -1, -2) @ tangent
    return feature_products(x), half + jnp.swapaxes(half, -1, -2)


@struct.dataclass
class Gram(OfLayer):
    """See `gram`."""

    layer: str = struct.static()
    target: Array

    mark = " texture"
    event_ranks: ClassVar[Mapping[str, int]] = {"target": 2}

    def __call__(self, activations: Activations) -> Array:
        found = gram_matrix(activations[self.layer])
        squares = jnp.square(found - self.target[None]).sum((1, 2))
        return -squares.mean() / (4 * self.target.shape[-1] ** 2)

    def check(self, shapes: Mapping[str, tuple[int, ...]], classes: tuple[str, ...]) -> None:
        OfLayer.check(self, shapes, classes)
        shape, given = shapes[self.layer], np.shape(self.target)[-2:]
        if len(shape) != 3:
            raise ValueError(
                f"layer: one with places was expected, given {self.layer!r} of shape {shape}"
            )
        if given != (shape[-1],) * 2:
            raise ValueError(f"target: {(shape[-1],) * 2} was expected, given shape {given}")
        checks.finite("target", self.target)


@gate.public
def gram(layer: str, target: ArrayLike) -> Gram:
    """How near a layer's Gram matrix comes to a given one: −Σ(G − Ĝ)² / (4·C²), at most 0.

    With G the mean over places this is the paper's E_l = Σ(G − Ĝ)² / (4·N²·M²), in which G is the
    sum over M places of N features, for images of equal size.

    Args:
      layer: a name of `model.layers` with places.
      target: Ĝ, (C, C) as `gram_matrix` gives it, or (m, C, C) for m objectives.

    Example:
      >>> import jax.numpy as jnp
      >>> from rvis.objectives import gram
      >>> float(gram("conv", jnp.zeros((2, 2)))({"conv": jnp.ones((1, 3, 3, 2))}))
      -0.25

    Reference: Gatys, Ecker & Bethge 2015, Texture synthesis using convolutional neural networks,
      eq. 2.
    """
    matrices = as_floats("target", target, "(C, C)", "(m, C, C)")
    if matrices.shape[-1] != matrices.shape[-2]:
        raise ValueError(f"target: (C, C) or (m, C, C) was expected, given shape {matrices.shape}")
    return Gram(layer, matrices)
