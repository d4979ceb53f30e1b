"""How an image is written down while it is optimised.

Each parameterization refuses an argument of the wrong type or out of range by a TypeError or a
ValueError that names it; `encode` refuses an image of another shape so.
"""

from collections.abc import Callable, Mapping

from rvis import checks, gate
from rvis.images import statistics
from rvis.images.base import Parameterization, Shape
from rvis.images.cppn import CPPN
from rvis.images.rgba import RGBA
from rvis.images.spatial import Pixel, Pyramid
from rvis.images.spectral import MACO, Fourier
from rvis.images.statistics import Statistics, estimate

KINDS: Mapping[str, Callable[[Shape], Parameterization]] = {
    "fourier": Fourier,
    "pixel": Pixel,
    "pyramid": Pyramid,
    "cppn": CPPN,
    "maco": MACO,
    "rgba": lambda shape: RGBA(Fourier(shape)),
}
"""The parameterizations by name."""


@gate.public
def named(kind: str, shape: Shape) -> Parameterization:
    """The parameterization of that name, with its defaults.

    Args:
      kind: one of `KINDS`.
      shape: (H, W, C) of what the model is shown, with C = 1 or 3 for "maco"; an "rgba" picture has
        one channel more.

    Example:
      >>> from rvis import images
      >>> images.named("pixel", (32, 32, 3))
      Pixel(shape=(32, 32, 3), mean=0.5, sd=0.01)
    """
    return KINDS[checks.choice("kind", kind, KINDS)](shape)


__all__ = [
    "CPPN",
    "KINDS",
    "MACO",
    "RGBA",
    "Fourier",
    "Parameterization",
    "Pixel",
    "Pyramid",
    "Shape",
    "Statistics",
    "estimate",
    "named",
    "statistics",
]
