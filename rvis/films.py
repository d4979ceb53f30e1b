"""Pictures that follow one another, as an animated file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image

from rvis import checks, files
from rvis.files import PathLike


def film(
    frames: Sequence[Image.Image], path: PathLike, *, rate: float = 12.0, hold: float = 1.0
) -> None:
    """Writes pictures as an animated WebP or GIF that loops, whole or not at all.

    Args:
      frames: PIL pictures of one size, such as those of `rvis.plots.grid` or `to_pil`.
      path: where to; it ends in ".webp" (lossless) or ".gif".
      rate: frames a second, in [0.1, 50].
      hold: seconds that the last frame stays, at least 0 beyond its own time.

    Raises:
      TypeError: naming the argument, for anything of another type.
      ValueError: naming it: no frames, frames of several sizes, another ending, `rate` or `hold`
        out of range.
      OSError: naming `path` and the reason, as in `rvis.files.atomic`.

    Example:
      >>> import pathlib, tempfile
      >>> import numpy as np
      >>> from rvis import films, plots
      >>> frames = [plots.to_pil(np.full((8, 8, 3), level)) for level in (0.0, 1.0)]
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     films.film(frames, f"{folder}/flash.gif")
      ...     [file.name for file in pathlib.Path(folder).iterdir()]
      ['flash.gif']
    """
    pictures = list(frames)
    if not pictures:
        raise ValueError("frames: at least one picture was expected, given none")
    if not all(isinstance(picture, Image.Image) for picture in pictures):
        raise TypeError(f"frames: PIL pictures were expected, given {_kinds(pictures)}")
    sizes = {picture.size for picture in pictures}
    if len(sizes) != 1:
        shown = ", ".join(f"{width}x{height}" for width, height in sorted(sizes))
        raise ValueError(f"frames: pictures of one size were expected, given {shown}")
    target = files.as_path("path", path)
    if target.suffix.lower() not in (".webp", ".gif"):
        raise ValueError(
            f"path: a name ending in .webp or .gif was expected, given {str(target)!r}"
        )
    milliseconds = round(1000 / checks.number("rate", rate, low=0.1, high=50))
    last = milliseconds + round(1000 * checks.number("hold", hold, low=0, high=60))
    durations = [milliseconds] * (len(pictures) - 1) + [last]
    with files.atomic(target) as beside:
        pictures[0].save(
            beside,
            save_all=True,
            append_images=pictures[1:],
            duration=durations,
            loop=0,
            lossless=True,
        )


def _kinds(values: Sequence[Any]) -> str:
    return ", ".join(sorted({type(value).__name__ for value in values}))
