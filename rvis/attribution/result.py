"""What an attribution gives back: a map for every image, with what made it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from rvis import checks, files, plots


@dataclasses.dataclass(frozen=True, eq=False)
class Attribution:
    """What a network saw in each of n images, by one method.

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
        if reduce == "max":
            return np.abs(self.maps).max(-1) if self.maps.ndim == 4 else np.abs(self.maps)
        return self.maps.sum(-1) if self.maps.ndim == 4 else self.maps

    def show(self, *, style: str = "beside", reduce: str = "sum") -> PIL.Image.Image:
        """The maps as one labelled grid; see `rvis.plots.overlay` for the styles."""
        return plots.grid(
            plots.overlay(self.images, self.heatmaps(reduce), style=style),
            titles=[str(label) for label in self.labels],
        )

    def save(self, folder: str | Path) -> Path:
        """Writes a PNG an image, the grid, the maps and a JSON card into `folder`.

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
          ['000_3.png', 'attribution.json', 'grid.png', 'maps.npy']
        """
        place = Path(folder)
        shown = plots.overlay(self.images, self.heatmaps(), style="beside")
        names = []
        for i, (picture, label) in enumerate(zip(shown, self.labels, strict=True)):
            tidy = "".join(c if c.isalnum() or c in "-_." else "-" for c in str(label))[:60]
            names.append(f"{i:03d}_{tidy}.png")
            plots.save(plots.grid(picture[None], pad=0), place / names[-1])
        plots.save(self.show(), place / "grid.png")
        arrays = {"maps": self.maps} | ({} if self.raw is None else {"raw": self.raw})
        for name, array in arrays.items():
            file = place / f"{name}.npy"
            with files.atomic(file) as temporary, open(temporary, "wb") as stream:
                np.save(stream, array)
        card = {
            "method": self.method,
            "images": names,
            "labels": [str(label) for label in self.labels],
            "scores": self.scores.tolist(),
            "gap": None if self.gap is None else self.gap.tolist(),
            "config": dict(self.config),
        }
        files.write_json(place / "attribution.json", card)
        return place
