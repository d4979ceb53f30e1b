"""Feature visualization: pictures of units, and whole layers of them."""

from rvis.visualize.pictures import visualize
from rvis.visualize.plan import Options
from rvis.visualize.sweeps import sweep

__all__ = ["Options", "sweep", "visualize"]
