"""What an attribution gives back: a map for every image, with what made it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from rvis import checks
from rvis.plotting import grids
from rvis.results import write


@dataclasses.dataclass(frozen=True, eq=False)
class Attribution:
    """What a network saw in each of n images, by one method; of one image without the axis n.

    Attributes:
      maps: (n, H, W, C), one number a value of the image, or (n, H, W), one a place.
      images: (n, H, W, C) the images themselves.
      scores: (n,) f(x), the score of the target.
      labels: (n,) the targets' titles.
      method: the function's name.
      raw: (n, h, w) or (n, h, w, c) at a layer's own resolution, where maps are enlarged from it.
      gap: (n,) f(x) − f(baseline) − Σ map, where the method is complete.
      config: the arguments and package versions, as JSON-able values.
    """

    maps: np.ndarray
    images: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    method: str
    raw: np.ndarray | None = None
    gap: np.ndarray | None = None
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def heatmaps(self, reduce: str = "sum") -> np.ndarray:
        """One number a place, (n, H, W).

        Args:
          reduce: "sum" over the channels, signed; or "max" of their absolute values, as Simonyan
            et al. 2013 show saliency.

        Raises:
          ValueError: naming `reduce`.

        Example:
          >>> import numpy as np
          >>> from rvis.attribution import Attribution
          >>> maps = np.array([3.0, -4.0, 0.0]).reshape(1, 1, 1, 3)
          >>> one = Attribution(maps, maps, np.zeros(1), np.array(["a"]), "gradient")
          >>> one.heatmaps().item(), one.heatmaps("max").item()
          (-1.0, 4.0)
        """
        checks.choice("reduce", reduce, ("sum", "max"))
        coloured = self.maps.ndim == self.images.ndim
        if reduce == "max":
            return np.abs(self.maps).max(-1) if coloured else np.abs(self.maps)
        return self.maps.sum(-1) if coloured else self.maps

    def show(self, *, style: str = "beside", reduce: str = "sum") -> PIL.Image.Image:
        """The maps as one labelled grid; see `rvis.plotting.grids.overlay` for the styles."""
        titles = [str(label) for label in np.reshape(self.labels, -1)]
        return grids.grid(self._overlays(style, reduce), titles=titles)

    def _overlays(self, style: str, reduce: str = "sum") -> np.ndarray:
        """(n, H, W, 3), with the axis n of one image too."""
        images = self.images.reshape(-1, *self.images.shape[-3:])
        maps = self.heatmaps(reduce).reshape(images.shape[:3])
        return grids.overlay(images, maps, style=style)

    def save(self, folder: str | Path) -> Path:
        """Writes a PNG of each map, the arrays, a JSON card and the figure into `folder`.

        Raises:
          OSError: naming the path, on a full disk or without permission.

        Example:
          >>> import tempfile, rvis
          >>> import numpy as np
          >>> from rvis import attribution
          >>> model = rvis.load("mnist_cnn")
          >>> result = attribution.gradient(model, np.zeros((28, 28, 1), np.float32), 3)
          >>> with tempfile.TemporaryDirectory() as folder:
          ...     sorted(path.name for path in result.save(folder).iterdir())
          ['arrays.npz', 'card.json', 'figure.png', 'images']
        """
        labels = [str(label) for label in np.reshape(self.labels, -1)]
        names = ("maps", "images", "scores", "raw", "gap")
        return write(
            folder,
            pictures=zip(labels, self._overlays("map"), strict=True),
            arrays={name: a for name in names if (a := getattr(self, name)) is not None},
            figure=self.show(),
            card={
                "method": self.method,
                "labels": labels,
                "scores": self.scores,
                "gap": self.gap,
                "config": dict(self.config),
            },
        )
