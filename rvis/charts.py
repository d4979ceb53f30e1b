"""Line and scatter charts as pictures, for what is told best by a curve."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rvis import checks
from rvis.plots import _drawable, to_pil

Curves = Mapping[str, tuple[Any, Any]]
"""{name: (x, y)}, two sequences of one length; NaN in either is a gap."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#8c6d31")
"""Told apart by the colour-blind too (Okabe & Ito 2008), all but the last."""

_FINE = 4
"""Drawn so many times larger and then reduced, which smooths the edges."""


def chart(
    lines: Curves | None = None,
    points: Curves | None = None,
    *,
    xlabel: str = "",
    ylabel: str = "",
    title: str = "",
    xlog: bool = False,
    ylog: bool = False,
    xrange: tuple[float, float] | None = None,
    yrange: tuple[float, float] | None = None,
    colours: Mapping[str, str] | None = None,
    backdrop: Any = None,
    size: tuple[int, int] = (480, 320),
) -> Image.Image:
    """Lines and points over two axes, with a legend at the right where there are several names.

    Args:
      lines: {name: (x, y)} joined by lines in their order; NaN breaks a line. A name with "_" in
        front is drawn and left out of the legend.
      points: {name: (x, y)} drawn as discs. A name that `lines` has too shares its colour.
      xlabel: below the horizontal axis.
      ylabel: beside the vertical axis.
      title: above.
      xlog: a logarithmic horizontal axis; all x must be positive.
      ylog: a logarithmic vertical axis.
      xrange: (low, high) of the horizontal axis; by default all that is given fits.
      yrange: (low, high) of the vertical axis.
      colours: {name: a colour as Pillow knows it}, in the place of those of `COLOURS`.
      backdrop: (h, w, C) in [0, 1], stretched over the area of the axes (first row on top).
      size: (width, height) of that area in pixels; text comes around it.

    Returns:
      An RGB picture.

    Raises:
      TypeError, ValueError: naming the argument: nothing to draw, x and y of unequal length,
        infinities, what is not positive on a logarithmic axis.

    Example:
      >>> import numpy as np
      >>> from rvis import charts
      >>> x = np.arange(1, 9)
      >>> picture = charts.chart({"square": (x, x**2), "cube": (x, x**3)}, xlabel="x", ylog=True)
      >>> picture.mode, picture.width > 480
      ('RGB', True)
    """
    curves = _curves("lines", lines, xlog, ylog)
    discs = _curves("points", points, xlog, ylog)
    if not curves and not discs:
        raise ValueError("lines: at least one line or set of points was expected, given none")
    drawn = [*curves.values(), *discs.values()]
    wide, tall = (_FINE * checks.count("size", side, low=16) for side in size)
    across = _Axis("xrange", np.concatenate([x for x, _ in drawn]), xlog, xrange, wide)
    up = _Axis("yrange", np.concatenate([y for _, y in drawn]), ylog, yrange, tall)
    names = list(dict.fromkeys((*curves, *discs)))
    for name in colours or ():
        checks.choice("colours", name, names)
    colours = dict(zip(names, itertools.cycle(COLOURS), strict=False)) | dict(colours or {})
    legend = [name for name in names if not name.startswith("_")]
    legend = legend if len(legend) > 1 else []

    font = cast("ImageFont.FreeTypeFont", ImageFont.load_default(13 * _FINE))
    line, gap = sum(font.getmetrics()), 6 * _FINE
    widest = max((font.getlength(text) for _, text in up.ticks), default=0)
    left = math.ceil(widest) + 2 * gap + (line + gap if ylabel else 0)
    top = gap + (line + gap if title else line // 2)
    shown = {name: _drawable(name) for name in legend}
    beside = max((font.getlength(text) + 6 * gap for text in shown.values()), default=4 * gap)
    below = line + 2 * gap + (line if xlabel else 0)
    picture = Image.new("RGB", (left + wide + math.ceil(beside), top + tall + below), "white")
    area = Image.new("RGB", (wide, tall), "white")
    if backdrop is not None:
        behind = to_pil(backdrop).convert("RGB")
        area.paste(behind.resize((wide, tall), Image.Resampling.BICUBIC))

    draw = ImageDraw.Draw(area)
    if backdrop is None:
        for place, _ in across.ticks:
            draw.line((place, 0, place, tall), fill="#e6e6e6", width=_FINE)
        for place, _ in up.ticks:
            draw.line((0, tall - place, wide, tall - place), fill="#e6e6e6", width=_FINE)
    for name, (x, y) in curves.items():
        path = np.stack([across.places(x), tall - up.places(y)], -1)
        for piece in _unbroken(path):
            draw.line(piece, fill=colours[name], width=2 * _FINE, joint="curve")
    for name, (x, y) in discs.items():
        radius = (3.5 if len(x) <= 60 else 2) * _FINE
        for a, b in zip(across.places(x), tall - up.places(y), strict=True):
            if np.isfinite(a + b):
                box = (a - radius, b - radius, a + radius, b + radius)
                draw.ellipse(box, fill=colours[name], outline="white", width=_FINE // 2)
    picture.paste(area, (left, top))

    draw = ImageDraw.Draw(picture)
    right, bottom = left + wide, top + tall
    draw.rectangle((left, top, right, bottom), outline="#444444", width=_FINE)
    for place, text in across.ticks:
        draw.line((left + place, bottom, left + place, bottom + gap // 2), "#444444", _FINE)
        draw.text((left + place, bottom + gap), text, "#222222", font, anchor="ma")
    for place, text in up.ticks:
        draw.line((left - gap // 2, bottom - place, left, bottom - place), "#444444", _FINE)
        draw.text((left - gap, bottom - place), text, "#222222", font, anchor="rm")
    middle = left + wide / 2
    draw.text((middle, bottom + line + gap), _drawable(xlabel), "black", font, anchor="ma")
    draw.text((middle, gap // 2), _drawable(title), "black", font, anchor="ma")
    if ylabel:
        text = _drawable(ylabel)
        strip = Image.new("RGB", (math.ceil(font.getlength(text)), line), "white")
        ImageDraw.Draw(strip).text((0, 0), text, "black", font)
        strip = strip.rotate(90, expand=True)
        picture.paste(strip, (gap // 2, max(0, top + (tall - strip.height) // 2)))
    for i, name in enumerate(legend):
        start, level = right + gap, top + line // 2 + i * (line + gap // 2)
        if name in curves:
            ends = (start, level, start + 3 * gap, level)
            draw.line(ends, fill=colours[name], width=2 * _FINE)
        if name in discs:
            disc = (start + gap, level - gap // 2, start + 2 * gap, level + gap // 2)
            draw.ellipse(disc, fill=colours[name])
        draw.text((start + 4 * gap, level), shown[name], "black", font, anchor="lm")
    return picture.reduce(_FINE)


class _Axis:
    """Where values lie along an axis of `length` pixels, and its ticks as (place, text)."""

    def __init__(
        self,
        argument: str,
        values: np.ndarray,
        log: bool,
        given: tuple[float, float] | None,
        length: int,
    ):
        self.log, self.length = log, length
        values = values[np.isfinite(values)]
        if given is not None:
            ends = [checks.number(argument, v, above=0 if log else None) for v in given]
            if not ends[0] < ends[1]:
                raise ValueError(f"{argument}: a lower and a higher number were expected: {given}")
        else:
            ends = [float(values.min()), float(values.max())] if values.size else [1.0, 2.0]
        low, high = np.log10(ends) if log else ends
        if low == high:
            margin = abs(low) / 2 or 0.5
        else:
            margin = 0.04 * (high - low)
        margin = 0 if given is not None else margin
        self.low, self.high = float(low - margin), float(high + margin)
        marks = _decades(self.low, self.high) if log else _round_steps(self.low, self.high)
        self.ticks = [(float(self.places(np.asarray(v))), f"{v:.6g}") for v in marks]

    def places(self, values: np.ndarray) -> np.ndarray:
        values = np.log10(values) if self.log else values
        return (values - self.low) / (self.high - self.low) * self.length


def _round_steps(low: float, high: float) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten, four to nine of them."""
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def _decades(low: float, high: float) -> list[float]:
    """Powers of ten, thinned where they are many; with 2 and 5 times these where they are few.

    Where there are none, round numbers as on any other axis.
    """
    first, last = math.floor(low), math.ceil(high)
    every = -(-(last - first) // 8)
    factors = (1, 2, 5) if high - low < 2 else (1,)
    marks = [m * 10.0**p for p in range(first, last + 1, every) for m in factors]
    marks = [mark for mark in marks if low - 1e-9 <= math.log10(mark) <= high + 1e-9]
    return marks if len(marks) > 1 else _round_steps(10**low, 10**high)


def _curves(
    argument: str, given: Curves | None, xlog: bool, ylog: bool
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    if given is not None and not isinstance(given, Mapping):
        raise TypeError(f"{argument}: a dict {{name: (x, y)}} was expected, given {given!r}")
    curves = {}
    for name, pair in (given or {}).items():
        x, y = (np.asarray(values, float) for values in pair)
        if x.ndim != 1 or x.shape != y.shape:
            raise ValueError(
                f"{argument}: x and y of one length were expected for {name!r}, given shapes "
                f"{x.shape} and {y.shape}"
            )
        for values, log in ((x, xlog), (y, ylog)):
            if np.isinf(values).any() or (log and (values <= 0).any()):
                what = "positive" if log else "finite"
                raise ValueError(f"{argument}: {what} numbers were expected for {name!r}")
        curves[str(name)] = x, y
    return curves


def _unbroken(path: np.ndarray) -> list[list[tuple[float, float]]]:
    """The stretches of (n, 2) between gaps."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for x, y in path.tolist():
        if math.isfinite(x + y):
            pieces[-1].append((x, y))
        elif pieces[-1]:
            pieces.append([])
    return [piece for piece in pieces if len(piece) > 1]
