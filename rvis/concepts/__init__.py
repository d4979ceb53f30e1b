"""Directions that a layer uses: groups of neurons, their pictures, maps and effects on classes."""

from rvis.concepts import groups

__all__ = ["groups"]
