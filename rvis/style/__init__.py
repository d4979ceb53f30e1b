"""Texture and style: pictures whose features go together as another picture's do."""

from rvis.style.climb import StyleResult
from rvis.style.colours import match_histogram
from rvis.style.layers import statistics
from rvis.style.synthesis import texture, transfer

__all__ = ["StyleResult", "match_histogram", "statistics", "texture", "transfer"]
