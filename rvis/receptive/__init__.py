"""Receptive fields: the pixels that a unit can see, by tracing the model, and those it heeds."""

from rvis.receptive.fields import (
    EffectiveField,
    ReceptiveField,
    effective_field,
    receptive_field,
)

__all__ = ["EffectiveField", "ReceptiveField", "effective_field", "receptive_field"]
