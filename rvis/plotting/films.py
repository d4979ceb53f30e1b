"""Pictures that follow one another, as an animated file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from PIL import Image

from rvis import checks, files
from rvis.files import PathLike


def film(frames: Sequence[Image.Image], path: PathLike, *, rate: float = 12.0) -> None:
    """Writes pictures as an animated WebP or GIF that loops, and holds its last for a second.

    Args:
      frames: PIL pictures of one size, such as those of `rvis.plotting.grids.grid` or `to_pil`.
      path: where to; it ends in ".webp" (lossless) or ".gif".
      rate: frames a second, in [0.1, 50].

    Raises:
      TypeError, ValueError: naming the argument, such as frames of several sizes.
      OSError: naming `path` and the reason, as in `rvis.files.atomic`.

    Example:
      >>> import tempfile
      >>> import numpy as np
      >>> from rvis.plotting import films, grids
      >>> frames = [grids.to_pil(np.full((8, 8, 3), level)) for level in (0.0, 1.0)]
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     films.film(frames, f"{folder}/flash.gif")
    """
    pictures = list(frames) if isinstance(frames, Iterable) else [frames]
    if not pictures:
        raise ValueError("frames: at least one picture was expected, given none")
    if not all(isinstance(picture, Image.Image) for picture in pictures):
        kinds = ", ".join(sorted({type(picture).__name__ for picture in pictures}))
        raise TypeError(f"frames: PIL pictures were expected, given {kinds}")
    sizes = {picture.size for picture in pictures}
    if len(sizes) != 1:
        shown = ", ".join(f"{width}x{height}" for width, height in sorted(sizes))
        raise ValueError(f"frames: pictures of one size were expected, given {shown}")
    target = files.as_path("path", path)
    if target.suffix.lower() not in (".webp", ".gif"):
        raise ValueError(f"path: a name ending in .webp or .gif was expected, given {target}")
    milliseconds = round(1000 / checks.number("rate", rate, low=0.1, high=50))
    durations = [milliseconds] * (len(pictures) - 1) + [milliseconds + 1000]
    with files.atomic(target) as beside:
        pictures[0].save(
            beside,
            save_all=True,
            append_images=pictures[1:],
            duration=durations,
            loop=0,
            lossless=True,
        )
