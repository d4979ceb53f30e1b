"""Receptive fields: the pixels that a unit can see, by tracing the model."""

from rvis.analysis.receptive.fields import ReceptiveField, receptive_field

__all__ = ["ReceptiveField", "receptive_field"]
