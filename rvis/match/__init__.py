"""Matching: pictures driven until a network represents them as it represents others."""

from rvis.match.matching import Matching, interpolate, match

__all__ = ["Matching", "interpolate", "match"]
