"""What a run gives back: pictures, scores, and what is needed to run it again."""

from __future__ import annotations

import dataclasses
import hashlib
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image

from rvis import files, plots


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
            return plots.grid(self._shown(self._opaque(self.images)), titles=titles)
        stages = [self._shown(images) for images in self.snapshots.values()]
        return plots.grid(
            np.stack(stages, 1),
            titles=[f"step {step}" for step in self.snapshots],
            row_titles=titles,
        )

    def save(self, folder: str | Path) -> Path:
        """Writes a PNG a picture, the grid, the scores and a JSON card into `folder`.

        Raises:
          OSError: naming the path, on a full disk or without permission.

        Example:
          >>> import numpy as np, tempfile, pathlib
          >>> from rvis.results import Result
          >>> result = Result(np.zeros((2, 8, 8, 3)), np.zeros((2, 1)), np.array(["a", "b"]))
          >>> with tempfile.TemporaryDirectory() as folder:
          ...     sorted(path.name for path in result.save(folder).iterdir())
          ['000_a.png', '001_b.png', 'grid.png', 'result.json', 'scores.npy']
        """
        place = Path(folder)
        names = []
        for i, (image, label) in enumerate(
            zip(self._opaque(self.images), self._flat_labels(), strict=True)
        ):
            tidy = "".join(c if c.isalnum() or c in "-_." else "-" for c in str(label))[:60]
            names.append(f"{i:03d}_{tidy}.png")
            plots.save(plots.to_pil(image), place / names[-1])
        plots.save(self.show(), place / "grid.png")
        with files.atomic(place / "scores.npy") as temporary, open(temporary, "wb") as stream:
            np.save(stream, self.scores)
        card = {
            "images": names,
            "labels": [str(label) for label in self._flat_labels()],
            "dead": self._flat_dead().tolist(),
            "final_scores": self.scores[..., -1].reshape(-1).tolist(),
            "config": dict(self.config),
        }
        files.write_json(place / "result.json", card)
        return place

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
        if dead.ndim < self.images.ndim - 3:
            dead = dead[..., None] if dead.ndim else dead
        return np.broadcast_to(dead, self.images.shape[:-3]).reshape(-1)


def describe(**arguments: Any) -> dict[str, Any]:
    """Arguments as JSON-able values, with the versions that produced a result.

    Example:
      >>> from rvis.results import describe
      >>> sorted(describe(steps=3))
      ['steps', 'versions']
    """
    packages = ("rvis", "jax", "jaxlib", "flax", "optax", "numpy")
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "unknown"
    return {**{name: _plain(value) for name, value in arguments.items()}, "versions": versions}


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
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": type(value).__name__, **fields}
    return repr(value)
