"""Plots by matplotlib: axes without pyplot's global state, and the figure as a picture or a file.

matplotlib is imported when a plot is asked for; without it the error names the extra to install.
"""

from __future__ import annotations

import importlib.util
import io
from typing import TYPE_CHECKING, Any

from PIL import Image

from rvis import checks
from rvis.files import PathLike
from rvis.plotting import grids

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def available() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def figure(*, size: tuple[float, float] = (6.0, 4.0)) -> Any:
    """A new `matplotlib.figure.Figure` of (width, height) inches that pyplot knows nothing of."""
    made = checks.package("matplotlib.figure", "plot", "a plot")
    return made.Figure(figsize=size, layout="constrained", facecolor="white")


def axes(ax: Axes | None = None, *, size: tuple[float, float] = (6.0, 4.0)) -> Axes:
    """`ax` itself, or the axes of a new figure of (width, height) inches where it is None.

    Example:
      >>> from rvis.plotting import figures
      >>> ax = figures.axes()
      >>> figures.axes(ax) is ax
      True
    """
    return figure(size=size).add_subplot() if ax is None else ax


def picture(ax: Axes) -> Image.Image:
    """The whole figure that `ax` is in, as an RGB picture of 120 pixels an inch.

    Example:
      >>> from rvis.plotting import figures
      >>> figures.picture(figures.axes(size=(3, 2))).size
      (360, 240)
    """
    held = io.BytesIO()
    ax.figure.savefig(held, format="png", dpi=120)  # type: ignore[union-attr]
    return Image.open(held, formats=["PNG"]).convert("RGB")


def save(ax: Axes, path: PathLike) -> None:
    """Writes `picture(ax)` as PNG, whole or not at all."""
    grids.save(picture(ax), path)
