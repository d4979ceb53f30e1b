"""Feature visualization: pictures of units, whole layers of them, and maps of activations."""

from rvis.visualization.atlas import Atlas, activation_atlas, activation_grid
from rvis.visualization.dream import deepdream, zoom
from rvis.visualization.pictures import visualize
from rvis.visualization.plan import Options
from rvis.visualization.sweeps import sweep

__all__ = [
    "Atlas",
    "Options",
    "activation_atlas",
    "activation_grid",
    "deepdream",
    "sweep",
    "visualize",
    "zoom",
]
