"""Where data lie: how many dimensions they have, and how far adversarial points leave them."""

from rvis.analysis.manifold.dimension import Dimension, intrinsic_dimension, local_dimension
from rvis.analysis.manifold.distance import DataDistance, distance_to_data
from rvis.analysis.manifold.linear import LinearShift, linear_shift

__all__ = [
    "DataDistance",
    "Dimension",
    "LinearShift",
    "distance_to_data",
    "intrinsic_dimension",
    "linear_shift",
    "local_dimension",
]
