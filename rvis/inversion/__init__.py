"""Inversion and matching: the pictures that a network represents as it represents others."""

from rvis.inversion.layers import Inversion, invert
from rvis.inversion.matching import Matching, interpolate, match
from rvis.inversion.plate import LayerInversions, invert_layers

__all__ = [
    "Inversion",
    "LayerInversions",
    "Matching",
    "interpolate",
    "invert",
    "invert_layers",
    "match",
]
