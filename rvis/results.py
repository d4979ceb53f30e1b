"""What a run gives back: pictures, scores, and what is needed to run it again."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import platform
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image

from rvis import files
from rvis.plotting import figures, grids


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """What a run gave, with what is needed to run it again.

    Attributes:
      images: (..., H, W, C) float32 in [0, 1].
      scores: (..., steps) the objective before each step, on what the model saw in it.
      labels: (...) one title a picture.
      snapshots: {step: images after that many steps}.
      dead: (...) bool, True where the score was the same at every step: that unit never moved, and
        its picture means nothing.
      config: the arguments (large arrays by their digest), the key's data and package versions, as
        JSON-able values.
      alpha: (..., H, W) in [0, 1], how opaque the pictures are to be shown; None for wholly.
    """

    images: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    snapshots: Mapping[int, np.ndarray] = dataclasses.field(default_factory=dict)
    dead: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((), bool))
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    alpha: np.ndarray | None = None

    def show(self) -> PIL.Image.Image:
        """The pictures as one labelled grid; snapshots, if any, as rows over the steps.

        Example:
          >>> import numpy as np
          >>> from rvis.results import Result
          >>> result = Result(np.zeros((2, 8, 8, 3)), np.zeros((2, 1)), np.array(["a", "b"]))
          >>> result.show().mode
          'RGB'
        """
        titles = [
            f"{label} (dead)" if dead else str(label)
            for label, dead in zip(self._flat_labels(), self._flat_dead(), strict=True)
        ]
        if not self.snapshots:
            shown = self._shown(self._opaque(self.images))
            return grids.grid(shown, titles=titles, alpha=self.alpha is not None)
        stages = [self._shown(images) for images in self.snapshots.values()]
        return grids.grid(
            np.stack(stages, 1),
            titles=[f"step {step}" for step in self.snapshots],
            row_titles=titles,
        )

    def save(self, folder: str | Path) -> Path:
        """Writes a PNG of each picture, the arrays, a JSON card and the figure; see `write`.

        Example:
          >>> import numpy as np, tempfile
          >>> from rvis.results import Result
          >>> result = Result(np.zeros((2, 8, 8, 3)), np.zeros((2, 1)), np.array(["a", "b"]))
          >>> with tempfile.TemporaryDirectory() as folder:
          ...     place = result.save(folder)
          ...     print(*sorted(path.name for path in place.rglob("*.*")))
          00000_a.png 00001_b.png arrays.npz card.json figure.png
        """
        arrays = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        arrays |= {f"snapshot_{step}": images for step, images in self.snapshots.items()}
        return write(
            folder,
            pictures=zip(self._flat_labels(), self._opaque(self.images), strict=True),
            alpha=self.alpha is not None,
            # Numbers only: an array of objects, such as titles, could be read by pickle alone.
            arrays={
                name: array
                for name, array in arrays.items()
                if isinstance(array, np.ndarray) and array.dtype.kind in "biuf"
            },
            figure=self.show(),
            card={
                "labels": [str(label) for label in self._flat_labels()],
                "dead": self._flat_dead(),
                "final_scores": self.scores[..., -1].reshape(-1),
                "config": dict(self.config),
            },
        )

    def _shown(self, images: np.ndarray) -> np.ndarray:
        """The pictures, with a cross in the place of those that mean nothing."""
        height, width, channels = images.shape[-3:]
        rows, columns = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
        thick = 3 / min(height, width)
        crossed = (np.abs(rows - columns) < thick) | (np.abs(rows + columns) < thick)
        cross = np.repeat(np.where(crossed, 0.3, 0.7)[..., None], channels, -1)
        dead = self._flat_dead()[:, None, None, None]
        return np.where(dead, cross.astype(np.float32), self._flat(images))

    def _opaque(self, images: np.ndarray) -> np.ndarray:
        """The pictures one after another, with their opacity where they have one."""
        flat = self._flat(images)
        if self.alpha is None:
            return flat
        return np.concatenate([flat, self.alpha.reshape(*flat.shape[:-1], 1)], -1)

    def _flat(self, images: np.ndarray) -> np.ndarray:
        return images.reshape(-1, *images.shape[-3:])

    def _flat_labels(self) -> np.ndarray:
        return np.broadcast_to(self.labels, self.images.shape[:-3]).reshape(-1)

    def _flat_dead(self) -> np.ndarray:
        dead = self.dead
        if 0 < dead.ndim < self.images.ndim - 3:
            dead = dead[..., None]
        return np.broadcast_to(dead, self.images.shape[:-3]).reshape(-1)


def write(
    folder: str | Path,
    *,
    card: Mapping[str, Any],
    pictures: Iterable[tuple[object, np.ndarray]] = (),
    alpha: bool = False,
    arrays: Mapping[str, Any] | None = None,
    figure: PIL.Image.Image | None = None,
    plot: Callable[[], Any] | None = None,
) -> Path:
    """Writes what a result has into a folder, in the layout that all results share.

    The pictures as they are go to `images/`, the numbers to `arrays.npz`, the card to `card.json`,
    the figure to `figure.png`, and the plot to `plot.png` where matplotlib is installed.

    Args:
      folder: where to; made if it is not there.
      card: what JSON can hold, as `rvis.files.write_json` takes it. The pictures' places are added.
      pictures: (name, (H, W, C) in [0, 1]) of each, drawn as by `rvis.plotting.grids.to_pil`. The
        file's name is the picture's number and its name, where special characters become "-".
      alpha: whether the pictures' last channel is their opacity.
      arrays: {name: array}.
      figure: what `show()` gives.
      plot: gives matplotlib axes; called only where matplotlib is installed.

    Example:
      >>> import tempfile, numpy as np
      >>> from rvis import results
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     place = results.write(folder, card={}, pictures=[("a/b", np.ones((8, 8, 1)))])
      ...     sorted(path.relative_to(place).as_posix() for path in place.rglob("*.*"))
      ['card.json', 'images/00000_a-b.png']
    """
    place = Path(folder)
    names = []
    for i, (name, image) in enumerate(pictures):
        tidy = "".join(c if c.isalnum() or c in "-_." else "-" for c in str(name))[:60]
        names.append(f"images/{i:05d}_{tidy}.png")
        grids.save(grids.to_pil(image, alpha=alpha), place / names[-1])
    if arrays:
        with files.atomic(place / "arrays.npz") as beside, open(beside, "wb") as stream:
            np.savez(stream, **{name: np.asarray(array) for name, array in arrays.items()})  # type: ignore[arg-type]
    if figure is not None:
        grids.save(figure, place / "figure.png")
    if plot is not None and figures.available():
        figures.save(plot(), place / "plot.png")
    files.write_json(place / "card.json", {**({"images": names} if names else {}), **card})
    return place


def wilson(share: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's 95 % interval of a share of `count` draws, low and high.

    Example:
      >>> from rvis.results import wilson
      >>> [float(bound.round(3)) for bound in wilson(0.5, 100)]
      [0.404, 0.596]
    """
    p, z = np.asarray(share), 1.96
    centre = (p + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(p * (1 - p) / count + z**2 / (4 * count**2))
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)


def describe(**arguments: Any) -> dict[str, Any]:
    """Arguments as JSON-able values, with the versions that produced a result.

    Example:
      >>> from rvis.results import describe
      >>> sorted(describe(steps=3))
      ['steps', 'versions']
    """
    return {
        **{name: _plain(value) for name, value in arguments.items()},
        "versions": dict(_versions()),
    }


@functools.cache
def _versions() -> Mapping[str, str]:
    """Reading them takes milliseconds."""
    versions = {"python": platform.python_version()}
    for package in ("rvis", "jax", "jaxlib", "flax", "optax", "numpy"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "unknown"
    return versions


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return {"key": np.asarray(jax.random.key_data(value)).tolist()}
    if isinstance(value, (np.ndarray, jax.Array)):
        array = np.ascontiguousarray(value)
        if array.size <= 4096:
            return array.tolist()
        digest = hashlib.sha256(array.tobytes()).hexdigest()[:16]
        return f"array of {array.shape}, SHA-256 {digest}"
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list, range)):
        return [_plain(v) for v in value]
    if inspect.isfunction(value):  # its `repr` is an address
        return f"{value.__module__}.{value.__qualname__}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": type(value).__name__, **fields}
    return repr(value)
