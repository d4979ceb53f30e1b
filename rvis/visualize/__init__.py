"""Feature visualization: pictures of units, whole layers of them, and maps of activations."""

from rvis.visualize.atlas import Atlas, activation_atlas, activation_grid
from rvis.visualize.pictures import visualize
from rvis.visualize.plan import Options
from rvis.visualize.sweeps import sweep

__all__ = ["Atlas", "Options", "activation_atlas", "activation_grid", "sweep", "visualize"]
