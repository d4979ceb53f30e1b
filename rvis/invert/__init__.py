"""Inversion: the pictures that a layer cannot tell from a given one."""

from rvis.invert.inversion import Inversion, invert
from rvis.invert.plate import LayerInversions, invert_layers

__all__ = ["Inversion", "LayerInversions", "invert", "invert_layers"]
