"""Pictures of results: grids, overlays, plots, films and pages."""

from rvis.plotting import figures, films, reports
from rvis.plotting.grids import grid, overlay, save, spritemap

__all__ = ["figures", "films", "grid", "overlay", "reports", "save", "spritemap"]
