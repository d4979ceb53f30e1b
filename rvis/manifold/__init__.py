"""Where data lie: how many dimensions they have, and how far adversarial points leave them."""

from rvis.manifold.dimension import (
    Dimension,
    intrinsic_dimension,
    layer_dimensions,
    layer_local_dimensions,
    local_dimension,
)
from rvis.manifold.distance import DataDistance, distance_to_data
from rvis.manifold.linear import LinearShift, linear_shift
from rvis.manifold.toy import Toy, toy

__all__ = [
    "DataDistance",
    "Dimension",
    "LinearShift",
    "Toy",
    "distance_to_data",
    "intrinsic_dimension",
    "layer_dimensions",
    "layer_local_dimensions",
    "linear_shift",
    "local_dimension",
    "toy",
]
